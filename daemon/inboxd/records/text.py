"""The unpacked text of a file: a buffer that moves over it, its places, and the faults of the text as a whole."""

from __future__ import annotations

import codecs
from typing import Final

from inboxd.errors import FileFault, Place
from inboxd.records.guess import LOOK, looks_like
from inboxd.records.scan import past_blank
from inboxd.records.unpack import ByteStream

_MOST_READ: Final = 4 * 1_048_576
"""Bytes read at once while a long record is being gathered."""

_BOMS_OF_OTHERS: Final = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16, and of UTF-32 with its low bytes first."""

_NO_JSON: Final = frozenset({"invalid_json", "invalid_encoding"})
_AT_ONCE: Final = 64
"""Content that is none of JSON shows it in its first bytes."""
_BEGINNINGS: Final = frozenset(bytes((first,)) for first in b'{[" \t\r\n')
"""With these a JSON file of records begins."""
_LONGEST_CHARACTER: Final = 4
"""Bytes of one character in any encoding of Unicode."""


class Text:
    """A window on the text: ``buffer[pos:]`` is what was read and not yet consumed.

    Consuming is moving ``pos``; ``fill`` reads on and lets go of what was consumed. Faults of the text (broken
    compression, not UTF-8, too large) are raised by ``fill`` once everything before them was handed out, so that the
    first fault of a file is the one reported.
    """

    def __init__(self, stream: ByteStream, max_size: int, window: int) -> None:
        self._stream = stream
        self._max_size = max_size
        self._window = window
        self.buffer = b""
        self.pos = 0
        self.final = False
        self._base = 0  # the byte offset of buffer[0]
        self._line = 1  # the line of buffer[0]
        self._in_line = 0  # how many characters of that line come before buffer[0]
        self._fault: tuple[str, str, int, str] | None = None
        self._begins = True  # nothing was read yet
        self._beginning = b""
        self._half = b""  # the first bytes of a character that the next read completes

    @property
    def offset(self) -> int:
        """How many bytes of the text were consumed."""
        return self._base + self.pos

    def fill(self) -> bool:
        """Read on, more at once the more is buffered; return whether there was more. Raises ``FileFault``."""
        if self._fault is not None:
            code, message, at, hint = self._fault
            raise self.fault(code, message, at - self._base, hint)
        if self.final:
            return False
        self._let_go()
        try:
            more = self._stream.read(min(max(self._window, len(self.buffer)), _MOST_READ))
            while more and self._begins and len(more) < _LONGEST_CHARACTER:  # enough to tell the encoding by
                rest = self._stream.read(_LONGEST_CHARACTER - len(more))
                if not rest:
                    break
                more += rest
        except FileFault as fault:
            fault.place = fault.place or self.place(len(self.buffer))
            raise
        if not more:
            self.final = True
            if self._half:
                self._bad_encoding(len(self.buffer) - len(self._half))
                return self.fill()
            return False
        if self._base + len(self.buffer) + len(more) > self._max_size:
            message = f"the content is larger than the limit of {self._max_size} bytes"
            raise self.fault("file_too_large", message, len(self.buffer), "raise inbox.max_file_size or split the file")
        more = self._checked(more)
        self.buffer += more
        return bool(more) or self.fill()

    def top_up(self) -> None:
        """Read until a window's worth is buffered, or everything."""
        while len(self.buffer) - self.pos < self._window and self._fault is None:
            if not self.fill():
                return

    def peek(self) -> int | None:
        """Skip white space; return the next byte, or ``None`` at the end of the text."""
        while True:
            self.pos = past_blank(self.buffer, self.pos)
            if self.pos < len(self.buffer):
                return self.buffer[self.pos]
            if not self.fill():
                return None

    def place(self, index: int) -> Place:
        """Return the place of ``buffer[index]``."""
        newlines = self.buffer.count(b"\n", 0, index)
        return Place(self._line + newlines, self._characters_before(index) + 1, self._base + index)

    def fault(self, code: str, message: str, index: int, hint: str = "") -> FileFault:
        """Return the fault ``code`` at ``buffer[index]``. Where no ``hint`` is given, it says what the file may be."""
        place = self.place(index)
        if not hint and code in _NO_JSON and place.byte < _AT_ONCE:
            what = looks_like(self._beginning)
            hint = f"it looks like {what}" if what else ""
        return FileFault(
            code, f"line {place.line}, column {place.column} (byte {place.byte}): {message}", hint, place=place
        )

    def skip_bom(self) -> None:
        """Pass over a byte order mark."""
        while len(self.buffer) < len(codecs.BOM_UTF8) and self._fault is None and self.fill():
            pass
        if self.buffer.startswith(codecs.BOM_UTF8):
            self.pos = len(codecs.BOM_UTF8)
            self._in_line = -1  # it is a character of the text, but none of the line

    def _let_go(self) -> None:
        consumed = self.pos
        if not consumed:
            return
        self._in_line = self._characters_before(consumed)
        self._line += self.buffer.count(b"\n", 0, consumed)
        self._base += consumed
        self.buffer = self.buffer[consumed:]
        self.pos = 0

    def _characters_before(self, index: int) -> int:
        """Count the characters between the start of the line and ``buffer[index]``: a column is what editors show."""
        newline = self.buffer.rfind(b"\n", 0, index)
        part = self.buffer[newline + 1 : index]
        more = len(part) if part.isascii() else len(part.decode("utf-8", "ignore"))
        return more if newline >= 0 else self._in_line + more

    def _checked(self, more: bytes) -> bytes:
        """Return what of ``more`` is UTF-8; remember where it stops being so."""
        begins, self._begins = self._begins, False
        if begins:
            self._beginning = more[:LOOK]
            if wider := _wider(more):
                hint = f"convert it: iconv -f {wider} -t UTF-8 OLD > NEW"
                self._fault = ("invalid_encoding", f"the content is {wider}, not UTF-8", 0, hint)
                self._half = b""
                return b""
        if not self._half and more.isascii():
            return more
        data = self._half + more
        try:
            _, good = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError as error:
            start = len(self.buffer) - len(self._half)
            self._bad_encoding(start + error.start)
            return more[: max(0, error.start - len(self._half))]
        self._half = data[good:]
        return more

    def _bad_encoding(self, index: int) -> None:
        message = "the content is not UTF-8: an incomplete or invalid character"
        self._fault = ("invalid_encoding", message, self._base + index, "")
        self._half = b""


def _wider(beginning: bytes) -> str:
    """Return as what a text begins that is UTF-16 or UTF-32: every second byte of such JSON is 0, in UTF-8 none."""
    head = beginning[:_LONGEST_CHARACTER]
    is_json = head.strip(b"\0")[:1] in _BEGINNINGS  # a binary file may have zeros, too
    is_wide = is_json and b"\0\0" in (head[::2], head[1::2])
    if not is_wide and not head.startswith(_BOMS_OF_OTHERS):
        return ""
    return "UTF-32" if b"\0\0" in (head[:2], head[2:]) else "UTF-16"
