"""What ``.claimed`` holds: files in work, and what daemons that died have left of theirs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from inboxd.errors import TransientFault
from inboxd.inbox.claim import Claim, open_claimed, split_logged
from inboxd.inbox.faults import transient_fault
from inboxd.inbox.names import CLAIMED
from inboxd.inbox.tree import Folder, is_regular, walk


def claims(root: str) -> Iterator[Claim]:
    """Yield the files that ``.claimed`` holds, in the order in which they were claimed.

    Raises ``TransientFault`` if it cannot be listed, or is not ours.
    """
    try:
        with Folder.root(root) as inbox, open_claimed(inbox) as claimed:
            for own in claimed.names():
                for path, entry in walk(claimed, start=own, skip=_is_hidden):
                    claim = _claim_of(root, own, path, entry)
                    if claim is not None:
                        yield claim
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_listed(error, root) from error


def _is_hidden(name: str) -> bool:
    """Tell whether a name in a claim's folder is none of a sender's: a copy that a crash left unfinished."""
    return name.startswith(".")


def _claim_of(root: str, own: str, path: str, entry: os.DirEntry[str]) -> Claim | None:
    name = path[len(own) + 1 :]
    claim_id, logged = split_logged(own)
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None  # its daemon is alive and done with it
    return Claim(claim_id, root, name, logged=logged).found(found) if name and is_regular(found) else None


def without_line(root: str, *, ours: Callable[[str], bool] = lambda _id: True) -> Iterator[str]:
    """Yield the names of claims' folders that are empty, and remove them: the file was moved, or never came.

    A crash came after the move. ``split_logged`` tells whether that was before its verdict was in the log. On a shared
    inbox another daemon may be just there: ``ours`` leaves its folders alone, and raises ``FileNotFoundError`` for one
    that is gone by now.
    """
    try:
        with Folder.root(root) as inbox, open_claimed(inbox) as claimed:
            for own in claimed.names():
                with contextlib.suppress(FileNotFoundError):
                    folders = _empty(claimed, own)
                    if folders and ours(own):
                        yield own
                        _clear(claimed, folders)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_listed(error, root) from error


def _empty(claimed: Folder, claim_id: str) -> list[str]:
    """Return a claim's folders, outer ones first, if there is nothing else in it."""
    folders: list[str] = []
    shut: list[str] = []

    def enter(path: str, _folder: Folder) -> bool:
        folders.append(path)
        return True

    def closed(path: str, _error: OSError) -> None:
        shut.append(path)

    holds = any(True for _ in walk(claimed, start=claim_id, enter=enter, skip=_is_hidden, closed=closed))
    return [] if holds or shut else folders


def _clear(claimed: Folder, folders: list[str]) -> None:
    """Remove a claim's folders, and what a crash left in them of a copy."""
    for below in reversed(folders):
        with claimed.reach(below) as folder:
            for name in filter(_is_hidden, folder.names()):
                with contextlib.suppress(OSError):
                    folder.unlink(name)
        claimed.remove_empty(below)


def looked_at(root: str, own: str) -> os.stat_result:
    """Look at a claim's folder; raises ``OSError``, or ``TransientFault`` if ``.claimed`` is not ours."""
    with Folder.root(root) as inbox, open_claimed(inbox) as claimed, claimed.into(own) as folder:
        return folder.itself()


def is_kept(root: str) -> bool:
    """Tell whether the inbox, and ``.claimed`` in it, is there."""
    try:
        with Folder.root(root) as inbox:
            return inbox.has(CLAIMED)
    except OSError:
        return False


def _not_listed(error: OSError, root: str) -> TransientFault:
    return transient_fault(error, "listing what is claimed", f"{root}/{CLAIMED}")
