"""What each page shows, gathered from the database in one go: values only, no markup."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from inboxd.clock import moment
from inboxd.fieldtypes import TYPES
from inboxd.inbox.names import marked
from inboxd.model import Feed
from inboxd.operate.browse import (
    AtWork,
    Failures,
    Record,
    all_rejected_runs,
    at_work,
    failures,
    last_successes,
    newest_dead_letters,
    recent_runs,
    records_of,
    samples,
)
from inboxd.operate.dead_letters import CodeCount, DeadLetter, Filter, count_open
from inboxd.operate.explain import HistoryPage, Look, history_pages
from inboxd.operate.hosts import HostActivity, hosts
from inboxd.operate.trend import Bucket, Sums, Trend, trend
from inboxd.outcomes import RunStatus
from inboxd.store.base import RunRow
from inboxd.store.cursors import lag_s, newest_marks
from inboxd.store.database import Store
from inboxd.words import retry_command

RUNS_SHOWN: Final = 25
RUNS_LISTED: Final = 100
CODES_SHOWN: Final = 12
NAMES_SHOWN: Final = 5
DEAD_LETTERS_SHOWN: Final = 50
RECORDS_SHOWN: Final = 100
AT_WORK_SHOWN: Final = 100
PATIENCE_S: Final = 0.12
"""How long a key is looked for in the runs before the page is shown, with a link to look further."""
BUCKETS: Final = {"1h": 60, "24h": 48, "7d": 56, "all": 60}
"""A bucket is a minute, half an hour, three hours; of all it is a sixtieth."""


class Window(StrEnum):
    """How far back the overview looks."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"
    ALL = "all"

    @property
    def hours(self) -> float | None:
        """The window's length; ``None`` is from the first run on."""
        return {"1h": 1.0, "24h": 24.0, "7d": 168.0, "all": None}[self.value]

    @property
    def words(self) -> str:
        """The window in words, to end a sentence with."""
        return {"1h": "the last hour", "24h": "the last 24 hours", "7d": "the last 7 days", "all": "all time"}[self]


@dataclass(frozen=True, slots=True)
class FeedLine:
    """One feed, or a job whose runs were imported, in the overview's table."""

    name: str
    sums: Sums
    watermark: str | None
    lag_s: float | None
    last_success: str | None


@dataclass(frozen=True, slots=True)
class HostLine:
    """One of several hosts that load into the database, and the files it has begun and not ended."""

    activity: HostActivity
    files: Sequence[AtWork]


@dataclass(frozen=True, slots=True)
class Overview:
    """The first page."""

    window: Window
    trend: Trend
    feeds: Sequence[FeedLine]
    recent: Sequence[RunRow]
    dead_letters: Sequence[CodeCount]
    samples: dict[tuple[str, str], DeadLetter]
    hosts: Sequence[HostLine]
    """Empty where there is but one."""
    failures: Sequence[Failures]
    all_rejected: Sequence[RunRow]
    sample: str | None
    """A record that the first feed takes, as something to begin with; ``None`` where its files are not that simple."""

    @property
    def announced(self) -> bool:
        """Whether the database can tell which hosts' daemons are up."""
        return any(line.activity.up is not None for line in self.hosts)

    @property
    def dead_letters_total(self) -> int:
        """How many dead letters wait to be resolved."""
        return sum(count.count for count in self.dead_letters)

    @property
    def lag(self) -> FeedLine | None:
        """The feed whose watermark is furthest behind."""
        lagging = [line for line in self.feeds if line.lag_s is not None]
        return max(lagging, key=lambda line: line.lag_s or 0, default=None)

    @property
    def last(self) -> RunRow | None:
        """The newest run that has ended."""
        return next((run for run in self.recent if run.status is not RunStatus.RUNNING), None)


@dataclass(frozen=True, slots=True)
class RunsPage:
    """A page of runs, newest first."""

    runs: Sequence[RunRow]
    more: int | None


@dataclass(frozen=True, slots=True)
class RunPage:
    """One run: its row, a page of its records, its first dead letters."""

    run: RunRow
    records: Sequence[Record]
    more: tuple[str, int] | None
    dead_letters: Sequence[DeadLetter]
    codes: Sequence[CodeCount]
    report: Report | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a failed run's report says beyond its row, and what its file is called in the folder of failed files."""

    hint: str
    place: tuple[int, int, int] | None
    """Line, column, byte."""
    counts: Mapping[str, int]
    by_code: Mapping[str, int]
    faults: Sequence[Mapping[str, object]]
    keys: Sequence[str]
    name: str
    other_name: str
    """What it is called where a file of its name was there before."""

    @property
    def command(self) -> str:
        """The command that tries the file again."""
        return retry_command(self.name)


@dataclass(frozen=True, slots=True)
class DeadLettersPage:
    """A page of dead letters, and how many there are by code."""

    counts: Sequence[CodeCount]
    dead_letters: Sequence[DeadLetter]
    more: int | None


