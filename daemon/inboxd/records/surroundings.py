"""What stands around a record: the file, the document, the elements that it was exploded from, its number and name.

A path that begins outside the record (see ``model.Origin``) is looked up here, and gives the source text of a value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from inboxd.model import Feed, Origin, Path, Scalar, names_of, origin_of, spelled
from inboxd.records.sources import last_at, members


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The file as it lay in the inbox (or was given to ``load``).

    ``path`` as text that can be stored, ``mtime`` in canonical form, ``captures`` what the feed's ``match`` caught.
    """

    path: str = ""
    mtime: str = ""
    captures: Mapping[str, str] = field(default_factory=dict)

    def value(self, path: Path) -> str | None:
        """Return what a path of ``$file.`` or ``$path.`` leads to, ``None`` if nothing."""
        (name,) = names_of(path)
        if origin_of(path) is Origin.CAPTURE:
            return self.captures.get(name)
        return {"name": self.path.rpartition("/")[2], "path": self.path, "mtime": self.mtime}[name] or None


NO_FACTS: Final = FileFacts()


class Element:
    """An array element around an exploded record, and the one around that."""

    __slots__ = ("_found", "_raw", "outer")

    def __init__(self, raw: bytes, outer: Element | None) -> None:
        self._raw = raw
        self.outer = outer
        self._found: dict[tuple[str, ...], bytes | None] = {}  # it is the same for many records

    def value(self, names: tuple[str, ...]) -> bytes | None:
        """Return the source at a path in the element, ``None`` if it leads nowhere."""
        if names not in self._found:
            self._found[names] = last_at(self._raw, names)
        return self._found[names]

    def further_out(self, steps: int) -> Element | None:
        """Return the element so many steps further out; ``None`` beyond the outermost."""
        element: Element | None = self
        for _ in range(steps):
            element = element.outer if element else None
        return element


class Surroundings:
    """What all records of one document have around them: values by path, as sources."""

    __slots__ = ("settled", "values")

    def __init__(self, values: Mapping[Path, bytes]) -> None:
        self.values = values
        self.settled: dict[int, Mapping[int, Scalar]] = {}
        """The values of the fields that come from here, by the feed's compiled form; judged once, when first needed."""

    def value(self, path: Path) -> bytes | None:
        """Return the source that a path of the document or the file leads to."""
        return self.values.get(path)


@dataclass(slots=True)
class Item:
    """A record on its way: its source, what is around it, and its number, once it has one."""

    raw: bytes
    surroundings: Surroundings | None
    """``None`` for a record that was kept, with its surroundings, and is judged again."""
    element: Element | None = None
    name: bytes | None = None
    number: int = 0
    kept: Mapping[str, bytes] | None = None
    """What was kept of its surroundings, by the path as a config writes it."""

    def value(self, path: Path) -> bytes | None:
        """Return the source that a path from outside the record leads to, ``None`` if nothing."""
        if path == (Origin.RECORD, "value"):
            return self.raw
        if self.surroundings is None:
            return (self.kept or {}).get(spelled(path))
        origin = origin_of(path)
        if origin is Origin.AROUND:
            names = names_of(path)
            element = self.element and self.element.further_out(len(path) - len(names) - 1)
            return element.value(names) if element else None
        if origin is Origin.RECORD:
            return str(self.number).encode() if names_of(path) == ("no",) else self.name
        return self.surroundings.value(path)


def recalled(raw: bytes, record_no: int, context: str | None) -> Item:
    """Return a record as it was kept in a dead letter: ``context`` is what ``context_of`` made of its surroundings."""
    return Item(raw, None, number=record_no, kept=dict(members(context.encode())) if context else None)


def file_values(feed_paths: Sequence[Path], facts: FileFacts) -> dict[Path, bytes]:
    """Return what the paths of ``$file.`` and ``$path.`` lead to, as JSON texts."""
    found = {path: facts.value(path) for path in feed_paths if origin_of(path) in (Origin.FILE, Origin.CAPTURE)}
    return {path: json.dumps(text).encode() for path, text in found.items() if text is not None}


def context_of(paths: Sequence[Path], item: Item) -> str | None:
    """Return what a record takes from outside itself, as a JSON object from path to value; ``None`` if nothing."""
    found = {spelled(path): item.value(path) for path in paths}
    members = [f"{json.dumps(name)}:{source.decode()}" for name, source in found.items() if source is not None]
    return "{" + ",".join(members) + "}" if members else None


def variant_of(feed: Feed, facts: FileFacts) -> str:
    """Return what tells the content of two files apart whose bytes are the same, as a JSON object; ``""`` if nothing.

    That is every ``$path.`` that the feed reads, and ``$file.name`` and ``$file.path`` where they decide which row a
    record is, or whether it counts.
    """
    found = {spelled(path): facts.value(path) for path in _telling(feed)}
    return json.dumps(found, sort_keys=True, ensure_ascii=False, separators=(",", ":")) if found else ""


@lru_cache(maxsize=256)
def _telling(feed: Feed) -> tuple[Path, ...]:
    names = [path for name in (*feed.key, *feed.scope) for path in feed.field(name).paths]
    deciding = [*names, *(one.path for one in feed.where), *(feed.as_of.paths if feed.as_of else ())]
    of_file = [path for path in deciding if path in ((Origin.FILE, "name"), (Origin.FILE, "path"))]
    captured = [path for path in feed.paths if origin_of(path) is Origin.CAPTURE]
    return tuple(dict.fromkeys((*of_file, *captured)))
