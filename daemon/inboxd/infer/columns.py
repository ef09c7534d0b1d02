"""Which columns the records' paths become, and of which type: the narrowest that takes every value that was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from inboxd.infer.forms import form_of
from inboxd.infer.leaves import EXACT, Node, PathValues, Tree
from inboxd.infer.names import ColumnNames
from inboxd.model import FieldType, Origin, Path, Shape
from inboxd.records.storable import storable

MOST_COLUMNS: Final = 60
"""With more, objects inside the records are kept whole, as ``json``."""
MOST_MEMBERS: Final = 200
"""With more names in a record, the most usual become columns, and the others go to the column ``extra``."""
ENOUGH: Final = 20
"""Records that show what a field or a key is; fewer show that it may be."""

VALUE: Final[Path] = (Origin.RECORD, "value")
NAME: Final[Path] = (Origin.RECORD, "name")
NUMBER: Final[Path] = (Origin.RECORD, "no")


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a column, and how its values are read."""

    type: FieldType
    unit: str | None = None
    format: str | None = None
    null: tuple[str, ...] = ()
    coerce: bool = False
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One field of the feed that is proposed; ``always`` tells that every record of the sample has it, not blank."""

    name: str
    path: Path
    kind: Kind
    always: bool
    leaf: PathValues


@dataclass(slots=True)
class Layout:
    """The columns, and what could not become one."""

    columns: list[Column] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)
    extra: bool = False
    """Whether there are more names than columns, to be kept in the column ``extra``."""


Steps = Mapping[Path, int]
"""By path: how many types the proof found wanting, and the next of ``kinds_of`` is to be tried."""


def lay_out(tree: Tree, shape: Shape | None, steps: Steps, *, extra: bool = True) -> Layout:
    """Return the columns for the records of a tree."""
    layout = Layout()
    nodes = _nodes(tree, layout, steps, extra=extra)
    names = ColumnNames([node.leaf.path for node in nodes])
    if shape is Shape.MEMBERS:
        _add_name(tree, layout, names, nodes, steps)
    for node in nodes:
        _add(node, tree, layout, names, steps)
    if not nodes:
        _add_whole(tree, layout, names, steps, extra=extra)
    if not layout.columns:
        leaf = PathValues(("number",), seen=tree.records)
        layout.columns.append(Column("number", NUMBER, Kind(FieldType.INTEGER), always=True, leaf=leaf))
    if tree.objects < tree.records and not any(_takes_anything(column.path) for column in layout.columns):
        layout.columns.append(_no_position(tree, names))
    return layout


def _nodes(tree: Tree, layout: Layout, steps: Steps, *, extra: bool) -> list[Node]:
    """Return the paths that become columns; none where a record is only taken as a whole."""
    if tree.objects == tree.records and tree.root.members:
        return _chosen(tree.root, layout, steps, extra=extra)
    if tree.arrays == tree.records and tree.flat_rows and 0 < tree.longest_row <= MOST_COLUMNS:
        return list(tree.root.members.values())
    return []


def _add_whole(tree: Tree, layout: Layout, names: ColumnNames, steps: Steps, *, extra: bool) -> None:
    """Keep each record as one value; where that cannot be stored, what can be of those that are objects."""
    root = tree.root
    lost = root.leaf.unstorable or any(node.unstorable() for node in root.members.values())
    kinds = [Kind(FieldType.JSON)] if tree.objects else kinds_of(root)
    step = steps.get(VALUE, 0)
    if not lost and step < len(kinds):
        always = root.leaf.seen + tree.objects == tree.records and not root.leaf.blank
        layout.columns.append(Column(names.unlike("value"), VALUE, kinds[step], always, root.leaf))
        return
    layout.left_out.append(VALUE)
    for node in _chosen(root, layout, steps, extra=extra) if tree.objects else ():
        _add(node, tree, layout, names, steps)


def _add_name(tree: Tree, layout: Layout, names: ColumnNames, nodes: list[Node], steps: Steps) -> None:
    """Add the column of the members' names; one that is blank is no key, one that cannot be stored no column."""
    step, leaf = steps.get(NAME, 0), tree.names
    if leaf.unstorable or step > 1:
        layout.left_out.append(NAME)
        return
    always = not leaf.blank and not step
    name = "name" if ("name",) not in {node.leaf.path[-1:] for node in nodes} else "member"
    layout.columns.append(Column(names.unlike(name), NAME, Kind(FieldType.TEXT), always, leaf))


