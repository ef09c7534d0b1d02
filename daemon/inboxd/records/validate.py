"""The exact judge of one record, from its source text.

Every record that the fast road of ``columns`` cannot prove valid comes here, and a dead letter that is replayed. Slower
by an order of magnitude, and the law: the fast road must agree with it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import UNSET

from inboxd.errors import FileFault, Place
from inboxd.model import UNREADABLE_KEY, Cursor, Extra, Feed, Reject, Row, Scalar
from inboxd.records.checks import (
    MAX_KEY_BYTES,
    Check,
    Composite,
    Fault,
    HugeNumber,
    Outcome,
    Scope,
    Value,
    show,
    storable,
    unstorable,
)
from inboxd.records.fields import CompiledFeed, compile_feed
from inboxd.records.scan import STRING, Malformed, Scanner
from inboxd.records.times import utc_text

MAX_DETAIL: Final = 2_000
"""Characters of ``Reject.detail``."""

_LONGEST_INTEGER: Final = 300
"""Digits beyond which an integer is not converted: far past 64 bits, and within what a double can hold."""

_LAST_MOMENT: Final = "9999-12-31T23:59:59.999999Z"
_MEMBER: Final = re.compile(rb'[\s,]*("[^"\\]*")\s*:\s*(?:("[^"\\]*"|[^\s,}\]"{\[]+)|(?=["{\[]))')
_NAME: Final = re.compile(rb"[\s,]*")
_COLON: Final = re.compile(rb"\s*:\s*")


def judge(raw: bytes, record_no: int, feed: Feed, *, now: datetime) -> Row | Reject:
    """Judge the record whose source text is ``raw``. Raises ``FileFault`` if that is no JSON in UTF-8."""
    start = len(raw) - len(raw.lstrip(b" \t\r\n"))
    try:
        raw.decode()
        end, done = Scanner(0).advance(raw, start, final=True)
        if not done or raw[end:].strip(b" \t\r\n"):
            raise Malformed(end, "this is not one JSON value")
    except UnicodeDecodeError as error:
        place = Place(1, error.start + 1, error.start)
        raise FileFault("invalid_encoding", f"byte {error.start}: the record is not UTF-8", place=place) from error
    except Malformed as error:
        place = Place(1, error.at + 1, error.at)
        raise FileFault(error.code, f"byte {error.at}: {error.why}", place=place) from error
    return judge_valid(raw[start:end], record_no, compile_feed(feed), Scope(ceiling(feed, now)))


def ceiling(feed: Feed, now: datetime) -> str:
    """Return the largest moment a cursor may have."""
    try:
        return utc_text(now + timedelta(seconds=feed.max_future_s))
    except OverflowError:
        return _LAST_MOMENT


def judge_valid(raw: bytes, record_no: int, compiled: CompiledFeed, scope: Scope) -> Row | Reject:
    """Judge a record that is known to be JSON in UTF-8, without white space around it."""
    if not raw.startswith(b"{"):
        what = {b"[": "an array", b'"': "a string"}.get(
            raw[:1], raw[:MAX_DETAIL].decode() if len(raw) < 80 else "a number"
        )
        return Reject(record_no, raw.decode(), UNREADABLE_KEY, None, "not_an_object", f"{what} is no object")
    found = list(members(raw))
    outcomes = [_outcome(check, found, scope) for check in compiled.checks]
    extra: Outcome = None
    if compiled.feed.extra is not Extra.IGNORE:
        extra = extra_of({name: source for name, source in found if name not in compiled.known}, compiled.feed.extra)
    return conclude(compiled, record_no, raw, outcomes, extra)


def members(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the names and the values' sources of a valid object, in order, all of them."""
    pos = 1
    while True:
        match = _MEMBER.match(raw, pos)
        if match is not None:
            pos = match.end()
            name, source = match.groups()
            if source is None:
                end = _end_of(raw, pos)
                source, pos = raw[pos:end], end
            yield name[1:-1].decode(), source
            continue
        start = _skip(_NAME, raw, pos)
        if raw[start] != ord('"'):
            return
        end = _end_of(raw, start)
        value = _skip(_COLON, raw, end)
        pos = _end_of(raw, value)
        yield json.loads(raw[start:end]), raw[value:pos]


def _skip(pattern: re.Pattern[bytes], raw: bytes, pos: int) -> int:
    match = pattern.match(raw, pos)
    assert match is not None
    return match.end()


def _end_of(raw: bytes, pos: int) -> int:
    simple = STRING.match(raw, pos)
    return simple.end() if simple is not None else Scanner(0).advance(raw, pos, final=True)[0]


def _values(found: list[tuple[str, bytes]], path: tuple[str, ...]) -> list[bytes | None]:
    """Return the sources at ``path``, one for each time its names are there; ``None`` where it leads nowhere."""
    sources: list[bytes | None] = []
    for name, source in found:
        if name != path[0]:
            continue
        if len(path) == 1:
            sources.append(source)
        elif source.startswith(b"{"):
            sources.extend(_values(list(members(source)), path[1:]))
        else:
            sources.append(None)
    return sources or [None]


