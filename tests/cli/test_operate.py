"""The operator's commands as processes of their own, beside a real daemon or without one."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemons import Home, eventually, files_in, record
from faults import QUICK
from inboxd.config import STATE_FILE

MERGE = '[feeds.events]\nlate = "merge"\n'
DUMP = """
[feeds.dump]
match = ["**"]
mode = "snapshot"
key = ["k"]
absent = "remove"
fields = { k = { type = "text" } }
"""
UNDO = f"{MERGE}undo = true\n"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A place for a daemon with the built-in feed."""
    with Home(tmp_path) as made:
        yield made


def ready(home: Home, config: str = "") -> Home:
    """Give a home a config."""
    (home.path / "inboxd.toml").write_text(config, encoding="utf-8")
    return home


def test_before_there_is_a_database_the_answers_are_zeros(home: Home) -> None:
    """health, runs list, dead-letters list and status answer before anything was loaded, and make nothing."""
    assert home.json("health", "--json")["total_runs"] == 0
    assert home.json("runs", "list", "--json") == {"runs": []}
    assert home.json("dead-letters", "list", "--json") == {"dead_letters": []}
    status = home.json("status", "--json")
    assert status["daemon"]["running"] is False
    assert [problem["code"] for problem in status["problems"]] == ["database_missing"]
    assert not home.database.exists()


def test_an_inbox_that_is_not_there_yet_was_moved_by_nobody(home: Home) -> None:
    """In an empty folder ``status`` says what makes the inbox."""
    home.inbox.rmdir()
    told = home.call("status").stdout
    assert "inbox is not there" in told
    assert "inboxd run makes it" in told
    assert "somebody" not in told


def test_runs_are_listed_from_a_time_on(home: Home) -> None:
    """``runs list --since`` takes a span or a time, as ``health`` does."""
    home.drop("a.json", [record("a")])
    home.run_once()
    assert len(home.json("runs", "list", "--since", "1h", "--json")["runs"]) == 1
    assert home.json("runs", "list", "--since", "2999-01-01", "--json") == {"runs": []}


def test_a_database_without_tables_counts_as_none(home: Home) -> None:
    """An empty file where the database is to be gives zeros, too, and doctor names the command that fills it."""
    home.database.parent.mkdir()
    home.database.touch()
    assert home.json("health", "--json")["total_runs"] == 0
    examined = home.json("doctor", "--json")
    assert [one["remedy"] for one in examined["checks"] if one["status"] == "wrong"] == ["inboxd db upgrade"]
    assert home.call("db", "upgrade").returncode == 0
    assert home.json("doctor", "--json")["ok"] is True


def test_status_tells_of_the_daemon_and_of_what_waits(home: Home) -> None:
    """With a daemon: its pid, since when, its config. Without: what waits in the inbox, how old; what is ignored."""
    ready(home, UNDO).start()
    home.drop("a.json", [record("a"), record("b", value="x")])
    home.verdict("a.json")
    assert home.process is not None
    running = home.json("status", "--json")
    assert (running["daemon"]["running"], running["daemon"]["pid"]) == (True, home.process.pid)
    assert running["daemon"]["since"]
    assert running["config"] == str(home.path / "inboxd.toml")
    assert running["dead_letters"] == [{"feed": "events", "code": "invalid_value", "count": 1}]
    spans = running["throughput"]
    assert (len(spans), sum(one["files"] for one in spans), sum(one["rows_out"] for one in spans)) == (48, 1, 1)
    fields = ["start", "end", "files", "failures", "all_rejected", "rows_in", "rows_out", "rows_rejected"]
    assert list(spans[-1]) == [*fields, "p50_ms", "p95_ms"]
    assert running["watermarks"][0]["value"] == "2026-01-15T10:30:00.000000Z"
    assert running["watermarks"][0]["lag_s"] > 0
    home.stop()
    home.drop("sub/new.json", [record("c")])
    home.drop("notes.txt", b"x")
    os.utime(home.inbox / "sub" / "new.json", (1_000_000_000, 1_000_000_000))
    stopped = home.json("status", "--json")
    assert stopped["daemon"]["running"] is False
    assert (stopped["content"]["waiting"], stopped["content"]["ignored"]) == (1, 1)
    assert 0 <= stopped["content"]["oldest_age_s"] < 3600  # it came just now, whatever its sender says of its age
    assert [file["file"] for file in stopped["content"]["files"]] == ["sub/new.json"]
    text = home.call("status")
    assert text.returncode == 0
    assert "not running" in text.stdout
    assert "notes.txt" in text.stdout


