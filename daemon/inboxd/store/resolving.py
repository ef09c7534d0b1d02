"""Dead letters that a run answers: a record of their feed and key was refused once, and is applied now.

Written once for both databases: ``mark`` is how a statement's parameters are written. One without a readable key
has ``?`` for one, which is nobody's.
"""

from __future__ import annotations

from typing import Final

from inboxd.model import Feed, Mode
from inboxd.outcomes import UNREADABLE_KEY
from inboxd.store.dialects import POSTGRES, SQLITE
from inboxd.store.staged import Staged

_OPEN: Final = "d.feed = {feed} AND d.resolved_by IS NULL"
_ELIGIBLE: Final = f"{_OPEN} AND d.run_id <> {{run}} AND d.record_key <> '{UNREADABLE_KEY}'"
_APPLIED: Final = "l.run_id = {run} AND l.outcome IN (0, 4)"
_ANY: Final = f"SELECT EXISTS (SELECT 1 FROM dead_letters d WHERE {_OPEN})"
_COUNT: Final = f"SELECT COUNT(*) FROM (SELECT 1 FROM dead_letters d WHERE {_OPEN} LIMIT {{most}}) AS found"
_BY_DEAD_LETTER: Final = (
    f"SELECT d.id FROM dead_letters d WHERE {_ELIGIBLE} AND d.record_key IN "
    f"(SELECT l.record_key FROM lineage_records l WHERE {_APPLIED})"
)
_BY_DEAD_LETTER_ON_SQLITE: Final = (
    f"SELECT d.id FROM dead_letters d WHERE {_ELIGIBLE} AND EXISTS "
    f"(SELECT 1 FROM lineage_records l WHERE {_APPLIED} AND l.record_key = d.record_key)"
)
_BY_RECORD_ON_SQLITE: Final = (
    "SELECT d.id FROM lineage_records l CROSS JOIN dead_letters d "
    f"WHERE {_APPLIED} AND d.record_key = l.record_key AND {_ELIGIBLE}"
)
_RESOLVE: Final = "UPDATE dead_letters SET resolved_by = {run} WHERE id IN ("


def resolve_applied(run: Staged, feed: Feed, applied: int, *, on_postgres: bool) -> None:
    """Mark the open dead letters of the feed whose key this run has applied, ``applied`` records of them.

    Most feeds have no open dead letter, and that is all that is asked then. Else, on SQLite, whichever are fewer lead:
    the feed's dead letters, each looked for among the run's records, or the records.
    """
    if not applied or feed.mode is Mode.APPEND:
        return
    texts = _ON_POSTGRES if on_postgres else _ON_SQLITE
    if not run.one(texts.any)[0]:
        return
    # Not asked of every file: SQLite prepares a statement anew whenever another value is bound to its LIMIT.
    few = on_postgres or int(str(run.one(texts.count, most=applied + 1)[0])) <= applied
    run.change(texts.by_letter if few else texts.by_record)


class _Texts:
    """The statements with their parameters as a database's driver writes them."""

    def __init__(self, mark: str, by_letter: str, by_record: str) -> None:
        marks = {name: mark.format(name) for name in ("run", "feed", "most")}
        self.any = _ANY.format(**marks)
        self.count = _COUNT.format(**marks)
        self.by_letter = f"{_RESOLVE}{by_letter})".format(**marks)
        self.by_record = f"{_RESOLVE}{by_record})".format(**marks)


_ON_SQLITE: Final = _Texts(SQLITE.named, _BY_DEAD_LETTER_ON_SQLITE, _BY_RECORD_ON_SQLITE)
_ON_POSTGRES: Final = _Texts(POSTGRES.named, _BY_DEAD_LETTER, _BY_DEAD_LETTER)
