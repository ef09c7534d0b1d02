"""``check``, and commands where there is no database, or none for this user."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from daemons import Home, record
from stores import MakeUrl

pytestmark = pytest.mark.on_citus

FEED = """
[feeds.orders]
match = ["**"]
key = ["k"]
cursor = "c"
[feeds.orders.fields]
k = { type = "text" }
c = { type = "integer" }
"""

DUMP = """
[feeds.dump]
match = ["**"]
mode = "snapshot"
key = ["k"]
absent = "remove"
max_deleted = "100%"
where = { from = "no", exists = false }
fields.k = { type = "text" }
"""


def test_check_predicts_on_both_databases(make_url: MakeUrl, tmp_path: Path) -> None:
    """``check`` tells what ``load`` then does, on SQLite and on PostgreSQL, with or without tables."""
    home = Home(tmp_path, env={"INBOXD_DATABASE__URL": make_url()})
    (tmp_path / "a.json").write_text(json.dumps([record("a"), record("b")]), encoding="utf-8")
    assert home.json("check", "a.json", "--json")["files"][0]["inserted"] == 2
    home.call("load", "a.json", check=True)
    (tmp_path / "b.json").write_text(
        json.dumps([record("a", ts="2026-02-01T00:00:00Z"), record("b")]), encoding="utf-8"
    )
    found = home.json("check", "b.json", "--json")["files"][0]
    assert (found["inserted"], found["changed"], found["skipped"]) == (0, 1, 1)


def test_check_of_a_feed_whose_table_is_still_to_be_made(make_url: MakeUrl, tmp_path: Path) -> None:
    """A feed that was just written into the config is checked before any start has made its table."""
    home = Home(tmp_path, env={"INBOXD_DATABASE__URL": make_url()})
    (tmp_path / "a.json").write_text(json.dumps([record("a")]), encoding="utf-8")
    home.call("load", "a.json", check=True)
    (tmp_path / "inboxd.toml").write_text(FEED, encoding="utf-8")
    (tmp_path / "b.json").write_text('[{"k": "x", "c": 1}, {"k": "x", "c": 2}]', encoding="utf-8")
    found = home.json("check", "b.json", "--json")["files"][0]
    assert (found["inserted"], found["stale"], found["error_code"]) == (1, 1, None)


def test_check_prints_what_would_go_and_what_is_refused(tmp_path: Path) -> None:
    """Rows that would go and records that are filtered have columns where there are any; a refusal is exit code 1."""
    home = Home(tmp_path)
    (tmp_path / "inboxd.toml").write_text(DUMP, encoding="utf-8")
    (tmp_path / "a.json").write_text('[{"k": "x"}, {"k": "y"}]', encoding="utf-8")
    assert "deleted" not in home.call("check", "a.json", check=True).stdout
    os.utime(tmp_path / "a.json", (1_000_000_000, 1_000_000_000))
    home.call("load", "a.json", check=True)
    (tmp_path / "b.json").write_text('[{"k": "x"}, {"k": "n", "no": 1}]', encoding="utf-8")
    (tmp_path / "c.json").write_text("[]", encoding="utf-8")
    done = home.call("check", "b.json", "c.json")
    title, of_b, of_c, *_ = done.stdout.splitlines()
    output = " ".join(title.split())
    assert output == "file feed inserted changed stale skipped rejected filtered deleted verdict"
    assert of_b.split()[-3:] == ["1", "1", "ok"]
    assert of_c.split()[-1] == "snapshot_empty"
    assert done.returncode == 1
    (tmp_path / "a.json").write_text('[{"k": "x"}]', encoding="utf-8")
    os.utime(tmp_path / "a.json", (1_000_000_000, 1_000_000_000))
    old = home.call("check", "a.json", check=True)
    assert "not newer than the snapshot" in old.stdout


def test_status_and_runs_tell_what_was_deleted_and_filtered(tmp_path: Path) -> None:
    """Where there is any; else neither has a word of it."""
    home = Home(tmp_path)
    (tmp_path / "inboxd.toml").write_text(DUMP, encoding="utf-8")
    (tmp_path / "a.json").write_text('[{"k": "x"}, {"k": "y"}]', encoding="utf-8")
    os.utime(tmp_path / "a.json", (1_000_000_000, 1_000_000_000))
    home.call("load", "a.json", check=True)
    assert "deleted" not in home.call("runs", "list", check=True).stdout
    assert "deleted" not in home.call("status", check=True).stdout
    (tmp_path / "b.json").write_text('[{"k": "x"}, {"k": "n", "no": 1}]', encoding="utf-8")
    home.call("load", "b.json", check=True)
    title, newest, *_ = home.call("runs", "list", check=True).stdout.splitlines()
    output = dict(zip(title.split(), newest.split(), strict=False))
    assert (output["in"], output["stale"], output["filtered"], output["deleted"]) == ("2", "1", "1", "1")
    assert ", 2 rows, 1 deleted, 1 filtered" in home.call("status", check=True).stdout


def test_the_config_is_taken_before_and_after_the_command(tmp_path: Path) -> None:
    """``--config FILE`` may stand anywhere."""
    home = Home(tmp_path)
    (tmp_path / "other.toml").write_text(FEED, encoding="utf-8")
    for words in (
        ("--config", "other.toml", "config", "check"),
        ("config", "check", "--config", "other.toml"),
        ("config", "check", "--config=other.toml"),
    ):
        assert "orders" in home.call(*words, check=True).stdout


def test_a_restored_database_gets_its_files_back_by_one_command(tmp_path: Path) -> None:
    """After the database is gone, ``retry --all`` loads what is in processed again, and the second time nothing."""
    with Home(tmp_path) as home:
        for number in range(3):
            home.drop(f"{number}.json", [record(f"k{number}", ts=f"2026-01-0{number + 1}T00:00:00Z")])
        home.run_once()
        rows = home.rows()
        assert len(rows) == 3
        home.database.unlink()
        done = home.json("retry", "--all", "--json")
        assert [one["outcome"] for one in done["files"]] == ["loaded"] * 3
        assert home.rows() == rows
        assert home.json("retry", "--all", "--json")["files"] == []


def test_explain_before_the_column_of_a_new_field_is_there(tmp_path: Path) -> None:
    """A question about a row needs no start of the daemon after the config was changed."""
    home = Home(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps([record("a")]), encoding="utf-8")
    home.call("load", "a.json", check=True)
    (tmp_path / "inboxd.toml").write_text('[feeds.events]\nextra = "keep"\n', encoding="utf-8")
    found = home.call("explain", "a", "--json")
    assert found.returncode == 0, found.stderr
    assert "Alice" in found.stdout


@pytest.mark.root
def test_a_database_of_another_user_is_a_matter_of_permission(
    tmp_path: Path, require_root: Callable[[], None], require_tool: Callable[[str, str], str]
) -> None:
    """A command that writes where it may not ends with exit code 77 and says who should run it."""
    require_root()
    home = Home(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps([record("a")]), encoding="utf-8")
    home.call("load", "a.json", check=True)
    for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]:
        os.chown(path, 65534, 65534)
    no_rights = "-dac_override,-dac_read_search,-fowner"
    stranger = [require_tool("setpriv", "util-linux"), "--bounding-set", no_rights, "--inh-caps", no_rights]
    done = subprocess.run(
        [*stranger, *home.command, "watermark", "reset", "events"],
        cwd=tmp_path,
        env=home.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 77, done.stderr
    assert "sudo -u" in done.stderr


def test_the_hint_on_a_broken_file_is_true_wherever_it_lies(tmp_path: Path) -> None:
    """A file that is loaded where it lies can be loaded again, and ``retry`` is only for one in ``failed/``."""
    home = Home(tmp_path)
    (tmp_path / "a.json").write_text("[1,}", encoding="utf-8")
    for command in (("load", "a.json"), ("check", "a.json", "--json")):
        done = home.call(*command)
        assert done.returncode == 1
        hint = json.loads(done.stdout)["files"][0]["hint"]
        assert "load it again" in hint
        assert hint.index("failed/") < hint.index("retry")
