"""The page's thread: it comes and goes with the daemon, and no client can hold it up or outnumber it."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from daemons import eventually
from inboxd.clock import stamp
from inboxd.config import Settings, load_settings
from inboxd.errors import EXIT_UNAVAILABLE, OperatorFault
from inboxd.log import open_log
from inboxd.outcomes import Counts, Outcome, RunStart, Verdict
from inboxd.presence import DaemonState, Published, UnfinishedFile
from inboxd.store import open_store
from inboxd.store.base import RunEnd
from inboxd.web import door, live, protocol, reader, serve
from inboxd.web.address import Address, AddressError, host_of
from inboxd.web.guard import Pace
from inboxd.web.views import Overview, overview


@dataclass(slots=True)
class Served:
    """A page that is served inside this process."""

    host: str
    port: int
    published: Published
    """What the page sees of a daemon."""
    count: Callable[[Verdict], None]
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body."""
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=20)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def connect(self) -> socket.socket:
        """Return a connection on which nothing was said yet."""
        return socket.create_connection((self.host, self.port), timeout=20)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of a folder with a database in it."""
    settings = load_settings(None, {}, tmp_path)
    (tmp_path / "data").mkdir()
    with open_store(settings.database.url) as store:
        store.upgrade()
        store.prepare(settings.feeds)
    return settings


@contextmanager
def served(settings: Settings, listen: str = "127.0.0.1:0") -> Iterator[Served]:
    """Serve a page for as long as the block lasts."""
    out = settings.log.file or Path("unset")
    log = open_log(fmt="json", level="info", file=out, out=None)
    published = Published(settings)
    with serve(listen, published, log) as server:
        address = urlsplit(server.url)
        yield Served(address.hostname or "", address.port or 0, published, server.count, out)


@pytest.fixture
def page(settings: Settings) -> Iterator[Served]:
    """Return a page that is served."""
    with served(settings) as one:
        yield one


def _streams(connection: socket.socket) -> bool:
    return b"retry" in connection.recv(4096)


def _is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(4096) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_it_comes_and_goes_without_a_trace(settings: Settings) -> None:
    """A page can be served, ended and served again; the port is free, and no thread is left."""
    with served(settings) as one:
        assert one.get("/healthz")[0] == 200
        port = one.port
    with served(settings, f"127.0.0.1:{port}") as again:
        assert again.get("/healthz")[0] == 200
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))


def test_the_log_says_where_it_is(settings: Settings) -> None:
    """http_started has the address with the port that was free; a taken one is refused, and may be free later (69)."""
    with served(settings) as one:
        line = json.loads(one.log.read_text())
        assert (line["event"], line["address"]) == ("http_started", f"http://127.0.0.1:{one.port}/")
        with pytest.raises(OperatorFault, match="in use") as taken, served(settings, f"127.0.0.1:{one.port}"):
            pass
        assert taken.value.exit_code == EXIT_UNAVAILABLE


def test_an_open_stream_does_not_hold_up_a_stop(settings: Settings) -> None:
    """The daemon stops in an orderly way while browsers are connected."""
    with ExitStack() as stack:
        with served(settings) as one:
            connections = [stack.enter_context(closing(one.connect())) for _ in range(3)]
            for connection in connections:
                connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for connection in connections:
                eventually(partial(_streams, connection), "the stream")
            stack.enter_context(closing(one.connect()))  # and one that never says anything
        for connection in connections:
            eventually(partial(_is_closed, connection), "closed")


def test_a_stream_tells_what_is_new(page: Served) -> None:
    """A change in the ledger or in what waits is told to every open stream."""
    with closing(page.connect()) as connection:
        versions = _hear(connection)
        before = eventually(lambda: versions() if versions() >= 2 else None, "the first versions")
        page.published.state = _state(
            deferred=[UnfinishedFile(file="a.json", code="disk_full", since="2026-01-01T00:00:00.000000Z")]
        )
        eventually(lambda: versions() > before, "news")


def test_a_config_loaded_anew_is_news(page: Served, tmp_path: Path) -> None:
    """An open page is told of a reload; feeds and folders are at once those of the new config, in numbers too."""
    text = '[archive]\nprocessed = "elsewhere/done"\n[feeds.orders]\nkey = ["id"]\ncursor = "n"\n'
    text += '[feeds.orders.fields]\nid = { type = "text" }\nn = { type = "integer" }\n'
    (tmp_path / "inboxd.toml").write_text(text)
    settings = load_settings(tmp_path / "inboxd.toml", {}, tmp_path)
    with closing(page.connect()) as connection:
        heard = _hear(connection)
        before = eventually(lambda: heard() if heard() >= 2 else None, "the first versions")
        assert page.get("/records/orders?key=a")[1].count("There is no such feed") == 1
        page.published.settings = settings
        eventually(lambda: heard() > before, "news")
    assert ">orders</a></th>" in page.get("/")[1]
    assert "Nothing is known of this key" in page.get("/records/orders?key=a")[1]
    assert 'inboxd_files_total{feed="orders",outcome="loaded"} 0.0' in page.get("/metrics")[1]
    message = f"cannot write {tmp_path}/elsewhere/done/a b.json"
    since = "2026-01-01T00:00:00.000000Z"
    page.published.state = _state(deferred=[UnfinishedFile("a b.json", "disk_full", since, message)])
    assert "elsewhere" not in eventually(
        lambda: body if "disk_full" in (body := page.get("/")[1]) else None, "the file"
    )


def test_the_first_look_is_prepared_once_the_daemon_is_ready(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before, so that it holds up no start; on every connection, so that it is there whichever answers."""
    asked: list[str] = []

    def prepared(*values: Any) -> Overview:  # Any: handed on as they are
        asked.append(threading.current_thread().name)
        return overview(*values)

    monkeypatch.setattr("inboxd.web.warm.overview", prepared)
    assert page.get("/healthz")[0] == 200
    assert asked == []
    page.published.state = _state()
    eventually(lambda: len(asked) == reader.THREADS, "every thread was asked")
    assert len(set(asked)) == reader.THREADS


