"""What the first look at a page would have to wait for, done once and unasked: templates and statements compiled.

The page shares the interpreter with the daemon, so this begins when the daemon is ready and goes on in small pieces
with pauses: a file that comes meanwhile hardly notices. Whoever looks earlier waits as long as without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from inboxd.model import Feed
from inboxd.operate.browse import last_change, newest_dead_letters, records_of
from inboxd.store.database import Store
from inboxd.web.reader import Question, Reader, Unanswered
from inboxd.web.render import Renderer
from inboxd.web.views import Overview, Window, dead_letters_page, overview, record_page, runs_page

READY_EVERY_S: Final = 0.2
PAUSE_S: Final = 0.05
"""Between two pieces, of which the longest takes about as long."""
NO_RUN: Final = 0
"""Runs are numbered from 1: what is asked of this one, or of those before it, is found at once to be nothing."""


async def warm_up(
    ready: Callable[[], bool],
    reader: Reader,
    renderer: Renderer,
    question: Question[Overview],
    feeds: Callable[[], Sequence[Feed]],
) -> Overview | None:
    """Do it, once ``ready``; return the answer to ``question``, or ``None`` if the database cannot be read now."""
    while not ready():  # noqa: ASYNC110 - the daemon's thread has no asyncio to set an event with
        await asyncio.sleep(READY_EVERY_S)
    for template in renderer.templates():
        renderer.load(template)
        await asyncio.sleep(PAUSE_S)
    with suppress(Unanswered):
        for one in _small_questions(feeds()):
            await reader.ask_on_every_thread(one)
            await asyncio.sleep(PAUSE_S)
        return (await reader.ask_on_every_thread(question))[0]
    return None


def first_overview(feeds: Callable[[], Sequence[Feed]], now: Callable[[], datetime]) -> Question[Overview]:
    """Return the question for the shortest overview: however many runs there are, few are of the last hour."""
    return lambda store: overview(store, feeds(), Window.HOUR, now())


def _small_questions(feeds: Sequence[Feed]) -> Iterator[Question[object]]:
    """Yield the pages' other questions, of a run that is not there."""

    def run(store: Store) -> None:
        store.run(NO_RUN)
        records_of(store, NO_RUN, after=None, limit=1)
        newest_dead_letters(store, run=NO_RUN, limit=1)

    yield last_change
    yield run
    yield lambda store: runs_page(store, job=None, status=None, before=NO_RUN)
    yield lambda store: record_page(store, feeds, "", None, (NO_RUN, 0))
    yield lambda store: dead_letters_page(store, feed=None, code=None, before=NO_RUN)
