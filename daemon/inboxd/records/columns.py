"""The fast road: a window of records decoded at once and checked column by column, in C loops.

Three things must hold before a record may skip the exact judge, and each is proved for the whole window if it can be:

* it is JSON, an object, with values that the checks' ``many`` accepts: msgspec is as strict as RFC 8259 (it also refuses
  lone surrogates, which the RFC allows: those windows come here record by record);
* no declared name stands in it twice: msgspec takes the last one and does not judge the others;
* it is nested at most 200 deep.

If a window has no more double quotes than its declared names and string values account for, then nothing else is in
it: no name twice, no further field, no nesting. Otherwise names and brackets are counted, and only where that proves
nothing is a record looked at by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import compress
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from inboxd.errors import FileFault
from inboxd.model import Extra, Feed, FieldType, Reject, Row, Scalar
from inboxd.records.checks import Check, Fault, Outcome, Scope, Value
from inboxd.records.fields import RAW, CompiledFeed, Reader, Shapes, compile_feed
from inboxd.records.scan import MAX_NESTING
from inboxd.records.validate import MAX_DETAIL, ceiling, conclude, extra_of, judge_valid, key_text, oversized

_STRINGS: Final = (FieldType.TEXT, FieldType.TIMESTAMP, FieldType.DATE)
_MEMBERS: Final = Reader(dict[str, Raw])
_UNDECODABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class TooDeep(Exception):
    """A record of the window is nested too deeply, or the window is no JSON: only the exact scanner can say where."""


@dataclass(slots=True)
class _Window:
    """Decoded records on their way: what they came from, and their numbers."""

    records: list[Struct]
    numbers: Sequence[int]
    raws: Sequence[bytes | Raw] | None
    chunk: bytes
    array: bool
    typed: bool

    def sources(self) -> Sequence[bytes | Raw]:
        """Return the source text of each record."""
        if self.raws is None:
            self.raws = RAW.window(self.chunk, array=self.array)
        return self.raws


class Sifter:
    """Tells rows from rejects, window by window; counts the records of one file."""

    def __init__(self, feed: Feed, now: datetime) -> None:
        self._compiled = compile_feed(feed)
        self._ceiling = ceiling(feed, now)
        self.count = 0

    def window(self, chunk: bytes, *, array: bool, depth: int) -> tuple[list[Row], list[Reject]] | None:
        """Sift the records of a chunk: an array of them, or objects apart by white space.

        Returns ``None`` when the chunk is not such a thing, or that cannot be told here. ``depth`` is how many levels
        are open around the records.
        """
        shapes = self._compiled.shapes
        try:
            typed, records = self._decode(chunk, array=array)
            if records is None or shapes is None:
                raws = RAW.window(chunk, array=array)
                if not array and not all(bytes(raw).startswith(b"{") for raw in raws):
                    return None
                return self._one_by_one(raws, depth)
            numbers = range(self.count + 1, self.count + 1 + len(records))
            result = self._sift(shapes, _Window(records, numbers, None, chunk, array, typed), depth)
        except (*_UNDECODABLE, TooDeep):
            return None
        self.count += len(records)
        return result

    def records(self, raws: Sequence[bytes], depth: int) -> tuple[list[Row], list[Reject]]:
        """Sift records given as source texts that are known to be JSON, and not nested too deeply."""
        return self._one_by_one(raws, depth, proven=True)

    def _decode(self, chunk: bytes, *, array: bool) -> tuple[bool, list[Struct] | None]:
        shapes = self._compiled.shapes
        if shapes is None:
            return False, None
        try:
            return True, shapes.typed.window(chunk, array=array)
        except msgspec.ValidationError:
            pass
        try:
            return False, shapes.loose.window(chunk, array=array)
        except msgspec.ValidationError:
            return False, None

    def _one_by_one(
        self, raws: Sequence[bytes | Raw], depth: int, *, proven: bool = False
    ) -> tuple[list[Row], list[Reject]]:
        """Decode each record by itself; those that msgspec cannot go to the judge."""
        shapes = self._compiled.shapes
        if not proven and any(_too_deep(raw, depth) for raw in raws):
            raise TooDeep
        first = self.count + 1
        structs: list[Struct | None] = [None] * len(raws)
        if shapes is not None:
            for index, raw in enumerate(raws):
                try:
                    structs[index] = shapes.loose.one(raw)
                except _UNDECODABLE:
                    continue
        good = [index for index, struct in enumerate(structs) if struct is not None]
        judged = _Verdicts()
        if shapes is not None and good:
            window = _Window(
                records=[struct for struct in structs if struct is not None],
                numbers=[first + index for index in good],
                raws=[raws[index] for index in good],
                chunk=b"[" + b",".join([bytes(raws[index]) for index in good]) + b"]",
                array=True,
                typed=False,
            )
            judged.add(*self._sift(shapes, window, depth, shallow=True))
        scope = Scope(self._ceiling)
        for index, struct in enumerate(structs):
            if struct is None:
                judged.put(judge_valid(bytes(raws[index]), first + index, self._compiled, scope))
        self.count += len(raws)
        return judged.in_order()

    def _sift(
        self, shapes: Shapes, window: _Window, depth: int, *, shallow: bool = False
    ) -> tuple[list[Row], list[Reject]]:
        compiled = self._compiled
        chunk = window.chunk
        escapes = b"\\" in chunk
        scope = Scope(self._ceiling, plain=not escapes and chunk.isascii(), typed=window.typed)
        columns = [leaf.column(window.records, typed=window.typed) for leaf in shapes.leaves]
        extras: list[Outcome] | None = None
        judged: list[Row | Reject] = []
        if not _nothing_else(compiled, shapes, window, columns):
            if not shallow and _maybe_deep(window, depth):
                raise TooDeep
            doubled = _doubled(shapes, window, columns, escapes=escapes)
            if doubled:
                exact = Scope(self._ceiling)
                sources = window.sources()
                judged = [judge_valid(bytes(sources[i]), window.numbers[i], compiled, exact) for i in doubled]
                window, columns = _without(window, columns, set(doubled))
            if compiled.feed.extra is not Extra.IGNORE:
                extras = _extras(compiled, window)
        rows, rejects = _settle(compiled, window, columns, extras, scope)
        if not judged:
            return rows, rejects
        verdicts = _Verdicts()
        verdicts.add(rows, rejects)
        for verdict in judged:
            verdicts.put(verdict)
        return verdicts.in_order()


class _Verdicts:
    """Rows and rejects from several roads, brought back into file order."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._rejects: list[Reject] = []

    def add(self, rows: list[Row], rejects: list[Reject]) -> None:
        self._rows += rows
        self._rejects += rejects

    def put(self, verdict: Row | Reject) -> None:
        if isinstance(verdict, Reject):
            self._rejects.append(verdict)
        else:
            self._rows.append(verdict)

    def in_order(self) -> tuple[list[Row], list[Reject]]:
        self._rows.sort(key=_number_of_row)
        self._rejects.sort(key=_number_of_reject)
        return self._rows, self._rejects


