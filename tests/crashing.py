"""A daemon that dies, as by ``kill -9``, at one boundary of a file's way: ``crashing.py STEP EDGE``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from inboxd.config import Settings, load_settings
from inboxd.model import Edge, Step
from inboxd.service import Service

EXIT_KILLED = 137


def settings() -> Settings:
    """Load the settings of the folder that the process was started in."""
    return load_settings(None, os.environ, Path.cwd())


def main(step: Step, edge: Edge) -> None:
    """Drain the inbox, and die at the first time that the boundary is reached."""

    def hook(at: Step, side: Edge) -> None:
        if (at, side) == (step, edge):
            os._exit(EXIT_KILLED)

    sys.exit(Service(settings(), settings, hook=hook).run(once=True))


if __name__ == "__main__":
    main(Step(sys.argv[1]), Edge(sys.argv[2]))
