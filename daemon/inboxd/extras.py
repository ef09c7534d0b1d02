"""What is installed only where it is wanted, and how to get it into the environment that this process runs in."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, requires


def how_to_install(extra: str) -> str:
    """Return what to do where a package of an extra (``web``, ``postgres``) is missing.

    pip of any Python fills any environment, also one that has no pip of its own, as a checkout's and the service's may.
    """
    try:
        wanted = requires("inboxd") or []
    except PackageNotFoundError:  # run from a folder of sources, never installed
        wanted = []
    ours = [one.partition(";")[0].strip() for one in wanted if re.search(rf"extra == ['\"]{extra}['\"]", one)]
    command = ["python3", "-m", "pip", "--python", sys.executable, "install", *(ours or [f".[{extra}]"])]
    return f"`make run` and `make install` bring it; into this environment: {shlex.join(command)}"
