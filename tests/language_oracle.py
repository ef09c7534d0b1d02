"""A second, slow reading of what a feed can say of its records: on Python values, with the standard library alone.

It reads a document whole and one value at a time; it shares nothing with ``inboxd.records`` but the nouns. What becomes
of one flat record's fields is the matter of ``records_oracle``; here it is where the records are, which of them count,
and what is read from around them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from inboxd.model import Condition, Feed, Origin, Path, Shape, names_of, origin_of


class Absent:
    """No value there."""


ABSENT = Absent()


class Number(str):
    """A JSON number, as written."""

    __slots__ = ()


DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number)


@dataclass
class Found:
    """A record with all that is around it."""

    value: Any
    document: Any
    elements: list[Any] = field(default_factory=list)
    """The elements around it, the nearest first."""
    name: str | None = None
    number: int = 0


def documents(text: str) -> list[Any]:
    """Return the top-level values of a text."""
    found: list[Any] = []
    pos = 0
    while True:
        while pos < len(text) and text[pos] in " \t\r\n":
            pos += 1
        if pos == len(text):
            return found
        value, pos = DECODER.raw_decode(text, pos)
        found.append(value)


def at(value: Any, names: tuple[str, ...]) -> Any:
    """Return what is at a path."""
    for name in names:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return ABSENT
    return value


def envelope(feed: Feed, text: str) -> tuple[list[Found], int]:
    """Return the elements of ``records`` and how many documents have none."""
    found: list[Found] = []
    filtered = 0
    whole = feed.shape is Shape.VALUES
    if not feed.records and feed.shape is None:
        whole = not text.startswith("[")
    for document in documents(text):
        inside = at(document, feed.records) if feed.records else document
        if whole:
            found.append(Found(inside, document))
        elif isinstance(inside, list):
            found += [Found(element, document) for element in inside]
        elif isinstance(inside, dict) and feed.shape is Shape.MEMBERS:
            found += [Found(value, document, name=name) for name, value in inside.items()]
        elif isinstance(inside, dict):
            found.append(Found(inside, document))
        else:
            filtered += 1
    return found, filtered


def exploded(value: Any, names: tuple[str, ...], around: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Yield the records inside an element, through arrays on the way."""
    if isinstance(value, list) and not (names and names[0].isdecimal()):
        for inner in value:
            if names:
                yield from exploded(inner, names, [inner, *around])
            else:
                yield inner, around
    elif names:
        inner = at(value, names[:1])
        if inner is not ABSENT:
            yield from exploded(inner, names[1:], around)
    elif isinstance(value, dict):
        yield value, around


def records(feed: Feed, text: str) -> tuple[list[Found], int]:
    """Return the numbered records, chosen by ``where``, and how many were filtered."""
    found, filtered = envelope(feed, text)
    if feed.explode:
        parts: list[Found] = []
        for element in found:
            inside = list(exploded(element.value, feed.explode, [element.value]))
            filtered += not inside
            parts += [Found(value, element.document, around, element.name) for value, around in inside]
        found = parts
    for number, record in enumerate(found, 1):
        record.number = number
    chosen = [record for record in found if all(holds(condition, record) for condition in feed.where)]
    return chosen, filtered + len(found) - len(chosen)


def look(record: Found, path: Path) -> Any:
    """Return what a path leads to from a record."""
    names = names_of(path)
    origin = origin_of(path)
    if origin is None:
        return at(record.value, names)
    if origin is Origin.AROUND:
        out = len(path) - len(names) - 1
        return at(record.elements[out], names) if out < len(record.elements) else ABSENT
    if origin is Origin.DOCUMENT:
        return at(record.document, names)
    assert origin is Origin.RECORD
    return {"no": Number(record.number), "name": record.name, "value": record.value}[names[0]]


def holds(condition: Condition, record: Found) -> bool:
    """Tell whether a condition holds."""
    value = look(record, condition.path)
    there = value is not ABSENT and value is not None
    text = value if isinstance(value, str) and not isinstance(value, Number) else None
    among = {said: [comparable(DECODER.decode(source)) for source in sources or ()]
             for said, sources in (("any", condition.any_of), ("none", condition.none_of))}  # fmt: skip
    failing = (
        condition.exists is not None and condition.exists is not there,
        condition.any_of is not None and (not there or comparable(value) not in among["any"]),
        there and comparable(value) in among["none"],
        condition.pattern is not None and (text is None or re.search(condition.pattern, text) is None),
    )
    return not any(failing)


def comparable(value: Any) -> Any:
    """Return what equal values have alike, with its kind."""
    if isinstance(value, Number):
        return ("number", Decimal(value))
    if isinstance(value, bool | str):
        return (type(value).__name__, value)
    return ("other", id(value))
