"""The programs that are measured, and how each is called: one file into one new database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import floor
from bench.corpus import files_of

BENCH: Final = Path(__file__).resolve().parent
ROOT: Final = BENCH.parent
WORK: Final = BENCH / "scratch"
PEERS: Final = BENCH / "peers"
PEERS_PYTHON: Final = BENCH / ".venv" / "bin" / "python"
INBOXD: Final = (sys.executable, "-m", "inboxd")
TABLES: Final = ("target", "lineage")
"""What is compared of what a load left."""


class Missing(Exception):
    """A peer is not installed; the message says what to run."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A program that loads one file, or a folder of them. ``scheme`` tells which kind of database it leaves."""

    name: str
    label: str
    command: Callable[[Path, Path], list[str]]
    scheme: str = "sqlite"
    reads_lines: bool = False
    """It takes a folder of files with one record to a line, and no others."""

    def fingerprint(self, database: Path, tables: Sequence[str] = TABLES) -> dict[str, list[int]]:
        """Return what the load left."""
        return fingerprint(f"{self.scheme}://{database}", tables)


def fingerprint(url: str, tables: Sequence[str] = TABLES) -> dict[str, list[int]]:
    """Return what is in a database, asked by a process of its own: see ``process`` on why the runner stays small."""
    python = sys.executable if url.startswith("sqlite:") else peers_python()
    command = [python, str(BENCH / "fingerprint.py"), url, *tables]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"cannot read {url}: {done.stderr[-1000:]}"
        raise RuntimeError(message)
    found: dict[str, list[int]] = json.loads(done.stdout)
    return found


def peers_python() -> str:
    """Return the interpreter of the peers' own environment."""
    if not PEERS_PYTHON.exists():
        message = "the peers are not installed: run `make bench-peers`"
        raise Missing(message)
    return str(PEERS_PYTHON)


def _peer(script: str, *options: str) -> Callable[[Path, Path], list[str]]:
    return lambda source, database: [peers_python(), str(PEERS / script), str(source), str(database), *options]


def _inboxd(source: Path, database: Path) -> list[str]:
    files = map(str, files_of(source))
    return [*INBOXD, "load", "--feed", "events", "--db", f"sqlite:///{database}", *files]


def _seed(source: Path, database: Path) -> list[str]:
    return [sys.executable, str(PEERS / "seed.py"), str(source), str(database)]


def _floor(*options: str) -> Callable[[Path, Path], list[str]]:
    def command(source: Path, database: Path) -> list[str]:
        try:
            return [str(floor.program(WORK / "floor")), str(source), str(database), *options]
        except floor.NotBuilt as reason:
            raise Missing(str(reason)) from reason

    return command


INBOXD_LOAD: Final = Subject("inboxd", "inboxd load", _inboxd)
DUCKDB: Final = Subject("duckdb", "DuckDB", _peer("duckdb_upsert.py"), scheme="duckdb")
SEED: Final = Subject("seed", "the seed program", _seed)
POLARS: Final = Subject("polars", "polars + ADBC", _peer("polars_adbc.py"))
SQLITE_UTILS: Final = Subject("sqlite_utils", "sqlite-utils", _peer("sqlite_utils_upsert.py"))
FLOOR: Final = Subject("c", "the C program", _floor())
SORTING_FLOOR: Final = Subject("c_sorting", "the C program when it sorts in its own memory", _floor("presorted"))
FILEDGE: Final = Subject("filedge", "filedge", _peer("filedge_cdc.py"), reads_lines=True)
FILEDGE_INDEXED: Final = Subject(
    "filedge_indexed", "filedge, with an index made by hand", _peer("filedge_cdc.py", "indexed"), reads_lines=True
)
DLT_SQLITE: Final = Subject("dlt_sqlite", "dlt → SQLite", _peer("dlt_merge.py", "sqlite"), reads_lines=True)
DLT_DUCKDB: Final = Subject(
    "dlt_duckdb", "dlt → DuckDB", _peer("dlt_merge.py", "duckdb"), scheme="duckdb", reads_lines=True
)
PEER_SUBJECTS: Final = (DUCKDB, SEED, POLARS, SQLITE_UTILS, FLOOR, SORTING_FLOOR)


def versions() -> dict[str, str]:
    """Return the SQLite that each side runs on, and the peers' own versions."""
    ask = (
        "import json,sqlite3,pysqlite3,inboxd\n"
        "print(json.dumps({'inboxd': inboxd.__version__, 'SQLite of inboxd': pysqlite3.sqlite_version, "
        "'SQLite of the seed program': sqlite3.sqlite_version}))"
    )
    found = _asked(sys.executable, ask)
    if PEERS_PYTHON.exists():
        ask = (
            "import json,sqlite3\nfrom importlib.metadata import version\n"
            "import adbc_driver_sqlite.dbapi as a\nc=a.connect().cursor(); c.execute('select sqlite_version()')\n"
            "print(json.dumps({'SQLite of ADBC': c.fetchone()[0], 'SQLite of sqlite-utils': sqlite3.sqlite_version, "
            "**{n: version(n) for n in ('duckdb', 'polars', 'adbc-driver-sqlite', 'sqlite-utils', 'filedge', 'dlt')}}))"
        )
        found |= _asked(str(PEERS_PYTHON), ask)
    built = WORK / "floor" / "sqlite3.h"
    if built.exists():
        line = next(line for line in built.read_text(encoding="utf-8").splitlines() if "define SQLITE_VERSION " in line)
        found["SQLite of the C program"] = line.split('"')[1]
    return found


def _asked(python: str, program: str) -> dict[str, str]:
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ))
    found: dict[str, str] = json.loads(done.stdout)
    return found