def _number_of_row(row: Row) -> int:
    number = row[-1]
    assert isinstance(number, int)
    return number


def _number_of_reject(reject: Reject) -> int:
    return reject.record_no


def _nothing_else(compiled: CompiledFeed, shapes: Shapes, window: _Window, columns: list[list[Value]]) -> bool:
    """Tell by its double quotes whether the window has nothing in it but each declared name at most once."""
    if not shapes.provable or (not window.typed and shapes.inner):
        return False
    records = len(window.records)
    quotes = 2 * records * shapes.inner
    for check, column in zip(compiled.checks, columns, strict=True):
        if check.wants_source:
            sources = [source for source in column if isinstance(source, bytes)]
            quotes += 2 * len(sources) + b"".join(sources).count(b'"')
            if any(source[0] in b"{[" for source in sources):
                return False
        elif window.typed and not check.optional:
            quotes += (4 if check.field.type in _STRINGS else 2) * records
        else:
            kinds = set(map(type, column))
            if not window.typed and not kinds.isdisjoint((list, dict)):
                return False
            absent = column.count(UNSET) if UnsetType in kinds else 0
            strings = records if kinds == {str} else sum(type(v) is str for v in column) if str in kinds else 0
            quotes += 2 * (records - absent) + 2 * strings
    return window.chunk.count(b'"') == quotes


