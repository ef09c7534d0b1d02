"""Files in ``processed/`` and ``failed/``, found by what a person calls them, and the name they had in the inbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path

from inboxd.config import ArchiveSettings
from inboxd.errors import EXIT_USAGE, OperatorFault
from inboxd.inbox.archive import Place
from inboxd.inbox.names import looks_like_report, original, runs_told, spellings
from inboxd.inbox.reports import run_of
from inboxd.inbox.tree import Folder, is_regular, walk
from inboxd.model import printable
from inboxd.store.database import Store


def named_files(settings: ArchiveSettings, names: Iterable[str]) -> list[Place]:
    """Return the files that are meant, each once; the reports that ``failed/*`` names, too, are no senders' files.

    Raises ``OperatorFault``: ``no_such_file``, or ``no_file_but_reports``.
    """
    found = dict.fromkeys(_find_archived(settings, name) for name in names)
    files = [place for place in found if not _is_report(settings, place)]
    if not files:
        report = next(iter(found))
        msg = f"{printable(report.name)} is a report, not a file that failed"
        hint = "name the file that it tells of: the report's name without `.error.json`"
        raise OperatorFault("no_file_but_reports", msg, hint, exit_code=EXIT_USAGE)
    return files


def _is_report(settings: ArchiveSettings, place: Place) -> bool:
    """Tell whether it is a report: no sender's file in ``failed/`` is called so."""
    return place.folder == os.fspath(settings.failed) and looks_like_report(place.file)


def _find_archived(settings: ArchiveSettings, name: str) -> Place:
    """Return what is meant by a path, or by a path relative to ``failed/`` or ``processed/``, also as it is shown.

    ``failed/`` is looked into first.
    """
    for spelled, folder in product(spellings(name), (settings.failed, settings.processed)):
        given = Path(os.path.abspath(spelled))  # noqa: PTH100 - Path.resolve would follow symlinks
        for path in (given, folder / spelled):
            place = _place(folder, Path(os.path.normpath(path)))
            if place is not None:
                return place
    msg = f"there is no file {printable(name)!r} in {settings.failed} or {settings.processed}"
    hint = "give its name as it is there; `inboxd runs list --status failure` tells what failed"
    raise OperatorFault("no_such_file", msg, hint, exit_code=EXIT_USAGE)


def _place(folder: Path, path: Path) -> Place | None:
    """Return the place of a regular file below a folder of the archive, however its folder is spelled."""
    whole = Path(os.path.realpath(path.parent), path.name)
    for top, file in ((folder, path), (Path(os.path.realpath(folder)), whole)):
        if file.is_relative_to(top):
            place = Place(os.fspath(folder), os.fspath(file.relative_to(top)))
            with suppress(OSError), place.opened() as opened:
                if is_regular(opened.look(place.file)):
                    return place
    return None


def all_failed(settings: ArchiveSettings) -> list[Place]:
    """Return every file in ``failed/``, the oldest first; reports are none."""
    found = sorted((look.st_mtime_ns, place.name, place) for place, look in files_below(settings.failed, reports=True))
    return [place for _, _, place in found]


def arrived(place: Place) -> tuple[int, str]:
    """Return what files of both folders are sorted by: their mtime, then their name, as they arrived."""
    try:
        with place.opened() as folder:
            return folder.look(place.file).st_mtime_ns, place.name
    except OSError:
        return 0, place.name


def files_below(folder: Path, *, reports: bool) -> Iterator[tuple[Place, os.stat_result]]:
    """Yield the senders' files below a folder of the archive, each with a look at it: nothing hidden, no links.

    Nor what another inboxd that runs has for its archive in there.

    ``reports``: the folder is one that has reports among them, which are no senders' files. A folder that is not there
    has none; raises ``OSError`` if it cannot be listed.
    """
    try:
        top = Folder.root(folder)
    except FileNotFoundError:
        return
    with top:
        for name, entry in walk(top, enter=_is_ours, skip=lambda name: name.startswith(".")):
            if reports and looks_like_report(entry.name):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if is_regular(found):
                yield Place(os.fspath(folder), name), found


def _is_ours(_name: str, folder: Folder) -> bool:
    """Tell whether a folder in an archive is that one's, and not the archive of another database."""
    return not folder.is_archive()


def name_in_inbox(file_of_run: Callable[[int], str | None], name: str) -> str:
    """Return the path that an archived file had in the inbox: without ``.run-812`` if that run tells the same."""
    for run_id in runs_told(name):
        recorded = file_of_run(run_id)
        plain = None if recorded is None else original(name, run_id, recorded)
        if plain is not None:
            return plain
    return name


def first_mtime(store: Store, place: Place, name: str) -> str | None:
    """Return the mtime that an archived file had when it was first claimed, as ``name``; ``None`` if it is not known.

    The run is the one that its name tells, or the report beside it: who mends a file gives it another mtime.
    """
    beside = run_of(place)
    for run_id in (*runs_told(place.name), *([] if beside is None else [beside])):
        run = store.run(run_id)
        if run is not None and run.file_name == printable(name):
            return run.file_mtime
    return None


def files_of_runs(store: Store) -> Callable[[int], str | None]:
    """Return a function that asks the ledger for the file of a run."""

    def file_of_run(run_id: int) -> str | None:
        run = store.run(run_id)
        return None if run is None else run.file_name

    return file_of_run
