"""Records in: exploded, numbered, chosen, told from deletions, then judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Final

import msgspec

from inboxd.errors import FileFault, Place
from inboxd.model import Path, names_of
from inboxd.records.columns import Sifter, TooDeep, Verdicts, in_order, whole_records
from inboxd.records.conditions import Predicate
from inboxd.records.fields import CompiledFeed
from inboxd.records.sources import elements, index_of, last_at
from inboxd.records.surroundings import Element, Item, Surroundings
from inboxd.records.validate import as_deletions, meets

_UNDECODABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError, TooDeep)


class Intake:
    """The records of one file.

    ``ceiling``: the latest moment that a cursor may have, as text. ``max_size`` bounds what is copied to records from
    around them, in bytes.
    """

    def __init__(self, compiled: CompiledFeed, ceiling: str, max_size: int) -> None:
        self._compiled = compiled
        self._sifter = Sifter(compiled, ceiling)
        self._deletions = Sifter(compiled.deletion, ceiling) if compiled.deletion else None
        self._copied = 0
        self._max_size = max_size
        self._seen = 0
        self._had_records = False
        self.count = 0
        """How many records have a number."""
        self.filtered = 0

    def window(self, chunk: bytes, around: Surroundings, *, array: bool, depth: int) -> Verdicts | None:
        """Take the records of a chunk; ``None`` when that cannot be done at once (see ``Sifter.window``)."""
        if not self._compiled.itemised:
            found = self._sifter.window(chunk, self.count + 1, around, array=array, depth=depth)
            if found is None:
                return None
            verdicts, count = found
            self.count += count
            self._count_copies(around, count)
            return verdicts
        try:
            raws = whole_records(chunk, array=array, depth=depth)
        except _UNDECODABLE:
            return None
        return None if raws is None else self.records(raws, around, top=not array)

    def records(self, raws: Sequence[bytes], around: Surroundings, *, top: bool = False) -> Verdicts:
        """Take records that are known to be JSON, and not nested too deeply."""
        return self.take([Item(raw, around) for raw in raws], top=top)

    def take(self, items: Sequence[Item], *, top: bool = False) -> Verdicts:
        """Take records that have no numbers yet; ``top`` tells that each is a top-level value, a document itself."""
        compiled = self._compiled
        if compiled.feed.explode:
            items = [part for item in items for part in self._exploded(item, top=top)]
        for number, item in enumerate(items, self.count + 1):
            item.number = number
        self.count += len(items)
        if not (compiled.where or compiled.deletes):
            self._count_copies_of(items)
            return self._sifter.items(items)
        answers = self._answers(items)
        chosen = [_meets(compiled.where, place, item, answers) for place, item in enumerate(items)]
        self.filtered += chosen.count(False)
        gone = [
            kept and bool(compiled.deletes) and _meets(compiled.deletes, place, item, answers)
            for place, (item, kept) in enumerate(zip(items, chosen, strict=True))
        ]
        live = [item for item, kept, deleted in zip(items, chosen, gone, strict=True) if kept and not deleted]
        dead = list(compress(items, gone))
        self._count_copies_of(live)
        verdicts = self._sifter.items(live)
        if self._deletions is None or not dead:
            return verdicts
        columns, rejects = self._deletions.items(dead)
        return in_order([verdicts, (as_deletions(compiled, columns) if columns else [], rejects)])

    def finish(self) -> None:
        """Raise ``no_records`` if there was something to explode, and nothing of it had the records."""
        if self._seen and not self._had_records:
            path = ".".join(self._compiled.feed.explode)
            message = f"none of {self._seen} elements has an array at {path!r}"
            raise FileFault("no_records", message, "check the feed's `explode`", place=Place(1, 1, 0))

    def _exploded(self, item: Item, *, top: bool) -> list[Item]:
        """Return the records in an element; it counts as filtered where there is none."""
        self._seen += 1
        around = item.surroundings
        if top and self._compiled.in_document and around is not None:
            inside = {path: last_at(item.raw, names_of(path)) for path in self._compiled.in_document}
            around = Surroundings(
                {**around.values, **{p: source for p, source in inside.items() if source is not None}}
            )
        explosion = Explosion()
        explosion.walk(item.raw, self._compiled.feed.explode, Element(item.raw, None))
        self._had_records = self._had_records or explosion.had_records
        if not explosion.found:
            self.filtered += 1
        return [Item(raw, around, element, item.name) for raw, element in explosion.found]

    def _answers(self, items: Sequence[Item]) -> dict[Path, list[bytes | None]]:
        """Return what the conditions ask of each record, by path; nothing where each has to be asked by itself."""
        shapes = self._compiled.answers
        if shapes is None or not items:
            return {}
        try:
            chunk = b"".join((b"[", b",".join([item.raw for item in items]), b"]"))
            structs = shapes.loose.window(chunk, array=True)
        except _UNDECODABLE:
            return {}
        found: dict[Path, list[bytes | None]] = {}
        for number, path in enumerate(self._compiled.asked):
            values = shapes.leaves[number].column(structs, typed=False)
            found[path] = [value if isinstance(value, bytes) else None for value in values]
        return found

    def _count_copies(self, around: Surroundings, count: int) -> None:
        """Count what records take from their document."""
        copied = self._compiled.copied
        if copied and count:
            self._copy(count * sum(len(around.value(path) or b"") for path in copied))

    def _count_copies_of(self, items: Sequence[Item]) -> None:
        if copied := self._compiled.copied:
            self._copy(sum(len(item.value(path) or b"") for item in items for path in copied))

    def _copy(self, size: int) -> None:
        self._copied += size
        if self._copied > self._max_size:
            message = f"values from around the records, copied to each, are larger than {self._max_size} bytes"
            raise FileFault("file_too_large", message, "raise inbox.max_file_size, or read fewer of them")


def _meets(
    predicates: Sequence[Predicate], place: int, item: Item, answers: Mapping[Path, Sequence[bytes | None]]
) -> bool:
    """Tell whether a record meets all conditions; what msgspec found for them is in ``answers``."""
    for predicate in predicates:
        found = answers.get(predicate.path)
        if not (predicate.holds(found[place]) if found is not None else meets([predicate], item)):
            return False
    return True


class Explosion:
    """The records inside one element, each with the elements around it."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, Element]] = []
        self.had_records = False
        """Whether there was an array, or an object, at the end of the path."""

    def walk(self, source: bytes, names: Sequence[str], element: Element) -> None:
        """Gather the records at a path from a value inside ``element``, through arrays on the way."""
        if source.startswith(b"["):
            index = index_of(names[0]) if names else None
            if index is not None:
                inside = elements(source)
                if index < len(inside):
                    self.walk(inside[index], names[1:], element)
            elif names:
                for inner in elements(source):
                    self.walk(inner, names, Element(inner, element))
            else:
                self.had_records = True
                self.found += [(inner, element) for inner in elements(source)]
        elif names:
            found = last_at(source, names[:1])
            if found is not None:
                self.walk(found, names[1:], element)
        elif source.startswith(b"{"):
            self.had_records = True
            self.found.append((source, element))
