"""What the audit remembers of a key, run by run, and of a record while its run is gone through."""

from __future__ import annotations

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
