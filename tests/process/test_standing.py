"""What a daemon tells of the file that it works on, in one process and from outside."""

from __future__ import annotations

import gzip
import json
import signal
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import psutil
import pytest

from daemons import Home, eventually, record
from inboxd.clock import Clock
from inboxd.config import STATE_FILE, load_settings
from inboxd.daemon import Daemon
from inboxd.errors import TransientFault
from inboxd.inbox.source import Source
from inboxd.notify import Notifier
from inboxd.outcomes import Edge, Step
from inboxd.presence import Phase, Published, Work, read_state
from inboxd.standing import Standing, status_line
from places import SUPPORT


def at_work(source: Source | None, clock: Clock) -> Daemon:
    """Return a daemon that reads a file of a claim, as far as the question looks at it."""
    pending: Any = SimpleNamespace(claim=SimpleNamespace(id="c1", name="a/b.json"), feed="events")
    return cast("Daemon", SimpleNamespace(reading=source and (pending, source), clock=clock))


class Still:
    """A clock that the test moves."""

    seconds = 0.0

    def monotonic(self) -> float:
        """Return the seconds that the test set."""
        return self.seconds

    def now(self) -> datetime:
        """Return the same as a time of 2026."""
        return datetime(2026, 1, 15, tzinfo=UTC) + timedelta(seconds=self.seconds)


def test_a_file_in_work_is_shown_with_its_phase_and_told_once_it_takes_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read is shown in bytes and per cent; each later phase by when it began, and at once."""
    clock, published = Still(), Published(load_settings(None, {}, tmp_path))
    told: list[Any] = []  # Any: work, or none
    monkeypatch.setattr(Standing, "tell", lambda standing, _daemon: told.append(standing.published.work))
    standing = Standing(published, clock, Notifier(), since="2026-01-15T00:00:00.000000Z")
    begin = standing.followed(None)
    (tmp_path / "file").write_bytes(b"x" * 100)
    with Source(tmp_path / "file") as source:
        standing.follow(at_work(source, clock))
        begin(Step.BEGIN, Edge.BEFORE)
        source.read(40)
        for clock.seconds in (1.0, 1.2, 2.0):
            standing.look_at_work(clock.seconds)
        reading = Work("c1", "a/b.json", "events", Phase.READING, "2026-01-15T00:00:00.000000Z", 40, 100)
        assert (published.work, reading.share, told) == (reading, 40, [reading])
        source.read(60)
        for clock.seconds, step in ((2.1, Step.LOCK), (2.2, Step.UPSERT), (2.3, Step.COMMIT), (2.4, Step.ARCHIVE)):
            begin(step, Edge.BEFORE)
    assert [(one.phase.value, one.since[17:21], one.share) for one in told] == [
        ("reading", "00.0", 40),
        ("writing", "02.1", 100),
        ("committing", "02.3", 100),
        ("moving", "02.4", 100),
    ]
    standing.follow(at_work(None, clock))
    standing.look_at_work(9.0)
    assert published.work is None


def test_only_a_file_that_waits_after_a_fault_is_said_to_be_deferred(tmp_path: Path) -> None:
    """A claimed file whose turn is still to come, as after a restart, is waiting and nothing else."""
    tally = SimpleNamespace(loaded=1, duplicate=2, failed=3)
    pending: Any = [SimpleNamespace(fault=None), SimpleNamespace(fault=TransientFault("disk_full", "no room"))]
    inbox = SimpleNamespace(aside={})
    daemon: Any = SimpleNamespace(
        tally=tally, survey=SimpleNamespace(total=4), pending=pending, folders=SimpleNamespace(inbox=inbox)
    )
    published = Published(load_settings(None, {}, tmp_path))
    assert status_line(daemon, published) == "1 loaded, 2 duplicate, 3 failed; 4 waiting, 1 deferred"
    published.work = Work("c1", "a.json", "events", Phase.WRITING, "2026-01-15T00:00:00.000000Z", 5, 5)
    assert status_line(daemon, published).endswith("1 deferred; writing a.json")


PAUSING: Final = SUPPORT / "pausing.py"
MEMBERS: Final = 60
"""So many gzip members of 1,000 records, with 2 KB each that no feed wants, take a while to be read."""


def test_status_and_page_tell_the_phases_of_a_large_file_apart(tmp_path: Path) -> None:
    """While a real daemon loads it: its bytes and share while it is read, then that it is written, then committed."""
    with Home(tmp_path, command=(sys.executable, str(PAUSING), Step.LOCK, Step.COMMIT)) as home:
        home.start()
        daemon = home.process
        assert daemon is not None
        asking = Home(tmp_path)
        address = home.lines("http_started")[0]["address"]
        line = json.dumps({**record("a"), "more": "x" * 2_000}).encode() + b"\n"
        home.drop("big.ndjson.gz", gzip.compress(line * 1_000) * MEMBERS)

        def work(phase: Phase) -> Work | None:
            state = read_state(tmp_path / "data" / STATE_FILE)
            return state.work if state and state.work and state.work.phase is phase else None

        reading = eventually(lambda: work(Phase.READING), "it is read")
        assert (reading.file, reading.feed) == ("big.ndjson.gz", "events")
        assert 0 < reading.done < reading.size
        with urllib.request.urlopen(f"{address}runs/1", timeout=60) as page:  # noqa: S310 - our own address
            shown = page.read().decode()
        assert "Reading for" in shown
        assert "<progress" in shown
        for phase in (Phase.WRITING, Phase.COMMITTING):
            eventually(lambda: psutil.Process(daemon.pid).status() == psutil.STATUS_STOPPED, "it waits for us")
            found = eventually(partial(work, phase), phase.value)
            assert found.done == found.size
            assert phase.value in asking.call("status").stdout
            daemon.send_signal(signal.SIGCONT)
        assert home.verdict("big.ndjson.gz")["rows_in"] == MEMBERS * 1_000
        eventually(lambda: not any(map(work, Phase)), "nothing is in work any more")
        assert asking.json("status", "--json")["work"] is None
        assert home.stop() == 0
