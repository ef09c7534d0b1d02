"""From sources to settings, with all errors at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from inboxd.config.database import absolute_url, credential_file, has_password, read_password, with_password
from inboxd.config.faults import Faults, InvalidConfig, Key
from inboxd.config.feeds import build_feeds, doubts
from inboxd.config.folders import absolute
from inboxd.config.forms import NO_TEXT, ConfigTable
from inboxd.config.notify import build_notify
from inboxd.config.own_files import hold_files_apart
from inboxd.config.schema import ConfigFile, NotifyTable, table_of_feed
from inboxd.config.settings import DatabaseSettings, Settings
from inboxd.config.sources import Sources, Table, read_sources, section_model
from inboxd.model import Feed

Section = TypeVar("Section", bound=ConfigTable)

LEAST_RESCAN_S: Final = 0.1
"""A scan lists the whole inbox: one after the other without a pause would keep a core busy."""

_EXPECTED: Final = {
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a table",
    "int_type": "must be a whole number",
    "missing": "is missing",
    "model_type": "must be a table",
    "string_type": NO_TEXT,
    "too_short": "must not be empty",
    "tuple_type": 'must be an array, such as ["this"]',
}


def load_settings(
    path: Path | Mapping[str, object] | None,
    env: Mapping[str, str],
    cwd: Path | None,
    options: Mapping[str, str] | None = None,
    in_force: Path | None = None,
) -> Settings:
    """Return the settings in force.

    ``path`` is what ``--config`` named, or what such a file says, as ``tomllib`` gives it. ``options`` are a command's
    own (``{"database.url": "…"}``): they outrank the environment, and relative paths in them are relative to ``cwd``,
    the working folder (``None`` if that was deleted). A daemon that loads its config anew says which file is
    ``in_force``: without that one nothing is taken. Raises ``InvalidConfig`` with everything that is wrong, or
    ``OperatorFault`` where the file may not be read.
    """
    sources = read_sources(path, env, cwd, options or {}, in_force)
    faults = Faults()
    config = _checked(sources, faults)
    feeds = build_feeds(config.feeds, faults)
    settings = _Builder(config, sources, cwd, faults).settings(feeds, env)
    if found := faults.items():
        raise InvalidConfig([sources.fault(key, message) for key, message in found])
    warnings = tuple(str(sources.fault(key, message)) for key, message in doubts(config.feeds, feeds))
    return replace(settings, warnings=warnings)


def _checked(sources: Sources, faults: Faults) -> ConfigFile:
    """Return the config with the keys that have the wrong form left out, each of them noted.

    Without them what is left can be checked for sense too, so that all errors are told at once.
    """
    said = sources.merged()
    try:
        return ConfigFile.model_validate(said)
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            faults.add(found["loc"], _message(found["type"], found["msg"], found["loc"]))
            said = _without(said, found["loc"])
    while True:
        try:
            return ConfigFile.model_validate(said)
        except ValidationError as error:  # what only follows, such as a table of which nothing is left: it is not told
            key = error.errors(include_url=False, include_input=False)[0]["loc"]
            less = _without(said, key)
            while less == said:  # the key is what is missing
                key = key[:-1]
                less = _without(said, key)
            said = less


def _message(kind: str, message: str, key: Key) -> str:
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(key[-1]), _names_beside(key), n=1)
        return f"unknown key; did you mean {near[0]}?" if near else "unknown key"
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "enum":
        return message.replace("Input should be", "must be")
    return message.removeprefix("Value error, ").replace("Input should", "must").replace("Tuple should", "must")


def _names_beside(key: Key) -> list[str]:
    """Return the names that the table around a key knows."""
    model: type[BaseModel] = ConfigFile
    if key[0] == "notify":
        model = NotifyTable
    elif key[0] == "feeds":
        model = table_of_feed(key)
    elif len(key) > 1:
        model = section_model(str(key[0])) or ConfigFile
    return [info.alias or name for name, info in model.model_fields.items()]


def _without(table: Table, key: Key) -> Table:
    """Return a copy of the table in which a key is not.

    For an element of an array, the whole array is not; but each of the tables of ``notify`` stands for itself.
    """
    head = str(key[0])
    if head not in table:
        return table
    inner = table[head]
    if head == "notify" and len(key) > 2 and isinstance(inner, list):  # noqa: PLR2004 - a key of one of them
        return {**table, head: [_without(one, key[2:]) if place == key[1] else one for place, one in enumerate(inner)]}
    if len(key) > 1 and isinstance(inner, dict) and not isinstance(key[1], int):
        return {**table, head: _without(inner, key[1:])}
    return {name: value for name, value in table.items() if name != head}


class _Builder:
    """Makes the slices: paths absolute, the password fetched, what must not overlap held apart."""

    def __init__(self, config: ConfigFile, sources: Sources, cwd: Path | None, faults: Faults) -> None:
        self._config = config
        self._sources = sources
        self._cwd = cwd
        self._faults = faults

    def settings(self, feeds: tuple[Feed, ...], env: Mapping[str, str]) -> Settings:
        config = self._config
        if config.inbox.rescan < LEAST_RESCAN_S:
            self._faults.add(("inbox", "rescan"), 'must be at least "100ms"')
        settings = Settings(
            inbox=self._placed("inbox", config.inbox),
            archive=self._placed("archive", config.archive),
            database=self._database(config.database, env),
            retention=config.retention,
            log=self._placed("log", config.log),
            http=config.http,
            feeds=feeds,
            notify=build_notify(config.notify, lambda key, value: self._path("notify", key, value), self._faults),
            source=self._sources.file,
            source_mtime_ns=self._sources.mtime_ns,
        )
        self._hold_apart(settings)
        hold_files_apart(settings, self._faults)
        return settings

    def _base(self, section: str, key: str) -> Path | None:
        """Return the folder that a relative path in a key starts from."""
        if key in self._sources.options.get(section, {}) or self._sources.file is None:
            return self._cwd
        return self._sources.file.parent

    def _placed(self, section: str, table: Section) -> Section:
        """Return a section with its paths made absolute."""
        found = ((name, value) for name, value in table if isinstance(value, Path))
        return table.model_copy(update={name: self._path(section, name, value) for name, value in found})

    def _path(self, section: str, key: str, value: str | Path) -> Path:
        if "\0" in str(value):
            self._faults.add((section, key), "must not hold U+0000")
        return absolute(self._base(section, key), value)

    def _database(self, table: DatabaseSettings, env: Mapping[str, str]) -> DatabaseSettings:
        base = self._base("database", "url")
        url = self._try(("database", "url"), lambda: absolute_url(table.url, base)) or table.url
        found = self._placed("database", table).model_copy(update={"url": url})
        if not found.is_postgres:
            if found.password_file is not None:
                self._faults.add(("database", "password_file"), "is for PostgreSQL; SQLite has no password")
            return found
        if has_password(url):
            if found.password_file is not None:
                self._faults.add(("database", "password_file"), "is not used, as database.url has a password in it")
            return found
        secret_file = found.password_file or credential_file(env)
        if secret_file is None:
            return found
        password = self._try(("database", "password_file"), lambda: read_password(secret_file))
        return found.model_copy(update={"url": with_password(url, password)}) if password else found

    def _try(self, key: Key, action: Callable[[], str]) -> str | None:
        try:
            return action()
        except ValueError as error:
            self._faults.add(key, str(error))
            return None

    def _hold_apart(self, settings: Settings) -> None:
        """Note what inboxd would find in its own inbox and load, or remove from an archive folder as too old."""
        inbox, archive = settings.inbox.path, settings.archive
        folders = {("archive", "processed"): archive.processed, ("archive", "failed"): archive.failed}
        files = {("log", "file"): settings.log.file}
        if not settings.database.is_postgres:
            files["database", "url"] = settings.database.sqlite_path
        for key, path in (folders | files).items():
            if path is not None and path.is_relative_to(inbox):
                self._faults.add(key, f"must not be in the inbox ({inbox})")
        if archive.processed == archive.failed:
            self._faults.add(("archive", "failed"), "must not be the same folder as archive.processed")
            return
        for key, path in ({("inbox", "path"): inbox} | folders | files).items():
            for (_, name), folder in folders.items():
                if path is not None and path != folder and path.is_relative_to(folder):
                    self._faults.add(key, f"must not be in archive.{name} ({folder}), which holds senders' files alone")
