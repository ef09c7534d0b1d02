"""A daemon that dies, as by ``kill -9``, at one boundary of a file's way: ``crashing.py STEP EDGE [NTH [stop]]``.

With ``stop`` it is asked to stop there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from daemons import Home, files_in, record
from inboxd.config import Settings, load_settings
from inboxd.outcomes import Edge, Step
from inboxd.service import Service

EXIT_KILLED = 137


GOOD = [record("a"), record("b", value="no number"), record("c"), record("a", ts="2026-01-15T10:29:00Z")]
BAD = b'[{"key": "a"},]'


def crash(home: Home, step: Step, edge: Edge) -> None:
    """Drain the inbox with a daemon that dies at one boundary."""
    done = subprocess.run(
        [sys.executable, __file__, step.value, edge.value],
        cwd=home.path,
        env=home.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == EXIT_KILLED, f"the boundary was not reached: {done.stderr}"


def state(home: Home) -> dict[str, object]:
    """Return everything that must be as if there had been no crash."""
    return {
        "target": home.rows(),
        "dead_letters": home.query("SELECT raw, error, record_no, record_key FROM dead_letters ORDER BY id"),
        "lineage": home.query("SELECT record_key, step, record_no FROM lineage ORDER BY record_no, step"),
        "watermark": home.query("SELECT name, value FROM watermarks"),
        "loaded": home.query("SELECT rows_in, rows_out, rows_stale FROM etl_runs WHERE status = 'success'"),
        "running": home.query("SELECT id FROM etl_runs WHERE status = 'running'"),
        "processed": sorted(path.name for path in files_in(home.processed)),
        "failed": sorted(path.name for path in files_in(home.failed)),
        "inbox": sorted(path.name for path in home.inbox.rglob("*")),
    }


def settings(in_force: Path | None = None) -> Settings:
    """Load the settings of the folder that the process was started in."""
    return load_settings(None, os.environ, Path.cwd(), in_force=in_force)


def main(step: Step, edge: Edge, nth: int = 1, *, stop: bool = False) -> None:
    """Drain the inbox, and die when the boundary is reached for the n-th time."""
    times = iter(range(1, nth + 1))

    def hook(at: Step, side: Edge) -> None:
        if (at, side) == (step, edge) and next(times, 0) == nth:
            if not stop:
                os._exit(EXIT_KILLED)
            signal.raise_signal(signal.SIGTERM)

    sys.exit(Service(settings(), settings, hook=hook).run(once=True))


if __name__ == "__main__":
    main(Step(sys.argv[1]), Edge(sys.argv[2]), *map(int, sys.argv[3:4]), stop="stop" in sys.argv)
