"""What Citus wants beyond the form of the statements: a commit that is not finished on every worker is waited for.

A worker may be lost between PREPARE and COMMIT PREPARED. The transaction is committed then, but until Citus has
recovered it (``citus.recover_2pc_interval``) its rows are not to be seen on that worker. What a file's transaction,
or an undo, reads first and decides by would be as it was before.

So these wait: files of feeds that keep before-images or find out first what they change (deletions, snapshots, rows
compared by value, and the replays of their dead letters); a reload that takes an append feed's rows away; an undo; a
changed feed that is refused where a row stands in its way. The others need not. An upsert waits for the rows that it
meets by itself, as they are locked until then, and its transaction sees what it wrote. Lineage that retention cannot
see yet goes with a later round. Runs, watermarks, tombstones and images are the coordinator's own, and what ``db copy``
refuses to copy into has its run there. Questions (`check`, `explain`, the page) tell what is to be seen.
"""

from __future__ import annotations

import time
from typing import Any, Final

import psycopg

from inboxd.errors import DatabaseFault

Connection = psycopg.Connection[tuple[Any, ...]]  # Any: whatever the columns hold

WITH_CITUS: Final = "SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"
SIDE_BY_SIDE: Final = "SET citus.enable_deadlock_prevention = off"
"""Lets daemons write to one table at once, where shards have no replicas: Citus holds that against the table.

A deadlock of two files is found by Citus, and one of them tried again.
"""
ON_A_NODE: Final = (
    "SELECT COALESCE(string_agg(gid, ' '), '') FROM pg_prepared_xacts "
    "WHERE database = current_database() AND starts_with(gid, 'citus_')"
)
PREPARED: Final = (
    f"SELECT 'worker ' || nodename || ':' || nodeport, success, result FROM run_command_on_workers($${ON_A_NODE}$$) "
    f"UNION ALL SELECT 'the coordinator', TRUE, ({ON_A_NODE})"  # it may have shards, too
)
OURS: Final = "SELECT 'citus_' || groupid || '_' FROM pg_dist_local_group"
PATIENCE_S: Final = 5.0
PAUSE: Final = "SELECT pg_sleep(0.1)"


def await_commits(connection: Connection) -> None:
    """Return once every commit of this coordinator's that was under way is finished on all nodes.

    To be called under the table's lock, so that none of that table's begins meanwhile. Raises ``DatabaseFault``
    ``commit_unfinished`` where that takes longer than a few seconds, or a worker cannot be asked.
    """
    until = time.monotonic() + PATIENCE_S
    first = pending = _prepared(connection)
    while first & pending:
        if time.monotonic() > until:
            raise _unfinished(f"{len(first & pending)} commits are not finished on all nodes yet")
        connection.execute(PAUSE)
        pending = _prepared(connection)


def _prepared(connection: Connection) -> set[str]:
    (ours,) = connection.execute(OURS).fetchone() or ("",)
    found: set[str] = set()
    for node, success, result in connection.execute(PREPARED.encode()):
        if not success:
            raise _unfinished(f"{node} cannot be asked which commits it has not finished: {result}")
        found.update(f"{node} {gid}" for gid in result.split() if gid.startswith(ours))
    return found


def _unfinished(message: str) -> DatabaseFault:
    hint = "see that all nodes are up; Citus finishes such commits within citus.recover_2pc_interval"
    return DatabaseFault("commit_unfinished", message, hint)
