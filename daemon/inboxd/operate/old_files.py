"""Processed files whose time is over: only what the ledger says inboxd archived is removed, proven by its content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

from inboxd.clock import Clock, stamp
from inboxd.inbox.archive import entered
from inboxd.inbox.faults import transient_fault
from inboxd.inbox.names import Names, spellings
from inboxd.inbox.tree import Folder, is_no_folder, is_regular
from inboxd.model import printable
from inboxd.outcomes import RunStatus
from inboxd.store.database import Store

RUNS_AT_ONCE: Final = 500
"""Runs looked at in one slice: some 5 ms."""
BYTES_AT_ONCE: Final = 4 << 20
"""Bytes hashed in one slice: some 5 ms."""
_CHUNK: Final = 1 << 20
STRANGERS: Final = 10_000
"""Files of others that are remembered, so that they are not hashed again in each round (about 1 MB)."""


class Old(NamedTuple):
    """A run whose file's time is over."""

    id: int
    file_name: str
    file_size: int
    content_sha256: str


class OldFiles:
    """Removes processed files that long (seconds) after their run ended, a little at a time.

    What is not the ledger's is never touched: a file is removed if a run of its name ended long enough ago, if it has
    the content that this run loaded, and if it was put there that long ago (its ctime, which nobody can set). Runs are
    gone through in the order of their numbers, and each round begins where the last one had nothing more to do.
    """

    def __init__(self, store: Store, processed: Path, keep_s: float, clock: Clock) -> None:
        self._store = store
        self._processed = processed
        self._keep_s = keep_s
        self._clock = clock
        self._done = 0  # no run up to this number has a file that could still go
        self._strangers: set[tuple[int, int, int]] = set()

    def round(self, removed: Callable[[str], None]) -> Iterator[None]:
        """Look at everything once; ``removed`` is told the name of each file that is. Raises ``TransientFault``."""
        since = self._clock.now() - timedelta(seconds=self._keep_s)
        before, last = stamp(since), self._done
        again = self._first_not_due(before)
        while runs := self._runs(before, last):
            gone: list[int] = []
            for run in runs:
                last = run.id
                left = yield from self._remove(run, since.timestamp(), removed)
                if left is None:
                    again = run.id if again is None else min(again, run.id)
                elif left:
                    gone.append(run.id)
            self._note(gone)
            yield
        self._done = last if again is None else min(again - 1, last)

    def _first_not_due(self, before: str) -> int | None:
        """Return the first run that has not ended, or not long enough ago."""
        import sqlalchemy as sa  # noqa: PLC0415 - SQLAlchemy: only where something is to go

        from inboxd.store.tables import etl_runs  # noqa: PLC0415 - the same

        runs = etl_runs.c
        due = sa.and_(runs.finished_at.is_not(None), runs.finished_at < before)
        query = sa.select(sa.func.min(runs.id)).where(runs.id > self._done, runs.claim.is_not(None), sa.not_(due))
        with self._store.reading() as connection:
            first: int | None = connection.scalar(query)
            return first

    def _runs(self, before: str, after: int) -> list[Old]:
        """Return the next runs whose time is over and whose file is not known to be gone."""
        import sqlalchemy as sa  # noqa: PLC0415 - SQLAlchemy: only where something is to go

        from inboxd.store.tables import etl_runs  # noqa: PLC0415 - the same

        runs = etl_runs.c
        query = (
            sa.select(runs.id, runs.file_name, runs.file_size, runs.content_sha256)
            .where(runs.id > after, runs.status == RunStatus.SUCCESS.value, runs.finished_at < before)
            .where(runs.claim.is_not(None), runs.content_sha256.is_not(None), runs.file_removed.is_(None))
            .order_by(runs.id)
            .limit(RUNS_AT_ONCE)
        )
        with self._store.reading() as connection:
            return [Old(*row) for row in connection.execute(query)]

    def _note(self, run_ids: list[int]) -> None:
        """Let the ledger know that these runs' files are gone on purpose."""
        if not run_ids:
            return
        import sqlalchemy as sa  # noqa: PLC0415 - SQLAlchemy: only where something is to go

        from inboxd.store.tables import etl_runs  # noqa: PLC0415 - the same

        now = stamp(self._clock.now())
        with self._store.writing() as connection:
            connection.execute(sa.update(etl_runs).where(etl_runs.c.id.in_(run_ids)).values(file_removed=now))

    def _remove(self, run: Old, since: float, removed: Callable[[str], None]) -> Generator[None, None, bool | None]:
        """Remove a run's file; tell whether that was done, ``None`` if it was put there too lately."""
        found: bool | None = False
        try:
            for name in spellings(run.file_name):
                below, _, base = name.rpartition("/")
                with Folder.root(self._processed) as top, entered(top, below, run.id) as (folder, way):
                    for new in Names(base, run.id):
                        done = yield from self._remove_one(folder, new, run, since)
                        if done:
                            removed(printable(f"{way}/{new}" if way else new))
                            top.remove_empty(way)
                            return True
                        found = None if done is None else found
                        if new != base and not folder.has(new):
                            break
        except OSError as error:
            if not is_no_folder(error):
                raise transient_fault(error, "removing old processed files", self._processed) from error
        return found

    def _remove_one(self, folder: Folder, name: str, run: Old, since: float) -> Generator[None, None, bool | None]:
        found = folder.look(name) if folder.has(name) else None
        if found is None or not is_regular(found) or found.st_size != run.file_size or _key(found) in self._strangers:
            return False
        if found.st_ctime >= since:
            return None
        content = yield from _hash(folder, name)
        if content == run.content_sha256 and _key(folder.look(name)) == _key(found):
            folder.unlink(name)
            return True
        if content is not None and len(self._strangers) < STRANGERS:
            self._strangers.add(_key(found))
        return False


def _key(found: os.stat_result) -> tuple[int, int, int]:
    """Return what no file shares with another, nor with itself after a change."""
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _hash(folder: Folder, name: str) -> Generator[None, None, str | None]:
    """Hash a file, a piece in each slice; ``None`` if it may not be read."""
    try:
        fd = folder.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except PermissionError:
        return None
    found, hashed = hashlib.sha256(), 0
    try:
        while chunk := os.read(fd, _CHUNK):
            found.update(chunk)
            hashed += len(chunk)
            if hashed % BYTES_AT_ONCE == 0:
                yield
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # it was read to be removed, not to be kept in memory
    finally:
        os.close(fd)
    return found.hexdigest()
