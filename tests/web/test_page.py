"""The page's answers, asked for as any program would: what they say, and what they never say."""

from __future__ import annotations

import http.client
import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemons import eventually
from page_daemon import PageDaemon, environment, page_daemon

pytestmark = [pytest.mark.xdist_group("web")]

EVENT: Final = {"key": "user-1", "name": "Alice", "value": 12.5, "ts": "2026-01-15T10:30:00Z"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageDaemon]:
    """Return a daemon that has taken three files: one whole, one half rejected, one broken."""
    with page_daemon(tmp_path_factory.mktemp("web")) as started:
        started.drop("whole.json", json.dumps([EVENT]))
        started.wait_for("file_loaded", file="whole.json")
        later = EVENT | {"ts": "2026-01-16T00:00:00Z"}
        started.drop("half.json", json.dumps([later | {"key": "user-2"}, later | {"key": "user-3", "value": "many"}]))
        started.wait_for("file_loaded", file="half.json")
        started.drop("broken.json", "[1,")
        started.wait_for("file_failed", file="broken.json")
        yield started


def ask(daemon: PageDaemon, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    """Return status, headers and body."""
    address = urlsplit(daemon.url)
    with closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def test_health_is_the_same_object_as_the_command_prints(daemon: PageDaemon) -> None:
    """/health gives what ``inboxd health --json`` gives, its options included."""
    for query, options in (
        ("", []),
        ("?hours=24&limit=2&job=events", ["--hours", "24", "--limit", "2", "--job", "events"]),
    ):
        command = [sys.executable, "-m", "inboxd", "health", "--json", *options]
        printed = subprocess.run(command, cwd=daemon.folder, env=environment(), capture_output=True, check=True).stdout
        status, headers, body = ask(daemon, f"/health{query}")
        assert status == 200
        assert headers.get_content_type() == "application/json"
        assert json.loads(body) == json.loads(printed)
        assert json.loads(body)["failures"] == 1


def test_it_says_that_it_is_alive_and_ready(daemon: PageDaemon) -> None:
    """/healthz answers for the loop, /readyz for the database and the inbox."""
    status, _, body = ask(daemon, "/healthz")
    assert (status, json.loads(body)["status"]) == (200, "ok")
    status, _, body = ask(daemon, "/readyz")
    assert status == 200
    assert json.loads(body) == {"status": "ready", "checks": {"inbox": "ok", "database": "ok"}}


def test_the_metrics_tell_what_the_daemon_did(daemon: PageDaemon) -> None:
    """/metrics counts the files and records of this daemon, and knows the watermark and the last success."""
    _, headers, body = ask(daemon, "/metrics")
    assert headers.get_content_type() == "text/plain"
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert found["inboxd_files_total", "events", "loaded"] >= 2
    assert found["inboxd_files_total", "events", "failed"] == 1
    assert found["inboxd_records_total", "events", "rejected"] == 1
    assert found["inboxd_watermark_timestamp_seconds", "events"] == 1768521600
    assert found["inboxd_last_success_timestamp_seconds", "events"] > 1.7e9
    assert found["inboxd_inbox_files",] == 0


def test_every_answer_carries_the_headers_that_protect_it(daemon: PageDaemon) -> None:
    """Pages, files, errors and numbers alike: nothing may be loaded from elsewhere, framed, sniffed or kept."""
    for path in ("/", "/runs/1", "/static/page.css", "/static/page.js", "/nope", "/health", "/metrics"):
        _, headers, _ = ask(daemon, path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'"), path
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["date"]
        assert headers["server"] is None
        assert headers["cache-control"] == ("max-age=31536000, immutable" if "static" in path else "no-store")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "192.168.0.7", "", "[", "a b"]
)
def test_a_page_of_another_name_is_refused(daemon: PageDaemon, host: str) -> None:
    """A site that makes its own name lead here (DNS rebinding) reads nothing."""
    for path in ("/", "/health", "/metrics", "/events", "/static/page.js"):
        status, _, body = ask(daemon, path, Host=host)
        assert status == 400
        assert "user-1" not in body
        assert "whole.json" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8765", "[::1]:8765"])
