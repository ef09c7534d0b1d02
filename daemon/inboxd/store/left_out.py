"""Rows that a trigger or rule of the user's own leaves out without an error: the file they came in is refused.

A record that was not written is stale, which is asked of no row where all was written, and of none where the table has
nothing that could leave a row out: then only the catalogue is asked. Otherwise each key is looked up once more.
"""

from __future__ import annotations

from inboxd.store.base import left_out
from inboxd.store.staged import Staged
from inboxd.store.statements import Statements


def refuse_left_out(staged: Staged, sql: Statements, *statements: str) -> None:
    """Raise ``refused_by_database`` if a statement finds the key of a row that should be written, or gone, and is not.

    To be called where fewer rows were changed than there are records that might have changed one.
    """
    if not staged.one(sql.dialect.leaves_out)[0]:
        return
    for statement in statements:
        (key,) = staged.one(statement)
        if key is not None:
            raise left_out(sql.feed.table, f"the change of the row with the key {key}")
