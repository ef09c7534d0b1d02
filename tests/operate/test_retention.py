"""Old files and rows go, as the config says, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from daemons import Home, eventually, files_in, record
from faults import QUICK
from folders import SkewedClock
from inboxd.clock import stamp as stamped
from inboxd.config import ArchiveSettings, RetentionSettings
from inboxd.model import printable
from inboxd.operate import old_files
from inboxd.operate import retention as module
from inboxd.operate.old_files import OldFiles
from inboxd.operate.retention import Retention
from inboxd.store.tables import etl_runs, tombstones
from loaders import EVENTS, FixedClock, Loader, make_loader, stamp
from stores import MakeUrl

pytestmark = pytest.mark.on_citus


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
        assert not files_in(home.processed)
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
        keep = RetentionSettings.model_validate({"lineage": "30d", "resolved": "1d", "images": "1d"})
        archive = ArchiveSettings(processed=tmp_path / "processed", failed=tmp_path / "failed")
        removed = Retention(loader.store, archive, keep, clock).whole()
        assert removed.lineage == 5
        assert loader.query("SELECT DISTINCT record_key FROM lineage") == [("new",)]
        assert loader.query("SELECT COUNT(*) FROM etl_runs") == [(2,)]


def test_old_tombstones_go_where_that_is_said(make_url: MakeUrl, tmp_path: Path) -> None:
    """``retention.tombstones`` removes those of deletions that long ago; by default they stay for ever."""
    clock = FixedClock()
    loader: Loader = make_loader(make_url, tmp_path, EVENTS)
    days = [stamped(clock.at - timedelta(days=day)) for day in (0, 1, 3)]
    with loader.store:
        with loader.store.writing() as connection:
            for number, day in enumerate(days):
                values = {"table_name": "target", "record_key": str(number), "cursor": day, "run_id": 1}
                connection.execute(sa.insert(tombstones).values(values | {"deleted_at": day}))
        archive = ArchiveSettings(processed=tmp_path / "processed", failed=tmp_path / "failed")
        for keep, left in (("forever", "012"), ("2d", "01")):
            wanted = RetentionSettings.model_validate({"tombstones": keep})
            Retention(loader.store, archive, wanted, clock).whole()
            assert "".join(str(key) for (key,) in loader.query("SELECT record_key FROM tombstones ORDER BY 1")) == left


class Kept:
    """A store with runs of archived files, their folder, and the removal of what is old."""

    def __init__(self, make_url: MakeUrl, folder: Path) -> None:
        self.loader: Loader = make_loader(make_url, folder, EVENTS)
        self.processed = folder / "processed"
        self.processed.mkdir()
        self.clock = SkewedClock()
        self.rounds = OldFiles(self.loader.store, self.processed, 86_400.0, self.clock)

    def archive(self, name: str, content: bytes, place: str | None = None) -> int:
        """Record that a file was loaded, and put it into its place."""
        path = self.processed / (place or name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return self.record(name, content)

    def record(self, name: str, content: bytes) -> int:
        """Record that a file was loaded."""
        values = {
            "job_name": "events",
            "status": "success",
            "started_at": stamped(self.clock.now()),
            "finished_at": stamped(self.clock.now()),
            "file_name": printable(name),
            "file_size": len(content),
            "content_sha256": hashlib.sha256(content).hexdigest(),
            "claim": f"claim of {printable(name)} {time.monotonic_ns()}",
        }
        counts = dict.fromkeys(("rows_in", "rows_out", "rows_rejected", "rows_skipped", "rows_stale", "duration_ms"), 0)
        with self.loader.store.writing() as connection:
            inserting = sa.insert(etl_runs).values(**values, **counts).returning(etl_runs.c.id)
            run_id: int = connection.execute(inserting).scalar_one()
        return run_id

    def round(self, *, days: float) -> list[str]:
        """Let days pass; return the names of what is removed then."""
        self.clock.forward(86_400 * days)
        removed: list[str] = []
        for _ in self.rounds.round(removed.append):
            pass
        return removed

    def left(self) -> dict[str, bytes]:
        """Return the files that are there."""
        files = (path for path in sorted(self.processed.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.processed)): path.read_bytes() for path in files}


@pytest.fixture
def kept(make_url: MakeUrl, tmp_path: Path) -> Iterator[Kept]:
    """Return an archive whose files are kept for a day."""
    found = Kept(make_url, tmp_path)
    with found.loader.store:
        yield found


def test_only_what_the_ledger_says_inboxd_archived_is_removed(kept: Kept) -> None:
    """Notes, other programs' files, and files that a restored database does not know are nobody's to remove."""
    kept.archive("sub/a.json", b"[1]")
    for name in ("NOTES.txt", "unknown.json", "sub/unknown.json", ".hidden"):
        (kept.processed / name).write_bytes(b"theirs")
    (kept.processed / "empty").mkdir()
    assert kept.round(days=0.5) == []
    assert kept.round(days=1) == ["sub/a.json"]
    assert set(kept.left()) == {"NOTES.txt", "unknown.json", "sub/unknown.json", ".hidden"}
    assert (kept.processed / "empty").is_dir()


def test_a_file_of_the_right_name_and_another_content_is_a_strangers(kept: Kept) -> None:
    """Whoever put something in the place of an archived file does not lose it, also not of the same size and time."""
    kept.archive("a.json", b"[1]")
    found = (kept.processed / "a.json").stat()
    (kept.processed / "a.json").unlink()
    (kept.processed / "a.json").write_bytes(b"[2]")
    os.utime(kept.processed / "a.json", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert kept.round(days=2) == []
    assert kept.round(days=2) == []
    assert kept.left() == {"a.json": b"[2]"}


def test_each_of_two_files_of_one_name_goes_with_its_own_run(kept: Kept) -> None:
    """A name that came again, a folder that stood in a file's way, a name that is no UTF-8: each is found."""
    kept.archive("a.json", b"[1]")
    second = kept.record("a.json", b"[1, 2]")
    (kept.processed / f"a.run-{second}.json").write_bytes(b"[1, 2]")
    third = kept.record("x.json/b.json", b"[3]")
    (kept.processed / f"x.run-{third}.json").mkdir()
    (kept.processed / f"x.run-{third}.json" / "b.json").write_bytes(b"[3]")
    odd = os.fsdecode(b"gr\xfc\xdfe.json")
    kept.archive(odd, b"[4]")
    assert len(kept.round(days=2)) == 4
    assert kept.left() == {}
    assert kept.loader.query("SELECT COUNT(*) FROM etl_runs WHERE file_removed IS NOT NULL") == [(4,)]


