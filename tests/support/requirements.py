"""What tests need of the machine: skipped without it on a user's, and failed where everything must be tested."""

from __future__ import annotations

import ast
import os
import shutil
from typing import Final, NoReturn

import pytest

from places import TESTS

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


def asked_for() -> list[tuple[str, str]]:
    """Return each tool that a test asks for by ``require_tool`` or ``tool``, with the package that brings it."""
    calls = [
        [ast.literal_eval(argument) for argument in call.args]  # a name that is worked out could not be looked up
        for path in sorted(TESTS.rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in {"require_tool", "tool"}
    ]
    return sorted({(tool, package) for tool, package in calls})