def test_the_machines_own_names_are_answered(daemon: PageDaemon, host: str) -> None:
    """The loopback's names lead to the page, with any port (a tunnel may have another)."""
    assert ask(daemon, "/", Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_it_can_only_be_read(daemon: PageDaemon, method: str) -> None:
    """There is nothing to be changed: other methods than GET and HEAD are refused."""
    status, headers, _ = ask(daemon, "/", method)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"


def test_head_is_get_without_a_body(daemon: PageDaemon) -> None:
    """HEAD answers as GET does, without the body, for the stream of events too."""
    for path in ("/", "/health", "/metrics", "/events"):
        status, _, body = ask(daemon, path, "HEAD")
        assert (status, body) == (200, "")


@pytest.mark.parametrize(
    "path",
    [
        "/?window=2h", "/runs?status=lost", "/runs?before=x",
        "/health?hours=x", "/health?hours=-1", "/health?hours=nan", "/health?hours=1e99",
        "/health?limit=-1", "/health?limit=99999999999999999999", "/dead-letters?before=%00",
        "/runs/1?after=x&number=%EF%BC%91", "/records/events?key=%00", "/records/events?key=" + "k" * 1_025,
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(daemon: PageDaemon, path: str) -> None:
    """What cannot be meant is said to be so, and is no fault of the server."""
    assert ask(daemon, path)[0] == 400


@pytest.mark.parametrize(
    "path",
    ["/nope", "/runs/4000", "/runs/99999999999999999999999", "/runs/-1", "/runs/x", "/records/nofeed?key=a",
     "/records/events?key=nobody", "/static/../app.py", "/static/no", "/static/%2e%2e%2fapp.py", "//", "/%00", "/%ff"],
)  # fmt: skip
def test_what_is_not_there_is_not_found(daemon: PageDaemon, path: str) -> None:
    """An address that leads nowhere says so."""
    assert ask(daemon, path)[0] == 404


def test_keys_of_all_kinds_lead_to_their_page(daemon: PageDaemon) -> None:
    """A key with slashes, quotes, percent signs and spaces has an address of its own."""
    key = """a/b?c=d&e#f%41 "g" <h> 'ü' \U0001f600"""
    daemon.drop("keys.json", json.dumps([EVENT | {"key": key, "ts": "2026-02-01T00:00:00Z"}]))
    run = daemon.wait_for("file_loaded", file="keys.json")["run_id"]
    _, _, body = ask(daemon, f"/runs/{run}")
    links = re.findall(r'href="(/records/events\?key=[^"]+)"', body)
    assert len(links) == 1
    status, _, body = ask(daemon, links[0].replace("&amp;", "&"))
    assert status == 200
    assert "keys.json" in body
    assert "<h>" not in body
    assert ask(daemon, f"/records/events?key={quote(key, safe='')}")[0] == 200


def test_errors_and_messages_show_no_folder(daemon: PageDaemon) -> None:
    """No page names a folder of the machine or the database's file."""
    pages = [
        "/",
        "/runs/1",
        "/runs/3",
        "/records",
        "/records/events?key=user-1",
        "/dead-letters",
        "/nope",
        "/healthz",
        "/readyz",
    ]
    for path in pages:
        assert str(daemon.folder) not in ask(daemon, path)[2], path


def test_a_run_is_paged_through_its_records(daemon: PageDaemon) -> None:
    """A run with more records than fit on a page has links from page to page, and each record is on one of them."""
    records = [EVENT | {"key": f"page-{number:03}", "ts": "2026-03-01T00:00:00Z"} for number in range(250)]
    daemon.drop("many.json", json.dumps(records))
    run = daemon.wait_for("file_loaded", file="many.json")["run_id"]
    path: str | None = f"/runs/{run}"
    seen: list[str] = []
    pages = 0
    while path is not None:
        _, _, body = ask(daemon, path)
        seen += re.findall(r">(page-\d+)</a>", body)
        pages += 1
        following = re.search(r'href="([^"]+)">Next', body)
        path = following[1].replace("&amp;", "&") if following else None
    assert pages == 3
    assert seen == [str(record["key"]) for record in records]


def test_runs_can_be_filtered_and_paged(daemon: PageDaemon) -> None:
    """Failed runs have an address of their own, so have those of a feed, and pages lead on to the first run."""
    failed = ask(daemon, "/runs?status=failure")[2]
    assert "broken.json" in failed
    assert "whole.json" not in failed
    assert "whole.json" in ask(daemon, "/runs?job=events&status=success")[2]
    assert "There are no runs." in ask(daemon, "/runs?job=nobody")[2]
    older = ask(daemon, "/runs?before=2")[2]
    assert "whole.json" in older
    assert "half.json" not in older


def test_a_key_that_is_in_many_files_is_paged_through(daemon: PageDaemon) -> None:
    """A record's history has its newest part first, and links to the older ones; each record is on one of them."""
    records = [
        EVENT | {"key": "often", "ts": f"2026-04-01T{hour:02}:{minute:02}:00Z"}
        for hour in range(10)
        for minute in range(25)
    ]
    daemon.drop("often.json", json.dumps(records))
    daemon.wait_for("file_loaded", file="often.json")
    path: str | None = "/records/events?key=often"
    seen: list[int] = []
    while path is not None:
        status, _, body = ask(daemon, path)
        assert status == 200
        seen = [*map(int, re.findall(r'class="id">record (\d+)</span>', body)), *seen]
        assert "record 250" in body  # what they lost to is known on every part
        older = re.search(r'href="([^"]+)">Older', body)
        path = older[1].replace("&amp;", "&") if older else None
    assert seen == list(range(1, 251))


def test_a_reloaded_config_is_shown(tmp_path: Path) -> None:
    """After a HUP the page has the feeds of the new config."""
    with page_daemon(tmp_path, config="") as daemon:
        assert ">orders<" not in ask(daemon, "/")[2]
        feed = '[feeds.orders]\nkey = ["id"]\ncursor = "n"\n'
        fields = '[feeds.orders.fields]\nid = { type = "text" }\nn = { type = "integer" }\n'
        (tmp_path / "inboxd.toml").write_text(feed + fields)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config_reloaded")
        eventually(lambda: ">orders<" in ask(daemon, "/")[2], "the new feed")
        assert ">events<" not in ask(daemon, "/")[2]
        daemon.drop("orders/a.json", '{"id": "A", "n": 1}')
        daemon.wait_for("file_loaded", feed="orders")
        assert ask(daemon, "/records/orders?key=A")[0] == 200


def test_a_page_that_others_can_reach_is_warned_of(tmp_path: Path) -> None:
    """Listening beyond the machine is done when asked for, and warned of; any IP address is then a good Host."""
    with page_daemon(tmp_path, "--http", "0.0.0.0:0") as daemon:
        assert daemon.wait_for("http_exposed")["level"] == "warning"
        assert ask(daemon, "/", Host="192.0.2.7:8765")[0] == 200
        assert ask(daemon, "/", Host="evil.example")[0] == 400


@pytest.mark.parametrize(
    ("address", "code", "says"),
    [("8765", 78, "127.0.0.1:8765"), ("127.0.0.1:99999", 78, "127.0.0.1:8765"), ("taken", 69, "already in use")],
)
@pytest.mark.parametrize("asked_for", ["option", "config"])
def test_a_page_that_was_asked_for_and_cannot_be_had_is_no_start(
    daemon: PageDaemon, tmp_path: Path, address: str, code: int, says: str, asked_for: str
) -> None:
    """Whoever relies on the page's probes hears at the start that there is none: 78 to be mended, 69 for now."""
    address = urlsplit(daemon.url).netloc if address == "taken" else address
    (tmp_path / "inboxd.toml").write_text(f'[http]\nlisten = "{address}"\n' if asked_for == "config" else "")
    done = subprocess.run(
        [sys.executable, "-m", "inboxd", "run", *(["--http", address] if asked_for == "option" else [])],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_cannot_be_read_is_said_without_its_path(tmp_path: Path) -> None:
    """While the database is locked or broken the page says so in plain words, and readiness is refused."""
    with page_daemon(tmp_path) as daemon:
        status, _, body = ask(daemon, "/readyz")
        assert status == 200, body
        database = tmp_path / "data" / "inboxd.db"
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("ALTER TABLE watermarks RENAME TO hidden")
            connection.execute("ALTER TABLE alembic_version RENAME TO gone")

        def refused() -> tuple[int, str] | None:
            status, _, body = ask(daemon, "/")
            return (status, body) if status == 503 else None

        _, body = eventually(refused, "503")
        assert "cannot be read" in body
        assert str(tmp_path) not in body
        assert "watermarks" not in body

        def unready() -> str | None:
            status, _, body = ask(daemon, "/readyz")
            return body if status == 503 else None

        assert json.loads(eventually(unready, "not ready"))["checks"]["database"] != "ok"
        assert ask(daemon, "/metrics")[0] == 200
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("ALTER TABLE hidden RENAME TO watermarks")
            connection.execute("ALTER TABLE gone RENAME TO alembic_version")
