"""What msgspec decodes records into: structs made of the names that a feed reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from inboxd.records.checks import Check, Value

ABSENT_SOURCE: Final = Raw(b"")
"""Stands in a column of sources for a value that is absent."""

T = TypeVar("T")


class Reader(Generic[T]):
    """Decodes a window that is an array, or values apart by white space, or one record."""

    def __init__(self, kind: type[T]) -> None:
        self._array = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type] # made at run time
        self._one = msgspec.json.Decoder(kind)

    def window(self, chunk: bytes, *, array: bool) -> list[T]:
        """Decode them; raises ``DecodeError`` (``ValidationError`` if JSON of another type), ``RecursionError``."""
        return self._array.decode(chunk) if array else self._one.decode_lines(chunk)

    def one(self, raw: bytes | Raw) -> T:
        """Decode one; raises the same."""
        return self._one.decode(raw)


RAW: Final = Reader(Raw)
MEMBERS: Final = Reader(dict[str, Raw])
ROWS: Final = Reader(list[Raw])


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a record that is read. ``check`` says its type; ``None``: as source text, whatever it is."""

    number: int
    names: tuple[str, ...]
    check: Check | None

    @property
    def is_source(self) -> bool:
        """Whether the slot holds the value's source text."""
        return self.check is None or self.check.wants_source


@dataclass(slots=True)
class Node:
    """A name that leads to slots: a slot itself (``leaf`` is its number) or an object with more names."""

    name: str
    attribute: str
    slot: Slot | None = None
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def leaf(self) -> int | None:
        """The slot's number, ``None`` for an object on the way."""
        return None if self.slot is None else self.slot.number


@dataclass(frozen=True, slots=True)
class SlotPath:
    """Where a slot's value is in the decoded structs."""

    attributes: tuple[str, ...]
    source: bool

    def column(self, records: list[Struct], *, typed: bool) -> list[Value]:
        """Return the slot's values; ``UNSET`` where absent, its path leading through anything but objects."""
        values: list[Value]
        if typed or len(self.attributes) == 1:
            values = list(map(attrgetter(".".join(self.attributes)), records))
        else:
            values = [self._walk(record) for record in records]
        if self.source:
            return [UNSET if v is ABSENT_SOURCE or v is UNSET else bytes(v) for v in values]  # type: ignore[call-overload] # Raw
        return values

    def _walk(self, record: Struct) -> Value:
        value: Value = record
        for attribute in self.attributes:
            if not isinstance(value, Struct):
                return UNSET
            value = getattr(value, attribute)
        return value


@dataclass(frozen=True, slots=True)
class Shapes:
    """What msgspec needs to know of the slots of a record."""

    root: Node
    typed: Reader[Struct]
    loose: Reader[Struct]
    leaves: dict[int, SlotPath]
    """By the slot's number."""
    names: tuple[tuple[bytes, tuple[int | None, ...]], ...]
    """Each declared name as it stands in a file, and the slots it is the last name of; ``None`` for an inner name."""
    inner: int
    """How many inner names there are: objects on the way to a slot."""
    provable: bool
    """Whether every slot is a field, and every inner name must be there for a typed record: then names are counted."""


def shapes_of(slots: Sequence[Slot], fields: int) -> Shapes | None:
    """Return the shapes of a record with these slots; ``None`` if msgspec cannot express them.

    Slots with a number from ``fields`` on are no field's own.
    """
    root = _tree([slot for slot in slots if slot.names])
    if root is None:
        return None
    try:
        typed, needed = _struct(root, typed=True)
        loose, _ = _struct(root, typed=False)
    except ValueError:  # a name with a quote, a backslash or a control character
        return None
    nodes = list(_nodes(root))
    leaves: dict[int, SlotPath] = {}
    _collect(root, (), leaves)
    names = sorted({node.name for node in nodes})
    own = all(slot.number < fields and slot.check is not None for slot in slots)
    return Shapes(
        root=root,
        typed=Reader(typed),
        loose=Reader(loose),
        leaves=leaves,
        names=tuple((f'"{name}"'.encode(), tuple(node.leaf for node in nodes if node.name == name)) for name in names),
        inner=sum(node.slot is None for node in nodes),
        provable=own and (needed or not any(node.children for node in nodes)),
    )


def _tree(slots: Sequence[Slot]) -> Node | None:
    """Return the names that lead to slots as a tree; ``None`` if one slot's value lies within another's."""
    root = Node("", "")
    count = 0
    for slot in slots:
        node = root
        for name in slot.names:
            if node.slot is not None:
                return None
            if name not in node.children:
                node.children[name] = Node(name, f"f{count}")
                count += 1
            node = node.children[name]
        if node.children or node.slot is not None:
            return None
        node.slot = slot
    return root


def _nodes(node: Node) -> list[Node]:
    return [found for child in node.children.values() for found in (child, *_nodes(child))]


def _collect(node: Node, above: tuple[str, ...], leaves: dict[int, SlotPath]) -> None:
    for child in node.children.values():
        attributes = (*above, child.attribute)
        if child.slot is not None:
            leaves[child.slot.number] = SlotPath(attributes, child.slot.is_source)
        _collect(child, attributes, leaves)


def _struct(node: Node, *, typed: bool) -> tuple[type[Struct], bool]:
    """Return the struct of an object, and whether all objects in it must be there."""
    members: list[tuple[str, Any, Any]] = []
    needed = True
    required = False
    for child in node.children.values():
        if child.slot is None:
            kind, inner_needed = _struct(child, typed=typed)
            required = required or inner_needed
            needed = needed and inner_needed
            members.append(_inner_member(child, kind, typed=typed, needed=inner_needed))
        else:
            check = child.slot.check
            required = required or (check is not None and not check.optional)
            members.append(_leaf_member(child.attribute, child.slot, typed=typed))
    renamed = {child.attribute: child.name for child in node.children.values()}
    struct = msgspec.defstruct("Record", members, rename=renamed, gc=False, kw_only=True)
    return struct, needed and (required or not node.name)


def _inner_member(child: Node, kind: type[Struct], *, typed: bool, needed: bool) -> tuple[str, Any, Any]:
    if not typed:
        return child.attribute, kind | str | int | float | bool | list[Any] | None | UnsetType, UNSET
    default = msgspec.NODEFAULT if needed else msgspec.field(default_factory=kind)
    return child.attribute, kind, default


def _leaf_member(attribute: str, slot: Slot, *, typed: bool) -> tuple[str, Any, Any]:
    check = slot.check
    if check is None or check.wants_source:
        return attribute, Raw, ABSENT_SOURCE
    if not typed:
        return attribute, Any, UNSET
    kind = check.decoded
    return (attribute, kind | None | UnsetType, UNSET) if check.optional else (attribute, kind, msgspec.NODEFAULT)
