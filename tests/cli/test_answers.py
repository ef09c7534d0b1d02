"""What commands tell is so: the daemon's own config, what cannot be known from here, names that are none."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from daemons import Home, eventually, record
from inboxd.extras import how_to_install

FACTS: Final = """
[feeds.facts]
match = ["**"]
mode = "append"
fields.n = { type = "text" }
"""
KEYED: Final = """
[feeds.keyed]
key = ["n"]
cursor = "at"
late = "merge"
fields.n = { type = "text" }
fields.at = { type = "timestamp" }
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A place for a daemon with the built-in feed."""
    with Home(tmp_path) as made:
        yield made


# the config


def test_a_config_made_or_changed_after_the_start_is_told_until_it_is_loaded(home: Home) -> None:
    """``status`` names the config that the daemon uses, and says when the file on disk is another one by now."""
    home.start()
    started = home.lines("daemon_started")[0]
    assert started["config"] == "none: the defaults are in force"
    assert "reload" in started["reload"]
    file = home.path / "inboxd.toml"
    file.write_text('[inbox]\nrescan = "29s"\n', encoding="utf-8")
    found = home.json("status", "--json")
    assert found["daemon"]["config"] is None
    assert [problem["code"] for problem in found["problems"]] == ["config_newer"]
    shown = home.call("status").stdout
    assert f"the daemon uses the defaults, not {file}" in shown
    assert "systemctl reload inboxd" in shown
    reload(home, 1)
    found = home.json("status", "--json")
    assert (found["daemon"]["config"], found["problems"]) == (str(file), [])
    file.write_text('[inbox]\nrescan = "28s"\n', encoding="utf-8")
    os.utime(file, ns=(1, 1))  # older by its date, and yet another one
    found = home.json("status", "--json")
    assert [problem["code"] for problem in found["problems"]] == ["config_newer"]
    assert "is newer than the config that the daemon uses" in home.call("status").stdout
    reload(home, 2)
    assert home.json("status", "--json")["problems"] == []


def test_a_feed_that_gave_up_its_cursor_breaks_no_answer(home: Home) -> None:
    """Its last watermark is not the feed's any more: ``status``, the page and the metrics leave it out."""
    feed = '[feeds.events]\nkey = ["key"]\nlate = "merge"\n'
    file = home.path / "inboxd.toml"
    file.write_text(feed, encoding="utf-8")
    home.drop("a.json", [record("k")])
    assert home.run_once() == 0
    file.write_text(feed.replace('late = "merge"', 'mode = "upsert"\ncursor = ""'), encoding="utf-8")
    (mark,) = home.json("status", "--json")["watermarks"]
    assert (mark["value"], mark["lag_s"]) == (None, None)
    home.start("--http", "127.0.0.1:0")
    address = eventually(lambda: home.lines("http_started"), "the page")[0]["address"]
    page = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    for path in ("/", "/metrics"):
        page.request("GET", path)
        answer = page.getresponse()
        answer.read()
        assert (path, answer.status) == (path, 200)
    page.close()


def reload(home: Home, times: int) -> None:
    """Have the daemon load its config anew, and wait until its state file says so."""
    assert home.process is not None
    home.process.send_signal(1)
    eventually(lambda: len(home.lines("config_reloaded")) == times, "config_reloaded")
    mtime = (home.path / "inboxd.toml").stat().st_mtime_ns
    state = home.path / "data" / "inboxd.state.json"
    eventually(lambda: json.loads(state.read_text("utf-8")).get("config_mtime_ns") == mtime, "the state file")


def test_a_command_with_another_config_than_the_daemon_says_so(home: Home) -> None:
    """``status`` shows the daemon's config, not the one that it found itself."""
    own = home.path / "own.toml"
    own.write_text("", encoding="utf-8")
    home.start("--config", str(own))
    (home.path / "inboxd.toml").write_text("", encoding="utf-8")
    found = home.json("status", "--json")
    assert found["daemon"]["config"] == str(own)
    assert [problem["code"] for problem in found["problems"]] == ["config_differs"]
    assert f"config     {own}" in home.call("status").stdout


# permission


@pytest.mark.root
def test_whether_a_daemon_runs_is_not_guessed_where_its_lock_cannot_be_read(
    home: Home, require_root: Callable[[], None], require_tool: Callable[[str, str], str]
) -> None:
    """As another user: "cannot be told from here (permission)", ``null`` in JSON; all else is answered, exit code 0."""
    require_root()
    home.start()
    home.drop("a.json", [record("a")])
    home.verdict("a.json")
    lock = home.database.with_name(home.database.name + ".lock")
    lock.chmod(0o640)
    os.chown(lock, 65534, 65534)
    no_rights = "-dac_override,-dac_read_search,-fowner"
    stranger = [require_tool("setpriv", "util-linux"), "--bounding-set", no_rights, "--inh-caps", no_rights]

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*stranger, *home.command, *words]
        return subprocess.run(
            command, cwd=home.path, env=home.environment(), capture_output=True, text=True, check=False
        )

    answered = ask("status", "--json")
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["daemon"]["running"] is None
    assert "cannot be told from here (permission)" in ask("status").stdout
    assert "cannot be told from here (permission)" in ask("doctor").stdout


