"""Where the records stand: the array, the object or the arrays inside arrays that hold most of what is in the files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from inboxd.infer.sample import Value
from inboxd.infer.vocabulary import BOOKKEEPING, ENVELOPES, MAPS, OWN_ID, USUAL
from inboxd.model import Shape

Names = tuple[str, ...]

_LOOKED_AT: Final = 1_000
"""Top-level values whose inside is looked at."""
_DEEPEST: Final = 6
"""Names on the way to the records."""
_WIDEST: Final = 100
"""Members of an object that is entered on the way: one with more is data, not an envelope."""
_COMPARED: Final = 200
"""Elements of which the members are compared."""

_CHAINS: Final = (
    ("resourceSpans", ("scopeSpans", "spans")),
    ("resourceSpans", ("instrumentationLibrarySpans", "spans")),
    ("resourceLogs", ("scopeLogs", "logRecords")),
    ("resourceMetrics", ("scopeMetrics", "metrics")),
)
"""OpenTelemetry's arrays inside arrays."""
_DATA_NAME: Final = re.compile(r".*[\d\s:/@].*|[A-Z]{1,4}|.{1,2}", re.DOTALL)
"""Names that are values themselves: codes, dates, numbers."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a feed finds its records."""

    records: Names = ()
    shape: Shape | None = None
    explode: Names = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The place that was chosen, and those that were close."""

    place: Place
    close: tuple[tuple[Place, int], ...] = ()
    """Each with its number of records in the sample."""


Weights = dict[int, tuple[int, int]]
"""By ``id`` of a container: how many values are in it; how many of them are members of objects. Counted once."""


@dataclass(slots=True)
class _Collection:
    """What stands at one path in the documents, as the records it may hold."""

    path: Names
    members: bool
    documents: int = 0
    size: int = 0
    objects: int = 0
    lists: int = 0
    values: int = 0
    rich: int = 0
    names: list[Names] = field(default_factory=list)
    member_names: list[str] = field(default_factory=list)
    scalars: set[str] = field(default_factory=set)
    widths: set[int] = field(default_factory=set)
    flat_rows: bool = True

    def take(self, container: Value, weights: Weights) -> None:
        self.documents += 1
        self.size += len(container)
        values, rich = weights[id(container)]
        self.values += values
        self.rich += rich
        if self.members:
            self.member_names.extend(list(container)[:_COMPARED])
        for element in container.values() if self.members else container:
            self._element(element)

    def _element(self, element: Value) -> None:
        if isinstance(element, dict):
            self.objects += 1
            if len(self.names) < _COMPARED:
                self.names.append(tuple(element))
        elif isinstance(element, list):
            self.lists += 1
            if len(self.widths) < _COMPARED:
                self.widths.add(len(element))
            self.flat_rows = self.flat_rows and not any(isinstance(cell, (list, dict)) for cell in element[:_COMPARED])
        else:
            self.scalars.add("float" if isinstance(element, float) else type(element).__name__)

    @property
    def alike(self) -> float:
        """How much the objects have the same names: 1 is all of them."""
        if not self.names:
            return 0.0
        counted = Counter(name for names in self.names for name in names)
        common = {name for name, count in counted.items() if count * 2 >= len(self.names)}
        shares = [len(common & set(names)) / len(common | set(names)) for names in self.names if common or names]
        return sum(shares) / len(shares) if shares else 1.0


def find(files: Sequence[Sequence[Value]]) -> Found:
    """Return where the records of files stand; each file is given as its top-level values."""
    several_with_lists = any(len(values) > 1 and any(isinstance(value, list) for value in values) for values in files)
    if several_with_lists:
        return Found(Place(shape=Shape.VALUES))
    tops = [value for values in files for value in values]
    if any(isinstance(value, list) for value in tops):
        elements = [element for value in tops if isinstance(value, list) for element in value]
        return _exploded(Place(), elements)
    documents = [value for value in tops if isinstance(value, dict)]
    if len(documents) < len(tops) or not documents:
        return Found(Place())
    return _in_documents(documents, alone=all(len(values) <= 1 for values in files))


def records_at(values: Sequence[Value], place: Place) -> Iterator[tuple[str | None, Value]]:
    """Yield the records of one file as the feed would find them, each with its member's name if it is one."""
    for name, record in _unexploded(values, place):
        if place.explode:
            for inner in _inside(record, place.explode):
                yield None, inner
        else:
            yield name, record


