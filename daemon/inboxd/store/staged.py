"""What was staged of one file: what is the same on both databases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from inboxd.model import Cursor, Feed, Scalar
from inboxd.store.cursors import at_or_below


class Staged:
    """One file's records, beside the target, and the statements that read them. Owned by its transaction's thread."""

    def __init__(self, connection: Any, feed: Feed, values: dict[str, object]) -> None:  # noqa: ANN401 - either driver's
        self._connection = connection
        self.values = values
        """The parameters that statements share: run, feed, table, watermark, now."""
        self.extent = Extent(feed)
        self.scopes = Scopes(feed)
        self.records = 0
        self.rejects = 0
        self.filtered = 0

    @property
    def watermark(self) -> Cursor | None:
        """The watermark that records are compared with."""
        value = self.values["watermark"]
        return value if isinstance(value, int | str) else None

    def change(self, statement: str, **more: object) -> int:
        """Run one statement; returns how many rows it touched."""
        return int(self._connection.execute(statement, {**self.values, **more}).rowcount)

    def one(self, statement: str, **more: object) -> tuple[Any, ...]:  # Any: whatever the columns hold
        """Return the one row of an answer."""
        return tuple(self._connection.execute(statement, {**self.values, **more}).fetchone() or (None,))

    def rows(self, statement: str, **more: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of an answer that is not large."""
        return iter(self._connection.execute(statement, {**self.values, **more}))


class Scopes:
    """The combinations of the scope's values in what was staged so far: more than one are too many."""

    __slots__ = ("_places", "found")

    def __init__(self, feed: Feed) -> None:
        self._places = tuple(map(feed.row_columns.index, feed.scope))
        self.found: set[tuple[Scalar, ...]] = set()

    def add(self, columns: Sequence[Sequence[Scalar]]) -> None:
        """Take more records into account, at least one; given as ``Batch`` has them."""
        if self._places and len(self.found) <= 1:
            self.found.update(zip(*(columns[place] for place in self._places), strict=True))


class Extent:
    """The smallest and the largest cursor of what was staged so far."""

    __slots__ = ("_place", "highest", "lowest")

    def __init__(self, feed: Feed) -> None:
        self._place = None if feed.cursor is None else feed.row_columns.index(feed.cursor)
        self.lowest: Cursor | None = None
        self.highest: Cursor | None = None

    def add(self, columns: Sequence[Sequence[Scalar]]) -> None:
        """Take more records into account, at least one; given as ``Batch`` has them."""
        if self._place is None:
            return
        cursors: Sequence[Any] = columns[self._place]
        lowest, highest = min(cursors), max(cursors)
        self.lowest = lowest if self.lowest is None else min(self.lowest, lowest)
        self.highest = highest if self.highest is None else max(self.highest, highest)

    def reaches_down_to(self, watermark: Cursor | None) -> bool:
        """Tell whether any row is at or below the watermark."""
        return watermark is not None and self.lowest is not None and at_or_below(self.lowest, watermark)
