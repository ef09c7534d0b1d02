"""A daemon with its page that stops itself, as by ``kill -STOP``, before each of these steps: ``pausing.py STEP …``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Collection
from pathlib import Path

from inboxd.config import Settings, load_settings
from inboxd.outcomes import Edge, Step
from inboxd.service import Service


def settings(in_force: Path | None = None) -> Settings:
    """Load the settings of the folder that the process was started in."""
    return load_settings(None, os.environ, Path.cwd(), in_force=in_force)


def main(steps: Collection[str]) -> None:
    """Run until a signal; whoever wants a step to be taken sends CONT."""

    def hook(at: Step, side: Edge) -> None:
        if side is Edge.BEFORE and at in steps:
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # to this thread: it may not run on meanwhile

    sys.exit(Service(settings(), settings, http="127.0.0.1:0", hook=hook).run())


if __name__ == "__main__":
    main(sys.argv[1:])
