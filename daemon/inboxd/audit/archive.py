"""The files that runs were of, found by their content wherever they lie in the archive."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Final

from inboxd.inbox.names import marked, spellings
from inboxd.store.base import RunRow

_PIECE: Final = 1 << 20


class Archive:
    """Knows every file below some folders by its SHA-256; the index is in a scratch file."""

    def __init__(self, folders: Sequence[Path], inbox: Path, scratch: Path) -> None:
        """Hash all files below ``processed/`` and ``failed/``."""
        self._folders = folders
        self._inbox = inbox
        self._connection = sqlite3.connect(scratch / "files.db", isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("CREATE TABLE files (sha256 TEXT, path BLOB, PRIMARY KEY (sha256, path))")
        for path in _files(folders):
            sha256 = _sha256(path)
            if sha256 is not None:
                self._connection.execute("INSERT OR IGNORE INTO files VALUES (?, ?)", (sha256, os.fsencode(path)))

    def close(self) -> None:
        """Let go of the index."""
        self._connection.close()

    def find(self, run: RunRow) -> str | None:
        """Return where the content of a run lies: in the archive, still on its way there, or where it was given."""
        query = "SELECT path FROM files WHERE sha256 = ?"
        for (path,) in self._connection.execute(query, (run.content_sha256,)).fetchall():
            if os.path.exists(path):  # noqa: PTH110 - names may hold what Path would tidy away
                return os.fsdecode(path)
        places = [run.file_name] if run.claim is None else [self.by_name(run), self._claimed(run)]
        found = (path for path in places if path is not None and os.path.isfile(path))  # noqa: PTH113 - the same
        return next((path for path in found if _sha256(path) == run.content_sha256), None)

    def _claimed(self, run: RunRow) -> str:
        return os.path.join(self._inbox, ".claimed", run.claim or "", run.file_name or "")  # noqa: PTH118 - the same

    def by_name(self, run: RunRow) -> str | None:
        """Return where a file of the run's name lies, whatever is in it now."""
        for name in spellings(run.file_name or ""):
            ways = ((part, marked(part, f"run-{run.id}")) for part in name.split("/"))
            for way in product(*ways):  # a folder has the number where a file of its name was in the way
                path = os.path.join(self._folders[0], *way)  # noqa: PTH118 - names may hold what Path would tidy away
                if os.path.isfile(path):  # noqa: PTH113 - the same
                    return path
        return None


def _files(folders: Sequence[Path]) -> Iterator[str]:
    for folder in folders:
        for place, below, names in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")]
            for name in names:
                path = os.path.join(place, name)  # noqa: PTH118 - names may hold what Path would tidy away
                if not name.startswith(".") and os.path.isfile(path) and not os.path.islink(path):  # noqa: PTH113, PTH114 - the same
                    yield path


def _sha256(path: str) -> str | None:
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the same
            while piece := file.read(_PIECE):
                found.update(piece)
    except OSError:
        return None
    return found.hexdigest()
