"""A feed compiled once: the checks of its fields, where each value is read, and what msgspec decodes its records into.

Two types per feed: ``typed`` has each field's own type and refuses a whole window for one bad value; ``loose`` takes
any value, so that the bad ones can be told from the good. Both leave a name that the feed does not declare alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile

from inboxd.model import Extra, Feed, Field, Mode, Origin, Path, names_of, origin_of
from inboxd.records.checks import Check
from inboxd.records.conditions import Predicate
from inboxd.records.kinds import check_of
from inboxd.records.shapes import Shapes, Slot, shapes_of
from inboxd.records.sources import index_of


@dataclass(frozen=True, slots=True)
class Way:
    """One of the paths of a field: from outside the record, or from a slot of its struct and on from there."""

    path: Path
    slot: int | None
    rest: tuple[str, ...]
    position: int | None = None
    """The element that it begins with, where the record is an array."""


@dataclass(frozen=True, slots=True)
class CompiledFeed:
    """A feed and everything that is worth making once for it."""

    feed: Feed
    names: tuple[str, ...]
    checks: tuple[Check, ...]
    key: tuple[int, ...]
    """The indexes of the key's fields."""
    cursor: int | None
    own_key_column: bool
    """Whether a row carries the key's text in a column of its own."""
    known: frozenset[str]
    """The top-level names that are not extra."""
    shapes: Shapes | None
    """``None`` for a feed that msgspec cannot express; its records are judged one by one."""
    ways: tuple[tuple[Way, ...], ...]
    """For each field where its value is read, in order; none for a field that is a slot of its own."""
    of_file: tuple[int, ...]
    """The indexes of the fields that have one value for all records of a document."""
    positional: bool
    """Whether all that it reads of a record is elements of an array."""
    takes_any: bool
    """Whether what is no object can be a record."""
    itemised: bool
    """Whether each record is looked at before it is decoded: exploded, chosen, or told what is around it."""
    outside: tuple[Path, ...]
    """What is read from outside the record and kept with a rejected one; by fields and conditions."""
    in_document: tuple[Path, ...]
    """What is read around the records: those of ``outside`` that begin at the document, and a snapshot's moment."""
    copied: tuple[Path, ...]
    """Those of ``outside`` whose values, of any size, each record has a copy of."""
    moment: tuple[Check, tuple[Way, ...]] | None
    """How a snapshot's moment is read; ``None`` in another feed."""
    where: tuple[Predicate, ...]
    deletes: tuple[Predicate, ...]
    asked: tuple[Path, ...]
    """The paths in the record that conditions read."""
    answers: Shapes | None
    """Their slots, by their order; ``None`` where msgspec cannot express it."""
    deletion: CompiledFeed | None
    """How a deletion is judged: by its key and its cursor alone."""


@lru_cache(maxsize=256)
def compile_feed(feed: Feed) -> CompiledFeed:
    """Compile a feed; cached, for a feed is a value."""
    names = [field.name for field in feed.fields]
    needed = {*feed.key, *feed.scope, feed.cursor}
    checks = tuple(
        check_of(field, needed=field.name in needed, is_key=field.name in feed.key, is_cursor=field.name == feed.cursor)
        for field in feed.fields
    )
    conditions = (*feed.where, *(feed.deletes.conditions if feed.deletes else ()))
    said = [path for field in feed.fields for path in field.paths]
    read = [*said, *(condition.path for condition in conditions)]
    asked = tuple(dict.fromkeys(path for path in read[len(said) :] if origin_of(path) is None))
    slots, ways = _plan(feed.fields, checks)
    shapes = None if any(_is_position(field) for field in feed.fields) else shapes_of(slots, len(checks))
    outside = tuple(dict.fromkeys(path for path in read if origin_of(path) and path != (Origin.RECORD, "value")))
    per_record = any(origin_of(path) in (Origin.AROUND, Origin.RECORD) for path in read)
    return CompiledFeed(
        feed=feed,
        names=tuple(names),
        checks=checks,
        key=tuple(names.index(name) for name in feed.key),
        cursor=names.index(feed.cursor) if feed.cursor else None,
        own_key_column=feed.record_key_column not in names,
        known=_known(read if feed.extra is Extra.REJECT else said),
        shapes=shapes,
        ways=ways,
        of_file=tuple(index for index, field in enumerate(feed.fields) if field.is_of_file),
        positional=bool(said) and all(origin_of(path) or _is_index(path) for path in said),
        takes_any=any(map(_is_position, feed.fields)) or (Origin.RECORD, "value") in read,
        itemised=per_record or bool(feed.explode or conditions),
        outside=outside,
        in_document=tuple(
            path for path in (*outside, *(feed.as_of.paths if feed.as_of else ())) if origin_of(path) is Origin.DOCUMENT
        ),
        copied=tuple(path for path in outside if origin_of(path) in (Origin.DOCUMENT, Origin.AROUND)),
        moment=_moment(feed),
        where=tuple(map(Predicate, feed.where)),
        deletes=tuple(map(Predicate, feed.deletes.conditions)) if feed.deletes else (),
        asked=asked,
        answers=_answers(asked),
        deletion=_deletion(feed),
    )


