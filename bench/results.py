"""What a row of the table says, and the table itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

STORED: Final = "bench/results.json"
TIMES: Final = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Line:
    """One row: a number that stands against its goal. ``goal`` is ``None`` where there is only something to know."""

    key: str
    what: str
    detail: str
    number: float
    unit: str = TIMES
    goal: float | None = None
    at_most: bool = True
    """Whether a smaller number is the better one."""

    @property
    def met(self) -> bool | None:
        """Tell whether the goal is reached."""
        if self.goal is None:
            return None
        return self.number <= self.goal if self.at_most else self.number >= self.goal

    @property
    def shown(self) -> str:
        """The number with its unit."""
        return shown(self.number, self.unit)

    @property
    def goal_shown(self) -> str:
        """The goal, in words."""
        if self.goal is None:
            return "—"
        return f"{'at most' if self.at_most else 'at least'} {shown(self.goal, self.unit)}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that could not be measured here, and what to do about it."""

    what: str
    reason: str


def shown(number: float, unit: str) -> str:
    """Return a number as people read it: three significant digits, four before the point."""
    text = f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"
    return f"{text} {unit}".strip()


def committed(root: Path) -> dict[str, float]:
    """Return the numbers of the last commit, by key."""
    done = subprocess.run(["git", "show", f"HEAD:{STORED}"], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        return {}
    return {line["key"]: line["number"] for line in json.loads(done.stdout)["lines"]}


def merged(root: Path, lines: Sequence[Line], rows: Sequence[str]) -> list[Line]:
    """Return the kept lines with those just measured in their places, in the order of the rows they belong to."""
    file = root / STORED
    old = json.loads(file.read_text(encoding="utf-8"))["lines"] if file.exists() else []
    by_key = {line.key: line for line in [*(Line(**line) for line in old), *lines]}
    return sorted(by_key.values(), key=lambda line: rows.index(line.key.partition(".")[0]))


def table(lines: Sequence[Line], before: Mapping[str, float] | None) -> str:
    """Return the lines as a Markdown table; without numbers from ``before`` it has no column to compare with them."""
    head = [
        "what",
        "goal",
        "measured",
        "met",
        *(["against the committed results"] if before is not None else []),
        "medians",
    ]
    rows = [_row(head), _row(["---"] * len(head)).replace(" ", "")]
    for line in lines:
        met = {True: "yes", False: "**no**", None: "—"}[line.met]
        cells = [line.what, line.goal_shown, line.shown, met]
        if before is not None:
            old = before.get(line.key)
            cells.append(f"{line.number / old:.2f} {TIMES} ({shown(old, line.unit)})" if old else "—")
        rows.append(_row([*cells, line.detail]))
    return "\n".join(rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def inserted(text: str, name: str, part: str) -> str:
    """Return a document with what stands between ``<!-- bench: NAME -->`` and ``<!-- bench: end -->`` replaced."""
    begin, end = f"<!-- bench: {name} -->\n", "<!-- bench: end -->"
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{part}\n\n{end}{rest.partition(end)[2]}" if part and rest else text


def stored(lines: Sequence[Line], facts: Mapping[str, str]) -> str:
    """Return what ``committed`` reads."""
    return (
        json.dumps({"facts": dict(facts), "lines": [asdict(line) for line in lines]}, indent=1, ensure_ascii=False)
        + "\n"
    )
