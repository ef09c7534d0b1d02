from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemons import DEADLINE_S, Home, eventually, files_in, record
from inboxd.config import STATE_FILE
from inboxd.events import Event
from inboxd.reload import NEEDS_RESTART


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a place for a daemon without a config."""
    with Home(tmp_path) as home:
        yield home


def test_a_dropped_file_arrives_and_says_so(home: Home) -> None:
    """A file renamed into the inbox is loaded, moved to processed, and gets one line with all its counts."""
    home.start()
    home.drop("a.json", [record("a"), record("b", value="no number"), record("a", ts="2026-01-15T10:29:00Z")])
    line = home.verdict("a.json")
    assert line["event"] == "file_loaded"
    counts = {name: line[name] for name in ("rows_in", "rows_out", "rows_rejected", "rows_skipped", "rows_stale")}
    assert counts == {"rows_in": 3, "rows_out": 1, "rows_rejected": 1, "rows_skipped": 0, "rows_stale": 1}
    assert list(line)[:6] == ["timestamp", "level", "event", "run_id", "feed", "file"]
    assert line["watermark"] == "2026-01-15T10:30:00.000000Z"
    assert home.rows() == [("a", "Alice", 1.5, "2026-01-15T10:30:00.000000Z")]
    assert [path.name for path in home.processed.iterdir()] == ["a.json"]
    assert home.query("SELECT error, record_no FROM dead_letters") == [("invalid_value", 2)]
    assert home.query("SELECT record_key, step, record_no FROM lineage ORDER BY record_no, step DESC") == [
        ("a", "stage", 1),
        ("a", "load", 1),
        ("b", "reject", 2),
        ("a", "stale", 3),
        ("a", "stage", 3),
    ]


def test_the_same_content_under_another_name_is_a_duplicate(home: Home) -> None:
    """Content is known by its bytes: a second drop changes nothing and names the run that loaded it."""
    home.start()
    home.drop("a.json", [record("a")])
    first = home.verdict("a.json")
    home.drop("b.json", [record("a")])
    second = home.verdict("b.json")
    assert second["event"] == "file_duplicate"
    assert second["duplicate_of"] == first["run_id"]
    assert home.query("SELECT rows_in, duplicate_of, status FROM etl_runs WHERE file_name = 'b.json'") == [
        (0, first["run_id"], "success")
    ]
    assert sorted(path.name for path in home.processed.iterdir()) == ["a.json", "b.json"]


def test_what_was_there_before_the_start_is_taken_too(home: Home) -> None:
    """Files that arrived while no daemon ran are loaded at its start, oldest first."""
    for number in range(3):
        home.drop(f"{number}.json", [record(f"k{number}", ts=f"2026-01-1{number}T00:00:00Z")])
        os.utime(home.inbox / f"{number}.json", (1_700_000_000 + number, 1_700_000_000 + number))
    home.start()
    home.verdict("2.json")
    assert [line["file"] for line in home.verdicts()] == ["0.json", "1.json", "2.json"]


def test_a_broken_file_fails_with_its_place_and_a_report(home: Home) -> None:
    """A malformed file lands in failed, nothing of it is loaded, and the report says where and what to do."""
    home.start()
    home.drop("sub/bad.json", b'[{"key": "a",\n "name": }]')
    line = home.verdict("sub/bad.json")
    assert (line["event"], line["error_code"]) == ("file_failed", "invalid_json")
    assert (home.failed / "sub" / "bad.json").read_bytes() == b'[{"key": "a",\n "name": }]'
    report = json.loads((home.failed / "sub" / "bad.json.error.json").read_bytes())
    assert report["file"] == "sub/bad.json"
    assert (report["feed"], report["run_id"], report["code"]) == ("events", line["run_id"], "invalid_json")
    assert (report["line"], report["column"], report["byte"]) == (2, 10, 23)
    assert report["message"]
    assert report["hint"]
    assert home.query("SELECT status, rows_in, error_code FROM etl_runs") == [("failure", 0, "invalid_json")]
    assert home.rows() == []


def test_a_name_is_never_overwritten_in_the_archive(home: Home) -> None:
    """A second file of the same name is kept beside the first, under a name with its run."""
    home.start()
    home.drop("a.json", [record("a")])
    home.verdict("a.json")
    home.drop("a.json", [record("b", ts="2026-01-16T00:00:00Z")])
    line = home.verdict("a.json", 2)
    assert sorted(path.name for path in home.processed.iterdir()) == ["a.json", f"a.run-{line['run_id']}.json"]


def test_the_start_is_one_line_with_all_that_is_promised(tmp_path: Path) -> None:
    """``daemon_started`` says where what is: exactly what its meaning in the README names."""
    with Home(tmp_path, '[inbox]\nsettle = "0ms"\n') as home:
        home.start()
        [line] = home.lines(Event.DAEMON_STARTED)
        named = set(re.findall(r"\w+", Event.DAEMON_STARTED.meaning.partition(":")[2]))
        assert set(line) == named | {"timestamp", "level", "event"}
        assert line["host"] == os.uname().nodename
        assert line["files_waiting"] == 0


def test_who_reads_that_it_started_finds_it_so(tmp_path: Path, require_tool: Callable[[str, str], str]) -> None:
    """At the line ``daemon_started`` the other processes' commands, which read the state file, know the daemon."""
    trace = tmp_path / "trace"
    strace = [require_tool("strace", "strace"), "-f", "-qq", "-o", str(trace), "-s", "256"]
    calls = ["-e", "trace=write,?rename,?renameat,?renameat2"]
    with Home(tmp_path / "home", command=(*strace, *calls, os.path.abspath(sys.executable), "-m", "inboxd")) as home:
        assert home.run_once() == 0
    seen = trace.read_text("utf-8")
    assert seen.index(f'{STATE_FILE}")') < seen.index("daemon_started")


