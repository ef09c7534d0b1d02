"""The settings in force: frozen slices, each given only to who needs it.

The tables that every config has are pydantic models: what they hold once the config is read is what is in force. Paths
are absolute then, durations are seconds (``None`` is for ever), sizes are bytes.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, PlainSerializer, StrictBool

from inboxd.config.database import check_url, masked
from inboxd.config.forms import ConfigTable, Duration, FilePath, Keep, MaybePath, Size, Suffix, Text, setting
from inboxd.model import Feed

SQLITE_PREFIX: Final = "sqlite:///"
STATE_FILE: Final = "inboxd.state.json"


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


def _listen(value: str) -> str:
    """Return ``host:port`` unchanged if that is what it is, or empty."""
    host, colon, port = value.rpartition(":")
    known = ":" not in host or ip_of(host.removeprefix("[").removesuffix("]")) is not None
    if value and not (colon and host and known and port.isascii() and port.isdecimal() and int(port) < 2**16):
        msg = 'must be "host:port", such as "127.0.0.1:8765", or "" for no page'
        raise ValueError(msg)
    return value


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host's text is, or ``None`` for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class InboxSettings(ConfigTable):
    """The watched folder, and when a file in it is whole."""

    path: FilePath = setting("inbox", "The watched folder.")
    ignore: tuple[Text, ...] = setting(
        [".*", "*.tmp", "*.part", "*.partial", "*.filepart", "*.crdownload", "*~"],
        "Names of files and folders that are left alone.",
    )
    settle: Duration = setting("100ms", "How long size and mtime must be still before a file is taken.")
    settle_unproven: Duration = setting("5s", "The same, where the kernel cannot tell whether a writer is left.")
    settle_moved: Duration = setting(
        "0s", "The same for files that were moved in; for senders that change times afterwards."
    )
    suffixes: tuple[Suffix, ...] = setting(
        [".json", ".ndjson", ".jsonl"],
        'Names that are taken, each also with .gz or .zst, in any letter case; "" is any name.',
        min_length=1,
    )
    rescan: Duration = setting("30s", "How often the inbox is listed, whatever events came.")
    polling: Polling = setting(Polling.AUTO, "Poll in place of watching: auto is on filesystems without events.")
    max_file_size: Size = setting("16GiB", "Larger files fail, as dropped and as unpacked.")


class ArchiveSettings(ConfigTable):
    """Where files end."""

    processed: FilePath = setting("data/processed", "Where loaded files go.")
    failed: FilePath = setting("data/failed", "Where failed files go, each with its report.")
    keep: Keep = setting("forever", "Processed files are removed that long after their run ended.")
    copy_files: StrictBool = setting(
        False, "Archive a copy, which no sender who has the file open can change.", alias="copy"
    )

    @property
    def state_file(self) -> Path:
        """Where the daemon says what it is doing: beside the folder of processed files."""
        return self.processed.parent / STATE_FILE


class DatabaseSettings(ConfigTable):
    """The database. ``url`` holds the password, if there is one: show people ``shown_url``."""

    url: Annotated[str, AfterValidator(check_url), PlainSerializer(masked)] = setting(
        "sqlite:///data/inboxd.db", "Where records go: sqlite:///FILE or postgresql://user@host/db.", repr=False
    )
    password_file: MaybePath = setting("", "A file with PostgreSQL's password, so that it need not be in the URL.")

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


class RetentionSettings(ConfigTable):
    """How long rows are kept that nothing needs for loading."""

    lineage: Keep = setting("forever", "How long lineage is kept.")
    resolved: Keep = setting("forever", "How long resolved dead letters are kept.")
    images: Keep = setting("forever", "How long before-images are kept, and so how far back undo reaches.")
    tombstones: Keep = setting("forever", "How long deletions of keys are remembered.")


class LogSettings(ConfigTable):
    """The lines."""

    format: LogFormat = setting(LogFormat.AUTO, "Lines on standard output: auto is console on a terminal.")
    level: LogLevel = setting(LogLevel.INFO, "The least level of the lines that are written.")
    file: MaybePath = setting("data/inboxd.log", "JSON lines, safe to rotate; empty for none.")
    layout: LogLayout = setting(
        LogLayout.INBOXD, "The names of JSON's fields: inboxd's, Elastic's, or OpenTelemetry's."
    )


class HttpSettings(ConfigTable):
    """The page."""

    listen: Annotated[str, AfterValidator(_listen)] = setting(
        "", "Where page, health and metrics are served, as host:port; empty for nowhere."
    )


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