def test_a_name_with_escape_sequences_does_not_reach_the_terminal(home: Home) -> None:
    """What a sender calls a file is shown escaped."""
    home.drop("evil\x1b[31m\n.json", [record("a")])
    home.run_once()
    for command in (["status"], ["runs", "list"], ["explain", "a"]):
        shown = home.call(*command).stdout
        assert "\x1b" not in shown
        assert "evil" in shown


@pytest.mark.root
@pytest.mark.parametrize("running", [True, False])
def test_another_user_may_look_with_the_daemon_running_or_not(
    home: Home, require_root: Callable[[], None], require_tool: Callable[[str, str], str], *, running: bool
) -> None:
    """Whoever may read the files may ask status, health and explain, and changes nothing by it.

    The files are given away, and the command runs without the right to pass over permissions: a stranger to them, who
    can still read this Python, wherever it is installed.
    """
    require_root()
    no_rights = "-dac_override,-dac_read_search,-fowner"
    stranger = [require_tool("setpriv", "util-linux"), "--bounding-set", no_rights, "--inh-caps", no_rights]
    home.start()
    home.drop("a.json", [record("a")])
    home.verdict("a.json")
    if not running:
        home.stop()
    for path in [home.path / "data", *(home.path / "data").rglob("*")]:
        os.chown(path, 65534, 65534)
    before = {path: path.stat().st_mtime_ns for path in (home.path / "data").iterdir() if running is False}
    for command in (["status", "--json"], ["health", "--json"], ["explain", "a", "--json"], ["watermark", "show"]):
        done = subprocess.run(
            [*stranger, *home.command, *command],
            cwd=home.path,
            env=home.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    refused = subprocess.run([*stranger, "touch", "data/new"], cwd=home.path, capture_output=True, check=False)
    assert refused.returncode == 1, "the stranger could have written"
    if not running:
        assert before == {path: path.stat().st_mtime_ns for path in (home.path / "data").iterdir()}


def test_health_writes_the_feed_for_dashboards(home: Home, tmp_path: Path) -> None:
    """``--output`` writes the same numbers, and how many runs are recorded, to a file; imported jobs are in it."""
    home.drop("a.json", [record("a")])
    home.run_once()
    runs = [{"job_name": "nightly", "status": "failure", "started_at": "2026-01-15T01:00:00Z", "duration_ms": 5}]
    (tmp_path / "runs.json").write_text(json.dumps(runs), encoding="utf-8")
    assert home.call("runs", "import", "runs.json").returncode == 0
    printed = home.json("health", "--json", "--output", "feed.json")
    written = json.loads((tmp_path / "feed.json").read_text("utf-8"))
    assert written.pop("runs_recorded") == 2
    assert written == printed
    assert {line["job"] for line in printed["per_job"]} == {"events", "nightly"}
    (tmp_path / "runs.json").write_text('[{"job_name": "x"}]', encoding="utf-8")
    refused = home.call("runs", "import", "runs.json")
    assert refused.returncode == 1
    assert "record 1" in refused.stderr


def test_a_file_that_is_no_list_of_runs_is_refused_with_what_to_do(home: Home) -> None:
    """It lies where it lay, and is nothing to be dropped or retried."""
    (home.path / "runs.json").write_text("root:x:0:0", encoding="utf-8")
    refused = home.call("runs", "import", "runs.json")
    assert refused.returncode == 1
    assert refused.stderr.endswith("\n  mend the file and import it again\n")


def test_a_watermark_is_not_set_further_than_records_may_reach(home: Home) -> None:
    """A slip of the hand would let every later file be skipped: the furthest that `max_future` allows is named."""
    refused = home.call("watermark", "set", "events", "2100-01-01")
    assert refused.returncode == 2
    assert "`max_future` of [feeds.events] allows " in refused.stderr
    assert home.json("watermark", "show", "--json")["watermarks"][0]["value"] is None
    (home.path / "inboxd.toml").write_text("[feeds.events]\nmax_future = '36500d'\n", encoding="utf-8")
    home.call("watermark", "set", "events", "2100-01-01", check=True)


def test_what_was_undone_is_not_called_loaded(home: Home) -> None:
    """`retry --all` leaves a file alone whose run was undone, and says that it may be named."""
    ready(home, UNDO).drop("a.json", [record("a")])
    home.run_once()
    home.call("undo", "1", check=True)
    done = home.call("retry", "--all", check=True).stdout
    assert "is loaded" not in done
    assert "a file whose run was undone is retried by its name" in done


def test_edits_of_dead_letters_that_are_not_open_are_told(home: Home) -> None:
    """They are left alone, by number; the others are replayed."""
    home.drop("a.json", [record("a", value=None)])
    home.run_once()
    lines = [json.dumps({"letter": letter, "record": record("a")}) for letter in (1, 7)]
    (home.path / "mended.ndjson").write_text("\n".join(lines), encoding="utf-8")
    done = home.call("dead-letters", "replay", "--edited", "mended.ndjson")
    assert "1 loaded" in done.stdout
    assert "1 record left alone, whose dead letters are not open: 7" in done.stdout
    assert home.json("dead-letters", "replay", "--edited", "mended.ndjson", "--json")["not_open"] == [1, 7]


# load


def test_load_knows_the_path_that_a_file_has_or_had_in_the_inbox(home: Home) -> None:
    """What a feed reads of it is the same from the inbox, from the archive and for the daemon; else it is asked for."""
    fields = 'region = { from = "$path.region", type = "text" }, id = { type = "integer" }'
    feed = f'[feeds.r]\nmatch = ["{{region}}/**"]\nkey = ["region", "id"]\nfields = {{ {fields} }}\n'
    ready(home, feed)
    home.drop("EU/x.json", [{"id": 1}])
    assert home.json("load", "inbox/EU/x.json")["loaded"] == 1
    home.drop("EU/x.json", [{"id": 1}])
    home.run_once()
    home.drop("EU/x.json", [{"id": 2}])
    home.run_once()
    archived = sorted(str(path.relative_to(home.path)) for path in (home.processed / "EU").iterdir())
    assert home.json("load", *archived, "--force", "--yes")["stale"] == 2
    assert home.query("SELECT region, id FROM r ORDER BY id") == [("EU", 1), ("EU", 2)]
    assert home.query("SELECT DISTINCT variant FROM etl_runs") == [('{"$path.region":"EU"}',)]
    shutil.copytree(home.processed, home.path / "elsewhere")
    refused = home.call("load", "elsewhere/EU/x.json")
    assert (refused.returncode, "--as" in refused.stderr) == (2, True)
    for said, loaded in (("./EU//x.json", 1), ("", 0), (".", 0), ("US/", 0), ("../US/x.json", 0), ("/US/x.json", 0)):
        (home.path / "y.json").write_text(json.dumps({"id": 3}), encoding="utf-8")
        done = home.call("load", "y.json", "--feed", "r", "--as", said)
        assert (done.returncode, done.stdout != "") == ((0, True) if loaded else (2, False)), done.stderr
    assert home.query("SELECT region FROM r WHERE id = 3") == [("EU",)]


# retry


def test_retry_loads_a_mended_file_and_takes_its_report_away(home: Home) -> None:
    """A failed file that was mended where it lies is loaded, without the watermark, and nothing stays in failed/."""
    home.drop("new.json", [record("a", ts="2026-02-01T00:00:00Z")])
    home.run_once()
    home.drop("sub/bad.json", b'[{"key": "b", ')
    home.run_once()
    assert sorted(path.name for path in home.failed.rglob("*.json")) == ["bad.json", "bad.json.error.json"]
    (home.failed / "sub" / "bad.json").write_text(json.dumps([record("b")]), encoding="utf-8")
    done = home.json("retry", "sub/bad.json", "--json")
    assert [(one["file"], one["outcome"], one["rows_out"]) for one in done["files"]] == [("sub/bad.json", "loaded", 1)]
    assert [key for key, *_ in home.rows()] == ["a", "b"]
    assert (home.processed / "sub" / "bad.json").exists()
    assert not files_in(home.failed)
    assert not files_in(home.inbox / ".claimed")
    assert home.verdicts("sub/bad.json")[-1]["event"] == "file_loaded"


def test_retry_keeps_the_time_a_file_had_when_it_first_came(tmp_path: Path) -> None:
    """Who mends a snapshot changes its mtime; it is still of the moment of the dump, and so is the next retry of it."""
    with Home(tmp_path, DUMP) as home:
        home.drop("dump.json", '[{"k": "x"}, {"k": 1}]')
        os.utime(home.inbox / "dump.json", (1_000_000_000, 1_000_000_000))
        home.run_once()
        for content, code in (('[{"k": 1}]', 1), ('[{"k": "x"}]', 0)):
            (home.failed / "dump.json").write_text(content)
            assert home.call("retry", "dump.json").returncode == code
        assert home.query("SELECT DISTINCT file_mtime FROM etl_runs") == [("2001-09-09T01:46:40.000000Z",)]
        assert home.query("SELECT value FROM watermarks") == [("2001-09-09T01:46:40.000000Z",)]


def test_retry_all_takes_every_failed_file_and_keeps_those_that_fail_again(home: Home) -> None:
    """``--all`` is everything in failed/; what fails again is there again, with a new report, and the exit is 1."""
    for name in ("one.json", "two.json"):
        home.drop(name, b"[1,")
        home.run_once()
    (home.failed / "one.json").write_text(json.dumps([record("a")]), encoding="utf-8")
    done = home.call("retry", "--all", "--json")
    assert done.returncode == 1
    outcomes = {one["file"]: one["outcome"] for one in json.loads(done.stdout)["files"]}
    assert outcomes == {"one.json": "loaded", "two.json": "failed"}
    assert sorted(path.name for path in home.failed.iterdir()) == ["two.json", "two.json.error.json"]


def test_retry_leaves_reports_alone(home: Home) -> None:
    """A pattern that finds the failed files finds their reports, too: they are no records, and stay where they are."""
    home.drop("bad.json", "[")
    home.run_once()
    report = home.failed / "bad.json.error.json"
    assert home.call("retry", *map(str, sorted(home.failed.iterdir())), str(home.failed / "bad.json")).returncode == 1
    assert home.query("SELECT file_name FROM etl_runs") == [("bad.json",)] * 2
    for name in (str(report), report.name):
        refused = home.call("retry", name)
        assert (refused.returncode, "is a report" in refused.stderr) == (2, True)
    assert files_in(home.failed) == [home.failed / "bad.json", report]


def test_a_file_is_found_by_its_name_as_it_is_shown(home: Home) -> None:
    """Bytes that are no UTF-8 are shown escaped; what ``undo`` and ``runs list`` print can be given to commands."""
    ready(home, UNDO)
    for ts in ("2026-01-15T10:30:00Z", "2026-01-15T10:31:00Z"):
        home.drop(os.fsdecode(b"caf\xe9.json"), [record("a", ts=ts)])
        home.run_once()
    for run_id, name in ((2, "caf\\xe9.run-2.json"), (1, "caf\\xe9.json")):
        remedy = home.call("undo", str(run_id)).stdout.splitlines()[-1].strip()
        assert remedy == f"inboxd retry '{home.processed / name}'"
        (done,) = home.json("retry", name, "--json")["files"]
        assert home.json("check", done["archived"], "--json")["files"][0]["duplicate_of"] == done["run_id"]


def test_retry_finds_the_name_a_file_had_before_a_collision(home: Home) -> None:
    """``name.run-2.json`` is tried again as ``name.json``."""
    for content in (b"[1,", b"[2,"):
        home.drop("name.json", content)
        home.run_once()
    assert (home.failed / "name.run-2.json").exists()
    (home.failed / "name.run-2.json").write_text(json.dumps([record("b")]), encoding="utf-8")
    done = home.json("retry", "name.run-2.json", "--json")
    assert [one["file"] for one in done["files"]] == ["name.json"]
    assert (home.processed / "name.json").exists()


def test_retry_of_what_is_loaded_says_duplicate(home: Home) -> None:
    """A processed file whose content stands in the database changes nothing, and is told to be a duplicate."""
    home.drop("a.json", [record("a")])
    home.run_once()
    done = home.json("retry", str(home.processed / "a.json"), "--json")
    assert [(one["outcome"], one["duplicate_of"]) for one in done["files"]] == [("duplicate", 1)]
    assert (home.processed / "a.json").exists()


@pytest.mark.parametrize("name", ["b.json", "-b.json", 'it\'s a "b" ü.json'])
def test_retry_brings_a_restored_database_up_to_date(home: Home, name: str) -> None:
    """After a database was restored from before a file, doctor names the file, and its command loads it."""
    home.drop("a.json", [record("a")])
    home.run_once()
    backup = home.path / "backup.db"
    shutil.copy(home.database, backup)
    home.drop(name, [record("b", ts="2026-01-16T00:00:00Z")])
    home.run_once()
    shutil.copy(backup, home.database)
    examined = home.call("doctor", "--json")
    assert examined.returncode == 1
    wrong = [check for check in json.loads(examined.stdout)["checks"] if check["status"] == "wrong"]
    (remedy,) = [check["remedy"] for check in wrong]
    assert remedy.startswith("inboxd retry ")
    assert home.call(*shlex.split(remedy)[1:]).returncode == 0
    assert [key for key, *_ in home.rows()] == ["a", "b"]
    assert home.call("doctor").returncode == 0


def test_retry_beside_a_running_daemon(home: Home) -> None:
    """The daemon goes on while a file is retried, and does not take it away from the command."""
    home.start()
    home.drop("bad.json", b"[1,")
    home.verdict("bad.json")
    (home.failed / "bad.json").write_text(json.dumps([record("b")]), encoding="utf-8")
    assert home.call("retry", "bad.json").returncode == 0
    home.drop("next.json", [record("c", ts="2026-02-01T00:00:00Z")])
    home.verdict("next.json")
    assert [key for key, *_ in home.rows()] == ["b", "c"]
    assert home.call("retry", "nothing.json").returncode == 2


# dead letters, undo, and waiting for a turn


def test_an_export_mended_and_dropped_again_is_loaded(home: Home) -> None:
    """The exported lines are a file that the inbox takes."""
    ready(home, MERGE)
    home.drop("a.json", [record("a"), record("b", value="n/a"), record("c", value="n/a", name="line\nbreak")])
    home.run_once()
    assert home.call("dead-letters", "export", "--output", "mended.ndjson").returncode == 0
    text = (home.path / "mended.ndjson").read_text("utf-8")
    assert text == home.call("dead-letters", "export").stdout
    assert text.count("\n") == 2
    assert "export each feed by itself" not in home.call("dead-letters", "export").stderr
    home.drop("mended.ndjson", text.replace('"n/a"', "7"))
    home.run_once()
    assert [(key, value) for key, _, value, _ in home.rows()] == [("a", 1.5), ("b", 7.0), ("c", 7.0)]


def test_a_replay_after_a_fix_of_the_config_beside_the_daemon(home: Home) -> None:
    """Relax the field, replay: the dead letters are loaded while the daemon runs."""
    home.start()
    home.drop("a.json", [record("a", name=""), record("b")])
    home.verdict("a.json")
    fields = '[feeds.events.fields]\nkey = { type = "text" }\nname = { type = "text", required = false }\n'
    ready(home, fields + 'value = { type = "real" }\nts = { type = "timestamp", label = "timestamp" }\n')
    done = home.json("dead-letters", "replay", "--json")
    assert (done["considered"], done["loaded"], done["failed"]) == (1, 1, 0)
    assert [(key, name) for key, name, *_ in home.rows()] == [("a", ""), ("b", "Alice")]
    assert home.json("dead-letters", "replay", "--json")["replays"] == []


def test_list_export_and_replay_choose_the_same_letters_by_the_same_options(home: Home) -> None:
    """What ``list`` shows for --run, --code, --since and --until is what ``export`` writes and ``replay`` judges."""
    ready(home, MERGE)
    home.drop("a.json", [record("a", value="n/a"), record("b", name="")])
    home.run_once()
    home.drop("b.json", [record("c", value="n/a")])
    home.run_once()
    for chosen, keys in (
        (("--run", "2"), ["c"]),
        (("--run", "1", "--code", "missing_name"), ["b"]),
        (("--code", "invalid_value", "--since", "1h"), ["a", "c"]),
        (("--until", "2001-01-01"), []),
        (("--feed", "events", "--code", "missing_key"), []),
    ):
        listed = home.json("dead-letters", "list", *chosen, "--json")["dead_letters"]
        assert [one["record_key"] for one in listed] == keys
        exported = home.call("dead-letters", "export", *chosen).stdout.splitlines()
        assert [json.loads(line)["key"] for line in exported] == keys
        assert home.json("dead-letters", "replay", *chosen, "--json")["considered"] == len(keys)
    ids = [str(one["id"]) for one in home.json("dead-letters", "list", "--json")["dead_letters"]]
    assert home.json("dead-letters", "replay", *ids[:2], "--json")["considered"] == 2
    assert home.json("dead-letters", "list", "--resolved", "--json")["dead_letters"] == []
    assert "resolved by" in home.call("dead-letters", "list", "--all").stdout
    assert "resolved by" not in home.call("dead-letters", "list").stdout


def test_explain_takes_a_run_or_a_file_and_says_when_it_knows_neither(home: Home) -> None:
    """--run and --file tell the same of one run, a page at a time; what is unknown is named, with exit code 1."""
    home.drop("sub/a.json", [record("a"), record("b", ts="2026-01-15T09:00:00Z")])
    home.run_once()
    of_run = home.json("explain", "--run", "1", "--json")
    of_file = home.json("explain", "--file", "a.json", "--json")
    assert [one["record_key"] for one in of_run["records"]] == ["a", "b"]
    assert (of_file["records"], of_file["runs"]) == (of_run["records"], [of_run["run"]])
    paged = home.json("explain", "--run", "1", "--limit", "1", "--after", "1", "--json")
    assert [one["record_key"] for one in paged["records"]] == ["b"]
    for unknown, said in ((("--run", "0"), "run 0"), (("--file", "x.json"), "a file named x.json")):
        asked = home.call("explain", *unknown)
        assert (asked.returncode, asked.stderr.strip()) == (1, f"nothing is known of {said}")
    assert home.call("explain", "a", "--run", "1").returncode == 2


def test_a_feed_that_is_none_is_named_with_those_there_are(home: Home) -> None:
    """A mistyped feed is a usage error that lists the config's feeds, whichever command it was given to."""
    home.drop("a.json", [record("a", ts="2026-01-15T09:00:00Z")])
    home.run_once()
    file = str(home.processed / "a.json")
    for command in (
        ("load", file, "--feed", "nope"),
        ("check", file, "--feed", "nope"),
        ("explain", "a", "--feed", "nope"),
        ("watermark", "set", "nope", "2026-01-15"),
        ("watermark", "reset", "nope"),
    ):
        asked = home.call(*command)
        assert asked.returncode == 2
        message = "there is no feed 'nope'; the config has: events"
        if command[0] == "explain":  # it knows of feeds that left the config, too
            message = "there is no feed or job 'nope'; there are: events"
        assert message in asked.stderr


def test_undo_tells_the_commands_that_reload_and_they_do(home: Home) -> None:
    """The command that undo prints brings back the records that had lost to the undone file."""
    ready(home, UNDO)
    home.drop("bad.json", [record("a", value=666, ts="2026-03-01T00:00:00Z")])
    home.run_once()
    home.drop("good.json", [record("a", value=1), record("b", value=2)])
    home.run_once()
    assert home.json("undo", "1", "--dry-run", "--json")["restored"] == 1
    done = home.json("undo", "1", "--json")
    assert (done["restored"], done["left"]) == (1, 0)
    [reload] = done["reload"]
    assert (reload["run_id"], reload["stale"]) == (2, 1)
    assert home.call(*reload["command"].split()[1:]).returncode == 0
    assert [(key, value) for key, _, value, _ in home.rows()] == [("a", 1.0), ("b", 2.0)]
    again = home.call("undo", "1")
    assert again.returncode == 1
    assert "undone" in again.stderr


SHARED = """
[feeds.{name}]
table = "both"
key = ["id"]
cursor = "ts"
late = "merge"
undo = true
[feeds.{name}.fields]
id = {{ type = "text" }}
ts = {{ type = "timestamp" }}
path = {{ type = "text", from = "$file.path" }}
"""


def test_a_reload_is_of_the_feed_and_the_path_that_the_file_had(home: Home) -> None:
    """Another feed may fill the table; and a row says where its file had lain, not where it was archived."""
    ready(home, SHARED.format(name="one") + SHARED.format(name="two"))
    home.drop("one/bad.json", [{"id": "a", "ts": "2026-03-01"}])
    home.run_once()
    home.drop("two/good.json", [{"id": "a", "ts": "2026-02-01"}])
    home.run_once()
    [reload] = home.json("undo", "1", "--json")["reload"]
    assert (reload["feed"], reload["file"]) == ("two", "two/good.json")
    assert home.call(*reload["command"].split()[1:]).returncode == 0
    assert home.query("SELECT id, path FROM both") == [("a", "two/good.json")]


LAST = """
[feeds.last]
match = ["**"]
key = ["key"]
undo = true
[feeds.last.fields]
key = { type = "text" }
value = { type = "integer" }
"""


def test_a_replay_that_lost_to_the_undone_run_is_replayed_by_the_commands_that_undo_prints(home: Home) -> None:
    """Undone, it opens its dead letters again, and they are replayed into what is there without the bad file."""
    ready(home, LAST)
    home.drop("bad.json", [{"key": "a", "value": 7}])
    home.run_once()
    ready(home, LAST.replace('"integer" }', '"integer", max = 5 }'))
    home.drop("refused.json", [{"key": "a", "value": 7}, {"key": "b", "value": 1}])
    home.run_once()
    ready(home, LAST)
    assert home.call("dead-letters", "replay").returncode == 0
    [reload] = home.json("undo", "1", "--json")["reload"]
    assert (reload["run_id"], reload["file"], reload["stale"]) == (3, None, 1)
    for command in reload["command"].split(" && "):
        assert home.call(*command.split()[1:]).returncode == 0
    assert home.query("SELECT key, value FROM last ORDER BY key") == [("a", 7), ("b", 1)]


def test_a_command_that_writes_waits_for_its_turn_and_says_so(home: Home) -> None:
    """While another program holds the database's write lock, undo waits and tells; then it does its work."""
    ready(home, UNDO)
    home.drop("a.json", [record("a")])
    home.run_once()
    holder = sqlite3.connect(home.database, isolation_level=None, timeout=10)
    holder.execute("BEGIN IMMEDIATE")
    waiting = subprocess.Popen(
        [*home.command, "undo", "1"], cwd=home.path, env=home.environment(), stderr=subprocess.PIPE, text=True
    )
    with waiting:
        assert waiting.stderr is not None
        assert "waiting for a turn" in waiting.stderr.readline()
        assert waiting.poll() is None
        holder.execute("ROLLBACK")
        holder.close()
        assert waiting.wait(30) == 0
    assert home.rows() == []


# doctor


def test_doctor_tells_what_stands_in_the_place_of_a_folder(home: Home) -> None:
    """A file or a pipe where the archive was: making the folder cannot help before that is moved away."""
    home.drop("a.json", [record("a")])
    assert home.run_once() == 0
    home.processed.rename(home.path / "moved")
    os.mkfifo(home.processed)
    done = home.call("doctor", "--json")
    (found,) = (one for one in json.loads(done.stdout)["checks"] if str(home.processed) in one["message"])
    assert "is no folder" in found["message"]
    assert found["remedy"].startswith("move that away")
    assert "Errno" not in done.stdout


def test_doctor_finds_each_disagreement_of_disk_and_ledger(home: Home) -> None:
    """Files without a run, runs without a file, claims without a daemon: each is wrong, with a remedy; then exit 1."""
    home.drop("a.json", [record("a")])
    home.drop("b.json", [record("b")])
    home.run_once()
    assert home.json("doctor", "--json")["ok"] is True
    assert home.call("doctor", "--deep").returncode == 0
    (home.processed / "a.json").rename(home.path / "stolen.json")
    (home.processed / "stranger.json").write_text("[]", encoding="utf-8")
    (home.failed / "odd.json").write_text("[", encoding="utf-8")
    claimed = home.inbox / ".claimed" / "20260101T000000000000-0123456789ab" / "c.json"
    claimed.parent.mkdir(parents=True)
    claimed.write_text(json.dumps([record("c", ts="2026-02-01T00:00:00Z")]), encoding="utf-8")
    done = home.call("doctor", "--json")
    assert done.returncode == 1
    wrong = [check for check in json.loads(done.stdout)["checks"] if check["status"] == "wrong"]
    text = " ".join(check["message"] for check in wrong)
    assert all(name in text for name in ("a.json", "stranger.json", "odd.json", "c.json"))
    assert "b.json" not in text
    assert all(check["remedy"] for check in wrong)
    assert home.run_once() == 0
    after = home.json("doctor", "--json")
    assert "claims" not in [check["check"] for check in after["checks"] if check["status"] == "wrong"]


def lasting(home: Home) -> set[Path]:
    """Return the files of a home, but for the one that the state file is written as for a moment."""
    return {path for path in files_in(home.path) if not path.name.startswith(f".{STATE_FILE}.")}


def test_doctor_leaves_nothing_behind_and_disturbs_no_daemon(home: Home) -> None:
    """The probe files are gone afterwards, and the daemon takes none of them for a file."""
    home.start()
    home.drop("a.json", [record("a")])
    home.verdict("a.json")
    before = lasting(home)
    assert home.call("doctor").returncode == 0
    home.drop("b.json", [record("b", ts="2026-02-01T00:00:00Z")])
    home.verdict("b.json")
    eventually((home.processed / "b.json").exists, "b.json in processed/")
    after = lasting(home) - {home.processed / "b.json"}
    assert after == before
    assert len(home.verdicts()) == 2


def test_doctor_finds_runs_that_are_running_in_the_ledger_alone(home: Home) -> None:
    """A row left running by a daemon that is gone is wrong; one of a killed one-shot load is ended by ``--mend``."""
    home.drop("a.json", [record("a")])
    home.run_once()
    connection = sqlite3.connect(home.database)
    insert = "INSERT INTO etl_runs (job_name, status, started_at, claim) VALUES ('events', 'running', ?, ?)"
    connection.execute(insert, ("2026-01-01T00:00:00.000000Z", None))
    connection.commit()
    warned = home.call("doctor", "--json")
    assert warned.returncode == 0
    assert [check["check"] for check in json.loads(warned.stdout)["checks"] if check["status"] == "warning"] == ["runs"]
    home.call("doctor", "--mend", check=True)
    assert home.query("SELECT error_code FROM etl_runs WHERE id = 2") == [("interrupted",)]
    connection.execute(insert, ("2026-01-01T00:00:00.000000Z", "a-claim"))
    connection.commit()
    connection.close()
    assert home.call("doctor").returncode == 1


def test_doctor_ends_the_wait_for_a_clock_that_was_once_far_ahead(home: Home) -> None:
    """One run dated years ahead makes every file wait; doctor says so, and ``--mend`` dates it to now."""
    home.drop("a.json", [record("a")])
    home.run_once()
    with closing(sqlite3.connect(home.database)) as connection, connection:
        connection.execute("UPDATE etl_runs SET started_at = ?, finished_at = ?", ("2099-01-01T00:00:00.000000Z",) * 2)
    home.drop("b.json", [record("b", ts="2026-02-01T00:00:00Z")])
    assert home.run_once() == 1
    assert {line["error_code"] for line in home.lines("file_deferred")} == {"clock_behind"}
    wrong = [check for check in home.json("doctor", "--json")["checks"] if check["status"] == "wrong"]
    assert [check["check"] for check in wrong] == ["clock"]
    assert "2099-01-01" in wrong[0]["remedy"]
    home.call("doctor", "--mend", check=True)
    assert home.run_once() == 0
    assert sorted(key for key, *_ in home.rows()) == ["a", "b"]
    assert home.query("SELECT COUNT(*) FROM etl_runs WHERE started_at > '2090' OR finished_at > '2090'") == [(0,)]


def test_check_counts_as_a_table_or_json_and_leaves_no_trace(home: Home) -> None:
    """``check`` classifies the records; tables and ledger are as before."""
    home.drop("a.json", [record("a")])
    home.run_once()
    dump = home.query("SELECT * FROM etl_runs"), home.rows(), home.query("SELECT * FROM lineage")
    path = home.write(
        "b.json",
        [record("a"), record("n", ts="2026-02-01T00:00:00Z"), record("x", value="?", ts="2026-02-02T00:00:00Z")],
    )
    done = home.call("check", str(path), "--json")
    assert done.returncode == 1
    [found] = json.loads(done.stdout)["files"]
    assert [found[name] for name in ("inserted", "changed", "skipped", "rejected")] == [1, 0, 1, 1]
    assert dump == (home.query("SELECT * FROM etl_runs"), home.rows(), home.query("SELECT * FROM lineage"))


def test_a_file_that_settles_is_said_to_settle_and_not_once_it_is_loaded(tmp_path: Path) -> None:
    """One word for it, beside what waits; and `status` compares what the daemon said with the folder as it is now."""
    with Home(tmp_path, QUICK) as home:
        home.start()
        with (home.inbox / "slow.json").open("wb") as file:
            file.write(b"[")
            file.flush()
            found = eventually(lambda: [one for one in [home.json("status", "--json")] if one["unsettled"]])[0]
            assert [(one["file"], one["code"]) for one in found["unsettled"]] == [("slow.json", "settling")]
            assert (found["deferred"], found["content"]["waiting"]) == ([], 1)
            text = home.call("status").stdout
            assert "settling" in text
            assert "deferred" not in text
            home.suspend()  # what it said stays as it was
            (home.inbox / "slow.json").unlink()
            found = home.json("status", "--json")
            assert (found["unsettled"], found["deferred"], found["content"]["waiting"]) == ([], [], 0)
            home.resume()
