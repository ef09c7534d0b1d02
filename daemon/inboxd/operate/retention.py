"""What is old goes, a little at a time: processed files, lineage, resolved dead letters, before-images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from inboxd.clock import Clock, stamp
from inboxd.config import ArchiveSettings, RetentionSettings
from inboxd.operate.old_files import OldFiles
from inboxd.store.database import Store

if TYPE_CHECKING:
    import sqlalchemy as sa

NAMED: Final = 100
"""Files that a round names; the count is exact."""
ROWS_AT_ONCE: Final = 5_000
"""Rows deleted in one transaction: some 20 ms, so that no file waits for more."""
SELDOM_S: Final = 3_600.0
OFTEN_S: Final = 1.0
SHARE: Final = 10
"""A round begins after a tenth of the shortest time that anything is kept, between a second and an hour."""


@dataclass(slots=True)
class Removed:
    """What one round has removed: processed files (the first of them by name), and rows."""

    files: int = 0
    names: list[str] = field(default_factory=list)
    lineage: int = 0
    resolved: int = 0
    images: int = 0
    tombstones: int = 0

    def file(self, name: str) -> None:
        """Count a file, and name it if it is one of the first."""
        self.files += 1
        if len(self.names) < NAMED:
            self.names.append(name)

    def __bool__(self) -> bool:
        return any((self.files, self.lineage, self.resolved, self.images, self.tombstones))


class Retention:
    """One round after another, in slices that the loop calls for when it has nothing else to do."""

    def __init__(self, store: Store, archive: ArchiveSettings, retention: RetentionSettings, clock: Clock) -> None:
        self._store = store
        self._files = None if archive.keep is None else OldFiles(store, archive.processed, archive.keep, clock)
        self._retention = retention
        self._clock = clock
        self._slices: Iterator[None] | None = None
        self._removed = Removed()
        kept = (archive.keep, retention.lineage, retention.resolved, retention.images, retention.tombstones)
        self._shortest = min((seconds for seconds in kept if seconds is not None), default=None)
        self.due = float("inf") if self._shortest is None else clock.monotonic()
        """When (monotonic seconds) the next slice is due; never, where everything is kept for ever."""

    def step(self) -> Removed | None:
        """Do one slice if it is due; at the end of a round, return what it removed. Raises ``TransientFault``."""
        if self._clock.monotonic() < self.due:
            return None
        if self._slices is None:
            self._slices, self._removed = self._round(), Removed()
        try:
            for _ in self._slices:
                return None
        except BaseException:
            self._rest()
            raise
        self._rest()
        return self._removed

    def whole(self) -> Removed:
        """Do what is left of this round, or a new one, at once. Raises ``TransientFault``."""
        removed = None
        while removed is None and self._shortest is not None:
            self.due = self._clock.monotonic()
            removed = self.step()
        return removed or Removed()

    def _rest(self) -> None:
        self._slices = None
        pause = (self._shortest or SELDOM_S * SHARE) / SHARE
        self.due = self._clock.monotonic() + min(max(pause, OFTEN_S), SELDOM_S)

    def _round(self) -> Iterator[None]:
        if self._files is not None:
            yield from self._files.round(self._removed.file)
        if self._retention.lineage is not None:
            yield from self._lineage(self._cutoff(self._retention.lineage))
        if self._retention.resolved is not None:
            yield from self._resolved(self._cutoff(self._retention.resolved))
        if self._retention.images is not None:
            yield from self._images(self._cutoff(self._retention.images))
        if self._retention.tombstones is not None:
            yield from self._tombstones(self._cutoff(self._retention.tombstones))

    def _cutoff(self, kept_s: float) -> str:
        return stamp(self._clock.now() - timedelta(seconds=kept_s))

    def _lineage(self, before: str) -> Iterator[None]:
        from inboxd.store.tables import lineage_records  # noqa: PLC0415 - SQLAlchemy: only where something is to go

        for count in self._rows_of_old_runs(lineage_records, before):
            self._removed.lineage += count
            yield

    def _images(self, before: str) -> Iterator[None]:
        from inboxd.store.tables import before_images  # noqa: PLC0415 - the same

        for count in self._rows_of_old_runs(before_images, before):
            self._removed.images += count
            yield

    def _tombstones(self, before: str) -> Iterator[None]:
        import sqlalchemy as sa  # noqa: PLC0415 - the same

        from inboxd.store.tables import tombstones  # noqa: PLC0415 - the same

        key = (tombstones.c.table_name, tombstones.c.record_key)
        old = sa.select(*key).where(tombstones.c.deleted_at < before).limit(ROWS_AT_ONCE)
        while True:
            with self._store.writing() as connection:
                count = connection.execute(sa.delete(tombstones).where(sa.tuple_(*key).in_(old))).rowcount
            self._removed.tombstones += count
            if not count:
                return
            yield

    def _rows_of_old_runs(self, table: sa.Table, before: str) -> Iterator[int]:
        """Delete a table's rows, run by run from the oldest: the runs' numbers are in the order of time."""
        import sqlalchemy as sa  # noqa: PLC0415 - the same

        from inboxd.store.tables import etl_runs  # noqa: PLC0415 - the same

        oldest = sa.select(sa.func.min(table.c.run_id))
        old = sa.select(etl_runs.c.id).where(etl_runs.c.finished_at < before)
        key = list(table.primary_key.columns)
        while True:
            with self._store.reading() as connection:
                run_id = connection.scalar(oldest)
                if run_id is None or connection.scalar(old.where(etl_runs.c.id == run_id)) is None:
                    return
            some = sa.select(*key).where(table.c.run_id == run_id).limit(ROWS_AT_ONCE)
            with self._store.writing() as connection:
                these = sa.delete(table).where(table.c.run_id == run_id, sa.tuple_(*key).in_(some))
                count = connection.execute(these).rowcount
            yield count

    def _resolved(self, before: str) -> Iterator[None]:
        import sqlalchemy as sa  # noqa: PLC0415 - the same

        from inboxd.store.tables import dead_letters, etl_runs  # noqa: PLC0415 - the same

        by = etl_runs.alias()
        some = (
            sa.select(dead_letters.c.id)
            .outerjoin(by, by.c.id == dead_letters.c.resolved_by)
            .where(dead_letters.c.resolved_by.is_not(None))
            .where(sa.func.coalesce(by.c.finished_at, dead_letters.c.created, type_=by.c.finished_at.type) < before)
            .limit(ROWS_AT_ONCE)
        )
        count = ROWS_AT_ONCE
        while count == ROWS_AT_ONCE:
            with self._store.writing() as connection:
                count = connection.execute(sa.delete(dead_letters).where(dead_letters.c.id.in_(some))).rowcount
            self._removed.resolved += count
            yield
