"""The fast road: a window of records decoded at once and checked column by column, in C loops.

msgspec is as strict as RFC 8259; it also refuses lone surrogates, which the RFC allows, and what overflows a double:
those windows come here record by record. What it does not see is the matter of ``proof``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import compress
from operator import attrgetter, itemgetter
from typing import Final

import msgspec
from msgspec import UNSET, Struct

from inboxd.fieldtypes import MAX_KEY_BYTES
from inboxd.model import Extra, Row, Scalar
from inboxd.outcomes import Reject
from inboxd.records.checks import Fault, Outcome, Scope, Value
from inboxd.records.fields import CompiledFeed
from inboxd.records.proof import Column, Window, doubled, maybe_deep, nothing_else, too_deep
from inboxd.records.shapes import MEMBERS, RAW, ROWS, Shapes
from inboxd.records.surroundings import Item, Surroundings
from inboxd.records.validate import extra_of, judge_valid, of_document, oversized, record_key, refuse, seek

Verdicts = tuple[Sequence[Sequence[Scalar]], list[Reject]]
"""The good records by column, as ``Batch`` has them, and the others."""

_UNDECODABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class TooDeep(Exception):
    """A record of the window is nested too deeply: the exact scanner will say where."""


class Sifter:
    """Tells rows from rejects, a window or some records at a time, by what the feed reads of each."""

    def __init__(self, compiled: CompiledFeed, ceiling: str) -> None:
        self._compiled = compiled
        self._ceiling = ceiling

    def window(
        self, chunk: bytes, first: int, around: Surroundings, *, array: bool, depth: int
    ) -> tuple[Verdicts, int] | None:
        """Sift the records of a chunk, an array of them or objects apart by white space, numbered from ``first``.

        Returns the verdicts and how many records there were; ``None`` when the chunk is not such a thing, or that
        cannot be told here. ``depth`` is how many levels are open around the records.
        """
        shapes = self._compiled.shapes
        try:
            typed, records = self._decode(chunk, array=array)
            if records is None or shapes is None:
                raws = whole_records(chunk, array=array, depth=depth)
                if raws is None:
                    return None
                items = [Item(raw, around, number=number) for number, raw in enumerate(raws, first)]
                return self._one_by_one(items), len(items)
            numbers = range(first, first + len(records))
            columns = self._columns(shapes, records, around, typed=typed)
            window = Window(columns, numbers, chunk, around, array=array, typed=typed)
            return self._sift(shapes, window, depth), len(records)
        except (*_UNDECODABLE, TooDeep):
            return None

    def items(self, items: Sequence[Item]) -> Verdicts:
        """Sift records that are known to be JSON, and not nested too deeply; they have their numbers."""
        shapes = self._compiled.shapes
        chunk = b"".join((b"[", b",".join([item.raw for item in items]), b"]"))
        if self._compiled.positional:
            return self._by_position(chunk, items)
        try:
            typed, records = self._decode(chunk, array=True)
            if records is None or shapes is None:
                return self._one_by_one(items)
            columns = self._columns(shapes, records, items, typed=typed)
            numbers = [item.number for item in items]
            return self._sift(shapes, Window(columns, numbers, chunk, items, array=True, typed=typed), None)
        except _UNDECODABLE:
            return self._one_by_one(items)

    def _by_position(self, chunk: bytes, items: Sequence[Item]) -> Verdicts:
        """Sift records that are arrays, of which elements are read."""
        compiled, scope = self._compiled, Scope(self._ceiling)
        try:
            rows = ROWS.window(chunk, array=True)
        except _UNDECODABLE:
            return self._one_by_one(items)
        columns: list[Column] = []
        for index, check in enumerate(compiled.checks):
            ways = compiled.ways[index]
            if index in compiled.of_file:
                columns.append(_of_file(compiled, index, items, len(rows), scope))
                continue
            sources = [
                None if (at := way.position) is None else [bytes(row[at]) if at < len(row) else UNSET for row in rows]
                for way in ways
            ]
            values = [seek(check, ways, sources, place, item) for place, item in enumerate(items)]
            columns.append(Column(check, values, typed=False, own=False))
        numbers = [item.number for item in items]
        return _settle(compiled, Window(columns, numbers, chunk, items, array=True, typed=False), None, scope)

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

    def _columns(
        self, shapes: Shapes, records: list[Struct], around: Surroundings | Sequence[Item], *, typed: bool
    ) -> list[Column]:
        compiled = self._compiled
        columns: list[Column] = []
        for index, check in enumerate(compiled.checks):
            ways = compiled.ways[index]
            if not ways:
                columns.append(Column(check, shapes.leaves[index].column(records, typed=typed), typed=typed))
            elif index in compiled.of_file:
                columns.append(_of_file(compiled, index, around, len(records), Scope(self._ceiling)))
            else:
                slots = [None if way.slot is None else shapes.leaves[way.slot] for way in ways]
                sources = [None if slot is None else slot.column(records, typed=typed) for slot in slots]
                outside = [around] * len(records) if isinstance(around, Surroundings) else around
                values = [seek(check, ways, sources, place, outside[place]) for place in range(len(records))]
                columns.append(Column(check, values, typed=False, own=False))
        return columns

    def _one_by_one(self, items: Sequence[Item]) -> Verdicts:
        """Decode each record by itself; those that msgspec cannot go to the judge."""
        shapes = self._compiled.shapes
        structs: list[Struct | None] = [None] * len(items)
        if shapes is not None:
            for index, item in enumerate(items):
                try:
                    structs[index] = shapes.loose.one(item.raw)
                except _UNDECODABLE:
                    continue
        good = [item for item, struct in zip(items, structs, strict=True) if struct is not None]
        judged = _Mixed()
        if shapes is not None and good:
            records = [struct for struct in structs if struct is not None]
            chunk = b"[" + b",".join([item.raw for item in good]) + b"]"
            numbers = [item.number for item in good]
            columns = self._columns(shapes, records, good, typed=False)
            judged.add(*self._sift(shapes, Window(columns, numbers, chunk, good, array=True, typed=False), None))
        scope = Scope(self._ceiling)
        for item, struct in zip(items, structs, strict=True):
            if struct is None:
                judged.put(judge_valid(item, self._compiled, scope))
        return judged.in_order()

    def _sift(self, shapes: Shapes, window: Window, depth: int | None) -> Verdicts:
        """Judge the decoded records; ``depth`` is ``None`` where they are known not to be nested too deeply."""
        compiled, chunk = self._compiled, window.chunk
        scope = Scope(self._ceiling, plain=b"\\" not in chunk and chunk.isascii(), typed=window.typed)
        extras: list[Outcome] | None = None
        judged: list[Row | Reject] = []
        if not nothing_else(shapes, window):
            if depth is not None and maybe_deep(window, depth):
                raise TooDeep
            twice = doubled(shapes, window)
            if twice:
                exact = Scope(self._ceiling)
                judged = [judge_valid(window.item(index), compiled, exact) for index in twice]
                window.drop(twice)
            if compiled.feed.extra is not Extra.IGNORE:
                extras = _extras(compiled, window)
        settled = _settle(compiled, window, extras, scope)
        if not judged:
            return settled
        mixed = _Mixed()
        mixed.add(*settled)
        for verdict in judged:
            mixed.put(verdict)
        return mixed.in_order()


def whole_records(chunk: bytes, *, array: bool, depth: int) -> list[bytes] | None:
    """Return the sources of a chunk's records; ``None`` if outside an array two of them may share a line.

    Objects may. Raises what msgspec raises where it cannot tell, and ``TooDeep``.
    """
    raws = list(map(bytes, RAW.window(chunk, array=array)))
    if not array and not all(raw.startswith(b"{") for raw in raws):
        lines = [line for line in map(bytes.strip, chunk.split(b"\n")) if line]
        if lines != raws:
            return None
    if any(too_deep(raw, depth) for raw in raws):
        raise TooDeep
    return raws


def _of_file(
    compiled: CompiledFeed, index: int, around: Surroundings | Sequence[Item], count: int, scope: Scope
) -> Column:
    """Return the column of a field that has one value for all records of a document."""
    check = compiled.checks[index]
    if isinstance(around, Surroundings):
        values: list[Value] = [of_document(compiled, around, scope)[index]] * count
    else:
        values = [of_document(compiled, item.surroundings, scope)[index] for item in around if item.surroundings]
    return Column(check, values, typed=False, own=False, done=True)


class _Mixed:
    """Rows and rejects from several roads, brought back into file order."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._rejects: list[Reject] = []

    def add(self, columns: Sequence[Sequence[Scalar]], rejects: Sequence[Reject]) -> None:
        self._rows += zip(*columns, strict=True)
        self._rejects += rejects

    def put(self, verdict: Row | Reject) -> None:
        if isinstance(verdict, Reject):
            self._rejects.append(verdict)
        else:
            self._rows.append(verdict)

    def in_order(self) -> Verdicts:
        self._rows.sort(key=itemgetter(-1))
        self._rejects.sort(key=attrgetter("record_no"))
        return list(zip(*self._rows, strict=True)), self._rejects