def test_once_drains_the_inbox_and_tells_failures_by_its_exit_code(home: Home) -> None:
    """``run --once`` is for cron: 0 when all went well, 1 when a file failed."""
    home.drop("good.json", [record("a")])
    assert home.run_once() == 0
    home.drop("bad.json", b"[")
    home.drop("good2.json", [record("b", ts="2026-02-01T00:00:00Z")])
    assert home.run_once() == 1
    assert not files_in(home.inbox)
    assert [row[0] for row in home.rows()] == ["a", "b"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_clean(home: Home, number: signal.Signals) -> None:
    """TERM and INT end the daemon with exit code 0 and a line; nothing stays claimed or running."""
    home.start()
    home.drop("a.json", [record("a")])
    home.verdict("a.json")
    assert home.stop(number) == 0
    assert home.lines()[-1]["event"] == "daemon_stopped"
    assert home.query("SELECT COUNT(*) FROM etl_runs WHERE status = 'running'") == [(0,)]


def test_skipped_records_are_counted_and_warned_of(home: Home) -> None:
    """What ``late = "skip"`` leaves out is in the verdict, in a warning and in the lineage."""
    home.start()
    home.drop("new.json", [record("a", ts="2026-02-01T00:00:00Z")])
    home.verdict("new.json")
    home.drop("old.json", [record("b"), {"key": "c", "ts": "2026-01-01"}, record("d", ts="2026-03-01T00:00:00Z")])
    line = home.verdict("old.json")
    assert (line["rows_out"], line["rows_skipped"], line["rows_rejected"]) == (1, 2, 0)
    warning = eventually(lambda: home.lines("records_skipped"))[0]
    assert (warning["level"], warning["rows_skipped"]) == ("warning", 2)
    assert home.query("SELECT record_key FROM lineage WHERE step = 'skip' ORDER BY record_no") == [("b",), ("c",)]


def test_a_file_of_rejects_only_is_warned_of(home: Home) -> None:
    """A file whose every record is refused is no failure, but the operator hears of it."""
    home.start()
    home.drop("a.json", [{"key": "a"}, {"key": "b"}])
    assert home.verdict("a.json")["event"] == "file_loaded"
    assert eventually(lambda: home.lines("all_rejected"))[0]["rows_rejected"] == 2
    assert home.query("SELECT COUNT(*) FROM watermarks") == [(0,)]


def test_what_is_no_regular_file_is_left_alone_and_said_once(home: Home) -> None:
    """Symlinks, FIFOs and sockets named like a file of ours stay where they are, and nothing reads them."""
    outside = home.write("secret.json", [record("secret")])
    (home.inbox / "link.json").symlink_to(outside)
    os.mkfifo(home.inbox / "fifo.json")
    with socket.socket(socket.AF_UNIX) as listening:
        with contextlib.chdir(home.inbox):  # a socket's path must be short
            listening.bind("socket.json")
        (home.inbox / "folder.json").mkdir()
        home.start()
        home.drop("folder.json/a.json", [record("a")])
        home.verdict("folder.json/a.json")
        ignored = {line["file"] for line in home.lines("file_ignored")}
        assert ignored == {"link.json", "fifo.json", "socket.json"}
        assert [row[0] for row in home.rows()] == ["a"]
        assert (home.inbox / "link.json").is_symlink()


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline.json",
        b"esc\x1b[31m.json",
        b"not-utf-8-\xff\xfe.json",
        b"quote'\"s.json",
        b"-rf.json",
        b"x" * 250 + b".json",
        "größe 数.json".encode(),
        b"<script>alert(1)<script>.json",
    ],
    ids=repr,
)
def test_names_that_bite(home: Home, name: bytes) -> None:
    """Any name a filesystem allows is loaded, archived under the same name, and logged as valid JSON."""
    home.start()
    source = home.write("plain", [record("a")])
    source.rename(home.inbox / os.fsdecode(name))
    line = eventually(home.verdicts)[0]
    assert line["event"] == "file_loaded"
    assert line["file"] == name.decode("utf-8", "backslashreplace")
    assert [os.fsencode(path.name) for path in home.processed.iterdir()] == [name]


