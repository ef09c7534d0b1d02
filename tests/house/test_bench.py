"""The bench measures programs that do the same work; here they do it once, on a small input, untimed."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from bench import process
from bench.corpus import Bulk, Many, as_lines, make, records
from bench.pipelines import LEDGERS, ranking
from bench.process import Broken
from bench.results import STORED, Line, inserted, merged, stored, table
from bench.runner import agreed
from bench.subjects import INBOXD, INBOXD_LOAD, PEER_SUBJECTS, PEERS, Missing, Subject, fingerprint
from places import SOURCE

RECORDS = 500


def left_by(subject: Subject, folder: Path) -> dict[str, list[int]]:
    """Load a small corpus with one program, and return the fingerprint of what it left."""
    source = make(Bulk(RECORDS), folder)
    database = folder / f"{subject.name}.db"
    process.run(subject.command(source, database), folder=folder)
    return subject.fingerprint(database)


@pytest.fixture(autouse=True)
def _peers_find_inboxd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the programs, which run in folders of their own, find the inboxd that is tested."""
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


@pytest.mark.parametrize("subject", PEER_SUBJECTS, ids=lambda subject: subject.name)
def test_a_peer_leaves_the_same_rows_as_inboxd(subject: Subject, tmp_path: Path) -> None:
    """What is compared for speed did the same work: the same target rows, the same lineage entries."""
    try:
        theirs = left_by(subject, tmp_path)
    except Missing as reason:
        pytest.skip(str(reason))
    ours = left_by(INBOXD_LOAD, tmp_path)
    assert theirs == ours
    assert ours["target"][0] == RECORDS
    assert ours["lineage"][0] == 2 * RECORDS


@pytest.mark.parametrize("subject", LEDGERS, ids=lambda subject: subject.name)
def test_another_pipeline_leaves_the_same_rows_in_the_target(subject: Subject, tmp_path: Path) -> None:
    """What others load from the same records, one to a line, is what inboxd loads from the array."""
    source = make(Many(3, 10), tmp_path)
    try:
        command = subject.command(as_lines(source), tmp_path / f"{subject.name}.db")
    except Missing as reason:
        pytest.skip(str(reason))
    process.run(command, folder=tmp_path)
    process.run(INBOXD_LOAD.command(source, tmp_path / "inboxd.db"), folder=tmp_path)
    theirs, ours = (one.fingerprint(tmp_path / f"{one.name}.db", ["target"]) for one in (subject, INBOXD_LOAD))
    assert theirs == ours
    assert ours["target"][0] == 30


def test_the_bare_loop_leaves_the_same_rows_as_the_daemon(tmp_path: Path) -> None:
    """The loop that small files are measured against loads every file that the daemon loads, and moves it as well."""
    source = make(Many(5, 10), tmp_path)
    left = {}
    for name in ("inboxd", "bare"):
        folder = tmp_path / name
        inbox = shutil.copytree(source, folder / "inbox")
        database = folder / "data" / "inboxd.db"
        bare = [sys.executable, str(PEERS / "small_files.py"), str(inbox), str(database)]
        process.run([*INBOXD, "run", "--once"] if name == "inboxd" else bare, folder=folder)
        left[name] = fingerprint(f"sqlite://{database}")
        assert len(list((folder / "data" / "processed").iterdir())) == 5
    assert left["bare"] == left["inboxd"]
    assert left["bare"]["target"][0] == 50


def test_a_program_that_does_less_is_found_out(tmp_path: Path) -> None:
    """One changed value, one missing row or one lineage entry more ends the bench instead of flattering somebody."""
    (tmp_path / "first").mkdir()
    honest = left_by(INBOXD_LOAD, tmp_path / "first")
    for change in (
        "UPDATE target SET value = value + 1 WHERE key = 'user-0000001'",
        "DELETE FROM target WHERE key = 'user-0000001'",
        "DELETE FROM lineage_records WHERE record_key = 'user-0000001'",
    ):
        database = tmp_path / "changed.db"
        shutil.copy(tmp_path / "first" / "inboxd.db", database)
        connection = sqlite3.connect(database)
        with connection:
            connection.execute(change)
        connection.close()
        with pytest.raises(Broken, match="did not do the same work"):
            agreed({"inboxd": honest, "other": fingerprint(f"sqlite://{database}")})


