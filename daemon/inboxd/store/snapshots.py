"""What a snapshot is of: its moment and its scope; and which snapshots are refused or skipped."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from inboxd.errors import FileFault
from inboxd.model import Cursor, Feed, Scalar
from inboxd.records.decode import Reading
from inboxd.store.cursors import at_or_below, furthest
from inboxd.store.file import FileTransaction


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One file of a snapshot feed; ``scope`` is ``None`` where the file, being empty, does not tell."""

    as_of: Cursor
    scope: tuple[Scalar, ...] | None

    def is_old(self, watermark: Cursor | None) -> bool:
        """Tell whether one of this moment or a later one was applied."""
        return watermark is not None and at_or_below(self.as_of, watermark)


def snapshot_of(feed: Feed, reading: Reading, tx: FileTransaction, now: datetime) -> Snapshot:
    """Return what a staged file is a snapshot of; raises ``FileFault`` where it cannot be told, or cannot be yet."""
    as_of = reading.as_of
    assert as_of is not None  # noqa: S101 - a snapshot feed always has it
    assert feed.as_of is not None  # noqa: S101 - the same
    limit = furthest(feed, now)
    if limit is not None and str(as_of) > str(limit):
        message = f"the snapshot is of {as_of}, more than max_future ahead of the clock"
        raise FileFault(
            "future_as_of", message, "set the sender's clock right, or say with as_of which moment is meant"
        )
    scope = reading.scope
    found = tx.scopes()
    if scope is None and len(found) > 1:
        names = ", ".join(feed.scope)
        message = f"the file has records of several scopes ({names}): {found[0]} and {found[1]}, at least"
        raise FileFault("snapshot_scope", message, "a file is the snapshot of one scope: split it")
    if scope is None and found:
        scope = found[0]
    return Snapshot(as_of, scope)


def refuse_unfit(feed: Feed, tx: FileTransaction, snapshot: Snapshot, *, records: int, rejected: int) -> None:
    """Refuse a file that cannot be everything there is; ``records`` are those that ``where`` has left."""
    if rejected:
        faults = [
            {"record_no": one.record_no, "key": one.record_key, "code": one.code, "detail": one.detail}
            for one in tx.first_faults(100)
        ]
        message = f"{rejected} of {records} records were rejected: the rows that they name would count as absent"
        details: dict[str, object] = {"rejected_by_code": dict(tx.rejected_counts()), "faults": faults}
        raise FileFault("snapshot_incomplete", message, details=details)
    if not records and (not feed.allow_empty or snapshot.scope is None):
        message = "the snapshot has no records: every row in its scope would be deleted"
        hint = f"if that is right, set allow_empty = true in [feeds.{feed.name}]"
        if feed.allow_empty:
            hint = "the scope is read from records, and there are none: take it from $path., $file. or $. instead"
        raise FileFault("snapshot_empty", message, hint)
