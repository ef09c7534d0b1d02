"""``inboxd load`` and ``inboxd check``: files where they are, in one shot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import click

from inboxd.cli.arguments import FEED, GivenFile, OneFile, Text
from inboxd.cli.asking import MAX_DELETED, YES, allowing, ask_before_old_values
from inboxd.cli.context import checking_store, print_json, settings_of, write_json, writing_store
from inboxd.cli.names import feed_named
from inboxd.cli.progress import Progress, left_undone, progress_over
from inboxd.cli.tables import print_checks
from inboxd.config import Settings
from inboxd.errors import EXIT_FAILED, FileFault
from inboxd.forecast import forecast
from inboxd.garbage import collect_seldom
from inboxd.infer.unnamed import unnamed_fields
from inboxd.model import Feed, Limit, printable
from inboxd.oneshot import feed_of, hold_against_path, inbox_path, job_of, pipeline_of
from inboxd.outcomes import TOLD, Counts, Outcome, RunStatus, Verdict
from inboxd.pipeline import Job, Pipeline
from inboxd.presence import Phase
from inboxd.store.base import Classified
from inboxd.store.cursors import newest_marks

MAX_ERRORS: Final = 100
"""How many rejects ``errors`` lists, for all files together."""


AS_NAME: Final = click.option(
    "--as",
    "as_name",
    type=Text(),
    metavar="PATH",
    callback=lambda _context, _option, said: said if said is None else inbox_path(said),
    help="The path in the inbox that the file is to be taken for.",
)


@click.command()
@click.argument("files", nargs=-1, required=True, type=GivenFile())
@click.option(
    "--feed", "feed_name", type=FEED, help="The feed to load into; without it, the first whose match fits the name."
)
@click.option("--db", "database_url", type=Text(), help="Another database than the configured one.")
@click.option("--output", type=OneFile(), help="Write the JSON result to this file as well.")
@AS_NAME
@click.option("--force", is_flag=True, help="Load again what was loaded: a reload mends rows, newer rows still win.")
@MAX_DELETED
@YES
@click.pass_context
def load(  # noqa: PLR0913 - an argument for each option
    context: click.Context,
    files: tuple[str, ...],
    feed_name: str | None,
    database_url: str | None,
    output: Path | None,
    as_name: str | None,
    max_deleted: Limit | None,
    *,
    force: bool,
    yes: bool,
) -> int:
    """Load files once, and leave them where they are. Prints one JSON object.

    \b
    Example:  inboxd load data/samples/clean.json
              inboxd load --feed orders --db sqlite:///try.db export/*.json
    """
    settings = settings_of(context, database_url=database_url)
    feeds = [allowing(feed, max_deleted) for feed in _feeds_for(settings, files, feed_name, as_name)]
    if force:
        ask_before_old_values(feeds, yes=yes, snapshots=True)
    started = time.monotonic()
    with writing_store(settings) as store, progress_over(files) as progress:
        pipeline = pipeline_of(settings, store, progress.hook)
        collect_seldom()
        verdicts: list[Verdict] = []
        with left_undone(lambda: _undone(files, len(verdicts), progress)):
            for name, feed in zip(files, feeds, strict=True):
                job = job_of(settings, store, name, feed, as_path=as_name, force=force, watching=progress.watching)
                with store.turn(feed):
                    verdicts.append(pipeline.process(job))
        counted = store.table_counts(feeds)
        watermark = newest_marks(store.watermarks(), feeds[-1:]).get(feeds[-1].name)
    result = {
        **_sums(verdicts),
        "target_rows": counted.target_rows,
        "dead_letters": counted.dead_letters,
        "lineage_entries": counted.lineage_entries,
        "watermark": watermark,
        "duration_ms": round((time.monotonic() - started) * 1000),
        "files": [_of_file(verdict) for verdict in verdicts],
    }
    print_json(result)
    if output is not None:
        write_json(output, result)
    return EXIT_FAILED if any(verdict.outcome is Outcome.FAILED for verdict in verdicts) else 0


@click.command()
@click.argument("files", nargs=-1, required=True, type=GivenFile())
@click.option(
    "--feed",
    "feed_name",
    type=FEED,
    help="The feed to check against; without it, the first whose match fits the name.",
)
@AS_NAME
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    context: click.Context, files: tuple[str, ...], feed_name: str | None, as_name: str | None, *, as_json: bool
) -> int:
    """Tell what files would do: inserted, changed, deleted, stale, skipped, rejected. Changes nothing.

    \b
    Example:  inboxd check orders.json
    """
    settings = settings_of(context)
    feeds = _feeds_for(settings, files, feed_name, as_name)
    with checking_store(settings) as store, progress_over(files) as progress:
        pipeline = pipeline_of(settings, store, progress.hook)
        found = [
            _classify(pipeline, name, job_of(settings, store, name, feed, as_path=as_name, watching=progress.watching))
            for name, feed in zip(files, feeds, strict=True)
        ]
    if as_json:
        print_json({"files": found})
    else:
        print_checks(found)
    return EXIT_FAILED if any(one["error_code"] or one["rejected"] for one in found) else 0


def _undone(files: Sequence[str], done: int, progress: Progress) -> str:
    """Return what an interruption left undone, after so many files."""
    if done == len(files):
        return "every file was loaded; only what is printed in the end is missing"
    name = printable(files[done])
    if progress.phase is Phase.COMMITTING:
        now = f"{name} was being committed: load it again to be sure, a file that is loaded is a duplicate"
    else:
        now = f"nothing of {name} was loaded"
    rest = len(files) - done - 1
    return f"{now}; loaded before it: {done}, not begun: {rest}" if done or rest else now


def _feeds_for(settings: Settings, files: Sequence[str], feed_name: str | None, as_name: str | None) -> list[Feed]:
    """Return the feed of each file; what the feed reads of a file's path must be in it."""
    if as_name is not None and len(files) > 1:
        msg = "--as is the path of one file in the inbox; name one file"
        raise click.UsageError(msg)
    named = None if feed_name is None else feed_named(settings, feed_name)
    feeds = [named or feed_of(settings, name, as_name) for name in files]
    for name, feed in zip(files, feeds, strict=True):
        hold_against_path(settings, feed, name, as_name)
    return feeds


