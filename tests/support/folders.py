"""Hands for the tests of the inbox: an inbox on a real filesystem, a clock that can be put forward, other processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from inboxd.inbox.claim import Claim, new_claim_id, take
from inboxd.inbox.scan import Inbox, Survey
from inboxd.inbox.settle import Kind
from inboxd.inbox.watch import Watch

NOBODY = 65534
"""The user that owns nothing."""
PATIENCE_S = 20.0


class SkewedClock:
    """The machine's clocks, put forward: waiting costs a test nothing."""

    def __init__(self) -> None:
        self._forward = 0.0
        self._jump = 0.0
        self._held: float | None = None

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self._forward += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock, as an administrator or NTP does; no time passes."""
        self._jump += seconds

    def now(self) -> datetime:
        """Return the wall clock's time."""
        return datetime.fromtimestamp(time.time() + self._forward + self._jump, UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock's time."""
        return time.monotonic() + self._forward if self._held is None else self._held

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no time pass: how long something takes on a busy machine decides nothing."""
        self._held = self.monotonic()
        try:
            yield
        finally:
            self._held = None


def by_folder(name: str) -> str | None:
    """Match as the tests' feeds do: the feed is called as the first folder, and files beside the folders are events."""
    if name.startswith("unmatched"):
        return None
    return name.split("/", maxsplit=1)[0] if "/" in name else "events"


@dataclass
class Bench:
    """An inbox under test. Feeds whose name begins with ``skip`` are ordered."""

    folder: Path
    clock: SkewedClock = field(default_factory=SkewedClock)
    limit: int = 10_000
    remote: bool | None = None
    foreign: Sequence[Path] = ()
    suffixes: Sequence[str] = (".json", ".ndjson", ".jsonl")
    settle_moved: float = 0.0
    expensive: bool = False
    """Whether a look takes the time that it takes, so that one at everything is not taken each time."""

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.inbox = self.open()

    def open(self) -> Inbox:
        """Start anew, as a daemon does."""
        return Inbox(
            str(self.root),
            match=by_folder,
            ordered=lambda feed: feed.startswith("skip"),
            ignore=["*.tmp", "*~", "*.part"],
            settle=0.1,
            settle_unproven=5.0,
            settle_moved=self.settle_moved,
            suffixes=self.suffixes,
            foreign=tuple(map(str, self.foreign)),
            limit=self.limit,
            remote=self.remote,
            clock=self.clock,
        )

    @property
    def root(self) -> Path:
        """Where files are dropped."""
        return self.folder / "inbox"

    def drop(self, name: str, content: bytes = b'{"key":"a"}\n', *, mtime: float | None = None) -> Path:
        """Drop a file as ``cp`` does; ``mtime`` is in seconds."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if mtime is not None:
            os.utime(path, (mtime, mtime))
        return path

    def survey(self, after: float = 0.0) -> Survey:
        """Look at the inbox, ``after`` so many seconds."""
        self.clock.forward(after)
        with nullcontext() if self.expensive else self.clock.held():
            return self.inbox.survey()

    def ready(self, after: float = 0.0) -> list[str]:
        """Return the names of the files that may be taken, ``after`` so many seconds."""
        return [candidate.name for candidate in self.survey(after).ready]

    def settled(self) -> Survey:
        """Return the first survey once everything that was just dropped has settled."""
        self.survey()
        return self.survey(after=0.2)

    def claim(self, name: str = "a.json", content: bytes = b'{"key":"a"}\n') -> Claim:
        """Drop a file and claim it once it is settled."""
        self.drop(name, content)
        wanted = next(candidate for candidate in self.settled().ready if candidate.name == name)
        claim = take(str(self.root), wanted, new_claim_id())
        assert claim is not None
        return claim


def read_all(claim: Claim) -> str:
    """Read a claimed file as the daemon does; return its SHA-256."""
    with claim.source() as source:
        while source.read(1 << 20):
            pass
        return source.seal()


class Watched:
    """An inbox and its watch, as the loop has them. Keeps every hint for the test to look at."""

    def __init__(self, bench: Bench, polling: str = "auto") -> None:
        self.bench = bench
        self.woken = threading.Event()
        self.wakes = 0
        self.hints: list[tuple[str, Kind]] = []
        self.watch = Watch(str(bench.root), polling, self._wake, self._hint, poll_s=0.05)

    def _wake(self) -> None:
        self.wakes += 1
        self.woken.set()

    def _hint(self, name: str, kind: Kind) -> bool:
        interesting = self.bench.inbox.hint(name, kind)
        if interesting:
            self.hints.append((name, kind))
        return interesting

    def until(self, condition: Callable[[], object]) -> None:
        """Wait, woken by the watch, until ``condition`` holds."""
        until(condition, self.woken)

    def events(self) -> list[str]:
        """Check the watch; return the names of its notices."""
        return [notice.event for notice in self.watch.check()]


@contextmanager
def watching(bench: Bench, polling: str = "auto") -> Iterator[Watched]:
    """Watch an inbox for the length of a test."""
    watched = Watched(bench, polling)
    try:
        assert watched.watch.start() == []
        yield watched
    finally:
        watched.watch.stop()


def until(condition: Callable[[], object], woken: threading.Event | None = None) -> None:
    """Wait until ``condition`` holds; it is asked again when ``woken`` is set, and every now and then."""
    woken = woken or threading.Event()
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        woken.wait(0.02)
        woken.clear()


class Other:
    """Another process, which runs Python that is sent to it line by line."""

    def __init__(self) -> None:
        loop = "import sys\nfor line in sys.stdin:\n    exec(line)\n    print('done', flush=True)\n"
        self._process = subprocess.Popen(
            [sys.executable, "-c", loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, line: str) -> None:
        """Run one line there, and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def end(self) -> None:
        """End it, as a producer that dies does."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def other_process() -> Iterator[Other]:
    """Have another process at hand."""
    other = Other()
    try:
        yield other
    finally:
        other.end()


@contextmanager
def public_folder() -> Iterator[Path]:
    """Have a temporary folder that other users reach: pytest shuts its own to all but its user."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def without_privilege() -> Iterator[None]:
    """Be nobody for a while: no CAP_LEASE, no reading of what is not ours. Needs root."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
