from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters import PostgresHome
from daemons import Home, record
from inboxd.operate.transfer import spelled
from stores import CITUS, ON_CITUS, MakeUrl

pytestmark = pytest.mark.postgres

CONFIG = """
[feeds.orders]
match = ["orders/**"]
key = ["shop", "number"]
cursor = "at"
late = "merge"
undo = true
extra = "keep"
[feeds.orders.fields]
shop = { type = "text" }
number = { type = "integer" }
at = { type = "timestamp" }
day = { type = "date", required = false }
amount = { type = "real", required = false }
paid = { type = "boolean", required = false }
lines = { type = "json", required = false }

[feeds.cdc]
match = ["cdc/**"]
key = ["id"]
cursor = "ts"
late = "merge"
undo = true
deletes = { from = "op", in = ["d"], then = "mark" }
fields = { id = { type = "integer" }, ts = { type = "timestamp" } }

[feeds.dump]
match = ["dump/{day}.json"]
mode = "snapshot"
as_of = { from = "$path.day", type = "date" }
key = ["id"]
absent = "remove"
max_deleted = "100%"
undo = true
fields = { id = { type = "integer" }, tree = { type = "json" } }

[feeds.events]
"""
ORDER = {
    "shop": "größe %s \\ \t\n",
    "number": 2**63 - 1,
    "at": "2026-01-15T10:30:00.123456Z",
    "day": "2024-02-29",
    "amount": 0.1,
    "paid": True,
    "lines": {"b": [1, 1e2, 100.0, -0.0, 1e-7, None, "x"], "a": {}},
    "unknown": [1],
}
TABLES = {
    "target": "SELECT * FROM target ORDER BY key",
    "orders": 'SELECT shop, "number", "at", day, amount, paid, run_id, updated_at FROM orders ORDER BY 1, 2',
    "etl_runs": "SELECT * FROM etl_runs ORDER BY id",
    "dead_letters": "SELECT * FROM dead_letters ORDER BY id",
    "lineage": "SELECT * FROM lineage ORDER BY id",
    "watermarks": "SELECT * FROM watermarks ORDER BY name",
    "before_images": "SELECT * FROM before_images ORDER BY 1, 2, 3",
    "tombstones": "SELECT * FROM tombstones ORDER BY 1, 2",
    "cdc": "SELECT * FROM cdc ORDER BY id",
}


@pytest.fixture(params=["postgres", ON_CITUS])
def url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a new, empty database, on one server and on several."""
    make: MakeUrl = request.getfixturevalue("make_citus_url" if request.param == CITUS else "make_postgres_url")
    return make()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a place where a daemon on SQLite has worked: loaded, replaced, refused, failed."""
    with Home(tmp_path, CONFIG) as home:
        home.drop("a.json", [record("a"), record("b", value="no number"), record("c"), {"key": "nul\0", "ts": "?"}])
        home.drop("cdc/1.json", [{"id": 1, "ts": "2026-01-15"}, {"id": 2, "ts": "2026-01-15"}])
        home.drop("cdc/2.json", [{"id": 1, "ts": "2026-01-16", "op": "d"}, {"id": 3, "ts": "2026-01-17", "op": "d"}])
        home.drop("dump/2026-01-15.json", [{"id": 1, "tree": {"b": 1.0, "a": []}}, {"id": 2, "tree": 1}])
        home.drop("orders/1.json", [ORDER, {**ORDER, "number": -1, "paid": False, "amount": 1e300, "lines": None}])
        assert home.run_once() == 0
        home.drop("orders/2.json", [{**ORDER, "at": "2026-01-16T00:00:00Z", "amount": -0.5}])
        home.drop("bad.json", b"[")
        assert home.run_once() == 1
        yield home


def copied(home: Home, url: str) -> dict[str, int]:
    """Copy the home's database and return the tables' counts."""
    found = home.json("db", "copy", f"sqlite:///{home.database}", url, "--json")
    assert all(re.fullmatch("[0-9a-f]{32}", table["checksum"]) for table in found["tables"])
    return {table["table"]: table["rows"] for table in found["tables"]}


def test_everything_moves_over_as_it_was(home: Home, url: str) -> None:
    """Every table holds on PostgreSQL what it held on SQLite, value for value."""
    moved = PostgresHome(home.path, url=url)
    counts = copied(home, url)
    for table, query in TABLES.items():
        here = [tuple(map(plain, row)) for row in home.query(query)]
        assert [tuple(map(plain, row)) for row in moved.query(query)] == here, table
        assert counts.get(table, len(here)) == len(here)
    for column in ("lines", "extra"):
        here = [(spelled(row[0] or "0"),) for row in home.query(f"SELECT {column} FROM orders ORDER BY number")]
        found = moved.query(f"SELECT {column}::text FROM orders ORDER BY number")
        assert [(spelled(row[0] or "0"),) for row in found] == here


def plain(value: object) -> object:
    """Return a value in the form that both databases' values can be brought to."""
    if isinstance(value, date):
        return value.isoformat()
    return value.replace("\0", "\\u0000") if isinstance(value, str) else value


