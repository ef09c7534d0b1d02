r"""Which feed a file is: globs over its path in the inbox.

A path is made of names between ``/``. In a pattern, ``*`` is any run of characters within one name and ``?`` one of
them, ``[abc]``, ``[a-z]`` and ``[!abc]`` are one character of (or not of) a set, and ``**`` as a whole name is any
number of folders, none included; at the end it is everything below. ``{day}`` catches at least one character within
one name, for the fields that read ``$path.day``; wildcards and captures take as little as possible, from left to
right. Case counts, a leading dot is nothing special, and a backslash is a backslash. Names may hold anything a
filesystem allows: newlines, and bytes that are not UTF-8 (as lone surrogates).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from inboxd.model import Feed

_CAPTURE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def match_feed(feeds: Iterable[Feed], name: str) -> Feed | None:
    """Return the first feed that takes the file of that path in the inbox, ``None`` if none does."""
    for feed in feeds:
        if any(compile_glob(pattern).fullmatch(name) for pattern in feed.match):
            return feed
    return None


def captures(feed: Feed, name: str, *, tail: bool = False) -> Mapping[str, str] | None:
    """Return what the braces of the feed's ``match`` catch of a file's path in the inbox, ``None`` if it matches none.

    ``tail``: the path's last parts may be what matches, as with a file that does not lie in the inbox; ``None`` if more
    than one way of that catches something else.
    """
    for pattern in feed.match:
        found = _ways(pattern, name, tail=tail)
        if found:
            return found[0] if all(each == found[0] for each in found) else None
    return None


def catches(feed: Feed) -> bool:
    """Tell whether the feed's ``match`` has captures."""
    return any("{" in pattern for pattern in feed.match)


def fits_tail(feed: Feed, name: str) -> bool:
    """Tell whether the feed's ``match`` fits the last parts of a path."""
    return any(_ways(pattern, name, tail=True) for pattern in feed.match)


def _ways(pattern: str, name: str, *, tail: bool) -> list[dict[str, str]]:
    """Return what a pattern catches, in each way in which it fits."""
    parts = name.split("/") if tail else [name]
    fits = [compile_glob(pattern).fullmatch("/".join(parts[start:])) for start in range(len(parts))]
    return [way.groupdict() for way in fits if way is not None]


def captures_of(pattern: str) -> tuple[str, ...]:
    """Return the names of a pattern's captures; ``ValueError`` if one is there twice, or a brace is none."""
    names: list[str] = []
    for part in pattern.split("/"):
        plain = _without_sets(part)
        names += _CAPTURE.findall(plain)
        if "{" in _CAPTURE.sub("", plain):
            msg = f"{pattern!r} has a {{ that does not begin a capture such as {{day}}; write [{{] for the character"
            raise ValueError(msg)
    if len(set(names)) < len(names):
        msg = f"{pattern!r} has the same capture twice"
        raise ValueError(msg)
    return tuple(names)


def literal(name: str) -> str:
    """Return the pattern for one name, whatever is in it; a byte that is not UTF-8 is any: no config can hold it."""
    return "".join(f"[{one}]" if one in "*?[{" else "?" if "\ud800" <= one <= "\udfff" else one for one in name)


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
            expression += ".+" if position == last else "(?:[^/]+/)*?"
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
        capture = _CAPTURE.match(part, position - 1)
        if character == "*":
            expression += "" if expression.endswith("[^/]*?") else "[^/]*?"
        elif capture is not None:
            expression += f"(?P<{capture[1]}>[^/]+?)"
            position = capture.end()
        elif character == "?":
            expression += "[^/]"
        elif character == "[" and (end := _end_of_set(part, position)) > 0:
            expression += _set_expression(part[position:end])
            position = end + 1
        else:
            expression += re.escape(character)
    return expression


def _end_of_set(part: str, position: int) -> int:
    """Return where the ``]`` stands of a set whose members begin at ``position``; -1 if it is none."""
    return part.find("]", position + 1 + part.startswith("!", position))


def _without_sets(part: str) -> str:
    """Return a pattern of one name without what stands between brackets."""
    plain = ""
    position = 0
    while position < len(part):
        end = _end_of_set(part, position + 1) if part[position] == "[" else -1
        plain += "" if end > 0 else part[position]
        position = max(position, end) + 1
    return plain


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