def _maybe_deep(window: _Window, depth: int) -> bool:
    openers = window.chunk.count(b"{") + window.chunk.count(b"[") - window.array
    others = len(window.records) - 1
    if openers - others + depth <= MAX_NESTING:
        return False
    return any(_too_deep(raw, depth) for raw in window.sources())


def _too_deep(raw: bytes | Raw, depth: int) -> bool:
    """Tell whether a record may be too deep: it has at most as many levels as opening brackets."""
    most = MAX_NESTING - depth
    if len(raw) <= 2 * most:  # type: ignore[arg-type] # Raw has a length, its stub has not
        return False
    text = bytes(raw)
    return text.count(b"{") + text.count(b"[") > most


def _doubled(shapes: Shapes, window: _Window, columns: list[list[Value]], *, escapes: bool) -> list[int]:
    """Return the indexes of the records that may have a declared name twice."""
    if _names_counted(shapes, window, columns, escapes=escapes):
        return []
    return [index for index, raw in enumerate(window.sources()) if _has_double(bytes(raw))]


def _names_counted(shapes: Shapes, window: _Window, columns: list[list[Value]], *, escapes: bool) -> bool:
    """Tell whether each declared name stands in the window exactly as often as msgspec found it."""
    if not shapes.provable or (not window.typed and shapes.inner):
        return False
    if escapes and shapes.escaped_name.search(window.chunk):
        return False
    records = len(window.records)
    for name, leaves in shapes.names:
        expected = sum(records if leaf is None else records - columns[leaf].count(UNSET) for leaf in leaves)
        if window.chunk.count(name) != expected:
            return False
    return True


class _Double(Exception):
    pass


def _no_double(members: list[tuple[str, object]]) -> None:
    if len(dict(members)) != len(members):
        raise _Double


_DOUBLES: Final = json.JSONDecoder(object_pairs_hook=_no_double, parse_int=len, parse_float=len, strict=False)


def _has_double(raw: bytes) -> bool:
    """Tell whether any object in the record has a name twice."""
    try:
        _DOUBLES.decode(raw.decode())
    except _Double:
        return True
    return False


def _without(window: _Window, columns: list[list[Value]], gone: set[int]) -> tuple[_Window, list[list[Value]]]:
    kept = [index not in gone for index in range(len(window.records))]
    raws = list(compress(window.sources(), kept))
    rest = _Window(
        list(compress(window.records, kept)),
        list(compress(window.numbers, kept)),
        raws,
        window.chunk,
        window.array,
        window.typed,
    )
    return rest, [list(compress(column, kept)) for column in columns]


def _extras(compiled: CompiledFeed, window: _Window) -> list[Outcome]:
    """Return for each record what becomes of the names that the feed does not declare."""
    rule, known = compiled.feed.extra, compiled.known
    outcomes: list[Outcome] = []
    for raw in window.sources():
        unknown = {name: bytes(source) for name, source in _MEMBERS.one(raw).items() if name not in known}
        outcomes.append(extra_of(unknown, rule) if unknown else None)
    return outcomes


def _settle(
    compiled: CompiledFeed, window: _Window, columns: list[list[Value]], extras: list[Outcome] | None, scope: Scope
) -> tuple[list[Row], list[Reject]]:
    """Check the columns; make rows of the records without a fault, and rejects of the others."""
    count = len(window.records)
    if not count:
        return [], []
    done: list[Sequence[Scalar]] = []
    faults: dict[int, dict[int, Fault]] = {}
    for position, (check, column) in enumerate(zip(compiled.checks, columns, strict=True)):
        canonical, found = _check_column(check, column, scope)
        done.append(canonical)
        for index, fault in found.items():
            faults.setdefault(index, {})[position] = fault
    for index, extra in enumerate(extras or ()):
        if isinstance(extra, Fault):
            faults.setdefault(index, {})
    if compiled.own_key_column:
        keys = [done[position] for position in compiled.key]
        for index, values in enumerate(zip(*keys, strict=True)):
            if index not in faults and oversized(values):
                faults[index] = {}
    rejects = [_reject(compiled, window, done, index, faults[index], extras) for index in sorted(faults)]
    return _rows(compiled, window, done, extras, faults.keys()), rejects


