"""What tests need of the machine: skipped without it on a user's, and failed where everything must be tested."""

from __future__ import annotations

import os
import shutil
from typing import Final, NoReturn

import pytest

REQUIRE_ALL: Final = "INBOXD_REQUIRE_ALL"
"""Set where everything must be tested (CI): what would be skipped for want of something fails there."""


def missing(what: str) -> NoReturn:
    """Skip the test for want of something, saying what to do; fail it where everything must be tested."""
    if os.environ.get(REQUIRE_ALL):
        pytest.fail(f"{REQUIRE_ALL} is set, and this needs {what}")
    pytest.skip(f"needs {what}")


def tool(name: str, package: str) -> str:
    """Return the path of a program that the package brings; a test that starts one asks for it here, or is no test."""
    return shutil.which(name) or missing(f"{name}: install {package}")
