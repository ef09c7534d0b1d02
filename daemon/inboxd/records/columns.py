"""The fast road: a window of records decoded at once and checked column by column, in C loops.

msgspec is as strict as RFC 8259; it also refuses lone surrogates, which the RFC allows, and what overflows a double:
those windows come here record by record. What it does not see is the matter of ``proof``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import compress
from operator import attrgetter, itemgetter
from typing import Final

import msgspec
from msgspec import Raw, Struct

from inboxd.model import Extra, Feed, Reject, Row, Scalar
from inboxd.records.checks import Fault, Outcome, Scope, Value
from inboxd.records.fields import MEMBERS, RAW, CompiledFeed, Shapes, compile_feed
from inboxd.records.kinds import MAX_KEY_BYTES
from inboxd.records.proof import Column, Window, doubled, maybe_deep, nothing_else, too_deep
from inboxd.records.validate import ceiling, extra_of, judge_valid, key_text, oversized, refuse

Verdicts = tuple[Sequence[Sequence[Scalar]], list[Reject]]
"""The good records by column, as ``Batch`` has them, and the others."""

_UNDECODABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class _TooDeep(Exception):
    """A record of the window is nested too deeply: the exact scanner will say where."""


class Sifter:
    """Tells rows from rejects, window by window; counts the records of one file."""

    def __init__(self, feed: Feed, now: datetime) -> None:
        self._compiled = compile_feed(feed)
        self._ceiling = ceiling(feed, now)
        self.count = 0

    def window(self, chunk: bytes, *, array: bool, depth: int) -> Verdicts | None:
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
            columns = self._columns(shapes, records, typed=typed)
            result = self._sift(shapes, Window(columns, numbers, chunk, array=array, typed=typed), depth)
        except (*_UNDECODABLE, _TooDeep):
            return None
        self.count += len(records)
        return result

    def records(self, raws: Sequence[bytes], depth: int) -> Verdicts:
        """Sift records given as source texts that are known to be JSON, and not nested too deeply."""
        together = self.window(b"".join((b"[", b",".join(raws), b"]")), array=True, depth=depth)
        return self._one_by_one(raws, depth, proven=True) if together is None else together

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

    def _columns(self, shapes: Shapes, records: list[Struct], *, typed: bool) -> list[Column]:
        return [
            Column(check, leaf.column(records, typed=typed), typed=typed)
            for check, leaf in zip(self._compiled.checks, shapes.leaves, strict=True)
        ]

    def _one_by_one(self, raws: Sequence[bytes | Raw], depth: int, *, proven: bool = False) -> Verdicts:
        """Decode each record by itself; those that msgspec cannot go to the judge."""
        shapes = self._compiled.shapes
        if not proven and any(too_deep(raw, depth) for raw in raws):
            raise _TooDeep
        first = self.count + 1
        structs: list[Struct | None] = [None] * len(raws)
        if shapes is not None:
            for index, raw in enumerate(raws):
                try:
                    structs[index] = shapes.loose.one(raw)
                except _UNDECODABLE:
                    continue
        good = [index for index, struct in enumerate(structs) if struct is not None]
        judged = _Mixed()
        if shapes is not None and good:
            records = [struct for struct in structs if struct is not None]
            chunk = b"[" + b",".join([bytes(raws[index]) for index in good]) + b"]"
            numbers = [first + index for index in good]
            window = Window(self._columns(shapes, records, typed=False), numbers, chunk, array=True, typed=False)
            judged.add(*self._sift(shapes, window, depth, shallow=True))
        scope = Scope(self._ceiling)
        for index, struct in enumerate(structs):
            if struct is None:
                judged.put(judge_valid(bytes(raws[index]), first + index, self._compiled, scope))
        self.count += len(raws)
        return judged.in_order()

    def _sift(self, shapes: Shapes, window: Window, depth: int, *, shallow: bool = False) -> Verdicts:
        compiled, chunk = self._compiled, window.chunk
        scope = Scope(self._ceiling, plain=b"\\" not in chunk and chunk.isascii(), typed=window.typed)
        extras: list[Outcome] | None = None
        judged: list[Row | Reject] = []
        if not nothing_else(shapes, window):
            if not shallow and maybe_deep(window, depth):
                raise _TooDeep
            twice = doubled(shapes, window)
            if twice:
                sources, exact = window.sources(), Scope(self._ceiling)
                judged = [judge_valid(bytes(sources[i]), window.numbers[i], compiled, exact) for i in twice]
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


class _Mixed:
    """Rows and rejects from several roads, brought back into file order."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._rejects: list[Reject] = []

    def add(self, columns: Sequence[Sequence[Scalar]], rejects: list[Reject]) -> None:
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
        keys = list(map(key_text, zip(*[columns[position] for position in compiled.key], strict=True)))
        for index, key in enumerate(keys):
            if len(key) * 4 > MAX_KEY_BYTES and oversized(key):
                faults.setdefault(index, {})
    rejects = _rejects(compiled, window, columns, faults, extras) if faults else []
    if compiled.feed.extra is Extra.KEEP:
        columns.append([None if isinstance(extra, Fault) else extra for extra in extras or [None] * count])
    if keys is not None:
        columns.append(keys)
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
    sources, numbers, cursors = window.sources(), window.numbers, columns[compiled.cursor]
    keys = [columns[position] for position in compiled.key]
    return [
        refuse(
            compiled,
            numbers[index],
            sources[index],
            ([column[index] for column in keys], cursors[index]),
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
