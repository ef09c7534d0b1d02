"""A real daemon in a process of its own, on a real inbox and a real database, for tests to work with."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import psutil

from places import SOURCE
from warm import warm_process

DEADLINE_S = 60.0
"""How long a test waits for what must happen; it is never waited out when all is well."""
VERDICTS = frozenset({"file_loaded", "file_duplicate", "file_failed", "file_recovered"})

STARTED: Final = (sys.executable, "-m", "inboxd")
Line = dict[str, Any]  # Any: whatever a JSON line holds
Found = TypeVar("Found")


def eventually(look: Callable[[], Found | None], what: str = "", *, deadline_s: float = DEADLINE_S) -> Found:
    """Return what ``look`` returns once that is true; fail the test if it is not in time."""
    until = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            message = f"not within {deadline_s} s: {what or look}"
            raise AssertionError(message)
        time.sleep(0.01)  # the condition is asked for again; nothing is hoped for


def files_in(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted; one that a daemon takes away meanwhile is there or not, and no error."""
    return sorted(Path(place) / name for place, _, names in os.walk(folder) for name in names)


def suspend(pid: int) -> None:
    """Stop a process and return when it has stopped: a signal takes effect a moment after it is sent, thread by thread.

    ``SIGCONT`` lets it go on.
    """
    os.kill(pid, signal.SIGSTOP)

    def running() -> bool:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
                if (thread / "stat").read_text("ascii").rpartition(")")[2].split()[0] != "T":  # proc(5)
                    return True
        return False

    eventually(lambda: not running(), "every thread has stopped")


def record(
    key: str, *, value: object = 1.5, ts: str = "2026-01-15T10:30:00Z", name: str = "Alice"
) -> dict[str, object]:
    """Return a record of the built-in feed."""
    return {"key": key, "name": name, "value": value, "ts": ts}


@dataclass
class Home:
    """A folder in which a daemon works: ``inbox/``, ``data/``, and a config if there is one."""

    path: Path
    config: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = STARTED
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        """Lay out the folders."""
        self.inbox.mkdir(parents=True, exist_ok=True)
        if self.config:
            (self.path / "inboxd.toml").write_text(self.config, encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def inbox(self) -> Path:
        """The watched folder."""
        return self.path / "inbox"

    @property
    def processed(self) -> Path:
        """Where loaded files end."""
        return self.path / "data" / "processed"

    @property
    def failed(self) -> Path:
        """Where failed files end."""
        return self.path / "data" / "failed"

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.path / "data" / "inboxd.db"

    # Files

    def write(self, name: str, content: bytes | str | Iterable[object]) -> Path:
        """Put a file beside the inbox, to be dropped later; objects are written as a JSON array."""
        data = content if isinstance(content, (bytes, str)) else json.dumps(list(content))
        outside = self.path / "outside" / name
        outside.parent.mkdir(parents=True, exist_ok=True)
        outside.write_bytes(data if isinstance(data, bytes) else data.encode())
        return outside

    def drop(self, name: str, content: bytes | str | Iterable[object]) -> None:
        """Rename a whole file into the inbox, as a careful producer does."""
        target = self.inbox / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self.write(name, content).rename(target)

    # The process

    def environment(self) -> dict[str, str]:
        """Return the environment that commands run in."""
        return {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1", **self.env}

    def start(self, *arguments: str, wait: bool = True) -> Self:
        """Start the daemon, and wait until it is ready."""
        before = len(self.lines("daemon_started"))
        output = (self.path / "daemon.out").open("ab")
        with output:
            self.process = subprocess.Popen(
                [*self.command, "run", *arguments], cwd=self.path, env=self.environment(), stdout=output, stderr=output
            )
        if wait:
            eventually(lambda: len(self.lines("daemon_started")) > before or self._ended(), "daemon_started")
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.output()}"
        return self

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def output(self) -> str:
        """Return what the daemon wrote to its standard output and error."""
        return (self.path / "daemon.out").read_text("utf-8", "replace")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask the daemon to stop; return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        self.process = None
        return code

    def suspend(self) -> None:
        """Stop the daemon wherever it is just then."""
        assert self.process is not None
        suspend(self.process.pid)

    def resume(self) -> None:
        """Let a daemon that was suspended go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the daemon as a crash does, if it runs, and what it runs below: ``command`` may be a tracer's."""
        if self.process is not None:
            below = [] if self._ended() else psutil.Process(self.process.pid).children(recursive=True)
            for process in below:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.kill()
            self.process.wait(DEADLINE_S)
            self.process = None
            psutil.wait_procs(below, timeout=DEADLINE_S)

    def run_once(self) -> int:
        """Drain the inbox with a daemon of its own; return its exit code."""
        return self.call("run", "--once").returncode

    def call(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run one command."""
        environment = self.environment()
        if self.command == STARTED and (warm := warm_process(environment)).fits(environment):
            done = warm.run(arguments, self.path, environment, 4 * DEADLINE_S)
            if check:
                done.check_returncode()
            return done
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.path,
            env=environment,
            capture_output=True,
            text=True,
            check=check,
            timeout=4 * DEADLINE_S,
        )

    def json(self, *arguments: str) -> Any:
        """Run one command and return the JSON it printed."""
        done = self.call(*arguments)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    # What it said and did

    def lines(self, event: str | None = None) -> list[Line]:
        """Return the log's lines, all or those of one event."""
        try:
            text = (self.path / "data" / "inboxd.log").read_text("utf-8")
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]
        found = [json.loads(line) for line in whole.splitlines()]
        return [line for line in found if event is None or line["event"] == event]

    def verdicts(self, file: str | None = None) -> list[Line]:
        """Return the verdict lines, all or those of one file."""
        return [line for line in self.lines() if line["event"] in VERDICTS and file in {None, line["file"]}]

    def verdict(self, file: str, count: int = 1) -> Line:
        """Wait for the ``count``-th verdict on a file and return it."""
        return eventually(lambda: self.verdicts(file)[count - 1 : count], f"a verdict on {file}\n{self.lines()[-5:]}")[
            0
        ]

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:  # Any: whatever the columns hold
        """Ask the SQLite database."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=DEADLINE_S)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def rows(self, table: str = "target") -> list[tuple[Any, ...]]:  # Any: whatever the columns hold
        """Return a table's key, value and cursor columns, in order."""
        return self.query(f"SELECT key, name, value, ts FROM {table} ORDER BY key")
