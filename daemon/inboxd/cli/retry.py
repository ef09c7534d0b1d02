"""``inboxd retry``: files of ``failed/`` or ``processed/``, tried again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Final

import click

from inboxd.cli.arguments import FAILED_FILE
from inboxd.cli.asking import MAX_DELETED, YES, allowing, ask_before_old_values
from inboxd.cli.context import print_json, settings_of, writing_store
from inboxd.cli.progress import left_undone
from inboxd.cli.tables import Column, heading, print_table, print_text, shown
from inboxd.clock import SystemClock
from inboxd.config import Settings, match_feed
from inboxd.errors import EXIT_FAILED, InboxdError, OperatorFault, TransientFault
from inboxd.inbox.archive import Archive, Place, make_durable
from inboxd.inbox.claim import Claim, forget, new_claim_id
from inboxd.inbox.reports import remove_report, write_report
from inboxd.log import Logger, open_log
from inboxd.model import Feed, Limit, printable
from inboxd.operate.archived import all_failed, arrived, files_of_runs, first_mtime, name_in_inbox, named_files
from inboxd.operate.disk_ledger import unknown_processed
from inboxd.outcomes import Outcome, RunStatus, Verdict
from inboxd.pipeline import Job, Pipeline, facts_of
from inboxd.premises import own_archive
from inboxd.store.database import Store
from inboxd.verdicts import log_verdict, report_of

NO_FEED: Final = "no_feed"
ALREADY_LOADED: Final = "already loaded: undo that run first, or use `inboxd load --force`, which also mends rows"


@dataclass(frozen=True, slots=True)
class Retried:
    """How one file went: a verdict, or the fault for which it is back where it was."""

    source: Place
    name: str
    verdict: Verdict | None = None
    archived: Place | None = None
    fault: InboxdError | None = None


@click.command()
@click.argument("names", nargs=-1, type=FAILED_FILE, metavar="[NAME]…")
@click.option(
    "--all", "everything", is_flag=True, help="Every file in failed/, and those in processed/ that no run loaded."
)
@MAX_DELETED
@YES
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def retry(
    context: click.Context,
    names: tuple[str, ...],
    max_deleted: Limit | None,
    *,
    everything: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Load files of failed/ or processed/ again, with today's config and without the watermark.

    NAME is a path, or a path as below failed/ or processed/. For a file that was mended, a config that was corrected,
    a run that was undone, or a database restored from a backup. What is loaded already stays a duplicate.

    \b
    Example:  inboxd retry orders/2026-01-15.json
              inboxd retry data/processed/orders/*.json
              inboxd retry --all
    """
    if bool(names) == everything:
        msg = "name the files to retry, or say --all"
        raise click.UsageError(msg)

    settings = settings_of(context)
    chosen = all_failed(settings.archive) if everything else named_files(settings.archive, names)
    with writing_store(settings) as store, closing(own_archive(settings, store.identity())):
        if everything:
            chosen += unknown_processed(store, settings.inbox, settings.archive)
            chosen.sort(key=arrived)
        retrier = _Retrier.of(settings, store, max_deleted)
        ask_before_old_values(retrier.feeds_of(chosen), yes=yes)
        done: list[Retried] = []
        with left_undone(lambda: f"{len(done)} of {len(chosen)} files are done, the others are where they were"):
            done.extend(map(retrier.retry, chosen))
    if as_json:
        print_json({"files": [_as_json(one) for one in done]})
    else:
        _print(done)
    faults = [one.fault for one in done if one.fault is not None]
    if faults and len(faults) == len(done):
        raise faults[0]
    return EXIT_FAILED if any(one.verdict is None or one.verdict.outcome is Outcome.FAILED for one in done) else 0


