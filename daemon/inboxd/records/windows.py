"""The windows of a text, each cut at the end of a record and judged whole; where that cannot be, record by record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from inboxd.outcomes import Batch
from inboxd.records import cut
from inboxd.records.columns import Verdicts
from inboxd.records.intake import Intake
from inboxd.records.locate import Walk
from inboxd.records.scan import Malformed, Scanner, past_blank, shown
from inboxd.records.sources import elements
from inboxd.records.surroundings import Item, Surroundings
from inboxd.records.text import Text

WINDOW: Final = 1_048_576
"""Bytes of text that are decoded at once; measured: larger ones are no faster and take more memory."""

SMALL: Final = 65_536
"""Bytes of an array of records up to which it is looked at whole."""

MAX_RECORD: Final = 16 * 1_048_576
"""Bytes of one record, the contract's limit."""


def nothing_follows(text: Text) -> None:
    """Refuse what stands after an array of records."""
    if text.peek() is not None:
        raise text.fault("invalid_json", f"nothing may follow here, found {shown(text.buffer, text.pos)}", text.pos)


def walk_past(walk: Walk, depth: int, run: Windows) -> Iterator[Batch]:
    """Pass over what stands where the records should be."""
    for _ in walk.skip(depth):
        yield run.progress()


class Windows:
    """The windows of one file, as they are read."""

    def __init__(self, text: Text, intake: Intake) -> None:
        self.text = text
        self.around = Surroundings({})
        """What is around the records that are being read."""
        self._intake = intake
        self._reported = 0
        self._filtered = 0
        self._nested = False  # the last window's simplest cut was inside a record
        self._pending: list[Item] = []  # records of small documents, to be judged together
        self._pending_size = 0

    def progress(self) -> Batch:
        """Return a batch without records that tells how far the reading came."""
        return self._batch(([], []))

    def _batch(self, verdicts: Verdicts) -> Batch:
        columns, rejects = verdicts
        size = self.text.offset - self._reported
        self._reported = self.text.offset
        filtered = self._intake.filtered - self._filtered
        self._filtered = self._intake.filtered
        return Batch(columns, rejects, size, filtered)

    def at_path(self, walk: Walk, depth: int, *, members: bool) -> Iterator[Batch] | None:
        """Read the records that begin here, at the end of the feed's path; ``None`` if there are none."""
        byte = walk.next("a value")
        if byte == ord("["):
            return self._array(depth)
        if byte != ord("{"):
            return None
        return self._members(walk, depth) if members else self._put([walk.source(depth)])

    def _array(self, depth: int) -> Iterator[Batch]:
        """Read an array of records; the records of a small one wait for those of the next documents."""
        text = self.text
        beginning = text.buffer[text.pos : text.pos + SMALL]
        try:
            end, done = Scanner(depth).advance(beginning, 0, final=False)
        except Malformed:
            end, done = 0, False  # the road below tells its place
        if done:
            text.pos += end
            yield from self._put(elements(beginning[:end]))
        else:
            yield from self.flush()
            text.pos += 1
            yield from self.elements(depth + 1)

    def _put(self, raws: Sequence[bytes], names: Sequence[bytes] = ()) -> Iterator[Batch]:
        """Let records wait until there is a window's worth of them."""
        items = [Item(raw, self.around) for raw in raws]
        for item, name in zip(items, names, strict=False):
            item.name = name
        self._pending += items
        self._pending_size += sum(map(len, raws))
        if self._pending_size >= WINDOW:
            yield from self.flush()

    def flush(self) -> Iterator[Batch]:
        """Judge the records that wait."""
        items, self._pending, self._pending_size = self._pending, [], 0
        if items:
            yield self._batch(self._intake.take(items))

    def _members(self, walk: Walk, depth: int) -> Iterator[Batch]:
        """Read an object of which each member is a record."""
        text = self.text
        text.pos += 1
        if walk.next("a name or '}'") == ord("}"):
            text.pos += 1
            return
        raws: list[bytes] = []
        names: list[bytes] = []
        size, ended = 0, False
        while not ended:
            name = walk.name(depth)
            try:
                while True:
                    next(name)
            except StopIteration as done:
                names.append(json.dumps(done.value).encode())
            raws.append(walk.source(depth + 1))
            size += len(raws[-1])
            ended = walk.closes("}")
            if ended or size >= WINDOW:
                yield from self._put(raws, names)
                raws, names, size = [], [], 0

    def elements(self, depth: int) -> Iterator[Batch]:
        """Read the elements of the array that was just opened, past its end. ``depth`` counts it."""
        text = self.text
        byte = self._next("a value or ']'")
        if byte == ord("]"):
            text.pos += 1
            return
        while True:
            yield self._window(depth, None)
            byte = self._next("',' or ']'")
            text.pos += 1
            if byte == ord("]"):
                return
            if byte != ord(","):
                raise text.fault(
                    "invalid_json", f"',' or ']' expected, found {shown(text.buffer, text.pos - 1)}", text.pos - 1
                )
            self._next("a value")
            if text.buffer[text.pos] == ord("]"):
                raise text.fault("invalid_json", "a value expected, found ']'", text.pos)

    def _next(self, expected: str) -> int:
        byte = self.text.peek()
        if byte is None:
            raise self.text.fault("invalid_json", f"{expected} expected, found the end of the file", self.text.pos)
        return byte

    def values(self) -> Iterator[Batch]:
        """Read top-level values, apart by white space; at the first of them now."""
        lines = Lines(self.text)
        while lines.next_value():
            yield self._window(0, lines)

    def _window(self, depth: int, lines: Lines | None) -> Batch:
        """Judge the records from here to the end of the window; at the first of them now."""
        text = self.text
        text.top_up()
        tried = -1
        for end in self._ends(array=lines is None):
            if end == tried:
                continue
            tried = end
            part = memoryview(text.buffer)[text.pos : end]
            chunk = b"".join((b"[", part, b"]")) if lines is None else bytes(part)
            if len(chunk) > MAX_RECORD:
                break
            verdicts = self._intake.window(chunk, self.around, array=lines is None, depth=depth)
            if verdicts is not None:
                text.pos = end
                if lines is not None:
                    lines.after_object = chunk.rstrip().endswith(b"}")
                return self._batch(verdicts)
        return self._exactly(depth, lines)

    def _ends(self, *, array: bool) -> Iterator[int]:
        """Yield a few guesses of where the window's last record ends."""
        text = self.text
        if text.final:
            rest = text.buffer.rstrip(b" \t\r\n")
            if not array:
                yield len(rest)
            elif rest.endswith(b"]"):
                yield len(rest) - 1
        if not self._nested:
            end = cut.last(text.buffer, text.pos, array=array)
            if end is not None:
                yield end
        end = cut.last_balanced(text.buffer, text.pos, array=array)
        if end is not None:
            self._nested = True
            yield end
        if not array and text.buffer.rfind(b"\n", text.pos) > 0:
            yield text.buffer.rfind(b"\n", text.pos)

    def _exactly(self, depth: int, lines: Lines | None) -> Batch:
        """Find the ends of the records by the exact scanner: as many as are buffered, at least one."""
        text = self.text
        raws: list[bytes] = []
        start = at = text.pos
        scanner = Scanner(depth)
        while True:
            try:
                at, done = scanner.advance(text.buffer, at, final=text.final)
            except Malformed as error:
                raise text.fault(error.code, error.why, error.at) from error
            if (at if done else len(text.buffer)) - start > MAX_RECORD:
                raise text.fault("record_too_large", f"a record of more than {MAX_RECORD} bytes begins here", start)
            if done:
                raws.append(text.buffer[start:at])
                text.pos = at
                follows = _next_element(text) if lines is None else lines.next_buffered(raws[-1])
                if follows is None:
                    break
                start = at = follows
                scanner = Scanner(depth)
            elif raws:
                break
            else:
                start, at = self._more(at)
        return self._batch(self._intake.records(raws, self.around, top=lines is not None))

    def _more(self, at: int) -> tuple[int, int]:
        """Read on within a record that begins at ``text.pos``; return its start and where ``at`` is now."""
        text = self.text
        beyond = at - text.pos
        if text.final:
            raise text.fault("invalid_json", "the file ends within a value", len(text.buffer))
        text.fill()
        return text.pos, text.pos + beyond


