"""What inboxd tells the service manager, read at the other end of a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inboxd.notify import Notifier

DEADLINE_S = 10.0


@contextmanager
def manager_at(address: str) -> Iterator[socket.socket]:
    """Open a service manager's end of the line, bound to ``address`` as the kernel spells it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE_S)
        manager.bind(address)
        yield manager


def test_every_message_arrives_as_one_datagram(tmp_path: Path) -> None:
    """READY, STATUS, RELOADING and STOPPING arrive in the words that systemd knows."""
    address = str(tmp_path / "notify")
    notifier = Notifier(address)
    with manager_at(address) as manager:
        assert notifier.ready("watching /var/lib/inboxd/inbox")
        assert manager.recv(4096) == b"READY=1\nSTATUS=watching /var/lib/inboxd/inbox"
        assert notifier.status("3 files waiting")
        assert manager.recv(4096) == b"STATUS=3 files waiting"
        assert notifier.stopping()
        assert manager.recv(4096) == b"STOPPING=1\nSTATUS=stopping"
        assert notifier.reloading(12.25)
        assert manager.recv(4096) == b"RELOADING=1\nMONOTONIC_USEC=12250000"
        assert notifier.need_time(90)
        assert manager.recv(4096) == b"EXTEND_TIMEOUT_USEC=90000000"
        assert not notifier.silent(30)


def test_a_wait_for_the_disk_lengthens_the_watchdog_and_ends_it_again(tmp_path: Path) -> None:
    """While a COMMIT of gigabytes waits for a slow disk there is nothing to prove progress by, and no need to kill."""
    address = str(tmp_path / "notify")
    notifier = Notifier(address, watchdog_s=60.0)
    with manager_at(address) as manager:
        assert notifier.silent(30)
        assert manager.recv(4096) == b"WATCHDOG=1\nWATCHDOG_USEC=90000000"
        assert notifier.silent(0)
        assert manager.recv(4096) == b"WATCHDOG=1\nWATCHDOG_USEC=60000000"


def test_the_watchdog_is_fed_four_times_a_period_however_often_there_is_progress(tmp_path: Path) -> None:
    """A call for each window of a large file costs nothing: only what is due is sent."""
    address = str(tmp_path / "notify")
    notifier = Notifier(address, watchdog_s=60.0)
    assert notifier.feed_every_s == 15.0
    with manager_at(address) as manager:
        sent = [second for second in range(1000, 1060) if notifier.watchdog(float(second))]
        assert sent == [1000, 1015, 1030, 1045]
        assert [manager.recv(4096) for _ in sent] == [b"WATCHDOG=1"] * 4
    assert not Notifier(address, watchdog_s=None).watchdog(5.0)


def test_a_socket_in_the_abstract_namespace_is_reached() -> None:
    """``@name`` is a socket without a path, as in ``systemd-notify`` under some container managers."""
    name = f"inboxd-test-{os.getpid()}"
    with manager_at(f"\0{name}") as manager:
        assert Notifier(f"@{name}").status("bye")
        assert manager.recv(4096) == b"STATUS=bye"


def test_a_status_cannot_smuggle_in_another_assignment(tmp_path: Path) -> None:
    """A file name with a line break in it stays inside STATUS."""
    address = str(tmp_path / "notify")
    with manager_at(address) as manager:
        assert Notifier(address).status("loading a\nSTOPPING=1\n.json \udcff")
        assert manager.recv(4096) == b"STATUS=loading a STOPPING=1 .json ?"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_manager_nothing_is_sent_and_nothing_fails(environ: dict[str, str]) -> None:
    """On a terminal there is nobody to tell."""
    notifier = Notifier.from_environment(environ, os.getpid())
    assert notifier == Notifier(None, None)
    assert not notifier.ready("watching")


def test_a_manager_that_is_gone_or_deaf_does_not_stop_the_work(tmp_path: Path) -> None:
    """A socket that is missing, and one whose queue is full and never read, both only answer "not handed over"."""
    assert not Notifier(str(tmp_path / "missing")).status("here")
    address = str(tmp_path / "deaf")
    with manager_at(address):
        notifier = Notifier(address)
        sent = 0
        while notifier.status(
            "here"
        ):  # ends by itself: the kernel queues net.unix.max_dgram_qlen datagrams and no more
            sent += 1
            assert sent < 100_000


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "42"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_the_one_set_for_this_process(environ: dict[str, str], expected: float | None) -> None:
    """A watchdog meant for another process, or a period that is no number, is no watchdog."""
    assert Notifier.from_environment(environ, pid=42).watchdog_s == expected


def test_a_manager_that_does_not_listen_holds_nothing_up(tmp_path: Path) -> None:
    """A status that cannot be handed over at once is dropped: files do not wait for the service manager."""
    address = str(tmp_path / "notify")
    with manager_at(address) as manager:
        notifier = Notifier(address)
        sent = 0
        while notifier.status(f"{sent} files"):
            sent += 1
            assert sent < 100_000, "the queue has no end"
        assert manager.recv(4096) == b"STATUS=0 files"
        assert notifier.status("room again")