def overview(store: Store, feeds: Sequence[Feed], window: Window, now: datetime) -> Overview:
    """Gather the first page."""
    found = trend(store, now=now, hours=window.hours, buckets=BUCKETS[window.value])
    dead_letters = count_open(store)
    names = dict.fromkeys([*(feed.name for feed in feeds), *found.jobs])  # feeds in the config's order, then other jobs
    marks = newest_marks(store.watermarks(), feeds)
    successes = last_successes(store, names)
    known = {feed.name: feed for feed in feeds}
    return Overview(
        window=window,
        trend=found,
        feeds=[
            FeedLine(
                name=name,
                sums=found.jobs.get(name, Sums()),
                watermark=marks.get(name),
                lag_s=_lag(known.get(name), marks.get(name), now),
                last_success=successes.get(name),
            )
            for name in names
        ],
        recent=recent_runs(store, now=now, hours=window.hours, limit=RUNS_SHOWN),
        dead_letters=dead_letters,
        samples=samples(store, dead_letters[:CODES_SHOWN]),
        hosts=_hosts(store, now),
        failures=failures(store, now=now, hours=window.hours, limit=CODES_SHOWN) if found.total.failures else (),
        all_rejected=all_rejected_runs(store, now=now, hours=window.hours, limit=NAMES_SHOWN)
        if found.total.all_rejected
        else (),
        sample=_sample(feeds[0], now) if feeds else None,
    )


def _sample(feed: Feed, now: datetime) -> str | None:
    """Return a record with a value of each field's type, for a feed that reads objects as they are."""
    plain = not (feed.records or feed.explode or feed.where or feed.shape)
    if not plain or any(field.path != (field.name,) or field.formats for field in feed.fields):
        return None
    values = {field.name: TYPES[field.type].example(now) for field in feed.fields}
    return json.dumps({field.name: field.choices[0] if field.choices else values[field.name] for field in feed.fields})


def _hosts(store: Store, now: datetime) -> list[HostLine]:
    found = hosts(store, now=now)
    if len(found) < 2:  # noqa: PLR2004 - one host is no news
        return []
    files = at_work(store, AT_WORK_SHOWN)
    return [HostLine(one, [file for file in files if file.host == one.host]) for one in found]


def _lag(feed: Feed | None, watermark: str | None, now: datetime) -> float | None:
    behind = None if feed is None or watermark is None else lag_s(feed, watermark, now)
    return None if behind is None else max(behind, 0.0)


def runs_page(store: Store, *, job: str | None, status: RunStatus | None, before: int | None) -> RunsPage:
    """Gather a page of runs."""
    found = store.runs(job=job, status=status, before=before, limit=RUNS_LISTED + 1)
    more = found[RUNS_LISTED - 1].id if len(found) > RUNS_LISTED else None
    return RunsPage(found[:RUNS_LISTED], more)


def run_page(store: Store, run_id: int, after: tuple[str, int] | None) -> RunPage | None:
    """Gather a run's page; ``None`` if there is no such run."""
    run = store.run(run_id)
    if run is None:
        return None
    records = records_of(store, run_id, after=after, limit=RECORDS_SHOWN + 1)
    shown = records[:RECORDS_SHOWN]
    more = (shown[-1].record_key, shown[-1].record_no) if len(records) > RECORDS_SHOWN else None
    dead_letters = newest_dead_letters(store, run=run_id, limit=DEAD_LETTERS_SHOWN) if run.rows_rejected else []
    codes = count_open(store, Filter(run=run_id, resolved=None)) if run.rows_rejected else []
    return RunPage(run, shown, more, dead_letters, codes, _report(run))


def _report(run: RunRow) -> Report | None:
    """Return what is known of a failed file: its report as the ledger has it."""
    if run.status is not RunStatus.FAILURE or run.file_name is None or run.claim is None:
        return None
    report = json.loads(run.report) if run.report else {}
    details = report.get("details") or {}
    place = report.get("place")
    folder, _, name = run.file_name.rpartition("/")
    return Report(
        hint=str(report.get("hint") or ""),
        place=tuple(place) if place else None,
        counts=details.get("counts") or {},
        by_code=details.get("rejected_by_code") or {},
        faults=details.get("faults") or (),
        keys=details.get("keys") or (),
        name=run.file_name,
        other_name="/".join(filter(None, (folder, marked(name, f"run-{run.id}")))),
    )


def record_page(
    store: Store, feeds: Sequence[Feed], key: str, feed: str | None, before: tuple[int, int] | None = None
) -> Sequence[HistoryPage]:
    """Gather what is known of a key: what ``inboxd explain`` tells, the newest part first."""
    return history_pages(store, feeds, key, feed=feed, look=Look(before, RECORDS_SHOWN, PATIENCE_S))


def dead_letters_page(store: Store, *, feed: str | None, code: str | None, before: int | None) -> DeadLettersPage:
    """Gather a page of unresolved dead letters."""
    found = newest_dead_letters(store, feed=feed, code=code, before=before, limit=DEAD_LETTERS_SHOWN + 1)
    more = found[DEAD_LETTERS_SHOWN - 1].id if len(found) > DEAD_LETTERS_SHOWN else None
    return DeadLettersPage(count_open(store), found[:DEAD_LETTERS_SHOWN], more)


def bucket_label(bucket: Bucket, window: Window) -> str:
    """Return a bucket's span for its tooltip and its row: from its start, in UTC."""
    start = moment(bucket.start)
    length = moment(bucket.end) - start
    if window in {Window.HOUR, Window.DAY} or length < timedelta(hours=1):
        return f"{start:%d %b %H:%M}"
    return f"{start:%d %b %H:%M}" if length < timedelta(days=1) else f"{start:%d %b %Y}"


def since(now: datetime, text: str) -> float:
    """Return how long ago a canonical moment is (s); never below zero."""
    return max((now - moment(text)).total_seconds(), 0.0)