def test_nobody_starts_over(home: Home, url: str) -> None:
    """After the move the same content is a duplicate, new runs get new numbers, the watermark holds, an undo works."""
    copied(home, url)
    last = home.query("SELECT seq FROM sqlite_sequence WHERE name = 'etl_runs'")[0][0]
    moved = PostgresHome(home.path, url=url)
    moved.drop("again.json", (home.processed / "a.json").read_bytes())
    moved.drop("late.json", [record("late", ts="2026-01-01T00:00:00Z")])
    moved.drop("new.json", [record("new", ts="2026-02-01T00:00:00Z")])
    moved.drop("cdc/3.json", [{"id": 3, "ts": "2026-01-16T23:59:59Z"}])
    moved.drop("dump/2026-01-14.json", [])
    moved.drop("dump/2026-01-16.json", [{"id": 1, "tree": {"a": [], "b": 1}}])
    assert moved.run_once() == 0
    assert moved.query("SELECT id, deleted_at IS NULL FROM cdc ORDER BY id") == [(1, False), (2, True), (3, False)]
    (dump,) = moved.verdicts("dump/2026-01-16.json")
    assert (dump["rows_stale"], dump["rows_deleted"]) == (1, 1)
    again, late, new = (moved.verdicts(name)[0] for name in ("again.json", "late.json", "new.json"))
    assert again["event"] == "file_duplicate"
    assert late["rows_skipped"] == 1
    assert new["rows_out"] == 1
    assert min(line["run_id"] for line in (again, late, new)) > last
    run = moved.query("SELECT id FROM etl_runs WHERE file_name = 'orders/2.json'")[0][0]
    assert moved.call("undo", str(run)).returncode == 0
    restored = moved.query("SELECT amount, paid FROM orders ORDER BY number")
    assert restored == [(1e300, False), (0.1, True)]


def test_a_running_daemon_keeps_its_database(home: Home, url: str) -> None:
    """While a daemon holds the SQLite database nothing is copied: exit 75."""
    home.start()
    done = home.call("db", "copy", f"sqlite:///{home.database}", url)
    assert done.returncode == 75
    assert "another inboxd" in done.stderr


def test_a_target_with_rows_is_refused(home: Home, url: str) -> None:
    """Only an empty database is copied into: exit 1, and it stays as it was; so does a second copy."""
    copied(home, url)
    moved = PostgresHome(home.path, url=url)
    before = moved.query("SELECT COUNT(*), MAX(id) FROM etl_runs")
    done = home.call("db", "copy", f"sqlite:///{home.database}", url)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert moved.query("SELECT COUNT(*), MAX(id) FROM etl_runs") == before


def test_nothing_is_half_copied(home: Home, url: str) -> None:
    """When the target refuses a value of the last table, none of the tables has a row, and a later copy succeeds."""
    assert home.call("db", "upgrade", check=False).returncode == 0
    moved = PostgresHome(home.path, url=url)
    assert moved.call("db", "upgrade").returncode == 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE before_images ADD CONSTRAINT picky CHECK (image IS NULL)")
    done = home.call("db", "copy", f"sqlite:///{home.database}", url)
    assert done.returncode == 1
    assert [moved.query(f"SELECT COUNT(*) FROM {table}")[0][0] for table in TABLES] == [0] * len(TABLES)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE before_images DROP CONSTRAINT picky")
    copied(home, url)


def test_what_cannot_be_copied_is_said_before_anything_is_touched(home: Home, url: str) -> None:
    """Wrong ways, a missing file, a feed that the config no longer has: each has its exit code and its message."""
    here, missing = f"sqlite:///{home.database}", f"sqlite:///{home.path}/none.db"
    assert home.call("db", "copy", url, here).returncode == 2
    assert home.call("db", "copy", here, here).returncode == 2
    assert home.call("db", "copy", missing, url).returncode == 78
    nowhere = home.call("db", "copy", here, "postgresql://nobody:s3cret@127.0.0.1:1/none")
    assert nowhere.returncode == 69
    assert "s3cret" not in nowhere.stdout + nowhere.stderr
    (home.path / "inboxd.toml").write_text("[feeds.events]\n")
    forgotten = home.call("db", "copy", here, url)
    assert forgotten.returncode == 78
    assert "'orders'" in forgotten.stderr


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_json_compares_by_its_value(value: object) -> None:
    """White space and the order of names do not matter to the comparison, everything else does."""
    spread = json.dumps(value, indent=3, ensure_ascii=True)
    assert spelled(spread) == spelled(json.dumps(value, sort_keys=True, ensure_ascii=False))
    assert spelled(spread) != spelled(json.dumps([value]))


@pytest.mark.parametrize(("one", "other"), [("100", "1e2"), ("1.50", "15e-1"), ("-0.0", "0"), ("0e7", "0")])
def test_numbers_compare_by_their_value(one: str, other: str) -> None:
    """PostgreSQL keeps a JSON number's value, not its spelling."""
    assert spelled(one) == spelled(other)
    assert spelled(one) != spelled("1")
