"""Why a file failed, written beside it in ``failed/`` as ``NAME.error.json``."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Final

from inboxd.inbox.archive import Place
from inboxd.inbox.carry import write_all
from inboxd.inbox.faults import transient_fault
from inboxd.inbox.names import looks_like_report, report_name
from inboxd.inbox.tree import Folder, sync
from inboxd.model import printable

_LONGEST: Final = 16 << 20
"""Bytes of a report that are read."""


def write_report(place: Place, report: Mapping[str, object]) -> Place:
    """Write a failed file's report, whole or not at all; it replaces an older one. Raises ``TransientFault``.

    That it is there is durable with the file beside it, see ``make_durable``.
    """
    target = Place(place.folder, f"{place.below}/{report_name(place.file)}".removeprefix("/"))
    text = json.dumps(report, indent=2, default=_plain) + "\n"
    try:
        with place.opened() as folder:
            part = _part(place)
            _write(folder, part, text.encode())
            folder.replace(part, folder, target.file)
    except OSError as error:
        raise transient_fault(error, f"writing {printable(target.path)}", place.folder) from error
    return target


def complete_report(place: Place, report: Mapping[str, object]) -> None:
    """After a crash, write the report if there is none; else remove what is left of writing it once more."""
    with contextlib.suppress(OSError), place.opened() as folder:
        if folder.has(report_name(place.file)):
            folder.unlink(_part(place))
            return
    write_report(place, report)


def remove_report(place: Place) -> None:
    """Remove the report of a file that is no longer in ``failed/``; it need not be there."""
    report = report_name(place.file)
    with contextlib.suppress(OSError), place.opened() as folder:
        if _about(folder, report) is not None:
            folder.unlink(report)


def run_of(place: Place) -> int | None:
    """Return the run of which the report beside a file tells; ``None`` where there is none."""
    with contextlib.suppress(OSError), place.opened() as folder:
        run_id = _read(folder, report_name(place.file)).get("run_id")
        return run_id if isinstance(run_id, int) else None
    return None


def remove_orphans(failed: str | os.PathLike[str], name: str) -> None:
    """Remove the reports on a file (its name in the inbox, as the ledger has it) whose file is no longer beside them.

    ``inboxd retry`` took it out of ``failed/`` and was killed before it could see to that.
    """
    below, _, _ = name.rpartition("/")
    with contextlib.suppress(OSError), Folder.root(failed) as top, top.reach(below) as folder:
        for report in orphans(folder):
            if _about(folder, report) == name:
                folder.unlink(report)


def orphans(folder: Folder) -> list[str]:
    """Return the reports in a folder of ``failed/`` beside which the file that they tell of is not."""
    names = set(folder.names())
    reports = {report_name(name) for name in names}
    return sorted(name for name in names if looks_like_report(name) and name not in reports)


def _about(folder: Folder, report: str) -> object:
    """Return the name of the file that a report tells of; ``None`` if it is no report of ours."""
    return _read(folder, report).get("file")


def _read(folder: Folder, report: str) -> dict[str, object]:
    """Return what a report says; nothing if it is none of ours."""
    try:
        with os.fdopen(folder.open(report, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = json.loads(file.read(_LONGEST))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and "run_id" in found else {}


def _part(place: Place) -> str:
    """Return the hidden name under which a report is written, before it gets its own."""
    return f".{hashlib.sha256(os.fsencode(place.file)).hexdigest()[:16]}.report.part"


def _write(folder: Folder, name: str, data: bytes) -> None:
    fd = folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(fd, data)
        sync(fd)
    finally:
        os.close(fd)


def _plain(value: object) -> object:
    """Return what JSON can say of a value of ours."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