def test_a_program_that_fails_is_not_a_fast_one(tmp_path: Path) -> None:
    """A program that ends with an error ends the bench, with what it said."""
    with pytest.raises(Broken, match="no such thing"):
        process.run([sys.executable, "-c", "raise SystemExit('no such thing')"], folder=tmp_path)


def test_the_corpus_is_the_same_everywhere(tmp_path: Path) -> None:
    """The records are about 87 bytes, every key comes once, in no order, and a second making gives the same bytes."""
    text = list(records(Bulk(1000)))
    assert text == list(records(Bulk(1000)))
    assert 85 <= sum(len(record) + 1 for record in text) / len(text) <= 88
    keys = [record[8:20] for record in text]
    assert len(set(keys)) == 1000
    assert keys != sorted(keys)
    assert make(Bulk(1000), tmp_path).read_text(encoding="utf-8") == "[" + ",".join(text) + "]\n"


def test_a_lost_goal_is_shown_as_lost() -> None:
    """The table says "no" where a goal is missed, and how a number stands against the committed one."""
    worse = Line("a", "time", "2.00 s / 1.00 s", 2.0, goal=1.25)
    better = Line("b", "rate", "9 / 10", 0.9, goal=0.8, at_most=False)
    shown = table([worse, better], {"a": 1.6})
    assert [line.split(" | ")[3] for line in shown.splitlines()[2:]] == ["**no**", "yes"]
    assert "1.25 × (1.6 ×)" in shown


def test_who_takes_how_long_is_told_from_the_fastest_on() -> None:
    """The table of other ways has one line each, inboxd's own at its place, and the size where it is another."""
    lines = [
        Line("peers.bulk.duckdb", "9 records: faster than DuckDB", "1 s / 0.5 s", 0.5),
        Line("peers.bulk.dlt_sqlite", "9 records: faster than dlt", "1 s / 8 s", 8.0),
        Line("peers.few.filedge", "3 records: faster than filedge", "1 s / 20 s", 20.0),
        Line("peers.files.dlt_sqlite", "2 files: faster than dlt", "2 s / 8 s", 4.0),
    ]
    rows = [row.split(" | ") for row in ranking(lines).splitlines()[2:]]
    assert [row[0].strip("| *") for row in rows] == ["DuckDB", "inboxd load", "dlt → SQLite", "filedge"]
    assert rows[3][2] == "20 × at 3 records (20 s)"
    assert ranking([]) == ""


def test_the_document_gets_the_new_tables() -> None:
    """What stands between a table's marks is replaced, and nothing else; without a table, or marks, nothing is."""
    text = "a\n<!-- bench: table -->\nold\n<!-- bench: end -->\nb\n"
    found = inserted(text, "table", table([Line("a", "time", "1 s", 2.0)], None))
    assert found.startswith(
        "a\n<!-- bench: table -->\n\n| what | goal | measured | met | medians |\n|---|---|---|---|---|\n"
    )
    assert found.endswith("\n\n<!-- bench: end -->\nb\n")
    assert "old" not in found
    assert inserted(text, "table", "") == inserted(text, "others", "x") == text


def test_rows_measured_again_take_the_place_of_the_old_ones(tmp_path: Path) -> None:
    """Measuring some rows keeps what is known of the others, in the order of the table."""
    (tmp_path / "bench").mkdir()
    old = [Line("bulk.c", "a", "", 1.5), Line("small", "b", "", 0.7)]
    (tmp_path / STORED).write_text(stored(old, {}), encoding="utf-8")
    again = [Line("small", "b", "", 0.9), Line("bulk.seed", "c", "", 4.0)]
    found = merged(tmp_path, again, ["bulk", "small"])
    assert [(line.key, line.number) for line in found] == [("bulk.c", 1.5), ("bulk.seed", 4.0), ("small", 0.9)]
