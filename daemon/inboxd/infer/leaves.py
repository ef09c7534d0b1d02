"""What stands at each path of the records: how often, in which kinds, and what texts and numbers it could be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from inboxd.infer.sample import Huge, Pairs, Rounded, Value
from inboxd.records.storable import storable

Names = tuple[str, ...]

MOST_TEXTS: Final = 1_000
"""Different texts of one path that are kept, to tell what form they have."""
_MAYBE_TIME: Final = re.compile(r"(?=.*\d)[\w ,:/+.\-]{4,48}", re.DOTALL)
_LONGEST_KEY: Final = 256
"""Characters that are 1,024 bytes at most."""
INTEGERS: Final = (-(2**63), 2**63 - 1)
DEEPEST: Final = 8
"""Names of a path that are looked at."""
WIDEST: Final = 1_000
"""Names in one object, or places in one array, that are looked at."""
EXACT: Final = 2**53
"""Beyond it not every integer is a double."""


@dataclass(slots=True)
class PathValues:
    """One path in the records, and what was found there. ``()`` is the record itself."""

    path: Names
    seen: int = 0
    """How many records have a value there that is not null."""
    blank: int = 0
    kinds: set[str] = field(default_factory=set)
    """Of text, integer, wide (an integer of more than 64 bits), real, long (more digits than a double keeps), huge,
    boolean, object, array.
    """
    texts: set[str] = field(default_factory=set)
    """What may be times; none once something was no time."""
    timely: bool = True
    lowest: float = math.inf
    highest: float = -math.inf
    short: bool = True
    """Whether all texts fit a key."""
    unstorable: bool = False

    def take(self, value: Value) -> None:
        """Note one value; null is the same as absent."""
        if value is None:
            return
        self.seen += 1
        if type(value) is str:
            self._text(value)
        elif type(value) is bool:
            self.kinds.add("boolean")
        elif type(value) is int:
            self._number(value, "integer" if INTEGERS[0] <= value <= INTEGERS[1] else "wide")
        elif isinstance(value, float):
            kind = "long" if type(value) is Rounded else "real"
            self._number(value, kind if math.isfinite(value) else "huge")
        elif type(value) is Huge:
            self.kinds.add("wide" if value.lstrip("-").isdigit() else "huge")
        else:
            self.kinds.add("array" if type(value) is list else "object")
            self.unstorable = self.unstorable or not _storable_inside(value)

    def _text(self, value: str) -> None:
        if not value or value.isspace():
            self.blank += 1
            self.unstorable = self.unstorable or not storable(value)
            return
        self.kinds.add("text")
        if not value.isascii() or "\0" in value:
            self.unstorable = self.unstorable or not storable(value)
        if len(value) > _LONGEST_KEY:
            self.short = False
        if self.timely and len(self.texts) < MOST_TEXTS and value not in self.texts:
            if _MAYBE_TIME.fullmatch(value):
                self.texts.add(value)
            else:
                self.timely = False
                self.texts.clear()

    def _number(self, value: float, kind: str) -> None:
        self.kinds.add(kind)
        if kind != "huge":
            self.lowest = min(self.lowest, value)
            self.highest = max(self.highest, value)

    @property
    def scalar(self) -> bool:
        """Whether there are no objects and arrays among the values."""
        return self.kinds.isdisjoint(("object", "array"))


def _storable_inside(value: Value) -> bool:
    """Tell whether all names and texts in a container can be stored."""
    todo = [value]
    while todo:
        one = todo.pop()
        if type(one) is str:
            if not storable(one):
                return False
        elif type(one) is dict:
            todo.extend(one)
            todo.extend(one.values())
        elif type(one) is list:
            todo.extend(one)
        elif type(one) is Pairs:
            todo.extend(part for pair in one for part in pair)
    return True


class Tree:
    """The paths of records: objects in objects are branches, everything else is a leaf."""

    def __init__(self) -> None:
        self.records = 0
        self.objects = 0
        self.arrays = 0
        self.root = Node(())
        self.names = PathValues(("name",))
        """What the records are called that are members of an object."""
        self.longest_row = 0
        self.flat_rows = True
        """Whether the records that are arrays hold nothing but scalars."""

    def take(self, record: Value) -> None:
        """Note one record."""
        self.records += 1
        if isinstance(record, dict | Pairs):
            self.objects += 1
            self.root.take_object(record)
            return
        self.root.leaf.take(record)
        if isinstance(record, list):
            self.arrays += 1
            self.longest_row = max(self.longest_row, len(record))
            for position, value in enumerate(record[:WIDEST]):
                self.flat_rows = self.flat_rows and not isinstance(value, dict | list)
                self.root.inner(str(position)).take(value)


class Node:
    """One name in the records: what its values are, and what is inside those that are objects."""

    __slots__ = ("leaf", "members", "objects", "opaque")

    def __init__(self, path: Names) -> None:
        self.leaf = PathValues(path)
        self.members: dict[str, Node] = {}
        self.objects = 0
        """How many of its values are objects with something in them."""
        self.opaque = False
        """Whether its objects are not looked into, as they have too many names, or lie too deep."""

    def inner(self, name: str) -> Node:
        """Return what stands under a name in it."""
        node = self.members.get(name)
        if node is None:
            node = self.members[name] = Node((*self.leaf.path, name))
        return node

    def take(self, value: Value) -> None:
        """Note one value."""
        if not isinstance(value, dict | Pairs) or not value:
            self.leaf.take(value)
            return
        self.objects += 1
        if not self.opaque and (len(self.leaf.path) >= DEEPEST or len(self.members) > WIDEST):
            self.opaque = True
        if self.opaque:
            self.leaf.unstorable = self.leaf.unstorable or not _storable_inside(value)
        else:
            self.take_object(value)

    def take_object(self, value: Value) -> None:
        """Note the members of an object."""
        members: Iterable[tuple[str, Value]] = value.items() if isinstance(value, dict) else value
        for name, inner in members:
            self.inner(name).take(inner)

    @property
    def seen(self) -> int:
        """How many records have a value there that is not null."""
        return self.leaf.seen + self.objects

    @property
    def is_branch(self) -> bool:
        """Whether its values are objects that can be taken apart; an empty one has nothing to take."""
        return bool(self.members) and not self.opaque and self.leaf.kinds <= {"object"} and not self.leaf.blank

    def unstorable(self) -> bool:
        """Tell whether something at or below it cannot be stored."""
        todo = [self]
        while todo:
            node = todo.pop()
            if node.leaf.unstorable or not storable(node.leaf.path[-1]):
                return True
            todo.extend(node.members.values())
        return False
