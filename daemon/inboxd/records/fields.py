"""A feed compiled once: the checks of its fields, and the types that msgspec decodes its records into.

Two types per feed: ``typed`` has each field's own type and refuses a whole window for one bad value; ``loose`` takes
any value, so that the bad ones can be told from the good. Both leave a name that the feed does not declare alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from inboxd.model import Feed, FieldType, names_of
from inboxd.records.checks import Check, Value
from inboxd.records.kinds import INTEGER_RANGE, MAX_KEY_BYTES, check_of

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


@dataclass(slots=True)
class Node:
    """A name that leads to fields: a field itself (``leaf`` is its index) or an object with more names."""

    name: str
    attribute: str
    leaf: int | None = None
    children: dict[str, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leaf:
    """Where a field's value is in the decoded structs."""

    attributes: tuple[str, ...]
    source: bool

    def column(self, records: list[Struct], *, typed: bool) -> list[Value]:
        """Return the field's values; ``UNSET`` where absent, its path leading through anything but objects."""
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
    """What msgspec needs to know of a feed."""

    root: Node
    typed: Reader[Struct]
    loose: Reader[Struct]
    leaves: tuple[Leaf, ...]
    names: tuple[tuple[bytes, tuple[int | None, ...]], ...]
    """Each declared name as it stands in a file, and the fields it is the last name of; ``None`` for an inner name."""
    inner: int
    """How many inner names there are: objects on the way to a field."""
    provable: bool
    """Whether every inner name must be there for a typed record, so that names can be counted."""


@dataclass(frozen=True, slots=True)
class CompiledFeed:
    """A feed and everything that is worth making once for it."""

    feed: Feed
    names: tuple[str, ...]
    checks: tuple[Check, ...]
    key: tuple[int, ...]
    """The indexes of the key's fields."""
    cursor: int
    own_key_column: bool
    """Whether a row carries the key's text in a column of its own."""
    known: frozenset[str]
    """The top-level names that fields come from; all others are extra."""
    shapes: Shapes | None
    """``None`` for a feed that msgspec cannot express; its records are judged one by one."""


@lru_cache(maxsize=256)
def compile_feed(feed: Feed) -> CompiledFeed:
    """Compile a feed; cached, for a feed is a value."""
    names = [field.name for field in feed.fields]
    checks = tuple(
        check_of(field, is_key=field.name in feed.key, is_cursor=field.name == feed.cursor) for field in feed.fields
    )
    return CompiledFeed(
        feed=feed,
        names=tuple(names),
        checks=checks,
        key=tuple(names.index(name) for name in feed.key),
        cursor=names.index(feed.cursor_name),
        own_key_column=feed.record_key_column not in names,
        known=frozenset(names_of(field.path)[0] for field in feed.fields),
        shapes=_shapes(feed, checks),
    )


def _shapes(feed: Feed, checks: tuple[Check, ...]) -> Shapes | None:
    root = _tree(feed)
    if root is None:
        return None
    try:
        typed, needed = _struct(root, checks, typed=True)
        loose, _ = _struct(root, checks, typed=False)
    except ValueError:  # a name with a quote, a backslash or a control character
        return None
    nodes = list(_nodes(root))
    leaves: dict[int, Leaf] = {}
    _collect(root, (), checks, leaves)
    names = sorted({node.name for node in nodes})
    return Shapes(
        root=root,
        typed=Reader(typed),
        loose=Reader(loose),
        leaves=tuple(leaves[index] for index in range(len(checks))),
        names=tuple((f'"{name}"'.encode(), tuple(node.leaf for node in nodes if node.name == name)) for name in names),
        inner=sum(node.leaf is None for node in nodes),
        provable=needed or not any(node.children for node in nodes),
    )


def _tree(feed: Feed) -> Node | None:
    """Return the names that lead to fields as a tree; ``None`` if one field's value lies within another's."""
    root = Node("", "")
    count = 0
    for index, declared in enumerate(feed.fields):
        node = root
        for name in names_of(declared.path):
            if node.leaf is not None:
                return None
            if name not in node.children:
                node.children[name] = Node(name, f"f{count}")
                count += 1
            node = node.children[name]
        if node.children or node.leaf is not None:
            return None
        node.leaf = index
    return root


def _nodes(node: Node) -> list[Node]:
    return [found for child in node.children.values() for found in (child, *_nodes(child))]


def _collect(node: Node, above: tuple[str, ...], checks: tuple[Check, ...], leaves: dict[int, Leaf]) -> None:
    for child in node.children.values():
        attributes = (*above, child.attribute)
        if child.leaf is not None:
            leaves[child.leaf] = Leaf(attributes, checks[child.leaf].wants_source)
        _collect(child, attributes, checks, leaves)


def _struct(node: Node, checks: tuple[Check, ...], *, typed: bool) -> tuple[type[Struct], bool]:
    """Return the struct of an object, and whether all objects in it must be there."""
    members: list[tuple[str, Any, Any]] = []
    needed = True
    required = False
    for child in node.children.values():
        if child.leaf is None:
            kind, inner_needed = _struct(child, checks, typed=typed)
            required = required or inner_needed
            needed = needed and inner_needed
            members.append(_inner_member(child, kind, typed=typed, needed=inner_needed))
        else:
            check = checks[child.leaf]
            required = required or not check.optional
            members.append(_leaf_member(child.attribute, check, typed=typed))
    renamed = {child.attribute: child.name for child in node.children.values()}
    struct = msgspec.defstruct("Record", members, rename=renamed, gc=False, kw_only=True)
    return struct, needed and (required or not node.name)


def _inner_member(child: Node, kind: type[Struct], *, typed: bool, needed: bool) -> tuple[str, Any, Any]:
    if not typed:
        return child.attribute, kind | str | int | float | bool | list[Any] | None | UnsetType, UNSET
    default = msgspec.NODEFAULT if needed else msgspec.field(default_factory=kind)
    return child.attribute, kind, default


def _leaf_member(attribute: str, check: Check, *, typed: bool) -> tuple[str, Any, Any]:
    if check.wants_source:
        return attribute, Raw, ABSENT_SOURCE
    if not typed:
        return attribute, Any, UNSET
    kind = _TYPES[check.field.type]
    if check.is_key and check.field.type is FieldType.TEXT:
        kind = Annotated[str, Meta(max_length=MAX_KEY_BYTES)]
    return (attribute, kind | None | UnsetType, UNSET) if check.optional else (attribute, kind, msgspec.NODEFAULT)


_TYPES: Final[dict[FieldType, Any]] = {
    FieldType.TEXT: str,
    FieldType.TIMESTAMP: str,
    FieldType.DATE: str,
    FieldType.REAL: float,
    FieldType.BOOLEAN: bool,
    FieldType.INTEGER: Annotated[int, Meta(ge=INTEGER_RANGE[0], le=INTEGER_RANGE[1])],
}
