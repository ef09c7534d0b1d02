"""A second, slow reading of the contract for records: what a file's records are, and what becomes of each.

Which texts are JSON, and where the records of a flat file are, is read here with the standard library's ``json``, whole
and strictly; each record is judged by the audit's judge. Neither shares anything with ``inboxd.records`` but the nouns.
"""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from inboxd.audit.content import Content
from inboxd.audit.documents import Reading, Record
from inboxd.audit.judge import Judge, Kind
from inboxd.model import Feed

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BLANK = " \t\r\n"


@dataclass(frozen=True)
class Number:
    """A JSON number, as written."""

    source: str


class BadFile(Exception):
    """A fault of the whole file."""


def _no_constant(name: str) -> None:
    raise ValueError(name)


DECODER = json.JSONDecoder(
    object_pairs_hook=tuple, parse_int=Number, parse_float=Number, parse_constant=_no_constant, strict=True
)
"""Objects become tuples of pairs, arrays lists, numbers their source."""


@dataclass
class Verdicts:
    """What the oracle says of a file."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    rejects: list[tuple[Any, ...]] = field(default_factory=list)


def judge_file(content: bytes, feed: Feed) -> Verdicts:
    """Judge a file; raises ``BadFile`` with the code of its fault."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BadFile("invalid_encoding") from error
    verdicts = Verdicts()
    for number, (_, raw) in enumerate(_records(text.removeprefix("\ufeff"), feed), 1):
        verdict = judge_record(raw, number, feed)
        (verdicts.rows if verdict[0] == "row" else verdicts.rejects).append(verdict[1:])
    return verdicts


def _records(text: str, feed: Feed) -> list[tuple[Any, str]]:
    if not text.strip(BLANK):
        raise BadFile("empty_file")
    try:
        if feed.records:
            return _at_path(text, feed.records)
        if text.lstrip(BLANK).startswith("["):
            found, end = _array(text, text.index("["))
            if text[end:].strip(BLANK):
                raise BadFile("invalid_json")
            return found
        return _stream(text)
    except (ValueError, IndexError, RecursionError) as error:
        raise BadFile("invalid_json") from error


def _skip(text: str, pos: int) -> int:
    while pos < len(text) and text[pos] in BLANK:
        pos += 1
    return pos


def _array(text: str, pos: int) -> tuple[list[tuple[Any, str]], int]:
    found: list[tuple[Any, str]] = []
    pos = _skip(text, pos + 1)
    if text[pos] == "]":
        return found, pos + 1
    while True:
        value, end = DECODER.raw_decode(text, pos)
        found.append((value, text[pos:end]))
        pos = _skip(text, end)
        if text[pos] == "]":
            return found, pos + 1
        if text[pos] != ",":
            raise ValueError(pos)
        pos = _skip(text, pos + 1)


def _stream(text: str) -> list[tuple[Any, str]]:
    found: list[tuple[Any, str]] = []
    pos = previous = _skip(text, 0)
    while pos < len(text):
        value, end = DECODER.raw_decode(text, pos)
        if found:
            gap = text[previous:pos]
            alone = isinstance(value, tuple) and isinstance(found[-1][0], tuple)
            if not alone and "\n" not in gap:
                raise ValueError(pos)
        found.append((value, text[pos:end]))
        previous = end
        pos = _skip(text, end)
    return found


def _at_path(text: str, path: tuple[str, ...]) -> list[tuple[Any, str]]:
    found: list[tuple[Any, str]] = []
    having = 0
    for _, raw in _stream(text):
        inside = _inside(raw, path)
        if isinstance(inside[0], list):
            found += _array(inside[1], 0)[0]
        elif isinstance(inside[0], tuple):
            found.append(inside)
        having += isinstance(inside[0], list | tuple)
    if not having:
        raise BadFile("no_records")
    return found


def _inside(raw: str, path: tuple[str, ...]) -> tuple[Any, str]:
    """Return what is at a path of a document, and its source."""
    document = DECODER.decode(raw)
    for name in path:
        if not isinstance(document, tuple) or name not in dict(document):
            return None, ""
        if [pair[0] for pair in document].count(name) > 1:
            raise BadFile("ambiguous_records")
        raw = _source_of(raw, name)
        document = DECODER.decode(raw)
    return document, raw


def _source_of(raw: str, wanted: str) -> str:
    pos = _skip(raw, 1)
    while True:
        name, pos = DECODER.raw_decode(raw, pos)
        start = _skip(raw, _skip(raw, pos) + 1)
        _, end = DECODER.raw_decode(raw, start)
        if name == wanted:
            return raw[start:end]
        pos = _skip(raw, _skip(raw, end) + 1)


def judge_record(raw: str, number: int, feed: Feed) -> tuple[Any, ...]:
    """Return ``("row", …)`` or ``("reject", number, raw, key, cursor, code)``, as the audit's judge has it."""
    verdict = Judge(feed, NOW).judge(Record(raw, {}, number=number))
    if verdict.kind is Kind.REJECT:
        return ("reject", number, raw, verdict.key, verdict.cursor, verdict.code)
    key = () if feed.record_key_column in feed.columns else (verdict.key,)
    return ("row", *(verdict.values[name] for name in feed.columns), *key, number)


def audited_reading(content: bytes, feed: Feed) -> Reading:
    """Return the audit's reading of a content."""
    return Reading(feed, {}, lambda: nullcontext(Content(io.BytesIO(content))))
