"""``inboxd audit``: what the loader made is what its files say, and what is not so is found and named."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import inboxd
from audit_world import World
from inboxd.store import open_store
from inboxd.store.tables import etl_runs, lineage_records
from places import ROOT
from planted import PLANTED, Planted
from stores import MakeUrl, query

ROUNDS = 3
AUDIT = Path(inboxd.__file__).parent / "audit"
TRUST = ROOT / "docs" / "trust.md"


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_what_the_loader_made_is_what_its_files_say(make_url: MakeUrl, tmp_path: Path, seed: int) -> None:
    """Whatever was loaded, undone, retried, replayed, dismissed or loaded by force: an audit finds no difference."""
    world = World(tmp_path / "world", make_url(), 1000 + seed)
    world.live(6)
    found = world.audit()
    assert found["ok"], (found, world.done)
    assert sum(table["rows"] for table in found["tables"]) > 20
    assert not any(table["runs_unproven"] for table in found["tables"])


def test_what_came_before_a_run_is_taken_as_it_is(make_url: MakeUrl, tmp_path: Path) -> None:
    """``--since RUN`` proves that run and all after it, whatever was there before."""
    world = World(tmp_path / "world", make_url(), 7)
    world.live(6)
    runs = json.loads(world.call("runs", "list", "--json", "--limit", "1000")[1])["runs"]
    for run in runs[:: max(1, len(runs) // 4)]:
        if run["commit_no"] is not None:
            assert world.differences("--since", str(run["id"])) == [], run["id"]


def test_files_that_were_removed_on_purpose_are_told_and_the_rest_is_proved(make_url: MakeUrl, tmp_path: Path) -> None:
    """Where the archive was thinned out an audit says which runs nothing proves, and after which all is proved."""
    world = World(tmp_path / "world", make_url(), 11)
    world.live(3)
    world.thin_out(0)
    world.live(2)
    found = world.audit()
    assert found["ok"], (found, world.done)
    assert sum(table["runs_unproven"] for table in found["tables"]) > 3
    assert any(table["last_unproven"] for table in found["tables"])


def test_what_says_the_same_again_takes_the_place_of_what_is_undone(make_url: MakeUrl, tmp_path: Path) -> None:
    """An audit gives the row to the file that had said the same, with its record's number; so, too, a marked row."""
    world = World(tmp_path / "world", make_url(), 3)
    first, bad, other = told("a", 1), told("a", 2), told("b", 1)
    gone: dict[str, object] = {"key": "a", "op": "d"}
    files: dict[str, list[list[dict[str, object]]]] = {
        "last": [[first], [bad], [other, bad]],
        "lastmarks": [[first], [bad], [other, bad], [gone], [gone], [first]],
    }
    for feed, contents in files.items():
        for number, records in enumerate(contents):
            world.drop(f"{feed}/{number}.json", json.dumps(records).encode())
    world.call("run", "--once")
    for feed, order in (("last", "120"), ("lastmarks", "120354")):
        for place in order:
            found = json.loads(world.call("explain", "--file", f"{feed}/{place}.json", "--json")[1])
            world.call("undo", str(found["runs"][0]["id"]))
            assert world.differences() == [], (feed, place, world.done)


def test_a_key_that_is_a_question_mark_answers_no_record_without_a_key(make_url: MakeUrl, tmp_path: Path) -> None:
    """The dead letter of a record whose key cannot be read is called ``?`` and stays open, for an audit, too."""
    world = World(tmp_path / "world", make_url(), 3)
    for number, key in enumerate((None, "?")):
        world.drop(f"last/{number}.json", json.dumps([told("a", 1) | {"key": key}]).encode())
    world.call("run", "--once")
    assert world.differences() == [], world.done


