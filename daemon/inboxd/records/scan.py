"""RFC 8259, exactly: where a JSON value ends, or where it stops being JSON. No recursion, no building of values.

This is the slow and sure reader behind the fast one: it finds the borders of records that no short cut finds, and
the place of a fault. It takes up where it stopped when more of the text is there, so that a value of any length passes
through in constant memory.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

MAX_NESTING: Final = 200
"""Levels of arrays and objects in a file, the contract's limit."""

_WS = rb"[ \t\r\n]*+"
_ESCAPE = rb'\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})'
_CHARS = rb'[^"\\\x00-\x1f]*+'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_STRING = rb'"' + _CHARS + rb"(?:" + _ESCAPE + _CHARS + rb'){0,32}"'
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)"


def _container(value: bytes) -> bytes:
    """Return a pattern of an object or an array of such values; the counts bound the matcher's memory."""
    member = _STRING + _WS + rb":" + _WS + value + _WS
    return (
        rb"(?:\{" + _WS + rb"(?:" + member + rb"(?:," + _WS + member + rb"){0,64})?\}"
        rb"|\[" + _WS + rb"(?:" + value + _WS + rb"(?:," + _WS + value + _WS + rb"){0,64})?\])"
    )


_FLAT_OR_SCALAR = rb"(?:" + _SCALAR + rb"|" + _container(_SCALAR) + rb")"

_BLANK: Final = re.compile(_WS)
STRING: Final = re.compile(_STRING)
NAME: Final = re.compile(rb"(" + _STRING + rb")" + _WS + rb":")
NUMBER: Final = re.compile(_NUMBER)
_BODY: Final = re.compile(_CHARS + rb"(?:" + _ESCAPE + _CHARS + rb"){0,64}")
_NUMBERISH: Final = re.compile(rb"[-+.0-9eE]++")
_SHALLOW: Final = re.compile(_container(_FLAT_OR_SCALAR))
"""A whole object or array with at most one more level inside; what is longer or deeper goes token by token."""
_SHALLOW_LEVELS: Final = 2
_ELEMENTS: Final = re.compile(rb"(?:" + _FLAT_OR_SCALAR + _WS + rb"," + _WS + rb"){1,64}")
_MEMBERS: Final = re.compile(rb"(?:" + _STRING + _WS + rb":" + _WS + _FLAT_OR_SCALAR + _WS + rb"," + _WS + rb"){1,64}")
"""Runs of elements or members, each with its comma, of which another must follow."""

_LITERALS: Final = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_OPENERS: Final = {ord("{"): ord("}"), ord("["): ord("]")}
_LONGEST_ESCAPE: Final = len(rb"\uXXXX")


class Malformed(Exception):
    """The text is no JSON from ``at`` on, or is nested too deeply there (``code``)."""

    def __init__(self, at: int, why: str, code: str = "invalid_json") -> None:
        super().__init__(why)
        self.at = at
        self.why = why
        self.code = code


class _State(IntEnum):
    VALUE = 0  # a value
    FIRST = 1  # a value, or the end of the array that just began
    FIRST_NAME = 2  # a name, or the end of the object that just began
    NAME = 3
    COLON = 4
    AFTER = 5  # a comma or the end of what is open
    STRING = 6  # inside a string that is a value
    NAME_STRING = 7  # inside a string that is a name


def past_blank(text: bytes, pos: int) -> int:
    """Return where the white space at ``pos`` ends."""
    blank = _BLANK.match(text, pos)
    return blank.end() if blank is not None else pos


def shown(text: bytes, at: int) -> str:
    """Name the byte at ``at`` for a message."""
    byte = text[at : at + 1]
    if byte.isascii() and byte.decode("ascii").isprintable():
        return repr(byte.decode("ascii"))
    return f"byte 0x{byte.hex()}"