def _outcome(check: Check, found: list[tuple[str, bytes]], scope: Scope) -> Outcome:
    """Judge one field: of a name that is there twice, each value must be valid, and the last one counts."""
    outcomes = [check.one(_value(check, source), scope) for source in _values(found, check.field.path)]
    faults = [outcome for outcome in outcomes if isinstance(outcome, Fault)]
    if not faults:
        return outcomes[-1]
    if len(outcomes) == 1:
        return faults[0]
    last = outcomes[-1].readable if isinstance(outcomes[-1], Fault) else outcomes[-1]
    legible = all(fault.readable is not None for fault in faults)
    return Fault(faults[0].code, f"{faults[0].why}, in one of {len(outcomes)} values", last if legible else None)


def _value(check: Check, source: bytes | None) -> Value:
    if source is None:
        return UNSET
    return source if check.wants_source else value_of(source)


def value_of(source: bytes) -> Value:
    """Return the value of a valid JSON text as the checks want it."""
    first = source[:1]
    if first == b'"':
        return json.loads(source) if b"\\" in source else source[1:-1].decode()
    if first in b"{[":
        return Composite("an object" if first == b"{" else "an array")
    if first in b"tfn":
        return {b"t": True, b"f": False, b"n": None}[first]
    if source.lstrip(b"-").isdigit():
        return int(source) if len(source) <= _LONGEST_INTEGER else HugeNumber(source.decode())
    number = float(source)
    return number if math.isfinite(number) else HugeNumber(source.decode())


def extra_of(unknown: dict[str, bytes], rule: Extra) -> Outcome:
    """Return what the ``extra`` column holds for a record: ``None`` when there was nothing else in it."""
    if not unknown:
        return None
    if rule is Extra.REJECT:
        names = ", ".join(show(name) for name in list(unknown)[:10])
        return Fault("unexpected_field", f"{names}{'' if len(unknown) <= 10 else ', …'}")  # noqa: PLR2004
    for name, source in unknown.items():
        why = unstorable(source) or ("" if storable(name) else "a name with U+0000 or a lone surrogate")
        if why:
            return Fault("invalid_extra", f"{show(name)}: {why}")
    return (
        "{"
        + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{source.decode()}" for name, source in unknown.items())
        + "}"
    )


def key_text(values: Sequence[Scalar]) -> str:
    """Return the key's text; of several columns, a JSON array."""
    if len(values) > 1:
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    value = values[0]
    return value if isinstance(value, str) else json.dumps(value)


def oversized(values: Sequence[Scalar]) -> bool:
    """Tell whether the key's text is over the limit."""
    text = key_text(values)
    return len(text) * 4 > MAX_KEY_BYTES and len(text.encode()) > MAX_KEY_BYTES


def conclude(
    compiled: CompiledFeed, record_no: int, raw: bytes, outcomes: Sequence[Outcome], extra: Outcome
) -> Row | Reject:
    """Make a row of the outcomes of a record's fields, or a reject if there is a fault among them."""
    key = [_readable(outcomes[index]) for index in compiled.key]
    legible = all(value is not None for value in key)
    if legible and oversized(key):
        longest = max(range(len(key)), key=lambda position: len(key_text(key[position : position + 1])))
        outcomes = list(outcomes)
        check = compiled.checks[compiled.key[longest]]
        outcomes[compiled.key[longest]] = check.invalid(f"a key of more than {MAX_KEY_BYTES} bytes")
        legible = False
    faults = [
        (check.field.name, outcome)
        for check, outcome in zip(compiled.checks, outcomes, strict=True)
        if isinstance(outcome, Fault)
    ]
    if isinstance(extra, Fault):
        faults.append(("extra", extra))
    text = key_text(key) if legible else UNREADABLE_KEY
    if faults:
        cursor = _readable(outcomes[compiled.cursor])
        assert cursor is None or isinstance(cursor, str | int)
        return Reject(record_no, raw.decode(), text, cursor, faults[0][1].code, _detail(faults))
    row = [outcome for outcome in outcomes if not isinstance(outcome, Fault)]
    if compiled.feed.extra is Extra.KEEP and not isinstance(extra, Fault):
        row.append(extra)
    if compiled.own_key_column:
        row.append(text)
    return (*row, record_no)


def _readable(outcome: Outcome) -> Scalar:
    return outcome.readable if isinstance(outcome, Fault) else outcome


def _detail(faults: list[tuple[str, Fault]]) -> str:
    text = "; ".join(f"{name}: {fault.code} ({fault.why})" for name, fault in faults)
    return text if len(text) <= MAX_DETAIL else text[: MAX_DETAIL - 1] + "…"


__all__ = ["Cursor", "ceiling", "conclude", "extra_of", "judge", "judge_valid", "key_text", "members", "oversized"]
