"""Snapshots by chance, through the whole pipeline, on both databases: what the table says, and what undo gives back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.clock import SystemClock
from inboxd.config import load_settings
from inboxd.errors import OperatorFault
from inboxd.model import Feed
from inboxd.operate.undo import plan, undo
from inboxd.outcomes import Outcome, Verdict
from inboxd.store import open_store
from inboxd.store.cursors import watermarks_of
from inboxd.store.database import Store
from loaders import take
from stores import MakeUrl, query

CONFIG: Final = """
[feeds.dump]
match = ["{region}/*"]
mode = "snapshot"
key = ["region", "id"]
scope = ["region"]
absent = "%s"
max_deleted = "100%%"
allow_empty = true
undo = true
fields = { region = { from = "$path.region", type = "text" }, id = { type = "integer" }, v = { type = "text" } }
"""
NAMES: Final = count(1)

Content = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Dump:
    """One file: the region whose rows it has all of, its day, its records."""

    region: str
    day: int
    records: Content


DUMPS: Final = st.lists(
    st.builds(
        Dump,
        st.sampled_from(["EU", "US"]),
        st.integers(1, 6),
        st.lists(st.tuples(st.integers(1, 4), st.sampled_from("xy")), max_size=5).map(tuple),
    ),
    min_size=1,
    max_size=6,
)
"""Few keys, values and days: rows come, go, come back, and files are too old, or of the same day."""


@dataclass
class Regions:
    """The contract, file by file: the rows of each region with their values, and which are marked."""

    marks: bool
    rows: dict[tuple[str, int], tuple[str, bool]] = field(default_factory=dict)
    days: dict[str, int] = field(default_factory=dict)

    def load(self, dump: Dump) -> bool:
        """Let the region be what the file says, and tell whether it counted."""
        if dump.day <= self.days.get(dump.region, 0):
            return False
        self.days[dump.region] = dump.day
        there = dict(dump.records)
        for region, key in [place for place in self.rows if place[0] == dump.region and place[1] not in there]:
            value, _ = self.rows.pop((region, key))
            if self.marks:
                self.rows[region, key] = value, True
        self.rows |= {(dump.region, key): (value, False) for key, value in there.items()}
        return True


@dataclass
class Site:
    """A feed of its own for each example, on one database."""

    store: Store
    folder: Path
    made: Feed

    def feed(self) -> Feed:
        """Return a feed of a new table."""
        name = f"dump_{next(NAMES)}"
        feed = replace(self.made, name=name, table=name)
        self.store.prepare((feed,))
        return feed

    def load(self, feed: Feed, dump: Dump) -> Verdict:
        """Load a file of that region and day."""
        content = json.dumps([{"id": key, "v": value} for key, value in dump.records])
        return self.take(feed, f"{dump.region}/{next(NAMES)}.json", content, dump.day)

    def take(self, feed: Feed, name: str, content: str, day: int) -> Verdict:
        """Load a file of that name, content and day."""
        return take(self.store, self.folder, feed, name, content, day)

    def rows(self, feed: Feed) -> dict[tuple[str, int], tuple[str, bool]]:
        """Return the table as the model has it."""
        marked = "deleted_at IS NOT NULL" if self.marks else "1 = 0"
        found = query(self.store, f"SELECT region, id, v, {marked} FROM {feed.table}")
        return {(str(region), int(str(key))): (str(value), bool(gone)) for region, key, value, gone in found}

    @property
    def marks(self) -> bool:
        """Whether rows stay."""
        return self.made.absent == "mark"


@pytest.fixture(params=["remove", "mark"])
def site(request: pytest.FixtureRequest, make_url: MakeUrl, tmp_path: Path) -> Iterator[Site]:
    """Return a place for snapshots, on each database."""
    config = tmp_path / "inboxd.toml"
    config.write_text(CONFIG % request.param, encoding="utf-8")
    with open_store(make_url()) as store:
        store.upgrade()
        yield Site(store, tmp_path, load_settings(config, {}, tmp_path).feeds[0])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dumps=DUMPS)
def test_a_snapshot_after_any_history_gives_exactly_its_rows_in_scope(site: Site, dumps: list[Dump]) -> None:
    """In any order of days: the newest counts, an older one is skipped whole, and other scopes are not touched."""
    feed, model = site.feed(), Regions(site.marks)
    for dump in dumps:
        before = model.rows.copy()
        counted = model.load(dump)
        verdict = site.load(feed, dump)
        assert site.rows(feed) == model.rows
        live = {place for place, (_, gone) in model.rows.items() if not gone}
        if verdict.outcome is Outcome.LOADED and counted:
            assert {key for region, key in live if region == dump.region} == set(dict(dump.records))
            went = [place for place, (_, gone) in before.items() if not gone and place not in live]
            assert verdict.counts.rows_deleted == len(went)
        else:
            assert (verdict.counts.rows_out, verdict.counts.rows_deleted) == (0, 0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dumps=DUMPS, undos=st.lists(st.sampled_from(["EU", "US"]), min_size=1, max_size=4))
def test_undoing_the_last_snapshots_of_a_scope_gives_what_was_there_without_them(
    site: Site, dumps: list[Dump], undos: list[str]
) -> None:
    """One after the other, back to the empty table; what was skipped for its age is named, and counts when loaded."""
    feed, loaded, passed = site.feed(), {}, set()
    for dump in dumps:
        verdict = site.load(feed, dump)
        if verdict.outcome is Outcome.LOADED:
            loaded[verdict.run_id] = dump
    for region in undos:
        name = f'{feed.name} ["{region}"]'
        last = query(site.store, f"SELECT run_id FROM watermarks WHERE name = '{name}'")
        if last:
            run_id = int(str(last[0][0]))
            foreseen = plan(site.store, (feed,), run_id)
            found = undo(site.store, (feed,), run_id, clock=SystemClock(), host="here")
            assert replace(found, run_id=None) == foreseen
            passed |= {one.run_id for one in found.reload}
            del loaded[run_id]
    for run_id in sorted(passed & loaded.keys()):
        site.load(feed, loaded[run_id])
    model = Regions(site.marks)
    for dump in loaded.values():
        model.load(dump)
    assert site.rows(feed) == model.rows


@pytest.mark.parametrize("seed", range(8))
def test_snapshots_that_come_between_undos_are_told_when_they_matter(site: Site, seed: int) -> None:
    """Load, undo and load again by chance: the table is what the files say that stand, each at its last place."""
    feed, chance, contents = site.feed(), random.Random(seed), count(1)
    loaded: dict[int, tuple[Dump, str]] = {}
    told: set[int] = set()

    def take_in(dump: Dump, content: str) -> None:
        verdict = site.take(feed, f"{dump.region}/{next(NAMES)}.json", content, dump.day)
        loaded[verdict.duplicate_of or verdict.run_id] = (dump, content)  # a duplicate: there is a later one by now

    def again(run_id: int) -> None:
        told.remove(run_id)
        take_in(*loaded.pop(run_id))

    for _ in range(chance.randint(4, 14)):
        act, region = chance.choice(["load", "load", "undo", "again"]), chance.choice(["EU", "US"])
        last = query(site.store, f"SELECT run_id FROM watermarks WHERE name = '{feed.name} [\"{region}\"]'")
        if act == "undo" and last:
            found = undo(site.store, (feed,), int(str(last[0][0])), clock=SystemClock(), host="here")
            del loaded[found.undo_of]
            told = (told | {one.run_id for one in found.reload}) & loaded.keys()
        elif act == "again" and told:
            again(chance.choice(sorted(told)))
        else:
            records = tuple((key, chance.choice("xy")) for key in chance.sample(range(1, 5), chance.randint(0, 4)))
            rows = json.dumps([{"id": key, "v": value} for key, value in records])
            take_in(Dump(region, chance.randint(1, 6), records), rows + " " * next(contents))
    for run_id in sorted(told):
        again(run_id)
    model = Regions(site.marks)
    for dump, _ in loaded.values():
        model.load(dump)
    assert site.rows(feed) == model.rows


def test_a_snapshot_skipped_because_of_one_undone_before_is_told(site: Site) -> None:
    """It is told with each undo until it was loaded again, as without the undone ones it is the last."""
    feed = site.feed()
    far = site.load(feed, Dump("EU", 5, ((1, "x"),)))
    skipped = site.load(feed, Dump("EU", 3, ((1, "y"),)))
    named = undo(site.store, (feed,), far.run_id, clock=SystemClock(), host="here").reload
    assert [one.run_id for one in named] == [skipped.run_id]
    later = site.load(feed, Dump("EU", 6, ((2, "x"),)))
    assert undo(site.store, (feed,), later.run_id, clock=SystemClock(), host="here").reload == named
    again = site.load(feed, Dump("EU", 3, ((1, "y"),)))
    assert site.rows(feed) == {("EU", 1): ("y", False)}
    assert undo(site.store, (feed,), again.run_id, clock=SystemClock(), host="here").reload == named


MOMENTS: Final = {
    "": ("a.json", "{}", "1970-01-10T00:00:00.000000Z"),
    '"$file.mtime"': ("a.json", "{}", "1970-01-10T00:00:00.000000Z"),
    '{ from = "$path.at", type = "integer" }': ("9.json", "{}", "9"),
    '{ from = "$path.at", type = "date" }': ("2026-01-09.json", "{}", "2026-01-09"),
    '{ from = "$path.at", type = "date", format = "%d.%m.%y" }': ("09.01.26.json", "{}", "2026-01-09"),
    '"$path.at"': ("2026-01-09.json", "{}", "2026-01-09T00:00:00.000000Z"),
    '{ from = "$path.at", unit = "s" }': ("9.json", "{}", "1970-01-01T00:00:09.000000Z"),
    '{ from = "$path.at", format = "%Y%m%d%H", timezone = "Europe/Berlin" }': (
        "2026010901.json", "{}", "2026-01-09T00:00:00.000000Z",
    ),
    '{ from = "$file.name", format = "%Y-%m-%d.json" }': ("2026-01-09.json", "{}", "2026-01-09T00:00:00.000000Z"),
    '{ from = "$file.path", type = "date", format = "dump/%Y-%m-%d.json" }': ("2026-01-09.json", "{}", "2026-01-09"),
    '"$.at"': ("a.json", '{"at": "2026-01-09T01:00:00+01:00"}', "2026-01-09T00:00:00.000000Z"),
    '{ from = "$.at", type = "date" }': ("a.json", '{"at": "2026-01-09"}', "2026-01-09"),
    '{ from = "$.at", type = "integer" }': ("a.json", '{"at": 9}', "9"),
    '{ from = "$.at.no", type = "integer" }': ("a.json", '{"at": {"no": "9"}}', "9"),
    '{ from = "$.at", unit = "ms" }': ("a.json", '{"at": 9000.5}', "1970-01-01T00:00:09.000500Z"),
}  # fmt: skip
"""Each source and type that the moment of a snapshot may have: the file's name, what is in it, the watermark then."""


