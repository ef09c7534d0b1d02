"""What an operator, or somebody with a shell, does to a daemon at work, and what it makes of it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemons import VERDICTS, Home, eventually, record
from inboxd.outcomes import Step
from places import SUPPORT

FEED = (
    '[feeds.{0}]\nkey = ["key"]\ncursor = "ts"\nlate = "merge"\n'
    '[feeds.{0}.fields]\nkey = {{ type = "text" }}\nts = {{ type = "timestamp" }}\n'
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a place for a daemon with two feeds."""
    with Home(tmp_path, FEED.format("a") + FEED.format("b")) as home:
        yield home


def reload(home: Home, config: str) -> None:
    """Change the config under a running daemon, and tell it."""
    (home.path / "inboxd.toml").write_text(config, "utf-8")
    assert home.process is not None
    home.process.send_signal(signal.SIGHUP)


def events(home: Home, file: str) -> list[str]:
    """Return the events of a file, in order."""
    return [line["event"] for line in home.lines() if line.get("file") == file]


def test_a_reload_with_a_folder_that_cannot_be_made_changes_nothing(home: Home) -> None:
    """A config whose archive cannot be there is rejected as a whole; the daemon goes on with the old one."""
    home.start()
    (home.path / "file").touch()
    reload(home, home.config + '[archive]\nprocessed = "file/processed"\n')
    assert eventually(lambda: home.lines("config_rejected"))[0]["error_code"] == "permission_denied"
    home.drop("a/1.json", [record("k")])
    assert home.verdict("a/1.json")["archived"] == str(home.processed / "a" / "1.json")