def _next_element(text: Text) -> int | None:
    """Return where the next element of an array begins, ``None`` if none is buffered or the array ends."""
    comma = past_blank(text.buffer, text.pos)
    if text.buffer[comma : comma + 1] != b",":
        return None
    start = past_blank(text.buffer, comma + 1)
    return None if text.buffer[start : start + 1] in (b"", b"]") else start


class Lines:
    """The white space between top-level values, and what the contract asks of it.

    Objects may touch each other; what is no object has its line to itself.
    """

    def __init__(self, text: Text) -> None:
        self._text = text
        self.after_object: bool | None = None
        """Whether the last value was an object; ``None`` before the first."""

    def next_value(self) -> bool:
        """Go to the next value, reading on; return whether there is one. Raises ``FileFault``."""
        text = self._text
        gap = b""
        while True:
            end = past_blank(text.buffer, text.pos)
            gap += text.buffer[text.pos : end]
            gap = b"\n" if b"\n" in gap else gap[:1]
            text.pos = end
            if end < len(text.buffer):
                self._check(gap, end)
                return True
            if not text.fill():
                return False

    def next_buffered(self, previous: bytes) -> int | None:
        """Return where the value after ``previous`` begins, ``None`` if it is not buffered. Raises ``FileFault``."""
        text = self._text
        self.after_object = previous.startswith(b"{")
        end = past_blank(text.buffer, text.pos)
        if end == len(text.buffer):
            return None
        self._check(text.buffer[text.pos : end], end)
        return end

    def _check(self, gap: bytes, at: int) -> None:
        if self.after_object is None or b"\n" in gap:
            return
        if not self.after_object or self._text.buffer[at] != ord("{"):
            raise self._text.fault("invalid_json", "a value that is not an object must have its line to itself", at)
