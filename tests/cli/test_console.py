"""Log lines on a terminal: one line of 120 characters for what became of a file."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inboxd.console import WIDTH, colour_wanted, console_line

HEAD: Final = {"timestamp": "2026-05-01T08:00:01.123456Z", "level": "info"}
LONG: Final = "orders/2026/an-export-with-a-rather-long-name-and-more-2026-01-15T103000Z.json"
COUNTS: Final = {"rows_in": 1234567, "rows_out": 1234000, "rows_rejected": 567, "rows_skipped": 0, "rows_stale": 0}


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            {"event": "file_loaded", "run_id": 812, "feed": "orders", "file": "a.json", **COUNTS, "duration_ms": 1250},
            "08:00:01Z info    file_loaded  run 812  orders  a.json  1234567 in, 1234000 out, 567 rejected, 1.25 s",
        ),
        (
            {"event": "file_loaded", "run_id": 812, "feed": "orders", "file": LONG, **COUNTS, "duration_ms": 7},
            (
                "08:00:01Z info    file_loaded  run 812  orders  "
                "orders/20…1-15T103000Z.json  1234567 in, 1234000 out, 567 rejected, 7 ms"
            ),
        ),
        (
            {"event": "file_duplicate", "run_id": 9, "feed": "orders", "file": "a.json", "duplicate_of": 7},
            "08:00:01Z info    file_duplicate  run 9  orders  a.json  duplicate of run 7",
        ),
        (
            {"event": "file_failed", "run_id": 9, "feed": "f", "file": "a.json", "error_code": "invalid_json"}
            | {"error": "line 1, column 4 (byte 3): a value expected", "hint": "mend the file and drop it again"},
            (
                "08:00:01Z info    file_failed  run 9  f  a.json  "
                "invalid_json: line 1, column 4 (byte 3): a value expected\n"
                "          mend the file and drop it again"
            ),
        ),
        (
            {"event": "daemon_stopped", "reason": "SIGTERM", "files": 3},
            "08:00:01Z info    daemon_stopped  reason=SIGTERM  files=3",
        ),
        (
            {"event": "file_ignored", "file": "evil\x1b[31m\n.txt", "reason": "no suffix"},
            "08:00:01Z info    file_ignored  evil\\x1b[31m\\n.txt  reason=no suffix",
        ),
    ],
)
def test_a_line_says_what_happened(event: dict[str, object], text: str) -> None:
    """The time, the event, the run, the feed, the file, and what came of it; what to do stands below."""
    assert console_line({**HEAD, **event}, colours=False) == text


@given(
    file=st.text(max_size=300),
    feed=st.text("abcdefgh_", min_size=1, max_size=40),
    error=st.none() | st.text(max_size=400),
    count=st.integers(0, 10**12),
)
def test_a_verdict_is_one_line(file: str, feed: str, error: str | None, count: int) -> None:
    """However long a name or a message is, a verdict fits, and nothing in it steers the terminal."""
    event: dict[str, object] = {**HEAD, "event": "file_loaded", "run_id": count, "feed": feed, "file": file}
    event |= dict.fromkeys(COUNTS, count)
    if error is not None:
        event |= {"event": "file_failed", "error_code": "invalid_encoding", "error": error}
    line = console_line(event, colours=False)
    assert len(line) <= WIDTH
    assert line.isprintable()
    assert f"run {count}" in line


@pytest.mark.parametrize(
    ("environment", "terminal", "wanted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"CLICOLOR_FORCE": "1"}, False, True),
        ({"CLICOLOR": "0"}, True, False),
    ],
)
def test_colour_is_where_it_is_wanted(environment: dict[str, str], terminal: bool, wanted: bool) -> None:  # noqa: FBT001 - parameters of the test
    """NO_COLOR takes it away, FORCE_COLOR and CLICOLOR_FORCE bring it to a pipe, else a terminal has it."""
    assert colour_wanted(environment, terminal=terminal) is wanted
    line = console_line({**HEAD, "level": "error", "event": "bug", "traceback": "a\nb"}, colours=wanted)
    assert ("\x1b[" in line) is wanted
    assert line.endswith("\n  a\n  b")