def test_the_next_run_that_applied_its_key_has_resolved_what_an_undone_one_had(
    make_url: MakeUrl, tmp_path: Path
) -> None:
    """A dead letter is passed on by an undo, also to a file that had said the same again; the audit knows."""
    world = World(tmp_path / "world", make_url(), 3)
    bad, sound = told("a", 1) | {"value": {}}, told("a", 2)
    files = [[bad], [sound], [told("b", 1), sound], [told("a", 3)]]
    for number, records in enumerate(files):
        for feed in ("last", "merge"):
            world.drop(f"{feed}/{number}.json", json.dumps(records).encode())
    world.call("run", "--once")

    def run_of(name: str) -> int:
        return int(json.loads(world.call("explain", "--file", name, "--json")[1])["runs"][0]["id"])

    def resolver(feed: str) -> object:
        found = world.call("dead-letters", "list", "--all", "--feed", feed, "--json")[1]
        return json.loads(found)["dead_letters"][0]["resolved_by"]

    for feed, numbers in {"last": [1, 2, 3], "merge": [1, 3]}.items():  # with a cursor, the same again is not applied
        for number in numbers:
            by = run_of(f"{feed}/{number}.json")
            assert resolver(feed) == by, (feed, number, world.done)
            assert world.differences() == [], (feed, number, world.done)
            world.call("undo", str(by))
        assert resolver(feed) is None
        assert world.differences() == [], (feed, world.done)


def test_what_a_superseded_run_had_refused_comes_but_once(make_url: MakeUrl, tmp_path: Path) -> None:
    """Loaded by force, undone, replayed and retried by a mended config: each record is there once."""
    world = World(tmp_path / "world", make_url(), 3)
    records = [told("a", 1), told("b", 2) | {"name": 7}, told("c", 4)]
    feeds = ["facts", "last", "merge"]
    for feed in feeds:
        world.drop(f"{feed}/1.json", json.dumps(records).encode())
    world.call("run", "--once")

    def count_open() -> list[str]:
        found = json.loads(world.call("dead-letters", "list", "--json")[1])["dead_letters"]
        return sorted(one["feed"] for one in found)

    for feed in feeds:
        world.call("load", str(world.path / f"data/processed/{feed}/1.json"), "--feed", feed, "--force", "--yes")
    assert (count_open(), world.differences()) == (feeds, []), world.done
    for run in json.loads(world.call("runs", "list", "--json", "--limit", "3")[1])["runs"]:
        world.call("undo", str(run["id"]))
    assert (count_open(), world.differences()) == ([], []), world.done
    config = world.path / "inboxd.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('name = { type = "text"', 'name = { type = "text", coerce = true'), encoding="utf-8")
    world.call("dead-letters", "replay")
    world.call("retry", *(f"{feed}/1.json" for feed in feeds), "--yes")
    with open_store(world.url) as store:
        for feed in feeds:
            assert query(store, f"SELECT key FROM {feed} ORDER BY key") == [("a",), ("b",), ("c",)], world.done


