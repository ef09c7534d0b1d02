"""Finding the array of records inside a document, and checking everything around it on the way."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator

from inboxd.errors import FileFault, Place
from inboxd.records.scan import Malformed, Scanner, shown
from inboxd.records.text import Text


class Document:
    """One JSON document with its records at a path: a name of the top object, a name in that one's value, and so on."""

    def __init__(self, text: Text, path: tuple[str, ...], max_token: int) -> None:
        self._text = text
        self._path = path
        self._max_token = max_token
        self._found = False
        self._why = f"there is no {'.'.join(path)!r} in the document"

    def walk(self) -> Iterator[bool]:
        """Read the document, and yield ``True`` just inside the array, for the caller to read past its end.

        ``False`` now and then on the way, as a sign of life. Nothing that is passed over is kept.
        """
        if self._text.peek() == ord("{"):
            yield from self._object(0)
        else:
            self._why = "the document is no object"
            yield from self._skip(0)

    def settle(self) -> None:
        """Raise ``no_records`` if the whole document was read and the array was not in it."""
        if not self._found:
            message = f"{self._why}; the records should be an array at {'.'.join(self._path)!r}"
            raise FileFault("no_records", message, "check the feed's `records`", place=Place(1, 1, 0))

    def _object(self, level: int) -> Iterator[bool]:
        text, seen = self._text, False
        text.pos += 1
        if self._next("a name or '}'") == ord("}"):
            text.pos += 1
            return
        while True:
            name = yield from self._name(level)
            if self._next("':'") != ord(":"):
                raise self._unexpected("':'")
            text.pos += 1
            if name == self._path[level]:
                if seen:
                    message = f"the name {name!r} is there twice on the way to the records"
                    raise text.fault("ambiguous_records", message, text.pos, "the records must have one place")
                seen = True
                yield from self._towards(level)
            else:
                yield from self._skip(level + 1)
            if self._next("',' or '}'") == ord("}"):
                text.pos += 1
                return
            if text.buffer[text.pos] != ord(","):
                raise self._unexpected("',' or '}'")
            text.pos += 1

    def _towards(self, level: int) -> Iterator[bool]:
        """Read the value of a name on the path."""
        byte = self._next("a value")
        last = level == len(self._path) - 1
        if last and byte == ord("["):
            self._text.pos += 1
            self._found = True
            yield True
        elif not last and byte == ord("{"):
            yield from self._object(level + 1)
        else:
            what = "no array" if last else "no object"
            self._why = f"{'.'.join(self._path[: level + 1])!r} is {what}"
            yield from self._skip(level + 1)

    def _name(self, level: int) -> Generator[bool, None, str]:
        text = self._text
        if self._next("a name") != ord('"'):
            raise self._unexpected("a name in double quotes")
        scanner = Scanner(level + 1)
        at = text.pos
        while True:
            at, done = self._advance(scanner, at)
            if done:
                break
            self._limit(text.pos)
            at = self._more(at)
            yield False
        name = text.buffer[text.pos : at]
        text.pos = at
        return str(json.loads(name))

    def _skip(self, depth: int) -> Iterator[bool]:
        """Pass over a value of any size; ``depth`` is how many levels are open around it."""
        self._next("a value")
        scanner = Scanner(depth)
        while True:
            self._text.pos, done = self._advance(scanner, self._text.pos)
            if done:
                return
            self._limit(self._text.pos)
            self._more(self._text.pos)
            yield False

    def _advance(self, scanner: Scanner, at: int) -> tuple[int, bool]:
        try:
            return scanner.advance(self._text.buffer, at, final=self._text.final)
        except Malformed as error:
            raise self._text.fault(error.code, error.why, error.at) from error

    def _limit(self, start: int) -> None:
        if len(self._text.buffer) - start > self._max_token:
            raise self._text.fault(
                "record_too_large", f"a token of more than {self._max_token} bytes begins here", start
            )

    def _more(self, at: int) -> int:
        beyond = at - self._text.pos
        if self._text.final:
            raise self._text.fault("invalid_json", "the file ends within a value", len(self._text.buffer))
        self._text.fill()
        return self._text.pos + beyond

    def _next(self, expected: str) -> int:
        byte = self._text.peek()
        if byte is None:
            raise self._text.fault("invalid_json", f"{expected} expected, found the end of the file", self._text.pos)
        return byte

    def _unexpected(self, expected: str) -> FileFault:
        text = self._text
        return text.fault("invalid_json", f"{expected} expected, found {shown(text.buffer, text.pos)}", text.pos)
