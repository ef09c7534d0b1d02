"""One field from the config to ``model.Field``, with everything that its attributes must agree on."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Final

from inboxd.config.faults import Faults, Key
from inboxd.config.literals import literal
from inboxd.config.names import wrong_column, wrong_label
from inboxd.config.schema import FieldTable
from inboxd.model import Field, FieldType, Scalar

UNITS: Final = ("s", "ms", "us")
_ORDERED: Final = (FieldType.INTEGER, FieldType.REAL, FieldType.TIMESTAMP, FieldType.DATE)
_TEXT: Final = (FieldType.TEXT,)
_SCALAR: Final = tuple(kind for kind in FieldType if kind is not FieldType.JSON)


def build_field(name: str, table: FieldTable, at: Key, faults: Faults) -> Field | None:
    """Return the field, or ``None`` if its type is not known; whatever is wrong is noted in ``faults``."""
    if (wrong := wrong_column(name)) is not None:
        faults.add(at, wrong)
    if table.type is None:
        faults.add((*at, "type"), f"is missing; it is one of {', '.join(FieldType)}")
        return None
    label = name if table.label is None else table.label
    if (wrong := wrong_label(label)) is not None and table.label is not None:
        faults.add((*at, "label"), wrong)
    if table.path == ():
        faults.add((*at, "from"), "must name at least one field of the record")
    _check_fit(table, table.type, at, faults)
    field = Field(
        name=name,
        type=table.type,
        path=table.path or (name,),
        label=label,
        required=table.default is None if table.required is None else table.required,
        default=_value(table.type, table.default, (*at, "default"), faults),
        minimum=_value(table.type, table.minimum, (*at, "min"), faults),
        maximum=_value(table.type, table.maximum, (*at, "max"), faults),
        min_length=table.min_length,
        max_length=table.max_length,
        pattern=table.pattern,
        choices=_choices(table.type, table.choices, (*at, "choices"), faults),
        unit=table.unit,
    )
    _check_agreement(field, table, at, faults)
    return field


def _value(kind: FieldType, value: object, at: Key, faults: Faults) -> Scalar:
    if value is None:
        return None
    try:
        return literal(kind, value)
    except ValueError as error:
        faults.add(at, f"{error}, as the field is of type {kind}")
        return None


def _choices(kind: FieldType, values: tuple[object, ...] | None, at: Key, faults: Faults) -> tuple[Scalar, ...] | None:
    if values is None:
        return None
    choices = tuple(_value(kind, value, at, faults) for value in values)
    if len(set(choices)) < len(choices):
        faults.add(at, "has the same value twice")
    return choices


def _check_fit(table: FieldTable, kind: FieldType, at: Key, faults: Faults) -> None:
    """Note attributes that mean nothing for the field's type."""
    for key, value, kinds in (
        ("min", table.minimum, _ORDERED),
        ("max", table.maximum, _ORDERED),
        ("min_length", table.min_length, _TEXT),
        ("max_length", table.max_length, _TEXT),
        ("pattern", table.pattern, _TEXT),
        ("choices", table.choices, _SCALAR),
        ("unit", table.unit, (FieldType.TIMESTAMP,)),
    ):
        if value is not None and kind not in kinds:
            faults.add((*at, key), f"is for {', '.join(kinds)}, not for {kind}")
    if table.unit is not None and table.unit not in UNITS:
        faults.add((*at, "unit"), f"must be one of {', '.join(UNITS)}")
    if table.pattern is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # what a later Python may read otherwise is none of the operator's faults
                re.compile(table.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            faults.add((*at, "pattern"), f"is no regular expression: {error}")


def _check_agreement(field: Field, table: FieldTable, at: Key, faults: Faults) -> None:
    """Note attributes that contradict each other."""
    if table.default is not None and table.required:
        faults.add((*at, "default"), "is never used, as the field is required = true; leave one of the two out")
    if _above(field.minimum, field.maximum):
        faults.add((*at, "min"), "is greater than max")
    if _above(field.min_length, field.max_length):
        faults.add((*at, "min_length"), "is greater than max_length")
    if faults.under(at) or field.default is None:
        return
    for broken, attribute in (
        (_above(field.minimum, field.default), "min"),
        (_above(field.default, field.maximum), "max"),
        (field.choices is not None and field.default not in field.choices, "choices"),
        (_text_fault(field, len), "its length bounds"),
        (field.pattern is not None and not re.search(field.pattern, str(field.default)), "pattern"),
    ):
        if broken:
            faults.add((*at, "default"), f"is not what {attribute} allows")


def _text_fault(field: Field, length: Callable[[str], int]) -> bool:
    if not isinstance(field.default, str):
        return False
    size = length(field.default)
    return _above(field.min_length, size) or _above(size, field.max_length)


def _above(low: Scalar, high: Scalar) -> bool:
    """Tell whether both are there and ``low`` is above ``high``; values of one field are of one type."""
    if low is None or high is None:
        return False
    return low > high  # type: ignore[operator]  # both are numbers, or both canonical text