def test_the_moment_of_a_snapshot_may_be_of_each_type_and_from_each_source(make_url: MakeUrl, tmp_path: Path) -> None:
    """What the config takes loads, and orders the files as numbers and times do: 9 is before 10, and not after it."""
    feeds = [
        f'[feeds.f{number}]\nmatch = ["dump/{{at}}.json"]\nmode = "snapshot"\nabsent = "remove"\nkey = ["id"]\n'
        f'records = "rows"\nfields = {{ id = {{ type = "integer" }} }}\n{as_of and f"as_of = {as_of}"}'
        for number, as_of in enumerate(MOMENTS)
    ]
    (tmp_path / "inboxd.toml").write_text("\n".join(feeds), encoding="utf-8")
    made = load_settings(tmp_path / "inboxd.toml", {}, tmp_path).feeds
    with open_store(make_url()) as store:
        store.upgrade()
        store.prepare(made)
        for feed, (name, around, mark) in zip(made, MOMENTS.values(), strict=True):
            site = Site(store, tmp_path, feed)
            later = [text.replace("09", "10").replace("9", "10") for text in (name, around)]
            for place, (at, document) in enumerate([(name, around), (later[0], later[1]), (name, around)]):
                day = 10 if place == 1 else 9
                rows = [{"id": number} for number in range(place + 1)]
                verdict = site.take(feed, f"dump/{at}", json.dumps({**json.loads(document), "rows": rows}), day)
                found = watermarks_of(feed, store.watermarks())
                assert (verdict.error_code, verdict.counts.rows_skipped) == (None, 3 if place == 2 else 0), feed.as_of
                assert (found[0].value == mark) == (place == 0), feed.as_of
            assert query(store, f"SELECT COUNT(*) FROM {feed.table}") == [(2,)], feed.as_of


def test_an_earlier_snapshot_of_a_scope_is_not_undone(site: Site) -> None:
    """No image holds what there was without it; the refusal says what to do instead."""
    feed = site.feed()
    first = site.load(feed, Dump("EU", 1, ((1, "x"),)))
    other = site.load(feed, Dump("US", 1, ((1, "x"),)))
    site.load(feed, Dump("EU", 2, ((1, "y"),)))
    with pytest.raises(OperatorFault, match="not the last snapshot of its scope"):
        undo(site.store, (feed,), first.run_id, clock=SystemClock(), host="here")
    undo(site.store, (feed,), other.run_id, clock=SystemClock(), host="here")
    assert site.rows(feed) == {("EU", 1): ("y", False)}