def in_order(verdicts: Sequence[Verdicts]) -> Verdicts:
    """Return the verdicts on records that went several roads, in file order."""
    mixed = _Mixed()
    for columns, rejects in verdicts:
        mixed.add(columns, rejects)
    return mixed.in_order()


def _extras(compiled: CompiledFeed, window: Window) -> list[Outcome]:
    """Return for each record what becomes of the names that the feed does not declare."""
    rule, known = compiled.feed.extra, compiled.known
    outcomes: list[Outcome] = []
    for raw in window.sources():
        unknown = {name: bytes(source) for name, source in MEMBERS.one(raw).items() if name not in known}
        outcomes.append(extra_of(unknown, rule) if unknown else None)
    return outcomes


def _settle(compiled: CompiledFeed, window: Window, extras: list[Outcome] | None, scope: Scope) -> Verdicts:
    """Check the columns; keep the records without a fault, and make rejects of the others."""
    count = len(window.numbers)
    if not count:
        return [], []
    columns, faults = _check_columns(window, scope)
    for index, extra in enumerate(extras or ()):
        if isinstance(extra, Fault):
            faults.setdefault(index, {})
    keys: list[str] | None = None
    if compiled.own_key_column:
        parts = zip(*[columns[position] for position in compiled.key], strict=True) if compiled.key else [()] * count
        keys = list(map(record_key, parts, window.numbers))
        for index, key in enumerate(keys):
            if len(key) * 4 > MAX_KEY_BYTES and oversized(key):
                faults.setdefault(index, {})
    rejects = _rejects(compiled, window, columns, faults, extras) if faults else []
    if compiled.feed.extra is Extra.KEEP:
        columns.append([None if isinstance(extra, Fault) else extra for extra in extras or [None] * count])
    if keys is not None:
        columns.append(keys)
    if compiled.deletes:
        columns.append([False] * count)
    return _without_faulty([*columns, window.numbers], faults.keys()), rejects


