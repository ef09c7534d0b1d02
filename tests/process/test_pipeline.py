"""The story of a file, on both databases: what a feed promises of any files, in any order."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.errors import FileFault, TransientFault
from inboxd.forecast import forecast
from inboxd.inbox.source import Source
from inboxd.model import Late, Limit
from inboxd.outcomes import Counts, Outcome
from inboxd.pipeline import Job, Pipeline
from inboxd.records.decode import Reading
from loaders import EVENTS, NOW, Document, FixedClock, Loader, ended_as_begun, make_loader, stamp
from stores import MakeUrl, examples

pytestmark = pytest.mark.on_citus


@pytest.fixture
def loader(make_url: MakeUrl, tmp_path: Path) -> Loader:
    """Return a loader for the built-in feed."""
    return make_loader(make_url, tmp_path)


RECORDS = st.lists(
    st.one_of(
        st.builds(
            lambda key, value, second: {"key": key, "name": "n", "value": value, "ts": stamp(second)},
            st.sampled_from("abcd"),
            st.integers(0, 3),
            st.integers(0, 9),
        ),
        st.builds(
            lambda key, name, value, ts: {"key": key, "name": name, "value": value, "ts": ts},
            st.sampled_from(["a", "b", "", " "]),
            st.sampled_from(["n", "", " \t"]),
            st.sampled_from([1, 1.5, "2", " 3.5 ", "x", ""]),
            st.one_of(st.sampled_from(["", " "]), st.integers(0, 9).map(stamp)),
        ),
    ),
    max_size=8,
)
QUICK = settings(
    max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class SeedModel:
    """What the program that inboxd grew from does with files in order, with its conditional upsert."""

    def __init__(self) -> None:
        self.target: dict[str, tuple[str, float, str]] = {}
        self.dead: list[str] = []
        self.watermark: str | None = None

    def load(self, records: list[Document]) -> Counts:
        """Apply one file."""
        floor, skipped, rejected, changed, staged = self.watermark, 0, 0, set(), 0
        for record in records:
            if floor and record["ts"].strip() and record["ts"] <= floor:
                skipped += 1
                continue
            code = self.fault(record)
            if code:
                rejected += 1
                self.dead.append(code)
                continue
            staged += 1
            row = self.target.get(record["key"])
            if row is None or record["ts"] > row[2]:
                self.target[record["key"]] = (record["name"], float(record["value"]), record["ts"])
                changed.add(record["key"])
        if changed:
            self.watermark = max(row[2] for row in self.target.values())
        return Counts(len(records), len(changed), rejected, skipped, staged - len(changed))

    @staticmethod
    def fault(record: Document) -> str | None:
        """Return the first fault of a record."""
        if not record["key"].strip():
            return "missing_key"
        if not record["name"].strip():
            return "missing_name"
        try:
            float(record["value"])
        except ValueError:
            return "invalid_value"
        return None if record["ts"].strip() else "missing_timestamp"


@QUICK
@given(files=st.lists(RECORDS, min_size=1, max_size=4, unique_by=json.dumps))
def test_files_in_order_do_what_the_seed_program_does(make_url: MakeUrl, tmp_path: Path, files: list[Any]) -> None:
    """With ``late = "skip"`` each file drops what is at or below the watermark at its start, then applies the rest."""
    loader, model = make_loader(make_url, tmp_path), SeedModel()
    with loader.store:
        for records in files:
            assert loader.load(records).counts == model.load(records)
        assert loader.table() == sorted((key, *row) for key, row in model.target.items())
        assert [code for (code,) in loader.query("SELECT error FROM dead_letters ORDER BY id")] == model.dead
        marks = [row.value for row in loader.store.watermarks()]
        assert marks == ([model.watermark] if model.watermark else [])
        broken = "SELECT id FROM etl_runs WHERE rows_in <> rows_out + rows_rejected + rows_skipped + rows_stale"
        assert loader.query(broken) == []


@QUICK
@given(
    records=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=10, unique=True),
    data=st.data(),
)
def test_merge_does_not_depend_on_split_order_or_repetition(
    make_url: MakeUrl, tmp_path: Path, records: list[tuple[str, int]], data: st.DataObject
) -> None:
    """With ``late = "merge"`` the same records give the same table, however they are spread over files."""
    documents = [{"key": key, "name": "n", "value": second, "ts": stamp(second)} for key, second in records]
    shuffled = data.draw(st.permutations(documents + documents[: data.draw(st.integers(0, len(documents)))]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=3)))
    feed = replace(EVENTS, late=Late.MERGE)
    whole, split = make_loader(make_url, tmp_path, feed), make_loader(make_url, tmp_path, feed)
    with whole.store, split.store:
        whole.load(documents)
        for begin, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True):
            split.load(shuffled[begin:end])
        assert split.table() == whole.table()
        assert [row.value for row in split.store.watermarks()] == [row.value for row in whole.store.watermarks()]


def test_too_many_rejects_load_nothing_and_the_report_counts_them(make_url: MakeUrl, tmp_path: Path) -> None:
    """Above ``max_rejected`` the whole file fails, with counts by code and the first faults."""
    feed = replace(EVENTS, max_rejected=Limit(share=0.5))
    loader = make_loader(make_url, tmp_path, feed)
    good, bad = (
        {"key": "a", "name": "n", "value": 1, "ts": stamp(1)},
        {"key": "b", "name": "", "value": 1, "ts": stamp(1)},
    )
    with loader.store:
        assert loader.load([good, bad]).outcome is Outcome.LOADED
        verdict = loader.load([{**good, "ts": stamp(2)}, bad, {**bad, "ts": stamp(3)}, {**bad, "ts": stamp(4)}])
        assert (verdict.outcome, verdict.error_code) == (Outcome.FAILED, "too_many_rejected")
        assert verdict.details is not None
        assert verdict.details["rejected_by_code"] == {"missing_name": 2}
        assert json.loads(json.dumps(verdict.details["faults"]))[0]["record_no"] == 3
        assert loader.query("SELECT COUNT(*) FROM dead_letters") == [(1,)]
        assert loader.table() == [("a", "n", 1.0, stamp(1))]


def test_a_clock_far_behind_makes_files_wait(make_url: MakeUrl, tmp_path: Path) -> None:
    """When the clock is more than ``max_future`` behind the last run, it is the clock that is wrong, not the file."""
    loader = make_loader(make_url, tmp_path)
    with loader.store:
        loader.load([{"key": "a", "name": "n", "value": 1, "ts": stamp(1)}])
        late = Loader(loader.store, tmp_path / "late", clock=FixedClock(NOW - timedelta(hours=25)))
        late.folder.mkdir()
        with pytest.raises(TransientFault) as raised:
            late.load([{"key": "b", "name": "n", "value": 1, "ts": stamp(2)}])
        assert raised.value.code == "clock_behind"
        assert loader.query("SELECT COUNT(*) FROM etl_runs") == [(1,)]


def test_a_stamp_from_the_future_is_refused_and_does_not_move_the_watermark(loader: Loader) -> None:
    """A cursor more than ``max_future`` ahead is a dead letter: it would make every later record look old."""
    with loader.store:
        far = (NOW + timedelta(hours=25)).isoformat()
        near = (NOW + timedelta(hours=23)).isoformat()
        base = {"name": "n", "value": 1}
        verdict = loader.load([{"key": "far", "ts": far, **base}, {"key": "near", "ts": near, **base}])
        assert verdict.errors == ("far: future_timestamp",)
        assert [row.value for row in loader.store.watermarks()] == ["2026-03-02T11:00:00.000000Z"]


def test_a_forced_load_mends_rows_and_a_newer_row_still_wins(loader: Loader) -> None:
    """``--force`` ignores ledger and watermark, applies an equal cursor, and never overwrites a newer row."""
    with loader.store:
        base = {"name": "n", "value": 1}
        first = [{"key": "a", "ts": stamp(1), **base}, {"key": "b", "ts": stamp(1), **base}]
        first_run = loader.load(first).run_id
        loader.load([{"key": "b", "ts": stamp(2), "name": "newer", "value": 2}])
        assert loader.load(first).duplicate_of == first_run
        forced = loader.load(first, force=True)
        assert (forced.counts.rows_out, forced.counts.rows_stale) == (1, 1)
        assert loader.table() == [("a", "n", 1.0, stamp(1)), ("b", "newer", 2.0, stamp(2))]
        assert loader.query(f"SELECT superseded_by FROM etl_runs WHERE id = {first_run}") == [(forced.run_id,)]
        assert loader.load(first).duplicate_of == forced.run_id


def test_a_file_that_was_loaded_is_a_duplicate_even_where_it_would_fail_now(make_url: MakeUrl, tmp_path: Path) -> None:
    """A stricter config does not turn a loaded file into a failed one."""
    loader = make_loader(make_url, tmp_path)
    with loader.store:
        records = [{"key": "", "name": "n", "value": 1, "ts": stamp(1)}]
        run = loader.load(records).run_id
        loader.feed = replace(EVENTS, max_rejected=Limit(count=0), records=("nowhere",))
        assert loader.load(records).duplicate_of == run


def test_a_large_duplicate_costs_its_hash(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large file that was loaded before is not decoded again; one that only has its size is, and loads whole."""
    monkeypatch.setattr("inboxd.pipeline.HASHED_FIRST", 1)
    decoded: list[Job] = []
    reading = Pipeline.reading

    def watched(pipeline: Pipeline, job: Job, source: Source, now: datetime) -> Reading:
        decoded.append(job)
        return reading(pipeline, job, source, now)

    monkeypatch.setattr(Pipeline, "reading", watched)
    with loader.store:
        first = loader.load([{"key": "a", "name": "n", "value": 1, "ts": stamp(1)}])
        again = loader.load([{"key": "a", "name": "n", "value": 1, "ts": stamp(1)}])
        assert (again.outcome, again.duplicate_of, again.sha256) == (Outcome.DUPLICATE, first.run_id, first.sha256)
        assert len(decoded) == 1
        other = loader.load([{"key": "b", "name": "n", "value": 1, "ts": stamp(2)}])
        assert (other.outcome, other.size, other.counts) == (Outcome.LOADED, first.size, Counts(1, 1))
        assert len(decoded) == 2
        assert [row[0] for row in loader.table()] == ["a", "b"]
        loader.load([{"key": "a", "name": "n", "value": 1, "ts": stamp(1)}], force=True)
        assert len(decoded) == 3