def test_a_second_daemon_on_the_same_database_or_inbox_is_refused(home: Home, tmp_path: Path) -> None:
    """The second daemon exits 75 and names the pid of the first; a lock never outlives its process."""
    home.start()
    assert home.process is not None
    pid = home.process.pid
    second = home.call("run")
    assert second.returncode == 75
    assert str(pid) in second.stderr
    other = Home(home.path, env={"INBOXD_DATABASE__URL": f"sqlite:///{tmp_path}/other.db"})
    third = other.call("run")
    assert third.returncode == 75
    assert str(pid) in third.stderr
    home.kill()
    home.start()


def test_the_daemon_goes_on_after_a_hangup_with_a_good_config_and_with_a_bad_one(tmp_path: Path) -> None:
    """HUP takes over a new config whole; a bad one is refused whole, and the old one stays in force."""
    config = '[feeds.events]\nlate = "merge"\n'
    with Home(tmp_path, config) as home:
        home.start()
        assert home.process is not None
        (tmp_path / "inboxd.toml").write_text('[feeds.events]\nlate = "sometimes"\n[inbox]\nsettle = "soon"\n')
        home.process.send_signal(signal.SIGHUP)
        rejected = eventually(lambda: home.lines("config_rejected"))[0]
        assert "feeds.events.late" in rejected["error"]
        assert "inbox.settle" in rejected["error"]
        home.drop("a.json", [record("a", ts="2026-02-01T00:00:00Z")])
        home.verdict("a.json")
        (tmp_path / "inboxd.toml").write_text('[feeds.events]\nmatch = ["*.ndjson"]\nlate = "skip"\n')
        home.process.send_signal(signal.SIGHUP)
        eventually(lambda: home.lines("config_reloaded"))
        home.drop("b.ndjson", json.dumps(record("b")))
        assert home.verdict("b.ndjson")["rows_skipped"] == 1


@pytest.mark.parametrize("instead", ["nothing", "a pipe", "a lost link"])
def test_a_hangup_without_the_config_changes_nothing(tmp_path: Path, instead: str) -> None:
    """Without the file that the settings are from, nothing else is fallen back on, and nothing is waited for."""
    feed = (
        '[feeds.a]\nkey = ["key"]\ncursor = "ts"\n[feeds.a.fields]\nkey = {type = "text"}\nts = {type = "timestamp"}\n'
    )
    with Home(tmp_path, feed) as home:
        home.start()
        assert home.process is not None
        config = tmp_path / "inboxd.toml"
        config.unlink()
        if instead == "a pipe":
            os.mkfifo(config)
        elif instead == "a lost link":
            config.symlink_to("gone.toml")
        home.process.send_signal(signal.SIGHUP)
        rejected = eventually(lambda: home.lines("config_rejected"))[0]
        assert rejected["error_code"] == "invalid_config"
        home.drop("a/a.json", [record("a")])
        assert home.verdict("a/a.json")["feed"] == "a"
        assert home.stop() == 0
        assert home.lines("config_reloaded") == []