def _check_columns(window: Window, scope: Scope) -> tuple[list[Sequence[Scalar]], dict[int, dict[int, Fault]]]:
    """Return the columns in canonical form, and the faults by record and field."""
    done: list[Sequence[Scalar]] = []
    faults: dict[int, dict[int, Fault]] = {}
    for position, column in enumerate(window.columns):
        canonical, found = _check_column(column, scope)
        done.append(canonical)
        for index, fault in found.items():
            faults.setdefault(index, {})[position] = fault
    return done, faults


def _check_column(column: Column, scope: Scope) -> tuple[Sequence[Scalar], dict[int, Fault]]:
    """Return the canonical values of a column, where it has faults what can be read; and the faults by index."""
    check, values = column.check, column.values
    if column.done:
        return values, {}  # type: ignore[return-value] # canonical
    if not column.own:
        scope = Scope(scope.ceiling)
    suspects: Collection[int] = column.misfits()
    rest, done = values, None
    while done is None and len(suspects) < len(values):
        rest = _without(rest, suspects)
        done = check.many(rest, scope)
        if done is None:
            more = {*suspects, *check.suspects(rest, scope)}
            suspects = more if len(more) > len(suspects) else range(len(values))
    if done is not None and not suspects:
        return done, {}
    canonical: list[Scalar] = [None] * len(values) if done is None else list(done)
    faults: dict[int, Fault] = {}
    for index in suspects:
        outcome = check.one(values[index], scope)
        if isinstance(outcome, Fault):
            faults[index] = outcome
            outcome = outcome.readable
        canonical[index] = outcome
    return canonical, faults


def _without(column: list[Value], suspects: Collection[int]) -> list[Value]:
    """Return a column with one of its other values in the places of the suspects."""
    if not suspects:
        return column
    left_out = set(suspects)
    filler = next(value for index, value in enumerate(column) if index not in left_out)
    rest = list(column)
    for index in suspects:
        rest[index] = filler
    return rest


def _rejects(
    compiled: CompiledFeed,
    window: Window,
    columns: list[Sequence[Scalar]],
    faults: dict[int, dict[int, Fault]],
    extras: list[Outcome] | None,
) -> list[Reject]:
    cursor = None if compiled.cursor is None else columns[compiled.cursor]
    keys = [columns[position] for position in compiled.key]
    return [
        refuse(
            compiled,
            window.item(index),
            ([column[index] for column in keys], None if cursor is None else cursor[index]),
            faults[index],
            extras[index] if extras else None,
        )
        for index in sorted(faults)
    ]


def _without_faulty(columns: list[Sequence[Scalar]], faulty: Collection[int]) -> list[Sequence[Scalar]]:
    if not faulty:
        return columns
    kept = [True] * len(columns[-1])
    for index in faulty:
        kept[index] = False
    return [list(compress(column, kept)) for column in columns] if any(kept) else []
