"""CI installs what the tests ask for, and nothing is skipped there without a word."""

from __future__ import annotations

import ast
import re
from typing import Final

import pytest

import requirements
from places import ROOT, TESTS
from requirements import asked_for

CI: Final = ROOT / ".ci" / "run"
MAY_SKIP: Final = {
    "requirements.py": "the one place",
    "stores.py": "a cluster of Citus is several machines, named in INBOXD_TEST_CITUS by whoever has one; CI has none",
    "test_bench.py": "what inboxd is measured against is installed by `make bench-peers`, and not for the tests",
}
ALWAYS_THERE: Final = frozenset({"util-linux", "bash", "gzip", "mount", "passwd"})
"""Packages that every Linux has: nobody need install them, and CI looks for none of them."""
NEEDED_BY_MAKE: Final = frozenset(
    ["sh", "cat", "chown", "cp", "echo", "env", "false", "ls", "mkdir", "mv", "python3", "rm", "sleep", "touch", "true"]
)
"""Programs without which there is no ``make test``: the shell, the core utilities, Python."""
OURS: Final = frozenset({"inboxd"})
STARTERS: Final = frozenset({"run", "Popen", "check_call", "check_output", "run_on"})


def installed_by_ci() -> dict[str, str]:
    """Return the tools that CI looks for, with their packages."""
    tools = re.search(r"^tools=\((.*?)^\)", CI.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert tools is not None
    return dict(entry.split(":") for entry in tools[1].split())


@pytest.mark.parametrize(("tool", "package"), asked_for())
def test_ci_installs_every_tool_that_a_test_asks_for(tool: str, package: str) -> None:
    """A fresh machine passes: what a test needs is there, by the package that the test names."""
    assert package in ALWAYS_THERE or installed_by_ci().get(tool) == package


def started() -> set[tuple[str, str]]:
    """Return each program that a test starts by a name written out, with the file that does it."""
    found = set()
    for path in sorted(TESTS.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name not in STARTERS:
                continue
            first = call.args[1 if name == "run_on" else 0] if call.args else None
            if isinstance(first, ast.List | ast.Tuple) and first.elts:
                first = first.elts[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.add((first.value, path.name))
    return found


def test_a_program_that_a_test_starts_is_asked_for() -> None:
    """On a machine that has only some of the tools a test that needs another is skipped by name, and does not fail."""
    known = {tool for tool, _ in asked_for()} | NEEDED_BY_MAKE | OURS
    unasked = {(program, file) for program, file in started() if re.fullmatch("[a-z][a-z0-9.-]+", program)}
    assert {(program, file) for program, file in unasked if program not in known} == set()


def test_nothing_else_is_skipped_where_everything_must_be_tested() -> None:
    """What a test cannot do without is asked for by ``missing``, so that CI hides no skip."""
    skips = re.compile(r"pytest\.(?:skip|importorskip|mark\.skip|mark\.skipif)\(")
    found = {path.name for path in TESTS.rglob("*.py") if skips.search(path.read_text(encoding="utf-8"))}
    assert found == set(MAY_SKIP)


def test_what_is_missing_fails_in_ci_and_is_skipped_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's machine may lack things; in CI no test is left out."""
    monkeypatch.delenv(requirements.REQUIRE_ALL, raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a tool"):
        requirements.missing("a tool")
    monkeypatch.setenv(requirements.REQUIRE_ALL, "1")
    with pytest.raises(pytest.fail.Exception, match="needs a tool"):
        requirements.missing("a tool")
