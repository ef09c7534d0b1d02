"""The rules of the field types, and of the forms in which their values are written."""

from __future__ import annotations

import json
import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Final

from msgspec import Meta

from inboxd.clock import in_utc, stamp
from inboxd.fieldtypes import MAX_DECIMAL_DIGITS, MAX_KEY_BYTES, plain_decimal, sortable
from inboxd.model import Field, FieldType, Scalar
from inboxd.records import formats, times
from inboxd.records.checks import Check, Fault, HugeNumber, Outcome, Scope, Value, show
from inboxd.records.storable import storable, unstorable

INTEGER_RANGE: Final = (-(2**63), 2**63 - 1)

NUMBER_TEXT: Final = re.compile(r" *[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)? *")
"""A text that is a number as JSON has them, with optional spaces and sign."""


class TextCheck(Check):
    """``text``: any Unicode scalar values but U+0000."""

    types = frozenset({str})
    absent_is = "missing"

    @property
    def decoded(self) -> Any:  # noqa: ANN401 - a type, or one with its bounds
        """A key's characters are bounded by msgspec."""
        return Annotated[str, Meta(max_length=MAX_KEY_BYTES)] if self.is_key else str

    def _read(self, value: Value) -> Outcome:
        return self.read(value)

    def read(self, value: Value) -> Outcome:
        """Return the text, or why it is none."""
        if type(value) is not str:
            return self.invalid(f"{show(value)} is not text")
        if not storable(value):
            return self.invalid("U+0000" if "\0" in value else "a lone surrogate")
        if self.required and (not value or value.isspace()):
            return self.missing("blank")
        if self.is_key and len(value) * 4 > MAX_KEY_BYTES and len(value.encode()) > MAX_KEY_BYTES:
            return self.invalid(f"a key of more than {MAX_KEY_BYTES} bytes")
        return value

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        texts: list[str] = column  # type: ignore[assignment] # by contract
        if self.required and not (scope.plain and min(texts) >= "!") and ("" in texts or any(map(str.isspace, texts))):
            return None
        if not scope.plain and "\0" in "".join(texts):
            return None
        if scope.typed and scope.plain:  # msgspec has bounded the characters of a key, here each is a byte
            return texts
        if (
            self.is_key
            and max(map(len, texts)) * 4 > MAX_KEY_BYTES
            and max(map(len, map(str.encode, texts))) > MAX_KEY_BYTES
        ):
            return None
        return texts

    def suspects(self, column: list[Value], scope: Scope) -> list[int]:
        """Return the indexes of what may be blank; if there is none, of what has another fault."""
        if self.optional:
            return super().suspects(column, scope)
        texts: list[str] = column  # type: ignore[assignment] # by contract
        # "!" comes after every blank of ASCII and before every other character of it, "~" is the last of it
        blank = [i for i, text in enumerate(texts) if text < "!" or (text > "~" and text.isspace())]
        return blank or super().suspects(column, scope)


class IntegerCheck(Check):
    """``integer``: a JSON integer of 64 bits, exact."""

    types = frozenset({int})
    decoded = Annotated[int, Meta(ge=INTEGER_RANGE[0], le=INTEGER_RANGE[1])]

    def _read(self, value: Value) -> Outcome:
        lowest, highest = INTEGER_RANGE
        if type(value) is int and lowest <= value <= highest:
            return value
        if type(value) is int or (isinstance(value, HugeNumber) and value.source.lstrip("-").isdigit()):
            return self.invalid(f"{show(value)} does not fit 64 bits")
        return self.invalid(f"{show(value)} is not an integer")

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - as all take it
        integers: list[int] = column  # type: ignore[assignment] # by contract
        lowest, highest = INTEGER_RANGE
        return integers if min(integers) >= lowest and max(integers) <= highest else None


class RealCheck(Check):
    """``real``: a number, or a string that is one, with optional spaces and sign; finite as a double."""

    types = frozenset({float, int})
    decoded = float

    def _read(self, value: Value) -> Outcome:
        if type(value) is float or type(value) is int:
            number = self._double(value)
        elif type(value) is HugeNumber:
            number = self._double(value.source)
        elif type(value) is str and NUMBER_TEXT.fullmatch(value):
            number = self._double(value)
        else:
            return self.invalid(f"{show(value)} is not a number")
        if not math.isfinite(number):
            return self.invalid(f"{show(value)} is too large for a double")
        return number

    @staticmethod
    def _double(value: float | str) -> float:
        try:
            return float(value)
        except OverflowError:
            return math.inf

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        if scope.typed:
            return column  # type: ignore[return-value] # finite doubles: msgspec refuses what overflows
        try:
            return list(map(float, column))  # type: ignore[arg-type] # by contract
        except OverflowError:
            return None


