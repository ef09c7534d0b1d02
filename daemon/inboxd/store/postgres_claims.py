"""Which claims are whose on PostgreSQL: a session's advisory lock for each, which goes with the session.

So another daemon can tell the dead from the living, whether a claim's run has begun, waits, or is committed and its
file still to be moved. Inside the file's transaction the run's row is locked too, and that is the last word.
"""

from __future__ import annotations

import time
from typing import Any, Final

import psycopg

from inboxd.errors import INTERRUPTED, INTERRUPTED_MESSAGE
from inboxd.store.ledger import RUN_COLUMNS

CLAIM_LOCK: Final = "hashtextextended('inboxd claim ' || {claim}, 0)"
TRY: Final = f"SELECT {CLAIM_LOCK.format(claim='%s::text')} WHERE pg_try_advisory_lock({CLAIM_LOCK.format(claim='%s')})"
TRY_ALL: Final = (
    f"SELECT claim, {CLAIM_LOCK.format(claim='claim')} FROM unnest(%s::text[]) AS held (claim) "
    f"WHERE pg_try_advisory_lock({CLAIM_LOCK.format(claim='claim')})"
)
UNLOCK: Final = "SELECT pg_advisory_unlock({lock}); "

INTERRUPT: Final = (
    "UPDATE etl_runs SET status = 'failure', finished_at = %(finished_at)s::timestamptz, "
    f"error_code = '{INTERRUPTED}', error = '{INTERRUPTED_MESSAGE}' WHERE id IN ({{ids}}) RETURNING {RUN_COLUMNS}"
)
OF_NOBODY: Final = (
    "WITH gone AS MATERIALIZED "
    "(SELECT id, claim FROM etl_runs WHERE status = 'running' AND claim IS NOT NULL FOR UPDATE SKIP LOCKED) "
    f"SELECT id FROM gone WHERE pg_try_advisory_xact_lock({CLAIM_LOCK.format(claim='claim')})"
)
OF_CLAIM: Final = "SELECT id FROM etl_runs WHERE status = 'running' AND claim = %(claim)s FOR UPDATE SKIP LOCKED"
RUNNING: Final = "SELECT 1 FROM etl_runs WHERE claim = %s AND status = 'running'"

OTHERS_COME_BACK_S: Final = 5.0
"""After a lost connection, which is often the server's restart, the other daemons get so long to take up their own."""

Connection = psycopg.Connection[tuple[Any, ...]]  # Any: whatever the columns hold


class Claims:
    """The claims that this session holds. Owned by the thread that owns the store's connection."""

    def __init__(self) -> None:
        self._locks: dict[str, int] = {}
        self._given_up: list[int] = []
        self._sessions = 0
        self._since = 0.0

    def __contains__(self, claim: object) -> bool:
        return claim in self._locks

    def note(self, claim: str, lock: int) -> None:
        """Remember a lock that was taken."""
        self._locks[claim] = lock

    def reconnected(self, connection: Connection) -> None:
        """Take up what the session before held, as far as nobody else has it."""
        self._sessions += 1
        self._since = time.monotonic()
        self._given_up.clear()
        held = list(self._locks)
        self._locks.clear()
        if held:
            self._locks.update(connection.execute(TRY_ALL, (held,)).fetchall())

    def may_take_over(self) -> bool:
        """Tell whether a claim that nobody holds is one of the dead."""
        return self._sessions == 1 or time.monotonic() - self._since >= OTHERS_COME_BACK_S

    def keep(self, connection: Connection, claim: str) -> bool:
        """Tell whether the claim is ours, which it becomes if nobody has it."""
        if claim in self._locks:
            return True
        row = connection.execute(TRY, (claim, claim)).fetchone()
        if row is not None:
            self._locks[claim] = row[0]
        return row is not None

    def let_go(self, claim: str) -> None:
        """Give a claim up with the next transaction: that costs no trip to the server."""
        lock = self._locks.pop(claim, None)
        if lock is not None:
            self._given_up.append(lock)

    def unlocking(self) -> str:
        """Return the statements that unlock what was given up; whoever asks sends them."""
        statements = "".join(UNLOCK.format(lock=lock) for lock in self._given_up)
        self._given_up.clear()
        return statements
