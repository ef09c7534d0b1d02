"""Which line a key of a TOML document stands on: what ``tomllib`` does not say.

The document must be one that ``tomllib`` has read, so this looks only for where keys begin and values end. Keys that
hold escapes are decoded by ``tomllib`` itself.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import Final

from inboxd.config.faults import Key

_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_KEY_PART: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_DOT: Final = re.compile(r"[ \t]*\.[ \t]*")
# A multi-line string may end in up to two quotes of its own (TOML 1.0.0, "String").
_STRING: Final = re.compile(
    r"""
    \"{3}(?:\\.|[^\\])*?\"{3,5}(?!\") | '{3}.*?'{3,5}(?!') | "(?:\\.|[^"\\])*" | '[^']*'
    """,
    re.DOTALL | re.VERBOSE,
)
_PLAIN: Final = re.compile(r"[^,\]}#\n]+")


def locate(text: str) -> dict[Key, int]:
    """Return the line, from 1, of each key, table and array element of a valid TOML document."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[Key, int] = {}
        self._tables: dict[Key, int] = {}
        """How many tables each array of tables has so far: a header below it means the last one."""

    def scan(self) -> dict[Key, int]:
        table: Key = ()
        while not self._ended():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _ended(self) -> bool:
        self._skip(_BLANK)
        return self._at == len(self._text)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _note(self, path: Key, at: int) -> None:
        self._lines.setdefault(path, bisect_right(self._newlines, at - 1) + 1)

    def _header(self) -> Key:
        """Read ``[a.b]`` or ``[[a.b]]``; return the table that it opens."""
        at = self._at
        double = self._text.startswith("[[", at)
        self._at += 1 + double
        self._skip(_BLANK)
        path: Key = ()
        for part in self._key():
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
            path = (*path, part)
            self._note(path, at)
        self._skip(_BLANK)
        self._at += 1 + double
        if double:
            self._tables[path] = self._tables.get(path, 0) + 1
        if path in self._tables:
            path = (*path, self._tables[path] - 1)
            self._note(path, at)
        return path

    def _pair(self, table: Key) -> None:
        """Read ``key = value``."""
        at = self._at
        path = table
        for part in self._key():
            path = (*path, part)
            self._note(path, at)
        self._skip(_BLANK)
        self._at += 1  # the =
        self._skip(_BLANK)
        self._value(path)

    def _key(self) -> list[str]:
        parts = [self._key_part()]
        while self._skip(_DOT):
            parts.append(self._key_part())
        return parts

    def _key_part(self) -> str:
        raw = self._skip(_KEY_PART)
        return next(iter(tomllib.loads(f"{raw} = 0"))) if raw[:1] in ('"', "'") else raw

    def _value(self, path: Key) -> None:
        if self._text[self._at] == "[":
            self._array(path)
        elif self._text[self._at] == "{":
            self._inline_table(path)
        elif not self._skip(_STRING):
            self._skip(_PLAIN)

    def _array(self, path: Key) -> None:
        self._at += 1
        number = 0
        while not self._closed("]"):
            self._note((*path, number), self._at)
            self._value((*path, number))
            number += 1

    def _inline_table(self, path: Key) -> None:
        self._at += 1
        while not self._closed("}"):
            self._pair(path)

    def _closed(self, bracket: str) -> bool:
        """Step over white space, comments and a comma; tell whether the bracket was then met, and step over it."""
        self._skip(_BLANK)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BLANK)
        if self._text[self._at] == bracket:
            self._at += 1
            return True
        return False
