"""What a program does to the disk, call by call: every write with its data, every change of a folder, every sync.

The record is made by strace and told in terms of nodes (a file or folder keeps its number through renames), so that the
same operations can be applied again, or only some of them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from marked_syncs import sitecustomize

TRACED: Final = (
    *("open", "openat", "creat", "close", "dup", "dup2", "dup3", "fcntl"),
    *("write", "pwrite64", "writev", "pwritev", "lseek", "ftruncate", "truncate", "fallocate"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir"),
    *("mkdir", "mkdirat", "fsync", "fdatasync", "sync", "syncfs", "chdir", "fchdir", "sendfile", "copy_file_range"),
    *("access", "faccessat", "faccessat2"),
)
ROOT: Final = 0


@dataclass(frozen=True, slots=True)
class Create:
    """A new entry of a folder that leads to a new, empty file or folder."""

    folder: int
    name: str
    node: int
    is_folder: bool
    mode: int


@dataclass(frozen=True, slots=True)
class Link:
    """A further entry for a file."""

    folder: int
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class Unlink:
    """An entry is taken out."""

    folder: int
    name: str


@dataclass(frozen=True, slots=True)
class Rename:
    """An entry moves, at once; what had its new name is gone."""

    folder: int
    name: str
    to_folder: int
    to_name: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at an offset of a file."""

    node: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file gets another size."""

    node: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """What the first ``before`` operations did to a node is on the disk from here on."""

    node: int
    before: int
    place: str = ""
    """Where in the program's code it is asked for; nothing if it is SQLite that does."""


Change = Create | Link | Unlink | Rename
Data = Write | Truncate
Operation = Change | Data | Sync


@dataclass(slots=True)
class Disk:
    """A tree of files at one moment."""

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    files: dict[int, bytearray] = field(default_factory=dict)
    modes: dict[int, int] = field(default_factory=dict)

    def copy(self) -> Self:
        """Return a disk that can be changed without this one."""
        return type(self)(
            {number: dict(entries) for number, entries in self.folders.items()},
            {number: bytearray(data) for number, data in self.files.items()},
            dict(self.modes),
        )

    def apply(self, operation: Operation) -> None:
        """Do what was done, as far as what it was done to is there: an earlier change may be lost."""
        if isinstance(operation, Create):
            self._create(operation)
        elif isinstance(operation, Link):
            self.folders.get(operation.folder, {})[operation.name] = operation.node
        elif isinstance(operation, Unlink):
            self.folders.get(operation.folder, {}).pop(operation.name, None)
        elif isinstance(operation, Rename):
            node = self.folders.get(operation.folder, {}).get(operation.name)
            if node is not None and operation.to_folder in self.folders:
                del self.folders[operation.folder][operation.name]
                self.folders[operation.to_folder][operation.to_name] = node
        elif isinstance(operation, Write):
            self._write(operation.node, operation.offset, operation.data)
        elif isinstance(operation, Truncate):
            data = self.files.setdefault(operation.node, bytearray())
            del data[operation.size :]
            data.extend(bytes(operation.size - len(data)))

    def _create(self, operation: Create) -> None:
        if operation.folder in self.folders:
            self.folders[operation.folder][operation.name] = operation.node
        elif operation.is_folder:
            return  # nothing is brought into a folder that is not there itself
        self.modes[operation.node] = operation.mode
        if operation.is_folder:
            self.folders.setdefault(operation.node, {})
        else:
            self.files.setdefault(operation.node, bytearray())

    def _write(self, node: int, offset: int, what: bytes) -> None:
        data = self.files.setdefault(node, bytearray())
        data.extend(bytes(max(0, offset - len(data))))
        data[offset : offset + len(what)] = what

    def walk(self, folder: int = ROOT, above: str = "") -> Iterator[tuple[str, int]]:
        """Yield every path, folders before what is in them, with its node."""
        for name, node in sorted(self.folders[folder].items()):
            yield above + name, node
            if node in self.folders:
                yield from self.walk(node, f"{above}{name}/")