class BooleanCheck(Check):
    """``boolean``: true and false."""

    types = frozenset({bool})
    decoded = bool

    def _read(self, value: Value) -> Outcome:
        return value if type(value) is bool else self.invalid(f"{show(value)} is neither true nor false")

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - as all take it
        return column  # type: ignore[return-value] # by contract


_NO_CEILING: Final = "\U0010ffff"


class TimeCheck(Check):
    """A time as text."""

    types = frozenset({str})
    absent_is = "missing"
    taken = ""
    """What is said, behind its type, of the form that a value must have."""

    def _read(self, value: Value) -> Outcome:
        what = f"{show(value)} is not a {self.field.type}"
        if type(value) is not str:
            return self.invalid(what)
        if self.required and (not value or value.isspace()):
            return self.missing("blank")
        return self._canonical(value) or self.invalid(f"{what}{self.taken}")

    @abstractmethod
    def _canonical(self, text: str) -> str | None: ...


class TimestampCheck(TimeCheck):
    """``timestamp`` as text."""

    def _canonical(self, text: str) -> str | None:
        return times.timestamp(text)

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - as all take it
        return times.timestamps(column)  # type: ignore[arg-type] # by contract

    def suspects(self, column: list[Value], scope: Scope) -> list[int]:
        """Return the indexes of what has another shape, else of what is no day of the calendar or past the ceiling."""
        ceiling = scope.ceiling if self.is_cursor and scope.ceiling else _NO_CEILING
        return times.of_other_shape(column) or times.doubtful(column, ceiling) or super().suspects(column, scope)


class DateCheck(TimeCheck):
    """``date``."""

    def _canonical(self, text: str) -> str | None:
        return times.day(text)

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - as all take it
        return times.days(column)  # type: ignore[arg-type] # by contract


class WrittenCheck(TimeCheck):
    """``timestamp`` or ``date`` as text with a ``format`` or a ``timezone``."""

    taken = " in a form that the feed takes"

    def __init__(self, field: Field, *, needed: bool, is_cursor: bool, is_key: bool) -> None:
        super().__init__(field, needed=needed, is_cursor=is_cursor, is_key=is_key)
        self._formats = [formats.format_of(text) for text in field.formats]
        self._zone = formats.zone_of(field.timezone)
        self._is_date = field.type is FieldType.DATE

    def _canonical(self, text: str) -> str | None:
        if not self._formats:
            return times.timestamp(text, self._zone)
        found = next((read for each in self._formats if (read := each.read(text)) is not None), None)
        if found is None:
            return None
        if self._is_date:
            return found.date().isoformat()
        moment = in_utc(found, self._zone)
        return None if moment is None else stamp(moment)

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - as all take it
        done = list(map(self._canonical, column))  # type: ignore[arg-type] # by contract
        return None if None in done else done


