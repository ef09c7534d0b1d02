"""Builds what the bench has in C: the program that is the floor, on inboxd's release of SQLite, and the slow disk."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

AMALGAMATION: Final = ("better-sqlite3@13.0.2", "785493c44913bd6415eb4ef244f97b4774a8ba1ee7c45137f05c3ad09282bc75")
"""An npm package that carries SQLite 3.53.4's one C file, the release that pysqlite3 0.6.1 ships, and its SHA-256."""
MEMBERS: Final = ("package/deps/sqlite3/sqlite3.c", "package/deps/sqlite3/sqlite3.h")
FLAGS: Final = (
    "-O3",  # as pysqlite3's wheel is built, down to the temporary tables in memory
    "-fwrapv",
    "-DSQLITE_TEMP_STORE=3",
    "-DSQLITE_THREADSAFE=1",
    "-DSQLITE_ENABLE_STAT4",
    "-DSQLITE_OMIT_LOAD_EXTENSION",
)


class NotBuilt(Exception):
    """The floor cannot be built here; the message says what is missing."""


SOURCE: Final = Path(__file__).with_name("peers") / "floor.c"
SLOW_SYNC: Final = Path(__file__).with_name("peers") / "slow_sync.c"
WARNINGS: Final = ("-Wall", "-Wextra", "-Werror")


def program(folder: Path) -> Path:
    """Return the compiled program; raises ``NotBuilt`` where it is not there, or older than its source."""
    built = folder / "floor"
    if not built.exists() or built.stat().st_mtime < SOURCE.stat().st_mtime:
        message = "the C program is not built: run `make bench-peers`"
        raise NotBuilt(message)
    return built


def slow_sync(folder: Path) -> Path:
    """Return the library that makes syncs take their time, built in ``folder`` where it is not; see its source."""
    built = folder / "slow_sync.so"
    if not built.exists() or built.stat().st_mtime < SLOW_SYNC.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        _run([_compiler(), "-O2", *WARNINGS, "-shared", "-fPIC", str(SLOW_SYNC), "-o", str(built)])
    return built


def _compiler() -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        message = "no C compiler (apt-get install gcc libc6-dev)"
        raise NotBuilt(message)
    return compiler


def build(folder: Path) -> None:
    """Build the program in ``folder``; SQLite itself is compiled once."""
    compiler = _compiler()
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "sqlite3.o"
    if not library.exists():
        _fetch(folder)
        _run([compiler, *FLAGS, "-c", str(folder / "sqlite3.c"), "-o", str(library)])
    output = ("-lm", "-lpthread", "-o", str(folder / "floor"))
    _run([compiler, *FLAGS, *WARNINGS, f"-I{folder}", str(SOURCE), str(library), *output])


def _fetch(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        message = "no npm, which brings SQLite's source (apt-get install npm)"
        raise NotBuilt(message)
    name, wanted = AMALGAMATION
    packed = _run([npm, "pack", "--silent", name], folder).strip().splitlines()[-1]
    archive = folder / packed
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != wanted:
        message = f"{name} has the SHA-256 {found}, not {wanted}"
        raise NotBuilt(message)
    with tarfile.open(archive) as package:
        for member in MEMBERS:
            content = package.extractfile(member)
            assert content is not None
            (folder / Path(member).name).write_bytes(content.read())


def _run(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{' '.join(command[:3])} … failed: {done.stderr[-500:]}"
        raise NotBuilt(message)
    return done.stdout


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]))
    except NotBuilt as reason:
        print(f"bench: the C program was not built: {reason}", file=sys.stderr)
