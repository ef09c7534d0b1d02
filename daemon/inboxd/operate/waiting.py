"""What waits in the inbox, seen on the disk: exact whether a daemon is running or not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inboxd.config import ArchiveSettings, InboxSettings, match_feed
from inboxd.errors import TransientFault
from inboxd.inbox.faults import GONE, transient_fault
from inboxd.inbox.left import claims
from inboxd.inbox.names import spellings
from inboxd.inbox.notices import Once
from inboxd.inbox.tree import Folder
from inboxd.inbox.walk import Sieve, Walk
from inboxd.model import Feed, printable
from inboxd.presence import LeftAlone, UnfinishedFile


@dataclass(frozen=True, slots=True)
class WaitingFile:
    """A file in the inbox. ``age_s`` is the time (seconds) since it arrived there, or was changed since."""

    file: str
    feed: str
    size: int
    age_s: float


@dataclass(frozen=True, slots=True)
class InboxContent:
    """The inbox as it lies on the disk. The counts are exact, the lists are bounded; the oldest file comes first."""

    waiting: int
    size: int
    oldest_age_s: float | None
    files: list[WaitingFile]
    claimed: int
    ignored: int
    ignored_names: list[LeftAlone]


def inbox_content(settings: InboxSettings, archive: ArchiveSettings, feeds: Sequence[Feed], limit: int) -> InboxContent:
    """Walk the inbox; raises ``TransientFault`` if it cannot be listed."""

    def feed_name(name: str) -> str | None:
        feed = match_feed(feeds, name)
        return feed.name if feed else None

    once = Once()
    foreign = (str(archive.processed), str(archive.failed))
    walk = Walk(Sieve.of(feed_name, settings.ignore, settings.suffixes), once, foreign)
    now = time.time()
    count = size = 0
    files: list[WaitingFile] = []
    try:
        with _opened(settings) as inbox:
            for found in walk.below(inbox):
                count += 1
                size += found.size
                age_s = round(max(now - found.ctime_ns / 1e9, 0.0), 3)
                files.append(WaitingFile(printable(found.name), found.feed, found.size, age_s))
                if len(files) > 4 * limit:
                    files = _oldest(files, limit)
    except OSError as error:
        raise transient_fault(error, f"listing the inbox {settings.path}", settings.path) from error
    files = _oldest(files, limit)
    left_alone = [LeftAlone(printable(notice.name), notice.reason) for notice in once.take()]
    return InboxContent(
        waiting=count,
        size=size,
        oldest_age_s=files[0].age_s if files else None,
        files=files,
        claimed=_claimed(settings),
        ignored=walk.left_alone,
        ignored_names=left_alone[:limit],
    )


def _opened(settings: InboxSettings) -> Folder:
    try:
        return Folder.root(settings.path)
    except FileNotFoundError as error:
        hint = "inboxd run makes it; if it was there before, put it back or mount it again"
        raise TransientFault(GONE, f"the inbox {settings.path} is not there", hint) from error


def still_waiting(settings: InboxSettings, listed: Iterable[UnfinishedFile]) -> set[str]:
    """Return the names, of those that a daemon told of a moment ago, that are still in the inbox or claimed."""
    names = {one.file for one in listed}
    if not names:
        return names
    try:
        claimed = {printable(claim.name) for claim in claims(os.fspath(settings.path))}
        with Folder.root(settings.path) as inbox:
            return {name for name in names if name in claimed or any(_has(inbox, found) for found in spellings(name))}
    except (OSError, TransientFault):
        return names  # it cannot be looked at from here


def _has(inbox: Folder, name: str) -> bool:
    below, _, base = name.rpartition("/")
    try:
        with inbox.reach(below) as folder:
            return folder.has(base)
    except OSError:
        return False


def _oldest(files: list[WaitingFile], limit: int) -> list[WaitingFile]:
    return sorted(files, key=lambda file: (-file.age_s, file.file))[:limit]


def _claimed(settings: InboxSettings) -> int:
    """Count the files that are claimed: being loaded, deferred, or left by a crash."""
    try:
        return sum(1 for _ in claims(os.fspath(settings.path)))
    except TransientFault:
        return 0  # it is not inboxd's own: `doctor` says so
