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

from msgspec import UNSET, Raw

from inboxd.errors import FileFault, Place
from inboxd.model import EXTRA_COLUMN, UNREADABLE_KEY, Extra, Feed, Reject, Row, Scalar, names_of
from inboxd.records.checks import Check, Composite, Fault, HugeNumber, Outcome, Scope, Value, show
from inboxd.records.fields import CompiledFeed, compile_feed
from inboxd.records.kinds import MAX_KEY_BYTES
from inboxd.records.scan import STRING, Malformed, Scanner, past_blank
from inboxd.records.storable import storable, unstorable
from inboxd.records.times import utc_text

MAX_DETAIL: Final = 2_000
"""Characters of ``Reject.detail``."""

_LONGEST_INTEGER: Final = 300
"""Digits beyond which an integer is not converted: far past 64 bits, and within what a double can hold."""

_LAST_MOMENT: Final = "9999-12-31T23:59:59.999999Z"
_KEYS: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_MEMBER: Final = re.compile(rb'[\s,]*("[^"\\]*")\s*:\s*(?:("[^"\\]*"|[^\s,}\]"{\[]+)|(?=["{\[]))')
_NAME: Final = re.compile(rb"[\s,]*")
_COLON: Final = re.compile(rb"\s*:\s*")


def judge(raw: bytes, record_no: int, feed: Feed, *, now: datetime) -> Row | Reject:
    """Judge the record whose source text is ``raw``. Raises ``FileFault`` if that is no JSON in UTF-8."""
    start = past_blank(raw, 0)
    try:
        raw.decode()
        end, done = Scanner(0).advance(raw, start, final=True)
    except UnicodeDecodeError as error:
        raise _no_record("invalid_encoding", error.start, "the record is not UTF-8") from error
    except Malformed as error:
        raise _no_record(error.code, error.at, error.why) from error
    if not done or past_blank(raw, end) != len(raw):
        raise _no_record("invalid_json", end, "this is not one JSON value")
    return judge_valid(raw[start:end], record_no, compile_feed(feed), Scope(ceiling(feed, now)))


def _no_record(code: str, at: int, why: str) -> FileFault:
    return FileFault(code, f"byte {at} of the record: {why}", place=Place(1, at + 1, at))


def ceiling(feed: Feed, now: datetime) -> str:
    """Return the largest moment a cursor may have."""
    try:
        return utc_text(now + timedelta(seconds=feed.max_future_s))
    except OverflowError:
        return _LAST_MOMENT


def judge_valid(raw: bytes, record_no: int, compiled: CompiledFeed, scope: Scope) -> Row | Reject:
    """Judge a record that is known to be JSON in UTF-8, without white space around it."""
    if not raw.startswith(b"{"):
        shown = show(value_of(raw))
        return Reject(record_no, raw.decode(), UNREADABLE_KEY, None, "not_an_object", f"{shown} is no object")
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
    return match.end() if match is not None else pos


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
    outcomes = [check.one(_value(check, source), scope) for source in _values(found, names_of(check.field.path))]
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
        return _KEYS.encode(values)
    value = values[0]
    return value if isinstance(value, str) else _KEYS.encode(value)


def oversized(key: str) -> bool:
    """Tell whether the key's text is over the limit."""
    return len(key) * 4 > MAX_KEY_BYTES and len(key.encode()) > MAX_KEY_BYTES


def conclude(
    compiled: CompiledFeed, record_no: int, raw: bytes, outcomes: Sequence[Outcome], extra: Outcome
) -> Row | Reject:
    """Make a row of the outcomes of a record's fields, or a reject if there is a fault among them."""
    faults = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, Fault)}
    row: list[Scalar] = [_readable(outcome) for outcome in outcomes]
    key = [row[index] for index in compiled.key]
    if faults or isinstance(extra, Fault) or oversized(key_text(key)):
        return refuse(compiled, record_no, raw, (key, row[compiled.cursor]), faults, extra)
    if compiled.feed.extra is Extra.KEEP:
        row.append(extra)
    if compiled.own_key_column:
        row.append(key_text(key))
    return (*row, record_no)


def refuse(
    compiled: CompiledFeed,
    record_no: int,
    raw: bytes | Raw,
    identity: tuple[Sequence[Scalar], Scalar],
    faults: dict[int, Fault],
    extra: Outcome,
) -> Reject:
    """Make the reject of a record with a fault in a field, in what is extra, or for the length of its key.

    ``identity`` is its key and its cursor, so far as they can be read; ``faults`` are by field, in the feed's order.
    """
    key, cursor = identity
    text = UNREADABLE_KEY
    if None not in key:
        text = key_text(key)
        if oversized(text):
            text = UNREADABLE_KEY
            longest = max(range(len(key)), key=lambda part: len(key_text([key[part]])))
            index = compiled.key[longest]
            fault = compiled.checks[index].invalid(f"a key of more than {MAX_KEY_BYTES} bytes")
            faults = dict(sorted({**faults, index: fault}.items()))
    found = list(faults.values())
    names = [compiled.names[index] for index in faults]
    if isinstance(extra, Fault):
        found.append(extra)
        names.append(EXTRA_COLUMN)
    detail = "; ".join([f"{name}: {fault.code} ({fault.why})" for name, fault in zip(names, found, strict=True)])
    if len(detail) > MAX_DETAIL:
        detail = detail[: MAX_DETAIL - 1] + "…"
    readable = cursor if isinstance(cursor, str | int) else None
    return Reject(record_no, str(raw, "utf-8"), text, readable, found[0].code, detail)


def _readable(outcome: Outcome) -> Scalar:
    return outcome.readable if isinstance(outcome, Fault) else outcome
