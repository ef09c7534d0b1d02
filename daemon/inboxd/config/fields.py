"""One field from the config to ``model.Field``, with everything that its attributes must agree on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from inboxd.config.conditions import check_pattern
from inboxd.config.faults import Faults, Key
from inboxd.config.moments import check_format, check_zone
from inboxd.config.names import wrong_column, wrong_label
from inboxd.config.schema import FieldTable, MomentTable
from inboxd.fieldtypes import CURSOR_TYPES, TYPES, literal, sortable
from inboxd.model import Field, FieldType, Scalar, is_name

UNITS: Final = ("s", "ms", "us", "ns")


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a feed says for all of its fields that do not say their own."""

    null: tuple[str, ...] = ()
    coerce: bool = False


def build_field(name: str, table: FieldTable, inherited: Inherited, at: Key, faults: Faults) -> Field | None:
    """Return the field, or ``None`` if its type is not known; whatever is wrong is noted in ``faults``."""
    if (wrong := wrong_column(name)) is not None:
        faults.add(at, wrong)
    if table.type is None:
        faults.add((*at, "type"), f"is missing; it is one of {', '.join(FieldType)}")
        return None
    label = name if table.label is None else table.label
    if (wrong := wrong_label(label)) is not None and table.label is not None:
        faults.add((*at, "label"), wrong)
    for key, paths in (("from", (table.path,)), ("coalesce", table.coalesce or ())):
        if () in paths:
            faults.add((*at, key), "must name at least one field of the record")
    _check_fit(table, table.type, at, faults)
    first, *others = table.coalesce or ((table.path or (name,)),)
    coerces = "coerce" in TYPES[table.type].attributes
    typed = table.type in {FieldType.INTEGER, FieldType.BOOLEAN} and all(map(is_name, (first, *others)))
    field = Field(
        name=name,
        type=table.type,
        path=first,
        coalesce=tuple(others),
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
        formats=table.format or (),
        timezone=table.timezone,
        null=inherited.null if table.null is None else table.null,
        coerce=coerces and (typed or (inherited.coerce if table.coerce is None else table.coerce)),
    )
    _check_agreement(field, table, at, faults)
    return field


def build_moment(table: MomentTable, at: Key, faults: Faults) -> Field:
    """Return the field that a snapshot's moment is read as; whatever is wrong is noted in ``faults``."""
    attributes = FieldTable.model_construct(
        type=table.type,
        path=table.path,
        unit=table.unit,
        format=table.format,
        timezone=table.timezone,
        coerce=True if table.type is FieldType.INTEGER else None,  # there is no place to say it
    )
    field = build_field("as_of", attributes, Inherited(), at, faults)
    assert field is not None  # noqa: S101 - its type is known
    if field.type not in CURSOR_TYPES:
        faults.add((*at, "type"), f"must be one of {', '.join(CURSOR_TYPES)}")
    if not field.is_of_file:
        faults.add((*at, "from"), "must come from $file., $path. or $.: a snapshot has one time")
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
    if len({sortable(kind, choice) for choice in choices}) < len(choices):
        faults.add(at, "has the same value twice")
    return choices


def _check_fit(table: FieldTable, kind: FieldType, at: Key, faults: Faults) -> None:
    """Note attributes that mean nothing for the field's type."""
    for key, value in _typed_attributes(table).items():
        if value is not None and key not in TYPES[kind].attributes:
            kinds = [other for other in FieldType if key in TYPES[other].attributes]
            faults.add((*at, key), f"is for {', '.join(kinds)}, not for {kind}")
    if table.unit is not None and table.unit not in UNITS:
        faults.add((*at, "unit"), f"must be one of {', '.join(UNITS)}")
    if table.pattern is not None:
        check_pattern(table.pattern, (*at, "pattern"), faults)
    for text in table.format or ():
        check_format(text, (*at, "format"), faults, dates=kind is FieldType.DATE)
    if table.timezone is not None:
        check_zone(table.timezone, (*at, "timezone"), faults)


def _typed_attributes(table: FieldTable) -> Mapping[str, object]:
    """Return the attributes that not every type has."""
    return {
        "min": table.minimum,
        "max": table.maximum,
        "min_length": table.min_length,
        "max_length": table.max_length,
        "pattern": table.pattern,
        "choices": table.choices,
        "unit": table.unit,
        "format": table.format,
        "timezone": table.timezone,
        "coerce": table.coerce,
    }


def _check_agreement(field: Field, table: FieldTable, at: Key, faults: Faults) -> None:
    """Note attributes that contradict each other."""
    _check_either(table, at, faults)
    low, high, default = (sortable(field.type, value) for value in (field.minimum, field.maximum, field.default))
    if _above(low, high):
        faults.add((*at, "min"), "is greater than max")
    if _above(field.min_length, field.max_length):
        faults.add((*at, "min_length"), "is greater than max_length")
    if faults.under(at) or field.default is None:
        return
    for broken, attribute in (
        (_above(low, default), "min"),
        (_above(default, high), "max"),
        (
            field.choices is not None and default not in [sortable(field.type, each) for each in field.choices],
            "choices",
        ),
        (_wrong_length(field), "its length bounds"),
        (field.pattern is not None and not re.search(field.pattern, str(field.default)), "pattern"),
    ):
        if broken:
            faults.add((*at, "default"), f"is not what {attribute} allows")


def _check_either(table: FieldTable, at: Key, faults: Faults) -> None:
    """Note attributes of which only one can be said."""
    if table.default is not None and table.required:
        faults.add((*at, "default"), "is never used, as the field is required = true; leave one of the two out")
    if table.coalesce is not None and table.path is not None:
        faults.add((*at, "coalesce"), "replaces from; leave one of the two out")
    for key, value in (("format", table.format), ("timezone", table.timezone)):
        if table.unit is not None and value is not None:
            faults.add((*at, key), "is for times written as text; unit says that they are numbers")


def _wrong_length(field: Field) -> bool:
    if not isinstance(field.default, str):
        return False
    size = len(field.default)
    return _above(field.min_length, size) or _above(size, field.max_length)


def _above(low: Scalar | Decimal, high: Scalar | Decimal) -> bool:
    """Tell whether both are there and ``low`` is above ``high``; values of one field are of one type."""
    if low is None or high is None:
        return False
    return low > high  # type: ignore[operator]  # both are numbers, or both canonical text
