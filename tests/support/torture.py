"""``make torture``: faults by chance, at any system call, and the proof that nothing is lost and nothing done twice.

Each round drops a few files into a new inbox and drains it under strace, which kills the daemon at one system call or
makes calls fail as a full or dying disk would, sometimes twice in a row. In half of the rounds a hostile sender swaps a
folder of the inbox for a link into the archive all the while, and back. Then the daemon is run undisturbed, and
tables, folders and log are compared with the truth. The same seed gives the same rounds.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from daemons import Home, files_in
from faults import swapping
from torture_truth import CONFIG, Damage, damage, scenario

KILLED_AT: dict[str, tuple[str, ...]] = {
    "open": ("open", "openat"),
    "read": ("read", "pread64"),
    "write": ("write", "pwrite64"),
    "sync": ("fsync", "fdatasync"),
    "rename": ("rename", "renameat", "renameat2", "link", "linkat"),
    "unlink": ("unlink", "unlinkat", "rmdir"),
    "mkdir": ("mkdir", "mkdirat"),
}
"""Which calls make up one row of the table; a machine has either of some pairs."""
MOVES = (*KILLED_AT["rename"], *KILLED_AT["mkdir"], *KILLED_AT["sync"])
STARTS_AGAIN = 4
"""So often a daemon is run after a fault, at most, until the inbox is empty."""
STUCK_AFTER_S = 60
QUICKLY = "--seccomp-bpf"
"""Spares the calls that are not traced, but with it (strace 6.1) no signal is injected."""
DEFAULT_ROUNDS = 100


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: the ``when``-th ``call`` (of those on ``path``), or every one from there on."""

    kind: str
    call: str
    when: int
    error: str = ""
    path: str = ""
    lasting: bool = False

    def options(self, home: Home) -> list[str]:
        """Return strace's options for it."""
        action = f"error={self.error}" if self.error else "signal=KILL"
        inject = f"inject={self.call}:{action}:when={self.when}{'+' if self.lasting else ''}"
        place = ["-P", str(home.path / self.path)] if self.path else []
        place += [QUICKLY] if self.error else []
        return ["-e", f"trace={self.call}", "-e", inject, *place]

    def __str__(self) -> str:
        on = f" on {self.path}" if self.path else ""
        return f"{self.error or 'KILL'} at {self.call} number {self.when}{'+' if self.lasting else ''}{on}"


@dataclass(frozen=True)
class Call:
    """A call that an undisturbed daemon made on its files, and the how-manyth of its name it was in its thread."""

    name: str
    number: int
    text: str


@dataclass
class Kind:
    """One row of the table."""

    tried: int = 0
    struck: int = 0
    lost: int = 0
    twice: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        """How many faults struck and left everything as it must be."""
        return self.struck - len(self.broken)


