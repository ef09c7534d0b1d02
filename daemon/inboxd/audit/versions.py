"""What the audit remembers of a key, run by run, and of a record while its run is gone through."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from inboxd.audit.judge import Kind
from inboxd.model import Cursor, Scalar
from inboxd.outcomes import LineageStep


class State(StrEnum):
    """What is known of a key after a run."""

    ROW = "row"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Version:
    """What one run made of a key's row or tombstone. ``run`` 0: an earlier one that is not known."""

    run: int
    commit_no: int
    number: int
    state: State
    cursor: Cursor | None = None
    marked: bool = False
    values: dict[str, Scalar] | None = None


@dataclass(slots=True)
class Staged:
    """A judged record, and what becomes of it; ``None`` where that is not known."""

    number: int
    kind: Kind
    ident: str
    key: str
    cursor: Cursor | None
    code: str
    raw: str
    values: dict[str, Scalar]
    came: tuple[int, int] | None
    """Of a replayed record: the commit number of the run that refused it, and its number there."""
    outcome: LineageStep | None


ROWS: Final = "row"
GRAVES: Final = "tombstone"
NOTHING: Final = Version(0, 0, 0, State.NONE)
UNKNOWN: Final = Version(0, 0, 0, State.UNKNOWN)


def staged_of(row: tuple[object, ...]) -> Staged:
    """Return a row of ``staged`` as what it is."""
    number, kind, ident, key, cursor, code, raw, content, came_commit, came_number, outcome = row
    step = None if outcome is None else LineageStep(str(outcome))
    recorded = cursor if isinstance(cursor, int) or cursor is None else str(cursor)
    values: dict[str, Scalar] = json.loads(str(content))
    came = None if came_commit is None else (int(str(came_commit)), int(str(came_number)))
    about = (Kind(str(kind)), str(ident), str(key), recorded, str(code), str(raw))
    return Staged(int(str(number)), *about, values, came, step)


def version_of(row: tuple[object, ...]) -> tuple[str, Version]:
    """Return a row of ``versions`` as the key and the version."""
    ident, _, run, commit_no, number, state, cursor, marked, content = row
    values = None if content is None else json.loads(str(content))
    recorded = cursor if isinstance(cursor, int) or cursor is None else str(cursor)
    numbers = (int(str(run)), int(str(commit_no)), int(str(number)))
    return str(ident), Version(*numbers, State(str(state)), recorded, bool(marked), values)
