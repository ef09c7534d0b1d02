"""What libraries say, in lines of ours."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from inboxd.clock import SystemClock
from inboxd.libraries import MOST, SPAN_S, listen_to_libraries
from inboxd.log import open_log


@dataclass
class Hand:
    """A clock that is moved by hand."""

    at: float = 0.0

    def now(self) -> datetime:
        """Return the wall clock's time."""
        return SystemClock().now()

    def monotonic(self) -> float:
        """Return where the hand is."""
        return self.at


@pytest.fixture
def clock() -> Hand:
    """Return a clock that stands."""
    return Hand()


@pytest.fixture
def log(tmp_path: Path, clock: Hand) -> Iterator[Path]:
    """Listen to libraries, and return the log."""
    path = tmp_path / "inboxd.log"
    undo = listen_to_libraries(open_log(fmt="json", level="info", file=path, out=None), clock)
    yield path
    undo()


def lines(log: Path) -> list[dict[str, Any]]:
    """Return the log's lines."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_what_a_library_logs_is_a_line_and_nothing_on_standard_error(
    log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """asyncio, SQLAlchemy, watchdog: a warning with its traceback is one JSON line."""

    async def fails() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    asyncio.run(fails())
    (line,) = lines(log)
    assert (line["event"], line["level"], line["library"]) == ("library_message", "warning", "asyncio")
    assert "ZeroDivisionError" in line["traceback"]
    assert capfd.readouterr() == ("", "")


def test_nobody_can_fill_the_log_through_a_library(log: Path, clock: Hand) -> None:
    """Ten messages a minute are said, and how many were not."""
    for number in range(1_000):
        logging.getLogger("asyncio").error("socket.accept() out of system resource %d", number)
    assert len(lines(log)) == MOST
    clock.at += SPAN_S + 1
    logging.getLogger("asyncio").error("again")
    assert lines(log)[-1]["left_out"] == 1_000 - MOST


def test_a_thread_that_ends_by_a_bug_and_a_warning_are_lines(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No traceback of a library's thread is beside the JSON lines, nor Python's own words on a warning."""

    def die() -> None:
        raise KeyError("a watcher's")

    thread = threading.Thread(target=die, name="watcher")
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)  # pytest records warnings in a way of its own
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    bug, warning = lines(log)
    assert (bug["event"], bug["thread"]) == ("bug", "watcher")
    assert "KeyError" in bug["traceback"]
    assert warning["library"] == "py.warnings"
    assert capfd.readouterr() == ("", "")