@dataclass
class Record:
    """A tree, and all that was done to it."""

    place: Path
    before: Disk = field(default_factory=Disk)
    operations: list[Operation] = field(default_factory=list)
    mtimes: dict[int, int] = field(default_factory=dict)
    """Of what was there before, in nanoseconds: the order in which files are taken."""
    renamed: dict[int, int] = field(default_factory=dict)
    """The nodes that were renamed, by the numbers of the operations."""
    ended: list[int] = field(default_factory=list)
    """After how many operations a command had ended."""
    gone: dict[int, int] = field(default_factory=dict)
    """After how many operations a node has no name any more."""
    _names: Counter[int] = field(default_factory=Counter)
    _now: Disk = field(default_factory=Disk)
    _next: int = 1

    def __post_init__(self) -> None:
        """Take the tree as it lies for the beginning, all of it durable."""
        self._take(self.place, ROOT)
        self._now = self.before.copy()

    def _take(self, path: Path, folder: int) -> None:
        for entry in sorted(path.iterdir()):
            number, self._next = self._next, self._next + 1
            self.before.folders[folder][entry.name] = number
            self.mtimes[number] = entry.stat().st_mtime_ns
            self.before.modes[number] = entry.stat().st_mode & 0o7777
            if entry.is_dir():
                self.before.folders[number] = {}
                self._take(entry, number)
            else:
                self.before.files[number] = bytearray(entry.read_bytes())

    def unsynced(self, paths: Sequence[str]) -> dict[str, int]:
        """Take the content of files for written, but not synced; return their nodes by path."""
        nodes = dict(self.before.walk())
        for path in paths:
            data, self.before.files[nodes[path]] = self.before.files[nodes[path]], bytearray()
            self.operations.append(Write(nodes[path], 0, bytes(data)))
        return {path: nodes[path] for path in paths}

    def run(self, command: Sequence[str], env: Mapping[str, str]) -> int:
        """Run a command below ``place`` and add what it does; returns its exit code."""
        trace = self.place.parent / f"{self.place.name}.strace"
        how = ["strace", "-f", "-qq", "-xx", "-s", str(64 << 20), "-o", str(trace), "--seccomp-bpf"]
        how += ["-e", "trace=" + ",".join(f"?{name}" for name in TRACED)]
        # Its module is found first there, so that Python runs it, and it names what asks for each sync.
        path = f"{Path(sitecustomize.__file__).parent}:{env.get('PYTHONPATH', '')}"
        marked = {**env, "PYTHONPATH": path, sitecustomize.ASKED: "1"}
        done = subprocess.run([*how, *command], cwd=self.place, env=marked, check=False, capture_output=True)
        with trace.open(encoding="ascii") as lines:
            Reader(self).read(lines)
        trace.unlink()
        self.check()
        self.ended.append(len(self.operations))
        return done.returncode

    def do(self, operation: Operation) -> None:
        """Note an operation, and apply it."""
        if isinstance(operation, Create | Link):
            self._names[operation.node] += 1
        elif isinstance(operation, Rename | Unlink):
            node = self._now.folders.get(operation.folder, {}).get(operation.name)
            if node is not None and isinstance(operation, Rename):
                self.renamed[len(self.operations)] = node
            elif node is not None:
                self._names[node] -= 1
                if self._names[node] <= 0:
                    self.gone[node] = len(self.operations) + 1
        self._now.apply(operation)
        self.operations.append(operation)

    def create(self, folder: int, name: str, mode: int, *, is_folder: bool) -> int:
        """Note a new file or folder; return its node."""
        number, self._next = self._next, self._next + 1
        self.do(Create(folder, name, number, is_folder, mode))
        return number

    def check(self) -> None:
        """Refuse a record that does not lead to the tree that is there: then something was not seen."""
        if differences := self.differences():
            message = f"the record is wrong on {differences}"
            raise AssertionError(message)

    def differences(self) -> list[str]:
        """Return the paths on which the record and the tree that is there differ, memory that is shared left out."""
        recorded = {path: node for path, node in self._now.walk() if not path.endswith("-shm")}
        there = {str(path.relative_to(self.place)) for path in self.place.rglob("*") if not path.name.endswith("-shm")}
        differ = [
            path
            for path in there & recorded.keys()
            if recorded[path] in self._now.files and (self.place / path).read_bytes() != self._now.files[recorded[path]]
        ]
        return sorted([*differ, *(there ^ recorded.keys())])

    @property
    def now(self) -> Disk:
        """The tree as it is after all operations."""
        return self._now


@dataclass
class Handle:
    """An open file: the node, where the next ``write`` goes, and whether it always goes to the end."""

    node: int
    position: int = 0
    append: bool = False


