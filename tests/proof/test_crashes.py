"""A bounded ``make crashes``: a sample of all the states that a power cut may leave, each made real."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from crashes import Crashes, table
from disk_record import Create, Disk, Rename, Sync, Write

SEED = 20_260_115
STATES = 100
WAL = "data/inboxd.db-wal"


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory, require_tool: Callable[[str, str], str]) -> Crashes:
    """A run that drains an inbox, recorded."""
    require_tool("strace", "strace")
    return Crashes(tmp_path_factory.mktemp("crashes").resolve(), SEED)


@pytest.mark.slow
@pytest.mark.crash
@pytest.mark.timeout(600)
def test_no_state_that_a_power_cut_may_leave_loses_or_doubles_anything(crashes: Crashes) -> None:
    """On a journalling disk, and on one that keeps no more than POSIX promises: each file ends where it must, once."""
    crashes.run(crashes.sample(crashes.states(), STATES))
    assert not crashes.broken, "\n".join([table(crashes), *crashes.broken])


@pytest.mark.slow
@pytest.mark.crash
@pytest.mark.timeout(600)
def test_a_sync_that_is_left_out_is_noticed(crashes: Crashes) -> None:
    """Without the syncs of the write-ahead log a state is found in which something is lost: the method can fail."""
    syncs = crashes.sync_kinds()[WAL]
    usual = {state.mark for state in crashes.states()}
    new = [state for state in crashes.states(syncs) if state.mark not in usual]
    random.Random(SEED).shuffle(new)
    assert any(crashes.outcome(state) for state in new[:STATES])


def test_what_is_kept_of_a_record_is_what_is_there() -> None:
    """A rename whose file was never made does nothing, a write beyond the end fills up with zeros."""
    disk = Disk()
    for operation in (
        Create(0, "a", 1, False, 0o644),
        Write(1, 3, b"x"),
        Rename(0, "a", 0, "b"),
        Rename(0, "c", 0, "b"),
    ):
        disk.apply(operation)
    assert list(disk.walk()) == [("b", 1)]
    assert disk.files[1] == b"\0\0\0x"
    disk.apply(Sync(1, 0))
    assert list(disk.walk()) == [("b", 1)]
