"""The states in which a power cut may leave a disk, worked out from a record of what was done to it.

Two disks are thought of. A *journalling* one keeps the changes of folders in their order, and a sync of anything brings
all of them so far; what was written to files and not synced may be there or not. A *strict* one keeps no more than
POSIX promises: of whatever was not synced itself, any part may be there, and of a rename one half, if only one of its
folders was synced. On both a write may be torn at 512 bytes. The method is that of ALICE (Pillai et al., "All File
Systems Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from disk_record import Create, Disk, Link, Operation, Record, Rename, Sync, Truncate, Unlink, Write

SECTOR: Final = 512
ALONE: Final = 10
"""Of so many of the last operations that were not synced, each is lost alone, and each is kept alone."""
BY_CHANCE: Final = 3
"""So many further combinations are drawn at each point."""
VOLATILE: Final = ("-shm",)
"""Ends of names whose content lives in shared memory and is made anew, whatever it is."""


@dataclass(frozen=True, slots=True)
class State:
    """One disk that a cut may leave: the cut comes after ``point`` operations, ``kept`` of which are on it."""

    kind: str
    point: int
    kept: frozenset[int]
    torn: tuple[int, int, int] | None = None
    """A write of which only the bytes from … to … are on the disk."""
    arrived: frozenset[int] = frozenset()
    """Renames of which the new entry is durable, whatever became of the old one."""
    left: frozenset[int] = frozenset()
    """Renames of which the removal of the old entry is durable, whatever became of the new one."""

    @property
    def mark(self) -> object:
        """Equal for states that are the same."""
        return self.kept, self.torn, self.arrived - self.kept, self.left - self.kept

    def disk(self, record: Record) -> Disk:
        """Return the tree."""
        disk = record.before.copy()
        for number, operation in enumerate(record.operations[: self.point]):
            if number not in self.kept:
                self._half(disk, number, operation)
                continue
            if self.torn is not None and self.torn[0] == number and isinstance(operation, Write):
                _, start, end = self.torn
                operation = Write(operation.node, operation.offset + start, operation.data[start:end])  # noqa: PLW2901 - the part of it that is there
            disk.apply(operation)
        return disk

    def _half(self, disk: Disk, number: int, operation: Operation) -> None:
        """Do what is durable of a rename that is not kept whole."""
        if isinstance(operation, Rename) and number in self.arrived:
            node = disk.folders.get(operation.folder, {}).get(operation.name)
            if node is not None:
                disk.apply(Link(operation.to_folder, operation.to_name, node))
        elif isinstance(operation, Rename) and number in self.left:
            disk.apply(Unlink(operation.folder, operation.name))

    def __str__(self) -> str:
        torn = f", operation {self.torn[0]} torn" if self.torn else ""
        return f"{self.kind}, after operation {self.point}{torn}"


@dataclass
class States:
    """All the states of a record; ``without`` are syncs that are taken for not done."""

    record: Record
    seed: int = 0
    without: frozenset[int] = frozenset()
    _seen: set[object] = field(default_factory=set)

    def __iter__(self) -> Iterator[State]:
        """Yield states that differ from all before."""
        chance = random.Random(self.seed)
        for point in range(len(self.record.operations) + 1):
            for state in (*self._strict(point, chance), *self._journalling(point, chance)):
                if state.mark not in self._seen:
                    self._seen.add(state.mark)
                    yield state

    def _syncs(self, point: int) -> Iterator[Sync]:
        for number, operation in enumerate(self.record.operations[:point]):
            if isinstance(operation, Sync) and number not in self.without:
                yield operation

    def _strict(self, point: int, chance: random.Random) -> Iterator[State]:
        operations = self.record.operations
        durable = set()
        synced: dict[int, set[int]] = {}
        for sync in self._syncs(point):
            for number in range(sync.before):
                places = _places(operations[number])
                if sync.node in places:
                    synced.setdefault(number, set()).add(sync.node)
                    if synced[number] == places:
                        durable.add(number)
        pending = [number for number in range(point) if number not in durable and _places(operations[number])]
        renames = {number: op for number in pending if isinstance(op := operations[number], Rename)}
        arrived = frozenset(number for number, op in renames.items() if op.to_folder in synced.get(number, ()))
        left = frozenset(number for number, op in renames.items() if op.folder in synced.get(number, ()))
        for kept in _choices(pending, chance):
            yield State("strict", point, frozenset(durable | kept), None, arrived, left)
            if torn := self._tear(kept, chance):
                yield State("strict", point, frozenset(durable | kept), torn, arrived, left)

    def _journalling(self, point: int, chance: random.Random) -> Iterator[State]:
        operations = self.record.operations
        syncs = list(self._syncs(point))
        journal = max((sync.before for sync in syncs), default=0)
        changes = [number for number in range(point) if isinstance(operations[number], Create | Link | Unlink | Rename)]
        ahead = [number for number in changes if number >= journal]
        written = [number for number in range(point) if isinstance(operations[number], Write | Truncate)]
        durable = {
            number
            for number in written
            if any(n.node in _places(operations[number]) and number < n.before for n in syncs)
        }
        lost = [number for number in written if number not in durable]
        for length in sorted({0, len(ahead), chance.randint(0, len(ahead))}):
            base = durable | set(changes[: len(changes) - len(ahead) + length])
            for kept in (set(), set(lost), {number for number in lost if chance.random() < 0.5}):
                yield State("journalling", point, frozenset(base | kept))

    def _tear(self, kept: set[int], chance: random.Random) -> tuple[int, int, int] | None:
        """Tear the last write that was kept without a sync, at a sector: its head or its tail is there."""
        for number in sorted(kept, reverse=True):
            operation = self.record.operations[number]
            if isinstance(operation, Write) and len(operation.data) > SECTOR:
                cut = SECTOR * chance.randrange(1, (len(operation.data) - 1) // SECTOR + 1)
                return (number, 0, cut) if chance.random() < 0.5 else (number, cut, len(operation.data))
        return None


def _choices(pending: Sequence[int], chance: random.Random) -> Iterator[set[int]]:
    """Yield subsets: none, all, each of the last alone lost and alone kept, and some by chance."""
    every = set(pending)
    yield set()
    yield every
    for number in pending[-ALONE:]:
        yield every - {number}
        yield {number}
    for _ in range(BY_CHANCE):
        yield {number for number in pending if chance.random() < 0.5}


def _places(operation: Operation) -> set[int]:
    """Return the nodes that must be synced for an operation to last."""
    if isinstance(operation, Write | Truncate):
        return {operation.node}
    if isinstance(operation, Rename):
        return {operation.folder, operation.to_folder}
    return set() if isinstance(operation, Sync) else {operation.folder}


def make(disk: Disk, place: Path, mtimes: dict[int, int], made: Callable[[Path], None]) -> None:
    """Lay a tree out in a new folder, files with the times they had before; ``made`` is told of each new folder."""
    place.mkdir(parents=True)
    for path, node in disk.walk():
        target = place / path
        if node in disk.folders:
            target.mkdir()
            target.chmod(disk.modes.get(node, 0o755) & 0o7777 or 0o755)
            made(target)
        elif not path.endswith(VOLATILE):
            target.write_bytes(disk.files.get(node, b""))
            target.chmod(disk.modes.get(node, 0o644) & 0o666 | 0o200)
            if node in mtimes:
                os.utime(target, ns=(mtimes[node], mtimes[node]))
