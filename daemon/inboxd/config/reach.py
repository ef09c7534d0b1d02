"""Whether the paths of a feed can lead anywhere: what each prefix needs, and what it cannot enter."""

from __future__ import annotations

from collections.abc import Iterator

from inboxd.config.faults import Faults, Key
from inboxd.config.globs import captures_of
from inboxd.model import (
    Feed,
    Field,
    FieldType,
    Late,
    Mode,
    Origin,
    Path,
    Shape,
    is_name,
    names_of,
    origin_of,
    spelled,
)


def check_paths(feed: Feed, at: Key, faults: Faults) -> None:
    """Note each path that can lead nowhere in such a feed, and a cursor that does not go with ``late``."""
    for key, path in _paths(feed):
        if (wrong := _wrong(feed, path)) is not None:
            faults.add((*at, *key), f"{spelled(path)} {wrong}")
    read: list[tuple[Key, Field]] = [(("fields", field.name), field) for field in feed.fields]
    read += [(("as_of",), feed.as_of)] if feed.as_of else []
    for key, field in read:
        for path in field.paths:
            if (wrong := _never_valid(field, path)) is not None:
                faults.add((*at, *key, "type"), f"is {field.type}, but {spelled(path)} {wrong}")
    if feed.mode is Mode.UPSERT and feed.cursor and feed.cursor_field.is_of_file and feed.late is not Late.MERGE:
        why = "of two files with one cursor value the second would be skipped"
        faults.add((*at, "late"), f'must be "merge", as {feed.cursor!r} is one value for the whole file: {why}')


def _paths(feed: Feed) -> Iterator[tuple[Key, Path]]:
    """Yield every path that the feed reads, with the key that says it."""
    for field in feed.fields:
        name = "coalesce" if field.coalesce else "from"
        for path in field.paths:
            yield ("fields", field.name, name), path
    deletions = feed.deletes.conditions if feed.deletes else ()
    for key, conditions in (("where", feed.where), ("deletes", deletions)):
        for condition in conditions:
            yield (key, "from") if len(conditions) == 1 else (key,), condition.path
    if feed.as_of is not None:
        yield ("as_of",), feed.as_of.path


def _never_valid(field: Field, path: Path) -> str | None:
    """Say why what inboxd itself knows of a file or a record is never a value of the field."""
    kind = field.type
    if path == (Origin.FILE, "mtime"):
        fits = kind in {FieldType.TEXT, FieldType.JSON} or (kind is FieldType.TIMESTAMP and not field.unit)
        return None if fits else "is a timestamp in text"
    if path == (Origin.RECORD, "no"):
        fits = kind not in {FieldType.TEXT, FieldType.BOOLEAN, FieldType.DATE, FieldType.TIMESTAMP}
        fits = fits or bool(field.unit) or (kind is FieldType.TEXT and field.coerce)
        return None if fits else "is a number"
    if is_name(path) and kind in {FieldType.INTEGER, FieldType.BOOLEAN} and not field.coerce:
        return "is text, which such a field takes with coerce = true alone"
    return None


def _wrong(feed: Feed, path: Path) -> str | None:
    origin, names = origin_of(path), names_of(path)
    if origin is Origin.AROUND:
        return _wrong_around(feed, len(path) - len(names))
    if origin is Origin.DOCUMENT:
        return _wrong_document(feed, names)
    if origin is Origin.CAPTURE:
        without = next((pattern for pattern in feed.match if names[0] not in captures_of(pattern)), None)
        return None if without is None else f"needs {{{names[0]}}} in every pattern of match; {without!r} has none"
    if path == (Origin.RECORD, "name") and feed.shape is not Shape.MEMBERS:
        return 'is the name of a member: it needs shape = "members"'
    return None


def _wrong_around(feed: Feed, out: int) -> str | None:
    if not feed.explode:
        return "is the record around an exploded one, so it needs explode"
    if out > len(feed.explode):
        return f"leads out of the elements of records, as explode has {len(feed.explode)} names; see $."
    return None


def _wrong_document(feed: Feed, names: tuple[str, ...]) -> str | None:
    inside = (*feed.records, *feed.explode)
    if feed.shape is Shape.MEMBERS and not feed.records:
        inside = ()
    if not inside:
        return "is what is around the records, and there is nothing: they are the top-level values, or all of one"
    if names[: len(inside)] == inside[: len(names)]:
        return f"leads into the records, which are at {'.'.join(inside)}; values in a record need no prefix"
    return None
