"""``inboxd audit``: each feed's table derived anew from the archived files, and compared with what is there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from inboxd.audit.archive import Archive
from inboxd.audit.check import Kept
from inboxd.audit.compare import compare
from inboxd.audit.derive import Derivation
from inboxd.audit.ledger import Ledger
from inboxd.audit.report import Report, TableReport
from inboxd.audit.scratch import Scratch
from inboxd.config import ArchiveSettings
from inboxd.model import Feed
from inboxd.store.database import Store


def audit(
    store: Store,
    feeds: Sequence[Feed],
    inbox: Path,
    archive: ArchiveSettings,
    kept: Kept,
    *,
    table: str | None = None,
    since: int = 0,
    progress: Callable[[int], None] = lambda _records: None,
) -> Report:
    """Audit all tables, or one. Runs below commit number ``since`` are taken as they are; ``progress`` counts records.

    What was derived lies in a scratch folder (``$TMPDIR``) until the end. Raises ``TransientFault`` when the database
    cannot be asked.
    """
    groups: dict[str, list[Feed]] = {}
    for feed in feeds:
        groups.setdefault(feed.table, []).append(feed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inboxd-audit-")))
        files = stack.enter_context(closing(Archive([archive.processed, archive.failed], inbox, folder)))
        chosen = [group for name, group in groups.items() if table in {None, name}]
        return Report([_audit_table(store, group, files, folder, kept, since, progress) for group in chosen])


def _audit_table(
    store: Store,
    feeds: Sequence[Feed],
    archive: Archive,
    folder: Path,
    kept: Kept,
    since: int,
    progress: Callable[[int], None],
) -> TableReport:
    """Derive one table while the database works on, then go through what came meanwhile and compare, on one view."""
    while True:
        ledger = Ledger(store)
        report = TableReport(feeds[0].table, [feed.name for feed in feeds])
        history = ledger.has_undo(feeds)
        with closing(Scratch(folder, history=history)) as scratch:
            derivation = Derivation(feeds, ledger, archive, scratch, report, kept)
            derivation.go_on(since, progress)
            with store.reading() as connection:
                ledger.hold(connection)
                if ledger.has_undo(feeds) and not history:
                    continue  # older versions of rows were not kept for it
                derivation.go_on(since, progress)
                compare(feeds, ledger, scratch, report, kept, derivation.doubtful)
        return report


def records_of(store: Store, feeds: Sequence[Feed], table: str | None) -> int:
    """Return how many records there are to go through."""
    ledger = Ledger(store)
    tables = {feed.table for feed in feeds if table in {None, feed.table}}
    return sum(ledger.size([feed for feed in feeds if feed.table == name]) for name in tables)