class SourceCheck(Check):
    """What is judged by its source text: ``one`` takes ``bytes``."""

    types = frozenset({bytes})
    wants_source = True
    absent_is = "missing"

    def is_null(self, value: Value) -> bool:
        """Tell whether a source is that of a text that counts as null."""
        return type(value) is bytes and value[:1] == b'"' and json.loads(value) in self.null

    def one(self, value: Value, scope: Scope) -> Outcome:
        """Return the canonical value of a source, or why there is none; null is a source, too."""
        return super().one(None if value == b"null" else value, scope)

    def many(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:
        """Return the canonical column of sources, ``None`` if any is not valid."""
        return super().many([None if value == b"null" else value for value in column], scope)

    def _read_all(self, column: list[Value], scope: Scope) -> Sequence[Scalar] | None:  # noqa: ARG002 - sources are typed
        if None in column:
            return None
        done = list(map(self._read, column))
        return None if any(type(value) is Fault for value in done) else done  # type: ignore[return-value] # just checked


class EpochCheck(SourceCheck):
    """``timestamp`` with a ``unit``: a number since 1970, as a number or as text."""

    def _read(self, value: Value) -> Outcome:
        number = _number_in(value)
        if number is None:
            blank = self.required and _is_blank(value)
            return self.missing("blank") if blank else self.invalid(f"{_show_source(value)} is not a number")
        found = times.epoch(number, self.field.unit or "s")
        return self.invalid(f"{_show_source(value)} is out of range") if found is None else found


class DecimalCheck(SourceCheck):
    """``decimal``: a number, or a text that is one, every digit kept."""

    absent_is = "invalid"

    def _read(self, value: Value) -> Outcome:
        number = _number_in(value)
        if number is None:
            return self.invalid(f"{_show_source(value)} is not a number")
        plain = plain_decimal(number)
        if plain is None:
            return self.invalid(f"{_show_source(value)} has more than {MAX_DECIMAL_DIGITS} digits")
        return plain

    @staticmethod
    def size(value: Scalar) -> object:
        """Return the number itself: as texts, 9 would be above 10."""
        return sortable(FieldType.DECIMAL, value)

    def _ill_formed(self, text: str) -> str:  # noqa: ARG002 - its digits are no text that has a length
        return ""


class CoercedTextCheck(SourceCheck):
    """``text`` with ``coerce``: numbers and booleans are texts, too, as they stand in the source."""

    def __init__(self, field: Field, *, needed: bool, is_cursor: bool, is_key: bool) -> None:
        super().__init__(field, needed=needed, is_cursor=is_cursor, is_key=is_key)
        self._text = TextCheck(field, needed=needed, is_cursor=is_cursor, is_key=is_key)

    def _read(self, value: Value) -> Outcome:
        if not isinstance(value, bytes) or value[:1] in (b"{", b"["):
            return self.invalid(f"{_show_source(value)} is not text")
        return self._text.read(json.loads(value) if value[:1] == b'"' else value.decode())


class CoercedIntegerCheck(SourceCheck):
    """``integer`` with ``coerce``: a number without a fraction, or a text that is one."""

    absent_is = "invalid"
    _USUAL = re.compile(rb'("?)-?(?:0|[1-9][0-9]{0,17})\1')

    def _read(self, value: Value) -> Outcome:
        if isinstance(value, bytes) and self._USUAL.fullmatch(value):
            return int(value.strip(b'"'))
        number = _number_in(value)
        whole, _, fraction = ((number and plain_decimal(number)) or "").partition(".")
        if not whole or fraction.strip("0"):
            return self.invalid(f"{_show_source(value)} is not an integer")
        lowest, highest = INTEGER_RANGE
        if len(whole) > len(str(lowest)) or not lowest <= int(whole) <= highest:
            return self.invalid(f"{_show_source(value)} does not fit 64 bits")
        return int(whole)


class CoercedBooleanCheck(SourceCheck):
    """``boolean`` with ``coerce``: also 0 and 1, and the texts "true" and "false"."""

    absent_is = "invalid"
    _VALUES: Final[dict[object, bool]] = {
        b"true": True, b"1": True, b'"true"': True, b"false": False, b"0": False, b'"false"': False,
    }  # fmt: skip

    def _read(self, value: Value) -> Outcome:
        found = self._VALUES.get(value)
        return self.invalid(f"{_show_source(value)} is neither true nor false") if found is None else found


class JsonCheck(SourceCheck):
    """``json``: any value, kept as its source text."""

    def _read(self, value: Value) -> Outcome:
        if not isinstance(value, bytes):
            return self.invalid("not given as its source")
        if self.required and _is_blank(value):
            return self.missing("blank")
        why = unstorable(value)
        return self.invalid(why) if why else value.decode()


CHECKS: Final[dict[FieldType, type[Check]]] = {
    FieldType.TEXT: TextCheck,
    FieldType.INTEGER: IntegerCheck,
    FieldType.REAL: RealCheck,
    FieldType.BOOLEAN: BooleanCheck,
    FieldType.TIMESTAMP: TimestampCheck,
    FieldType.DATE: DateCheck,
    FieldType.DECIMAL: DecimalCheck,
    FieldType.JSON: JsonCheck,
}
"""Every type's own rules."""

_COERCED: Final[dict[FieldType, type[Check]]] = {
    FieldType.TEXT: CoercedTextCheck,
    FieldType.INTEGER: CoercedIntegerCheck,
    FieldType.BOOLEAN: CoercedBooleanCheck,
}


def check_of(field: Field, *, needed: bool, is_key: bool, is_cursor: bool) -> Check:
    """Return the rules of a field; ``needed`` is one that no record may be without, as it is part of its identity."""
    kind = CHECKS[field.type]
    if field.unit:
        kind = EpochCheck
    elif field.formats or field.timezone:
        kind = WrittenCheck
    elif field.coerce:
        kind = _COERCED[field.type]
    return kind(field, needed=needed, is_cursor=is_cursor, is_key=is_key)


def _number_in(value: Value) -> str | None:
    """Return the number that a source is, or that is in its text; ``None`` if it is none."""
    if not isinstance(value, bytes):
        return None
    if value[:1] in b"-0123456789":
        return value.decode()
    text = json.loads(value) if value[:1] == b'"' else ""
    return text.strip(" ") if NUMBER_TEXT.fullmatch(text) else None


def _show_source(source: Value) -> str:
    """Return a value's source text for a message."""
    if not isinstance(source, bytes):
        return show(source)
    return show(HugeNumber(source.decode())) if source[:1] not in b'"{[' else show(json.loads(source))


def _is_blank(source: Value) -> bool:
    """Tell whether a source is a text of nothing but white space."""
    if not isinstance(source, bytes) or source[:1] != b'"':
        return False
    text = json.loads(source)
    return not text or text.isspace()
