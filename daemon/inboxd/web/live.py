"""What makes the page live: noticing that something changed, telling the browsers, asking each question once for all.

Everything here is owned by the page's event loop. Nothing runs while nobody looks.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

import msgspec

from inboxd.model import Feed
from inboxd.operate.browse import last_change
from inboxd.presence import Published
from inboxd.web.reader import Question, Reader, Unanswered

LOOK_EVERY_S: Final = 0.4
LOOK_AT_LEAST_EVERY_S: Final = 1.0
"""How soon a change is noticed, and how soon where answers take long. A file is to be seen within two seconds."""
TELL_ANYWAY_S: Final = 10.0
"""Ages grow and windows move even where nothing happens."""
MAX_STREAMS: Final = 16
STREAM_S: Final = 600.0
"""A stream ends after this long, and the browser opens another: none is held for ever by a client that is gone."""
KEPT: Final = 32
LEAST_AGE_S: Final = 0.5
SHARE: Final = 5.0
"""An answer that took a second is given again for five: however often it is asked, it takes a fifth of a processor."""

Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Kept:
    future: asyncio.Future[object]
    version: int
    until: float = float("inf")


@dataclass(slots=True)
class Answers:
    """Answers kept for a moment. Those who ask the same at the same time wait for the same answer."""

    reader: Reader
    version: int = 0
    cost_s: float = 0.0
    """How long the slowest answer to this version took."""
    _kept: OrderedDict[tuple[object, ...], _Kept] = field(default_factory=OrderedDict)

    def next_version(self) -> None:
        """Make what is kept old: something changed."""
        self.version += 1
        self.cost_s = 0.0

    async def get(self, key: tuple[object, ...], question: Question[Answer]) -> Answer:
        """Return the answer to the question that ``key`` stands for; errors are kept as briefly as answers."""
        loop = asyncio.get_running_loop()
        kept = self._kept.get(key)
        if kept is None or kept.version != self.version or loop.time() > kept.until:
            kept = _Kept(loop.create_task(self._ask(question)), self.version)
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            began = loop.time()
            entry = kept

            def done(future: asyncio.Future[object]) -> None:
                took = loop.time() - began
                entry.until = loop.time() + max(LEAST_AGE_S, SHARE * took)
                self.cost_s = max(self.cost_s, took)
                if not future.cancelled():
                    future.exception()  # asked for here, so that an answer nobody waits for any more is no warning

            kept.future.add_done_callback(done)
        return cast("Answer", await asyncio.shield(kept.future))

    async def _ask(self, question: Question[object]) -> object:
        return await self.reader.ask(question)


@dataclass(slots=True)
class Live:
    """Tells every open stream that there is something new to see."""

    answers: Answers
    published: Published
    feeds: Callable[[], Sequence[Feed]]
    _streams: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _watcher: asyncio.Task[None] | None = None
    _ended: bool = False

    @property
    def full(self) -> bool:
        """Tell whether no further stream can be opened."""
        return self._streams >= MAX_STREAMS

    async def stream(self, stopping: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield server-sent events: the version of what there is to see, first and at every change."""
        loop = asyncio.get_running_loop()
        self._streams += 1
        if self._watcher is None:
            self._watcher = loop.create_task(self._watch())
        try:
            yield b"retry: 2000\n\n"
            until = loop.time() + STREAM_S
            while not stopping() and loop.time() < until:
                news = self._news
                yield f"event: version\ndata: {self.answers.version}\n\n".encode()
                await news.wait()
        finally:
            self._streams -= 1
            if self._streams == 0 and self._watcher is not None:
                self._watcher.cancel()
                self._watcher = None

    def tell(self) -> None:
        """Wake every stream."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _watch(self) -> None:
        """Look for changes as long as anybody is told of them."""
        loop = asyncio.get_running_loop()
        seen: tuple[object, ...] | None = None  # what came between the page's answer and this is news, too
        sent_at = loop.time()
        while True:
            found = await self._look()
            if found != seen or loop.time() - sent_at > TELL_ANYWAY_S:
                seen, sent_at = found, loop.time()
                self.answers.next_version()
                self.tell()
            await asyncio.sleep(min(max(LOOK_EVERY_S, SHARE * self.answers.cost_s), LOOK_AT_LEAST_EVERY_S))

    async def _look(self) -> tuple[object, ...]:
        state = self.published.state
        standing = None if state is None else msgspec.structs.replace(state, updated="")
        known = (
            standing,
            self.published.inbox_lost,
            self.published.work,
            self.feeds(),
        )  # a config loaded anew is news, too
        try:
            return (*await self.answers.reader.ask(last_change), *known)
        except Unanswered as reason:
            return (reason.code, *known)
