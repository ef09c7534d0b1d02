"""``make crashes``: every state that a power cut may leave is made real, and a daemon started on it.

A daemon that drains an inbox is recorded with all that it does to the disk (``disk_record``), SQLite's writes included;
so are an undo, a retry, and a daemon that lets go of what is old.
From the record come the states that a cut may leave at each moment (``disk_states``). Each is laid out as real files,
the daemon is started on them, and tables and folders are compared with the truth. ``--without-syncs`` shows that the
method can fail: it takes one kind of sync after the other out of the record, and tells which of them are needed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

import crashing
from audits import audited, command
from daemons import Home, files_in
from disk_record import Disk, Record, Sync
from disk_states import State, States, make, mark_of
from inboxd.clock import SystemClock, stamp
from torture_truth import CONFIG, THINNING, Damage, damage, scenario

BROKEN, UNDONE, REFUSED = "broken.json", "changes/e.ndjson", "orders/large.ndjson"
"""Files with a fate: one is never loaded, one is undone and loaded again, one is first too large."""
ELSEWHERE = "changes"
"""A folder of ``processed`` that is a filesystem of its own."""
SMALL = {"INBOXD_INBOX__MAX_FILE_SIZE": "8KiB"}
HEALTH = "health.json"
STARTS_AGAIN = 4
"""So often a daemon is started on a state, at most, until the inbox is empty."""
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
DEFAULT_STATES = 300
TELLING = 400
"""So many states, at most, show whether a sync is needed."""


@dataclass
class Crashes:
    """One recorded run below a folder, and what became of its states."""

    folder: Path
    seed: int
    command: Sequence[str] = (os.path.abspath(sys.executable), "-m", "inboxd")
    config: str = CONFIG
    tried: Counter[str] = field(default_factory=Counter)
    disks: int = 0
    """How many of the states that were tried differ in what lies on the disk."""
    lost: Counter[str] = field(default_factory=Counter)
    twice: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[State, str]] = field(default_factory=list)
    promises: list[tuple[int, str]] = field(default_factory=list)
    """After how many operations the answer to which question must be at least 1."""
    retried: dict[str, int] = field(default_factory=dict)
    """After how many operations the retry of which file has ended."""
    audits: dict[object, list[dict[str, Any]]] = field(default_factory=dict)
    """What was found of the ends that were audited in this process."""
    thinned_from: int = 0
    """The operation from which on retention was at work."""

    began: str = field(default_factory=lambda: stamp(SystemClock().now()))

    def __post_init__(self) -> None:
        """Record the run: files of every kind in an inbox, drained, then what people do."""
        self.files = scenario(random.Random(self.seed))
        home = Home(self.folder / "recorded", self.config, command=self.command)
        for age, (name, content) in enumerate(self.files.items()):
            home.drop(name, content)
            os.utime(home.inbox / name, (1_760_000_000 + age, 1_760_000_000 + age))
        shutil.rmtree(home.path / "outside")
        with second_filesystem() as mount:
            elsewhere = home.processed / ELSEWHERE
            elsewhere.mkdir(parents=True)
            mount(elsewhere)
            self.record = Record(home.path)
            self.nodes = self.record.unsynced([f"inbox/{name}" for name in self.files])  # nobody asks senders to sync
            self._drain(home)
            found = damage(home, self.files, refused={REFUSED})
            self._people(home)
            found = found or damage(
                home, self.files, cut=True, thinned=True, refused={REFUSED}, retried={*self.retried}
            )
        if found:
            message = f"not even undisturbed: {found}"
            raise AssertionError(message)

    def _drain(self, home: Home) -> None:
        """Record daemons that load the files: one is stopped, one dies once a failed file was moved, one goes on."""
        dying = [self.command[0], os.path.abspath(crashing.__file__)]
        nth = 1 + max(list(self.files).index(name) for name in (BROKEN, REFUSED))
        self._act(home, *dying, "claim", "after", "6", "stop", env=SMALL)
        self._act(home, *dying, "archive", "after", str(nth), env=SMALL, codes={crashing.EXIT_KILLED})
        self._act(home, *self.command, "run", "--once", env=SMALL)

    def _people(self, home: Home) -> None:
        """Record what people do then: undone, tried again, in vain and not, asked for, and what is old is let go."""
        (run,) = home.query("SELECT id FROM etl_runs WHERE file_name = ?", UNDONE)[0]
        self._act(home, *self.command, "undo", str(run))
        self._promise("SELECT COUNT(*) FROM etl_runs WHERE undo_of IS NOT NULL")
        with (home.failed / BROKEN).open("ab"):  # somebody mends it just now, so it stays where it is
            self._act(home, *self.command, "retry", BROKEN)
        for name in (UNDONE, REFUSED):
            self._act(home, *self.command, "retry", name)
            loaded = f"SELECT COUNT(*) FROM etl_runs WHERE file_name = '{name}' AND status = 'success'"
            self._promise(f"{loaded} AND claim LIKE '%-retry'")
            self.retried[name] = len(self.record.operations)
        self._act(home, *self.command, "health", "--output", HEALTH)
        self.thinned_from = len(self.record.operations)
        self._act(home, *self.command, "run", "--once", env=THINNING)
        assert not home.query("SELECT 1 FROM lineage_records"), "nothing was old enough to go"

    def _act(
        self,
        home: Home,
        *command: str,
        env: Mapping[str, str] | None = None,
        codes: AbstractSet[int] = frozenset({0, 1}),
    ) -> None:
        code = self.record.run(command, {**home.environment(), **(env or {})})
        assert code in codes, (command, code)

    def _promise(self, question: str) -> None:
        """Note that what a command has done is durable from here on: it ended, and so somebody relies on it."""
        self.promises.append((len(self.record.operations), question))

    def states(self) -> list[State]:
        """Return all states."""
        return list(States(self.record, self.seed))

    def sample(self, states: Sequence[State], number: int) -> list[State]:
        """Choose so many of the states by chance, of each kind of disk as many."""
        chance = random.Random(self.seed)
        kinds = sorted({state.kind for state in states})
        alike = ([state for state in states if state.kind == kind] for kind in kinds)
        return [state for of_one in alike for state in chance.sample(of_one, min(len(of_one), number // len(kinds)))]

    def run(self, states: Sequence[State]) -> None:
        """Try states, as many at once as there are processors, and count. Of states that are one disk one is tried."""
        alike: dict[object, list[State]] = {}
        with self._processes() as pool:
            for state, mark in zip(states, pool.map(_mark, states, chunksize=16), strict=True):
                alike.setdefault(mark, []).append(state)
            self.disks += len(alike)
            chosen = [same[0] for same in alike.values()]
            for number, (same, found) in enumerate(
                zip(alike.values(), pool.map(_outcome, chosen, chunksize=4), strict=True), 1
            ):
                state = same[0]
                self.tried[state.kind] += len(same)
                if found:
                    self.lost[state.kind] += len(found.lost)
                    self.twice[state.kind] += len(found.twice)
                    self.broken.append((state, "\n    ".join([str(state), *found.lost[:5], *found.twice[:5]])))
                if sys.stderr.isatty():
                    click.echo(f"\r{number} {state!s:<60}", nl=False, err=True)

    def without_each_sync(self, most: int) -> dict[str, tuple[int, str]]:
        """Leave out the syncs of one place in the code after the other.

        Return for each after how many states the first loss was found, and what it was; after 0, if none was.
        """
        kinds = self.syncs()
        with self._processes() as pool:
            return dict(zip(kinds, pool.map(_first_loss, kinds.values(), repeat(most)), strict=True))

    def _processes(self) -> ProcessPoolExecutor:
        """Return processes that have this record, too: new ones, as a copy of this one would not have its threads.

        They are not made anew now and then, though 10,000 daemons let one grow to a gigabyte: the pool that does so
        may wait for ever (https://github.com/python/cpython/issues/115634).
        """
        return ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _lend, (self,))

    def first_loss(self, syncs: frozenset[int], most: int) -> tuple[int, str]:
        """Try what the lack of syncs makes possible; return how many states were tried until a loss, and which."""
        for number, state in enumerate(islice(States(self.record, self.seed, syncs).telling(), most), 1):
            if found := self.outcome(state):
                return number, f"{state}: {[*found.lost, *found.twice][0]}"
        return 0, ""

    def mark(self, state: State) -> object:
        """Return what is equal for states of which the same is asked, and that are the same on the disk."""
        disk = state.disk(self.record)
        due = [point for point, _ in self.promises if state.point >= point]
        asked = (state.kind, *due, *self._retried(state), self._is_thinned(state))
        return asked, mark_of(disk, self.record.mtimes), tuple(sorted(self._left(disk).items()))

    def outcome(self, state: State) -> Damage:
        """Make a state real, start daemons on it until nothing is left to do, and compare the end with the truth."""
        place = self.folder / f"state-{os.getpid()}"
        shutil.rmtree(place, ignore_errors=True)
        home = Home(place, self.config, command=self.command)
        shutil.rmtree(place)
        with second_filesystem() as mount:
            disk = state.disk(self.record)
            elsewhere = home.processed / ELSEWHERE
            make(disk, place, self.record.mtimes, lambda made: mount(made) if made == elsewhere else None)
            found = self._end_of(home, state, self._left(disk))
        # Such a disk may forget a claim and keep the hidden copy that was made for it: nobody knows whose.
        parts = {line for line in found.twice if state.kind == "strict" and ".part'" in line}
        return Damage(found.lost, [line for line in found.twice if line not in parts])

    def _end_of(self, home: Home, state: State, left: dict[str, bytes]) -> Damage:
        for _ in range(STARTS_AGAIN):
            # In this process, with the same daemon in it: most of the time would go into starts of Python.
            with nothing_left_open():
                code, _, said = command(home.path, "run", "--once")
            if code not in {0, 1}:
                return Damage([f"exit code {code}: {said.strip()[-500:]}"], [])
            if not files_in(home.inbox):
                try:
                    return self._judged(home, state, left)
                except sqlite3.DatabaseError as error:
                    return Damage([f"the database: {error}"], [])
        return Damage([f"still in the inbox: {sorted(map(str, home.inbox.rglob('*')))}"], [])

    def _judged(self, home: Home, state: State, left: dict[str, bytes]) -> Damage:
        """Compare an end with the truth, and with what was promised by then."""
        found = damage(
            home,
            self.files,
            cut=True,
            thinned=self._is_thinned(state),
            left=left,
            refused={REFUSED},
            retried=self._retried(state),
            judge=self._audited,
        )
        broken = [
            f"a promise: {question}"
            for point, question in self.promises
            if state.point >= point and home.query(question)[0][0] < 1
        ]
        broken += [f"half a file: {HEALTH}"] if not _is_whole(home.path / HEALTH) else []
        return Damage([*found.lost, *broken], found.twice)

    def _is_thinned(self, state: State) -> bool:
        return state.point > self.thinned_from

    def _retried(self, state: State) -> set[str]:
        return {name for name, point in self.retried.items() if state.point >= point}

    def _audited(self, folder: Path, env: Mapping[str, str]) -> list[dict[str, Any]]:
        """Audit an end, or return what was found of one that was the same: most of the time goes into audits."""
        mark = (end_of(folder, self.began), *sorted(env.items()))
        if mark not in self.audits:
            self.audits[mark] = audited(folder, env)
        return self.audits[mark]

    def _left(self, disk: Disk) -> dict[str, bytes]:
        """Return what the cut left of files, where it came before inboxd had made their content durable."""
        there = {node for _path, node in disk.walk()}
        nodes = {name: node for name in self.files if (node := self.nodes[f"inbox/{name}"]) in there}
        return {name: bytes(disk.files[node]) for name, node in nodes.items() if disk.files[node] != self.files[name]}

    def syncs(self) -> dict[str, frozenset[int]]:
        """Return the syncs of the record, by the place in the code that asks for them."""
        found: dict[str, set[int]] = {}
        names = _names(self.record)
        for number, operation in enumerate(self.record.operations):
            if isinstance(operation, Sync):
                kind = operation.place or f"SQLite: {names[operation.node]}"
                found.setdefault(kind, set()).add(number)
        return {kind: frozenset(numbers) for kind, numbers in sorted(found.items())}


_LENT: list[Crashes] = []
"""In a process that tries states: the record."""


def _lend(crashes: Crashes) -> None:
    _LENT.append(crashes)


def _mark(state: State) -> object:
    return _LENT[0].mark(state)


def _outcome(state: State) -> Damage:
    return _LENT[0].outcome(state)


def _first_loss(syncs: frozenset[int], most: int) -> tuple[int, str]:
    return _LENT[0].first_loss(syncs, most)


def end_of(folder: Path, began: str) -> bytes:
    """Return what is equal for ends that are the same to an audit: the archive, and the tables.

    Left out is what no two runs have in common: moments from when all this ``began``, and the random part of a claim.
    """
    found = hashlib.blake2b(digest_size=16)
    for path in files_in(folder / "data" / "processed"):
        found.update(repr((str(path.relative_to(folder)), path.read_bytes())).encode())
    with closing(sqlite3.connect(folder / "data" / "inboxd.db")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        for (table,) in tables:
            rows = connection.execute(f'SELECT * FROM "{table}"')
            names = [name for name, *_ in rows.description]
            alike = sorted(repr([_timeless(*each, began) for each in zip(names, row, strict=True)]) for row in rows)
            found.update(repr((table, names, alike)).encode())
    return found.digest()


def _timeless(name: str, value: object, began: str) -> object:
    if name == "claim":
        return value and str(value).endswith("-retry")
    if name == "duration_ms" or not isinstance(value, str):
        return None if name == "duration_ms" else value
    return MOMENT.sub(lambda found: min(found[0], began), value)


def _is_whole(document: Path) -> bool:
    """Tell whether a file, if it is there, is a whole JSON document."""
    try:
        json.loads(document.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def _names(record: Record) -> dict[int, str]:
    """Return for each node what it is: the kind of file or folder that it was when it was first seen."""
    disk: Disk = record.before.copy()
    names: dict[int, str] = {0: "the folder itself"}
    for operation in [None, *record.operations]:
        if operation is not None:
            disk.apply(operation)
        for path, node in disk.walk():
            names.setdefault(node, _kind(path, is_folder=node in disk.folders))
    return names


def _kind(path: str, *, is_folder: bool) -> str:
    top = path.split("/")
    if top[0] == "inbox":
        if len(top) > 1 and top[1] == ".claimed":
            return "a claim's folders" if is_folder else "a claimed file"
        return "the inbox's folders" if is_folder else "a dropped file"
    if len(top) > 1 and top[1] in {"processed", "failed"}:
        return f"the folders of {top[1]}" if is_folder else f"a file in {top[1]}"
    return path


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """Close what a command has left open, as the end of its process does: its log lasts as long as that."""
    before = set(os.listdir("/proc/self/fd"))
    try:
        yield
    finally:
        for descriptor in set(os.listdir("/proc/self/fd")) - before:
            with suppress(OSError):  # the one by which they were listed
                os.close(int(descriptor))


@contextmanager
def second_filesystem() -> Iterator[Callable[[Path], None]]:
    """Lend a function that puts a folder on a filesystem of its own until the block ends, where that can be done."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        if os.geteuid() == 0:
            done = subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=False, capture_output=True)
            mounted.extend([] if done.returncode else [folder])

    try:
        yield mount
    finally:
        for folder in mounted:
            subprocess.run(["umount", str(folder)], check=True)


