"""Old files and rows go, as the config says, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from daemons import Home, eventually, record
from inboxd.config import ArchiveSettings, RetentionSettings
from inboxd.operate import retention as module
from inboxd.operate.retention import Retention
from stores import MakeUrl
from test_pipeline import EVENTS, FixedClock, Loader, make_loader, stamp


def test_processed_files_are_removed_when_their_time_is_over(tmp_path: Path) -> None:
    """``archive.keep`` removes loaded files that long after they were loaded; failed ones stay, and so do the rows."""
    with Home(tmp_path, '[archive]\nkeep = "1s"\n') as home:
        home.start()
        home.drop("sub/a.json", [record("a")])
        home.drop("bad.json", b"[")
        home.verdict("sub/a.json")
        home.verdict("bad.json")
        removed = eventually(lambda: home.lines("retention_applied"))[0]
        assert removed["files"] == 1
        assert not [path for path in home.processed.rglob("*") if path.is_file()]
        assert sorted(path.name for path in home.failed.iterdir()) == ["bad.json", "bad.json.error.json"]
        assert [row[0] for row in home.rows()] == ["a"]
        home.drop("again.json", json.dumps([record("a")]))
        assert home.verdict("again.json")["event"] == "file_duplicate"


def test_old_lineage_goes_and_the_ledger_stays(
    make_url: MakeUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``retention.lineage`` removes the lineage of old runs, in slices; the runs, and newer lineage, stay."""
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 2)
    clock = FixedClock()
    loader: Loader = make_loader(make_url, tmp_path, EVENTS)
    loader.pipeline = type(loader.pipeline)(loader.store, clock, "here", 1 << 30)
    with loader.store:
        loader.load([{"key": f"old{n}", "name": "n", "value": n, "ts": stamp(n)} for n in range(5)])
        clock.at = clock.at.replace(month=6)
        loader.load([{"key": "new", "name": "n", "value": 1, "ts": "2026-05-31T00:00:00Z"}])
        with loader.store.writing() as connection:  # the store stamps a run's end with the machine's clock
            connection.execute(sa.text("UPDATE etl_runs SET finished_at = started_at"))
        keep = RetentionSettings(lineage=30 * 86_400.0, resolved=86_400.0, images=86_400.0)
        archive = ArchiveSettings(tmp_path / "processed", tmp_path / "failed", None)
        removed = Retention(loader.store, archive, keep, clock).whole()
        assert removed.lineage == 5
        assert loader.query("SELECT DISTINCT record_key FROM lineage") == [("new",)]
        assert loader.query("SELECT COUNT(*) FROM etl_runs") == [(2,)]
