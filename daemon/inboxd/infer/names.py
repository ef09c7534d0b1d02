"""Names that a config takes, made from whatever names and files there are."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final

from inboxd.config.names import LONGEST_NAME, wrong_column, wrong_table

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_A_NAME: Final = re.compile(r"[^a-z0-9]+")
_BUILT_IN: Final = "events"
"""A feed of this name takes what it does not say from the built-in feed."""

Names = tuple[str, ...]


def snake(name: str) -> str:
    """Return a name in small letters, digits and underscores; nothing may be left of it."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return _NOT_A_NAME.sub("_", _CAMEL.sub("_", plain).lower()).strip("_")


def words(name: str) -> list[str]:
    """Return the words of a name, in small letters."""
    return [word for word in snake(name).split("_") if word]


def singular(word: str) -> str:
    """Return an English noun's singular, near enough to compare."""
    if word.endswith("ies") and len(word) > 4:  # noqa: PLR2004 - not "ties"
        return word[:-3] + "y"
    if word.endswith(("ses", "xes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def feed_name(stem: str) -> str:
    """Return a name for a feed and its table, made from a file's."""
    name = _named(snake(stem), "records")
    if name == _BUILT_IN or wrong_table(name) is not None:
        name = f"{name[: LONGEST_NAME - 8]}_feed"
    return name if wrong_table(name) is None else f"feed_{name[: LONGEST_NAME - 5]}"


def _named(name: str, otherwise: str) -> str:
    name = name or otherwise
    if name[0].isdigit():
        name = f"n{name}" if otherwise == "field" else f"feed_{name}"
    return name[:LONGEST_NAME].rstrip("_")


class ColumnNames:
    """Hands out names of columns, each once: letter case tells none apart."""

    def __init__(self, paths: Sequence[Names]) -> None:
        self._taken: set[str] = set()
        lasts = Counter(_column(_plain(path)[-1:]) for path in paths)
        self._shared = {name for name, count in lasts.items() if count > 1}

    def name(self, path: Names) -> str:
        """Return the name for a path: its last one if that is no other's, else all of it."""
        plain = _plain(path)
        name = _column(plain[-1:])
        if name in self._shared and len(plain) > 1:
            name = _column(plain)
        return self.unlike(name)

    def unlike(self, name: str) -> str:
        """Return the name, with a number if it is taken or kept by the database."""
        plain, number = name, 1
        while name in self._taken or wrong_column(name) is not None:
            number += 1
            name = f"{plain[: LONGEST_NAME - 1 - len(str(number))].rstrip('_')}_{number}"
        self._taken.add(name)
        return name


def _plain(path: Names) -> Names:
    """Return a path without the names that only tell a type: ``_id.$oid`` is ``_id``."""
    return tuple(name for name in path if not name.startswith("$")) or path


def _column(path: Names) -> str:
    name = _named("_".join(part for part in map(snake, path) if part), "field")
    return f"own_{name[7:]}" if name.startswith("inboxd_") else name
