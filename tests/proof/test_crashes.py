"""A bounded ``make crashes``: a sample of all the states that a power cut may leave, each made real."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crashes import Crashes, table
from disk_record import Create, Disk, Record, Rename, Sync, Write
from marked_syncs.sitecustomize import HANDS, place_of
from places import PACKAGE

SEED = 20_260_115
STATES = 100
TELLING = 150
"""So many states, at most, are tried for each place in the code that syncs; a tenth of it is usual."""


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory, require_tool: Callable[[str, str], str]) -> Crashes:
    """A run that drains an inbox, recorded."""
    require_tool("strace", "strace")
    return Crashes(tmp_path_factory.mktemp("crashes").resolve(), SEED)


@pytest.mark.slow
@pytest.mark.crash
@pytest.mark.timeout(600)
def test_no_state_that_a_power_cut_may_leave_loses_or_doubles_anything(crashes: Crashes) -> None:
    """On a journalling disk, and on one that keeps no more than POSIX promises: each file ends where it must, once."""
    crashes.run(crashes.sample(crashes.states(), STATES))
    assert not crashes.broken, "\n".join([table(crashes), *(what for _, what in crashes.broken)])


@pytest.mark.slow
@pytest.mark.crash
@pytest.mark.timeout(600)
def test_each_sync_that_is_left_out_is_noticed(crashes: Crashes, require_root: Callable[[], None]) -> None:
    """Without the syncs of any one place in the code something is lost: the method can fail, and each is needed."""
    require_root()  # only a second filesystem brings files to where they are copied
    assert {place for place in crashes.syncs() if not place.startswith("SQLite")} == set(_places_in_code())
    without = crashes.without_each_sync(TELLING)
    assert not [place for place, (number, _) in without.items() if not number]


def _places_in_code() -> Iterator[str]:
    """Yield all places in the code that ask for a sync."""
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text("utf-8").splitlines()
        for name, line in _calls(ast.parse("\n".join(lines)), ""):
            if name not in HANDS:
                yield place_of(str(path), name, lines[line - 1])


def _calls(node: ast.AST, within: str) -> Iterator[tuple[str, int]]:
    """Yield the function, and the line, of each call that syncs."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.ClassDef | ast.FunctionDef):
            yield from _calls(inner, f"{within}.{inner.name}".removeprefix("."))
        else:
            yield from _calls(inner, within)
        if isinstance(inner, ast.Call):
            called = inner.func.attr if isinstance(inner.func, ast.Attribute) else getattr(inner.func, "id", "")
            if called in {"sync", "sync_folder", "fsync", "fdatasync"}:
                yield within, inner.lineno


KILLED_AT_WORK = """
import os, threading

at_work = threading.Event()

def work():
    for number in range(10_000):
        os.rename(f"a{number}", f"a{number + 1}")
        if number == 20:
            at_work.set()

threading.Thread(target=work, daemon=True).start()
at_work.wait()
os._exit(0)
"""


def test_what_a_thread_was_at_when_its_process_was_killed_is_recorded(
    tmp_path: Path, require_tool: Callable[[str, str], str]
) -> None:
    """Such a call gets no answer, though the disk may have done it."""
    require_tool("strace", "strace")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a0").write_bytes(b"x")
    record = Record(tmp_path / "tree")
    for _ in range(5):
        record.run([sys.executable, "-c", KILLED_AT_WORK], dict(os.environ))
        (there,) = (tmp_path / "tree").iterdir()
        assert [path for path, _ in record.now.walk()] == [there.name]
        record.do(Rename(0, there.name, 0, "a0"))
        there.rename(there.with_name("a0"))


def test_what_is_kept_of_a_record_is_what_is_there() -> None:
    """A rename whose file was never made does nothing, a write beyond the end fills up with zeros."""
    disk = Disk()
    for operation in (
        Create(0, "a", 1, False, 0o644),
        Write(1, 3, b"x"),
        Rename(0, "a", 0, "b"),
        Rename(0, "c", 0, "b"),
    ):
        disk.apply(operation)
    assert list(disk.walk()) == [("b", 1)]
    assert disk.files[1] == b"\0\0\0x"
    disk.apply(Sync(1, 0))
    assert list(disk.walk()) == [("b", 1)]
