"""The notices that wait to be delivered, in the database. Each receiver has its own row of each notice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final

import sqlalchemy as sa

from inboxd.store.base import NoticeRow
from inboxd.store.database import Store
from inboxd.store.tables import insert, notices

TURN: Final = 0x696E626F
"""The first key of the advisory locks that receivers' turns are taken by; the second is made of their names."""
OPEN: Final = sa.and_(notices.c.delivered_at.is_(None), notices.c.dropped_at.is_(None))


@dataclass(frozen=True, slots=True)
class Open:
    """The first notice of a receiver that is neither delivered nor given up."""

    number: int
    row: NoticeRow


@dataclass(frozen=True, slots=True)
class Box:
    """Questions and changes, each a transaction of its own; raises ``TransientFault`` where the database is away."""

    store: Store

    @contextmanager
    def turn(self, target: str) -> Iterator[bool]:
        """Tell whether this daemon may deliver to a receiver now; nobody else does as long as the block lasts.

        On SQLite there is one daemon. On PostgreSQL the lock ends with the transaction, and so with the daemon.
        """
        with self.store.reading() as connection:
            if connection.dialect.name != "postgresql":
                locked = None
            else:
                lock = sa.func.pg_try_advisory_xact_lock(TURN, sa.func.hashtext(target))
                locked = bool(connection.execute(sa.select(lock)).scalar_one())
                yield locked
        if locked is None:
            yield True

    def head(self, target: str) -> Open | None:
        """Return the notice that a receiver is to get next: the one written first."""
        columns = (notices.c[name] for name in NoticeRow.__slots__)
        query = (
            sa.select(notices.c.number, *columns)
            .where(notices.c.target == target, OPEN)
            .order_by(notices.c.number)
            .limit(1)
        )
        with self.store.reading() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else Open(found[0], NoticeRow(*found[1:]))

    def tried(self, number: int, delivered_at: str | None) -> None:
        """Note that a notice was handed over (``delivered_at``: and taken)."""
        change = (
            notices.update()
            .where(notices.c.number == number)
            .values(attempts=notices.c.attempts + 1, delivered_at=delivered_at)
        )
        with self.store.writing() as connection:
            connection.execute(change)

    def save(self, rows: Iterable[tuple[NoticeRow, str | None]]) -> None:
        """Keep notices that no file's transaction wrote, each with when it was delivered; those that are kept, once."""
        values = [{**asdict(row), "delivered_at": at, "attempts": int(at is not None)} for row, at in rows]
        if not values:
            return
        with self.store.writing() as connection:
            new = insert(connection, notices).on_conflict_do_nothing(index_elements=["id", "target"])
            connection.execute(new, values)

    def give_up(self, before: str, at: str, targets: Sequence[str], *, others: bool = False) -> list[NoticeRow]:
        """Give up what was written ``before`` and waits for one of ``targets``, or for any but those; return it."""
        chosen = notices.c.target.in_(targets)
        change = (
            notices.update()
            .where(OPEN, notices.c.created < before, ~chosen if others else chosen)
            .values(dropped_at=at)
            .returning(*(notices.c[name] for name in NoticeRow.__slots__))
        )
        with self.store.writing() as connection:
            return [NoticeRow(*row) for row in connection.execute(change)]

    def forget(self, before: str) -> None:
        """Remove what was delivered or given up, and written ``before``."""
        with self.store.writing() as connection:
            connection.execute(notices.delete().where(~OPEN, notices.c.created < before))
