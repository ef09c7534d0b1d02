"""Rows that say which file and which record they are from, and undo."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Final

import pytest

from inboxd.clock import SystemClock
from inboxd.config import load_settings
from inboxd.operate.undo import undo
from inboxd.store import open_store
from loaders import take
from stores import MakeUrl, query

pytestmark = pytest.mark.on_citus

FILES: Final = """
[feeds.{name}]
match = ["{name}/*"]
key = ["id"]
undo = true
[feeds.{name}.fields]
id = {{ type = "text" }}
v = {{ type = "integer" }}
source = {{ type = "text", coalesce = ["source", "$file.name"] }}
name = {{ type = "text", from = "$file.name" }}
doc = {{ type = "json", from = "$file.name" }}
day = {{ type = "date", from = "$file.name", format = "%Y-%m-%d.json" }}
mtime = {{ type = "timestamp", from = "$file.mtime" }}
number = {{ type = "integer", from = "$record.no" }}
counted = {{ type = "decimal", from = "$record.no" }}
written = {{ type = "text", from = "$record.no", coerce = true }}
real = {{ type = "real", from = "$record.no" }}
tree = {{ type = "json", from = "$record.no" }}
"""


def test_a_row_says_which_file_and_record_it_is_from_also_after_undos(make_url: MakeUrl, tmp_path: Path) -> None:
    """Columns that come from the file alone have what the file says that stands, whatever type they are of."""
    (tmp_path / "inboxd.toml").write_text(FILES.format(name="all") + FILES.format(name="some"), encoding="utf-8")
    feeds = load_settings(tmp_path / "inboxd.toml", {}, tmp_path).feeds
    contents = {1: [("a", 1)], 2: [("a", 2)], 3: [("b", 1), ("a", 2)], 4: [("a", 3)]}
    with open_store(make_url()) as store:
        store.upgrade()
        store.prepare(feeds)
        runs: dict[tuple[str, int], int] = {}
        for feed in feeds:
            for day, records in contents.items():
                if (feed.name, day) != ("some", 2):
                    content = json.dumps([{"id": key, "v": value, "source": "web"} for key, value in records])
                    runs[feed.name, day] = take(
                        store, tmp_path, feed, f"{feed.name}/2026-01-0{day}.json", content, day
                    ).run_id
        for undone in (("all", 2), ("all", 4), ("some", 4)):
            undo(store, feeds, runs[undone], clock=SystemClock(), host="here")
        names = ", ".join(f"CAST({name} AS TEXT)" for name in feeds[0].columns)
        rows = [query(store, f'SELECT {names} FROM "{feed.table}" ORDER BY id') for feed in feeds]
        assert rows[0] == rows[1]
        last = "2026-01-03.json"
        assert [row[3:8] for row in rows[0]] == [
            (last, f'"{last}"', last[:10], rows[1][0][6], "2"),
            (last, f'"{last}"', last[:10], rows[1][1][6], "1"),
        ]


def test_a_value_of_the_record_counts_though_the_file_may_give_it(make_url: MakeUrl, tmp_path: Path) -> None:
    """A field of the record, or else of the file, tells two records apart; one of the file alone does not."""
    (tmp_path / "inboxd.toml").write_text(FILES.format(name="all"), encoding="utf-8")
    (feed,) = load_settings(tmp_path / "inboxd.toml", {}, tmp_path).feeds
    with open_store(make_url()) as store:
        store.upgrade()
        store.prepare((feed,))
        for day, source in enumerate(["web", "app", "app"], 1):
            content = json.dumps([{"id": "a", "v": 1, "source": source}]) + " " * day
            verdict = take(store, tmp_path, feed, f"all/2026-01-0{day}.json", content, day)
            assert verdict.counts.rows_out == (day < 3), verdict
        assert query(store, f'SELECT source, name FROM "{feed.table}"') == [("app", "2026-01-02.json")]


SHARED: Final = """
[feeds.{name}]
match = ["{name}/*"]
table = "shared"
key = ["id"]
cursor = "n"
late = "merge"
undo = true
extra = "{extra}"
{deletes}
[feeds.{name}.fields]
id = {{ type = "text" }}
n = {{ type = "integer" }}
{name}_text = {{ type = "text", required = false }}
{name}_data = {{ type = "json", required = false }}
{name}_at = {{ type = "timestamp", required = false }}
"""


@pytest.mark.parametrize("then", ["", "remove", "mark"])
@pytest.mark.parametrize("seed", range(3))
def test_feeds_that_fill_columns_of_one_table_are_undone_row_by_row(
    make_url: MakeUrl, tmp_path: Path, then: str, seed: int
) -> None:
    """The last runs undone in any order leave what was there before them, in the columns of every feed."""
    chance = random.Random(seed)
    deletes = f'deletes = {{ from = "op", in = ["d"], then = "{then}" }}' if then else ""
    parts = [SHARED.format(name=name, extra=extra, deletes=deletes) for name, extra in (("a", "keep"), ("b", "ignore"))]
    (tmp_path / "inboxd.toml").write_text("".join(parts), encoding="utf-8")
    feeds = load_settings(tmp_path / "inboxd.toml", {}, tmp_path).feeds
    with open_store(make_url()) as store:
        store.upgrade()
        store.prepare(feeds)
        names = ", ".join(f"CAST({name} AS TEXT)" for name in ("n", "a_text", "a_data", "a_at", "b_text", "b_data"))
        marked = ", deleted_at IS NULL" if then == "mark" else ""
        states, runs = [], []
        for number in range(1, 8):
            states.append(query(store, f"SELECT id, run_id, extra, {names}{marked} FROM shared ORDER BY id"))
            feed = chance.choice(feeds)
            said = {f"{feed.name}_text": f"t{number}", f"{feed.name}_data": [number, None], "more": number}
            said[f"{feed.name}_at"] = f"2026-01-0{number}T00:00:00Z"
            records = [{"id": key, "n": number, "op": chance.choice("udu"), **said} for key in chance.sample("xyz", 2)]
            runs.append(take(store, tmp_path, feed, f"{feed.name}/{number}.json", json.dumps(records), number).run_id)
        stands = chance.randrange(len(runs))
        for run_id in chance.sample(runs[stands:], len(runs) - stands):
            undo(store, feeds, run_id, clock=SystemClock(), host="here")
        assert query(store, f"SELECT id, run_id, extra, {names}{marked} FROM shared ORDER BY id") == states[stands]