class Scanner:
    """Reads one value at a time; ``depth`` is how many levels are open around them."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._closers = bytearray()
        self._state = _State.VALUE

    def advance(self, text: bytes, pos: int, *, final: bool) -> tuple[int, bool]:
        """Read on from ``pos``: return how far it came, and whether the value is complete.

        When it is not, call again with more text behind what was passed over. ``final`` tells that nothing follows
        ``text``. Raises ``Malformed``.
        """
        size = len(text)
        while True:
            if self._state < _State.STRING:
                pos = past_blank(text, pos)
            if pos >= size:
                return pos, False
            before, state = pos, self._state
            pos = self._step(text, pos, final=final)
            if self._state is _State.AFTER and not self._closers:
                self._state = _State.VALUE
                return pos, True
            if pos == before and self._state is state:
                return pos, False

    def _step(self, text: bytes, pos: int, *, final: bool) -> int:
        """Read one token and return where it ends; ``pos`` itself, in the same state, when it is not all there."""
        state = self._state
        if state is _State.AFTER:
            end = self._separator(text, pos)
        elif state >= _State.STRING:
            end = self._string(text, pos, final=final)
        elif state is _State.COLON:
            end = self._colon(text, pos)
        elif state in (_State.NAME, _State.FIRST_NAME):
            end = self._run(_MEMBERS, _State.NAME, text, pos) or self._name(text, pos)
        elif text[pos] == ord("]") and state is _State.FIRST:
            end = self._close(pos)
        elif self._closers and self._closers[-1] == ord("]"):
            end = self._run(_ELEMENTS, _State.VALUE, text, pos) or self._value(text, pos, final=final)
        else:
            end = self._value(text, pos, final=final)
        return end

    def _run(self, pattern: re.Pattern[bytes], then: _State, text: bytes, pos: int) -> int:
        """Read many simple elements or members at once; return 0 if there are none."""
        run = pattern.match(text, pos) if self._depth + len(self._closers) < MAX_NESTING else None
        if run is None:
            return 0
        self._state = then
        return run.end()

    def _colon(self, text: bytes, pos: int) -> int:
        if text[pos] != ord(":"):
            raise Malformed(pos, f"':' expected, found {shown(text, pos)}")
        self._state = _State.VALUE
        return pos + 1

    def _name(self, text: bytes, pos: int) -> int:
        if text[pos] == ord('"'):
            self._state = _State.NAME_STRING
            return pos + 1
        if text[pos] == ord("}") and self._state is _State.FIRST_NAME:
            return self._close(pos)
        raise Malformed(pos, f"a name in double quotes expected, found {shown(text, pos)}")

    def _value(self, text: bytes, pos: int, *, final: bool) -> int:
        byte = text[pos]
        if byte in _OPENERS:
            return self._open(text, pos)
        if byte == ord('"'):
            self._state = _State.STRING
            return pos + 1
        if byte in _LITERALS:
            return self._literal(text, pos, _LITERALS[byte], final=final)
        run = _NUMBERISH.match(text, pos)
        if run is None or byte not in b"-0123456789":
            raise Malformed(pos, f"a value expected, found {shown(text, pos)}")
        if run.end() == len(text) and not final:
            return pos
        number = NUMBER.match(text, pos)
        if number is None or number.end() != run.end():
            at = number.end() if number is not None else pos + 1
            raise Malformed(min(at, len(text)), "this is not a valid JSON number")
        self._state = _State.AFTER
        return number.end()

    def _literal(self, text: bytes, pos: int, word: bytes, *, final: bool) -> int:
        if text.startswith(word, pos):
            self._state = _State.AFTER
            return pos + len(word)
        if not final and word.startswith(text[pos:]):
            return pos
        raise Malformed(pos, f"a value expected, found {shown(text, pos)}")

    def _open(self, text: bytes, pos: int) -> int:
        if self._depth + len(self._closers) >= MAX_NESTING:
            raise Malformed(pos, f"nested more than {MAX_NESTING} deep", "nesting_too_deep")
        if self._depth + len(self._closers) <= MAX_NESTING - _SHALLOW_LEVELS:
            shallow = _SHALLOW.match(text, pos)
            if shallow is not None:
                self._state = _State.AFTER
                return shallow.end()
        self._closers.append(_OPENERS[text[pos]])
        self._state = _State.FIRST_NAME if text[pos] == ord("{") else _State.FIRST
        return pos + 1

    def _separator(self, text: bytes, pos: int) -> int:
        byte = text[pos]
        closer = self._closers[-1]
        if byte == closer:
            return self._close(pos)
        if byte != ord(","):
            raise Malformed(pos, f"',' or {chr(closer)!r} expected, found {shown(text, pos)}")
        self._state = _State.NAME if closer == ord("}") else _State.VALUE
        return pos + 1

    def _close(self, pos: int) -> int:
        self._closers.pop()
        self._state = _State.AFTER
        return pos + 1

    def _string(self, text: bytes, pos: int, *, final: bool) -> int:
        body = _BODY.match(text, pos)
        if body is not None and body.end() > pos:
            return body.end()
        byte = text[pos]
        if byte == ord('"'):
            self._state = _State.COLON if self._state is _State.NAME_STRING else _State.AFTER
            return pos + 1
        if byte != ord("\\"):
            raise Malformed(pos, f"{shown(text, pos)} in a string must be escaped")
        if len(text) - pos < _LONGEST_ESCAPE and not final:
            return pos
        raise Malformed(pos, "this is not a valid JSON escape")
