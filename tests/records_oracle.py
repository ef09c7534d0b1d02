"""A second, slow reading of the contract for records, built on the standard library's ``json``.

It shares nothing with ``inboxd.records`` but the nouns, so that two readings must agree: what a file's records are, and
what becomes of each. It reads a file whole, one value at a time.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from inboxd.model import Extra, Feed, Field, FieldType, names_of

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
BLANK = " \t\r\n"


class Absent:
    """No value there."""


ABSENT = Absent()


@dataclass(frozen=True)
class Number:
    """A JSON number, as written."""

    source: str


class Bad(Exception):
    """A value is refused with this code; ``readable`` is its canonical form if it has one."""

    def __init__(self, code: str, readable: object = None) -> None:
        super().__init__(code)
        self.code = code
        self.readable = readable


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
    for number, (value, raw) in enumerate(_records(text.removeprefix("\ufeff"), feed), 1):
        verdict = judge_record(value, raw, number, feed)
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


def judge_record(record: Any, raw: str, number: int, feed: Feed) -> tuple[Any, ...]:
    """Return ``("row", …)`` or ``("reject", number, raw, key, cursor, code)``."""
    if not isinstance(record, tuple):
        return ("reject", number, raw, "?", None, "not_an_object")
    values: dict[str, Any] = {}
    codes: list[tuple[str, str]] = []
    readable: dict[str, Any] = {}
    for declared in feed.fields:
        code, value, legible = _judge_field(declared, _reach(record, names_of(declared.path)), feed)
        readable[declared.name] = legible
        if code:
            codes.append((declared.name, code))
        else:
            values[declared.name] = value
    key = [readable[name] for name in feed.key]
    text = "?" if None in key else _key_text(key)
    if len(text.encode()) > 1024:
        longest = max(feed.key, key=lambda name: len(_key_text([readable[name]])))
        if longest not in dict(codes):
            codes.append((longest, f"invalid_{feed.field(longest).label}"))
        text = "?"
    order = [declared.name for declared in feed.fields]
    codes.sort(key=lambda fault: order.index(fault[0]))
    extra = None
    if feed.extra is not Extra.IGNORE:
        fault, extra = _judge_extra(record, feed)
        codes += [("extra", fault)] if fault else []
    if codes:
        return ("reject", number, raw, text, readable[feed.cursor_name], codes[0][1])
    row = [values[name] for name in order]
    if feed.extra is Extra.KEEP:
        row.append(extra)
    if feed.record_key_column not in order:
        row.append(text)
    return ("row", *row, number)


def _judge_extra(record: Any, feed: Feed) -> tuple[str, dict[str, Any] | None]:
    known = {declared.path[0] for declared in feed.fields}
    unknown = {name: value for name, value in record if name not in known}
    if not unknown:
        return "", None
    if feed.extra is Extra.REJECT:
        return "unexpected_field", None
    return ("invalid_extra" if any(_cannot_store(part) for part in unknown.items()) else ""), unknown


def _key_text(key: list[Any]) -> str:
    if len(key) == 1:
        return key[0] if isinstance(key[0], str) else json.dumps(key[0])
    return json.dumps(key, ensure_ascii=False, separators=(",", ":"))


def _reach(value: Any, path: tuple[str, ...]) -> list[Any]:
    if not path:
        return [value]
    if not isinstance(value, tuple):
        return [ABSENT]
    found = [end for name, inner in value if name == path[0] for end in _reach(inner, path[1:])]
    return found or [ABSENT]


def _judge_field(declared: Field, values: list[Any], feed: Feed) -> tuple[str, Any, Any]:
    first, legible, value = "", True, None
    for candidate in values:
        try:
            value = _judge_value(declared, candidate, feed)
        except Bad as bad:
            first = first or bad.code
            value = bad.readable
            legible = legible and bad.readable is not None
    return first, value, value if legible else None


def _judge_value(declared: Field, value: Any, feed: Feed) -> Any:
    needed = declared.name in feed.key or declared.name == feed.cursor
    word = "invalid" if declared.type in (FieldType.REAL, FieldType.INTEGER, FieldType.BOOLEAN) else "missing"
    if value is ABSENT or value is None:
        if needed or (declared.required and declared.default is None):
            raise Bad(f"{word}_{declared.label}")
        return declared.default
    if word == "missing" and isinstance(value, str) and not value.strip() and (needed or declared.required):
        storable = "\0" not in value
        if storable:
            raise Bad(f"missing_{declared.label}")
    canonical = _READERS[declared.type](declared, value)
    _judge_range(declared, canonical)
    if declared.name in feed.key and len(_key_text([canonical]).encode()) > 1024:
        raise Bad(f"invalid_{declared.label}")
    if declared.name == feed.cursor and isinstance(canonical, str):
        limit = _utc(NOW + timedelta(seconds=feed.max_future_s))
        if canonical > limit[: len(canonical)]:
            raise Bad(f"future_{declared.label}", canonical)
    return canonical


def _judge_range(declared: Field, canonical: Any) -> None:
    wrong = (
        (declared.minimum is not None and canonical < declared.minimum)
        or (declared.maximum is not None and canonical > declared.maximum)
        or (declared.choices is not None and canonical not in declared.choices)
        or (declared.min_length is not None and len(canonical) < declared.min_length)
        or (declared.max_length is not None and len(canonical) > declared.max_length)
    )
    if wrong:
        raise Bad(f"invalid_{declared.label}", canonical)


def _text(declared: Field, value: Any) -> Any:
    if not isinstance(value, str) or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Bad(f"invalid_{declared.label}")
    return value


def _integer(declared: Field, value: Any) -> Any:
    if not isinstance(value, Number) or set(value.source) - set("-0123456789") or len(value.source) > 30:
        raise Bad(f"invalid_{declared.label}")
    number = int(value.source)
    if number.bit_length() > 63 and number != -(2**63):
        raise Bad(f"invalid_{declared.label}")
    return number


def _real(declared: Field, value: Any) -> Any:
    source = value.source if isinstance(value, Number) else value
    if isinstance(value, str):
        source = value.strip(" ")
        source = source[1:] if source[:1] in ("+", "-") else source
        try:
            if source[:1] not in tuple("0123456789") or not isinstance(DECODER.decode(source), Number):
                raise Bad(f"invalid_{declared.label}")
        except ValueError:
            raise Bad(f"invalid_{declared.label}") from None
        source = value.replace(" ", "")
    elif not isinstance(value, Number):
        raise Bad(f"invalid_{declared.label}")
    number = float(source)
    if math.isinf(number):
        raise Bad(f"invalid_{declared.label}")
    return number


def _boolean(declared: Field, value: Any) -> Any:
    if not isinstance(value, bool):
        raise Bad(f"invalid_{declared.label}")
    return value


def _utc(moment: datetime) -> str:
    moment = moment.astimezone(UTC)
    day = f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}"
    return f"{day}T{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d}.{moment.microsecond:06d}Z"


def _timestamp(declared: Field, value: Any) -> Any:
    bad = Bad(f"invalid_{declared.label}")
    if not isinstance(value, str) or not value.isascii():
        raise bad
    try:
        if len(value) == 10:
            return _utc(datetime.combine(date(*_numbers(value, "-", (4, 2, 2))), datetime.min.time(), UTC))
        if value[10] not in "Tt ":
            raise bad
        day, rest = _numbers(value[:10], "-", (4, 2, 2)), value[11:]
        offset = timedelta(0)
        if rest[-1:] in ("Z", "z"):
            rest = rest[:-1]
        else:
            at = max(rest.rfind("+"), rest.rfind("-"))
            if at >= 0:
                digits = rest[at + 1 :].replace(":", "")
                rebuilt = (digits[:2], f"{digits[:2]}:{digits[2:]}", digits)
                if len(digits) not in (2, 4) or not digits.isdigit() or rest[at + 1 :] not in rebuilt:
                    raise bad
                hours, minutes = int(digits[:2]), int(digits[2:] or 0)
                if hours > 23 or minutes > 59:
                    raise bad
                offset = timedelta(hours=hours, minutes=minutes) * (1 if rest[at] == "+" else -1)
                rest = rest[:at]
        clock, dot, fraction = rest.replace(",", ".").partition(".")
        if dot and (not fraction.isdigit() or len(clock) != 8):
            raise bad
        parts = _numbers(clock, ":", (2, 2, 2) if len(clock) == 8 else (2, 2))
        moment = datetime(*day, *parts, microsecond=int((fraction + "000000")[:6]))  # type: ignore[misc,arg-type]  # noqa: DTZ001
        return _utc((moment - offset).replace(tzinfo=UTC))
    except (ValueError, IndexError, OverflowError):
        raise bad from None


def _numbers(text: str, between: str, lengths: tuple[int, ...]) -> list[int]:
    parts = text.split(between)
    if tuple(map(len, parts)) != lengths or not all(part.isdigit() for part in parts):
        raise ValueError(text)
    return [int(part) for part in parts]


def _date(declared: Field, value: Any) -> Any:
    try:
        return str(date(*_numbers(value, "-", (4, 2, 2)))) if value.isascii() else _boolean(declared, value)
    except (ValueError, AttributeError):
        raise Bad(f"invalid_{declared.label}") from None


def _json(declared: Field, value: Any) -> Any:
    if _cannot_store(value):
        raise Bad(f"invalid_{declared.label}")
    return value


def _cannot_store(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_cannot_store, value))
    if isinstance(value, Number):
        exponent = value.source.lower().partition("e")[2]
        return bool(exponent) and abs(int(exponent)) > 1000
    return isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value))


_READERS = {
    FieldType.TEXT: _text,
    FieldType.INTEGER: _integer,
    FieldType.REAL: _real,
    FieldType.BOOLEAN: _boolean,
    FieldType.TIMESTAMP: _timestamp,
    FieldType.DATE: _date,
    FieldType.JSON: _json,
}
