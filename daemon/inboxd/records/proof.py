"""What must be proved of a window before its records may skip the exact judge, for the whole window if it can be.

* No declared name stands in a record twice: msgspec takes the last one and does not judge the others.
* No record is nested too deeply.

If a window has no more double quotes than its declared names and string values account for, then nothing else is in
it: no name twice, no further field, no nesting. Otherwise names and brackets are counted, then the window is taken
apart and written again, and only where that proves nothing is a record looked at by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress

import msgspec
from msgspec import UNSET, Raw, UnsetType

from inboxd.records.checks import Check, Value
from inboxd.records.scan import MAX_NESTING
from inboxd.records.shapes import MEMBERS, RAW, Node, Shapes
from inboxd.records.surroundings import Item, Surroundings


class Column:
    """The values of a field, and the indexes of the strays: absent, null, or of none of the field's types.

    ``own``: they are a slot of the record's struct, so that the window's text is theirs. ``done``: they are canonical.
    """

    def __init__(self, check: Check, values: list[Value], *, typed: bool, own: bool = True, done: bool = False) -> None:
        self.check = check
        self.values = values
        self.own = own
        self.done = done
        self.strays: list[int] = []
        if done:
            return
        proven = typed and not check.optional and not check.wants_source
        types = check.types
        if not proven and not set(map(type, values)) <= types:
            self.strays = [index for index, kind in enumerate(map(type, values)) if kind not in types]

    def only(self, kept: list[bool], *, typed: bool) -> Column:
        """Return the column with some of its values."""
        values = list(compress(self.values, kept))
        return Column(self.check, values, typed=typed and self.own, own=self.own, done=self.done)

    def misfits(self) -> list[int]:
        """Return the indexes of the strays that the field may not have."""
        if not self.check.optional:
            return self.strays
        return [index for index in self.strays if self.values[index] is not UNSET and self.values[index] is not None]

    def stray_types(self) -> Counter[type]:
        """Count the types of the strays."""
        return Counter(map(type, map(self.values.__getitem__, self.strays)))


class Window:
    """Decoded records on their way: their numbers, their fields by column, and what they came from."""

    def __init__(
        self,
        columns: list[Column],
        numbers: Sequence[int],
        chunk: bytes,
        around: Surroundings | Sequence[Item],
        *,
        array: bool,
        typed: bool,
    ) -> None:
        self.columns = columns
        self.around = around
        """What is around all of the records, or the records themselves with what is around each."""
        self.numbers = numbers
        self.chunk = chunk
        self.array = array
        self.typed = typed
        self._sources: Sequence[bytes | Raw] | None = None

    def sources(self) -> Sequence[bytes | Raw]:
        """Return the source text of each record."""
        if self._sources is None:
            self._sources = RAW.window(self.chunk, array=self.array)
        return self._sources

    def item(self, index: int) -> Item:
        """Return a record by itself."""
        if not isinstance(self.around, Surroundings):
            return self.around[index]
        return Item(bytes(self.sources()[index]), self.around, number=self.numbers[index])

    def drop(self, indexes: list[int]) -> None:
        """Leave out these records. The chunk stays as it is."""
        kept = [True] * len(self.numbers)
        for index in indexes:
            kept[index] = False
        self._sources = list(compress(self.sources(), kept))
        self.numbers = list(compress(self.numbers, kept))
        self.columns = [column.only(kept, typed=self.typed) for column in self.columns]
        if not isinstance(self.around, Surroundings):
            self.around = list(compress(self.around, kept))


def nothing_else(shapes: Shapes, window: Window) -> bool:
    """Tell by its double quotes whether the window has nothing in it but each declared name at most once."""
    if not shapes.provable or (not window.typed and shapes.inner):
        return False
    records = len(window.numbers)
    quotes = 2 * records * shapes.inner
    for column in window.columns:
        if not column.own:
            continue
        if not column.strays and not column.check.wants_source:
            quotes += (4 if str in column.check.types else 2) * records
            continue
        strays = column.stray_types()
        if strays[list] or strays[dict]:
            return False
        if column.check.wants_source:
            sources = [source for source in column.values if isinstance(source, bytes)]
            if any(source[0] in b"{[" for source in sources):
                return False
            quotes += b"".join(sources).count(b'"')
        elif str in column.check.types:
            quotes += 2 * (records - len(column.strays))
        quotes += 2 * (records - strays[UnsetType]) + 2 * strays[str]
    return window.chunk.count(b'"') == quotes


def maybe_deep(window: Window, depth: int) -> bool:
    """Tell whether any record may be too deep, by all brackets first, then by each record's."""
    openers = window.chunk.count(b"{") + window.chunk.count(b"[") - window.array
    others = len(window.numbers) - 1
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


def doubled(shapes: Shapes, window: Window) -> list[int]:
    """Return the indexes of the records that may have a declared name twice."""
    escaped = b"\\u" in window.chunk or b"\\/" in window.chunk  # as any letter of a name may be written
    if not escaped and _names_counted(shapes, window):
        return []
    sources = window.sources()
    if not _repeats(sources, shapes.root):
        return []
    return [index for index, source in enumerate(sources) if _repeats([source], shapes.root)]


def _names_counted(shapes: Shapes, window: Window) -> bool:
    """Tell whether each declared name stands in the window exactly as often as msgspec found it."""
    if not shapes.provable or (not window.typed and shapes.inner):
        return False
    records = len(window.numbers)
    for name, leaves in shapes.names:
        absent = sum(window.columns[leaf].stray_types()[UnsetType] for leaf in leaves if leaf is not None)
        if window.chunk.count(name) != records * len(leaves) - absent:
            return False
    return True


def _repeats(sources: Sequence[bytes | Raw], node: Node) -> bool:
    """Tell whether any of these objects may have a name twice, in itself or on the way to a field.

    msgspec keeps the last of two members of one name: such an object, written again, has fewer quotes. A quote in a
    name is written again as it was, unless that was as a number.
    """
    text = b"".join((b"[", b",".join(sources), b"]"))
    objects = MEMBERS.window(text, array=True)
    if b"\\u0022" in text or msgspec.json.encode(objects).count(b'"') != text.count(b'"'):
        return True
    for name, child in node.children.items():
        if child.children:
            inner = [bytes(members[name]) for members in objects if name in members]
            if _repeats([source for source in inner if source.startswith(b"{")], child):
                return True
    return False
