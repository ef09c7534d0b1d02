"""The floors of ARCHITECTURE.md: who may import whom."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from places import PACKAGE, ROOT

EVERYWHERE = {"inboxd"}
"""The package itself: it holds nothing but the version."""


def floors() -> dict[str, int]:
    """Return each room's floor, as the table in ARCHITECTURE.md says."""
    table = re.findall(r"^\| *(\d+) *\|([^|]*)\|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {room: int(floor) for floor, rooms in table for room in re.findall(r"`(\w+)(?:\.py|/)`", rooms)}


def modules() -> list[Path]:
    """Return every module of the package but its own ``__init__`` and ``__main__``, which is the command."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or not path.name.startswith("__")]


def room_of(module: Path) -> str:
    """Return the room a module is in: the package's file or folder of that name."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> set[str]:
    """Return the dotted names that a module imports, at its top, in functions, and for the type checker alone."""
    package = ("inboxd", *module.relative_to(PACKAGE).parts[:-1])
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join((*package[: len(package) - node.level + 1], node.module or "")) if node.level else node.module
            )
            names.update(f"{base}.{alias.name}".replace("..", ".") for alias in node.names)
    return names


def rooms_imported(module: Path) -> set[str]:
    """Return the rooms that a module imports from."""
    ours = (name.split(".") for name in imports(module) if name.startswith("inboxd."))
    known = {room_of(path) for path in modules()}
    return {parts[1] for parts in ours if parts[1] in known}


def test_every_room_has_a_floor_and_every_floor_its_rooms() -> None:
    """A reader of ARCHITECTURE.md finds every room of the package in its table, and none that is not there."""
    assert {room_of(module) for module in modules()} == set(floors())


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_floors_below_its_own(module: Path) -> None:
    """A module can be read knowing only the floors below it; rooms on one floor do not know each other."""
    floor_of = floors()
    room = room_of(module)
    others = rooms_imported(module) - {room}
    unplaced = {room, *others} - set(floor_of)
    assert not unplaced, f"no floor in ARCHITECTURE.md: {sorted(unplaced)}"
    too_high = {other for other in others if floor_of[other] >= floor_of[room]}
    assert not too_high, f"{room} is on floor {floor_of[room]}; it imports {sorted(too_high)}"


@pytest.mark.parametrize("room", sorted(room for room, floor in floors().items() if floor == 0))
def test_the_lowest_floor_needs_the_standard_library_only(room: str) -> None:
    """The nouns can be imported by anything, as they bring nothing with them."""
    foreign = {name.split(".")[0] for name in imports(PACKAGE / f"{room}.py")} - sys.stdlib_module_names - EVERYWHERE
    assert not foreign


AUDIT_MAY_IMPORT = {
    "inboxd.model",
    "inboxd.outcomes",
    "inboxd.clock",
    "inboxd.config.ArchiveSettings",
    "inboxd.inbox.names",
    "inboxd.store.base",
    "inboxd.store.database.Store",
    "inboxd.store.ledger.run_row",
    "inboxd.store.tables",
}
"""The nouns, the time, where the archive is and how its files are named, and the control tables as they are asked."""


def test_the_audit_shares_nothing_with_the_loader() -> None:
    """What the loader reads, judges and merges by, the audit does by code of its own: a fault of one shows."""
    names = {name for path in (PACKAGE / "audit").glob("*.py") for name in imports(path) if name.startswith("inboxd.")}
    shared = {name for name in names if not name.startswith("inboxd.audit.")}
    assert not {
        name for name in shared if not any(name == one or name.startswith(f"{one}.") for one in AUDIT_MAY_IMPORT)
    }


def test_what_is_declared_is_imported_and_what_is_imported_is_declared() -> None:
    """An installation brings what the program uses, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["postgres"], *extras["web"]]
    names = {re.split(r"[\[<>=~! ]", requirement)[0].replace("-", "_").lower() for requirement in declared}
    used = {name.split(".")[0] for module in modules() for name in imports(module)}
    assert used - sys.stdlib_module_names - EVERYWHERE == names


def test_the_reader_of_imports_misses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import hidden in a function, for types alone, or written relatively counts like any other."""
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (tmp_path / "room").mkdir()
    module = tmp_path / "room" / "door.py"
    module.write_text(
        "from typing import TYPE_CHECKING\n"
        "import a.b\n"
        "if TYPE_CHECKING:\n    from inboxd.model import Feed\n"
        "def f():\n    from inboxd import errors\n    from . import window\n    from ..store import tables\n",
        encoding="utf-8",
    )
    assert imports(module) == {
        "typing.TYPE_CHECKING",
        "a.b",
        "inboxd.model.Feed",
        "inboxd.errors",
        "inboxd.room.window",
        "inboxd.store.tables",
    }