def test_a_reload_that_meets_a_locked_database_is_done_when_the_lock_is_gone(home: Home) -> None:
    """Nothing is wrong with that config: it is said once that it is not in force, and then it is."""
    home.start()
    with contextlib.closing(sqlite3.connect(home.path / "data" / "inboxd.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        reload(home, home.config + FEED.format("c"))
        assert eventually(lambda: home.lines("config_rejected"))[0]["error_code"] == "database_locked"
        other.execute("ROLLBACK")
    assert "c" in eventually(lambda: home.lines("config_reloaded"))[0]["feeds"]
    home.drop("c/1.json", [record("k")])
    assert home.verdict("c/1.json")["event"] == "file_loaded"
    assert len(home.lines("config_rejected")) == 1


def test_what_was_made_for_former_configs_goes(tmp_path: Path) -> None:
    """However often the config is changed and loaded anew, only the feeds in force are kept compiled."""
    kept = tmp_path / "kept"
    with Home(tmp_path, FEED.format("a"), command=(sys.executable, str(SUPPORT / "counting.py"), str(kept))) as home:
        home.start()
        for turn in range(1, 5):
            home.drop(f"a/{turn}.json", [record("k", ts=f"2026-01-0{turn}T00:00:00Z")])
            home.verdict(f"a/{turn}.json")
            reload(home, FEED.format("a") + f'name = {{ type = "text", max_length = {turn} }}\n')
            eventually(lambda: len(home.lines("config_reloaded")) == turn)  # noqa: B023 - it is awaited here
        assert home.stop() == 0
    assert kept.read_text(encoding="utf-8") == "0", "nothing came after the last reload"


def test_a_reload_moves_the_archive_and_what_tells_of_the_daemon(home: Home) -> None:
    """From the reload on files go to the new folder, and no state file stays behind that nobody keeps true."""
    home.start()
    reload(home, home.config + '[archive]\nprocessed = "moved/processed"\n')
    eventually(lambda: home.lines("config_reloaded"))
    home.drop("a/1.json", [record("k")])
    assert home.verdict("a/1.json")["archived"] == str(home.path / "moved" / "processed" / "a" / "1.json")
    eventually((home.path / "moved" / "inboxd.state.json").exists)
    assert not (home.path / "data" / "inboxd.state.json").exists()


def test_a_reload_changes_how_large_a_file_may_be_unpacked(home: Home) -> None:
    """``inbox.max_file_size`` holds for what a file unpacks to as well, also after a reload."""
    home.start()
    reload(home, home.config + '[inbox]\nmax_file_size = "4KiB"\n')
    eventually(lambda: home.lines("config_reloaded"))
    home.drop("a/big.json.gz", gzip.compress(b" " * 8192 + b"[]"))
    assert home.verdict("a/big.json.gz")["error_code"] == "file_too_large"


def test_a_waiting_file_whose_feed_is_removed_goes_back_to_the_inbox(home: Home) -> None:
    """It is no fault of the file, nor a bug: like any file that no feed matches it is left alone, and named."""
    home.start()
    with contextlib.closing(sqlite3.connect(home.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        home.drop("b/1.json", [record("k")])
        eventually(lambda: home.lines("file_deferred"))
        reload(home, FEED.format("a"))
        eventually(lambda: home.lines("config_reloaded"))
        other.execute("ROLLBACK")
    eventually(lambda: home.lines("file_ignored"))
    assert events(home, "b/1.json") == ["file_deferred", "file_ignored"]
    assert (home.inbox / "b" / "1.json").exists()
    assert home.query("SELECT COUNT(*) FROM etl_runs") == [(0,)]


def test_a_table_that_is_gone_holds_up_no_other_feed(home: Home) -> None:
    """However many files wait for the table that somebody dropped, those of another feed are loaded meanwhile."""
    home.start()
    with contextlib.closing(sqlite3.connect(home.database)) as other:
        other.execute("DROP TABLE a")
    for number in range(40):
        home.drop(f"a/{number}.json", [record(f"k{number}")])
    eventually(lambda: home.lines("file_deferred"))
    home.drop("b/1.json", [record("k")])
    assert home.verdict("b/1.json")["event"] == "file_loaded"
    assert len(home.lines("file_deferred")) < 40


def test_files_claimed_ahead_of_one_that_has_to_wait_do_not_overtake_it(tmp_path: Path) -> None:
    """Of a feed in which the last file wins none goes before the one that waits, and a stop gives all of them back."""
    last_wins = FEED.format("a").replace('cursor = "ts"\nlate = "merge"\n', "")
    with Home(tmp_path, last_wins) as home:
        home.start()
        with contextlib.closing(sqlite3.connect(home.database)) as other:
            other.execute("DROP TABLE a")
        for number in range(5):
            path = home.write(f"waiting/{number}.json", [record("k", ts=f"2026-01-15T10:30:0{number}Z")])
            os.utime(path, (1_760_000_000 + number,) * 2)
        (home.path / "outside" / "waiting").rename(home.inbox / "a")
        eventually(lambda: home.lines("file_deferred"))
        assert home.stop() == 0
        assert sorted(path.name for path in (home.inbox / "a").iterdir()) == [f"{number}.json" for number in range(5)]
        assert home.run_once() == 0  # its start makes the table again
        assert [line["file"] for line in home.lines("file_loaded")] == [f"a/{number}.json" for number in range(5)]
        assert home.query("SELECT ts FROM a") == [("2026-01-15T10:30:04.000000Z",)]


def test_a_loaded_file_that_is_taken_away_before_it_was_moved_is_not_waited_for(home: Home) -> None:
    """Its records are in the database and its verdict is said; that the file itself is gone is said once."""
    home.start()
    home.processed.rmdir()
    home.processed.touch()
    home.drop("a/1.json", [record("k")])
    eventually(lambda: home.lines("file_deferred"))
    for claim in (home.inbox / ".claimed").iterdir():
        shutil.rmtree(claim / "a")
    home.processed.unlink()
    gone = eventually(lambda: home.lines("file_gone"))[0]
    assert gone["run_id"] == home.verdict("a/1.json")["run_id"]
    assert home.stop() == 0
    assert [event for event in events(home, "a/1.json") if event != "file_deferred"] == ["file_loaded", "file_gone"]
    assert list((home.inbox / ".claimed").iterdir()) == []


def test_where_a_file_is_in_the_end_is_said_where_its_line_could_not_say_it(home: Home) -> None:
    """A move that has to wait leaves ``archived`` out of the file's line; ``file_archived`` has it, once."""
    home.start()
    home.processed.rmdir()
    home.processed.touch()
    home.drop("a/1.json", [record("k")])
    assert "archived" not in home.verdict("a/1.json")
    eventually(lambda: home.lines("file_deferred"), "the move waits")
    home.processed.unlink()
    (line,) = eventually(lambda: home.lines("file_archived"), "the move")
    assert (line["file"], line["archived"]) == ("a/1.json", str(home.processed / "a" / "1.json"))
    assert line["run_id"] == home.verdict("a/1.json")["run_id"]
    home.drop("a/2.json", [record("l", ts="2026-02-01T00:00:00Z")])
    assert home.verdict("a/2.json")["archived"] == str(home.processed / "a" / "2.json")
    assert home.stop() == 0
    assert len(home.lines("file_archived")) == 1


def test_a_move_that_could_not_be_made_durable_is_made_so_later(
    tmp_path: Path, require_tool: Callable[[str, str], str]
) -> None:
    """Files that share a sync are loaded and said once; their claims stay until the disk has taken the moves."""
    strace = [require_tool("strace", "strace"), "-f", "-qq", "-o", str(tmp_path / "trace")]
    failing = ["-P", str(tmp_path / "home/data/processed"), "-e", "inject=fsync:error=EIO:when=1", "-e", "trace=fsync"]
    with Home(tmp_path / "home", command=(*strace, *failing, os.path.abspath(sys.executable), "-m", "inboxd")) as home:
        for number in range(3):
            home.drop(f"{number}.json", [record(f"k{number}", ts=f"2026-01-15T10:30:0{number}Z")])
            os.utime(home.inbox / f"{number}.json", (1_760_000_000 + number,) * 2)
        assert home.run_once() == 0
        for number, deferred in enumerate(home.lines("file_deferred")):
            assert events(home, f"{number}.json") == ["file_loaded", "file_deferred"]
            assert (deferred["error_code"], deferred["run_id"]) == (
                "io_error",
                home.verdict(f"{number}.json")["run_id"],
            )
        assert sorted(path.name for path in home.processed.iterdir()) == ["0.json", "1.json", "2.json"]
        assert list((home.inbox / ".claimed").iterdir()) == []
        assert len(home.rows()) == 3
    assert 2 <= (tmp_path / "trace").read_text("utf-8").count("fsync(") <= 4


def test_a_report_half_written_once_more_is_not_left(tmp_path: Path) -> None:
    """A crash came while the report of a moved file was written anew: the whole one stays, and nothing hidden does."""
    with Home(tmp_path) as home:
        home.drop("bad.json", b"[")
        home.run_once()
        report = (home.failed / "bad.json.error.json").read_bytes()
        (claim,) = home.query("SELECT claim FROM etl_runs")[0]
        (home.inbox / ".claimed" / f"{claim}.told").mkdir()
        part = home.failed / f".{hashlib.sha256(b'bad.json').hexdigest()[:16]}.report.part"
        part.write_bytes(report[:10])
        home.run_once()
        assert sorted(path.name for path in home.failed.iterdir()) == ["bad.json", "bad.json.error.json"]
        assert (
            home.failed / "bad.json.error.json"
        ).read_bytes() == report  # it names the line, which the ledger does not
        assert list((home.inbox / ".claimed").iterdir()) == []


def test_a_verdict_is_said_once_where_there_is_no_log_file(
    tmp_path: Path, require_tool: Callable[[str, str], str]
) -> None:
    """A crash while the disk is still taking the move: the next start, which cannot read the log, says nothing more."""
    strace = [require_tool("strace", "strace"), "-f", "-qq", "-o", str(tmp_path / "trace")]
    python = (os.path.abspath(sys.executable), "-m", "inboxd")
    delaying = ["-P", str(tmp_path / "home/data/processed"), "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=60s"]
    with Home(tmp_path / "home", '[log]\nfile = ""\n', command=(*strace, *delaying, *python)) as home:
        home.drop("a.json", [record("a")])
        home.start(wait=False)
        eventually(lambda: "file_loaded" in home.output(), "the verdict")
        home.kill()
        home.command = python
        again = home.call("run", "--once")
        assert "daemon_started" in again.stdout + again.stderr
        assert not any(verdict in again.stdout + again.stderr for verdict in VERDICTS)
        assert list((home.inbox / ".claimed").iterdir()) == []
        assert home.query("SELECT status FROM etl_runs") == [("success",)]


def test_a_failure_found_after_a_crash_is_a_failure(home: Home) -> None:
    """Whoever watches for ``file_failed`` hears of it, also where a crash came between its run and its line."""
    home.drop("a/1.json", b"[")
    home.start()
    home.verdict("a/1.json")
    home.kill()
    (run, claim) = home.query("SELECT id, claim FROM etl_runs")[0]
    (home.path / "data" / "inboxd.log").unlink()
    place = home.inbox / ".claimed" / claim / "a"
    place.mkdir(parents=True, exist_ok=True)  # the crash may have come before it was put away
    (home.failed / "a" / "1.json").rename(place / "1.json")  # as it lay before the crash
    home.start()
    line = home.verdict("a/1.json")
    assert (line["event"], line["run_id"], line["error_code"]) == ("file_failed", run, "invalid_json")


def test_a_tree_deeper_than_any_stack_stops_nobody(home: Home) -> None:
    """A sender may nest folders to the limit of a path: what is in there is left alone, all others are loaded."""
    home.start()
    (home.path / "tree").mkdir()
    folder = os.open(home.path / "tree", os.O_RDONLY)
    try:
        for _ in range(1200):
            os.mkdir("a", dir_fd=folder)
            below = os.open("a", os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = below
        os.close(os.open("deep.json", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    finally:
        os.close(folder)
    (home.path / "tree").rename(home.inbox / "tree")
    try:
        home.drop("b/1.json", [record("k")])
        assert home.verdict("b/1.json")["event"] == "file_loaded"
        assert "200 folders deep" in eventually(lambda: home.lines("folder_unreadable"))[0]["reason"]
        assert home.stop() == 0
    finally:
        subprocess.run(["rm", "-rf", os.fspath(home.inbox / "tree")], check=True)  # too deep for pytest


def test_a_load_that_is_ended_leaves_nothing_running(home: Home) -> None:
    """TERM, from a cron job's time limit or a shutdown, takes back the run that was begun, as Control-C does."""
    big = home.write("big.ndjson", "".join(f'{{"key": "k{n}", "ts": "2026-01-15"}}\n' for n in range(300_000)))
    home.call("db", "upgrade", check=True)
    command = [*home.command, "load", "--feed", "a", os.fspath(big)]
    with subprocess.Popen(command, cwd=home.path, env=home.environment(), stdout=subprocess.DEVNULL) as load:
        eventually(lambda: home.query("SELECT 1 FROM etl_runs WHERE status = 'running'"))
        load.terminate()
        assert load.wait(30) == 128 + signal.SIGTERM
    assert home.query("SELECT COUNT(*) FROM etl_runs") == [(0,)]


def test_at_debug_level_each_step_of_a_file_is_timed(tmp_path: Path) -> None:
    """Whoever wonders where a file's time goes reads it in the log, step by step."""
    with Home(tmp_path, '[log]\nlevel = "debug"\n') as home:
        home.drop("a.json", [record("k")])
        assert home.run_once() == 0
        timed = {line["step"]: line["duration_ms"] for line in home.lines("step_timed")}
        assert set(timed) == set(Step)
        assert len(home.lines("step_timed")) == len(timed)
        assert all(isinstance(duration, float) for duration in timed.values())


def test_an_output_that_cannot_be_written_is_no_bug(home: Home) -> None:
    """The files are loaded, the result is printed, and the exit code says that the other place for it was shut."""
    file = home.write("a.json", [record("k")])
    done = home.call("load", "--feed", "a", os.fspath(file), "--output", "/proc/none/result.json")
    assert (done.returncode, json.loads(done.stdout)["loaded"]) == (77, 1)
    assert done.stderr.startswith("inboxd: cannot write /proc/none/result.json: ")
