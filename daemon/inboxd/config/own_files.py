"""The files that inboxd writes or reads for itself: none of them may be another one, or it would be destroyed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

from inboxd.config.database import files_named
from inboxd.config.faults import Faults, Key
from inboxd.config.settings import NotifySettings, Settings
from inboxd.regular import kind_at

_DATABASE: Final[Key] = ("database", "url")
_BESIDE: Final = ("-wal", "-shm", "-journal", ".lock")
"""What lies beside a SQLite database under its name: three files of SQLite's, and the daemon's lock."""


@dataclass(frozen=True, slots=True)
class OwnFile:
    """One of them, and the setting that says where it is."""

    what: str
    path: Path
    key: Key
    written: bool = True
    regular: bool = True
    """It must be a regular file, if there is one: whatever else would be waited for."""


def own_files(settings: Settings) -> Iterator[OwnFile]:
    """Yield them all, first those of which the setting is most likely the one to change."""
    if settings.log.file is not None:
        yield OwnFile("the log", settings.log.file, ("log", "file"), regular=False)
    database = settings.database
    if not database.is_postgres:
        path = database.sqlite_path
        yield OwnFile("the database", path, _DATABASE)
        for suffix in _BESIDE:
            yield OwnFile(f"the database's {suffix} file", path.with_name(path.name + suffix), _DATABASE)
    yield OwnFile("the state file", settings.archive.state_file, ("archive", "processed"))
    if settings.source is not None:
        yield OwnFile("the config", settings.source, (), written=False, regular=False)
    if database.password_file is not None:
        yield OwnFile("the password's file", database.password_file, ("database", "password_file"), written=False)
    if database.is_postgres:
        for option, path in files_named(database.url).items():
            yield OwnFile(f"the URL's {option}", path, _DATABASE, written=False)
    yield from _of_receivers(settings.notify)


def _of_receivers(notify: Sequence[NotifySettings]) -> Iterator[OwnFile]:
    for number, one in enumerate(notify):
        if one.headers_file is not None:
            yield OwnFile(
                "the headers of a receiver", one.headers_file, ("notify", number, "headers_file"), written=False
            )
        if one.exec and "/" in one.exec[0]:
            yield OwnFile("the program of a receiver", Path(one.exec[0]), ("notify", number, "exec"), written=False)


def hold_files_apart(settings: Settings, faults: Faults) -> None:
    """Note which of the files is another one as well, by whatever name, and which is no file at all."""
    files = [(one, _identities(one.path)) for one in own_files(settings)]
    for (one, known), (other, others) in combinations(files, 2):
        if (one.written or other.written) and not known.isdisjoint(others):
            faults.add(one.key, f"{one.what} ({one.path}) would be the same file as {other.what} ({other.path})")
    for one, _ in files:
        if one.regular and (kind := kind_at(one.path)) is not None:
            faults.add(one.key, f"{one.what} cannot be {one.path}: {kind}")


def own_file_at(settings: Settings, path: Path) -> OwnFile | None:
    """Return the file that a path leads to, if it is one of inboxd's own."""
    return next((one for one in own_files(settings) if is_one_file(one.path, path)), None)


def is_one_file(one: Path, other: Path) -> bool:
    """Tell whether two paths lead to one regular file, or would once it is made."""
    return not _identities(one).isdisjoint(_identities(other))


def _identities(path: Path) -> set[tuple[object, ...]]:
    """Return what tells a file from all others: device and inode, and its name in a folder that is known by them.

    Where there is no such file, its folder may not be there either: then the nearest one that is there counts, with
    what would be made in it. A device or a pipe is none of them: nothing in it can be destroyed.
    """
    try:
        real = Path(os.path.realpath(path))
    except ValueError:  # U+0000, which is told of where it stands
        return set()
    found = _look(real)
    if found is not None and not stat.S_ISREG(found.st_mode):
        return set()
    identities: set[tuple[object, ...]] = {("path", real)}
    if found is not None:
        identities.add((found.st_dev, found.st_ino))
    for folder in real.parents:
        if (above := _look(folder)) is not None:
            identities.add((above.st_dev, above.st_ino, real.relative_to(folder)))
            break
    return identities


def _look(path: Path) -> os.stat_result | None:
    """Look at what a path leads to; ``None`` where there is nothing, or nothing that this user may see."""
    try:
        return path.stat()
    except (OSError, ValueError):  # ValueError: as above
        return None
