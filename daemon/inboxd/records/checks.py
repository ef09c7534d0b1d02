"""What the rules of every field have in common: one value, or a whole column of them at once.

``one`` is the law: it takes a value as JSON has it and gives the canonical value (see ``inboxd.model``) or a ``Fault``.
``many`` is the fast road: it takes a column of values of the field's types and gives the canonical column if every
value is valid, ``None`` if any is not or may not be; it must never accept what ``one`` would not, nor give another
value. ``suspects`` names those of a refused column that are worth asking ``one`` about.

A value that is absent or null and has a ``default`` takes it, whether the field is required or not.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET

from inboxd.model import Field, Scalar

MAX_SHOWN: Final = 60
"""Characters of a value that a message shows."""

Value = object
"""A decoded JSON value, ``UNSET`` when absent; ``bytes``, its source, for a check with ``wants_source``."""


class Composite:
    """Stands for an object or an array where only a scalar can be valid."""

    def __init__(self, name: str) -> None:
        self.name = name


class HugeNumber:
    """Stands for a number whose digits are too many to be worth converting."""

    def __init__(self, source: str) -> None:
        self.source = source


class Fault:
    """Why a value is refused. ``readable`` is its canonical value, if it is refused for its range and not its form."""

    __slots__ = ("code", "readable", "why")

    def __init__(self, code: str, why: str, readable: Scalar = None) -> None:
        self.code = code
        self.why = why
        self.readable = readable


Outcome = Scalar | Fault


@dataclass(frozen=True, slots=True)
class Scope:
    """What is known of a window as a whole, and of the clock."""

    ceiling: str | None
    """The largest timestamp or date that the cursor may have."""
    plain: bool = False
    """The window is ASCII without any backslash: its strings are exactly what stands there."""
    typed: bool = False
    """msgspec has made the values the field's own type, and a key no longer than it may be."""


def show(value: Value) -> str:
    """Return a value for a message: short, printable, without what a database cannot store."""
    if type(value) is str:
        return repr(value) if len(value) <= MAX_SHOWN else repr(value[:MAX_SHOWN]) + "…"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Composite):
        return value.name
    if not isinstance(value, int | float | HugeNumber):
        return "an array" if isinstance(value, list) else "an object"
    text = value.source if isinstance(value, HugeNumber) else repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


class Check(ABC):
    """The rules of one field."""

    types: frozenset[type]
    """The types of the values that ``many`` takes."""
    decoded: Any = str
    """What msgspec decodes where it may take a value of no other type; not asked of one who wants the source."""
    wants_source = False
    """Whether ``one`` takes the value's source text (``bytes``) and ``many`` a column of such."""
    absent_is = "invalid"
    """How the code of an absent value begins: ``missing`` for text, timestamp, date and json."""

    def __init__(self, field: Field, *, needed: bool, is_cursor: bool, is_key: bool) -> None:
        self.field = field
        self.required = needed or field.required
        self.default = None if needed else field.default
        self.optional = not needed and (not field.required or field.default is not None)
        """Whether an absent value or null is valid."""
        self.is_cursor = is_cursor
        self.is_key = is_key
        self._pattern = re.compile(field.pattern) if field.pattern is not None else None
        self._choices = [self.size(choice) for choice in field.choices or ()]
        self.null = frozenset(field.null)
        """Texts that count as null."""
        self._bounded = any(
            limit is not None
            for limit in (field.minimum, field.maximum, field.choices, field.pattern, field.min_length)
        ) or (field.max_length is not None)

    # one value

    def one(self, value: Value, scope: Scope) -> Outcome:
        """Return the canonical value, or why there is none."""
        if self.null and self.is_null(value):
            value = None
        if value is UNSET or value is None:
            return self.default if self.optional else self.missing("absent" if value is UNSET else "null")
        outcome = self._read(value)
        if isinstance(outcome, Fault):
            return outcome
        if self._bounded:
            why = self._out_of_bounds(outcome)
            if why:
                return self.invalid(f"{show(outcome)} {why}", outcome)
        if self.is_cursor and scope.ceiling is not None and self.beyond(outcome, scope.ceiling):
            return Fault(f"future_{self.field.label}", f"{show(outcome)} is too far ahead of the clock", outcome)
        return outcome

    @abstractmethod
    def _read(self, value: Value) -> Outcome:
        """Return the canonical form of a value that is there and not null."""

    def is_null(self, value: Value) -> bool:
        """Tell whether a value is a text that counts as null."""
        return type(value) is str and value in self.null

    def missing(self, why: str) -> Fault:
        """Return the fault of a value that is absent, null or blank."""
        return Fault(f"{self.absent_is}_{self.field.label}", why)

    def invalid(self, why: str, readable: Scalar = None) -> Fault:
        """Return the fault of a value of the wrong type, form or range."""
        return Fault(f"invalid_{self.field.label}", why, readable)

    def _out_of_bounds(self, value: Scalar) -> str:
        field, why = self.field, ""
        size = self.size(value)
        if field.minimum is not None and size < self.size(field.minimum):  # type: ignore[operator] # same type by config
            why = f"is below {show(field.minimum)}"
        elif field.maximum is not None and size > self.size(field.maximum):  # type: ignore[operator] # same type
            why = f"is above {show(field.maximum)}"
        elif field.choices is not None and size not in self._choices:
            why = "is not one of the choices"
        elif isinstance(value, str):
            why = self._ill_formed(value)
        return why

    @staticmethod
    def size(value: Scalar) -> object:
        """Return what orders a canonical value: itself, but for decimals."""
        return value

    def _ill_formed(self, text: str) -> str:
        field = self.field
        if field.min_length is not None and len(text) < field.min_length:
            return f"is shorter than {field.min_length}"
        if field.max_length is not None and len(text) > field.max_length:
            return f"is longer than {field.max_length}"
        if self._pattern is not None and self._pattern.search(text) is None:
            return "does not match the pattern"
        return ""

    @staticmethod
    def beyond(value: Scalar, ceiling: str) -> bool:
        """Tell whether a cursor is past the ceiling; an integer never is."""
        return isinstance(value, str) and value > ceiling[: len(value)]

    # a column

    def many(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        """Return the canonical column if every value is valid; ``None`` if any is not, or may not be.

        Each value has one of the field's ``types``; an optional one may be absent or null.
        """
        if not column:
            return []
        if self.null:
            column = [None if self.is_null(value) else value for value in column]
            if not self.optional and None in column:
                return None
        if self.optional:
            present = [value for value in column if value is not None and value is not UNSET]
            if len(present) < len(column):
                done = self._all(present, scope) if present else []
                if done is None:
                    return None
                values = iter(done)
                default = self.default
                return [default if value is None or value is UNSET else next(values) for value in column]
        return self._all(column, scope)

    def _all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        done = self._read_all(column, scope)
        if done is None or (self._bounded and any(map(self._out_of_bounds, done))):
            return None
        if self.is_cursor and scope.ceiling is not None and self.beyond(max(done), scope.ceiling):  # type: ignore[type-var] # of one type
            return None
        return done

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - as all take it
        """Return the canonical form of a column of values that are there, ``None`` if in doubt."""
        return None

    def suspects(self, column: list[Value], scope: Scope) -> list[int]:
        """Return the indexes of what may not be valid in a column that ``many`` refused; perhaps not yet all of them.

        Here, the exact answer.
        """
        return [index for index, value in enumerate(column) if type(self.one(value, scope)) is Fault]
