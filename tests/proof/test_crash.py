"""Killed at every boundary of a file's way, and started again: nothing lost, nothing twice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from crashing import BAD, GOOD, crash, state
from daemons import Home, files_in, record
from inboxd.outcomes import Edge, Step

FAILING_STEPS = [Step.CLAIM, Step.BEGIN, Step.STAGE, Step.ARCHIVE]
"""The boundaries that a malformed file reaches."""

pytestmark = pytest.mark.crash


def undisturbed(path: Path, name: str, content: Sequence[object]) -> dict[str, object]:
    """Return the state after a run in which nothing happened."""
    with Home(path) as home:
        home.drop(name, content)
        home.run_once()
        return state(home)


@pytest.mark.parametrize("edge", Edge)
@pytest.mark.parametrize("step", Step)
def test_a_crash_at_any_step_changes_nothing_in_the_end(tmp_path: Path, step: Step, edge: Edge) -> None:
    """A daemon killed before or after any step, and started again, ends where one that was not killed ends."""
    with Home(tmp_path / "crashed") as home:
        home.drop("a.json", GOOD)
        crash(home, step, edge)
        assert home.run_once() == 0
        expected = undisturbed(tmp_path / "calm", "a.json", GOOD)
        assert state(home) == {**expected, "inbox": state(home)["inbox"]}
        assert not files_in(home.inbox)
        assert len(home.verdicts("a.json")) == 1


CHANGES: Final = """
[feeds.cdc]
match = ["cdc/**"]
key = ["k"]
cursor = "at"
late = "merge"
deletes = { from = "op", in = ["d"], then = "remove" }
fields = { k = { type = "text" }, at = { type = "integer" } }
[feeds.dump]
match = ["dump/{at}.json"]
mode = "snapshot"
as_of = { from = "$path.at", type = "integer" }
key = ["k"]
absent = "mark"
max_deleted = "100%"
undo = true
fields = { k = { type = "text" }, at = { type = "integer" } }
"""
BEFORE: Final = [{"k": key, "at": 1} for key in "abc"]
CHANGED: Final = {
    "cdc/2.json": [{"k": "a", "at": 2, "op": "d"}, {"k": "b", "at": 2}, {"k": "z", "at": 9, "op": "d"}],
    "dump/2.json": [{"k": "a", "at": 2}, {"k": "c", "at": 1}, {"k": "d", "at": 1}],
}
DELETING: Final = {
    "rows": "SELECT 'cdc', k, at, 1, run_id FROM cdc "
    "UNION ALL SELECT 'dump', k, at, deleted_at IS NULL, run_id FROM dump",
    "tombstones": "SELECT record_key, cursor FROM tombstones",
    "watermarks": "SELECT name, value FROM watermarks",
    "images": "SELECT table_name, record_key, image IS NULL FROM before_images",
    "lineage": "SELECT record_key, step, record_no FROM lineage",
    "runs": "SELECT file_name, rows_in, rows_out, rows_stale, rows_deleted FROM etl_runs WHERE status = 'success'",
}


def deleting(home: Home) -> dict[str, list[tuple[Any, ...]]]:
    """Return what deletions and snapshots have left."""
    found = {name: sorted(home.query(question)) for name, question in DELETING.items()}
    runs = dict(home.query("SELECT id, file_name FROM etl_runs"))
    return {**found, "rows": sorted((*row[:-1], runs[row[-1]]) for row in found["rows"])}


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("step", [Step.LOCK, Step.UPSERT, Step.ADVANCE, Step.RECORD, Step.COMMIT])
def test_a_crash_among_deletions_changes_nothing_in_the_end(tmp_path: Path, name: str, step: Step) -> None:
    """Rows that went or were marked, tombstones, watermarks, before-images: as if the daemon had not been killed."""
    ends = []
    for crashes in (False, True):
        with Home(tmp_path / str(crashes), CHANGES) as home:
            home.drop(f"{name[:-6]}1.json", BEFORE)
            assert home.run_once() == 0
            home.drop(name, CHANGED[name])
            if crashes:
                crash(home, step, Edge.AFTER)
            assert home.run_once() == 0
            assert len(home.verdicts(name)) == 1
            ends.append(deleting(home))
    assert ends[0] == ends[1]
    assert ends[0]["runs"][-1][-1] == 1


@pytest.mark.parametrize("edge", Edge)
@pytest.mark.parametrize("step", FAILING_STEPS)
def test_a_crash_around_a_failing_file_still_ends_in_failed(tmp_path: Path, step: Step, edge: Edge) -> None:
    """A malformed file ends in failed with its report, wherever the daemon was killed."""
    if (step, edge) == (Step.STAGE, Edge.AFTER):
        edge = Edge.BEFORE  # staging a malformed file has no end
    with Home(tmp_path) as home:
        home.drop("bad.json", BAD)
        crash(home, step, edge)
        home.run_once()
        found = state(home)
        assert found["failed"] == ["bad.json", "bad.json.error.json"]
        assert found["processed"] == []
        assert home.query("SELECT COUNT(*) FROM etl_runs WHERE error_code = 'invalid_json'") == [(1,)]
        assert len(home.verdicts("bad.json")) == 1


def test_a_crash_is_noted_for_the_file_in_work_alone(tmp_path: Path) -> None:
    """Of small files that were claimed at once only the one in work counts as interrupted, and their order stays."""
    names = ["a.json", "b.json", "c.json"]
    with Home(tmp_path) as home:
        for number, name in enumerate(names):
            path = home.write(f"all/{name}", [record("k", ts=f"2026-01-15T10:30:0{number}Z")])
            os.utime(path, (1_760_000_000 + number,) * 2)
        (tmp_path / "outside" / "all").rename(home.inbox / "all")
        crash(home, Step.STAGE, Edge.AFTER)
        assert home.query("SELECT COUNT(*) FROM etl_runs") == [(0,)]
        assert home.run_once() == 0
        assert home.query("SELECT file_name FROM etl_runs WHERE error_code = 'interrupted'") == [("all/a.json",)]
        assert [line["file"] for line in home.lines("file_loaded")] == [f"all/{name}" for name in names]


def test_what_a_recovered_files_line_says_is_what_a_loaded_files_line_says(tmp_path: Path) -> None:
    """After a crash between COMMIT and the line, ``file_recovered`` has the same values of the same types."""
    config = """
