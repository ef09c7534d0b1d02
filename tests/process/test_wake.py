"""What ends the loop's pause: a call of ``set``, and nothing that another thread is about to look at."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from inboxd.wake import Wake

SHORT_S = 0.02


@pytest.fixture
def wake() -> Iterator[Wake]:
    """Return one that nobody has set."""
    made = Wake()
    yield made
    made.close()


@pytest.fixture
def queue() -> Iterator[tuple[int, int]]:
    """Return both ends of a queue."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_pause_ends_with_its_time_or_with_a_call(wake: Wake, queue: tuple[int, int]) -> None:
    """A call that came before counts, once."""
    for given in (None, queue[0]):
        assert not wake.wait(SHORT_S, given)
        assert not wake.wait(-1, given)
        wake.set()
        assert wake.wait(60, given)
        assert not wake.wait(SHORT_S, given)


def test_what_nobody_calls_for_ends_no_pause(wake: Wake, queue: tuple[int, int]) -> None:
    """An event that is not worth it, or that nobody reads, does not wake the loop."""
    os.write(queue[1], b"x")
    assert not wake.wait(SHORT_S, queue[0])


def test_a_pause_ends_with_the_call_that_an_event_leads_to(wake: Wake, queue: tuple[int, int]) -> None:
    """The thread that reads the queue takes its time, and calls."""

    def read() -> None:
        os.read(queue[0], 1)
        wake.set()

    reader = threading.Thread(target=read)
    reader.start()
    threading.Timer(0, os.write, (queue[1], b"x")).start()
    assert wake.wait(60, queue[0])
    reader.join()