def _moment(feed: Feed) -> tuple[Check, tuple[Way, ...]] | None:
    if feed.as_of is None:
        return None
    check = check_of(feed.as_of, needed=True, is_key=False, is_cursor=False)
    return check, tuple(Way(path, None, ()) for path in feed.as_of.paths)


def _deletion(feed: Feed) -> CompiledFeed | None:
    if feed.deletes is None:
        return None
    fields = tuple(field for field in feed.fields if field.name in {*feed.key, feed.cursor})
    return compile_feed(
        replace(feed, fields=fields, deletes=None, where=(), extra=Extra.IGNORE, mode=Mode.UPSERT, scope=())
    )


def _answers(asked: tuple[Path, ...]) -> Shapes | None:
    if any(_plain_names(path) != path for path in asked):
        return None
    return shapes_of([Slot(index, names_of(path), None) for index, path in enumerate(asked)], len(asked))


def _known(paths: Iterable[Path]) -> frozenset[str]:
    return frozenset(str(path[0]) for path in paths if path and origin_of(path) is None)


def _plain_names(path: Path) -> tuple[str, ...]:
    """Return the names of a path in the record up to the first that may be an index; none if it begins outside."""
    if origin_of(path) is not None:
        return ()
    return tuple(takewhile(lambda name: index_of(name) is None, names_of(path)))


def _is_index(path: Path) -> bool:
    return origin_of(path) is None and not _plain_names(path)


def _is_position(field: Field) -> bool:
    return any(map(_is_index, field.paths))


def _plan(fields: tuple[Field, ...], checks: tuple[Check, ...]) -> tuple[list[Slot], tuple[tuple[Way, ...], ...]]:
    """Return the slots of the record's struct, and the ways of the fields that are not simply one of them.

    A simple field has the slot of its own index, typed; a slot that others read from has the value's source.
    """
    used = [_plain_names(path) for field in fields for path in field.paths]
    slots: list[Slot] = []
    shared: dict[tuple[str, ...], int] = {}
    ways: list[tuple[Way, ...]] = []
    for index, field in enumerate(fields):
        names = _plain_names(field.path)
        if not field.coalesce and names == field.path and used.count(names) == 1:
            slots.append(Slot(index, names, checks[index]))
            ways.append(())
            continue
        found: list[Way] = []
        for path in field.paths:
            names = _plain_names(path)
            number = shared.setdefault(names, len(fields) + len(shared)) if names else None
            rest = names_of(path)[len(names) :]
            if origin_of(path) is None and not names:
                found.append(Way(path, None, rest[1:], index_of(rest[0])))
            else:
                found.append(Way(path, number, rest))
        ways.append(tuple(found))
    slots += [Slot(number, names, None) for names, number in shared.items()]
    return slots, tuple(ways)