_LINE: Final = re.compile(r"(\d+) +(.*)")
_WHOLE: Final = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
_BEGUN: Final = re.compile(r"(\w+)\((.*)(?: <unfinished \.\.\.>|\) += \?)")
_ENDED: Final = re.compile(r"<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class Reader:
    """Reads strace's lines and notes what they did to the record's tree. One process, of any number of threads."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._place = os.fspath(record.place)
        self._handles: dict[int, Handle] = {}
        self._folder = self._place
        self._begun: dict[str, tuple[str, str, int]] = {}
        self._marks: dict[str, str] = {}
        """By thread: the place in the code of the sync that comes next."""

    def read(self, lines: Iterator[str]) -> None:  # noqa: C901 - one branch a form of line
        """Take every line in the order in which the calls returned."""
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            thread, text = found[1], found[2]
            if begun := _BEGUN.match(text):
                self._begun[thread] = (begun[1], begun[2], len(self._record.operations))
                if begun[1] == "close":  # its number may be another thread's before it returns
                    self._handles.pop(int(begun[2]), None)
                continue
            start = len(self._record.operations)
            if ended := _ENDED.match(text):
                name, head, start = self._begun.pop(thread)
                arguments, result = head + ended[2], int(ended[3])
                if name == "close":
                    continue
            elif whole := _WHOLE.match(text):
                name, arguments, result = whole[1], whole[2], int(whole[3])
            else:
                continue
            if name in {"fsync", "fdatasync"}:
                self._sync(int(arguments), self._marks.pop(thread, ""), start, done=result >= 0)
            elif name in {"access", "faccessat", "faccessat2"}:
                self._marks[thread] = _text(arguments).partition(sitecustomize.MARK)[2]
            elif result >= 0:
                self._call(name, _arguments(arguments), result)
        self._unanswered()

    def _unanswered(self) -> None:
        """Do what other threads were at when the process was killed, as far as the tree shows that it was done."""
        for name, arguments, _ in self._begun.values():
            if self._record.differences():
                self._call(name, _arguments(arguments), sys.maxsize)

    def _sync(self, number: int, place: str, start: int, *, done: bool) -> None:
        if done and number in self._handles:
            self._record.do(Sync(self._handles[number].node, start, place))

    def _call(self, name: str, given: list[str], result: int) -> None:  # noqa: C901, PLR0912 - one branch a call
        if name in {"open", "openat", "creat"}:
            self._open(given if name == "openat" else ["AT_FDCWD", *given], result)
        elif name == "close":
            self._handles.pop(int(given[0]), None)
        elif name in {"dup", "dup2", "dup3"} or (name == "fcntl" and given[1].startswith("F_DUPFD")):
            self._duplicate(int(given[0]), result)
        elif name in {"write", "writev"}:
            self._write(int(given[0]), b"".join(map(_bytes, _TEXT.findall(given[1])))[:result], None)
        elif name in {"pwrite64", "pwritev"}:
            self._write(int(given[0]), b"".join(map(_bytes, _TEXT.findall(given[1])))[:result], int(given[-1]))
        elif name == "lseek" and int(given[0]) in self._handles:
            self._handles[int(given[0])].position = result
        elif name in {"ftruncate", "fallocate"}:
            self._resize(int(given[0]), given, grow=name == "fallocate")
        elif name in {"sendfile", "copy_file_range"}:
            self._copy(name, given, result)
        elif name in {"chdir", "fchdir"}:
            self._folder = os.path.join(self._folder, _text(given[0])) if name == "chdir" else self._folder
        elif name.startswith("rename"):
            self._rename(given if len(given) > 2 else ["AT_FDCWD", given[0], "AT_FDCWD", given[1]])
        elif name.startswith("link"):
            self._link(given if len(given) > 2 else ["AT_FDCWD", given[0], "AT_FDCWD", given[1]])
        elif name in {"unlink", "rmdir"}:
            self._unlink("AT_FDCWD", given[0])
        elif name == "unlinkat":
            self._unlink(given[0], given[1])
        elif name in {"mkdir", "mkdirat"}:
            at, path, mode = given if name == "mkdirat" else ["AT_FDCWD", *given]
            if (spot := self._spot(at, path)) is not None:
                self._record.create(*spot, int(mode, 8), is_folder=True)
        elif name in {"sync", "syncfs", "truncate", "symlink", "symlinkat"}:
            message = f"{name} is not known to the record"
            raise AssertionError(message)

    def _spot(self, at: str, path: str) -> tuple[int, str] | None:
        """Return the folder and the name that a path leads to; ``None`` outside of the tree."""
        name = _text(path)
        if at != "AT_FDCWD" and not name.startswith("/"):
            handle = self._handles.get(int(at))
            folder: int | None = handle.node if handle else None
            parts = name.split("/")
        else:
            whole = os.path.normpath(os.path.join(self._folder, name))
            if not whole.startswith(self._place + "/"):
                return None
            folder, parts = ROOT, whole[len(self._place) + 1 :].split("/")
        for part in parts[:-1]:
            if part not in {"", "."} and folder is not None:
                folder = self._record.now.folders.get(folder, {}).get(part)
        return None if folder is None or folder not in self._record.now.folders else (folder, parts[-1])

    def _node(self, at: str, path: str) -> int | None:
        if found := re.fullmatch(r"/proc/self/fd/(\d+)", _text(path)):
            handle = self._handles.get(int(found[1]))
            return handle.node if handle else None
        if os.path.normpath(os.path.join(self._folder, _text(path))) == self._place and at == "AT_FDCWD":
            return ROOT
        spot = self._spot(at, path)
        if spot is None:
            return None
        folder, name = spot
        return folder if name in {"", "."} else self._record.now.folders[folder].get(name)

    def _open(self, given: list[str], result: int) -> None:
        at, path, flags = given[0], given[1], given[2] if len(given) > 2 else "O_CREAT|O_WRONLY|O_TRUNC"
        self._handles.pop(result, None)
        if "O_TMPFILE" in flags:
            return
        node = self._node(at, path)
        if node is None and "O_CREAT" in flags and (spot := self._spot(at, path)) is not None:
            node = self._record.create(*spot, int(given[3], 8) if len(given) > 3 else 0o644, is_folder=False)
        if node is None:
            return
        if "O_TRUNC" in flags and self._record.now.files.get(node):
            self._record.do(Truncate(node, 0))
        self._handles[result] = Handle(node, append="O_APPEND" in flags)

    def _duplicate(self, old: int, new: int) -> None:
        self._handles.pop(new, None)
        if old in self._handles:
            self._handles[new] = self._handles[old]

    def _write(self, number: int, data: bytes, offset: int | None) -> None:
        handle = self._handles.get(number)
        if handle is None or not data:
            return
        at = offset
        if at is None:
            at = len(self._record.now.files[handle.node]) if handle.append else handle.position
            handle.position = at + len(data)
        self._record.do(Write(handle.node, at, data))

    def _resize(self, number: int, given: list[str], *, grow: bool) -> None:
        handle = self._handles.get(number)
        if handle is None:
            return
        size = int(given[2]) + int(given[3]) if grow else int(given[1])
        if not grow or size > len(self._record.now.files[handle.node]):
            self._record.do(Truncate(handle.node, size))

    def _copy(self, name: str, given: list[str], result: int) -> None:
        """Note what the kernel copied from one file to another; sources are read from the start in one go."""
        source, target = (given[1], given[0]) if name == "sendfile" else (given[0], given[2])
        from_, to = self._handles.get(int(source)), self._handles.get(int(target))
        if to is None or not result:
            return
        if from_ is None:
            message = "a file from outside was copied into the tree"
            raise AssertionError(message)
        offset = (
            int(given[2].strip("[]").split(" ")[0]) if name == "sendfile" and given[2] != "NULL" else from_.position
        )
        self._write(int(target), bytes(self._record.now.files[from_.node][offset : offset + result]), None)
        from_.position = offset + result

    def _rename(self, given: list[str]) -> None:
        old, new = self._spot(given[0], given[1]), self._spot(given[2], given[3])
        if old is not None and new is not None:
            self._record.do(Rename(*old, *new))
        elif old is not None or new is not None:
            message = f"a rename over the tree's edge: {given}"
            raise AssertionError(message)

    def _link(self, given: list[str]) -> None:
        node, spot = self._node(given[0], given[1]), self._spot(given[2], given[3])
        if node is not None and spot is not None:
            self._record.do(Link(*spot, node))

    def _unlink(self, at: str, path: str) -> None:
        if (spot := self._spot(at, path)) is not None:
            self._record.do(Unlink(*spot))


def _arguments(text: str) -> list[str]:
    """Split a call's arguments at the commas that are in no bracket; strings are in hexadecimal, so none is in them."""
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        elif character == "," and not depth:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _text(argument: str) -> str:
    found = _TEXT.search(argument)
    return os.fsdecode(_bytes(found[1])) if found else ""
