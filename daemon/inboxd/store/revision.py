"""Which schema this version of inboxd reads and writes. Imports no SQLAlchemy: every start asks."""

from __future__ import annotations

from typing import Final

from inboxd.errors import EXIT_CONFIG, OperatorFault

HEAD: Final = "0002"
"""The newest file of ``migrations/versions`` (a test holds them together)."""
KNOWN: Final = frozenset({"0001", HEAD})
"""Every revision that ``upgrade`` can start from."""


def refuse_newer(revision: str | None) -> None:
    """Raise when the database was made by a later version of inboxd."""
    if revision is not None and revision not in KNOWN:
        message = (
            f"the database's schema is revision {revision!r}; this version of inboxd knows none later than {HEAD!r}"
        )
        raise OperatorFault("schema_newer", message, "run the newer inboxd that made it", exit_code=EXIT_CONFIG)
