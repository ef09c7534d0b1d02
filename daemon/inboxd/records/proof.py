"""What must be proved of a window before its records may skip the exact judge, for the whole window if it can be.

* No declared name stands in a record twice: msgspec takes the last one and does not judge the others.
* No record is nested too deeply.

If a window has no more double quotes than its declared names and string values account for, then nothing else is in
it: no name twice, no further field, no nesting. Otherwise names and brackets are counted, and only where that proves
nothing is a record looked at by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET, Raw, Struct, UnsetType

from inboxd.model import FieldType
from inboxd.records.checks import Value
from inboxd.records.fields import MEMBERS, RAW, CompiledFeed, Node, Shapes
from inboxd.records.scan import MAX_NESTING

_STRINGS: Final = (FieldType.TEXT, FieldType.TIMESTAMP, FieldType.DATE)


@dataclass(slots=True)
class Window:
    """Decoded records on their way: what they came from, and their numbers."""

    records: list[Struct]
    numbers: Sequence[int]
    raws: Sequence[bytes | Raw] | None
    chunk: bytes
    array: bool
    typed: bool

    def sources(self) -> Sequence[bytes | Raw]:
        """Return the source text of each record."""
        if self.raws is None:
            self.raws = RAW.window(self.chunk, array=self.array)
        return self.raws


def nothing_else(compiled: CompiledFeed, shapes: Shapes, window: Window, columns: list[list[Value]]) -> bool:
    """Tell by its double quotes whether the window has nothing in it but each declared name at most once."""
    if not shapes.provable or (not window.typed and shapes.inner):
        return False
    records = len(window.records)
    quotes = 2 * records * shapes.inner
    for check, column in zip(compiled.checks, columns, strict=True):
        if check.wants_source:
            sources = [source for source in column if isinstance(source, bytes)]
            quotes += 2 * len(sources) + b"".join(sources).count(b'"')
            if any(source[0] in b"{[" for source in sources):
                return False
        elif window.typed and not check.optional:
            quotes += (4 if check.field.type in _STRINGS else 2) * records
        else:
            kinds = set(map(type, column))
            if not window.typed and not kinds.isdisjoint((list, dict)):
                return False
            absent = column.count(UNSET) if UnsetType in kinds else 0
            strings = records if kinds == {str} else sum(type(v) is str for v in column) if str in kinds else 0
            quotes += 2 * (records - absent) + 2 * strings
    return window.chunk.count(b'"') == quotes


def maybe_deep(window: Window, depth: int) -> bool:
    """Tell whether any record may be too deep, by all brackets first, then by each record's."""
    openers = window.chunk.count(b"{") + window.chunk.count(b"[") - window.array
    others = len(window.records) - 1
    if openers - others + depth <= MAX_NESTING:
        return False
    return any(too_deep(raw, depth) for raw in window.sources())


def too_deep(raw: bytes | Raw, depth: int) -> bool:
    """Tell whether a record may be too deep: it has at most as many levels as opening brackets."""
    most = MAX_NESTING - depth
    if len(raw) <= 2 * most:
        return False
    text = bytes(raw)
    return text.count(b"{") + text.count(b"[") > most


def doubled(shapes: Shapes, window: Window, columns: list[list[Value]], *, escapes: bool) -> list[int]:
    """Return the indexes of the records that may have a declared name twice."""
    if escapes and shapes.escaped_name.search(window.chunk):
        return [index for index, raw in enumerate(window.sources()) if _has_double(bytes(raw))]
    if _names_counted(shapes, window, columns):
        return []
    return [index for index, raw in enumerate(window.sources()) if not _names_once(bytes(raw), shapes.root)]


def _names_once(raw: bytes, node: Node) -> bool:
    """Tell whether each declared name of an object stands in it once at most, all names being written without escapes.

    A name stands in the object itself as often as in its text, less as often as in the texts of its values.
    """
    members = MEMBERS.one(raw)
    values = b""
    for name, child in node.children.items():
        found = name in members
        count = raw.count(child.quoted)
        if count != found:
            values = values or b"\n".join(members.values())
            if count - values.count(child.quoted) != found:
                return False
        if found and child.children and not _inner_names_once(bytes(members[name]), child):
            return False
    return True


def _inner_names_once(raw: bytes, node: Node) -> bool:
    return not raw.startswith(b"{") or _names_once(raw, node)


def _names_counted(shapes: Shapes, window: Window, columns: list[list[Value]]) -> bool:
    """Tell whether each declared name stands in the window exactly as often as msgspec found it."""
    if not shapes.provable or (not window.typed and shapes.inner):
        return False
    records = len(window.records)
    for name, leaves in shapes.names:
        expected = sum(records if leaf is None else records - columns[leaf].count(UNSET) for leaf in leaves)
        if window.chunk.count(name) != expected:
            return False
    return True


class _Double(Exception):
    pass


def _no_double(members: list[tuple[str, object]]) -> None:
    if len(dict(members)) != len(members):
        raise _Double


_DOUBLES: Final = json.JSONDecoder(object_pairs_hook=_no_double, parse_int=len, parse_float=len, strict=False)


def _has_double(raw: bytes) -> bool:
    """Tell whether any object in the record has a name twice."""
    try:
        _DOUBLES.decode(raw.decode())
    except _Double:
        return True
    return False
