"""A crash at the very end of a file's way: its verdict is in the log once, whether it came before or after the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemons import Home, record
from faults import QUICK
from inboxd.log import is_logged


def _leave_the_claims_folder(home: Home) -> None:
    """Be where a daemon is that was killed between a file's move and the removal of its claim's folder."""
    claim = home.query("SELECT claim FROM etl_runs WHERE file_name = 'a.json'")[0][0]
    (home.inbox / ".claimed").mkdir(mode=0o700, exist_ok=True)
    (home.inbox / ".claimed" / claim).mkdir()


@pytest.mark.parametrize("content", [json.dumps([record("a")]), "[,"])
def test_a_verdict_that_was_said_just_before_a_crash_is_not_said_again(tmp_path: Path, content: str) -> None:
    """Killed right after a file's line, or right before it: exactly one line says how the file ended."""
    with Home(tmp_path, QUICK) as home:
        home.drop("a.json", content)
        home.run_once()
        first = home.verdicts("a.json")
        _leave_the_claims_folder(home)
        home.run_once()
        assert home.verdicts("a.json") == first
        assert not list(home.inbox.glob(".claimed/*"))
        (home.path / "data" / "inboxd.log").unlink()  # as if the line had not been written yet
        _leave_the_claims_folder(home)
        home.run_once()
        recovered = home.verdicts("a.json")
        assert len(recovered) == 1
        assert recovered[0]["run_id"] == first[0]["run_id"]
        assert recovered[0]["rows_out"] == first[0]["rows_out"]


def test_a_verdict_is_found_however_long_ago_it_was_said(tmp_path: Path) -> None:
    """A line is found behind megabytes of others, and the number of a run is not taken for a part of another's."""
    log = tmp_path / "inboxd.log"
    other = b'{"event":"file_deferred","run_id":7,"feed":"events","file":"x.json"}\n'
    log.write_bytes(b'{"event":"file_loaded","run_id":70,"feed":"events"}\n' + other * 40_000)
    assert is_logged(log, 70)
    assert not is_logged(log, 7)
    assert not is_logged(log, 0)
    assert not is_logged(tmp_path / "none.log", 70)
    assert not is_logged(None, 70)
