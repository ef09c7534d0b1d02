"""Settings in, frozen slices out: a config file, the environment and a command's options become ``Settings``."""

from inboxd.config.document import DocumentedKey, documented_keys, json_schema, show, shown_values
from inboxd.config.faults import ConfigFault, InvalidConfig
from inboxd.config.globs import captures, catches, compile_glob, fits_tail, literal, match_feed, never_reached
from inboxd.config.load import load_settings
from inboxd.config.own_files import is_one_file, own_file_at
from inboxd.config.settings import (
    STATE_FILE,
    ArchiveSettings,
    DatabaseSettings,
    HttpSettings,
    InboxSettings,
    LogFormat,
    LogLayout,
    LogLevel,
    LogSettings,
    NotifySettings,
    Polling,
    RetentionSettings,
    Settings,
    ip_of,
)
from inboxd.config.sources import mtime_of

__all__ = [
    "STATE_FILE",
    "ArchiveSettings",
    "ConfigFault",
    "DatabaseSettings",
    "DocumentedKey",
    "HttpSettings",
    "InboxSettings",
    "InvalidConfig",
    "LogFormat",
    "LogLayout",
    "LogLevel",
    "LogSettings",
    "NotifySettings",
    "Polling",
    "RetentionSettings",
    "Settings",
    "captures",
    "catches",
    "compile_glob",
    "documented_keys",
    "fits_tail",
    "ip_of",
    "is_one_file",
    "json_schema",
    "literal",
    "load_settings",
    "match_feed",
    "mtime_of",
    "never_reached",
    "own_file_at",
    "show",
    "shown_values",
]
