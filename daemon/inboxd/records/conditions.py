"""Conditions on raw JSON values: what ``where`` and ``deletes`` ask."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation

from inboxd.model import Condition

_Comparable = str | Decimal | None


class Predicate:
    """One condition, compiled."""

    def __init__(self, condition: Condition) -> None:
        self.path = condition.path
        self._any_of = _Values(condition.any_of) if condition.any_of is not None else None
        self._none_of = _Values(condition.none_of) if condition.none_of is not None else None
        self._pattern = re.compile(condition.pattern) if condition.pattern is not None else None
        self._exists = condition.exists

    def holds(self, source: bytes | None) -> bool:
        """Tell whether the condition holds for the value of that source; ``None`` is an absent one."""
        if source is None or source == b"null":
            return self._any_of is None and self._pattern is None and not self._exists
        if self._exists is False:
            return False
        if self._any_of is not None and source not in self._any_of:
            return False
        if self._none_of is not None and source in self._none_of:
            return False
        return self._pattern is None or (source[:1] == b'"' and bool(self._pattern.search(json.loads(source))))


class _Values:
    """A set of JSON values: a number is there by its value, and is no text."""

    def __init__(self, sources: tuple[str, ...]) -> None:
        self._sources = frozenset(source.encode() for source in sources)
        self._values = frozenset(map(_comparable, self._sources)) - {None}
        self._numbers = any(isinstance(value, Decimal) for value in self._values)

    def __contains__(self, source: bytes) -> bool:
        if source in self._sources:  # the usual spelling
            return True
        first = source[:1]
        if first == b'"':
            return b"\\" in source and _comparable(source) in self._values
        return self._numbers and first in b"-0123456789" and _comparable(source) in self._values


def _comparable(source: bytes) -> _Comparable:
    """Return what equal texts or numbers have alike; ``None`` for what has one spelling, or equals nothing."""
    if source[:1] == b'"':
        return str(json.loads(source))
    if source[:1] not in b"-0123456789":
        return None
    try:
        return Decimal(source.decode())
    except InvalidOperation:
        return None