@pytest.mark.parametrize("missing", [0, 2])
def test_an_unknown_row_may_be_of_any_run_that_could_have_written_it(
    make_url: MakeUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    """Without a run's file and its lineage nobody knows what later ones met: no difference is made up of that."""
    world = World(tmp_path / "world", make_url(), 3)
    gone: dict[str, object] = {"op": "d"}
    contents: list[list[dict[str, object]]] = [
        [told("x", 1)],
        [told("a", 45), told("b", 45), told("c", 2) | {"value": {}}],
        [told("y", 1)],
        [told("a", 30), told("b", 45), told("c", 3)],
    ]
    for number, records in enumerate(contents):
        for feed in ("merge", "removes", "last"):
            world.drop(f"{feed}/{number}.json", json.dumps(records).encode())
        world.drop(f"marks/{number}.json", json.dumps([*records, told("a", 40) | gone]).encode())
        world.call("run", "--once")
    assert world.differences() == []
    with open_store(world.url) as store, store.writing() as connection:
        of_file = etl_runs.c.file_name.like(f"%/{missing}.json")
        connection.execute(sa.update(etl_runs).where(of_file).values(file_removed=etl_runs.c.started_at))
        connection.execute(sa.delete(lineage_records))
    for path in (world.path / "data" / "processed").rglob(f"{missing}.json"):
        path.unlink()
    monkeypatch.setenv("INBOXD_RETENTION__LINEAGE", "1ms")
    found = world.audit()
    assert found["ok"], (found, world.done)
    unproven = {table["table"]: table["rows_unproven"] for table in found["tables"]}
    assert unproven["merge"] == 5
    if missing > 0:  # all before is forgotten, so the last run may have written it
        return
    with open_store(world.url) as store, store.writing() as connection:
        wrong = sa.text(
            "UPDATE merge SET run_id = (SELECT MAX(id) FROM etl_runs WHERE job_name = 'merge') WHERE key = 'a'"
        )
        connection.execute(wrong)
    assert [(one["kind"], one["key"]) for one in world.differences()] == [("row_unexpected", "a")]


# Planted faults


def told(key: str, minute: int, **more: object) -> dict[str, object]:
    """Return a record."""
    return {"key": key, "name": "Ada", "value": minute, "ts": f"2026-01-15T10:{minute:02d}:00Z", **more}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a world in which all is as its files say."""
    path = tmp_path_factory.mktemp("audit") / "world"
    world = World(path, f"sqlite:///{path}/inboxd.db", 0)
    files = {
        "merge/1.json": [told("a", 1), told("b", 2), told("bad", 3, name=" ")],
        "merge/2.json": [told("a", 5), told("a", 4)],
        "merge/again.json": [told("a", 1), told("b", 2), told("bad", 3, name=" ")],
        "merge/undone.json": [told("u", 1)],
        "removes/1.json": [told("b", 2), told("a", 3, op="d")],
        "removes/0.json": [told("a", 1)],
        "marks/1.json": [told("a", 1), told("a", 2, op="d")],
        "facts/1.json": [told("a", 1), told("a", 1)],
        "skip/1.json": [told("a", 2)],
    }
    for name in ("removes/0.json", *(name for name in files if name != "removes/0.json")):
        world.drop(name, json.dumps(files[name]).encode())
    world.call("run", "--once")
    undone = json.loads(world.call("explain", "--file", "merge/undone.json", "--json")[1])["runs"][0]["id"]
    world.call("undo", str(undone))
    assert world.differences() == []
    return world


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.what.replace(" ", "-"))
def test_a_planted_fault_is_found_and_named(sound: World, tmp_path: Path, planted: Planted) -> None:
    """An audit tells what is wrong with which key, by which run and file, and exits with 1."""
    folder = tmp_path / "world"
    shutil.copytree(sound.path, folder)
    text = (folder / "inboxd.toml").read_text(encoding="utf-8")
    (folder / "inboxd.toml").write_text(text.replace(str(sound.path), str(folder)), encoding="utf-8")
    with closing(sqlite3.connect(folder / "inboxd.db")) as database, database:
        if isinstance(planted.plant, str):
            assert database.execute(planted.plant).rowcount > 0
        else:
            planted.plant(folder / "data" / "processed")
    world = World.__new__(World)
    world.path, world.done = folder, []
    code, printed = world.call("audit", "--json")
    found: list[dict[str, Any]] = [one for table in json.loads(printed)["tables"] for one in table["differences"]]
    named = [one for one in found if one["kind"] == planted.kind and planted.key in {None, one["key"]}]
    assert code == 1
    assert named, found
    if planted.file is not None:
        assert planted.file in {one["file"] for one in named}
        assert all(one["run_id"] for one in named)


def test_the_documents_list_what_is_planted() -> None:
    """The list of planted faults that an audit finds is that of the tests, and so are the kinds of differences."""
    text = TRUST.read_text(encoding="utf-8")
    listed = re.findall(r"^\| (.*?) \| audit \| `(\w+)` \|$", text, re.MULTILINE)
    assert listed == [(planted.what, planted.kind) for planted in PLANTED]
    source = "".join(path.read_text(encoding="utf-8") for path in AUDIT.glob("*.py"))
    kinds = set(re.findall(r'differs\(\s*"(\w+)"', source)) | set(re.findall(r'kind, what = \(?"(\w+)"', source))
    table = text.partition("| difference | what it says |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:]))) == kinds
