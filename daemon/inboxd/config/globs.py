r"""Which feed a file is: globs over its path in the inbox.

A path is made of names between ``/``. In a pattern, ``*`` is any run of characters within one name and ``?`` one of
them, ``[abc]``, ``[a-z]`` and ``[!abc]`` are one character of (or not of) a set, and ``**`` as a whole name is any
number of folders, none included; at the end it is everything below. Case counts, a leading dot is nothing special, and
a backslash is a backslash. Names may hold anything a filesystem allows: newlines, and bytes that are not UTF-8 (as lone
surrogates).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from inboxd.model import Feed


def match_feed(feeds: Iterable[Feed], name: str) -> Feed | None:
    """Return the first feed that takes the file of that path in the inbox, ``None`` if none does."""
    for feed in feeds:
        if any(compile_glob(pattern).fullmatch(name) for pattern in feed.match):
            return feed
    return None


def never_reached(feeds: Iterable[Feed]) -> tuple[str, ...]:
    """Return the names of feeds that no file in the inbox can come to, as one before them takes everything."""
    names: list[str] = []
    everything = False
    for feed in feeds:
        if everything:
            names.append(feed.name)
        everything = everything or "**" in feed.match
    return tuple(names)


@lru_cache(maxsize=1024)
def compile_glob(pattern: str) -> re.Pattern[str]:
    """Return the regular expression for a pattern, to be used with ``fullmatch``."""
    parts = pattern.split("/")
    last = len(parts) - 1
    expression = ""
    for position, part in enumerate(parts):
        if part == "**":
            expression += ".+" if position == last else "(?:[^/]+/)*"
        else:
            expression += _name_expression(part) + ("" if position == last else "/")
    return re.compile(expression, re.DOTALL)


def _name_expression(part: str) -> str:
    """Return the expression for a pattern of one name."""
    expression = ""
    position = 0
    while position < len(part):
        character = part[position]
        position += 1
        if character == "*":
            expression += "" if expression.endswith("[^/]*") else "[^/]*"
        elif character == "?":
            expression += "[^/]"
        elif character == "[" and (end := part.find("]", position + 1 + part.startswith("!", position))) > 0:
            expression += _set_expression(part[position:end])
            position = end + 1
        else:
            expression += re.escape(character)
    return expression


def _set_expression(members: str) -> str:
    """Return the expression for what stands between brackets; a range that runs backwards holds nothing."""
    negated = members.startswith("!")
    members = members[negated:]
    ranges: list[str] = []
    position = 0
    while position < len(members):
        first = last = members[position]
        if members[position + 1 : position + 2] == "-" and position + 2 < len(members):
            last = members[position + 2]
            position += 2
        position += 1
        if first <= last:
            ranges.append(f"{re.escape(first)}-{re.escape(last)}")
    if not ranges:
        return "[^/]" if negated else r"(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(ranges)}]"