def test_a_file_that_came_again_is_kept_from_when_it_came(kept: Kept) -> None:
    """A duplicate that was archived under the old name is not removed for the old run's age."""
    kept.record("a.json", b"[1]")
    with kept.loader.store.writing() as connection:
        connection.execute(sa.update(etl_runs).values(finished_at="2020-01-01T00:00:00.000000Z"))
    (kept.processed / "a.json").write_bytes(b"[1]")  # as a duplicate of it puts it there
    assert kept.round(days=0) == []
    assert kept.left() == {"a.json": b"[1]"}
    assert kept.round(days=2) == ["a.json"]


def test_a_round_goes_on_where_the_last_one_had_nothing_more_to_do(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """What became old since is found, also behind runs that are not due, and in slices."""
    monkeypatch.setattr(old_files, "RUNS_AT_ONCE", 2)
    for number in range(5):
        kept.archive(f"{number}.json", b"%d" % number)
    assert sorted(kept.round(days=2)) == [f"{number}.json" for number in range(5)]
    kept.archive("new.json", b"new")
    assert kept.round(days=0) == []
    assert kept.round(days=2) == ["new.json"]


def test_what_is_removed_is_named(tmp_path: Path) -> None:
    """`retention_applied` names up to 100 of the files, and counts them all."""
    with Home(tmp_path, '[archive]\nkeep = "1s"\n') as home:
        home.start()
        home.drop("sub/a.json", [record("a")])
        home.verdict("sub/a.json")
        (home.processed / "NOTES.txt").write_text("theirs")
        removed = eventually(lambda: home.lines("retention_applied"))[0]
        assert (removed["files"], removed["names"]) == (1, ["sub/a.json"])
        assert (home.processed / "NOTES.txt").exists()
        home.stop()
        found = {one["check"]: one for one in home.json("doctor", "--json")["checks"]}
        assert found["strangers"]["status"] == "warning"
        assert "NOTES.txt" in found["strangers"]["message"]
        assert found["ledger"]["status"] == "ok"


def test_an_operator_may_delete_a_failed_file(tmp_path: Path) -> None:
    """`doctor` tells of it until `doctor --mend` takes note; a report without its file is told as well."""
    with Home(tmp_path, QUICK) as home:
        home.drop("bad.json", b"[")
        home.drop("good.json", [record("a")])
        assert home.run_once() == 1
        (home.failed / "bad.json").unlink()
        past = "UPDATE etl_runs SET finished_at = '2020-01-01T00:00:00.000000Z'"
        with sqlite3.connect(home.database) as connection:
            connection.execute(past)
        connection.close()
        found = {one["check"]: one for one in home.json("doctor", "--json")["checks"]}
        assert found["ledger"]["status"] == "wrong"
        assert "--mend" in found["ledger"]["remedy"]
        assert found["reports"]["status"] == "warning"
        assert "bad.json.error.json" in found["reports"]["message"]
        (home.failed / "bad.json.error.json").unlink()
        mended = home.call("doctor", "--mend")
        assert "bad.json" in mended.stderr
        assert "good.json" not in mended.stderr
        assert mended.returncode == 0, mended.stdout
        assert home.json("doctor", "--json")["ok"]


def test_what_is_told_as_noted_was_noted(tmp_path: Path) -> None:
    """A file whose run ended just now may be on its way: it is not noted, and that is said."""
    with Home(tmp_path, QUICK) as home:
        home.drop("old.json", [record("a")])
        home.run_once()
        with sqlite3.connect(home.database) as connection:
            connection.execute("UPDATE etl_runs SET finished_at = '2020-01-01T00:00:00.000000Z'")
        connection.close()
        for content in ("b", "c"):
            home.drop("new.json", [record(content)])
            home.run_once()
        for path in home.processed.iterdir():
            path.unlink()
        noted, not_noted, *_ = home.call("doctor", "--mend").stderr.splitlines()[1:]
        assert noted == "noted as removed on purpose: 1 file: old.json"
        assert not_noted.startswith("not noted, as the run ended less than a minute ago: 1 file: new.json")
        ledger = {one["check"]: one for one in home.json("doctor", "--json")["checks"]}["ledger"]
        assert "new.json" in ledger["message"]
        assert "old.json" not in ledger["message"]


def test_a_folder_that_got_a_runs_number_is_the_one_that_the_run_knows(tmp_path: Path) -> None:
    """A file stood in the folder's way: `doctor` finds what lies in it, and `undo` and `retry` know its name."""
    with Home(tmp_path, f"{QUICK}[feeds.events]\nlate = 'merge'\nundo = true\n") as home:
        home.drop("x.json", [record("a")])
        home.run_once()
        home.drop("x.json/sub/y.json", [record("b")])
        home.drop("x.json/sub/z.json", b"[")
        home.run_once()
        assert (home.processed / "x.run-2.json" / "sub" / "y.json").is_file()
        found = {one["check"]: one for one in home.json("doctor", "--deep", "--json")["checks"]}
        assert found["ledger"]["status"] == "ok", found
        home.write("mended.json", [record("c")]).rename(home.failed / "x.json" / "sub" / "z.json")
        assert [one["outcome"] for one in home.json("retry", "x.json/sub/z.json", "--json")["files"]] == ["loaded"]
        assert (home.processed / "x.run-4.json" / "sub" / "z.json").is_file()
        (again,) = (line for line in home.call("undo", "4").stdout.splitlines() if "inboxd retry" in line)
        assert again.endswith("/processed/x.run-4.json/sub/z.json")
        home.call(*again.split()[1:], check=True)
        (last, *_) = home.json("runs", "list", "--json")["runs"]
        assert (last["file_name"], last["status"]) == ("x.json/sub/z.json", "success")
