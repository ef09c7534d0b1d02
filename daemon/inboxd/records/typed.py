"""A key's or cursor's value as a person types it, read by the rules that records are read by."""

from __future__ import annotations

import re
from typing import Final

from inboxd.fieldtypes import TYPES
from inboxd.model import Field, FieldType, Scalar
from inboxd.records import times
from inboxd.records.checks import Fault, HugeNumber, Outcome, Scope, Value
from inboxd.records.kinds import check_of

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_LONGEST: Final = 300
"""Digits beyond which a number is not converted: far past 64 bits, and within what a double can hold."""


def typed(field: Field, text: str) -> Scalar:
    """Return what a person typed as a value of the field, in its canonical form; ``ValueError`` says what it must be.

    The field's form counts, not its bounds: they may have been other ones when the value was loaded.
    """
    check = check_of(field, needed=True, is_key=True, is_cursor=False)
    outcome: Outcome = None
    if not check.wants_source:
        outcome = check.one(_as_json(field.type, text), Scope(None))
    elif _NUMBER.fullmatch(text):
        outcome = check.one(text.encode(), Scope(None))
    if isinstance(outcome, Fault):
        outcome = outcome.readable
    if outcome is None and field.type is FieldType.TIMESTAMP:
        outcome = times.timestamp(text)  # as every command shows it, whatever form the records have
    if outcome is None:
        msg = f"must be {TYPES[field.type].expected}"
        raise ValueError(msg)
    return outcome


def _as_json(kind: FieldType, text: str) -> Value:
    """Return the value that the text is in a record: a number or a boolean where the type wants one, else a string."""
    if kind is FieldType.BOOLEAN and text in {"true", "false"}:
        return text == "true"
    if kind not in {FieldType.INTEGER, FieldType.REAL} or not _NUMBER.fullmatch(text):
        return text
    if len(text) > _LONGEST:
        return HugeNumber(text)
    return int(text) if text.lstrip("-").isdigit() else float(text)
