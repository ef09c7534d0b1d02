"""Conditions from the config to ``model.Condition``, and a regular expression from either."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence

from inboxd.config.faults import Faults, Key
from inboxd.config.schema import ConditionTable
from inboxd.model import Condition


def build_conditions(tables: Sequence[ConditionTable], at: Key, faults: Faults) -> tuple[Condition, ...]:
    """Return the conditions; whatever is wrong is noted in ``faults``."""
    # a condition without brackets stands under its own key
    return tuple(
        _condition(table, (*at, number) if len(tables) > 1 else at, faults) for number, table in enumerate(tables)
    )


def _condition(table: ConditionTable, at: Key, faults: Faults) -> Condition:
    if table.path == ():
        faults.add((*at, "from"), "must name at least one field of the record")
    if table.any_of is None and table.none_of is None and table.pattern is None and table.exists is None:
        faults.add(at, "does not test the value: give it in, not_in, pattern or exists")
    if table.pattern is not None:
        check_pattern(table.pattern, (*at, "pattern"), faults)
    return Condition(
        path=table.path,
        any_of=_sources(table.any_of, (*at, "in"), faults),
        none_of=_sources(table.none_of, (*at, "not_in"), faults),
        pattern=table.pattern,
        exists=table.exists,
    )


def _sources(values: tuple[object, ...] | None, at: Key, faults: Faults) -> tuple[str, ...] | None:
    """Return each value as the JSON text that it stands for."""
    if values is None:
        return None
    sources: list[str] = []
    for value in values:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):
            text = "["
        if text[0] in "[{":
            faults.add(at, "must be texts, numbers, true or false, as JSON has them")
        sources.append(text)
    return tuple(sources)


def check_pattern(pattern: str, at: Key, faults: Faults) -> None:
    """Note what is wrong with a regular expression."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a later Python may read otherwise is none of the operator's faults
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        faults.add(at, f"is not a regular expression: {error}")