@pytest.mark.parametrize("content", ["", " \n", "\ufeff"])
def test_nothing_is_an_empty_file_and_an_empty_array_is_a_success(loader: Loader, content: str) -> None:
    """Zero bytes, white space or a BOM is ``empty_file``; ``[]`` holds no records and is well."""
    with loader.store:
        path = loader.folder / "blank.json"
        path.write_text(content, encoding="utf-8")
        verdict = loader.pipeline.process(Job(EVENTS, "blank.json", 0, lambda: Source(path)))
        assert (verdict.outcome, verdict.error_code) == (Outcome.FAILED, "empty_file")
        assert loader.load([]).counts == Counts()


def test_check_tells_what_load_then_does_and_leaves_no_trace(loader: Loader) -> None:
    """``check`` classifies by reading only, and agrees with the load that follows."""
    with loader.store:
        base = {"name": "n", "value": 1}
        loader.load([{"key": "a", "ts": stamp(5), **base}, {"key": "b", "ts": stamp(3), **base}])
        before = loader.query("SELECT COUNT(*), MAX(id) FROM etl_runs")
        records = [
            {"key": "a", "ts": stamp(6), **base},
            {"key": "new", "ts": stamp(7), **base},
            {"key": "new", "ts": stamp(6), **base},
            {"key": "old", "ts": stamp(1), **base},
            {"key": "x", "ts": stamp(8), "name": "", "value": 1},
        ]
        path = loader.folder / "check.json"
        path.write_text(json.dumps(records), encoding="utf-8")
        found = forecast(loader.pipeline, Job(EVENTS, "c", 1, lambda: Source(path))).found
        assert (found.inserted, found.changed, found.stale, found.skipped, found.rejected) == (1, 1, 1, 1, 1)
        assert loader.query("SELECT COUNT(*), MAX(id) FROM etl_runs") == before
        assert loader.load(records).counts == Counts(5, 2, 1, 1, 1)


def test_a_signal_that_comes_when_the_run_is_begun_leaves_no_row(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is committed, and nobody has its number yet: a command takes it back all the same."""
    monkeypatch.setattr("inboxd.pipeline.SMALL", -1)
    with loader.store:
        ended_as_begun(loader.store, monkeypatch)
        with pytest.raises(SystemExit):
            loader.load([{"key": "a", "name": "n", "value": 1, "ts": stamp(1)}])
        assert loader.query("SELECT COUNT(*) FROM etl_runs") == [(0,)]


def test_a_file_that_cannot_be_opened_is_unreadable(loader: Loader, tmp_path: Path) -> None:
    """A fault before the first byte is a verdict too, with a run and a code."""

    def refused() -> Source:
        raise FileFault("unreadable", "permission denied")

    with loader.store:
        verdict = loader.pipeline.process(Job(EVENTS, "x.json", 3, refused))
        assert (verdict.outcome, verdict.error_code, verdict.sha256) == (Outcome.FAILED, "unreadable", None)
        assert loader.query("SELECT status, error_code FROM etl_runs") == [("failure", "unreadable")]
