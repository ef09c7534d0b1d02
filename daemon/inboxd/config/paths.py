"""The paths that a config file names: to a value, from the record or from around it, and back to their text."""

from __future__ import annotations

from typing import Final

from inboxd.model import Origin, Path, origin_of, spelled

_STARTS: Final = {origin.value: origin for origin in Origin}
_KNOWN: Final = {Origin.FILE: ("name", "path", "mtime"), Origin.RECORD: ("no", "name", "value")}


def parse_names(value: object) -> tuple[str, ...]:
    """Return the names on the way to a value; a list is for names that have a dot in them."""
    parts = value.split(".") if isinstance(value, str) else value
    if value == "":
        return ()
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        msg = 'must be a path such as "actor.login", or a list of names such as ["actor", "log.in"]'
        raise ValueError(msg)
    if isinstance(value, str) and "" in parts:
        msg = "has an empty name in it"
        raise ValueError(msg)
    return tuple(parts)


def parse_path(value: object) -> Path:
    """Return the way to a value: names in the record, or what a prefix such as ``$file.`` leads to.

    A list is always names in the record.
    """
    names = parse_names(value)
    if not isinstance(value, str) or len(names) < 2 or names[0] not in _STARTS:  # noqa: PLR2004 - a prefix and a name
        return names
    origin = _STARTS[names[0]]
    starts: tuple[Origin, ...] = (origin,)
    rest = names[1:]
    while origin is Origin.AROUND and len(rest) > 1 and rest[0] == Origin.AROUND.value:
        starts, rest = (*starts, origin), rest[1:]
    known = _KNOWN.get(origin)
    if known is not None and (len(rest) > 1 or rest[0] not in known):
        msg = f"{value!r} is none of {', '.join(f'{origin.value}.{name}' for name in known)}; for names, write a list"
        raise ValueError(msg)
    if origin is Origin.CAPTURE and len(rest) > 1:
        msg = f"{value!r} must be $path. and one name in braces of match; for names in the record, write a list"
        raise ValueError(msg)
    return (*starts, *rest)


def path_text(path: Path) -> str | list[str]:
    """Return a path as a config file writes it, so that ``parse_path`` reads the same."""
    if origin_of(path) is not None:
        return spelled(path)
    names = [str(part) for part in path]
    misread = len(names) > 1 and names[0] in _STARTS
    return names if misread or any("." in name or not name for name in names) else ".".join(names)
