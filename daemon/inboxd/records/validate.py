"""The exact judge of one record, from its source text.

Every record that the fast road of ``columns`` cannot prove valid comes here, and a dead letter that is replayed. Slower
by an order of magnitude, and the law: the fast road must agree with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import UNSET

from inboxd.clock import ahead
from inboxd.errors import FileFault, Place
from inboxd.fieldtypes import MAX_KEY_BYTES, with_one_zero
from inboxd.model import EXTRA_COLUMN, Extra, Feed, Row, Scalar, names_of, origin_of, spelled
from inboxd.outcomes import UNREADABLE_KEY, Reject
from inboxd.records.checks import Check, Fault, Outcome, Scope, Value, show
from inboxd.records.conditions import Predicate
from inboxd.records.fields import CompiledFeed, Way, compile_feed
from inboxd.records.scan import Malformed, Scanner, past_blank
from inboxd.records.sources import all_at, is_there, last_at, members, value_of
from inboxd.records.storable import storable, unstorable
from inboxd.records.surroundings import Item, Surroundings, context_of, recalled

MAX_DETAIL: Final = 2_000
"""Characters of ``Reject.detail``."""

_KEYS: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def judge(raw: bytes, record_no: int, feed: Feed, *, now: datetime, context: str | None = None) -> Row | Reject | None:
    """Judge the record whose source text is ``raw``; ``None`` if the feed's ``where`` leaves it out.

    ``context`` is what was kept of its surroundings (``Reject.context``), so that no file is needed. Raises
    ``FileFault`` if the text is no JSON in UTF-8.
    """
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
    compiled, scope = compile_feed(feed), Scope(ahead(now, feed.max_future_s))
    item = recalled(raw[start:end], record_no, context)
    if not meets(compiled.where, item):
        return None
    if compiled.deletion is None or not meets(compiled.deletes, item):
        return judge_valid(item, compiled, scope)
    verdict = judge_valid(item, compiled.deletion, scope)
    if isinstance(verdict, Reject):
        return verdict
    return tuple(column[0] for column in as_deletions(compiled, [[value] for value in verdict]))


def _no_record(code: str, at: int, why: str) -> FileFault:
    return FileFault(code, f"byte {at} of the record: {why}", place=Place(1, at + 1, at))


def meets(predicates: Sequence[Predicate], item: Item) -> bool:
    """Tell whether a record meets all of the conditions."""
    return all(
        predicate.holds(
            item.value(predicate.path) if origin_of(predicate.path) else last_at(item.raw, names_of(predicate.path))
        )
        for predicate in predicates
    )


def as_deletions(compiled: CompiledFeed, columns: Sequence[Sequence[Scalar]]) -> list[Sequence[Scalar]]:
    """Return the columns of ``compiled.deletion`` as those of the feed: nothing in those of other fields."""
    assert compiled.deletion is not None  # noqa: S101 - whoever has such columns
    count = len(columns[0])
    found = dict(zip(compiled.deletion.names, columns, strict=False))
    all_columns: list[Sequence[Scalar]] = [found.get(name, [None] * count) for name in compiled.names]
    if compiled.feed.extra is Extra.KEEP:
        all_columns.append([None] * count)
    if compiled.own_key_column:
        all_columns.append(columns[-2])
    return [*all_columns, [True] * count, columns[-1]]


def of_document(compiled: CompiledFeed, around: Surroundings, scope: Scope) -> Mapping[int, Scalar]:
    """Return the values of the fields that are alike for all records of a document, by their index.

    Raises ``FileFault`` if one of them is not valid: the file has one fault then, not one for each record.
    """
    settled = around.settled.get(id(compiled))
    if settled is None:
        found: dict[int, Scalar] = {}
        for index in compiled.of_file:
            check = compiled.checks[index]
            found[index] = file_value(check, compiled.ways[index], around, scope)
        settled = around.settled[id(compiled)] = found
    return settled


def file_value(check: Check, ways: Sequence[Way], around: Surroundings, scope: Scope) -> Scalar:
    """Return the value of a field that comes from around the records; raises ``FileFault`` if it is not valid."""
    outcome = check.one(seek(check, ways, [None] * len(ways), 0, around), scope)
    if not isinstance(outcome, Fault):
        return outcome
    paths = " or ".join(spelled(way.path) for way in ways)
    message = f"field {check.field.name!r} takes its value from {paths}: {outcome.code} ({outcome.why})"
    raise FileFault("invalid_context", message, "it is the same for all records: mend the file, or the feed's field")


def seek(
    check: Check,
    ways: Sequence[Way],
    sources: Sequence[Sequence[Value] | None],
    place: int,
    outside: Item | Surroundings,
) -> Value:
    """Return the value of a field, as its check takes it, from the first of its ways that leads to one.

    ``sources`` are the columns of the ways' slots, ``place`` is the record's in them.
    """
    null = False
    for way, column in zip(ways, sources, strict=True):
        found: bytes | None
        if column is None and way.position is not None:
            found = None
        elif column is None:
            found = outside.value(way.path)
        else:
            source = column[place]
            found = source if isinstance(source, bytes) else None
            if found is not None and way.rest:
                found = last_at(found, way.rest)
        if found is not None and is_there(found) and not _counts_as_null(check, found):
            return found if check.wants_source else value_of(found)
        null = null or found is not None
    return None if null else UNSET


def _counts_as_null(check: Check, source: bytes) -> bool:
    return bool(check.null) and source[:1] == b'"' and value_of(source) in check.null


def judge_valid(item: Item, compiled: CompiledFeed, scope: Scope) -> Row | Reject:
    """Judge a record that is known to be JSON in UTF-8, without white space around it."""
    raw = item.raw
    is_object = raw.startswith(b"{")
    if not is_object and not compiled.takes_any:
        shown = show(value_of(raw))
        fault = Fault("not_an_object", f"{shown} is not an object")
        context = context_of(compiled.outside, item)
        return Reject(item.number, raw.decode(), UNREADABLE_KEY, None, fault.code, fault.why, context)
    found = list(members(raw)) if is_object else []
    settled = of_document(compiled, item.surroundings, scope) if item.surroundings else {}
    outcomes: list[Outcome] = []
    for index, check in enumerate(compiled.checks):
        if index in settled:
            outcomes.append(settled[index])
        elif compiled.ways[index]:
            outcomes.append(_outcome(check, _sources(check, compiled.ways[index], item), scope))
        else:
            outcomes.append(_outcome(check, _inside(found, names_of(check.field.path)), scope))
    extra: Outcome = None
    if compiled.feed.extra is not Extra.IGNORE:
        extra = extra_of({name: source for name, source in found if name not in compiled.known}, compiled.feed.extra)
    return conclude(compiled, item, outcomes, extra)


def _inside(found: Sequence[tuple[str, bytes]], names: Sequence[str]) -> list[bytes | None]:
    """Return the sources at a path in an object whose members were found."""
    inner = [source for name, source in found if name == names[0]]
    return [at for source in inner for at in all_at(source, names[1:])] or [None]


def _sources(check: Check, ways: Sequence[Way], item: Item) -> list[bytes | None]:
    """Return the sources of a field from the first of its ways that leads to a value."""
    null = False
    for way in ways:
        outside = origin_of(way.path) is not None
        found = [item.value(way.path)] if outside else all_at(item.raw, names_of(way.path))
        last = found[-1]
        if len(ways) == 1 or (last is not None and is_there(last) and not _counts_as_null(check, last)):
            return found
        null = null or last is not None
    return [b"null"] if null else [None]


def _outcome(check: Check, sources: Sequence[bytes | None], scope: Scope) -> Outcome:
    """Judge one field: of a name that is there twice, each value must be valid, and the last one counts."""
    outcomes = [check.one(_value(check, source), scope) for source in sources]
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
    """Return the key's text; of several columns, a JSON array. Keys that are equal in a table have the same text."""
    if len(values) == 1 and isinstance(values[0], str):
        return values[0]
    text = _encoded(values)
    return _encoded(with_one_zero(values)) if "-0.0" in text else text