def _reject(
    compiled: CompiledFeed,
    window: _Window,
    done: list[Sequence[Scalar]],
    index: int,
    found: dict[int, Fault],
    extras: list[Outcome] | None,
) -> Reject:
    """Make the reject of a record with faults; the plain case, most often met, without a detour."""
    raw, number = window.sources()[index], window.numbers[index]
    if len(found) == 1 and extras is None and not compiled.own_key_column:
        ((position, fault),) = found.items()
        detail = f"{compiled.names[position]}: {fault.code} ({fault.why})"
        key = done[compiled.key[0]][index]
        cursor = done[compiled.cursor][index] if position != compiled.cursor else fault.readable
        if isinstance(key, str) and len(detail) <= MAX_DETAIL and not isinstance(cursor, float):
            return Reject(number, str(raw, "utf-8"), key, cursor, fault.code, detail)  # type: ignore[arg-type] # a buffer
    outcomes = [found.get(position, column[index]) for position, column in enumerate(done)]
    verdict = conclude(compiled, number, bytes(raw), outcomes, extras[index] if extras else None)
    assert isinstance(verdict, Reject)
    return verdict


def _check_column(check: Check, column: list[Value], scope: Scope) -> tuple[Sequence[Scalar], dict[int, Fault]]:
    """Return the canonical values of a column, and the faults in it by index."""
    done = check.many(column, scope)
    if done is not None:
        return done, {}
    suspects: Sequence[int] = ()
    for find in (check.suspects, check.closer):
        suspects = find(column, scope)
        done = _all_but(check, column, scope, suspects)
        if done is not None:
            break
    if done is None:
        suspects, done = range(len(column)), [None] * len(column)
    canonical: list[Scalar] = list(done)
    faults: dict[int, Fault] = {}
    for index in suspects:
        outcome = check.one(column[index], scope)
        if isinstance(outcome, Fault):
            faults[index] = outcome
            canonical[index] = None
        else:
            canonical[index] = outcome
    return canonical, faults


def _all_but(check: Check, column: list[Value], scope: Scope, suspects: Sequence[int]) -> Sequence[Scalar] | None:
    """Check a column with another value in the places of the suspects."""
    if not suspects or len(suspects) == len(column):
        return None
    left_out = set(suspects)
    filler = next(value for index, value in enumerate(column) if index not in left_out)
    rest = list(column)
    for index in suspects:
        rest[index] = filler
    return check.many(rest, scope)


def _rows(
    compiled: CompiledFeed,
    window: _Window,
    done: list[Sequence[Scalar]],
    extras: list[Outcome] | None,
    faulty: Sequence[int] | set[int] | object,
) -> list[Row]:
    columns: list[Sequence[object]] = list(done)
    if compiled.feed.extra is Extra.KEEP:
        columns.append(extras if extras is not None else [None] * len(window.records))
    numbers = window.numbers
    assert isinstance(faulty, type({}.keys()))
    if faulty:
        kept = [True] * len(window.records)
        for index in faulty:
            kept[index] = False
        columns = [list(compress(column, kept)) for column in columns]
        numbers = list(compress(numbers, kept))
    if compiled.own_key_column:
        columns.append(list(map(key_text, zip(*[columns[position] for position in compiled.key], strict=True))))  # type: ignore[arg-type]
    return list(zip(*columns, numbers, strict=True))  # type: ignore[arg-type] # the columns' types are the fields'


__all__ = ["FileFault", "Sifter"]