[feeds.numbered]
match = ["**"]
key = ["key"]
cursor = "no"
[feeds.numbered.fields]
key = { type = "text" }
no = { type = "integer" }
"""
    recovered = []
    for name, crashes in (("calm", False), ("crashed", True)):
        with Home(tmp_path / name, config) as home:
            home.drop("a.json", [{"key": "a", "no": 3}, {"key": "b", "no": -12}])
            if crashes:
                crash(home, Step.COMMIT, Edge.AFTER)
            assert home.run_once() == 0
            (line,) = home.verdicts("a.json")
            recovered.append(
                {name: line[name] for name in ("feed", "watermark", "size", "rows_in", "rows_out", "run_id")}
            )
    assert recovered[0] == recovered[1]
    assert recovered[0]["watermark"] == 3


TOO_MANY: Final = "[feeds.events]\nmax_rejected = 1\n"
REJECTS: Final = [record("a"), {"key": "b\ud800"}, {"key": "c", "ts": "never"}, record("d", value="NaN")]


@pytest.mark.parametrize(
    ("config", "content"), [("", BAD), (TOO_MANY, REJECTS), ("", b"\xff")], ids=["place", "details", "encoding"]
)
@pytest.mark.parametrize("edge", Edge)
def test_the_report_of_a_recovered_file_is_that_of_one_that_was_not_interrupted(
    tmp_path: Path, config: str, content: Any, edge: Edge
) -> None:
    """Killed before or after the move to ``failed/``: hint, place and details are in the report and the line."""
    reports, lines = [], []
    for name, crashes in (("calm", False), ("crashed", True)):
        with Home(tmp_path / name, config) as home:
            home.drop("bad.json", content)
            if crashes:
                crash(home, Step.ARCHIVE, edge)
            assert home.run_once() == 1 or crashes
            reports.append((home.failed / "bad.json.error.json").read_text())
            (line,) = home.verdicts("bad.json")
            kept = ("run_id", "error_code", "error", "hint", "line", "column", "byte", "size")
            lines.append({key: line.get(key) for key in kept})
    assert reports[0] == reports[1]
    assert lines[0] == lines[1]


def test_a_file_that_kills_the_daemon_three_times_is_poison(tmp_path: Path) -> None:
    """No file can hold a daemon in a crash loop: after three crashes it goes to failed, and the others go on."""
    with Home(tmp_path) as home:
        home.drop("killer.json", GOOD)
        for _ in range(3):
            crash(home, Step.STAGE, Edge.AFTER)
        home.drop("next.json", [record("next", ts="2026-03-01T00:00:00Z")])
        assert home.run_once() == 1
        assert home.verdicts("killer.json")[0]["error_code"] == "poison"
        assert sorted(path.name for path in home.failed.iterdir()) == ["killer.json", "killer.json.error.json"]
        assert [row[0] for row in home.rows()] == ["next"]
        assert home.query("SELECT error_code, COUNT(*) FROM etl_runs WHERE error_code IS NOT NULL GROUP BY 1") == [
            ("interrupted", 3),
            ("poison", 1),
        ]
