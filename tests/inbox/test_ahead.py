"""Contents made durable ahead: what that saves, and that nothing is taken for durable that is not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from folders import Bench, read_all
from inboxd.errors import TransientFault
from inboxd.inbox.ahead import sync_ahead
from inboxd.inbox.claim import Claim

P = ParamSpec("P")
T = TypeVar("T")


class Later(Executor):
    """A thread that is not started yet."""

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do nothing with the work."""
        del work, args, kwargs
        return Future()


class Exhausted(Executor):
    """A machine on which no thread can be started."""

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Refuse the work."""
        raise RuntimeError("can't start new thread")


@pytest.fixture
def claims(tmp_path: Path) -> list[Claim]:
    """Return two claimed files."""
    bench = Bench(tmp_path)
    return [bench.claim("a.json", b"[1]"), bench.claim("b.json", b"[2]")]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the inodes that are synced, in order."""
    inodes: list[int] = []

    def fsync(fd: int) -> None:
        inodes.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    return inodes


def ahead(claims: list[Claim]) -> None:
    """Make contents durable ahead, and wait for that."""
    with ThreadPoolExecutor(1) as disk:
        sync_ahead(disk, claims)


def test_content_that_is_durable_is_not_synced_again(claims: list[Claim], synced: list[int]) -> None:
    """A file's content is synced once, by the thread; the next attempt at it syncs for itself."""
    ahead(claims)
    for claim in claims:
        assert read_all(claim)
    assert synced == [claim.ino for claim in claims]
    assert read_all(claims[0])
    assert len(synced) == 3


@pytest.mark.parametrize("disk", [Later(), Exhausted()])
def test_nobody_waits_for_a_thread(claims: list[Claim], synced: list[int], disk: Executor) -> None:
    """Where the thread is not that far, or cannot be started, whoever reads the file makes it durable."""
    sync_ahead(disk, claims)
    for claim in claims:
        assert read_all(claim)
    assert synced == [claim.ino for claim in claims]


def test_content_that_changed_since_is_synced_again(claims: list[Claim], synced: list[int]) -> None:
    """What counts as durable is what was there when the sync began: later content is synced, too."""
    ahead(claims[:1])
    os.utime(claims[0].path, ns=(1, 1))
    assert read_all(claims[0])
    assert synced == [claims[0].ino] * 2


def test_a_sync_that_failed_makes_the_file_wait(claims: list[Claim], monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk says so only once: it is not asked again until the file's next attempt."""

    def fails(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        ahead(claims[:1])
    with pytest.raises(TransientFault) as caught:
        read_all(claims[0])
    assert caught.value.code == "io_error"
    assert read_all(claims[0])