# names


def test_a_filter_that_names_nothing_is_answered_with_the_near_names(home: Home) -> None:
    """A feed, job or error code that is none is exit code 2, never an empty answer."""
    home.drop("a.json", [record("a", value="x")])
    home.run_once()
    for command, said in (
        (("health", "--job", "evnts"), "did you mean events?"),
        (("health", "--feed", "zzz"), "there are: events"),
        (("runs", "list", "--feed", "event"), "did you mean events?"),
        (("dead-letters", "list", "--feed", "evnts"), "did you mean events?"),
        (("dead-letters", "export", "--code", "invalid_valu"), "did you mean invalid_value"),
        (("dead-letters", "replay", "--feed", "zzz"), "there are: events"),
        (("watermark", "reset", "evnts"), "did you mean events?"),
        (("dead-letters", "list", "--run", "9"), "there is no run 9"),
        (("dead-letters", "export", "--run", "9"), "there is no run 9"),
        (("dead-letters", "replay", "--run", "9"), "there is no run 9"),
        (("dead-letters", "replay", "1", "99"), "there is no dead letter 99;"),
        (("dead-letters", "dismiss", "1", "0"), "there is no dead letter 0;"),
    ):
        asked = home.call(*command)
        assert asked.returncode == 2, command
        assert said in asked.stderr, command
        assert "Traceback" not in asked.stderr
    assert [one["id"] for one in home.json("dead-letters", "list", "--json")["dead_letters"]] == [1]


def test_dead_letters_that_were_not_asked_for_are_not_denied(home: Home) -> None:
    """Where a number, a filter or ``--resolved`` finds none, others may be open; an export tells its feeds."""
    other = KEYED.replace("[feeds.keyed]", '[feeds.keyed]\nmatch = ["keyed/**"]')
    (home.path / "inboxd.toml").write_text(f"{other}\n[feeds.events]\n", encoding="utf-8")
    home.drop("a.json", [record("a", value="x")])
    assert home.call("dead-letters", "list").stdout == "no open dead letters\n"
    home.drop("keyed/b.json", [{"n": 1}])
    home.drop("keyed/c.json", [{"n": 2}])
    home.run_once()
    assert home.call("dead-letters", "list", "--resolved").stdout == "no resolved dead letters\n"
    home.call("dead-letters", "dismiss", "3", check=True)
    for words in (("list", "--run", "3"), ("replay", "3"), ("list", "--until", "9d")):
        assert home.call("dead-letters", *words, check=True).stdout == "no such open dead letters\n"
    assert (
        "feeds events, keyed; to drop them again, export each feed by itself"
        in home.call("dead-letters", "export").stderr
    )


def test_dead_letters_of_a_feed_that_left_the_config_are_told_to_stay_open(home: Home) -> None:
    """``replay`` says on standard output what is open after it: feed, code, how many, and why."""
    home.drop("a.json", [record("a", value="x"), record("b", value="y"), record("c", name="")])
    home.run_once()
    (home.path / "inboxd.toml").write_text(
        '[feeds.other]\nkey = ["k"]\ncursor = "t"\nfields = { k = { type = "text" }, t = { type = "date" } }\n', "utf-8"
    )
    for words in ((), ("--feed", "events")):
        done = home.call("dead-letters", "replay", *words)
        assert "no open dead letters" not in done.stdout
        assert "the feed is not in the config" in done.stdout
        found = home.json("dead-letters", "replay", *words, "--json")
        assert [(one["feed"], one["code"], one["count"]) for one in found["open"]] == [
            ("events", "invalid_value", 2),
            ("events", "missing_name", 1),
        ]


def test_nothing_judged_is_not_nought_per_cent(home: Home) -> None:
    """Where no run has ended there is no success rate: the text says so; the JSON has the zeros it promises."""
    assert home.call("health").stdout.count("no run has ended") == 1
    assert "%" not in home.call("health").stdout
    assert home.json("health", "--json")["success_rate"] == 0.0
    home.call("db", "upgrade", check=True)
    assert "no run has ended" in home.call("status").stdout


def test_a_time_says_how_far_back_health_looks(home: Home) -> None:
    """``--since 24h`` and ``--hours 24`` are one thing, and ``--feed`` is ``--job``."""
    home.drop("a.json", [record("a")])
    home.run_once()
    by_hours = home.json("health", "--hours", "24", "--json", "--job", "events")
    assert home.json("health", "--since", "24h", "--json", "--feed", "events") == by_hours
    assert (by_hours["window_hours"], by_hours["total_runs"]) == (24, 1)
    assert home.call("health", "--since", "2099-01-01").returncode == 2
    assert home.call("health", "--since", "1h", "--hours", "1").returncode == 2


