"""One notice, one receiver: what it is given, and that none can hold anybody up."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from daemons import eventually
from inboxd.config import NotifySettings
from inboxd.outbox.delivery import Delivery, Undelivered
from receivers import Server, program, received, server

NOTICE: Final = '{"id":"1","event":"file_failed"}'
SHORT_S: Final = 0.3
"""A receiver that hangs is given up after this, and not after the time that the test gives it (30 s)."""


@pytest.fixture
def receiver() -> Iterator[Server]:
    """Return a server that takes notices."""
    with server() as found:
        yield found


def by_url(url: str, headers: Path | None = None) -> NotifySettings:
    """Return a receiver at an address."""
    return NotifySettings("it", frozenset(), url=url, headers_file=headers)


def by_exec(*command: str) -> NotifySettings:
    """Return a receiver that is a program."""
    return NotifySettings("it", frozenset(), exec=command)


def test_a_program_gets_the_notice_on_its_standard_input(tmp_path: Path) -> None:
    """A program reads one JSON object, ended by a newline, from its standard input."""
    Delivery().deliver(by_exec(*program(tmp_path)), NOTICE)
    assert received(tmp_path) == [{"id": "1", "event": "file_failed"}]


def test_a_server_gets_the_notice_with_the_headers_of_a_file(receiver: Server, tmp_path: Path) -> None:
    """A server gets the object as the body of a POST, and the secret headers that stand in a file."""
    headers = tmp_path / "headers"
    headers.write_text("# who we are\nAuthorization: Bearer s3cret\n\nX-Team: data\n")
    Delivery().deliver(by_url(receiver.url, headers), NOTICE)
    given, notice = receiver.got[0]
    assert notice == {"id": "1", "event": "file_failed"}
    assert given["Content-Type"] == "application/json"
    assert (given["Authorization"], given["X-Team"]) == ("Bearer s3cret", "data")


@pytest.mark.parametrize("status", [301, 400, 404, 500, 503])
def test_only_a_success_counts(receiver: Server, status: int) -> None:
    """A server that answers anything but a success has not taken the notice; nothing is posted anywhere else."""
    receiver.answer = status
    with pytest.raises(Undelivered, match=str(status)):
        Delivery().deliver(by_url(receiver.url), NOTICE)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (by_exec("/bin/false"), "exit 1"),
        (by_exec("/nowhere/tell"), "No such file"),
        (by_exec("/bin/sh", "-c", "kill -TERM $$"), "signal 15"),
        (by_url("http://127.0.0.1:9/x"), "refused"),
        (by_url("http://127.0.0.1:9/x", Path("/nowhere/headers")), "headers cannot be read"),
        (by_url("https://localhost.invalid/x"), "localhost.invalid"),
        (by_url("http://a..b/x"), "a..b: not HTTP"),
    ],
    ids=["exit", "missing", "killed", "refused", "headers", "name", "label"],
)
def test_why_it_was_not_taken_is_said(one: NotifySettings, said: str) -> None:
    """Whoever reads the log learns why a notice was not taken."""
    with pytest.raises(Undelivered, match=said):
        Delivery().deliver(one, NOTICE)


@pytest.mark.parametrize(
    "line", [b"Authorizaci\xc3\xb3n: Bearer s3cret", b"\xff\xfeA\0: s3cret", b"A B: s3cret", b": s3cret", b"s3cret"]
)
def test_a_header_that_is_none_is_told_by_its_line(receiver: Server, tmp_path: Path, line: bytes) -> None:
    """A name is a token of ASCII; whatever else stands there is no bug of inboxd's, and is not sent."""
    headers = tmp_path / "headers"
    headers.write_bytes(b"X-Team: data\n" + line + b"\n")
    with pytest.raises(Undelivered, match="line 2: not a header") as reason:
        Delivery().deliver(by_url(receiver.url, headers), NOTICE)
    assert "s3cret" not in str(reason.value)


def test_no_secret_is_in_a_reason(receiver: Server, tmp_path: Path) -> None:
    """Neither the address's path nor a header is repeated where a reason is said."""
    headers = tmp_path / "headers"
    headers.write_text("Authorization Bearer s3cret\n")
    receiver.answer = 500
    for one in (by_url(receiver.url), by_url(receiver.url, headers), by_url("http://127.0.0.1:9/s3cret")):
        with pytest.raises(Undelivered) as reason:
            Delivery().deliver(one, NOTICE)
        assert "s3cret" not in str(reason.value)


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """After the time limit nothing of it is left."""
    command = by_exec("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 30 & sleep 30")
    with pytest.raises(Undelivered, match="longer than"):
        Delivery(SHORT_S).deliver(command, NOTICE)
    group = int((tmp_path / "pid").read_text())
    eventually(lambda: not members(group), "its processes to be gone")


def members(group: int) -> list[str]:
    """Return the living processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if of_group == str(group) and state != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "a byte now and then"])
def test_a_server_that_hangs_is_given_up(receiver: Server, *, drips: bool) -> None:
    """The time limit is for all of an answer: a server that sends a byte now and then does not get more of it."""
    receiver.drips = drips
    if not drips:
        receiver.hanging.set()
    with pytest.raises(Undelivered):
        Delivery(SHORT_S).deliver(by_url(receiver.url), NOTICE)
    assert receiver.notices == []


@pytest.mark.parametrize("kind", ["exec", "url"])
def test_a_stop_does_not_wait_for_a_receiver(receiver: Server, tmp_path: Path, kind: str) -> None:
    """A daemon that ends, ends what it is handing over, and hands nothing over afterwards."""
    receiver.hanging.set()
    (tmp_path / "hang").touch()
    one = by_url(receiver.url) if kind == "url" else by_exec(*program(tmp_path))
    delivery = Delivery()
    ended = threading.Event()

    def deliver() -> None:
        with pytest.raises(Undelivered):
            delivery.deliver(one, NOTICE)
        ended.set()

    thread = threading.Thread(target=deliver)
    thread.start()
    eventually(lambda: delivery._child or (delivery._connection and delivery._connection.sock), "a delivery")
    delivery.stop()
    thread.join(10)
    assert ended.is_set()
    with pytest.raises(Undelivered, match="stopping"):
        delivery.deliver(one, NOTICE)


def test_headers_are_never_waited_for(tmp_path: Path) -> None:
    """A pipe in the place of the file would hold up all notices."""
    os.mkfifo(tmp_path / "headers")
    with pytest.raises(Undelivered, match="it is a pipe, not a regular file"):
        Delivery().deliver(by_url("http://127.0.0.1:9/x", tmp_path / "headers"), NOTICE)
