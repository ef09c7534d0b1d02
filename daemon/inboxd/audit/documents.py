"""Where a file's records stand, and what is around each of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from inboxd.audit.content import Content, Unreadable
from inboxd.audit.values import all_at, at, elements, index_of, members
from inboxd.model import Feed, Origin, Path, Shape, names_of, origin_of, spelled

Opened = Callable[[], AbstractContextManager[Content]]


@dataclass(slots=True)
class Record:
    """One record: its source, and what a path from outside of it can lead to."""

    source: str
    outside: Mapping[Path, str]
    """Values of the document and the file, by path."""
    around: Sequence[str] = ()
    """The elements around it, the nearest first."""
    name: str | None = None
    number: int = 0
    kept: Mapping[str, str] | None = None
    """Of a dead letter: what was kept of its surroundings."""
    _members: list[tuple[str, str]] | None = None

    def inside(self, names: Sequence[str]) -> list[str | None]:
        """Return the sources at a path of the record, one for each time that its names are there."""
        if not names or not self.source.startswith("{"):
            return all_at(self.source, names)
        if self._members is None:
            self._members = members(self.source)
        inner = [source for name, source in self._members if name == names[0]]
        return [end for source in inner for end in all_at(source, names[1:])] or [None]

    def look(self, path: Path) -> str | None:
        """Return what a path leads to that begins outside of the record, ``None`` if nothing."""
        if path == (Origin.RECORD, "value"):
            return self.source
        if self.kept is not None:
            return self.kept.get(spelled(path))
        names = names_of(path)
        if path[0] is Origin.AROUND:
            out = len(path) - len(names) - 1
            return at(self.around[out], names) if out < len(self.around) else None
        if path[0] is Origin.RECORD:
            return str(self.number) if names == ("no",) else self.name
        return self.outside.get(path)


@dataclass(slots=True)
class Reading:
    """One reading of one file: ``of_file`` is what paths of the file itself lead to."""

    feed: Feed
    of_file: Mapping[Path, str]
    opened: Opened
    filtered: int = 0
    """Documents and elements in which there was no record."""
    first: Mapping[Path, str] = field(default_factory=dict)
    """What is around the records of the first document."""

    def records(self) -> Iterator[Record]:
        """Yield the records, numbered from 1."""
        self.first = dict(self.of_file)
        number = 0
        for element in self._elements():
            found = [element] if not self.feed.explode else self._exploded(element)
            self.filtered += not found
            for record in found:
                number += 1
                record.number = number
                yield record

    def _elements(self) -> Iterator[Record]:
        feed = self.feed
        with self.opened() as content:
            if feed.records or feed.shape is Shape.MEMBERS:
                yield from self._in_documents(content)
            elif content.peek() == "[" and feed.shape is not Shape.VALUES:
                for _ in content.elements():
                    yield Record(content.value(), self.of_file)
            else:
                while content.peek():
                    yield self._top(content.value())

    def _top(self, source: str) -> Record:
        """Return a top-level value as a record, which is the document of what is exploded from it."""
        inside = {path: at(source, names_of(path)) for path in self._paths()}
        return Record(source, {**self.of_file, **{path: one for path, one in inside.items() if one is not None}})

    def _paths(self) -> list[Path]:
        moment = self.feed.as_of.paths if self.feed.as_of else ()
        return [path for path in (*self.feed.paths, *moment) if origin_of(path) is Origin.DOCUMENT]

    def _in_documents(self, content: Content) -> Iterator[Record]:
        paths, number = self._paths(), 0
        with self.opened() as ahead:
            while content.peek():
                number += 1
                outside = {**self.of_file, **(_around(ahead, paths) if paths else {})}
                if number == 1:
                    self.first = outside
                had = yield from self._at(content, self.feed.records, outside)
                self.filtered += not had

    def _at(self, content: Content, path: Sequence[str], outside: Mapping[Path, str]) -> Generator[Record, None, bool]:
        """Yield the records at a path of the value that comes next; returns whether there are any to be had."""
        first, had = content.peek(), False
        if not path and first in {"[", "{"}:
            yield from self._here(content, outside)
            return True
        if not path or first not in {"{", "["} or (first == "[" and index_of(path[0]) is None):
            content.skip()
            return False
        names = content.members() if first == "{" else map(str, content.elements())
        wanted = path[0] if first == "{" else str(index_of(path[0]))
        for name in names:
            if name == wanted:
                had = (yield from self._at(content, path[1:], outside)) or had
            else:
                content.skip()
        return had

    def _here(self, content: Content, outside: Mapping[Path, str]) -> Iterator[Record]:
        """Yield the records that stand here: elements, members, or the one object."""
        if content.peek() == "[":
            for _ in content.elements():
                yield Record(content.value(), outside)
        elif self.feed.shape is Shape.MEMBERS:
            for name in content.members():
                yield Record(content.value(), outside, name=json.dumps(name))
        else:
            yield Record(content.value(), outside)

    def _exploded(self, element: Record) -> list[Record]:
        found: list[Record] = []

        def walk(source: str, names: Sequence[str], around: Sequence[str]) -> None:
            index = index_of(names[0]) if names else None
            if source.startswith("[") and index is None:
                for inner in elements(source):
                    if names:
                        walk(inner, names, (inner, *around))
                    else:
                        found.append(Record(inner, element.outside, around, element.name))
            elif names:
                inside = at(source, names[:1])
                if inside is not None:
                    walk(inside, names[1:], around)
            elif source.startswith("{"):
                found.append(Record(source, element.outside, around, element.name))

        walk(element.source, self.feed.explode, (element.source,))
        return found


def _around(content: Content, paths: Sequence[Path]) -> dict[Path, str]:
    """Pass over the next document; return what stands at paths of it, ``$.`` in front."""
    found: dict[tuple[str, ...], str] = {}

    def walk(wanted: Sequence[tuple[str, ...]], before: tuple[str, ...]) -> None:
        first = content.peek()
        if () in wanted:
            source = content.value()
            for names in wanted:
                inside = at(source, names)
                if inside is not None:
                    found[(*before, *names)] = inside
        elif wanted and first == "{":
            for name in content.members():
                walk([names[1:] for names in wanted if names[0] == name], (*before, name))
        elif wanted and first == "[":
            for place in content.elements():
                inner = [names for names in wanted if index_of(names[0]) == place]
                walk([names[1:] for names in inner], (*before, *{names[0] for names in inner}))
        else:
            content.skip()

    if not content.peek():
        raise Unreadable("it has fewer documents than before")
    walk([names_of(path) for path in paths], ())
    return {path: found[names_of(path)] for path in paths if names_of(path) in found}
