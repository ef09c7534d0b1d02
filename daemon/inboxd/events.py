"""What can be told: each event that a line of the log, or a notice, can have. The names are part of the product."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Event(StrEnum):
    """Every event a line can have, with the level it has and what it means."""

    level: str
    meaning: str

    def __new__(cls, value: str, level: str = "", meaning: str = "") -> Self:
        """Attach level and meaning to the name."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.level = level
        member.meaning = meaning
        return member

    DAEMON_STARTED = (
        "daemon_started",
        "info",
        "the daemon is ready: pid, host, version, inbox, database, config, reload, files_waiting",
    )
    DAEMON_STOPPED = "daemon_stopped", "info", "an orderly stop: how many files it took, and why it stopped"
    FILE_LOADED = "file_loaded", "info", "a file's records are committed: all counts, watermark, where it was moved"
    FILE_DUPLICATE = "file_duplicate", "info", "the same content was loaded before, by the run in duplicate_of"
    FILE_ARCHIVED = (
        "file_archived",
        "info",
        "where a file is in the end; its earlier line could not say so, because the move had to wait",
    )
    FILE_FAILED = "file_failed", "error", "nothing of the file was loaded: code, error, hint; the report is beside it"
    FILE_DEFERRED = (
        "file_deferred",
        "warning",
        "a transient fault: the file waits retry_in_s seconds, then is tried again",
    )
    FILE_IGNORED = (
        "file_ignored",
        "warning",
        "left alone: none of `inbox.suffixes`, no feed for it, not a regular file, or a folder of the archive",
    )
    FILE_RECOVERED = "file_recovered", "info", "a crash came between a file's COMMIT and its line: the run's counts"
    FILE_RETRIED = "file_retried", "info", "a crash had interrupted this file: it is tried again"
    FILE_UNSETTLED = "file_unsettled", "warning", "a file has not become complete for a long time; it keeps its place"
    FILE_GONE = (
        "file_gone",
        "warning",
        "somebody took a claimed file away; if there is no run_id here, nothing of it was loaded",
    )
    FILE_TAKEN_OVER = (
        "file_taken_over",
        "info",
        "another daemon works on this file now, as this one had lost the database; that daemon says how it ends",
    )
    FILE_NOT_MOVABLE = "file_not_movable", "warning", "a file cannot be renamed out of the inbox, so it is not read"
    ALL_REJECTED = "all_rejected", "warning", "there were records, and every one not skipped was rejected"
    ALL_FILTERED = "all_filtered", "warning", "a file had records, and the feed's `where` left every one of them out"
    KEYS_REPEAT = (
        "keys_repeat",
        "warning",
        "this many records have the key of an earlier record of the file, and the cursor does not tell which is newer",
    )
    RECORDS_SKIPPED = "records_skipped", "warning", "records at or below the feed's watermark were left out"
    SETTLE_UNPROVEN = (
        "settle_unproven",
        "warning",
        "neither a lease nor an event proves that files are complete: they wait inbox.settle_unproven",
    )
    INBOX_LOST = "inbox_lost", "error", "the inbox is gone, replaced or unreadable; it is looked for again"
    INBOX_RESTORED = "inbox_restored", "info", "the inbox is watched again"
    INBOX_OVERFLOW = "inbox_overflow", "warning", "the kernel's event queue overflowed; the inbox was scanned"
    INBOX_POLLED = "inbox_polled", "info", "the filesystem gives no events, or allows no watch, so the inbox is polled"
    FOLDER_UNREADABLE = "folder_unreadable", "warning", "a folder inside the inbox cannot be listed"
    CONFIG_RELOADED = "config_reloaded", "info", "HUP: the new config is in force"
    CONFIG_REJECTED = (
        "config_rejected",
        "error",
        "HUP: the new config is wrong, the old one stays; all its errors. A transient fault's refusal is tried again",
    )
    DATABASE_UPGRADED = (
        "database_upgraded",
        "info",
        "the control tables were made, or migrated to this version's schema",
    )
    HTTP_STARTED = "http_started", "info", "the page is served at this address"
    HTTP_EXPOSED = "http_exposed", "warning", "the page listens beyond this machine; it has no password"
    RETENTION_APPLIED = (
        "retention_applied",
        "info",
        "old files and rows were removed, as archive.keep and retention say; up to 100 files are named",
    )
    RETENTION_FAILED = "retention_failed", "warning", "old files or rows could not be removed; tried again later"
    LIBRARY_MESSAGE = (
        "library_message",
        "warning",
        "what a library logged or warned of: library, message; at most 10 a minute, left_out counts the others",
    )
    LOG_LINES_DROPPED = (
        "log_lines_dropped",
        "warning",
        "this many lines are missing in this output: its reader or its disk took no more; the other output has them",
    )
    FEED_LATE = "feed_late", "warning", "nothing has arrived in the time that the feed's expect allows; said once"
    FEED_ARRIVED = "feed_arrived", "info", "a file has arrived for a feed that was late"
    NOTICE_DEFERRED = (
        "notice_deferred",
        "warning",
        "a receiver did not take a notice: which one, and why; it is tried again after retry_in_s seconds",
    )
    NOTICE_DROPPED = "notice_dropped", "error", "a notice that nobody took for a day is given up"
    STEP_TIMED = "step_timed", "debug", "how long one step of a file took"
    BUG = "bug", "error", "a fault of inboxd itself, with its traceback; please report it"
