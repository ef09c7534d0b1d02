"""The folders that a daemon works in: made, held apart from each other, and owned."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from inboxd.config import STATE_FILE, Settings
from inboxd.errors import EXIT_CONFIG, EXIT_NOPERM, OperatorFault, TransientFault
from inboxd.inbox.claim import CLAIMED_REFUSED
from inboxd.inbox.claim import prepare as prepare_claimed
from inboxd.inbox.names import CLAIMED
from inboxd.inbox.tree import Folder, is_within, make_root
from inboxd.inbox.walk import is_an_inbox
from inboxd.locks import ArchiveLock


def make_folders(settings: Settings) -> None:
    """Make the inbox, and the folders of the archive and the database, where there are none, and durable.

    Raises ``OperatorFault`` (77).
    """
    folders = [settings.inbox.path, settings.archive.processed, settings.archive.failed]
    if not settings.database.is_postgres:
        folders.append(settings.database.sqlite_path.parent)
    for folder in folders:
        try:
            if not folder.is_dir():
                make_root(folder)
        except OSError as error:
            msg = f"cannot make the folder {folder}: {error.strerror}"
            hint = "make it, and give it to the user that inboxd runs as"
            raise OperatorFault("permission_denied", msg, hint, exit_code=EXIT_NOPERM) from error


def hold_apart(settings: Settings) -> None:
    """Refuse folders that are one, or lie in each other, whatever their paths say; and a ``.claimed`` not ours."""
    inbox, archive = settings.inbox.path, settings.archive
    folders = {"archive.processed": archive.processed, "archive.failed": archive.failed}
    files = {"log.file": settings.log.file}
    if not settings.database.is_postgres:
        files["database.url"] = settings.database.sqlite_path
    places = {name: Path(os.path.realpath(file)).parent for name, file in files.items() if file is not None}
    pairs = [(name, place, "inbox.path", inbox) for name, place in (folders | places).items()]
    pairs += [(name, place, kind, folder) for name, place in places.items() for kind, folder in folders.items()]
    pairs += [("inbox.path", inbox, name, folder) for name, folder in folders.items()]
    pairs += [("archive.failed", archive.failed, "archive.processed", archive.processed)]
    try:
        found = next((pair for pair in pairs if pair[1].is_dir() and is_within(pair[1], pair[3])), None)
        prepare_claimed(os.fspath(inbox))
    except OSError as error:
        hint = "let inboxd's user search it and what leads to it"
        raise OperatorFault(
            "permission_denied", f"cannot look at the folders: {error}", hint, exit_code=EXIT_NOPERM
        ) from error
    except TransientFault as fault:
        if fault.code == CLAIMED_REFUSED:
            raise OperatorFault(fault.code, fault.message, fault.hint, exit_code=EXIT_NOPERM) from fault
        found = None  # a full disk, say: files wait for it
    outer = _inbox_around(inbox)
    if outer is not None:
        msg = f"inbox.path ({inbox}) is in {outer}, the inbox of another inboxd: it would take the same files"
        hint = f"give each an inbox of its own; if nothing watches {outer} any more, remove {outer / CLAIMED}"
        raise OperatorFault("folders_overlap", msg, hint, exit_code=EXIT_CONFIG)
    if found is not None:
        msg = f"{found[0]} ({found[1]}) is in {found[2]} ({found[3]}), or is the same folder, whatever their paths say"
        raise OperatorFault("folders_overlap", msg, "give each a folder of its own", exit_code=EXIT_CONFIG)


def _inbox_around(inbox: Path) -> Path | None:
    """Return the inbox that an inbox is in."""
    for above in Path(os.path.realpath(inbox)).parents:
        with suppress(OSError), Folder.root(above) as folder:
            if is_an_inbox(folder):
                return above
    return None


def own_archive(settings: Settings, database: str) -> ArchiveLock:
    """Own the archive and the state file for a database (its ``Store.identity``); raises ``OperatorFault`` (75)."""
    folders = (settings.archive.processed, settings.archive.failed, state_file(settings).parent)
    return ArchiveLock.take(folders, database, around=_archives_around(folders[:2]))


def _archives_around(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the folders above, beside which an inboxd of this user or of root has its state file.

    Of all folders above these alone may be another archive's: whoever may only read a folder can lock it, too.
    """
    for folder in folders:
        for above in Path(os.path.realpath(folder)).parents:
            with suppress(OSError):
                found = (above.parent / STATE_FILE).lstat()
                if stat.S_ISREG(found.st_mode) and found.st_uid in {0, os.geteuid()}:
                    yield above


def state_file(settings: Settings) -> Path:
    """Return where the daemon says what it is doing: beside the folder of processed files."""
    return settings.archive.state_file