def _classify(pipeline: Pipeline, name: str, job: Job) -> dict[str, object]:
    """Return one file's forecast, every key always there."""
    try:
        expected = forecast(pipeline, job)
    except FileFault as fault:
        return _forecast(job, Classified(), fault=fault)
    return {
        **_forecast(job, expected.found, fault=expected.refused),
        "unnamed": _unnamed(name, job.feed),
        "keys_repeat": expected.keys_repeat,
        "duplicate_of": expected.duplicate_of,
        "outdated_by": expected.outdated_by,
        "rejected_by_code": expected.rejected_by_code,
        "errors": [f"{one.record_key}: {one.code}" for one in expected.faults],
        "faults": [
            {"record_no": one.record_no, "key": one.record_key, "code": one.code, "detail": one.detail}
            for one in expected.faults
        ],
    }


def _unnamed(name: str, feed: Feed) -> dict[str, int]:
    """Return the fields that records have and the feed has not, each with how many have it, the most usual first."""
    with suppress(FileFault):  # said before
        found = unnamed_fields(partial(Path(name).open, "rb"), feed, now=datetime.now(UTC))
        return dict(found.counts.most_common())
    return {}


def _forecast(job: Job, found: Classified, *, fault: FileFault | None) -> dict[str, object]:
    return {
        "file": job.file_name,
        "feed": job.feed.name,
        "input_records": sum(asdict(found).values()) - found.deleted,
        **asdict(found),
        "duplicate_of": None,
        "outdated_by": None,
        "rejected_by_code": {},
        "errors": [],
        "faults": [],
        "unnamed": {},
        "keys_repeat": 0,
        "error_code": fault.code if fault else None,
        "error": fault.message if fault else None,
        "hint": fault.hint if fault else None,
        "place": asdict(fault.place) if fault and fault.place else None,
    }


def _sums(verdicts: Sequence[Verdict]) -> dict[str, object]:
    """Return the counts of all files together, under the names of the output object."""
    total = {name: sum(getattr(verdict.counts, name) for verdict in verdicts) for name in Counts.__slots__}
    return {
        "input_records": total["rows_in"],
        "staged": total["rows_out"] + total["rows_stale"],
        **{word: total[name] for name, word in TOLD.items()},
        "errors": [error for verdict in verdicts for error in verdict.errors][:MAX_ERRORS],
    }


def _of_file(verdict: Verdict) -> dict[str, object]:
    failed = verdict.outcome is Outcome.FAILED
    return {
        "file": verdict.file_name,
        "run_id": verdict.run_id,
        "status": (RunStatus.FAILURE if failed else RunStatus.SUCCESS).value,
        "error_code": verdict.error_code,
        "error": verdict.error,
        "hint": verdict.hint or None,
        "place": dict(zip(("line", "column", "byte"), verdict.place, strict=True)) if verdict.place else None,
        "duplicate_of": verdict.duplicate_of,
        **_sums([verdict]),
        "keys_repeat": verdict.keys_repeat,
        "watermark": verdict.watermark,
        "duration_ms": verdict.duration_ms,
    }
