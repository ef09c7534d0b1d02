"""The row about other ways to do the job: pipelines that keep a ledger, and engines told what to do by a script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.corpus import Many
from bench.results import TIMES, Line, Skipped
from bench.runner import Bench, installed
from bench.subjects import (
    DLT_DUCKDB,
    DLT_SQLITE,
    DUCKDB,
    FILEDGE,
    FILEDGE_INDEXED,
    INBOXD_LOAD,
    POLARS,
    SEED,
    SQLITE_UTILS,
    Subject,
)

LEDGERS = (FILEDGE, FILEDGE_INDEXED, DLT_SQLITE, DLT_DUCKDB)
"""They know which files they have loaded. The others know nothing of the last time: a script is all there is."""
SCRIPTS = (DUCKDB, POLARS, SQLITE_UTILS, SEED)
TIMES_FASTER = 10.0
PER_FILE = 10


def peers(bench: Bench) -> Iterator[Line | Skipped]:
    """Load the same records with whatever else does the job, at sizes that each can finish."""
    scale = bench.scale
    large, few = bench.bulk(scale.peer_records), bench.bulk(scale.filedge_records)
    files = bench.many(Many(scale.peer_files, PER_FILE))
    yield from _against(bench, "bulk", f"{scale.peer_records:,} records", large, (*SCRIPTS, *LEDGERS[1:]))
    # filedge reads its whole table for each record: ten times as many take it a hundred times as long.
    yield from _against(bench, "few", f"{scale.filedge_records:,} records", few, (FILEDGE,))
    yield from _against(bench, "files", f"{scale.peer_files:,} files of {PER_FILE} records", files, SCRIPTS + LEDGERS)


def _against(bench: Bench, key: str, what: str, source: Path, subjects: Sequence[Subject]) -> Iterator[Line | Skipped]:
    here, missing = installed(subjects)
    took = bench.against([INBOXD_LOAD, *here], source, ["target"])
    ours = took[INBOXD_LOAD.name]
    for subject in subjects:
        if subject.name in missing:
            yield Skipped(f"{what}, against {subject.label}", missing[subject.name])
            continue
        theirs = took[subject.name]
        faster = theirs.seconds / ours.seconds
        yield Line(
            f"peers.{key}.{subject.name}",
            f"{what}: faster than {subject.label}",
            f"{ours} / {theirs}",
            faster,
            goal=TIMES_FASTER if subject in LEDGERS else None,
            at_most=False,
        )


def ranking(lines: Sequence[Line]) -> str:
    """Return what each program takes as a Markdown table, the fastest first; nothing if they were not measured."""
    found = {line.key: line for line in lines if line.key.startswith("peers.")}
    if not found:
        return ""
    ours = {key.split(".")[1]: line.detail.partition(" / ")[0] for key, line in found.items()}
    rows = [(1.0, ["**inboxd load**", "yes", *(f"1 {TIMES} ({ours[kind]})" for kind in ("bulk", "files"))])]
    for subject in SCRIPTS + LEDGERS:
        cells = [_cell(found, kind, subject) for kind in ("bulk", "files")]
        line = found.get(f"peers.bulk.{subject.name}") or found.get(f"peers.few.{subject.name}")
        if line is not None:
            rows.append((line.number, [subject.label, "yes" if subject in LEDGERS else "no", *cells]))
    large, files = (found[f"peers.{kind}.{DLT_SQLITE.name}"].what.partition(":")[0] for kind in ("bulk", "files"))
    head = [f"| | knows which files it has loaded | {large} | {files} |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(cells)} |" for _, cells in sorted(rows))])


def _cell(found: dict[str, Line], kind: str, subject: Subject) -> str:
    line = found.get(f"peers.{kind}.{subject.name}")
    if line is not None:
        return f"{line.shown} ({line.detail.partition(' / ')[2]})"
    few = found.get(f"peers.few.{subject.name}")
    return "—" if few is None else f"{few.shown} at {few.what.partition(':')[0]} ({few.detail.partition(' / ')[2]})"
