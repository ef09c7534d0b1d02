"""What an audit found: the differences, and how much of the database it could prove."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

LISTED: Final = 1_000
"""Differences that are listed of each table; their number is exact."""
NAMED: Final = 20
"""Runs that are named of those that nothing proves."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the files say; ``key``, ``run_id`` and ``file`` as far as they are known."""

    kind: str
    detail: str
    key: str | None = None
    run_id: int | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Unproven:
    """A run of which nothing can be proved, and why."""

    run_id: int
    file: str | None
    why: str


@dataclass(slots=True)
class TableReport:
    """What was found of one table. Owned by the audit until it is done."""

    table: str
    feeds: list[str]
    runs: int = 0
    runs_unproven: int = 0
    unproven: list[Unproven] = field(default_factory=list)
    """The first of them."""
    last_unproven: int | None = None
    """The last of them in the order of commits: what came after it is proved."""
    rows: int = 0
    rows_unproven: int = 0
    dead_letters: int = 0
    tombstones: int = 0
    lineage: int = 0
    lineage_thinned: int = 0
    """Runs of which the lineage was removed by retention."""
    notes: list[str] = field(default_factory=list)
    difference_count: int = 0
    differences: list[Difference] = field(default_factory=list)

    def differs(
        self, kind: str, detail: str, *, key: str | None = None, run: int | None = None, file: str | None = None
    ) -> None:
        """Take a difference down."""
        self.difference_count += 1
        if len(self.differences) < LISTED:
            self.differences.append(Difference(kind, detail, key, run, file))

    def leave(self, run_id: int, file: str | None, why: str) -> None:
        """Take down that a run cannot be proved."""
        self.runs_unproven += 1
        self.last_unproven = run_id
        if len(self.unproven) < NAMED:
            self.unproven.append(Unproven(run_id, file, why))


@dataclass(frozen=True, slots=True)
class Report:
    """What was found of all tables."""

    tables: list[TableReport]

    @property
    def difference_count(self) -> int:
        """How many differences there are."""
        return sum(table.difference_count for table in self.tables)
