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
    durable: frozenset[int]
    """What is on it for certain, shared by the states of a point."""
    chosen: frozenset[int]
    """What happens to be on it, too."""
    torn: tuple[int, int, int] | None = None
    """A write of which only the bytes from … to … are on the disk."""
    arrived: frozenset[int] = frozenset()
    """Renames of which the new entry is durable, whatever became of the old one."""
    left: frozenset[int] = frozenset()
    """Renames of which the removal of the old entry is durable, whatever became of the new one."""

    @property
    def kept(self) -> frozenset[int]:
        """All that is on it."""
        return self.durable | self.chosen

    @property
    def mark(self) -> int:
        """Equal for states that are the same: 64 bits, for there are many of a thousand operations each."""
        kept = self.kept
        return hash((kept, self.torn, self.arrived - kept, self.left - kept))

    def disk(self, record: Record) -> Disk:
        """Return the tree."""
        disk, kept = record.before.copy(), self.kept
        for number, operation in enumerate(record.operations[: self.point]):
            if number not in kept:
                self._half(disk, record, number, operation)
                continue
            if self.torn is not None and self.torn[0] == number and isinstance(operation, Write):
                _, start, end = self.torn
                operation = Write(operation.node, operation.offset + start, operation.data[start:end])  # noqa: PLW2901 - the part of it that is there
            disk.apply(operation)
            if isinstance(operation, Rename):
                self._arrive(disk, record, number, operation)
        return disk

    def _half(self, disk: Disk, record: Record, number: int, operation: Operation) -> None:
        """Do what is durable of a rename that is not kept whole."""
        if isinstance(operation, Rename) and number in self.arrived:
            self._arrive(disk, record, number, operation)
        elif isinstance(operation, Rename) and number in self.left:
            disk.apply(Unlink(operation.folder, operation.name))

    @staticmethod
    def _arrive(disk: Disk, record: Record, number: int, operation: Rename) -> None:
        """Let the new entry lead to the file, whatever became of the one that it had before."""
        node = record.renamed.get(number)
        if node is not None and (node in disk.files or node in disk.folders) and operation.to_folder in disk.folders:
            disk.apply(Link(operation.to_folder, operation.to_name, node))

    def __str__(self) -> str:
        torn = f", operation {self.torn[0]} torn" if self.torn else ""
        return f"{self.kind}, after operation {self.point}{torn}"


@dataclass
class States:
    """All the states of a record; ``without`` are syncs that are taken for not done."""

    record: Record
    seed: int = 0
    without: frozenset[int] = frozenset()
    _seen: set[int] = field(default_factory=set)
    _places: list[set[int]] = field(default_factory=list)
    _synced: list[dict[int, int]] = field(default_factory=list)
    """Of each operation: which sync, by its number, made it durable in which node."""

    def __post_init__(self) -> None:
        """Work out what each sync made durable, once."""
        operations = self.record.operations
        places = [_places(operation) for operation in operations]
        self._synced = [{} for _ in operations]
        for at, sync in enumerate(operations):
            if isinstance(sync, Sync) and at not in self.without:
                for number in range(sync.before):
                    if sync.node in places[number]:
                        self._synced[number].setdefault(sync.node, at)
        self._places = places

    def __iter__(self) -> Iterator[State]:
        """Yield states that differ from all before."""
        chance = random.Random(self.seed)
        for point in range(len(self.record.operations) + 1):
            for state in (*self._strict(point, chance), *self._journalling(point, chance)):
                mark = state.mark
                if mark not in self._seen:
                    self._seen.add(mark)
                    yield state

    def _is_durable(self, number: int, point: int) -> bool:
        synced = self._synced[number]
        return all(synced.get(node, point) < point for node in self._places[number])

    def _strict(self, point: int, chance: random.Random) -> Iterator[State]:
        operations = self.record.operations
        of_disk = [number for number in range(point) if self._places[number]]
        durable = frozenset(number for number in of_disk if self._is_durable(number, point))
        pending = [number for number in of_disk if number not in durable]
        renames = {number: op for number in pending if isinstance(op := operations[number], Rename)}
        half = {number: {node for node, at in self._synced[number].items() if at < point} for number in renames}
        arrived = frozenset(number for number, op in renames.items() if op.to_folder in half[number])
        left = frozenset(number for number, op in renames.items() if op.folder in half[number])
        for kept in _choices(pending, chance):
            yield State("strict", point, durable, frozenset(kept), None, arrived, left)
            if torn := self._tear(kept, chance):
                yield State("strict", point, durable, frozenset(kept), torn, arrived, left)

    def _journalling(self, point: int, chance: random.Random) -> Iterator[State]:
        operations = self.record.operations
        syncs = [op for at, op in enumerate(operations[:point]) if isinstance(op, Sync) and at not in self.without]
        journal = max((sync.before for sync in syncs), default=0)
        changes = [number for number in range(point) if isinstance(operations[number], Create | Link | Unlink | Rename)]
        ahead = [number for number in changes if number >= journal]
        written = [number for number in range(point) if isinstance(operations[number], Write | Truncate)]
        durable = {number for number in written if self._is_durable(number, point)}
        lost = [number for number in written if number not in durable]
        for length in sorted({0, len(ahead), chance.randint(0, len(ahead))}):
            base = frozenset(durable | set(changes[: len(changes) - len(ahead) + length]))
            for kept in (set(), set(lost), {number for number in lost if chance.random() < 0.5}):
                yield State("journalling", point, base, frozenset(kept))

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