# extras


def test_the_hint_for_a_missing_extra_can_be_typed() -> None:
    """It names the environment that inboxd runs in, and packages that exist under these names."""
    hint = how_to_install("web")
    assert f"--python {sys.executable}" in hint
    wanted = [one.partition(";")[0].strip() for one in requires("inboxd") or [] if "'web'" in one]
    assert wanted
    assert all(one in hint for one in wanted)
    assert "inboxd[" not in hint


def test_a_database_whose_driver_is_missing_is_no_bug(tmp_path: Path) -> None:
    """PostgreSQL without its driver: a sentence, how to install it, exit code 78: the config asks for it."""
    block = "import sys; sys.modules['psycopg'] = None\nfrom inboxd.cli import run_cli\nsys.exit(run_cli(['health']))"
    home = Home(tmp_path, env={"INBOXD_DATABASE__URL": "postgresql://nobody@127.0.0.1:1/none"})
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=home.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 78, done.stderr
    assert "psycopg" in done.stderr
    assert "--python" in done.stderr


def test_a_record_without_a_key_is_told_with_its_row(home: Home) -> None:
    """``#2`` of an append feed is the second record of each file; the row is that of the newest run that stands."""
    (home.path / "inboxd.toml").write_text(FACTS, encoding="utf-8")
    for name in ("a", "b"):
        (home.path / f"{name}.json").write_text(json.dumps([{"n": f"{name}1"}, {"n": f"{name}2"}]), encoding="utf-8")
        home.call("load", f"{name}.json", check=True)
    assert home.json("explain", "#2", "--json")["feeds"][0]["row"]["n"] == "b2"
    home.call("undo", "2", check=True)
    assert home.json("explain", "#2", "--json")["feeds"][0]["row"]["n"] == "a2"
    assert "no row" not in home.call("explain", "#2").stdout
    home.call("undo", "1", check=True)
    assert "no row in table facts" in home.call("explain", "#2").stdout


def test_a_feed_that_never_has_a_watermark_is_not_told_to_have_none_yet(home: Home) -> None:
    """``status`` and ``watermark show`` tell a feed without a cursor from one that has loaded nothing yet."""
    (home.path / "inboxd.toml").write_text(FACTS + KEYED, encoding="utf-8")
    home.call("db", "upgrade", check=True)
    for command in (("status",), ("watermark", "show")):
        shown = [line.split() for line in home.call(*command, check=True).stdout.splitlines()]
        assert ["facts", "no", "cursor"] in shown
        assert ["keyed", "none", "yet"] in shown
    assert [mark["cursor"] for mark in home.json("status", "--json")["watermarks"]] == [None, "at"]


def test_a_list_that_was_cut_says_so_and_a_whole_one_does_not(home: Home) -> None:
    """``explain --run`` and ``dead-letters list`` name the next page where there is one; it has the rest."""
    home.drop("a.json", [record("a", value="x"), record("b", value="x"), record("c", value="x")])
    home.run_once()
    for command in (("explain", "--run", "1"), ("explain", "--file", "a.json"), ("dead-letters", "list")):
        assert "… more: --after 2" in home.call(*command, "--limit", "2", check=True).stdout
        for whole in (("--limit", "3"), ("--limit", "2", "--after", "2"), ("--limit", str(2**63 - 1))):
            assert "more" not in home.call(*command, *whole, check=True).stdout
    assert len(home.json("explain", "--run", "1", "--limit", "2", "--json")["records"]) == 2
    assert len(home.json("dead-letters", "list", "--limit", "2", "--json")["dead_letters"]) == 2


def test_check_says_that_a_duplicate_would_change_nothing(home: Home) -> None:
    """What stands beside "duplicate" is told to be what the content would do if it were new."""
    (home.path / "inboxd.toml").write_text(FACTS, encoding="utf-8")
    (home.path / "a.json").write_text('[{"n": "x"}]', encoding="utf-8")
    assert "has loaded this content" not in home.call("check", "a.json").stdout
    home.call("load", "a.json", check=True)
    assert (
        "a.json: run 1 has loaded this content, so that it would change nothing" in home.call("check", "a.json").stdout
    )


def test_all_errors_of_a_refused_config_are_lines_of_the_status(home: Home) -> None:
    """``status`` with another config tells what the daemon refused, a line for each error."""
    (home.path / "inboxd.toml").write_text("", encoding="utf-8")
    (home.path / "good.toml").write_text("", encoding="utf-8")
    home.start()
    (home.path / "inboxd.toml").write_text('[log]\nlevel = "loud"\nlevle = "info"\n', encoding="utf-8")
    assert home.process is not None
    home.process.send_signal(1)
    eventually(lambda: "refused it" in home.call("--config", "good.toml", "status").stdout, "the refusal")
    told = home.call("--config", "good.toml", "status").stdout
    assert "\\n" not in told
    assert "2 errors in the config:\n" in told
    assert "inboxd.toml:3: log.levle: unknown key" in told
