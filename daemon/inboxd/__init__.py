"""inboxd: drop JSON files into a folder, find their records in a database, exactly once.

For programs of your own there are ``load_file``, ``load_folder`` and ``runs`` (see docs/library.md). What they need is
imported when one of these names is first used: every command begins with an import of this package.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing's own costs an import; type checkers take this one as well
if TYPE_CHECKING:
    from inboxd.api import load_file, load_folder, runs
    from inboxd.errors import FileFault, InboxdError, OperatorFault, TransientFault
    from inboxd.outcomes import Counts, Outcome, RunStatus, Verdict
    from inboxd.store.base import RunRow

__version__ = "1.0.0"

__all__ = [
    "Counts",
    "FileFault",
    "InboxdError",
    "OperatorFault",
    "Outcome",
    "RunRow",
    "RunStatus",
    "TransientFault",
    "Verdict",
    "__version__",
    "load_file",
    "load_folder",
    "runs",
]

_WHERE = {
    **dict.fromkeys(("FileFault", "InboxdError", "OperatorFault", "TransientFault"), "inboxd.errors"),
    **dict.fromkeys(("Counts", "Outcome", "RunStatus", "Verdict"), "inboxd.outcomes"),
    **dict.fromkeys(("load_file", "load_folder", "runs"), "inboxd.api"),
    "RunRow": "inboxd.store.base",
}


def __getattr__(name: str) -> object:
    """Return what programs may use, imported now."""
    if name not in _WHERE:
        msg = f"module 'inboxd' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
