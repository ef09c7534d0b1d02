"""Files in ``processed/`` and ``failed/``, found by what a person calls them, and the name they had in the inbox."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inboxd.config import ArchiveSettings
from inboxd.errors import EXIT_USAGE, OperatorFault
from inboxd.inbox.names import NAME_MAX, REPORT_SUFFIX, looks_like_report, marked, split
from inboxd.model import printable
from inboxd.store.base import Store

_MARK: Final = re.compile(r"(?P<stem>.*)\.(?P<mark>run-(?P<run>[0-9]{1,18})(?:-[0-9]+)?)", re.DOTALL)
_CUT_REPORT: Final = re.compile(r".*~[0-9a-f]{8}" + re.escape(REPORT_SUFFIX), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Archived:
    """A file in one of the two folders. ``name`` is its path relative to the folder."""

    path: Path
    folder: Path
    name: str


def find_archived(settings: ArchiveSettings, name: str) -> Archived:
    """Return the file that is meant by a path, or by a path relative to ``failed/`` or ``processed/``.

    ``failed/`` is looked into first. Raises ``OperatorFault`` ``no_such_file``.
    """
    folders = (settings.failed, settings.processed)
    given = Path(os.path.abspath(name))  # noqa: PTH100 - Path.resolve would follow symlinks
    for folder in folders:
        if given.is_relative_to(folder) and _is_file(given):
            return Archived(given, folder, os.fspath(given.relative_to(folder)))
    for folder in folders:
        path = Path(os.path.normpath(folder / name))
        if path.is_relative_to(folder) and _is_file(path):
            return Archived(path, folder, os.fspath(path.relative_to(folder)))
    msg = f"there is no file {printable(name)!r} in {settings.failed} or {settings.processed}"
    hint = "name it as it is called there; `inboxd runs list --status failure` tells what failed"
    raise OperatorFault("no_such_file", msg, hint, exit_code=EXIT_USAGE)


def all_failed(settings: ArchiveSettings) -> list[Archived]:
    """Return every file in ``failed/``, the oldest first; reports are none."""
    found = [(os.lstat(path), path) for path in files_below(settings.failed)]
    ordered = sorted(found, key=lambda one: (one[0].st_mtime_ns, one[1]))
    return [Archived(path, settings.failed, os.fspath(path.relative_to(settings.failed))) for _, path in ordered]


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the senders' files below a folder of the archive: no reports, nothing hidden."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if not name.startswith(".") and not is_report(name) and _is_file(path):
                yield path


def is_report(name: str) -> bool:
    """Tell whether a file of ``failed/`` is the report of another one."""
    whole = len(os.fsencode(name))
    return looks_like_report(name) or (whole > NAME_MAX - 4 and _CUT_REPORT.fullmatch(name) is not None)


def name_in_inbox(file_of_run: Callable[[int], str | None], name: str) -> str:
    """Return the path that an archived file had in the inbox: without ``.run-812`` if that run tells the same."""
    folder, base = os.path.split(name)
    stem, suffix = split(base)
    match = _MARK.fullmatch(stem)
    recorded = None if match is None else file_of_run(int(match["run"]))
    if match is None or recorded is None:
        return name
    plain = os.path.join(folder, match["stem"] + suffix)  # noqa: PTH118 - names may hold what Path would tidy away
    if recorded == printable(plain):
        return plain
    cut = marked(os.path.basename(recorded), match["mark"]) == base  # noqa: PTH119 - the same
    return recorded if cut else name  # its stem was too long for the mark


def files_of_runs(store: Store) -> Callable[[int], str | None]:
    """Return a function that asks the ledger for the file of a run."""

    def file_of_run(run_id: int) -> str | None:
        run = store.run(run_id)
        return None if run is None else run.file_name

    return file_of_run


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
