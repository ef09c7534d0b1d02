"""Nodes of Citus, and the daemon, killed at each step of a commit: the end is that of one daemon on SQLite."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from citus import CitusCluster, Node, cluster_of, own_nodes
from clusters import PostgresHome
from daemons import eventually
from inboxd.clock import SystemClock
from inboxd.config import load_settings
from inboxd.inbox.source import Source
from inboxd.operate.undo import undo
from inboxd.pipeline import Job, Pipeline, facts_of
from inboxd.store import open_store
from inboxd.store.database import Store
from stores import CITUS, query

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.xdist_group(CITUS), pytest.mark.timeout(1200)]

CONFIG: Final = """
[inbox]
settle = "0ms"
settle_unproven = "0ms"
[feeds.plain]
key = ["key"]
cursor = "at"
late = "merge"
fields = { key = { type = "text" }, value = { type = "integer" }, at = { type = "integer" } }
[feeds.kept]
key = ["key"]
cursor = "at"
late = "merge"
undo = true
fields = { key = { type = "text" }, value = { type = "integer" }, at = { type = "integer" } }
[feeds.changes]
key = ["key"]
cursor = "at"
late = "merge"
undo = true
deletes = { from = "op", in = ["d"], then = "remove" }
fields = { key = { type = "text" }, value = { type = "integer" }, at = { type = "integer" } }
[feeds.last]
key = ["key"]
undo = true
fields = { key = { type = "text" }, value = { type = "integer" } }
[feeds.dump]
match = ["dump/{day}.json"]
mode = "snapshot"
as_of = { from = "$path.day", type = "date" }
key = ["key"]
absent = "remove"
max_deleted = "100%"
undo = true
fields = { key = { type = "text" }, value = { type = "integer" } }
[feeds.facts]
mode = "append"
fields = { key = { type = "text" }, value = { type = "integer" } }
"""
FEEDS: Final = ("plain", "kept", "changes", "last", "dump", "facts")
KEYS: Final = 60
RECORDS: Final = 40
GATE: Final = 4242
"""The advisory lock that a commit waits for before any node prepares it, while the test holds it."""
TRIGGER: Final = f"""
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER gate AFTER UPDATE ON etl_runs DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.status = 'success') EXECUTE FUNCTION gate()
"""
HELD: Final = "synchronous_standby_names"
"""With a standby that never comes a server writes a commit, or a PREPARE, and does not say so."""
DATABASE: Final = "inboxd"


class Step(StrEnum):
    """How far a commit has come when somebody dies."""

    BEGUN = "no worker has prepared"
    PREPARED = "all workers have prepared, and the coordinator was not told"
    COMMITTED = "the coordinator has committed, and no worker was told"
    FINISHED = "all workers have finished, and the coordinator was not told"


class Victim(StrEnum):
    """Who dies."""

    FIRST = "a worker"
    SECOND = "the other worker"
    COORDINATOR = "the coordinator"
    DAEMON = "the daemon"


@dataclass
class Site:
    """A cluster, and a daemon on it."""

    nodes: list[Node]
    home: PostgresHome
    chance: random.Random = field(default_factory=lambda: random.Random(20260115))
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def coordinator(self) -> Node:
        """The node that the daemon is connected to."""
        return self.nodes[0]

    @property
    def workers(self) -> list[Node]:
        """The others. What a file appends is on one of them, what other feeds have on both."""
        return self.nodes[1:]

    def drop(self, feed: str) -> str:
        """Make up a file of a feed and drop it."""
        name = f"{feed}/{date(2020, 1, 1) + timedelta(days=len(self.files))}.json"
        keys = [f"k{self.chance.randrange(KEYS)}" for _ in range(RECORDS)]
        records = [
            {"key": key, "value": self.chance.randrange(4), "at": self.chance.randrange(10_000)}
            | ({"op": "d"} if self.chance.random() < 0.3 else {})
            for key in keys
        ]
        self.files[name] = json.dumps(records).encode()
        self.home.drop(name, self.files[name])
        return name

    # How far a commit has come

    def stop_at(self, step: Step, feed: str) -> tuple[str, Callable[[], None]]:
        """Drop a file and let its commit come so far; returns the file's name, and what lets the commit go on.

        The nodes are held one after another, each when the commit waits for the one before: what else they write
        would be held, too.
        """
        gate = self.coordinator.connect(self.home.url)
        gate.execute("SELECT pg_advisory_lock(%s)", (GATE,))
        name = self.drop(feed)
        self.wait(Step.BEGUN)
        release: Callable[[], None] = gate.close
        for further in {Step.FINISHED: (Step.COMMITTED, Step.FINISHED), Step.BEGUN: ()}.get(step, (step,)):
            held = [self.coordinator] if further is Step.COMMITTED else self.workers
            for node in held:
                hold(node)
            release()
            release = partial(self.release, held)
            self.wait(further)
        return name, release

    @staticmethod
    def release(held: Sequence[Node]) -> None:
        """Let servers say what they have written, those that are up."""
        for node in held:
            with suppress(psycopg.OperationalError):
                node.set(HELD, "")

    def wait(self, step: Step) -> None:
        """Wait until the daemon's commit has come so far."""
        sessions = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND "
        nodes, looks = {
            Step.BEGUN: ([self.coordinator], "wait_event_type = 'Lock' AND query LIKE 'COMMIT%'"),
            Step.PREPARED: (self.workers, "wait_event = 'SyncRep' AND query LIKE 'PREPARE TRANSACTION%'"),
            Step.COMMITTED: ([self.coordinator], "wait_event = 'SyncRep' AND query LIKE 'COMMIT%'"),
            Step.FINISHED: (self.workers, "wait_event = 'SyncRep' AND query LIKE 'COMMIT PREPARED%'"),
        }[step]
        eventually(
            lambda: any(node.ask(DATABASE, sessions + looks) for node in nodes),
            f"a commit of which {step}\n{self.home.lines()[-3:]}",
        )

    def is_prepared(self) -> bool:
        """Tell whether a worker has prepared what it was not told to finish."""
        prepared = "SELECT 1 FROM pg_prepared_xacts WHERE database = current_database()"
        return any(worker.ask(DATABASE, prepared) for worker in self.workers)

    def recovers(self) -> bool:
        """Do what Citus does after ``citus.recover_2pc_interval``; tell whether all is finished."""
        self.coordinator.ask(DATABASE, "SELECT recover_prepared_transactions()")
        return not self.is_prepared()

    # One round

    def strike(self, step: Step, victim: Victim, feed: str) -> None:
        """Kill somebody in the middle of a file's commit; another file of the feed comes before he is back."""
        first, release = self.stop_at(step, feed)
        second = self._kill(victim, release, feed)
        self._see_through(first, second)
        self._undo(feed, first, second)

    def _kill(self, victim: Victim, release: Callable[[], None], feed: str) -> str:
        """Kill, let the others go on, and bring the dead one back; returns the file that came meanwhile."""
        if victim is Victim.DAEMON:
            self.home.kill()
            release()
            second = self.drop(feed)
            self.home.start()
            return second
        node = {
            Victim.FIRST: self.workers[0],
            Victim.SECOND: self.workers[1],
            Victim.COORDINATOR: self.coordinator,
        }[victim]
        told = len(self.home.lines("file_deferred"))
        node.kill()
        release()
        second = self.drop(feed)
        eventually(lambda: len(self.home.lines("file_deferred")) > told or self.home.verdicts(second), "a file waits")
        node.start()
        release()
        return second

    def _see_through(self, *names: str) -> None:
        """Let the daemon meet what is not finished, then have it finished."""
        told = len(self._unfinished())

        def met() -> bool:
            return all(map(self.home.verdicts, names)) or len(self._unfinished()) > told or self._waits_for_rows()

        eventually(met, "the files are loaded, or wait for a commit that is not finished")
        eventually(lambda: self.recovers() and all(map(self.home.verdicts, names)), f"verdicts of {names}")

    def _unfinished(self) -> list[dict[str, Any]]:
        return [line for line in self.home.lines("file_deferred") if line["error_code"] == "commit_unfinished"]

    def _waits_for_rows(self) -> bool:
        waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'"
        return any(worker.ask(DATABASE, waits) for worker in self.workers)

    def _undo(self, feed: str, *names: str) -> None:
        """Undo one of the files, where that can be."""
        if feed == "plain" or self.chance.random() < 0.3:
            return
        runs = dict(
            self.home.query("SELECT file_name, id FROM etl_runs WHERE status = 'success' AND superseded_by IS NULL")
        )
        name = max(names, key=lambda each: runs[each]) if feed == "dump" else self.chance.choice(names)
        done = self.home.call("undo", str(runs[name]))
        assert done.returncode == 0, done.stderr


