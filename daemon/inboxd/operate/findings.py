"""What a check of ``inboxd doctor`` looks at, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from inboxd.config import ArchiveSettings, DatabaseSettings, InboxSettings
from inboxd.errors import InboxdError
from inboxd.locks import running_pid
from inboxd.model import Feed
from inboxd.store.database import Store


class Health(StrEnum):
    """How a check went. Only ``wrong`` makes the command exit with 1."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and the command or the change that mends it."""

    check: str
    status: Health
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """What is looked at. ``store`` is ``None`` where the database cannot be looked into, and ``fault`` tells why."""

    inbox: InboxSettings
    archive: ArchiveSettings
    database: DatabaseSettings
    store: Store | None
    now: datetime
    deep: bool = False
    feeds: Sequence[Feed] = ()
    fault: InboxdError | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the daemon on a SQLite database: ``None`` if none runs, 0 if it cannot be told."""
        return None if self.database.is_postgres else running_pid(self.database.sqlite_path)
