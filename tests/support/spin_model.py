"""The model of a file's life, checked by Spin: every state that two daemons, crashes and an operator can reach.

``make model`` runs it with more faults at once than CI has time for, and prints how many states each search saw.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).parent / "model" / "file.pml"
FAULTS: Final = ("KILLS", "CUTS", "LOSSES", "UNDOS", "RETRIES")
DEPTH: Final = 1_000_000
"""Steps of the longest path that is searched; a search that would need more is an error, never cut short in silence."""

SAFETY: Final[tuple[Mapping[str, int], ...]] = (
    {"KILLS": 2},
    {"KILLS": 1, "LOSSES": 1},
    {"CUTS": 1, "RETRIES": 1},
    {"LOSSES": 1, "UNDOS": 1, "RETRIES": 1},
)
"""What CI checks for assertions and dead ends: how often each fault may strike; one left out never does."""
LIVENESS: Final[tuple[Mapping[str, int], ...]] = ({"KILLS": 1}, {"LOSSES": 1}, {"CUTS": 1})
"""What CI checks for an end of every file."""
BY_HAND: Final[tuple[Mapping[str, int], ...]] = (
    *SAFETY,
    {"KILLS": 1, "CUTS": 1},
    {"KILLS": 1, "LOSSES": 1, "RETRIES": 1},
    {"KILLS": 1, "LOSSES": 1, "UNDOS": 1},
    {"KILLS": 2, "UNDOS": 1, "RETRIES": 1},
)


@dataclass(frozen=True, slots=True)
class Search:
    """What an exhaustive search found."""

    errors: int
    states: int
    violated: str
    """The first error, empty if there is none."""


def search(faults: Mapping[str, int], *, mistake: str = "", liveness: bool = False) -> Search:
    """Search all states; raises ``RuntimeError`` where that was not possible to the end."""
    given = [f"-D{name}={faults.get(name, 0)}" for name in FAULTS] + ([f"-D{mistake}"] if mistake else [])
    # No fairness is asked for: no step can be repeated for ever, so waiting for somebody who never runs would be found.
    how = [] if liveness else ["-DSAFETY", "-DNOCLAIM"]
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            ["spin", "-a", *given, str(MODEL)],
            ["gcc", "-O1", "-w", "-DCOLLAPSE", *how, "-o", "pan", "pan.c"],
        ):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        ran = subprocess.run(
            ["./pan", f"-m{DEPTH}", *(["-a"] if liveness else [])],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
        )
    errors = re.search(r"errors: (\d+)", ran.stdout)
    states = re.search(r"([\d.e+]+) states, stored", ran.stdout)
    if errors is None or states is None or "max search depth too small" in ran.stdout:
        raise RuntimeError(ran.stdout + ran.stderr)
    violated = re.search(r"^pan:\d+: (.*)", ran.stdout, re.MULTILINE)
    return Search(int(errors[1]), int(float(states[1])), violated[1] if violated else "")


def main() -> int:
    """Search with every combination of faults, and print a table; non-zero if anything was found."""
    found = 0
    for liveness, cases in ((False, BY_HAND), (True, LIVENESS)):
        for faults in cases:
            result = search(faults, liveness=liveness)
            found += result.errors
            what = ", ".join(f"{number} {name.lower()}" for name, number in faults.items())
            kind = "every file ends" if liveness else "nothing wrong  "
            sys.stdout.write(
                f"{kind}  {result.states:>12,} states  {result.errors} errors  {what}  {result.violated}\n"
            )
            sys.stdout.flush()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