def hold(node: Node) -> None:
    """Keep a server from saying what it has written, and see that it does: it takes a moment to know."""
    node.set(HELD, "nobody")
    with closing(node.connect()) as probe:

        def is_held() -> bool:
            with closing(node.connect()) as asked:
                asked.pgconn.send_query(b"SELECT pg_logical_emit_message(TRUE, 'gate', '')")
                looks = "SELECT wait_event = 'SyncRep', state = 'idle' FROM pg_stat_activity WHERE pid = %s"
                while True:
                    waits, over = probe.execute(looks, (asked.info.backend_pid,)).fetchone() or (False, True)
                    if waits or over:
                        return bool(waits)

        eventually(is_held, "the server waits for its standby")


@pytest.fixture(scope="module")
def nodes(citus: CitusCluster) -> Iterator[list[Node]]:
    """Return a coordinator and two workers that the test may kill."""
    with own_nodes(citus.programs()) as nodes:
        cluster_of(nodes)
        yield nodes


@pytest.fixture
def site(nodes: list[Node], tmp_path: Path) -> Iterator[Site]:
    """Return a daemon on a new database of that cluster."""
    cluster = CitusCluster(tuple(node.url for node in nodes))
    with ExitStack() as stack:
        url = cluster.make(DATABASE)
        stack.callback(_drop, cluster)
        home = stack.enter_context(PostgresHome(tmp_path / "home", CONFIG, url=url))
        home.start()
        with nodes[0].connect(url) as connection:
            connection.execute(TRIGGER)
        yield Site(nodes, home)