def _unexploded(values: Sequence[Value], place: Place) -> Iterator[tuple[str | None, Value]]:
    for value in values:
        found = value
        for part in place.records:
            found = found.get(part, _NOTHING) if isinstance(found, dict) else _NOTHING
        if found is _NOTHING:
            continue
        if place.shape is Shape.MEMBERS and isinstance(found, dict):
            yield from found.items()
        elif isinstance(found, list) and place.shape is not Shape.VALUES and (place.records or len(values) == 1):
            for element in found:
                yield None, element
        elif not place.records or isinstance(found, dict):
            yield None, found


_NOTHING: Final = object()


def _inside(value: Value, path: Names) -> Iterator[Value]:
    """Yield the elements of the arrays at a path, arrays on the way walked."""
    if isinstance(value, list):
        for element in value:
            yield from _inside(element, path)
    elif not path:
        yield value
    elif isinstance(value, dict) and path[0] in value:
        yield from _inside(value[path[0]], path[1:])


# Documents that are objects


def _in_documents(documents: list[Value], *, alone: bool) -> Found:
    looked = documents[:_LOOKED_AT]
    weights: Weights = {}
    for document in looked:
        weigh(document, weights)
    whole = _Collection((), members=True)
    for document in looked:
        whole.take(document, weights)
    collections = [one for one in _collections(looked, weights) if one.documents == len(looked) or alone]
    fit = [one for one in collections if _fits(one, whole, looked, alone=alone)]
    if alone and len(documents) == 1 and _is_map(whole, whole):
        return Found(Place(shape=Shape.MEMBERS))
    if not fit:
        inner = _in_wrappers(collections, whole, looked)
        if inner is not None:
            return inner
        close = [one for one in collections if not one.members and one.objects > 1 and one.objects == one.size]
        close.sort(key=lambda one: -one.rich)
        return Found(Place(), tuple((Place(one.path), one.size) for one in close[:2]))
    best = max(fit, key=lambda one: (one.objects > 0, one.rich, one.values))
    if best.members:
        return Found(Place(best.path, Shape.MEMBERS))
    elements = [record for document in looked for _, record in _unexploded([document], Place(best.path))]
    return _exploded(Place(best.path), elements)


def _in_wrappers(collections: list[_Collection], whole: _Collection, documents: list[Value]) -> Found | None:
    """Return the arrays inside the elements of an array that is nearly everything, but only wraps them."""
    for one in collections:
        if one.members or one.objects < one.size or one.rich * 10 < whole.rich * 8:
            continue
        if not _is_page(documents[0], one.path) or _is_record(documents[0], one.path):
            continue
        elements = [record for document in documents for _, record in _unexploded([document], Place(one.path))]
        found = _exploded(Place(one.path), elements)
        if found.place.explode:
            return Found(found.place)
    return None


def weigh(value: Value, weights: Weights) -> tuple[int, int]:
    """Count the values in a container, and those that are members of objects; note them for each container in it."""
    values, rich = 1, 0
    if isinstance(value, dict):
        inner = value.values()
        rich = len(value)
    elif isinstance(value, list):
        inner = value  # type: ignore[assignment] # both are gone through once
    else:
        return 1, 0
    for one in inner:
        if isinstance(one, (dict, list)):
            more, richer = weigh(one, weights)
            values += more
            rich += richer
        else:
            values += 1
    weights[id(value)] = (values, rich)
    return values, rich


def _collections(documents: list[Value], weights: Weights) -> list[_Collection]:
    """Return what is reached through objects alone: arrays, and objects as maps."""
    found: dict[tuple[Names, bool], _Collection] = {}
    for document in documents:
        todo: list[tuple[Names, Value]] = [((), document)]
        while todo:
            path, value = todo.pop()
            for name, inner in value.items():
                if not isinstance(inner, (list, dict)) or not inner or not _writable(name):
                    continue
                at = (*path, name)
                members = isinstance(inner, dict)
                found.setdefault((at, members), _Collection(at, members)).take(inner, weights)
                if members and len(inner) <= _WIDEST and len(at) < _DEEPEST:
                    todo.append((at, inner))
    return list(found.values())


def _writable(name: str) -> bool:
    """Tell whether a config can have the name in a path."""
    return bool(name) and name.isprintable() and not any("\ud800" <= letter <= "\udfff" for letter in name)


def _fits(one: _Collection, whole: _Collection, documents: list[Value], *, alone: bool) -> bool:
    """Tell whether the records are here, and not the documents themselves."""
    if one.members:
        return alone and one.rich * 2 >= whole.rich and _is_map(one, whole)
    if not MAPS.isdisjoint(name.lower() for name in one.path):
        return False
    if one.objects * 10 >= one.size * 9:
        return _objects_fit(one, whole, documents[0], alone=alone)
    if not alone or one.values * 10 < whole.values * 6:
        return False
    if one.lists == one.size:
        usual = one.path[-1].lower() in USUAL
        return one.size > 1 and one.flat_rows and max(one.widths) <= _WIDEST and (usual or len(one.widths) == 1)
    return one.lists == one.objects == 0 and one.size >= _MANY


