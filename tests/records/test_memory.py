"""Memory: flat, whatever the size of a file, and whatever a hostile one pretends to be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from places import SOURCE, SUPPORT

READER = """
import json, resource, sys
from datetime import UTC, datetime
from inboxd.errors import FileFault
from inboxd.model import Condition, Field, FieldType, Origin, Shape
from inboxd.records.decode import Reading
from records_feeds import EVENTS, feed_of
import bombs

make, size = sys.argv[1], int(sys.argv[2])
tail = Field("tail", FieldType.TEXT, (Origin.DOCUMENT, "meta", "tail"), "tail")
host = Field("host", FieldType.TEXT, (Origin.AROUND, Origin.AROUND, "host"), "host")
FEEDS = {
    "document_around": feed_of(*EVENTS.fields, records=("data",)),
    "members": feed_of(*EVENTS.fields, records=("data",), shape=Shape.MEMBERS),
    "all_members": feed_of(*EVENTS.fields, shape=Shape.MEMBERS),
    "exploded": feed_of(*EVENTS.fields, host, records=("data",), explode=("items", "more")),
    "after": feed_of(*EVENTS.fields, tail, records=("data",)),
    "after_packed": feed_of(*EVENTS.fields, tail, records=("data",)),
    "chosen": feed_of(*EVENTS.fields, where=(Condition(("name",), any_of=('"Alice Smith"',)),)),
}
feed = FEEDS.get(make, EVENTS)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = rejects = 0
code = ""
try:
    stream = bombs.Stream(getattr(bombs, make)(size))
    again = lambda: bombs.Stream(getattr(bombs, make)(size))
    for batch in Reading(stream, feed, now=datetime(2026, 6, 1, tzinfo=UTC), max_size=size * 3, again=again).batches():
        rows += len(batch.rows)
        rejects += len(batch.rejects)
