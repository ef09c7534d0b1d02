"""``make hidden``: a machine that has only some of the tools, tried with each of them missing in turn.

A folder of links to every program on PATH but one takes the place of PATH; then the tests that name that program, or
use a helper that does, are run. They are skipped by name, and none fails: what a test starts, it has asked for.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from places import ROOT, TESTS
from requirements import REQUIRE_ALL, asked_for

NONE_CHOSEN = 5
"""pytest's exit code where every test was deselected."""


def names_in(path: Path) -> set[str]:
    """Return the words that a file's strings and imports are made of."""
    tree = ast.parse(path.read_bytes())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            words.add(node.module)
        if isinstance(node, ast.Import):
            words.update(alias.name for alias in node.names)
    return words


def tests_of(tool: str) -> list[Path]:
    """Return the test files that name a tool, or import a helper of ours that does, however far away."""
    words = {path: names_in(path) for path in TESTS.rglob("*.py")}
    touched = {path for path, found in words.items() if tool in found and path.name != "test_requirements.py"}
    grown = 0
    while len(touched) != grown:
        grown = len(touched)
        modules = {path.stem for path in touched if not path.name.startswith("test_")}
        touched |= {path for path, found in words.items() if found & modules}
    plugins = {"installed", "stores", "conftest"} & {path.stem for path in touched}
    asking = {"installed": "machines service disk installation machine", "stores": "postgres_server", "conftest": ""}
    fixtures = {name for plugin in plugins for name in asking[plugin].split()}
    return sorted(
        path
        for path in TESTS.rglob("test_*.py")
        if path in touched or any(f"{name}:" in path.read_text(encoding="utf-8") for name in fixtures)
    )


def farm(folder: Path, hidden: str) -> None:
    """Fill a folder with links to every program on PATH, the first of each name, but one."""
    for place in [*os.environ.get("PATH", os.defpath).split(":"), "/usr/sbin", "/sbin"]:
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            link = folder / program.name
            if program.name != hidden and not link.is_symlink():
                link.symlink_to(program)


def without(tool: str, tests: Iterable[Path], options: Sequence[str]) -> int:
    """Run tests on a PATH without a tool; return pytest's exit code."""
    with tempfile.TemporaryDirectory() as name:
        farm(Path(name), tool)
        environment = {key: value for key, value in os.environ.items() if key != REQUIRE_ALL} | {"PATH": name}
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-x", *options, *map(str, tests)]
        return subprocess.run(command, env=environment, check=False, cwd=ROOT).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Hide each tool in turn, or those named; return 1 where a test failed for want of one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tools", nargs="*", help="these only")
    parser.add_argument("--pytest", default="", help="more options for pytest, in one word")
    chosen = parser.parse_args(arguments)
    failed = []
    for tool in chosen.tools or sorted({tool for tool, _ in asked_for()}):
        tests = tests_of(tool)
        print(f"without {tool}: {', '.join(path.name for path in tests) or 'no test names it'}", flush=True)
        if tests and without(tool, tests, chosen.pytest.split()) not in {0, NONE_CHOSEN}:
            failed.append(tool)
    for tool in failed:
        print(f"tests fail, in place of being skipped, without {tool}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
