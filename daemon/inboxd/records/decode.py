"""A file's bytes in, batches of judged records out, in memory that does not grow with the file.

The text is read in windows of about 1 MiB. Each is cut at the end of a record by a guess (``cut``) and decoded whole
(``columns``). Where the guess was wrong, or the window holds what msgspec cannot decode, the exact scanner (``scan``)
finds the records' ends, or the place of the fault. Whatever the road, the outcome is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from inboxd.errors import FileFault
from inboxd.model import Batch, Feed
from inboxd.records import cut
from inboxd.records.columns import Sifter, Verdicts
from inboxd.records.locate import Document
from inboxd.records.scan import Malformed, Scanner, past_blank, shown
from inboxd.records.text import Text
from inboxd.records.unpack import ByteStream, unpacked

WINDOW: Final = 1_048_576
"""Bytes of text that are decoded at once; measured: larger ones are no faster and take more memory."""

MAX_RECORD: Final = 16 * 1_048_576
"""Bytes of one record, the contract's limit."""


def read_batches(
    stream: ByteStream, feed: Feed, *, now: datetime, max_size: int, window: int = WINDOW
) -> Iterator[Batch]:
    """Read a file and yield its records, judged, a window at a time.

    ``max_size`` bounds the bytes as unpacked. A batch may be empty: it then only tells how far the reading came. Raises
    ``FileFault`` for a fault of the whole file, with its place; nothing of such a file may be loaded.
    """
    text = Text(unpacked(stream), max_size, window)
    text.skip_bom()
    head = text.peek()
    if head is None:
        raise FileFault("empty_file", "the file is empty", "a producer should rename a complete file into the inbox")
    run = _Run(text, Sifter(feed, now))
    if feed.records:
        yield from _document(run, feed)
    elif head == ord("["):
        text.pos += 1
        yield from run.elements(1)
        _nothing_follows(text)
    else:
        yield from run.values()


def _document(run: _Run, feed: Feed) -> Iterator[Batch]:
    """Read the array at the feed's path, and check the rest of the document around it."""
    text = run.text
    document = Document(text, feed.records, MAX_RECORD)
    for found in document.walk():
        if found:
            yield from run.elements(len(feed.records) + 1)
        else:
            yield run.progress()
    _nothing_follows(text)
    document.settle()


def _nothing_follows(text: Text) -> None:
    if text.peek() is not None:
        raise text.fault("invalid_json", f"nothing may follow here, found {shown(text.buffer, text.pos)}", text.pos)


class _Run:
    """One reading of one file."""

    def __init__(self, text: Text, sifter: Sifter) -> None:
        self.text = text
        self._sifter = sifter
        self._told = 0
        self._nested = False  # the last window's simplest cut was inside a record

    def progress(self) -> Batch:
        """Return an empty batch that tells how far the reading came."""
        return self._batch(([], []))

    def _batch(self, verdicts: Verdicts) -> Batch:
        columns, rejects = verdicts
        size = self.text.offset - self._told
        self._told = self.text.offset
        return Batch(columns, rejects, size)

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
        lines = _Lines(self.text)
        while lines.next_value():
            yield self._window(0, lines)

    def _window(self, depth: int, lines: _Lines | None) -> Batch:
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
            if len(chunk) > MAX_RECORD or (lines is not None and b"}{" in chunk):
                break
            verdicts = self._sifter.window(chunk, array=lines is None, depth=depth)
            if verdicts is not None:
                text.pos = end
                if lines is not None:
                    lines.after_object = True
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

    def _exactly(self, depth: int, lines: _Lines | None) -> Batch:
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
        return self._batch(self._sifter.records(raws, depth))

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


class _Lines:
    """The white space between top-level values, and what the contract asks of it.

    There must be some, and a line break unless the values on both sides are objects.
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
        if not gap:
            raise self._text.fault("invalid_json", "white space is missing between two values", at)
        if not self.after_object or self._text.buffer[at] != ord("{"):
            raise self._text.fault("invalid_json", "a value that is no object must have its line to itself", at)
