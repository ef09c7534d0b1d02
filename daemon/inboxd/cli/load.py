"""``inboxd load`` and ``inboxd check``: files where they are, in one shot."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from inboxd.cli.arguments import FEED, GivenFile, OneFile, Text
from inboxd.cli.asking import MAX_DELETED, YES, allowing, ask_before_old_values
from inboxd.cli.context import checking_store, print_json, settings_of, write_json, writing_store
from inboxd.cli.names import feed_named
from inboxd.cli.progress import Phase, Progress, left_undone, progress_over
from inboxd.clock import SystemClock
from inboxd.config import Settings, captures, match_feed
from inboxd.errors import EXIT_FAILED, FileFault
from inboxd.garbage import collect_seldom
from inboxd.model import Feed, Limit, Origin, Outcome, RunStatus, Verdict, origin_of, printable
from inboxd.store.base import Classified

if TYPE_CHECKING:
    from inboxd.pipeline import Job, Pipeline
    from inboxd.store.base import Store

MAX_ERRORS: Final = 100
"""How many rejects ``errors`` lists, for all files together."""


AS_NAME: Final = click.option(
    "--as", "as_name", type=Text(), metavar="PATH", help="The path in the inbox that the file is to be taken for."
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
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    settings = settings_of(context, database_url=database_url)
    feeds = [allowing(feed, max_deleted) for feed in _feeds_for(settings, files, feed_name, as_name)]
    if force:
        ask_before_old_values(feeds, yes=yes, snapshots=True)
    started = time.monotonic()
    with writing_store(settings) as store, progress_over(files) as progress:
        pipeline = _pipeline(settings, store, progress)
        collect_seldom()
        verdicts: list[Verdict] = []
        with left_undone(lambda: _undone(files, len(verdicts), progress)):
            for name, feed in zip(files, feeds, strict=True):
                job = _job(settings, name, feed, progress, as_name=as_name, force=force)
                verdicts.append(pipeline.process(job))
        counted = store.table_counts(feeds)
        watermark = next((row.value for row in store.watermarks() if row.name == feeds[-1].name), None)
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
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    settings = settings_of(context)
    feeds = _feeds_for(settings, files, feed_name, as_name)
    with checking_store(settings) as store, progress_over(files) as progress:
        pipeline = _pipeline(settings, store, progress)
        found = [
            _classify(pipeline, _job(settings, name, feed, progress, as_name=as_name))
            for name, feed in zip(files, feeds, strict=True)
        ]
    if as_json:
        print_json({"files": found})
    else:
        from inboxd.cli.tables import print_checks  # noqa: PLC0415 - rich is imported only on a terminal

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


def _pipeline(settings: Settings, store: Store, progress: Progress) -> Pipeline:
    from inboxd.pipeline import Pipeline  # noqa: PLC0415 - `--help` needs none of it

    return Pipeline(store, SystemClock(), os.uname().nodename, settings.inbox.max_file_size, progress.hook)


def _feeds_for(settings: Settings, files: Sequence[str], feed_name: str | None, as_name: str | None) -> list[Feed]:
    """Return the feed of each file; what the feed reads of a file's path must be in it."""
    if as_name is not None and len(files) > 1:
        msg = "--as is the path of one file in the inbox; name one file"
        raise click.UsageError(msg)
    feeds = [_feed_for(settings, name, feed_name, as_name) for name in files]
    for name, feed in zip(files, feeds, strict=True):
        if reads_path(feed) and captures(feed, as_name or name, tail=as_name is None) is None:
            msg = (
                f"feed {feed.name!r} reads parts of the path, and {printable(as_name or name)!r} ends in none of "
                f"{', '.join(map(repr, feed.match))}; give the path in the inbox with --as"
            )
            raise click.UsageError(msg)
    return feeds


def _feed_for(settings: Settings, name: str, feed_name: str | None, as_name: str | None) -> Feed:
    """Return the feed of a file: as named, or matched by its path in the inbox, or by the end of its path."""
    if feed_name is not None:
        return feed_named(settings, feed_name)
    if as_name is not None:
        name = str(settings.inbox.path / as_name)
    path = Path(os.path.abspath(name))  # noqa: PTH100 - Path.resolve would follow a symlink out of the inbox
    inside = path.is_relative_to(settings.inbox.path)
    found = match_feed(settings.feeds, str(path.relative_to(settings.inbox.path)) if inside else path.name)
    if found is None and not inside:
        found = next((feed for feed in settings.feeds if captures(feed, str(path), tail=True) is not None), None)
    if found is None:
        msg = f"no feed matches {printable(name)!r}; name one with --feed"
        raise click.UsageError(msg)
    return found


def reads_path(feed: Feed) -> bool:
    """Tell whether the feed reads what its ``match`` catches of a path."""
    return any(origin_of(path) is Origin.CAPTURE for path in feed.paths)


def _job(
    settings: Settings, name: str, feed: Feed, progress: Progress, *, as_name: str | None = None, force: bool = False
) -> Job:
    from inboxd.inbox.source import Source  # noqa: PLC0415 - `--help` needs none of it
    from inboxd.pipeline import Job, facts_of  # noqa: PLC0415 - `--help` needs none of it

    limit = settings.inbox.max_file_size
    found = Path(name).stat()
    return Job(
        feed=feed,
        file_name=printable(name),
        size=found.st_size,
        facts=facts_of(feed, name if as_name is None else as_name, found.st_mtime_ns, tail=as_name is None),
        open=lambda: progress.watching(Source(name, max_size=limit)),
        force=force,
    )


def _classify(pipeline: Pipeline, job: Job) -> dict[str, object]:
    """Return one file's forecast, every key always there."""
    from inboxd.forecast import forecast  # noqa: PLC0415 - `--help` needs none of it

    try:
        told = forecast(pipeline, job)
    except FileFault as fault:
        return _forecast(job, Classified(), fault=fault)
    return {
        **_forecast(job, told.found, fault=told.refused),
        "unnamed": _unnamed(job),
        "keys_repeat": told.keys_repeat,
        "duplicate_of": told.duplicate_of,
        "outdated_by": told.outdated_by,
        "rejected_by_code": told.rejected_by_code,
        "errors": [f"{one.record_key}: {one.code}" for one in told.faults],
        "faults": [
            {"record_no": one.record_no, "key": one.record_key, "code": one.code, "detail": one.detail}
            for one in told.faults
        ],
    }


def _unnamed(job: Job) -> dict[str, int]:
    """Return the fields that records have and the feed has not, each with how many have it, the most usual first."""
    from inboxd.infer.unnamed import unnamed_fields  # noqa: PLC0415 - only `check` asks

    with suppress(FileFault):  # said before
        found = unnamed_fields(partial(Path(job.file_name).open, "rb"), job.feed, now=datetime.now(UTC))
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
    return {
        "input_records": sum(verdict.counts.rows_in for verdict in verdicts),
        "staged": sum(verdict.counts.rows_out + verdict.counts.rows_stale for verdict in verdicts),
        "loaded": sum(verdict.counts.rows_out for verdict in verdicts),
        "rejected": sum(verdict.counts.rows_rejected for verdict in verdicts),
        "skipped": sum(verdict.counts.rows_skipped for verdict in verdicts),
        "stale": sum(verdict.counts.rows_stale for verdict in verdicts),
        "filtered": sum(verdict.counts.rows_filtered for verdict in verdicts),
        "deleted": sum(verdict.counts.rows_deleted for verdict in verdicts),
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