_MANY: Final = 10
"""Elements that are a list of something, and not what one record has several of."""


def _objects_fit(one: _Collection, whole: _Collection, document: Value, *, alone: bool) -> bool:
    """Tell whether an array of objects is what the documents are about; how much of their members must be in it."""
    share = one.rich / max(1, whole.rich)
    name = one.path[-1].lower()
    if name in ENVELOPES:
        return share >= 0.3  # noqa: PLR2004 - the name says it; the rest may be a page's bookkeeping
    if _is_record(document, one.path) or (one.size == 1 and name not in USUAL):
        return False
    if alone and _is_page(document, one.path):
        return share >= 0.3  # noqa: PLR2004 - as above
    if one.size == 1:
        return False
    if alone:
        return share >= 0.5 and (name in USUAL or one.size >= _MANY)  # noqa: PLR2004 - half of everything
    return share >= 0.8 and one.size >= 2 * one.documents  # noqa: PLR2004 - nearly everything, of many documents


def _is_record(document: Value, path: Names) -> bool:
    """Tell whether an object on the way to an array has an identity of its own: an order with its lines."""
    value = document
    for name in path:
        if not isinstance(value, dict):
            return False
        if any(each.lower() in OWN_ID and not isinstance(value[each], (dict, list)) for each in value):
            return True
        value = value.get(name)
    return False


def _is_page(document: Value, path: Names) -> bool:
    """Tell whether what stands beside an array only says something about it."""
    value = document
    for name in path:
        if not isinstance(value, dict) or any(
            other != name and other.lower().lstrip("@_$").split(".")[-1] not in BOOKKEEPING for other in value
        ):
            return False
        value = value.get(name)
    return True


def _is_map(one: _Collection, whole: _Collection) -> bool:
    """Tell whether an object's members are records, and their names values: ``{"AAPL": {…}, "MSFT": {…}}``."""
    if one.size < 3:  # noqa: PLR2004 - of two nobody can tell
        return False
    data_names = sum(_DATA_NAME.fullmatch(name) is not None for name in one.member_names) * 10 >= (
        len(one.member_names) * 8
    )
    if one.objects == one.size:
        vocabulary = len({name for names in one.names for name in names})
        if one.size >= 20 and vocabulary * 2 <= len(one.names):  # noqa: PLR2004 - many of a kind, be they never so small
            return True
        wide = sum(map(len, one.names)) >= 2 * len(one.names)
        return one.alike >= 0.6 and (wide or data_names) and (data_names or one.size >= 5)  # noqa: PLR2004 - see above
    if one.objects or (one.lists and one.scalars) or one.values * 10 < whole.values * 8:
        return False
    least = 8 if data_names else 40
    return one.size >= least and (one.lists == one.size or len(one.scalars) == 1 or one.scalars == {"int", "float"})


# Arrays inside the elements of an array


def _exploded(place: Place, elements: list[Value]) -> Found:
    """Return the place, or an array inside its elements where those are but wrappers."""
    wrappers = [element for element in elements[:_LOOKED_AT] if isinstance(element, dict)]
    if not wrappers or len(wrappers) < len(elements[:_LOOKED_AT]):
        return Found(place)
    for name, chain in _CHAINS:
        if place.records[-1:] == (name,) and any(_inside_objects(wrapper, chain) for wrapper in wrappers):
            return Found(Place(place.records, None, chain))
    weights: Weights = {}
    rich = sum(weigh(wrapper, weights)[1] for wrapper in wrappers)
    inner = [one for one in _collections(wrappers, weights) if not one.members and one.objects == one.size]
    fit = [one for one in inner if one.documents == len(wrappers) and one.size >= 2 * len(wrappers)]
    best = max(fit, key=lambda one: one.rich, default=None)
    if best is None or best.rich * 10 < rich * 7:
        return Found(place)
    alternative = Place(place.records, None, best.path)
    scalars = sum(not isinstance(value, (dict, list)) for value in wrappers[0].values())
    if best.rich * 10 >= rich * 9 and scalars <= 2 and not _is_record(wrappers[0], best.path):  # noqa: PLR2004 - see above
        return Found(alternative, ((place, len(elements)),))
    return Found(place, ((alternative, best.size),))


def _inside_objects(value: Value, path: Names) -> bool:
    return any(isinstance(inner, dict) for inner in _inside(value, path))