def test_a_hangup_refuses_what_only_a_restart_can_change(tmp_path: Path) -> None:
    """A config that moves the inbox, the database, the log or the page is refused by name, and nothing is moved."""
    changed = {
        "inbox.path": '[inbox]\npath = "other"\n',
        "inbox.polling": '[inbox]\npolling = "always"\n',
        "database.url": '[database]\nurl = "sqlite:///other/inboxd.db"\n',
        "http.listen": '[http]\nlisten = "127.0.0.1:8765"\n',
        "log": '[log]\nlevel = "warning"\n',
    }
    assert set(changed) == set(NEEDS_RESTART)
    with Home(tmp_path, '[feeds.events]\nlate = "merge"\n') as home:
        home.start()
        assert home.process is not None
        for number, (name, config) in enumerate(changed.items()):
            (tmp_path / "inboxd.toml").write_text(config, encoding="utf-8")
            home.process.send_signal(signal.SIGHUP)
            line = eventually(lambda: home.lines("config_rejected")[number:], name)[0]  # noqa: B023 - asked at once
            assert line["error_code"] == "restart_needed"
            assert line["error"].endswith(f": {name}")
        assert not (tmp_path / "other").exists()
        assert home.lines("config_reloaded") == []


def test_the_log_survives_rotation(home: Home) -> None:
    """A log renamed away is begun anew: no line is lost, and ``tail -F`` follows."""
    home.start()
    log = home.path / "data" / "inboxd.log"
    log.rename(log.with_suffix(".1"))
    home.drop("a.json", [record("a")])
    assert home.verdict("a.json")["event"] == "file_loaded"
    assert b"daemon_started" in log.with_suffix(".1").read_bytes()


def test_a_folder_that_cannot_be_made_is_said_at_the_start(tmp_path: Path) -> None:
    """A config that points where nothing can be written ends with exit code 77 and the folder's name."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    done = Home(tmp_path, '[archive]\nprocessed = "file/processed"\n').call("run", "--once")
    assert done.returncode == 77
    assert f"{tmp_path}/file/processed" in done.stderr
    assert "Traceback" not in done.stderr


def test_once_says_when_the_database_could_not_be_used(home: Home) -> None:
    """``run --once`` ends with 69 while another program holds the database; the file waits."""
    home.run_once()
    home.drop("a.json", [record("a")])
    with contextlib.closing(sqlite3.connect(home.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert home.run_once() == 69
    assert [path.name for path in files_in(home.inbox)] == ["a.json"]
    assert home.run_once() == 0
    assert [row[0] for row in home.rows()] == ["a"]


def test_once_tells_that_a_file_had_to_wait(home: Home) -> None:
    """A file that a transient fault holds up is no success for cron: exit code 1, and the next run takes it."""
    home.run_once()
    home.drop("a.json", [record("a")])
    home.processed.rename(home.path / "elsewhere")
    home.processed.write_text("in the way of the folder", encoding="utf-8")
    assert home.call("run", "--once").returncode in {1, 77}
    home.processed.unlink()
    assert home.run_once() == 0
    assert [row[0] for row in home.rows()] == ["a"]


def test_a_large_commit_is_announced_to_the_watchdog(home: Home, tmp_path: Path) -> None:
    """While SQLite waits for the disk it calls nobody: the service manager is told to wait longer, and then not to."""
    path = tmp_path / "notify"
    periods: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(DEADLINE_S)
        home.env = {**home.env, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "60000000"}
        home.drop("small.json", [record("a")])
        home.drop("large.json", (record(f"k{number}", name="x" * 10_000) for number in range(4_000)))
        home.start(wait=False)
        while len(periods) < 2 and not home.lines("file_loaded")[1:]:
            said = dict(line.split("=", 1) for line in manager.recv(4096).decode().split("\n"))
            periods += [int(said["WATCHDOG_USEC"])] if "WATCHDOG_USEC" in said else []
        home.verdict("large.json")
    longer, as_before = periods
    assert as_before == 60_000_000
    assert longer >= as_before + 10_000_000