except FileFault as fault:
    code = fault.code
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"rows": rows, "rejects": rejects, "code": code, "grown": (after - before) // 1024}))
"""

BOMBS = r'''
"""Streams of any size, made as they are read."""
import zlib
import zstandard

GOOD = b'{"key":"user-0000123","name":"Alice Smith","value":12.5,"ts":"2026-01-15T10:30:00Z"}'
BAD = b'{"key":"user-0000123","name":null,"value":"abc","ts":"2026-01-15T10:30:00Z"}'
PIECE = 1 << 16


class Stream:
    def __init__(self, pieces):
        self.pieces, self.rest = iter(pieces), b""

    def read(self, n, /):
        while not self.rest:
            piece = next(self.pieces, None)
            if piece is None:
                return b""
            self.rest = piece
        out, self.rest = self.rest[:n], self.rest[n:]
        return out


def repeated(start, piece, size, end=b""):
    yield start
    block = piece * (PIECE // len(piece) + 1)
    for _ in range(size // len(block)):
        yield block
    yield end


def array(size):
    return repeated(b"[", GOOD + b",", size, GOOD + b"]")


def lines(size):
    return repeated(b"", GOOD + b"\n", size)


def one_line(size):
    return repeated(b"", GOOD + b" ", size)


def bad_lines(size):
    return repeated(b"", (GOOD + b"\n") * 9 + BAD + b"\n", size)


def blanks(size):
    return repeated(b"[" + GOOD, b"\n \t", size, b"," + GOOD + b"]")


def deep(size):
    return repeated(b"", b'[{"a":', size)


def string(size):
    return repeated(b'[{"a":"', b"x", size)


def digits(size):
    return repeated(b'[{"a":', b"1", size)


def document_around(size):
    yield from repeated(b'{"a":[', b'{"x":["},{"]},', size // 2, b'1],"b":"')
    yield from repeated(b"", b"\\u00e9", size // 2, b'","data":[' + GOOD + b"]}")


def members(size):
    return repeated(b'{"data":{', b'"m":' + GOOD + b",", size, b'"m":' + GOOD + b"}}")


def all_members(size):
    return repeated(b"{", b'"m":' + GOOD + b",", size, b'"m":' + GOOD + b"}")


def exploded(size):
    element = b'{"host":"h","items":[{"more":[' + GOOD + b"," + GOOD + b']},{"more":[]}]}'
    return repeated(b'{"data":[', element + b",", size, element + b"]}")


def after(size):
    return repeated(b'{"data":[', GOOD + b",", size, GOOD + b'],"meta":{"tail":"t"}}')


def after_packed(size):
    packer = zlib.compressobj(1, wbits=31)
    for piece in after(size):
        yield packer.compress(piece)
    yield packer.flush()


def chosen(size):
    return lines(size)


def gzipped(size):
    packer = zlib.compressobj(9, wbits=31)
    for piece in repeated(b"[", b" ", size, GOOD + b"]"):
        yield packer.compress(piece)
    yield packer.flush()


def gzipped_records(size):
    packer = zlib.compressobj(9, wbits=31)
    for piece in array(size):
        yield packer.compress(piece)
    yield packer.flush()


def zstandard_records(size):
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    for piece in array(size):
        yield packer.compress(piece)
    yield packer.flush()


def gzip_bomb(size):
    return gzipped(size * 4)


def zstandard_bomb(size):
    # one frame of blocks of 4 bytes, each of which is 128 KiB of spaces when unpacked
    yield b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x38"
    for _ in range(size * 4 // (1 << 17)):
        yield ((1 << 17 << 3) | (1 << 1)).to_bytes(3, "little") + b" "
    yield ((0 << 3) | 1).to_bytes(3, "little")
'''

MIB = 1 << 20
CASES = {
    "array": (48 * MIB, "", 40),
    "lines": (48 * MIB, "", 40),
    "one_line": (12 * MIB, "", 40),
    "bad_lines": (24 * MIB, "", 40),
    "blanks": (128 * MIB, "", 40),
    "deep": (64 * MIB, "nesting_too_deep", 30),
    "string": (256 * MIB, "record_too_large", 90),
    "digits": (256 * MIB, "record_too_large", 90),
    "document_around": (32 * MIB, "", 40),
    "gzipped": (256 * MIB, "", 40),
    "gzipped_records": (48 * MIB, "", 40),
    "zstandard_records": (48 * MIB, "", 60),
    "gzip_bomb": (64 * MIB, "file_too_large", 40),
    "zstandard_bomb": (64 * MIB, "file_too_large", 90),
}
"""What is read, how much of it, the code it ends with, and by how many MiB the process may grow."""


SHAPES = ("members", "all_members", "exploded", "after", "after_packed", "chosen")
"""Records that are not simply the elements of an array, or are read together with what is around them."""


@pytest.mark.parametrize("case", SHAPES)
def test_memory_is_the_same_for_a_large_file_of_any_shape(case: str, tmp_path: Path) -> None:
    """Members, exploded arrays and what stands after the records: eight times the file, the same peak."""
    small, large = (read_by_child(case, size, tmp_path) for size in (MIB, 8 * MIB))
    assert (small["code"], large["code"]) == ("", "")
    assert 7 < large["rows"] / small["rows"] < 9
    assert large["grown"] - small["grown"] < 12, (small, large)


@pytest.mark.parametrize("case", CASES)
def test_memory_does_not_grow_with_the_file(case: str, tmp_path: Path) -> None:
    """Large, airy, deep, endless and packed files are read or refused in a memory that has no need to grow."""
    size, code, most = CASES[case]
    found = read_by_child(case, size, tmp_path)
    assert found["code"] == code
    assert isinstance(found["grown"], int)
    assert found["grown"] < most
    if not code:
        assert found["rows"]
        assert bool(found["rejects"]) == (case == "bad_lines")


def read_by_child(case: str, size: int, tmp_path: Path) -> dict[str, Any]:
    """Read a content of that kind and size in a process of its own; return what it found and how it grew."""
    (tmp_path / "bombs.py").write_text(BOMBS, encoding="utf-8")
    path = [str(tmp_path), str(SUPPORT), str(SOURCE)]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{READER}", case, str(size)],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
