"""What is wrong with a config: every error at once, each with its key and, from a file, its line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from inboxd.errors import EXIT_CONFIG, OperatorFault

Key = tuple[str | int, ...]
"""A key in its parts: ``("feeds", "orders", "match", 0)``; elements of arrays by their number from 0."""


_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def dotted(key: Key) -> str:
    """Return a key as a config file writes it, ``feeds.orders.match``, and elements of arrays as ``match[0]``."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False))
    return text


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One error. ``origin`` is the file or the environment variable it stands in, empty if in neither."""

    key: str
    message: str
    line: int | None = None
    origin: str = ""

    def __str__(self) -> str:
        """Say where, which key, and what is wrong, in the form that editors make a link of."""
        place = f"{self.origin}:{self.line}" if self.line is not None else self.origin
        return ": ".join(part for part in (place, self.key, self.message) if part)


class InvalidConfig(OperatorFault):
    """The config cannot be used: ``faults`` says all of why."""

    def __init__(self, faults: Sequence[ConfigFault]) -> None:
        ordered = tuple(sorted(faults, key=lambda fault: (fault.origin, fault.line or 0, fault.key)))
        many = f"{len(ordered)} errors in the config" if len(ordered) > 1 else "an error in the config"
        super().__init__(
            "invalid_config",
            "\n  ".join([f"{many}:", *map(str, ordered)]),
            "mend them, then try `inboxd config check`; `inboxd config schema` lets an editor check as you type",
            exit_code=EXIT_CONFIG,
        )
        self.faults = ordered


class Faults:
    """Collects errors by key while a config is checked, and leaves out those that only follow from another."""

    def __init__(self) -> None:
        self._messages: dict[Key, str] = {}

    def add(self, key: Key, message: str) -> None:
        """Note an error, unless the same key or a table around it has one already."""
        if not any(key[:length] in self._messages for length in range(1, len(key) + 1)):
            self._messages[key] = message

    def under(self, key: Key) -> bool:
        """Tell whether there is an error at the key or below it."""
        return any(found[: len(key)] == key for found in self._messages)

    def items(self) -> list[tuple[Key, str]]:
        """Return what was noted."""
        return list(self._messages.items())
