"""A file's bytes in, batches of judged records out, in memory that does not grow with the file.

The text is read in windows of about 1 MiB. Each is cut at the end of a record by a guess (``cut``) and decoded whole
(``columns``). Where the guess was wrong, or the window holds what msgspec cannot decode, the exact scanner (``scan``)
finds the records' ends, or the place of the fault. Whatever the road, the outcome is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from inboxd.clock import ahead
from inboxd.errors import FileFault, Place
from inboxd.model import Cursor, Feed, Path, Scalar, Shape, names_of
from inboxd.outcomes import Batch
from inboxd.records.checks import Scope
from inboxd.records.fields import compile_feed
from inboxd.records.intake import Intake
from inboxd.records.locate import Walk, stops
from inboxd.records.sources import last_at
from inboxd.records.surroundings import NO_FACTS, FileFacts, Surroundings, file_values
from inboxd.records.text import Text
from inboxd.records.unpack import ByteStream, unpacked
from inboxd.records.validate import file_value, of_document
from inboxd.records.windows import MAX_RECORD, WINDOW, Lines, Windows, nothing_follows, walk_past


class Reading:
    """One reading of one file.

    ``max_size`` bounds the bytes as unpacked. ``facts`` are what fields from ``$file.`` and ``$path.`` read. ``again``
    gives the same content from its beginning, for what stands around the records (``$.``), perhaps after them; a feed
    that reads nothing there needs none.
    """

    def __init__(
        self,
        stream: ByteStream,
        feed: Feed,
        *,
        now: datetime,
        max_size: int,
        window: int = WINDOW,
        facts: FileFacts = NO_FACTS,
        again: Callable[[], ByteStream] | None = None,
    ) -> None:
        self._feed = feed
        self._compiled = compile_feed(feed)
        self._ceiling = ahead(now, feed.max_future_s)
        self._text = Text(unpacked(stream), max_size, window)
        self._intake = Intake(self._compiled, self._ceiling, max_size)
        self._of_file = file_values((*self._compiled.outside, *(feed.as_of.paths if feed.as_of else ())), facts)
        self._lead: _Lead | None = None
        around = self._compiled.in_document
        if around and feed.records:
            if again is None:
                msg = f"feed {feed.name!r} reads around its records: it needs the content twice"
                raise ValueError(msg)
            self._lead = _Lead(Text(unpacked(again()), max_size, window), around)
        self._first: Surroundings | None = None

    @property
    def as_of(self) -> Cursor | None:
        """The moment of a snapshot, ``None`` in another feed; raises ``FileFault`` if it is missing or invalid."""
        if self._feed.as_of is None:
            return None
        return self._as_of(self._first_document())

    @property
    def scope(self) -> tuple[Scalar, ...] | None:
        """The values of the feed's scope where they are known without its records, else ``None``; raises the same."""
        indexes = [self._compiled.names.index(name) for name in self._feed.scope]
        if not set(indexes) <= set(self._compiled.of_file):
            return None
        found = of_document(self._compiled, self._first_document(), Scope(self._ceiling))
        return tuple(found[index] for index in indexes)

    def batches(self) -> Iterator[Batch]:
        """Yield the file's records, judged, a window at a time.

        A batch may be empty: it then only tells how far the reading came. Raises ``FileFault`` for a fault of the whole
        file, with its place; nothing of such a file may be loaded.
        """
        text, feed = self._text, self._feed
        text.skip_bom()
        head = text.peek()
        if head is None:
            raise FileFault(
                "empty_file", "the file is empty", "a producer should rename a complete file into the inbox"
            )
        run = Windows(text, self._intake)
        if feed.records or feed.shape is Shape.MEMBERS:
            yield from self._documents(run)
        elif head == ord("[") and feed.shape is not Shape.VALUES:
            run.around = Surroundings(self._of_file)
            text.pos += 1
            yield from run.elements(1)
            nothing_follows(text)
        else:
            run.around = Surroundings(self._of_file)
            yield from run.values()
        self._intake.finish()
        yield run.progress()

    def _documents(self, run: Windows) -> Iterator[Batch]:
        """Read the records at the feed's path of each top-level value."""
        lines = Lines(self._text)
        path, documents, having = self._feed.records, 0, 0
        root = stops([path])
        while lines.next_value():
            lines.after_object = self._text.buffer[self._text.pos] == ord("{")
            documents += 1
            run.around = self._first_document() if documents == 1 else self._next_document()
            walk = Walk(self._text, root, MAX_RECORD, alone=True)
            had = False
            for found in walk.run():
                if found is None:
                    yield run.progress()
                    continue
                batches = run.at_path(walk, len(path), members=self._feed.shape is Shape.MEMBERS)
                had = batches is not None
                yield from batches or walk_past(walk, len(path), run)
            having += had
            self._intake.filtered += not had
        yield from run.flush()
        if not having:
            where = "the document" if documents == 1 else f"any of {documents} top-level values"
            message = f"there is no array or object at {'.'.join(path)!r} in {where}"
            raise FileFault("no_records", message, "check the feed's `records`", place=Place(1, 1, 0))

    def _first_document(self) -> Surroundings:
        if self._first is None:
            self._first = self._next_document()
        return self._first

    def _next_document(self) -> Surroundings:
        """Return what is around the records of the next document; its moment must be that of the first."""
        values = self._lead.next() if self._lead else {}
        found = Surroundings({**self._of_file, **values})
        if self._lead and self._first and self._feed.as_of and self._as_of(found) != self._as_of(self._first):
            message = "the documents of the file are of different times (as_of)"
            raise FileFault("invalid_context", message, "a snapshot has one time: split the file")
        return found

    def _as_of(self, around: Surroundings) -> Cursor:
        assert self._compiled.moment is not None  # noqa: S101 - whoever asks has a snapshot
        check, ways = self._compiled.moment
        found = file_value(check, ways, around, Scope(None))
        assert isinstance(found, str | int)  # noqa: S101 - the type of a cursor
        return found


class _Lead:
    """Goes ahead through the documents for the values around their records."""

    def __init__(self, text: Text, paths: tuple[Path, ...]) -> None:
        self._text = text
        self._paths = paths
        self._stops = stops([names_of(path) for path in paths])
        text.skip_bom()

    def next(self) -> dict[Path, bytes]:
        """Return the values in the next top-level value, by path."""
        text = self._text
        if text.peek() is None:
            return {}
        walk = Walk(text, self._stops, MAX_RECORD, alone=False)
        sources = {names: walk.source(len(names)) for names in walk.run() if names is not None}
        found: dict[Path, bytes] = {}
        for path in self._paths:
            names = names_of(path)
            kept = next((kept for kept in sources if names[: len(kept)] == kept), None)
            source = None if kept is None else last_at(sources[kept], names[len(kept) :])
            if source is not None:
                found[path] = source
        return found
