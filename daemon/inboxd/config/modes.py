"""Which keys of a feed go with its mode, and which it must say."""

from __future__ import annotations

from inboxd.config.faults import Faults, Key
from inboxd.config.schema import FeedTable
from inboxd.model import Late, Mode, Shape

_SNAPSHOT_KEYS = ("as_of", "absent", "scope", "allow_empty")


def check_mode(table: FeedTable, at: Key, faults: Faults) -> None:
    """Note each key that the feed must say, or that means nothing in it; not where what decides it is wrong itself."""
    if faults.under((*at, "mode")):
        return
    if not table.key and table.mode is not Mode.APPEND:
        faults.add((*at, "key"), f'is missing: mode "{table.mode}" needs one; mode = "append" does not')
    if table.mode is Mode.SNAPSHOT and table.absent is None:
        faults.add((*at, "absent"), "must be given: remove, which deletes a row that a file does not have, or mark")
    if table.deletes and table.cursor and table.late is not Late.MERGE and table.mode is Mode.UPSERT:
        faults.add((*at, "late"), 'must be "merge" where there is deletes: a skipped deletion would be lost')
    if not any(faults.under((*at, name)) for name in ("cursor", "deletes")):
        for key, why in _meaningless(table).items():
            if key in table.model_fields_set:
                faults.add((*at, key), why)
    if table.shape is Shape.VALUES and table.records:
        faults.add((*at, "shape"), '"values" takes each top-level value; with records it must be "members" or left out')


def _meaningless(table: FeedTable) -> dict[str, str]:
    """Return the keys that say nothing in a feed of this kind, each with the reason."""
    found: dict[str, str] = {}
    if table.mode is Mode.APPEND:
        found["late"] = found["max_future"] = 'is for feeds with a cursor, which mode "append" does not have'
    elif table.mode is Mode.SNAPSHOT:
        found["late"] = 'is for mode "upsert"; of two snapshots the one with the later as_of counts'
        found["max_rejected"] = "is not for a snapshot: one with a rejected record is refused"
    elif not table.cursor:
        found["late"] = found["max_future"] = "is for feeds with a cursor; without one, the last record of a key counts"
    if table.mode is not Mode.UPSERT:
        if table.cursor:
            instead = "as_of instead" if table.mode is Mode.SNAPSHOT else "every record is a row of its own"
            found["cursor"] = f'is not for mode "{table.mode}": {instead}'
        found["deletes"] = f'is for mode "upsert", not for "{table.mode}"'
    if table.mode is not Mode.SNAPSHOT:
        found |= dict.fromkeys(_SNAPSHOT_KEYS, f'is for mode "snapshot", not for "{table.mode}"')
        if not table.deletes:
            found["max_deleted"] = "is for feeds with deletes and for snapshots"
    return found
