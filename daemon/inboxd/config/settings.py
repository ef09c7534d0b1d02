"""The settings in force: frozen slices, each given only to who needs it.

Paths are absolute, durations are seconds (``None`` is for ever), sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from inboxd.config.database import masked
from inboxd.model import Feed

SQLITE_PREFIX: Final = "sqlite:///"


class Polling(StrEnum):
    """When the inbox is polled in place of being watched: ``auto`` is where the filesystem gives no events."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class LogFormat(StrEnum):
    """The form of the lines on standard output: ``auto`` is console on a terminal, else JSON."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLayout(StrEnum):
    """The names of a JSON line's fields: inboxd's own, Elastic Common Schema, OpenTelemetry's log data model."""

    INBOXD = "inboxd"
    ECS = "ecs"
    OTEL = "otel"


class LogLevel(StrEnum):
    """The least level of the lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class InboxSettings:
    """The watched folder, and when a file in it is whole."""

    path: Path
    ignore: tuple[str, ...]
    settle: float
    settle_unproven: float
    settle_moved: float
    suffixes: tuple[str, ...]
    rescan: float
    polling: Polling
    max_file_size: int


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """Where files end, and how long processed ones are kept."""

    processed: Path
    failed: Path
    keep: float | None
    copy: bool = False


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """The database. ``url`` holds the password, if there is one: show people ``shown_url``."""

    url: str = field(repr=False)
    password_file: Path | None = None

    @property
    def is_postgres(self) -> bool:
        """Tell PostgreSQL from SQLite; there is no third."""
        return not self.url.startswith(SQLITE_PREFIX)

    @property
    def sqlite_path(self) -> Path:
        """The file of a SQLite database; ``ValueError`` for PostgreSQL."""
        if self.is_postgres:
            msg = "a PostgreSQL database has no file"
            raise ValueError(msg)
        return Path(self.url.removeprefix(SQLITE_PREFIX))

    @property
    def shown_url(self) -> str:
        """The URL with every password masked, for people and logs."""
        return masked(self.url)


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How long rows are kept: lineage, resolved dead letters, before-images, tombstones."""

    lineage: float | None
    resolved: float | None
    images: float | None
    tombstones: float | None = None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The lines: their form on standard output, their least level, the file that always gets JSON, JSON's names."""

    format: LogFormat
    level: LogLevel
    file: Path | None
    layout: LogLayout


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The page's address as ``host:port``; empty for no page."""

    listen: str


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Somebody who is told of events: a program (``exec``), or an address that a notice is posted to (``url``)."""

    name: str
    """Who it is, in the ledger and in the log: the same as long as ``exec`` or ``url`` is, and without a secret."""
    on: frozenset[str]
    exec: tuple[str, ...] = ()
    url: str = field(default="", repr=False)
    headers_file: Path | None = None
    deferred_for: float | None = None
    """A file that waits longer than this (s) is told of, too."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything in force. ``source`` is the config file, ``None`` where there is none; with its mtime when read."""

    inbox: InboxSettings
    archive: ArchiveSettings
    database: DatabaseSettings
    retention: RetentionSettings
    log: LogSettings
    http: HttpSettings
    feeds: tuple[Feed, ...]
    notify: tuple[NotifySettings, ...] = ()
    source: Path | None = None
    warnings: tuple[str, ...] = ()
    """What is allowed and may not be meant, each with its place and key."""
    source_mtime_ns: int | None = None
