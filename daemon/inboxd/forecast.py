"""What a file would do, from reading only: ``check``'s answer."""

from __future__ import annotations

from dataclasses import dataclass

from inboxd.errors import FileFault
from inboxd.model import Cursor, Mode
from inboxd.outcomes import Reject
from inboxd.pipeline import LISTED_FAULTS, Job, Pipeline, reads_all, repeated
from inboxd.records.surroundings import variant_of
from inboxd.store.base import Classified
from inboxd.store.file import FileTransaction
from inboxd.store.snapshots import Snapshot, refuse_unfit, snapshot_of
from inboxd.words import counted


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a file would do; with ``refused`` it would change nothing, and the counts tell what it is refused for."""

    found: Classified
    duplicate_of: int | None
    refused: FileFault | None
    outdated_by: Cursor | None
    """The watermark that a snapshot is not above: it would be skipped whole."""
    rejected_by_code: dict[str, int]
    faults: tuple[Reject, ...]
    keys_repeat: int
    """Records with the key of an earlier one of the file from which the cursor does not tell them apart."""


def forecast(pipeline: Pipeline, job: Job) -> Forecast:
    """Decode, stage and validate a file as ``Pipeline.process`` does, then tell what would become of it."""
    now, feed = pipeline.clock.now(), job.feed
    variant = variant_of(feed, job.facts)
    with job.open() as source, pipeline.store.transaction(0, feed, force=job.force, variant=variant) as tx:
        reading = pipeline.reading(job, source, now)
        for batch in reading.batches():
            tx.stage(batch)
        earlier = None if job.force else tx.duplicate_of(source.seal())
        snapshot, mark = None, None
        if feed.mode is Mode.SNAPSHOT:
            snapshot = snapshot_of(feed, reading, tx, now)
            tx.cover(snapshot.scope or ())
            mark = None if job.force or not snapshot.is_old(tx.watermark()) else tx.watermark()
            earlier = None if mark is None else earlier
        found = tx.classify(None if snapshot is not None or reads_all(job) else tx.watermark())
        if mark is not None:
            found = Classified(skipped=_considered(found), filtered=found.filtered)
        return Forecast(
            found=found,
            duplicate_of=earlier,
            refused=None if mark is not None or earlier is not None else _refused(job, tx, snapshot, found),
            outdated_by=mark,
            rejected_by_code={} if mark is not None else dict(tx.rejected_counts()),
            faults=() if mark is not None else tuple(tx.first_faults(LISTED_FAULTS)),
            keys_repeat=repeated(feed, tx, found.stale),
        )


def _refused(job: Job, tx: FileTransaction, snapshot: Snapshot | None, found: Classified) -> FileFault | None:
    """Return why ``load`` would refuse the whole file, in the order in which it asks."""
    feed, considered = job.feed, _considered(found)
    try:
        if snapshot is not None:
            refuse_unfit(feed, tx, snapshot, records=considered, rejected=found.rejected)
        tx.refuse_deletions(found.deleted)
    except FileFault as fault:
        return fault
    if not feed.max_rejected.exceeded(found.rejected, considered):
        return None
    msg = f"{counted(found.rejected, 'record')} would be rejected, more than max_rejected allows"
    return FileFault("too_many_rejected", msg, "mend the records, or raise the feed's max_rejected")


def _considered(found: Classified) -> int:
    return found.inserted + found.changed + found.deletions + found.stale + found.rejected