def _drop(cluster: CitusCluster) -> None:
    with suppress(psycopg.OperationalError):  # a test that failed may have left a node dead: that is to be told
        cluster.drop(DATABASE)


@pytest.mark.parametrize("step", Step, ids=[step.name.lower() for step in Step])
def test_whoever_dies_in_a_commit_the_end_is_that_of_sqlite(site: Site, tmp_path: Path, step: Step) -> None:
    """Workers, coordinator and daemon are killed in turns, with each kind of feed, and files are undone between."""
    for victim in Victim:
        for feed in FEEDS:
            site.strike(step, victim, feed)
    assert site.home.stop() == 0
    assert not site.is_prepared()
    assert Counter(str(line["file"]) for line in site.home.verdicts()) == Counter(list(site.files))
    here = state(site.home.query)
    with open_store(f"sqlite:///{tmp_path}/alone.db") as store:
        load_again(store, site)
        assert here == state(partial(query, store))


def load_again(store: Store, site: Site) -> None:
    """Load the same files into SQLite, and undo the same, in the order of commits."""
    settings = load_settings(site.home.path / "inboxd.toml", {}, site.home.path)
    feeds = {feed.name: feed for feed in settings.feeds}
    store.upgrade()
    store.prepare(settings.feeds)
    pipeline = Pipeline(store, SystemClock(), "here", 1 << 30)
    runs: dict[int, int] = {}
    path = site.home.path / "again"
    told = "SELECT id, job_name, file_name, undo_of FROM etl_runs WHERE status = 'success' ORDER BY commit_no"
    for run_id, job_name, name, undo_of in site.home.query(told):
        feed = feeds[job_name]
        if undo_of is not None:
            runs[run_id] = undo(store, settings.feeds, runs[undo_of], clock=SystemClock(), host="here").run_id or 0
            continue
        path.write_bytes(site.files[name])
        job = Job(feed, name, path.stat().st_size, partial(Source, path), facts=facts_of(feed, name, 0))
        runs[run_id] = pipeline.process(job).run_id


def state(ask: Callable[[str], list[tuple[Any, ...]]]) -> dict[str, object]:
    """Return all that the databases must say alike; runs by their place in the order of commits."""
    runs = ask(
        "SELECT id, job_name, file_name, rows_in, rows_out, rows_stale, rows_deleted, undo_of, superseded_by"
        " FROM etl_runs WHERE status = 'success' ORDER BY commit_no"
    )
    place = {run[0]: number for number, run in enumerate(runs)} | {None: None}

    def placed(statement: str) -> list[tuple[Any, ...]]:
        return sorted((place[run], *rest) for run, *rest in ask(statement))

    tables = {
        feed: placed(f"SELECT run_id, key, value{columns} FROM {feed}")
        for feed, columns in zip(FEEDS, (", at", ", at", ", at", "", "", ", record_no"), strict=True)
    }
    images = [
        (run, table, key, _image(image, place))
        for run, table, key, image in placed("SELECT run_id, table_name, record_key, image FROM before_images")
    ]
    return tables | {
        "runs": [(*run[1:-2], place[run[-2]], place[run[-1]]) for run in runs],
        "lineage": placed("SELECT run_id, record_key, record_no, outcome FROM lineage_records"),
        "tombstones": placed("SELECT run_id, table_name, record_key, cursor FROM tombstones"),
        "watermarks": placed("SELECT run_id, name, value FROM watermarks"),
        "images": images,
        "running": ask("SELECT id FROM etl_runs WHERE status = 'running'"),
    }


def _image(image: str | None, place: dict[int | None, int | None]) -> object:
    """Return a before-image without the times, its run by its place."""
    if image is None:
        return None
    told = {name: value for name, value in json.loads(image).items() if name not in {"updated_at", "deleted_at"}}
    return told | {"run_id": place[told["run_id"]]}
