"""``python -m bench``: measure, print the table, and at full scale keep it; rows not measured this time stay."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from bench import bulk, growth, life, live, machine, pipelines, postgres, results, snapshot
from bench.process import Broken
from bench.results import Line, Skipped
from bench.runner import SCALES, Bench, say
from bench.subjects import BENCH, ROOT, WORK, versions

ROWS: dict[str, Callable[[Bench], Iterator[Line | Skipped]]] = {
    "peers": pipelines.peers,
    "bulk": bulk.bulk,
    "memory": bulk.memory,
    "duplicate": bulk.duplicate,
    "regrowth": bulk.regrowth,
    "bad": bulk.bad,
    "small": live.small,
    "slow": live.slow,
    "latency": live.latency,
    "start": live.start,
    "snapshot": snapshot.snapshot,
    "postgres": postgres.postgres,
    "growth": growth.growth,
    "retention": growth.retention,
    "log": growth.log,
    "life": life.life,
}
DOCUMENT = ROOT / "docs" / "benchmarks.md"
BY_NAME = {"life"}
"""Takes an hour at full scale, and so is measured there only when it is named."""
HEAD = """# Results

Written by `make bench`. Ratios of medians of {repeats} runs, interleaved; whole processes, start-up included; what
each left in its database was compared and found equal. One record is about 87 bytes.
"""


def main() -> int:
    """Measure the chosen rows; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of: {', '.join(ROWS)} (default: all; life, an hour, by name)"
    )
    parser.add_argument(
        "--scale", choices=list(SCALES), default="full", help="quick is for trying; it is not written down"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    bench = Bench(SCALES[arguments.scale])
    WORK.mkdir(parents=True, exist_ok=True)
    facts = machine.facts(WORK)
    try:
        found = _measured(bench, arguments.rows or _all(arguments.scale))
    except Broken as reason:
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    facts |= versions()
    facts["measured"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [line for line in found if isinstance(line, Line)]
    skipped = [row for row in found if isinstance(row, Skipped)]
    before = results.committed(ROOT)
    print(_report(bench, lines, before, skipped, facts))
    if arguments.scale == "full":
        kept = results.merged(ROOT, lines, list(ROWS))
        (BENCH / "RESULTS.md").write_text(_report(bench, kept, before, skipped, facts), encoding="utf-8")
        (ROOT / results.STORED).write_text(results.stored(kept, facts), encoding="utf-8")
        text = results.inserted(DOCUMENT.read_text(encoding="utf-8"), "others", pipelines.ranking(kept))
        DOCUMENT.write_text(results.inserted(text, "table", results.table(kept, None)), encoding="utf-8")
    return 0


def _all(scale: str) -> list[str]:
    return [name for name in ROWS if scale != "full" or name not in BY_NAME]


def _measured(bench: Bench, names: list[str]) -> list[Line | Skipped]:
    found: list[Line | Skipped] = []
    for name in names:
        say(f"{name}: {(ROWS[name].__doc__ or '').splitlines()[0]}")
        found += ROWS[name](bench)
    return found


def _report(
    bench: Bench, lines: list[Line], before: dict[str, float], skipped: list[Skipped], facts: dict[str, str]
) -> str:
    parts = [HEAD.format(repeats=bench.scale.repeats)]
    ranking = pipelines.ranking(lines)
    if ranking:
        parts += [ranking, ""]
    parts.append(results.table(lines, before))
    if skipped:
        parts.append("\nNot measured here:\n")
        parts += [f"- {row.what}: {row.reason}" for row in skipped]
    parts.append("\n| machine | |\n|---|---|")
    parts += [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
