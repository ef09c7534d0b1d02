"""The states in which a power cut may leave a disk, worked out from a record of what was done to it.

Two disks are thought of. A *journalling* one keeps the changes of folders in their order, and a sync of anything brings
all of them so far; what was written to files and not synced may be there or not. A *strict* one keeps no more than
POSIX promises: of whatever was not synced itself, any part may be there, and of a rename one half, if only one of its
folders was synced. On both a write may be torn at 512 bytes. The method is that of ALICE (Pillai et al., "All File
Systems Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Final

from disk_record import Create, Disk, Link, Operation, Record, Rename, Sync, Truncate, Unlink, Write

SECTOR: Final = 512
ALONE: Final = 10
"""Of so many of the last operations that were not synced, each is lost alone, and each is kept alone."""
BY_CHANCE: Final = 3
"""So many further combinations are drawn at each point."""
MOMENTS: Final = 12
"""At so many points it is tried whether a sync may be left out."""
FEW: Final = 3
"""So many syncs of one kind are tried in turn."""
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
        return hash((kept, self.torn, self.arrived - kept, self.left))

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
                if operation.to_folder not in disk.folders and number in self.left:
                    disk.apply(Unlink(operation.folder, operation.name))  # where it went nothing leads to
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
    _syncs: list[int] = field(default_factory=list)
    """Those that are done."""
    _synced: list[dict[int, int]] = field(default_factory=list)
    """Of each operation: which sync, by its number, made it durable in which node."""

    def __post_init__(self) -> None:
        """Work out what each sync made durable, once."""
        operations = self.record.operations
        places = [_places(operation) for operation in operations]
        self._synced = [{} for _ in operations]
        for at, sync in enumerate(operations):
            if isinstance(sync, Sync) and at not in self.without:
                self._syncs.append(at)
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

    def telling(self) -> Iterator[State]:
        """Yield states that only the lack of ``without`` makes possible, of a few of those syncs at a time in turn."""
        chance = random.Random(self.seed)
        syncs = chance.sample(sorted(self.without), len(self.without))
        turns = [self._without(number, chance) for number in syncs]
        for start in range(0, len(turns), FEW):
            for state in chain.from_iterable(zip_longest(*turns[start : start + FEW])):
                if state is not None and state.mark not in self._seen:
                    self._seen.add(state.mark)
                    yield state

    def _without(self, number: int, chance: random.Random) -> Iterator[State]:
        """Yield the states that the lack of one sync makes possible, as long as what it is of has a name.

        What others do relies on it: that is done, and durable, soon after the sync, or just before something else makes
        durable what it does, or that is gone, or when the program ends. So such moments are chosen, before and after
        other syncs, from both ends.
        """
        sync = self.record.operations[number]
        assert isinstance(sync, Sync)
        end = self.record.gone.get(sync.node, len(self.record.operations))
        until = {
            change: min(durable_from, end)
            for change in range(sync.before)
            if sync.node in self._places[change] and (durable_from := self._synced[change].get(sync.node, end)) > number
        }
        last = max(until.values(), default=number)
        others = [at for at in self._syncs if number < at < last]
        ended = [at for at in self.record.ended if number < at < last]
        points = chain.from_iterable(zip_longest(others, [last, *reversed(others)], ended))
        for point in islice(dict.fromkeys(one for one in points if one is not None), MOMENTS):
            lost = [change for change, durable_from in until.items() if durable_from >= point]
            yield from self._lacking(point, lost, chance)
            if point < last:
                yield from self._lacking(point + 1, lost, None)

    def _lacking(self, point: int, lost: Sequence[int], chance: random.Random | None) -> Iterator[State]:
        """Yield states without some changes, or the last of them: all else is there, or nothing that is not durable."""
        durable, pending, arrived, left = self._at(point)
        for kept in (set(pending) - set(lost), set(pending) - {*lost[-1:]}, set[int]()):
            yield State("strict", point, durable, frozenset(kept), None, arrived, left)
            if chance is not None and (torn := self._tear(kept, chance)):
                yield State("strict", point, durable, frozenset(kept), torn, arrived, left)

    def _strict(self, point: int, chance: random.Random) -> Iterator[State]:
        durable, pending, arrived, left = self._at(point)
        for kept in _choices(pending, chance):
            yield State("strict", point, durable, frozenset(kept), None, arrived, left)
            if torn := self._tear(kept, chance):
                yield State("strict", point, durable, frozenset(kept), torn, arrived, left)

    def _at(self, point: int) -> tuple[frozenset[int], list[int], frozenset[int], frozenset[int]]:
        """Return what is durable at a point, what is not, and of which renames one half is."""
        operations = self.record.operations
        of_disk = [number for number in range(point) if self._places[number]]
        durable = frozenset(number for number in of_disk if self._is_durable(number, point))
        pending = [number for number in of_disk if number not in durable]
        renames = {number: op for number in of_disk if isinstance(op := operations[number], Rename)}
        half = {number: {node for node, at in self._synced[number].items() if at < point} for number in renames}
        arrived = frozenset(number for number, op in renames.items() if op.to_folder in half[number]) - durable
        left = frozenset(number for number, op in renames.items() if op.folder in half[number])
        return durable, pending, arrived, left

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


def mark_of(disk: Disk, mtimes: dict[int, int]) -> bytes:
    """Return what is equal for trees that ``make`` lays out alike."""
    found, placed = hashlib.blake2b(digest_size=16), dict[int, int]()
    for path, node in sorted(disk.walk()):
        about = (path, placed.setdefault(node, len(placed)), disk.modes.get(node), mtimes.get(node))
        found.update(repr(about).encode())
        if node in disk.files and not path.endswith(VOLATILE):
            found.update(hashlib.blake2b(disk.files[node], digest_size=16).digest())
    return found.digest()


def make(disk: Disk, place: Path, mtimes: dict[int, int], made: Callable[[Path], None]) -> None:
    """Lay a tree out in a new folder, files with the times they had before; ``made`` is told of each new folder."""
    place.mkdir(parents=True)
    placed: dict[int, Path] = {}
    for path, node in disk.walk():
        target = place / path
        if node in placed:
            target.hardlink_to(placed[node])
        elif node in disk.folders:
            target.mkdir()
            target.chmod(disk.modes.get(node, 0o755) & 0o7777 or 0o755)
            made(target)
        elif not path.endswith(VOLATILE):
            placed[node] = target
            target.write_bytes(disk.files.get(node, b""))
            target.chmod(disk.modes.get(node, 0o644) & 0o666 | 0o200)
            if node in mtimes:
                os.utime(target, ns=(mtimes[node], mtimes[node]))