def table(crashes: Crashes) -> str:
    """Return the result as a Markdown table."""
    lines = ["| disk | states | lost | twice |", "|---|--:|--:|--:|"]
    lines += [
        f"| {kind} | {number} | {crashes.lost[kind]} | {crashes.twice[kind]} |"
        for kind, number in sorted(crashes.tried.items())
    ]
    return "\n".join(lines)


def main(arguments: Iterable[str]) -> int:
    """Record, try, print the table; returns the exit code: 1 if anything was lost or done twice."""
    parser = argparse.ArgumentParser(prog="make crashes", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="the same run and states again")
    parser.add_argument("--states", type=int, default=DEFAULT_STATES, help="how many states; 0 for all")
    parser.add_argument("--without-syncs", action="store_true", help="show which syncs are needed")
    options = parser.parse_args(list(arguments))
    if shutil.which("strace") is None:
        click.echo("crashes: needs strace (apt-get install strace)", err=True)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="inboxd-crashes-")).resolve()
    crashes = Crashes(folder, options.seed)
    if options.without_syncs:
        without = crashes.without_each_sync(TELLING)
        for kind, (number, loss) in without.items():
            click.echo(f"{kind}: " + (f"a loss after {number} states: {loss}" if number else "no loss"))
        return int(not all(number for number, _ in without.values()))
    states = crashes.states()
    click.echo(f"seed {options.seed}: {len(crashes.record.operations)} operations, {len(states)} states")
    crashes.run(crashes.sample(states, options.states) if options.states else states)
    click.echo(f"{table(crashes)}\n\n{crashes.disks} of these states differ in what lies on the disk.")
    if crashes.broken:
        state, _ = crashes.broken[0]
        make(state.disk(crashes.record), folder / "broken", crashes.record.mtimes, lambda _made: None)
        told = (what for _, what in crashes.broken)
        click.echo("\n".join(["", *told, "", f"the first of these states lies in {folder}/broken"]))
        return 1
    with suppress(OSError):
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