def _encoded(values: Sequence[Scalar]) -> str:
    return _KEYS.encode(values if len(values) > 1 else values[0])


def record_key(values: Sequence[Scalar], number: int) -> str:
    """Return what a record is called: by its key, or by its number where the feed has no key."""
    return key_text(values) if values else f"#{number}"


def oversized(key: str) -> bool:
    """Tell whether the key's text is over the limit."""
    return len(key) * 4 > MAX_KEY_BYTES and len(key.encode()) > MAX_KEY_BYTES


def conclude(compiled: CompiledFeed, item: Item, outcomes: Sequence[Outcome], extra: Outcome) -> Row | Reject:
    """Make a row of the outcomes of a record's fields, or a reject if there is a fault among them."""
    faults = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, Fault)}
    row: list[Scalar] = [_readable(outcome) for outcome in outcomes]
    key = [row[index] for index in compiled.key]
    if faults or isinstance(extra, Fault) or oversized(record_key(key, item.number)):
        cursor = None if compiled.cursor is None else row[compiled.cursor]
        return refuse(compiled, item, (key, cursor), faults, extra)
    if compiled.feed.extra is Extra.KEEP:
        row.append(extra)
    if compiled.own_key_column:
        row.append(record_key(key, item.number))
    if compiled.deletes:
        row.append(False)
    return (*row, item.number)


def refuse(
    compiled: CompiledFeed,
    item: Item,
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
        text = record_key(key, item.number)
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
    context = context_of(compiled.outside, item)
    return Reject(item.number, item.raw.decode(), text, readable, found[0].code, detail, context)


def _readable(outcome: Outcome) -> Scalar:
    return outcome.readable if isinstance(outcome, Fault) else outcome