@dataclass
class Torturer:
    """Rounds on homes below one folder. ``command`` is the interpreter itself: strace follows no shell's shim."""

    folder: Path
    seed: int
    command: Sequence[str] = (os.path.abspath(sys.executable), "-m", "inboxd")
    kinds: dict[str, Kind] = field(default_factory=dict)

    def run(self, rounds: int) -> dict[str, Kind]:
        """Try so many faults, spread evenly over all kinds of them."""
        faults = list(self._faults(self._calls(), rounds))
        for number, fault in enumerate(faults, 1):
            self._round(number, fault)
            if sys.stderr.isatty():
                click.echo(f"\r{number}/{len(faults)} {fault.kind:<40}", nl=False, err=True)
        if sys.stderr.isatty():
            click.echo("\r" + " " * 60 + "\r", nl=False, err=True)
        return self.kinds

    # Which faults

    def _calls(self) -> list[Call]:
        """Run a daemon undisturbed, and list the calls it made on its own files."""
        chance = random.Random(self.seed)
        with self._home("calm") as home:
            files = self._drop(home, chance)
            trace = self.folder / "calm.strace"
            watched = ",".join(f"?{call}" for calls in KILLED_AT.values() for call in calls)
            self._drain(home, [QUICKLY, "-y", "-o", str(trace), "-e", f"trace={watched}"])
            found = damage(home, files)
            if found:
                message = f"not even undisturbed: {found}"
                raise AssertionError(message)
            return list(_parsed(trace.read_text("utf-8", "replace"), f"{home.path}/"))

    def _faults(self, calls: list[Call], rounds: int) -> Iterator[Fault]:
        chance = random.Random(self.seed + 1)
        kinds = list(_kinds(calls))
        for number in range(rounds):
            kind, choices, error, path = kinds[number % len(kinds)]
            call = chance.choice(choices)
            when = call.number
            if path:  # numbered among the calls on that path
                alike = [one for one in calls if one.name == call.name and f"{path}>" in one.text]
                when = 1 + alike.index(call)
            yield Fault(
                kind,
                call.name,
                when,
                error,
                path,
                lasting=bool(error) and call.name != "read" and chance.random() < 0.5,
            )

    # One round

    def _round(self, number: int, fault: Fault) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        row = self.kinds.setdefault(fault.kind, Kind())
        row.tried += 1
        with self._home(f"round-{number}") as home:
            files = self._drop(home, chance)
            hostile = chance.random() < 0.5
            struck = self._strike(home, fault, hostile=hostile)
            if chance.random() < 0.3:  # and again, while what the first one left is put right
                again = replace(fault, when=max(1, fault.when - chance.randint(0, 20)))
                struck |= self._strike(home, again, hostile=hostile)
            row.struck += struck
            stuck = self._recover(home)
            found = damage(home, files) if not stuck else Damage([stuck], [])
            row.lost += len(found.lost)
            row.twice += len(found.twice)
            if found:
                what = "\n    ".join([*found.lost[:5], *found.twice[:5]])
                row.broken.append(f"round {number} (seed {self.seed}): {fault}\n    {what}")
                self.keep(home)
        shutil.rmtree(home.path, ignore_errors=True)

    def keep(self, home: Home) -> None:
        """Keep what a broken round left, to be looked at."""
        shutil.copytree(home.path, self.folder / f"broken-{home.path.name}", symlinks=True)

    def _strike(self, home: Home, fault: Fault, *, hostile: bool) -> bool:
        """Run the daemon under the fault, perhaps beside a hostile sender; tell whether it met the fault."""
        trace = home.path / "strace.out"
        beside = swapping(home.inbox / "sub", home.processed / "sub") if hostile else nullcontext()
        with beside:
            code = self._drain(home, ["-o", str(trace), *fault.options(home)])
        return code == -signal.SIGKILL or "(INJECTED)" in trace.read_text("utf-8", "replace")

    def _recover(self, home: Home) -> str:
        """Run the daemon undisturbed until nothing is left to do; return why that never was, or ``""``."""
        for _ in range(STARTS_AGAIN):
            done = home.call("run", "--once")
            if done.returncode not in {0, 1}:
                return f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"
            if not files_in(home.inbox):
                return ""
        return f"still in the inbox: {sorted(map(str, home.inbox.rglob('*')))}"

    def _drain(self, home: Home, options: list[str]) -> int:
        with (home.path / "daemon.out").open("ab") as output:
            process = subprocess.Popen(
                ["strace", "-f", "-qq", *options, *self.command, "run", "--once"],
                cwd=home.path,
                env=home.environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                return process.wait(STUCK_AFTER_S)
            except subprocess.TimeoutExpired:  # the fault that lasts holds it: a crash then
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return 0

    def _home(self, name: str) -> Home:
        return Home(self.folder / name, CONFIG, command=self.command)

    @staticmethod
    def _drop(home: Home, chance: random.Random) -> dict[str, bytes]:
        files = scenario(chance)
        for age, (name, content) in enumerate(files.items()):
            home.drop(name, content)
            os.utime(home.inbox / name, (1_760_000_000 + age, 1_760_000_000 + age))
        return files


def _parsed(trace: str, place: str) -> Iterator[Call]:
    """Yield the calls that have to do with the home's files, one thread's after another's.

    So does strace count them, and how they lie between each other's is another way each time.
    """
    counts: Counter[tuple[str, str]] = Counter()
    found = re.findall(r"^(\d+) +(\w+)\((.*)", trace, re.MULTILINE)
    threads = list(dict.fromkeys(thread for thread, _, _ in found))
    for thread, name, text in sorted(found, key=lambda call: threads.index(call[0])):
        counts[thread, name] += 1
        if place in text:
            yield Call(name, counts[thread, name], text)


def _kinds(calls: list[Call]) -> Iterator[tuple[str, list[Call], str, str]]:
    """Yield the table's rows, each with the calls to choose from, the error and the path."""
    for kind, names in KILLED_AT.items():
        yield f"killed at {kind}", [call for call in calls if call.name in names], "", ""
    writing = (*KILLED_AT["write"], *KILLED_AT["sync"])
    for error in ("ENOSPC", "EIO"):
        for what, path in (("database", "data/inboxd.db"), ("WAL", "data/inboxd.db-wal")):
            on_it = [call for call in calls if f"{path}>" in call.text and call.name in writing]
            yield f"{error} on the {what}", on_it, error, path
        moves = [
            call for call in calls if call.name in MOVES and re.search(r"/(inbox|processed|failed)[/>]", call.text)
        ]
        yield f"{error} on the moves", moves, error, ""
    reads = [call for call in calls if call.name == "read" and "/inbox/" in call.text]
    yield "EIO on the file itself", reads, "EIO", ""


def table(kinds: dict[str, Kind], seed: int) -> str:
    """Return the result as a Markdown table."""
    lines = ["| fault | tried | struck | survived | lost | twice |", "|---|--:|--:|--:|--:|--:|"]
    lines += [
        f"| {name} | {row.tried} | {row.struck} | {row.survived} | {row.lost} | {row.twice} |"
        for name, row in kinds.items()
    ]
    rows = kinds.values()
    sums = (
        sum(values) for values in zip(*((r.tried, r.struck, r.survived, r.lost, r.twice) for r in rows), strict=True)
    )
    lines.append(f"| **all, seed {seed}** | " + " | ".join(f"**{value}**" for value in sums) + " |")
    return "\n".join(lines)


def broken(kinds: dict[str, Kind]) -> list[str]:
    """Return what did not survive, in words."""
    return [text for row in kinds.values() for text in row.broken]


def main(arguments: Iterable[str]) -> int:
    """Torture, print the table; returns the exit code: 1 if anything was lost or done twice."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="the same rounds again")
    parser.add_argument(
        "--rounds", type=int, default=DEFAULT_ROUNDS, help=f"how many faults (default {DEFAULT_ROUNDS})"
    )
    options = parser.parse_args(list(arguments))
    if shutil.which("strace") is None:
        click.echo("torture: needs strace (apt-get install strace)", err=True)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="inboxd-torture-"))
    kinds = Torturer(folder.resolve(), options.seed).run(options.rounds)
    click.echo(table(kinds, options.seed))
    found = broken(kinds)
    if found:
        click.echo("\n".join(["", *found, "", f"what these rounds left is in {folder}"]))
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