def test_several_hosts_are_shown_with_what_they_work_at(page: Served, settings: Settings) -> None:
    """With more than one host there is a table of them: what each did, when, and which files it has in hand."""
    assert 'id="hosts"' not in page.get("/")[1]
    now = stamp(datetime.now(UTC))
    with open_store(settings.database.url) as store:
        for number, host in enumerate(["alpha", "beta", "beta", "<i>"]):
            run = store.begin(RunStart("events", now, host, f"{host}-{number}.json", 2, f"claim-{number}"))
            if host == "alpha":
                failed = Verdict(Outcome.FAILED, run, "events", "a.json", error_code="invalid_json", error="no")
                store.fail(run, RunEnd(failed, now))
    body = eventually(lambda: body if 'id="hosts"' in (body := page.get("/")[1]) else None, "the hosts")
    table = body[body.index('id="hosts"') :]
    found = re.findall('<tr id="host-.*?</tr>', table, re.DOTALL)
    rows = [" ".join(re.sub("<[^>]+>", " ", row).split()) for row in found]
    clock = now[11:19]
    rows = [re.sub(r"for \d+ s", "for a moment", row) for row in rows]
    assert rows == [
        f"&lt;i&gt; {clock} 0 0 &lt;i&gt;-3.json for a moment",
        f"alpha {clock} 0 1 nothing",
        f"beta {clock} 0 0 beta-2.json for a moment beta-1.json for a moment",
    ]


