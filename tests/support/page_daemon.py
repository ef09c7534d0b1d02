"""A daemon with its page, as a user starts it: a process of its own, on a free port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemons import eventually

DEADLINE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class PageDaemon:
    """A running daemon: its folder, and its page's URL without the last slash."""

    folder: Path
    url: str
    process: subprocess.Popen[bytes]

    def drop(self, name: str, content: str | bytes) -> None:
        """Put a file into the inbox as a good producer does: whole, by a rename."""
        whole = self.folder / "elsewhere"
        whole.write_bytes(content.encode() if isinstance(content, str) else content)
        target = self.folder / "inbox" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        whole.rename(target)

    def events(self) -> list[dict[str, object]]:
        """Return the log's lines so far."""
        text = (self.folder / "data" / "inboxd.log").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def wait_for(self, event: str, **values: object) -> dict[str, object]:
        """Return the first line of that event with those values, as soon as there is one."""

        def look() -> dict[str, object] | None:
            for line in self.events():
                if line["event"] == event and all(line.get(key) == value for key, value in values.items()):
                    return line
            return None

        return eventually(look, f"{event} {values}")


def environment() -> dict[str, str]:
    """Return the environment in which a Python of its own finds what this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@contextmanager
def page_daemon(folder: Path, *options: str, config: str | None = None) -> Iterator[PageDaemon]:
    """Start ``inboxd run --http 127.0.0.1:0`` in ``folder``; at the end TERM it and see that it leaves in order."""
    if config is not None:
        (folder / "inboxd.toml").write_text(config, "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "inboxd", "run", "--http", "127.0.0.1:0", *options],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    daemon = PageDaemon(folder, "", process)
    try:

        def started() -> str | None:
            if process.poll() is not None:
                assert process.stderr is not None
                raise AssertionError(process.stderr.read().decode())
            if not (folder / "data" / "inboxd.log").exists():
                return None
            lines = {str(line["event"]): line for line in daemon.events()}  # the last of each: the log may be older
            ready = lines.get("daemon_started", {}).get("pid") == process.pid
            if not ready:
                return None
            return str(lines["http_started"]["address"])

        yield PageDaemon(folder, eventually(started, "the daemon's start").rstrip("/"), process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors.decode()
    assert not errors, errors.decode()
