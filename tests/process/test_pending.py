"""Files that wait: what is kept of them."""

from __future__ import annotations

import gc
import os
import weakref

from inboxd.errors import TransientFault
from inboxd.inbox.claim import Claim
from inboxd.pending import PendingFile


class Window:
    """Stands for megabytes of a file."""


def attempt(seen: list[weakref.ref[Window]]) -> None:
    """Fail with a window of the file in hand, on top of another error."""
    window = Window()
    seen.append(weakref.ref(window))
    try:
        os.listdir("/nowhere")
    except OSError as error:
        raise TransientFault("disk_full", f"{window} could not be written", "free space") from error


def test_a_file_that_waits_keeps_why_but_not_its_data() -> None:
    """A thousand files that a full disk holds up must not hold a window of each in memory."""
    seen: list[weakref.ref[Window]] = []
    pending = PendingFile(
        Claim("id", "a.json", "/inbox/.claimed/id/a.json", size=1, mtime_ns=1, dev=1, ino=1),
        "events",
        since="2026-01-01T00:00:00.000000Z",
    )
    try:
        attempt(seen)
    except TransientFault as fault:
        pending.keep_fault(fault)
    gc.collect()
    assert pending.fault is not None
    assert pending.fault.code == "disk_full"
    assert seen[0]() is None
