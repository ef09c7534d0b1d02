"""The three families of errors, sorted by what happens next.

* ``FileFault``: the file's own fault. It goes to ``failed/`` with a report.
* ``TransientFault``: transient. The file waits and is tried again; it is never moved to ``failed/``.
* ``OperatorFault``: ours or the operator's. The process ends with ``exit_code``.

Each has a stable ``code``, a message that names the file or the place, and a ``hint`` that names the remedy.
A duplicate is an outcome, not an error. No driver's exception leaves the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 69
EXIT_SOFTWARE: Final = 70
EXIT_TEMPFAIL: Final = 75
EXIT_NOPERM: Final = 77
EXIT_CONFIG: Final = 78
EXIT_INTERRUPTED: Final = 130
"""As a shell says it of a program that Ctrl-C ended (128 + SIGINT)."""
EXIT_PIPE: Final = 141
"""The same of one whose output nobody reads any more (128 + SIGPIPE)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the unpacked content: line and column from 1 (characters, as editors count), byte offset from 0."""

    line: int
    column: int
    byte: int


class InboxdError(Exception):
    """What all of inboxd's own errors have: a stable code, a message, a hint that names the remedy."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


RUN_TAKEN: Final = "run_taken"
"""Another daemon has this file by now: the one thing to do is to leave it to that one."""
DATABASE_MISSING: Final = "database_missing"
"""There is no database yet, or none with tables of ours: to make it is what a start does."""
INTERRUPTED: Final = "interrupted"
"""No fault is raised with it: it is the code of a run whose daemon or command ended in the middle."""
INTERRUPTED_MESSAGE: Final = "the daemon ended in the middle of this file"
MEND_AND_RETRY: Final = (
    "mend the file and drop or load it again; if it lies in failed/, mend it there and run `inboxd retry` with its name"
)


class FileFault(InboxdError):
    """The file's own fault: it goes to ``failed/``, and nothing of it is loaded."""

    def __init__(
        self,
        code: str,
        message: str,
        hint: str = "",
        *,
        place: Place | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(code, message, hint or MEND_AND_RETRY)
        self.place = place
        self.details = details or {}
        """Further entries for the file's report (for ``too_many_rejected``: counts by code, first faults)."""


class TransientFault(InboxdError):
    """A transient fault, not the file's: the file waits, with growing pauses."""


class DatabaseFault(TransientFault):
    """A transient fault on the database's side: other files would meet it too."""


class Interrupted(Exception):
    """No error: the current file is rolled back because the daemon was asked to stop."""


class OperatorFault(InboxdError):
    """Ours or the operator's: the process ends with ``exit_code``."""

    def __init__(self, code: str, message: str, hint: str = "", *, exit_code: int = EXIT_SOFTWARE) -> None:
        super().__init__(code, message, hint)
        self.exit_code = exit_code