@dataclass(frozen=True, slots=True)
class _Retrier:
    """What every file's way back needs."""

    settings: Settings
    store: Store
    pipeline: Pipeline
    archive: Archive
    log: Logger
    max_deleted: Limit | None

    @classmethod
    def of(cls, settings: Settings, store: Store, max_deleted: Limit | None) -> _Retrier:
        lines = settings.log
        log = open_log(fmt="json", level=lines.level, file=lines.file, out=None, layout=lines.layout)
        pipeline = Pipeline(store, SystemClock(), os.uname().nodename, settings.inbox.max_file_size)
        return cls(
            settings=settings,
            store=store,
            pipeline=pipeline,
            archive=Archive(settings.archive.processed, settings.archive.failed, copy=settings.archive.copy_files),
            log=log,
            max_deleted=max_deleted,
        )

    def feeds_of(self, files: Sequence[Place]) -> list[Feed]:
        """Return the feeds that files would be read for; those that none matches are told of when they are tried."""
        runs = files_of_runs(self.store)
        found = (match_feed(self.settings.feeds, name_in_inbox(runs, file.name)) for file in files)
        return [feed for feed in found if feed is not None]

    def retry(self, file: Place) -> Retried:
        """Take one file back, process it, put it where it now belongs."""
        name = name_in_inbox(files_of_runs(self.store), file.name)
        with ExitStack() as turn:
            try:
                feed = self._feed_of(name)
                turn.enter_context(self.store.turn(feed))
                root = os.fspath(self.settings.inbox.path)
                mtime = first_mtime(self.store, file, name)
                claim = self.archive.take_back(root, file, name, new_claim_id(retry=True))
            except InboxdError as fault:
                return Retried(file, name, fault=fault)
            try:
                verdict = self.pipeline.process(self._job_of(claim, feed, mtime))
            except TransientFault as fault:
                self._give_back(claim, file)
                return Retried(file, name, fault=fault)
            except BaseException:
                self._give_back(claim, file)
                raise
            return self._put_away(file, name, claim, verdict)

    def _job_of(self, claim: Claim, feed: Feed, mtime: str | None) -> Job:
        limit = self.settings.inbox.max_file_size
        return Job(
            feed=allowing(feed, self.max_deleted),
            file_name=printable(claim.name),
            size=claim.size,
            open=lambda: claim.source(max_size=limit),
            claim=claim.id,
            facts=facts_of(feed, claim.name, claim.mtime_ns, first_mtime=mtime),
            ignore_watermark=True,
        )

    def _feed_of(self, name: str) -> Feed:
        feed = match_feed(self.settings.feeds, name)
        if feed is None:
            hint = "add the path to the match of a feed"
            raise OperatorFault(NO_FEED, f"no feed matches {printable(name)!r}", hint, exit_code=EXIT_FAILED)
        return feed

    def _give_back(self, claim: Claim, file: Place) -> None:
        """Put a file that could not be processed back where it was; failing that, the daemon's next start does."""
        with suppress(TransientFault):
            self.archive.give_back(claim, file)
            forget(claim)
            self.store.drop_claim(claim.id)

    def _put_away(self, file: Place, name: str, claim: Claim, verdict: Verdict) -> Retried:
        """Archive a file whose verdict is committed, and say the verdict in the log."""
        failed = verdict.outcome is Outcome.FAILED
        try:
            place = self.archive.move(claim, self.archive.failed if failed else self.archive.processed, verdict.run_id)
            if failed:
                write_report(place, report_of(verdict))
            for undone in make_durable([place]).values():
                raise undone
            if file.folder == os.fspath(self.archive.failed) and place != file:
                remove_report(file)
        except TransientFault as fault:
            return Retried(file, name, verdict=verdict, fault=fault)
        log_verdict(self.log, verdict, archived=place.path)
        forget(claim)
        return Retried(file, name, verdict=verdict, archived=place)


def _as_json(one: Retried) -> dict[str, object]:
    verdict = one.verdict
    if verdict is None:
        outcome, status, counts = "deferred", None, {}
    else:
        failed = verdict.outcome is Outcome.FAILED
        outcome, status = verdict.outcome.value, (RunStatus.FAILURE if failed else RunStatus.SUCCESS).value
        counts = verdict.counts.named()
    return {
        "file": printable(one.name),
        "from": printable(one.source.path),
        "archived": None if one.archived is None else printable(one.archived.path),
        "outcome": outcome,
        "status": status,
        "run_id": verdict.run_id if verdict else None,
        "feed": verdict.feed if verdict else None,
        "duplicate_of": verdict.duplicate_of if verdict else None,
        **counts,
        "error_code": one.fault.code if one.fault else verdict.error_code if verdict else None,
        "error": one.fault.message if one.fault else verdict.error if verdict else None,
        "hint": one.fault.hint if one.fault else verdict.hint if verdict else None,
    }


def _print(done: list[Retried]) -> None:
    if not done:
        click.echo("nothing to retry: there is no file in failed/, and in processed/ none that no run has loaded")
        click.echo("(a file whose run was undone is retried by its name)")
        return
    deleted = any(one.verdict is not None and one.verdict.counts.rows_deleted for one in done)
    columns = [Column("file", cut="middle"), Column("outcome")]
    counts = ("run", "loaded", "rejected", "stale", *(["deleted"] if deleted else []))
    columns += [Column(name, number=True) for name in counts]
    columns.append(Column("now in", cut="middle", below=True))
    print_table(columns, [_line(one, deleted=deleted) for one in done])
    for one in done:
        verdict = one.verdict
        if one.fault is not None:
            _explain(one.name, one.fault.message, one.fault.hint)
        elif verdict is not None and verdict.outcome is Outcome.FAILED:
            _explain(one.name, verdict.error, verdict.hint)
        elif verdict is not None and verdict.outcome is Outcome.DUPLICATE:
            _explain(one.name, f"duplicate of run {verdict.duplicate_of}", ALREADY_LOADED)


def _line(one: Retried, *, deleted: bool) -> tuple[object, ...]:
    verdict = one.verdict
    if verdict is None:
        empty = (None,) * (5 if deleted else 4)
        return (printable(one.name), "not tried", *empty, printable(one.source.path))
    counts = verdict.counts
    about = (printable(one.name), verdict.outcome.value, verdict.run_id)
    told = (counts.rows_out, counts.rows_rejected, counts.rows_stale, *([counts.rows_deleted] if deleted else []))
    return (*about, *told, one.archived and printable(one.archived.path))


def _explain(name: str, what: str | None, remedy: str) -> None:
    heading(f"{shown(printable(name))}: {shown(what)}")
    if remedy:
        print_text(remedy, indent=2)
