"""Walking a document: to where its records stand, or through all of it for the values around them.

Nothing that is passed over is kept, so that a document of any size takes constant memory; and everything that is passed
over is checked.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from inboxd.errors import FileFault
from inboxd.records.scan import NAME, Malformed, Scanner, shown
from inboxd.records.sources import index_of
from inboxd.records.text import Text


@dataclass(slots=True)
class Stop:
    """A place in a document: names lead on from it, or it is where a walk is going."""

    children: dict[str, Stop] = field(default_factory=dict)
    wanted: tuple[str, ...] | None = None
    """The whole path, where this is the end of one."""


def stops(paths: Sequence[tuple[str, ...]]) -> Stop:
    """Return the places on the way to each of the paths; one that leads on from another's end is left to that one."""
    root = Stop()
    for path in sorted(paths, key=len):
        stop = root
        for name in path:
            if stop.wanted is not None:
                break
            stop = stop.children.setdefault(name, Stop())
        else:
            stop.wanted = path
    return root


class Walk:
    """One walk through one top-level value.

    ``alone``: what is wanted must have one place, as the records have. ``max_token`` bounds what is kept, in bytes.
    """

    def __init__(self, text: Text, root: Stop, max_token: int, *, alone: bool) -> None:
        self._text = text
        self._root = root
        self._max_token = max_token
        self._alone = alone

    def run(self) -> Iterator[tuple[str, ...] | None]:
        """Read the value, and yield each wanted path at the beginning of what stands there.

        The caller reads that, past its end. ``None`` now and then on the way, as a sign of life.
        """
        yield from self._value(self._root, 0)

    def source(self, depth: int) -> bytes:
        """Read the value that begins here, whole; ``depth`` is how many levels are open around it."""
        text = self._text
        self.next("a value")
        scanner = Scanner(depth)
        at = text.pos
        while True:
            at, done = self._advance(scanner, at)
            if at - text.pos > self._max_token:
                raise self._too_large(text.pos)
            if done:
                break
            at = self._more(at)
        raw = text.buffer[text.pos : at]
        text.pos = at
        return raw

    def _value(self, stop: Stop | None, depth: int) -> Iterator[tuple[str, ...] | None]:
        byte = self.next("a value")
        if stop is None:
            yield from self._skip(depth)
        elif stop.wanted is not None:
            yield stop.wanted
        elif byte == ord("{"):
            yield from self._object(stop, depth)
        elif byte == ord("[") and any(index_of(name) is not None for name in stop.children):
            yield from self._array(stop, depth)
        else:
            yield from self._skip(depth)

    def _object(self, stop: Stop, depth: int) -> Iterator[tuple[str, ...] | None]:
        text = self._text
        seen: set[str] = set()
        text.pos += 1
        if self.next("a name or '}'") == ord("}"):
            text.pos += 1
            return
        while True:
            name = yield from self.name(depth)
            inner = stop.children.get(name)
            if inner is not None and self._alone and name in seen:
                message = f"the name {name!r} is there twice on the way to the records"
                raise text.fault("ambiguous_records", message, text.pos, "the records must have one place")
            if inner is not None:
                seen.add(name)
            yield from self._value(inner, depth + 1)
            if self.closes("}"):
                return

    def _array(self, stop: Stop, depth: int) -> Iterator[tuple[str, ...] | None]:
        self._text.pos += 1
        if self.next("a value or ']'") == ord("]"):
            self._text.pos += 1
            return
        places = {index_of(name): inner for name, inner in stop.children.items()}
        index = 0
        while True:
            yield from self._value(places.get(index), depth + 1)
            index += 1
            if self.closes("]"):
                return

    def closes(self, bracket: str) -> bool:
        """Pass over the comma after a member or element, or the bracket that closes them; tell which it was."""
        text = self._text
        byte = self.next(f"',' or {bracket!r}")
        if byte != ord(",") and byte != ord(bracket):
            raise self._unexpected(f"',' or {bracket!r}")
        text.pos += 1
        return byte == ord(bracket)

    def name(self, depth: int) -> Generator[None, None, str]:
        """Read a member's name and the colon after it."""
        text = self._text
        if self.next("a name") != ord('"'):
            raise self._unexpected("a name in double quotes")
        usual = NAME.match(text.buffer, text.pos)
        if usual is not None:
            text.pos = usual.end()
            return str(json.loads(usual[1]))
        scanner = Scanner(depth + 1)
        at = text.pos
        while True:
            at, done = self._advance(scanner, at)
            if done:
                break
            self._limit(text.pos)
            at = self._more(at)
            yield None
        name = text.buffer[text.pos : at]
        text.pos = at
        if self.next("':'") != ord(":"):
            raise self._unexpected("':'")
        text.pos += 1
        return str(json.loads(name))

    def _skip(self, depth: int) -> Iterator[None]:
        """Pass over a value of any size; ``depth`` is how many levels are open around it."""
        scanner = Scanner(depth)
        while True:
            self._text.pos, done = self._advance(scanner, self._text.pos)
            if done:
                return
            self._limit(self._text.pos)
            self._more(self._text.pos)
            yield None

    def skip(self, depth: int) -> Iterator[None]:
        """Pass over the value that begins here."""
        self.next("a value")
        yield from self._skip(depth)

    def _advance(self, scanner: Scanner, at: int) -> tuple[int, bool]:
        try:
            return scanner.advance(self._text.buffer, at, final=self._text.final)
        except Malformed as error:
            raise self._text.fault(error.code, error.why, error.at) from error

    def _limit(self, start: int) -> None:
        if len(self._text.buffer) - start > self._max_token:
            raise self._too_large(start)

    def _too_large(self, start: int) -> FileFault:
        message = f"a value of more than {self._max_token} bytes begins here"
        return self._text.fault("record_too_large", message, start)

    def _more(self, at: int) -> int:
        beyond = at - self._text.pos
        if self._text.final:
            raise self._text.fault("invalid_json", "the file ends within a value", len(self._text.buffer))
        self._text.fill()
        return self._text.pos + beyond

    def next(self, expected: str) -> int:
        """Return the next byte that is no white space; there must be one."""
        byte = self._text.peek()
        if byte is None:
            raise self._text.fault("invalid_json", f"{expected} expected, found the end of the file", self._text.pos)
        return byte

    def _unexpected(self, expected: str) -> FileFault:
        text = self._text
        return text.fault("invalid_json", f"{expected} expected, found {shown(text.buffer, text.pos)}", text.pos)
