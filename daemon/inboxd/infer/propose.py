"""From the beginnings of files, and what the proof has taught since, to the feed that is proposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from inboxd.infer.columns import NAME, Column, Layout, lay_out
from inboxd.infer.forms import form_of
from inboxd.infer.identity import Identities, Key, cursor_of, subjects_of
from inboxd.infer.leaves import Tree
from inboxd.infer.outline import Found, Place, find, records_at
from inboxd.infer.sample import Head, Value, pairs_of
from inboxd.model import Mode, Path, Shape

MOST_RECORDS: Final = 20_000
"""Records of the heads that are taken apart; the proof looks at all of them."""


class NothingToTake(Exception):
    """There is no record in the files."""


class WrongWish(Exception):
    """What a person asked for is not in the files."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person has decided; ``None`` is left to the sample."""

    feed: str | None = None
    key: tuple[str, ...] | None = None
    cursor: str | None = None
    records: tuple[str, ...] | None = None
    explode: tuple[str, ...] | None = None
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A feed, and what the sample says for each choice."""

    feed: str
    place: Place
    close: tuple[tuple[Place, int], ...]
    mode: Mode
    key: Key
    cursor: Column | None
    layout: Layout
    records: int
    """How many records of the sample were looked at as values."""
    also_unique: Column | None = None
    around: tuple[str, ...] = ()
    """Names beside the records, in the document around them."""


@dataclass(slots=True)
class Knowledge:
    """What is known of the files: it only grows, so that each proposal takes more than the one before."""

    heads: Sequence[Head]
    file_stems: Sequence[str]
    feed: str
    wishes: Wishes
    now: datetime
    found: Found = field(default_factory=lambda: Found(Place()))
    tree: Tree = field(default_factory=Tree)
    sample: list[tuple[str | None, Value]] = field(default_factory=list)
    steps: dict[Path, int] = field(default_factory=dict)
    keep_extra: bool = True
    no_keys: set[frozenset[str]] = field(default_factory=set)
    no_cursors: set[str] = field(default_factory=set)

    def look(self) -> None:
        """Find the records and take them apart; raises ``NothingToTake`` and ``WrongWish``."""
        files = [head.values for head in self.heads]
        self.found = self._place(files)
        for values in files:
            for record in records_at(values, self.found.place):
                if len(self.sample) >= MOST_RECORDS:
                    break
                self.sample.append(record)
        if not self.sample and (self.wishes.records or self.wishes.explode):
            path = ".".join((*(self.wishes.records or ()), *(self.wishes.explode or ())))
            raise WrongWish(f"there are no records at {path!r}")
        if not self.sample or all(values in ([None], [{}]) for values in files if values):
            raise NothingToTake
        for name, record in self.sample:
            self.tree.names.take(name)
            self.tree.take(record)

    def _place(self, files: list[list[Value]]) -> Found:
        records, explode = self.wishes.records, self.wishes.explode
        if records is None and explode is None:
            return find(files)
        records = find(files).place.records if records is None else records
        place = Place(records, None, explode or ())
        if not explode and records and not _is_array(files, records):
            place = Place(records, Shape.MEMBERS) if _has_members(files, records) else place
        return Found(place)

    def learn(self, refused: Sequence[str], at_fault: set[Path]) -> None:
        """Take in records that the proof refused, and the paths that were at fault in them."""
        before = lay_out(self.tree, self.found.place.shape, self.steps, extra=self.keep_extra)
        for source in refused:
            self.tree.take(pairs_of(source))
        after = lay_out(self.tree, self.found.place.shape, self.steps, extra=self.keep_extra)
        old = {column.path: (column.kind, column.always) for column in before.columns}
        new = {column.path: (column.kind, column.always) for column in after.columns}
        for path in at_fault:
            if path in new and new[path] == old.get(path):
                self.steps[path] = self.steps.get(path, 0) + 1

    def propose(self) -> Proposal:
        """Return the feed that fits what is known."""
        layout = lay_out(self.tree, self.found.place.shape, self.steps, extra=self.keep_extra)
        columns = layout.columns
        cursor = cursor_of(columns, now=self.now, refused=self.no_cursors)
        place = self.found.place
        subjects = subjects_of([*self.file_stems, self.feed, *place.records[-1:], *place.explode[-1:]])
        named = not place.records and not form_of(self.tree.names)
        identities = Identities(self.sample, columns, subjects, named, self.no_keys)
        key = self._wished_key(columns) or identities.key(cursor)
        mode = self.wishes.mode or (Mode.UPSERT if key.columns else Mode.APPEND)
        if self.wishes.cursor is not None:
            if mode is not Mode.UPSERT:
                raise WrongWish(f'mode "{mode}" has no cursor; one is for mode "upsert", which needs a key')
            cursor = _named(columns, self.wishes.cursor)
        elif mode is not Mode.UPSERT:
            cursor = None
        if mode is not Mode.APPEND and not key.columns:
            raise WrongWish(f'mode "{mode}" needs a key, and no field of the sample is fit for it; name one with --key')
        return Proposal(
            feed=self.feed,
            place=place,
            close=self.found.close,
            mode=mode,
            key=key,
            cursor=cursor,
            layout=layout,
            records=len(self.sample),
            also_unique=None if key.columns else identities.also_unique(),
            around=self._around(),
        )

    def _wished_key(self, columns: Sequence[Column]) -> Key | None:
        if self.wishes.key is None:
            return None
        return Key(tuple(_named(columns, name) for name in self.wishes.key), wished=True)

    def _around(self) -> tuple[str, ...]:
        """Return the names of plain values beside the records, in the first document that has some."""
        records = self.found.place.records
        for head in self.heads:
            for document in head.values[:1] if records else ():
                if isinstance(document, dict):
                    return tuple(
                        name for name, value in document.items() if value and not isinstance(value, dict | list)
                    )
        return ()


def _is_array(files: list[list[Value]], path: tuple[str, ...]) -> bool:
    return any(isinstance(found, list) for found in _at(files, path))


def _has_members(files: list[list[Value]], path: tuple[str, ...]) -> bool:
    """Tell whether the objects at a path hold objects only: a map of records."""
    return any(
        isinstance(found, dict) and found and all(isinstance(value, dict) for value in found.values())
        for found in _at(files, path)
    )


def _at(files: list[list[Value]], path: tuple[str, ...]) -> list[Value]:
    found = [value for values in files for value in values]
    for name in path:
        found = [value[name] for value in found if isinstance(value, dict) and name in value]
    return found


def _named(columns: Sequence[Column], wish: str) -> Column:
    """Return the column of a name, or of a path as the records have it; raises ``WrongWish``."""
    for column in columns:
        if wish in (column.name, ".".join(str(part) for part in column.path)):
            return column
    for column in columns:
        if column.path == NAME and wish == "$record.name":
            return column
    raise WrongWish(f"there is no field {wish!r}; there are: {', '.join(column.name for column in columns)}")
