"""Where settings come from: the command line, the environment, a file; the first that has a key has the say."""

from __future__ import annotations

import errno
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel

from inboxd.config.faults import ConfigFault, InvalidConfig, Key, dotted
from inboxd.config.folders import absolute
from inboxd.config.locate import locate
from inboxd.config.schema import EVENTS, EVENTS_FEED, ConfigFile, FieldTable, table_of_feed
from inboxd.errors import EXIT_NOPERM, OperatorFault
from inboxd.model import Mode
from inboxd.regular import read_given, read_regular

Table = dict[str, Any]  # Any: the values of a TOML table; pydantic is what gives them types

FILE_VARIABLE: Final = "INBOXD_CONFIG"
PREFIX: Final = "INBOXD_"
SEPARATOR: Final = "__"
SYSTEM_FILE: Final = Path("/etc/inboxd/inboxd.toml")
_PLACE: Final = re.compile(r"\s*\(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Sources:
    """What each source says. ``options`` are a command's own, by dotted key; they outrank all."""

    document: Table
    environment: Table
    options: Table
    file: Path | None = None
    text: str = ""
    mtime_ns: int | None = None
    variables: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    """Which environment variable said which key."""

    def merged(self) -> Table:
        """Return what all sources say: of a key that several have, the strongest's value."""
        return _over(self.options, _over(self.environment, with_events(self.document, self.environment)))

    def fault(self, key: Key, message: str) -> ConfigFault:
        """Return an error at a key, with the place that set it (or the nearest table around it)."""
        name = dotted(key)
        if _holds(self.options, key):
            return ConfigFault(name, message, origin="the command line")
        for overrides, variable in self.variables.items():
            if overrides[: len(key)] == key or key[: len(overrides)] == overrides:
                return ConfigFault(name, message, origin=variable)
        if self.file is None:
            return ConfigFault(name, message)
        lines = locate(self.text)
        line = next((lines[key[:length]] for length in range(len(key), 0, -1) if key[:length] in lines), None)
        return ConfigFault(name, message, line=line, origin=str(self.file))


def _over(strong: Table, weak: Table) -> Table:
    """Return two sources as one; tables are put together key by key."""
    both = {
        key: _over(value, weak[key])
        for key, value in strong.items()
        if isinstance(value, dict) and isinstance(weak.get(key), dict)
    }
    return {**weak, **strong, **both}


def read_sources(
    path: Path | Mapping[str, object] | None,
    env: Mapping[str, str],
    cwd: Path | None,
    options: Mapping[str, str],
    in_force: Path | None = None,
) -> Sources:
    """Find and read the config file, and take from the environment what is for us; raises ``OperatorFault``.

    ``in_force`` is the file that a daemon has its settings from: see ``_find``.
    """
    if isinstance(path, Mapping):
        file, text, document = None, "", dict(path)
    else:
        file, text = _find(path, env, cwd, in_force)
        document = _parse(file, text) if file else {}
    environment: Table = {}
    variables: dict[tuple[str, ...], str] = {}
    for variable, value in sorted(env.items()):
        if not variable.upper().startswith(PREFIX):
            continue
        if SEPARATOR in variable:
            key = _key_of(variable, document)
            variables[key] = variable
            _put(environment, key, value)
        elif (meant := _meant(variable)) is not None:
            message = f"is not a setting; with two underscores it is: {meant}"
            raise InvalidConfig([ConfigFault("", message, origin=variable)])
    overrides: Table = {}
    for name, value in options.items():
        _put(overrides, tuple(name.split(".")), value)
    return Sources(document, environment, overrides, file, text, mtime_of(file), variables)


def with_events(document: Table, environment: Table) -> Table:
    """Return the document with the built-in feed filled in: where it is named, or where no feed is.

    A key that the document leaves out of ``[feeds.events]`` gets the built-in value; one that it has is its own, whole.
    """
    feeds = document.get("feeds", {})
    named = environment.get("feeds", {})
    if not isinstance(feeds, dict) or not (EVENTS in feeds or EVENTS in named or not (feeds or named)):
        return document
    events = feeds.get(EVENTS, {})
    if not isinstance(events, dict):
        return document
    built_in = dict(EVENTS_FEED)
    if events.get("mode", Mode.UPSERT) != Mode.UPSERT:  # the others have no cursor
        del built_in["cursor"]
    return {**document, "feeds": {**feeds, EVENTS: {**built_in, **events}}}


def mtime_of(file: Path | None) -> int | None:
    """Return a config file's mtime; ``None`` where there is none to be seen."""
    try:
        return file.stat().st_mtime_ns if file is not None else None
    except OSError:
        return None


def _find(
    path: Path | None, env: Mapping[str, str], cwd: Path | None, in_force: Path | None
) -> tuple[Path | None, str]:
    """Return the first config file there is, and what it says; one that was named must be there.

    So must one that is ``in_force``: in the moment between an editor's removing and renaming, the next place's file, or
    the defaults, would load the files that come by other feeds.
    """
    named = path or (Path(env[FILE_VARIABLE]) if env.get(FILE_VARIABLE) else None)
    if named is not None:
        file = absolute(cwd, named)
        # A pipe that was given by hand can be read once, and nobody writes to it when a daemon asks again.
        text = _read(file, by_hand=path is not None and in_force is None)
        if text is None:
            raise InvalidConfig([ConfigFault("", "there is no such file", origin=str(file))])
        return file, text
    places = list(_places(env, cwd))
    if in_force is not None:
        places[places.index(in_force) if in_force in places else 0 :] = [in_force]
    for candidate in places:
        text = _read(candidate) if candidate == in_force or _is_there(candidate) else None
        if text is not None:
            return candidate, text
    if in_force is not None:
        why = "is gone, and the settings in force are from it; put it back, or restart inboxd to go on without it"
        raise InvalidConfig([ConfigFault("", why, origin=str(in_force))])
    return None, ""


def _is_there(file: Path) -> bool:
    """Tell whether there is such a file, for all that we can see: another user's home may be closed to a service.

    A link that leads nowhere is there: whoever made it wants a file to be read.
    """
    try:
        return file.exists() or _lost_link(file) is not None
    except PermissionError:
        return False
    except OSError:  # links in a circle, say: reading it says so
        return True


def _lost_link(file: Path) -> Path | None:
    """Return the link that leads nowhere: the file itself, or a folder on its way."""
    return next((place for place in (file, *file.parents) if place.is_symlink() and not place.exists()), None)


def _places(env: Mapping[str, str], cwd: Path | None) -> Iterator[Path]:
    """Yield where a config file is looked for when none was named."""
    if cwd is not None:
        yield cwd / "inboxd.toml"
    if env.get("XDG_CONFIG_HOME"):
        yield Path(env["XDG_CONFIG_HOME"], "inboxd", "inboxd.toml")
    elif env.get("HOME"):  # the XDG Base Directory Specification's own default
        yield Path(env["HOME"], ".config", "inboxd", "inboxd.toml")
    yield SYSTEM_FILE


def _read(file: Path, *, by_hand: bool = False) -> str | None:
    """Return what a file says, ``None`` if there is none; one that was given ``by_hand`` may be a pipe."""
    try:
        return (read_given(file) if by_hand else read_regular(file)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidConfig([ConfigFault("", "is not UTF-8", line=line, origin=str(file))]) from None
    except OSError as error:
        if isinstance(error, PermissionError):
            message = f"{file}: the config may not be read: {error.strerror}"
            raise OperatorFault(
                "config_unreadable", message, "give its reader the right", exit_code=EXIT_NOPERM
            ) from None
        if (link := _lost_link(file)) is not None:
            message = f"cannot be read: the link {link} leads nowhere"
            raise InvalidConfig([ConfigFault("", message, origin=str(file))]) from None
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise InvalidConfig([ConfigFault("", f"cannot be read: {error.strerror}", origin=str(file))]) from None


def _parse(file: Path, text: str) -> Table:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _PLACE.search(message)
        line = int(place["line"]) if place and place["line"] else text.rstrip("\n").count("\n") + 1
        column = f" (column {place['column']})" if place and place["column"] else ""
        reason = _PLACE.sub("", message)
        raise InvalidConfig([ConfigFault("", f"invalid TOML: {reason}{column}", line=line, origin=str(file))]) from None
    except RecursionError:
        raise InvalidConfig([ConfigFault("", "invalid TOML: nested too deep", origin=str(file))]) from None
    except ValueError:  # from int(): not a TOMLDecodeError
        raise InvalidConfig([ConfigFault("", "invalid TOML: a number of too many digits", origin=str(file))]) from None


def _key_of(variable: str, document: Table) -> tuple[str, ...]:
    """Return the key that a variable means.

    Variables have no small letters and no dashes, so the names of feeds and fields are looked for in the document.
    """
    parts = [part.lower() for part in variable[len(PREFIX) :].split(SEPARATOR)]
    if parts[0] != "feeds":
        return tuple(parts)
    feeds = document.get("feeds")
    parts[1:2] = [_known(name, feeds) for name in parts[1:2]]
    fields = feeds.get(parts[1], {}) if isinstance(feeds, dict) and len(parts) > 1 else {}
    if parts[2:3] == ["fields"] and isinstance(fields, dict):
        parts[3:4] = [_known(name, fields.get("fields")) for name in parts[3:4]]
    return tuple(parts)


def _known(name: str, table: object) -> str:
    names = table if isinstance(table, dict) else {}
    return next((known for known in names if known.lower().replace("-", "_") == name), name)


def _meant(variable: str) -> str | None:
    """Return the variable that was meant by ``INBOXD_DATABASE_URL``; ``None`` if it is none of ours."""
    section, _, key = variable[len(PREFIX) :].partition("_")
    model = section_model(section.lower())
    known = {info.alias or name for name, info in model.model_fields.items()} if model else set()
    return f"{PREFIX}{section}{SEPARATOR}{key}" if key.lower() in known else None


def _put(table: Table, key: Sequence[str], value: str) -> None:
    for part in key[:-1]:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):  # a variable for a table as well as one for a key in it
            inner = table[part] = {}
        table = inner
    table[key[-1]] = value if takes_text(key) else _toml_value(value)


def _toml_value(text: str) -> object:
    """Return what the text means as a TOML value, or the text itself if it is none: ``5s`` needs no quotes here."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # TOMLDecodeError is one, and so is a number of too many digits
        return text
    return parsed["value"] if len(parsed) == 1 else text


def takes_text(key: Sequence[str]) -> bool:
    """Tell whether a key's value is plain text, which an environment variable gives as it is."""
    model = section_model(key[0])
    if key[0] == "feeds":
        model = table_of_feed(key)
    if model is None:
        return True
    named = {(info.alias or name): info.annotation for name, info in model.model_fields.items()}
    annotation = named.get(key[-1], str)
    one_field = model is FieldTable and len(key) == len(("feeds", "NAME", "fields", "FIELD"))
    return not one_field and not {str, Path}.isdisjoint((annotation, *get_args(annotation)))


def section_model(name: str) -> type[BaseModel] | None:
    """Return the model of a section, ``None`` if there is no such section (or it is ``feeds``)."""
    info = ConfigFile.model_fields.get(name)
    model = info.annotation if info else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _holds(table: object, key: Key) -> bool:
    for part in key:
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True
