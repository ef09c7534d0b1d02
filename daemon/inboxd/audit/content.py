"""A file's text, unpacked and read piece by piece: a place in it that moves from value to value."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final, cast

import zstandard

from inboxd.audit.values import BLANK, DECODER

_PIECE: Final = 1 << 20
MOST: Final = 64 << 20
"""Characters of one value: a record may have 16 MiB, so what is longer is none."""


class Unreadable(Exception):
    """What lies in the archive is not a file that could have been loaded; the message says why."""


class Content:
    """The text of one file. What stands before ``pos`` was passed."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._pos = 0
        self._ended = False
        if self.peek() == "\ufeff":
            self._pos += 1

    def peek(self) -> str:
        """Pass over white space; return the next character, ``""`` at the end."""
        while True:
            found = BLANK.match(self._text, self._pos)
            self._pos = found.end() if found else self._pos
            if self._pos < len(self._text) or not self._more():
                return self._text[self._pos : self._pos + 1]

    def take(self) -> str:
        """Pass over the next character that is no white space, and return it."""
        found = self.peek()
        self._pos += 1
        return found

    def value(self) -> str:
        """Pass over a value, and return its source."""
        self.peek()
        while True:
            try:
                _, end = DECODER.raw_decode(self._text, self._pos)
            except (json.JSONDecodeError, RecursionError) as error:
                if len(self._text) - self._pos > MOST or not self._more():
                    raise Unreadable(f"it is not JSON: {error}") from error
                continue
            if end < len(self._text) or not self._more():  # a number may go on
                source = self._text[self._pos : end]
                self._pos = end
                return source

    def skip(self) -> None:
        """Pass over a value of any size."""
        first = self.peek()
        if first == "{":
            for _ in self.members():
                self.skip()
        elif first == "[":
            for _ in self.elements():
                self.skip()
        else:
            self.value()

    def members(self) -> Iterator[str]:
        """Yield the names of an object, each with its value next; the caller passes over that."""
        self.take()
        while (first := self.peek()) != "}":
            if first == ",":
                self.take()
            name = str(json.loads(self.value()))
            if self.take() != ":":
                raise Unreadable("it is not JSON: a name without a value")
            yield name
        self.take()

    def elements(self) -> Iterator[int]:
        """Yield the numbers of an array's elements from 0, each with its value next; the caller passes over that."""
        self.take()
        number = 0
        while (first := self.peek()) != "]":
            if first == ",":
                self.take()
            yield number
            number += 1
        self.take()

    def _more(self) -> bool:
        if self._ended:
            return False
        try:
            piece = self._stream.read(max(_PIECE, len(self._text) - self._pos))
            self._ended = not piece
            more = self._decoder.decode(piece, final=self._ended)
        except (OSError, EOFError, ValueError, zstandard.ZstdError) as error:
            raise Unreadable(f"it cannot be read: {error}") from error
        self._text = self._text[self._pos :] + more
        self._pos = 0
        return bool(more) or (not self._ended and self._more())


@contextmanager
def content_of(path: str) -> Iterator[Content]:
    """Open a file, packed or not as its first bytes say; raises ``OSError`` and ``Unreadable``."""
    with open(path, "rb") as file:  # noqa: PTH123 - the name may hold what Path would tidy away
        head = file.read(4)
        file.seek(0)
        stream: IO[bytes] = file
        if head.startswith(b"\x1f\x8b"):
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        elif head == b"\x28\xb5\x2f\xfd" or head[1:] == b"\x2a\x4d\x18":
            stream = cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))
        yield Content(stream)
