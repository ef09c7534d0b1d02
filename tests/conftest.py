"""What every test stands on: no thread left behind, no tool missing unsaid, no setting of the machine leaking in."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from requirements import REQUIRE_ALL, missing, tool

settings.register_profile("inboxd", deadline=None)  # other work on the machine is no fault of an example
settings.load_profile("inboxd")

pytest_plugins = (
    "installed",  # inboxd on a machine of its own, for systemd/
    "packages",  # the wheel and what is made of it, for what is handed on
    "stores",  # real databases, for store/ and everybody else
    "loaders",  # files given to the pipeline alone; it needs stores
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that writes the golden files anew."""
    parser.addoption("--golden", action="store_true", help="write tests/cli/golden/ anew from what commands print now")


# Workers, daemons and commands are started by the thousand: each would compile all of inboxd.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if "/usr/bin" in os.environ.get("PATH", "").split(":"):  # a PATH without some tool, made on purpose, stays as it is
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian keeps an administrator's tools; a user's PATH has no such

THREADS_END_S: Final = 5.0
"""A thread that was told to stop may need a moment; one that is still there after this was left behind."""


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Take the machine's own inboxd settings out of the environment, so that tests mean the same everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("INBOXD_") and name != REQUIRE_ALL:
                patch.delenv(name)
        # xdist says how wide its own terminal is; streams without buffers end otherwise than a user's
        for name in ("CREDENTIALS_DIRECTORY", "COLUMNS", "LINES", "PYTHONUNBUFFERED"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    """Fail a test after which a thread runs that did not run before it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREADS_END_S
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))
    left = [thread.name for thread in threading.enumerate() if thread not in before and thread.is_alive()]
    if left:
        pytest.fail(f"threads left behind: {', '.join(left)}")


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str, str], str]:
    """Return a function that gives a tool's path; where it is missing the test is skipped, or fails in CI."""
    return tool


@pytest.fixture(scope="session")
def require_program() -> Callable[[str, Path | None, str], Path]:
    """Return a function that passes on where a program is; where it is not, the test is skipped, or fails in CI."""

    def require(what: str, found: Path | None, package: str) -> Path:
        return found or missing(f"{what}: install {package}")

    return require


@pytest.fixture(scope="session")
def require_root() -> Callable[[], None]:
    """Return a function that lets only root pass; others are skipped, or fail in CI."""

    def require() -> None:
        if os.geteuid() != 0:
            missing("root: run the tests as root")

    return require
