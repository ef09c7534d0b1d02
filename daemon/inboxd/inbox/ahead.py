"""The contents of claimed files, made durable by another thread while the files before them are worked on.

What is to be waited for in turn is the COMMIT alone; where a sync takes milliseconds that halves what a file takes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial

from inboxd.inbox.claim import Claim
from inboxd.inbox.tree import sync

Found = list[os.stat_result | OSError]
"""For each file in turn what a look at it said just before it was made durable, or why it could not be."""


def sync_ahead(disk: Executor, claims: Sequence[Claim]) -> None:
    """Let a thread make the contents of files durable. One that cannot be opened is left to whoever reads it."""
    fds: list[int] = []
    found: Found = []
    for claim in claims:
        with suppress(OSError):
            fds.append(claim.folder.open(claim.file, os.O_RDONLY | os.O_NONBLOCK))
            claim.ahead = partial(_look, found, len(fds) - 1)
    try:
        disk.submit(_make_durable, fds, found)
    except RuntimeError:  # no thread can be started
        _close(fds)


def _make_durable(fds: Sequence[int], found: Found) -> None:
    for fd in fds:
        try:
            look = os.fstat(fd)
            sync(fd)
        except OSError as error:
            found.append(error)
        else:
            found.append(look)
    _close(fds)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _look(found: Found, place: int) -> os.stat_result | None:
    """Return the look at a file that is durable since; ``None`` if the thread is not that far: it is not waited for."""
    if place >= len(found):
        return None
    look = found[place]
    if isinstance(look, OSError):
        raise look
    return look
