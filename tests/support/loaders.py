"""Files loaded one after another by the pipeline alone, for tests that need no daemon around it."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from inboxd.clock import SystemClock
from inboxd.config import load_settings, match_feed
from inboxd.forecast import Forecast, forecast
from inboxd.inbox.source import Source
from inboxd.model import Feed, Limit
from inboxd.outcomes import RunStart, Verdict
from inboxd.pipeline import Job, Pipeline, facts_of
from inboxd.store import open_store
from inboxd.store.database import Store
from stores import MakeUrl, query

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVENTS = load_settings(None, {}, Path("/")).feeds[0]
DAY_S = 86_400
Document = dict[str, Any]  # Any: whatever JSON holds


class FixedClock:
    """A clock that stands where the test put it."""

    def __init__(self, now: datetime = NOW) -> None:
        self.at = now

    def now(self) -> datetime:
        """Return where the clock stands."""
        return self.at

    def monotonic(self) -> float:
        """Return that no time passes."""
        return 0.0


class Loader:
    """One store and one feed, loading lists of records as files."""

    def __init__(self, store: Store, folder: Path, feed: Feed = EVENTS, clock: FixedClock | None = None) -> None:
        self.store = store
        self.folder = folder
        self.feed = feed
        self.pipeline = Pipeline(store, clock or FixedClock(), "here", 1 << 30)
        self.files = 0

    def load(self, records: object, *, force: bool = False) -> Verdict:
        """Load one file."""
        self.files += 1
        path = self.folder / f"{self.files}.json"
        path.write_text(json.dumps(records), encoding="utf-8")
        job = Job(self.feed, path.name, path.stat().st_size, lambda: Source(path), force=force)
        return self.pipeline.process(job)

    def table(self, columns: str = "key, name, value, ts") -> list[tuple[Any, ...]]:
        """Return the feed's rows in order of their keys; timestamps as text on both databases."""
        return sorted(tuple(map(_plain, row)) for row in self.query(f"SELECT {columns} FROM {self.feed.table}"))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with self.store.reading() as connection:
            return [tuple(row) for row in connection.execute(sa.text(sql))]


def ended_as_begun(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let TERM come each time just when a run's row is committed, and before its number is known."""
    begin = type(store).begin

    def begun(store: Store, start: RunStart, *, small: bool = False) -> int:
        begin(store, start, small=small)
        raise SystemExit(128 + signal.SIGTERM)

    monkeypatch.setattr(type(store), "begin", begun)


def _plain(value: object) -> object:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else value


def stamp(second: int) -> str:
    """Return one of the stamps that the random records have."""
    return f"2026-02-01T00:00:{second:02d}.000000Z"


def make_loader(make_url: MakeUrl, folder: Path, feed: Feed = EVENTS) -> Loader:
    """Return a loader on a new database; the store is closed by the garbage collector's end of the test."""
    store = open_store(make_url())
    store.upgrade()
    store.prepare([feed])
    return Loader(store, folder, feed)


def take(store: Store, folder: Path, feed: Feed, name: str, content: str, day: int) -> Verdict:
    """Load a file of that name, content and day."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    os.utime(path, (day * DAY_S, day * DAY_S))
    found = path.stat()
    facts = facts_of(feed, name, found.st_mtime_ns)
    job = Job(feed, name, found.st_size, lambda: Source(path), facts=facts)
    return Pipeline(store, SystemClock(), "here", 1 << 30).process(job)


CONFIG = """
[feeds.facts]
mode = "append"
fields = { a = { type = "integer" }, run_id = { type = "text" } }
where = { from = "skip", exists = false }

[feeds.ref]
key = ["id"]
fields = { id = { type = "text" }, name = { type = "text" } }

[feeds.daily]
match = ["daily-{day}.json"]
key = ["id"]
cursor = "day"
late = "merge"
fields = { id = { type = "text" }, v = { type = "integer" }, day = { from = "$path.day", type = "date" } }

[feeds.cdc]
key = ["id"]
cursor = "ts"
late = "merge"
max_deleted = 1
deletes = { from = "op", in = ["d"], then = "remove" }
fields.id = { coalesce = ["after.id", "before.id"], type = "integer" }
fields.name = { from = "after.name", type = "text" }
fields.ts = { from = "ts_ms", type = "timestamp", unit = "ms" }

[feeds.marks]
key = ["id"]
cursor = "ts"
late = "merge"
deletes = { from = "op", in = ["d"], then = "mark" }
fields = { id = { type = "text" }, ts = { type = "integer" } }

[feeds.dump]
match = ["dump/{region}/*"]
mode = "snapshot"
key = ["region", "id"]
absent = "remove"
scope = ["region"]
undo = true
max_deleted = "20%"
fields = { region = { from = "$path.region", type = "text" }, id = { type = "integer" }, v = { type = "text" } }

[feeds.points]
key = ["x", "y"]
cursor = "n"
late = "merge"
deletes = { from = "op", in = ["d"], then = "remove" }
fields = { x = { type = "real" }, y = { type = "real" }, n = { type = "integer" } }

[feeds.levels]
mode = "snapshot"
key = ["level", "id"]
absent = "remove"
scope = ["level"]
fields = { level = { type = "real" }, id = { type = "integer" } }
"""
DAY_S = 86_400


class Files:
    """Files of all modes, loaded one after another as the daemon does."""

    def __init__(self, store: Store, folder: Path) -> None:
        config = folder / "inboxd.toml"
        config.write_text(CONFIG, encoding="utf-8")
        self.settings = load_settings(config, {}, folder)
        self.store = store
        self.folder = folder
        self.pipeline = Pipeline(store, SystemClock(), "here", 1 << 30)
        store.upgrade()
        store.prepare(self.settings.feeds)

    def load(
        self, name: str, records: object, *, day: int = 0, force: bool = False, max_deleted: Limit | None = None
    ) -> Verdict:
        """Load records as a file of that name and of that day."""
        return self.pipeline.process(self.job(name, records, day=day, force=force, max_deleted=max_deleted))

    def job(
        self, name: str, records: object, *, day: int = 0, force: bool = False, max_deleted: Limit | None = None
    ) -> Job:
        """Write records as a file of that name and of that day."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(records), encoding="utf-8")
        os.utime(path, (day * DAY_S, day * DAY_S))
        feed = match_feed(self.settings.feeds, name)
        assert feed is not None
        if max_deleted is not None:
            feed = replace(feed, max_deleted=max_deleted)
        found = path.stat()
        facts = facts_of(feed, name, found.st_mtime_ns)
        return Job(feed, name, found.st_size, lambda: Source(path), facts=facts, force=force)

    def foresee(self, name: str, records: object, *, day: int = 0) -> Forecast:
        """Tell what such a file would do."""
        return forecast(self.pipeline, self.job(name, records, day=day))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        return query(self.store, sql)


@pytest.fixture
def files(make_url: MakeUrl, tmp_path: Path) -> Any:  # Any: a generator of Files
    """Return a loader of files of all modes on a new database."""
    with open_store(make_url()) as store:
        yield Files(store, tmp_path)