def test_streams_are_bounded(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """More streams than there is room for are refused, and the page itself is still answered."""
    monkeypatch.setattr(live, "MAX_STREAMS", 2)
    with ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(closing(page.connect()))
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(partial(_streams, connection), "the stream")
        assert page.get("/events")[0] == 503
        assert page.get("/")[0] == 200


def test_silent_and_slow_clients_are_let_go(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and says nothing, or half a request a byte at a time, is let go, and the next one is answered."""
    monkeypatch.setattr(protocol, "SILENCE_S", 0.3)
    monkeypatch.setattr(protocol, "CHECK_EVERY_S", 0.05)
    with ExitStack() as stack:
        silent = [stack.enter_context(closing(page.connect())) for _ in range(10)]
        drips = stack.enter_context(closing(page.connect()))
        drips.sendall(b"GET / HTTP/1.1\r\nHost: loc")

        def gone() -> bool:
            try:
                drips.send(b"a")
            except OSError:
                return True
            return _is_closed(drips)

        eventually(gone, "the slow one was let go")
        for connection in silent:
            eventually(partial(_is_closed, connection), "a silent one was let go")
    assert page.get("/")[0] == 200


def test_who_does_not_take_the_answer_is_let_go(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks much and reads nothing does not keep the answers waiting for ever."""
    monkeypatch.setattr(protocol, "STUCK_S", 0.3)
    monkeypatch.setattr(protocol, "CHECK_EVERY_S", 0.05)
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((page.host, page.port))
        connection.settimeout(0.05)
        request = b"GET /static/page.css HTTP/1.1\r\nHost: localhost\r\n\r\n"

        def refused() -> bool:
            try:
                connection.send(request * 50)
            except TimeoutError:
                return False
            except OSError:
                return True
            return False

        eventually(refused, "the greedy one was let go")
    assert page.get("/")[0] == 200


def test_connections_are_bounded(page: Served, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """There are so many places and no more: who says nothing gives up his to the next one."""
    monkeypatch.setattr(door, "places", lambda: 5)
    with served(settings) as small, ExitStack() as stack:
        open_ones = [stack.enter_context(closing(small.connect())) for _ in range(20)]
        eventually(lambda: sum(_is_closed(connection) for connection in open_ones) >= 15, "15 of 20 closed")
        assert not any(_is_closed(connection) for connection in open_ones[-5:])
        assert _answers(small)


def test_probes_are_answered_whatever_else_is_asked(page: Served) -> None:
    """Silent, half-spoken and busy connections, as many as there is room for and more, cost a probe nothing."""
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(page.connect())) for _ in range(16)]
        assert all(_hear(stream)() >= 0 for stream in streams)
        for number in range(300):
            connection = stack.enter_context(closing(page.connect()))
            with suppress(OSError):  # let go of already
                if number % 3 == 0:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: loc")
                elif number % 3 == 1:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        page.published.state = _state()
        for path in ("/healthz", "/readyz", "/metrics") * 5:
            assert page.get(path)[0] == 200


@dataclass(eq=False)
class Guest:
    """A connection as the door sees it."""

    since: float
    has_spoken: bool = False
    has_unread: bool = False
    is_answered: bool = False
    is_leaving: bool = False

    def dismiss(self) -> None:
        """Go."""
        self.is_leaving = True


def test_who_has_asked_keeps_his_place_however_slow_the_page_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a request may lie unread for long: its connection is not taken for a silent one."""
    monkeypatch.setattr(door, "places", lambda: 4)

    async def who_goes(*guests: Guest) -> list[Guest]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            there = door.Door(listener, asyncio.Protocol, set(guests))
            found = there._has_place()
            gone = [guest for guest in guests if guest.is_leaving]
            assert found == bool(gone)
            return gone

    long_ago = -60.0
    unread, answered = Guest(long_ago, has_unread=True), Guest(long_ago, is_answered=True)
    half, silent = Guest(long_ago, has_spoken=True), Guest(long_ago)
    assert asyncio.run(who_goes(unread, answered, half, silent)) == [silent]
    assert asyncio.run(who_goes(unread, answered, half, Guest(long_ago, has_unread=True))) == [half]
    newcomer = Guest(float("inf"))
    assert asyncio.run(who_goes(unread, answered, newcomer, Guest(long_ago, has_unread=True))) == []


def test_probes_are_answered_while_the_database_is_asked_for_something_long(
    page: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that takes its time does not make a ready daemon look as if it were not."""
    asked, go_on = threading.Event(), threading.Event()

    def long(*_: object, **__: object) -> None:
        asked.set()
        go_on.wait(60)

    page.published.state = _state()
    monkeypatch.setattr("inboxd.web.app.runs_page", long)
    with ExitStack() as stack:
        stack.callback(go_on.set)
        for number in range(4):
            connection = stack.enter_context(closing(page.connect()))
            connection.sendall(f"GET /runs?before={number + 1} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        asked.wait(60)
        assert page.get("/readyz")[0] == 200
        assert "inboxd_build_info" in page.get("/metrics")[1]


def test_more_requests_than_are_worked_on_are_told_to_come_again(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is busy says so at once."""
    monkeypatch.setattr("inboxd.web.guard.MAX_REQUESTS", 1)
    with closing(page.connect()) as stream:
        eventually(lambda: _hear(stream)() or True)
        eventually(lambda: page.get("/")[0] == 503, "the page is busy")
        assert page.get("/healthz")[0] == 200
    eventually(lambda: page.get("/")[0] == 200, "room again")


def _answers(page: Served) -> bool:
    try:
        return page.get("/healthz")[0] == 200
    except OSError:
        return False


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=[
        "nonsense",
        "no host",
        "two hosts",
        "large head",
        "long target",
        "body",
        "chunks",
        "absolute",
        "connect",
        "tls",
    ],
)
def test_what_is_no_plain_request_is_refused(page: Served, request_bytes: bytes) -> None:
    """Malformed and oversized requests are refused with 4xx or by closing, and the next one is answered."""
    with closing(page.connect()) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := connection.recv(65_536):
                answer += part
        except ConnectionError:
            pass
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert page.get("/healthz")[0] == 200


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["alone", "behind"])
@pytest.mark.parametrize("size", [17_000, 100_000, 200_000])
def test_a_large_head_is_refused_however_it_arrives(page: Served, before: bytes, size: int) -> None:
    """The limit of 16 KiB holds for a head that is there as a whole, and for one behind another request."""
    with closing(page.connect()) as connection:
        answer = b""
        with suppress(OSError):  # refused in the middle of it
            connection.sendall(before + b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * size + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                answer += part
    assert b"<html" not in answer
    assert answer.count(b"HTTP/1.1 200") == bool(before) or not answer


def test_a_daemon_that_makes_no_progress_is_not_alive(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """/healthz answers 503 once the loop has proved no life for a minute, and /readyz while the inbox is gone."""
    page.published.state = _state()
    page.published.inbox_lost = True
    status, body = page.get("/readyz")
    assert (status, json.loads(body)["checks"]) == (503, {"inbox": "lost", "database": "ok"})
    assert page.get("/healthz")[0] == 200
    monkeypatch.setattr("inboxd.web.app.ALIVE_S", -1.0)
    assert page.get("/healthz")[0] == 503


def test_what_waits_is_shown_with_its_reason(page: Served) -> None:
    """Deferred and settling files are on the page, with why, for how long and when they are tried again; no folders."""
    message = f"cannot write {Path.home()}/data/x y/inboxd.db and postgresql://me:secret@db/x"
    since = "2026-01-01T00:00:00.000000Z"
    page.published.state = _state(
        deferred=[UnfinishedFile("<i>.json", "disk_full", since, message, 3, "2026-01-01T00:01:00.000000Z", "events")],
        unsettled=[UnfinishedFile("slow.json", "settling", since, "open for writing")],
    )
    _, body = page.get("/")
    assert "&lt;i&gt;.json" in body
    assert "<i>" not in body.replace('<i class="', "")
    assert "disk_full" in body
    assert "attempt 4" in body
    assert "open for writing" in body
    assert "secret" not in body
    assert str(Path.home()) + "/" not in body
    assert "inboxd_deferred_files 1.0" in page.get("/metrics")[1]


def test_verdicts_are_counted_as_they_are_given(page: Served) -> None:
    """Each verdict of the daemon is in the next scrape, whoever else listens to it."""
    page.count(Verdict(Outcome.LOADED, 1, "events", "a.json", Counts(3, 3), duration_ms=4))
    assert 'inboxd_records_total{feed="events",outcome="loaded"} 3.0' in page.get("/metrics")[1]


def test_requests_come_in_a_burst_and_then_at_a_steady_pace() -> None:
    """Who asks now and then never waits; who asks without end is slowed down to the pace, and forgiven with time."""
    pace = Pace(per_second=10, burst=5)
    assert [pace.delay(100.0) for _ in range(5)] == pytest.approx([0.0] * 5)
    assert [pace.delay(100.0) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    assert pace.delay(100.4) == pytest.approx(0.0)
    assert pace.delay(100.4) == pytest.approx(0.1)
    assert [pace.delay(200.0) for _ in range(6)] == pytest.approx([0.0] * 5 + [0.1])


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:8765", ("127.0.0.1", 8765)),
        ("[::1]:80", ("::1", 80)),
        ("::1:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
        (":9", ("127.0.0.1", 9)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),  # noqa: S104 - the text, not a socket
    ],
)
def test_an_address_is_read_as_it_is_written(listen: str, expected: tuple[str, int]) -> None:
    """Names, IPv4 and IPv6 with a port; without a host it is the loopback."""
    address = Address.parse(listen)
    assert (address.host, address.port) == expected


@pytest.mark.parametrize(
    "listen", ["", "8765", "localhost", "localhost:", "localhost:x", "localhost:65536", "a:-1", "a:²", "127.0.0.1:1:2"]
)
def test_what_is_no_address_is_said_to_be_none(listen: str) -> None:
    """A mistyped address is named, with how to write it."""
    with pytest.raises(AddressError) as refused:
        Address.parse(listen)
    assert "127.0.0.1:8765" in refused.value.hint


def test_the_host_header_is_read_strictly() -> None:
    """Ports and brackets are taken off; anything that is no host is none."""
    assert host_of("localhost:8765") == "localhost"
    assert host_of("[::1]:8765") == "::1"
    for header in ("", "a b", "a@b", "a/b", "[::1", "a:b", "a:1:2", "ä", "localhost\x00"):
        assert host_of(header) == "", header


def _hear(connection: socket.socket) -> Callable[[], int]:
    """Ask for the stream; return what counts the versions it has told so far."""
    connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    heard = b""

    def versions() -> int:
        nonlocal heard
        connection.settimeout(0.05)
        with suppress(TimeoutError):
            heard += connection.recv(4096)
        return heard.count(b"event: version")

    return versions


def _state(deferred: list[UnfinishedFile] | None = None, unsettled: list[UnfinishedFile] | None = None) -> DaemonState:
    now = "2026-01-01T00:00:00.000000Z"
    deferred = deferred or []
    return DaemonState(
        1,
        "host",
        "1",
        now,
        now,
        "inbox",
        "db",
        files_deferred=len(deferred),
        deferred=deferred,
        unsettled=unsettled or [],
    )