def _takes_anything(path: Path) -> bool:
    """Tell whether a field that reads there lets a record be no object."""
    return path == VALUE or (isinstance(path[0], str) and path[0].isdecimal())


def _no_position(tree: Tree, names: ColumnNames) -> Column:
    """Return a column that reads a position which no record has: with it, records need not be objects."""
    place = tree.longest_row
    while str(place) in tree.root.members:
        place += 1
    return Column(
        names.unlike("none"), (str(place),), Kind(FieldType.JSON), always=False, leaf=PathValues((str(place),))
    )


def _chosen(root: Node, layout: Layout, steps: Steps, *, extra: bool) -> list[Node]:
    """Return the paths that become columns: all names of the records, and what is in their objects if there is room."""
    nodes = list(root.members.values())
    if len(nodes) > MOST_MEMBERS:
        usual = sorted(nodes, key=lambda node: -node.seen)[:MOST_COLUMNS]
        layout.extra = extra
        return [node for node in nodes if node in usual]
    return _opened(nodes, steps)


def _opened(nodes: list[Node], steps: Steps) -> list[Node]:
    """Take objects apart, the outermost first, as long as there is room for their members."""
    room = max(MOST_COLUMNS, len(nodes)) - len(nodes)
    opened = True
    while opened:
        opened = False
        result: list[Node] = []
        for node in nodes:
            cost = len(node.members) - 1
            forced = (
                node.is_branch and len(node.members) <= MOST_MEMBERS and (node.unstorable() or node.leaf.path in steps)
            )
            if node.is_branch and (forced or (cost <= room and not _map_like(node))):
                room -= 0 if forced else cost
                result.extend(node.members.values())
                opened = True
            else:
                result.append(node)
        nodes = result
    return nodes


def _map_like(node: Node) -> bool:
    """Tell whether an object's names are rather values: many, each in few of the records."""
    usual = sum(inner.seen * 4 >= node.objects for inner in node.members.values())
    return len(node.members) > 12 and usual * 2 < len(node.members)  # noqa: PLR2004 - a dozen may be a union of kinds


def _add(node: Node, tree: Tree, layout: Layout, names: ColumnNames, steps: Steps) -> None:
    path = node.leaf.path
    kinds = [] if _lost(node) else kinds_of(node)
    step = steps.get(path, 0)
    if step >= len(kinds):
        layout.left_out.append(path)
        return
    always = node.seen == tree.records and not node.leaf.blank
    layout.columns.append(Column(names.name(path), path, kinds[step], always, node.leaf))


def _lost(node: Node) -> bool:
    return not all(map(storable, node.leaf.path)) or (node.unstorable() if node.members else node.leaf.unstorable)


def kinds_of(node: Node) -> list[Kind]:
    """Return the types that may take all the values, the narrowest first."""
    leaf = node.leaf
    if node.objects or not leaf.scalar:
        return [Kind(FieldType.JSON)]
    found = _narrowest(leaf)
    kinds = [found]
    if leaf.kinds:
        kinds.append(Kind(FieldType.TEXT, coerce=leaf.kinds != {"text"}))
    kinds.append(Kind(FieldType.JSON))
    return list(dict.fromkeys(kinds))


def _narrowest(leaf: PathValues) -> Kind:
    kinds = leaf.kinds
    form = form_of(leaf)
    null = ("",) if leaf.blank else ()
    if form is not None:
        return Kind(
            form.type, form.unit, form.format, null if form.type is not FieldType.TEXT else (), doubt=form.doubt
        )
    if kinds == {"boolean"} and not leaf.blank:
        return Kind(FieldType.BOOLEAN)
    if kinds and kinds <= {"integer", "wide", "real", "long", "huge"}:
        return Kind(_number(leaf), null=null)
    if not kinds:
        return Kind(FieldType.TEXT if leaf.blank else FieldType.JSON)
    return Kind(FieldType.TEXT, coerce=kinds != {"text"}) if "text" in kinds or leaf.blank else Kind(FieldType.JSON)


def _number(leaf: PathValues) -> FieldType:
    if leaf.kinds == {"integer"}:
        return FieldType.INTEGER
    inexact = "integer" in leaf.kinds and max(abs(leaf.lowest), abs(leaf.highest)) > EXACT
    return FieldType.DECIMAL if inexact or not leaf.kinds <= {"integer", "real"} else FieldType.REAL
