"""Formats: what a file of records looks like, packed or not, and the faults of whole files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import zlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import zstandard

from inboxd.errors import FileFault
from inboxd.records.decode import Reading
from inboxd.records.windows import MAX_RECORD
from records_feeds import EVENTS, fault_of, feed_of, read, record

MANY = [record(key=f'"user-{number}"', value=str(number)) for number in range(500)]
LAYOUTS = {
    "array": b"[" + b",".join(MANY) + b"]",
    "pretty": b"[\n  "
    + b" ,\n  ".join(line.replace(b":", b" : ").replace(b" : 30 : 00", b":30:00") for line in MANY)
    + b"\n]\n",
    "lines": b"\n".join(MANY),
    "lines, the last one ended": b"\n".join(MANY) + b"\n",
    "lines of DOS": b"\r\n".join(MANY) + b"\r\n",
    "blank lines between": b"\n\n \n".join(MANY),
    "one line": b" ".join(MANY),
    "pretty, one after another": b"\n".join(line.replace(b",", b",\n\t") for line in MANY),
    "byte order mark": b"\xef\xbb\xbf[" + b",".join(MANY) + b"]",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", (64, 1_000, 1 << 20))
def test_every_layout_gives_the_same_records(layout: str, window: int) -> None:
    """An array, newline-delimited and concatenated values, dense or airy, are the same records."""
    rows, rejects = read(LAYOUTS[layout], window=window)
    assert not rejects
    assert rows == [(f"user-{n}", "n", float(n), "2026-01-15T10:30:00.000000Z", n + 1) for n in range(500)]


def _gzip_members(content: bytes) -> bytes:
    return b"".join(gzip.compress(content[at : at + 1_000]) for at in range(0, len(content), 1_000)) + gzip.compress(
        b""
    )


def _zstd_frames(content: bytes) -> bytes:
    packer = zstandard.ZstdCompressor(write_checksum=True)
    skippable = b"\x5a\x2a\x4d\x18" + (3_000).to_bytes(4, "little") + b"x" * 3_000
    frames = [packer.compress(content[at : at + 1_000]) for at in range(0, len(content), 1_000)]
    return skippable + skippable.join(frames) + skippable


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip, members": _gzip_members,
    "gzip, padded": lambda content: gzip.compress(content) + b"\0" * 10_000,
    "zstd": zstandard.ZstdCompressor().compress,
    "zstd, frames": _zstd_frames,
}


class Trickle:
    """A stream that gives a byte or two at a time."""

    def __init__(self, content: bytes) -> None:
        self._inner = io.BytesIO(content)

    def read(self, n: int, /) -> bytes:
        """Give at most two bytes."""
        return self._inner.read(min(n, 2))


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("layout", ("array", "lines", "byte order mark"))
def test_packed_files_are_read_as_what_is_in_them(packer: str, layout: str) -> None:
    """Compression is told from the bytes: gzip with any number of members, zstd with any number of frames."""
    packed = PACKERS[packer](LAYOUTS[layout])
    assert read(packed) == read(LAYOUTS[layout])
    assert read(packed, window=100) == read(LAYOUTS[layout])


@pytest.mark.parametrize("packer", (*PACKERS, "none"))
def test_short_reads_change_nothing(packer: str) -> None:
    """A stream may give fewer bytes than asked for."""
    content = b"[" + b",".join(MANY[:20]) + b"]"
    packed = PACKERS[packer](content) if packer != "none" else content
    batches = list(Reading(Trickle(packed), EVENTS, now=datetime(2026, 6, 1, tzinfo=UTC), max_size=10**6).batches())
    assert [row for batch in batches for row in batch.rows] == read(content)[0]


@pytest.mark.parametrize("packer", PACKERS)
def test_a_packed_file_cut_short_fails(packer: str) -> None:
    """Half a packed file is ``invalid_compression``, wherever it was cut but between two members or frames."""
    packed = PACKERS[packer](LAYOUTS["lines"])
    for cut in (5, 9, 15, 60, len(packed) // 3, len(packed) // 2, len(packed) - 1):
        if packer == "gzip, padded" and cut > len(packed) - 10_000:
            continue
        fault = _fault_or_none(packed[:cut])
        whole = _ends_between_members(packed[:cut])
        assert whole or (fault is not None and fault.code in ("invalid_compression", "empty_file", "invalid_json")), cut
        assert whole or (fault is not None and (fault.place is not None or fault.code == "empty_file"))


def _fault_or_none(content: bytes) -> FileFault | None:
    try:
        read(content)
    except FileFault as fault:
        return fault
    return None


def _ends_between_members(packed: bytes) -> bool:
    try:
        if packed[:2] == b"\x1f\x8b":
            gzip.decompress(packed)
            return True
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return False
    return False


@pytest.mark.parametrize("packer", ("gzip", "gzip, members", "zstd", "zstd, frames"))
@pytest.mark.parametrize("garbage", (b"garbage", b"{}", b"\x1f", b"\x28\xb5", b"\n"))
def test_something_after_the_packed_data_fails_the_file(packer: str, garbage: bytes) -> None:
    """What follows the last member or frame is never passed over."""
    fault = fault_of(PACKERS[packer](LAYOUTS["array"]) + garbage)
    assert fault.code == "invalid_compression"
    assert fault.place is not None
    assert fault.place.byte == len(LAYOUTS["array"])


@pytest.mark.parametrize("packer", ("gzip", "zstd, frames"))
def test_a_flipped_bit_in_packed_data_never_loads_other_records(packer: str) -> None:
    """Damage inside packed data is found by its checksum, or changes nothing."""
    packed = PACKERS[packer](LAYOUTS["array"])
    expected = read(LAYOUTS["array"])
    chance = random.Random(5)
    for _ in range(40):
        damaged = bytearray(packed)
        damaged[chance.randrange(4, len(packed))] ^= 1 << chance.randrange(8)
        try:
            assert read(bytes(damaged)) == expected
        except FileFault as fault:
            assert fault.code in ("invalid_compression", "invalid_json", "invalid_encoding")  # noqa: PT017 - any is right


@pytest.mark.parametrize(
    "content",
    (
        b"",
        b" ",
        b"\n\n",
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf \r\n",
        gzip.compress(b"", mtime=0),
        gzip.compress(b" \n", mtime=0),
    ),
)
def test_nothing_is_an_empty_file(content: bytes) -> None:
    """No bytes, only white space, or only a byte order mark: ``empty_file``, packed or not."""
    assert fault_of(content).code == "empty_file"


@pytest.mark.parametrize("content", (b"[]", b" [ \n ] ", b"\xef\xbb\xbf[]\n"))
def test_an_empty_array_is_no_fault(content: bytes) -> None:
    """A producer that had nothing to send is heard: no records, no fault."""
    assert read(content) == ([], [])


@pytest.mark.parametrize(
    "content",
    (
        b"[] []",
        b"[]{}",
        b"[{}],",
        b"[]\n{}",
        b"{}[]",
        b"{} 5",
        b"5 {}",
        b'{"a":1}\n5 6',
        b"1 2",
        b'"a""b"',
        b"{},{}",
        b"{}\x00",
    ),
)
@pytest.mark.parametrize("window", (1, 1 << 20))
def test_what_may_not_follow_fails_the_file(content: bytes, window: int) -> None:
    """After an array only white space; between values white space, and a line to itself for one that is no object."""
    fault = fault_of(content, window=window)
    assert fault.code == "invalid_json"
    assert fault.place is not None


@pytest.mark.parametrize(
    "content", (b"{} {}", b"{}{}", b"{}\n{}", b"{}\n5\n{}", b"5\n\n6", b"{}\t{}\n[\n1\n]\n", b"{\n} {\n}")
)
def test_top_level_values_apart_by_white_space_are_records(content: bytes) -> None:
    """Objects may share a line; any other value that has its line to itself is one refused record."""
    _, rejects = read(content, window=2)
    assert [reject.raw for reject in rejects] == [r.raw for r in read(content)[1]]
    assert len(rejects) == len(content.replace(b"[\n1\n]", b"1").replace(b"{\n}", b"{}").replace(b"}{", b"} {").split())


NESTED = feed_of(*EVENTS.fields, records=("data", "items"))


@pytest.mark.parametrize("window", (1, 64, 1 << 20))
def test_records_at_a_path_are_found(window: int) -> None:
    """With ``records = "data.items"`` the array there is read, wherever it stands in the document."""
    inner = b"[" + b",".join(MANY) + b"]"
    around = (
        b'{"a":[{"items":[1]},{"b":"},{"}],"items":[{}],"data":{"n":{},"it\\u0065ms":'
        + inner
        + b',"z":[{},{}]},"data2":{"items":[{}]}} \n'
    )
    assert read(around, NESTED, window=window) == read(inner)
    assert len(read(gzip.compress(around), NESTED, window=window)[0]) == 500


@pytest.mark.parametrize(
    "content",
    (
        b"{}",
        b"[]",
        b"5",
        b'{"data":[]}',
        b'{"data":{}}',
        b'{"data":{"items":null}}',
        b'{"data":{"items":"x"}}',
        b'{"data":5}\n[]\n{}',
        b'{"items":[]}',
        b'{"data":5}',
    ),
)
def test_a_document_without_its_records_fails(content: bytes) -> None:
    """Absent, or neither an array nor an object, in every top-level value: ``no_records``."""
    assert fault_of(content, NESTED).code == "no_records"
    assert fault_of(content, NESTED, window=1).code == "no_records"


@pytest.mark.parametrize(
    "content",
    (
        b'{"data":{"items":[]}',
        b'{"data":{"items":[{}]},}',
        b'{"data":{"items":[]}}[]',
        b'{"data":{"items":[]}}\n{"data":{"items":[}}',
        b'{"x":tru}',
        b'{"data" {}}',
        b"{5:1}",
        b"{'a':1}",
        b'{"x":"',
        b'{"x":1',
        b"[",
    ),
)
@pytest.mark.parametrize("window", (1, 1 << 20))
def test_a_document_is_checked_around_its_records_too(content: bytes, window: int) -> None:
    """A fault before or after the records fails the file with its place."""
    fault = fault_of(content, NESTED, window=window)
    assert fault.code == "invalid_json"
    assert fault.place is not None


def test_records_at_two_places_fail_the_file() -> None:
    """A name on the way to the records that is there twice would leave one array unread: the file fails."""
    assert fault_of(b'{"data":{"items":[{}]},"data":{"items":[]}}', NESTED).code == "ambiguous_records"
    assert fault_of(b'{"data":{"items":[{}],"items":[]}}', NESTED).code == "ambiguous_records"


def test_an_empty_array_at_the_path_is_no_fault() -> None:
    """An empty list of records is a success with none."""
    assert read(b'{"data":{"items":[ ]}}', NESTED) == ([], [])


@pytest.mark.parametrize("packer", ("none", "gzip", "zstd"))
def test_a_content_over_the_limit_fails(packer: str) -> None:
    """``file_too_large`` counts the bytes as unpacked; the limit itself is allowed."""
    content = LAYOUTS["array"]
    packed = content if packer == "none" else PACKERS[packer](content)
    assert len(read(packed, max_size=len(content))[0]) == 500
    fault = fault_of(packed, max_size=len(content) - 1)
    assert fault.code == "file_too_large"
    assert fault.hint


@pytest.mark.parametrize("array", (True, False))
def test_a_record_up_to_sixteen_mebibytes_loads_and_no_larger(*, array: bool) -> None:
    """One record of exactly 16 MiB loads; one byte more is ``record_too_large`` with the place where it begins."""
    empty = len(record(name='""'))
    largest = record(name='"' + "x" * (MAX_RECORD - empty) + '"')
    assert len(largest) == MAX_RECORD

    def join(*parts: bytes) -> bytes:
        return b"[" + b",".join(parts) + b"]" if array else b"\n".join(parts)

    rows, _ = read(join(record(), largest, record()))
    assert [len(str(row[1])) for row in rows] == [1, MAX_RECORD - empty, 1]
    larger = largest.replace(b'"x', b'"xx', 1)
    fault = fault_of(join(record(), larger, record()))
    assert fault.code == "record_too_large"
    assert fault.place is not None
    assert fault.place.byte == len(record()) + (2 if array else 1)


@pytest.mark.parametrize("start", (b'[{"a":"', b'{"a":"', b"[", b'[{"a":'))
def test_what_never_ends_is_too_large(start: bytes) -> None:
    """A string, number or list without an end fails as ``record_too_large``, not as a full memory."""
    filler = b"9" * 100_000 if start.endswith((b"[", b":")) else b"x\\n" * 33_000

    class Endless:
        given = 0
        first = start

        def read(self, n: int, /) -> bytes:
            if self.first:
                first, self.first = self.first, b""
                return first[:n] if n >= len(first) else self._put_back(first, n)
            self.given += len(filler)
            assert self.given < 3 * MAX_RECORD
            return filler[:n] if n < len(filler) else filler

        def _put_back(self, first: bytes, n: int) -> bytes:
            self.first = first[n:]
            return first[:n]

    with pytest.raises(FileFault) as caught:
        list(Reading(Endless(), EVENTS, now=datetime(2026, 6, 1, tzinfo=UTC), max_size=2**40).batches())
    assert caught.value.code == "record_too_large"


def test_batches_tell_how_far_the_reading_came() -> None:
    """The sizes of the batches add up to the content that was read, up to its last record's end."""
    content = LAYOUTS["lines"]
    batches = list(
        Reading(
            io.BytesIO(content), EVENTS, now=datetime(2026, 6, 1, tzinfo=UTC), max_size=10**9, window=1_000
        ).batches()
    )
    assert len(batches) > 10
    assert sum(batch.size for batch in batches) == len(content)
    assert max(batch.size for batch in batches) < 3_000


@pytest.mark.parametrize("window", (20, 300, 1 << 20))
def test_a_cut_inside_a_string_or_a_nested_array_is_no_cut(window: int) -> None:
    """What looks like the border between two records, and is not, never splits or joins any."""
    tricky = [
        record(
            key=f'"k{n}"', name='"},{"', more='[{"a":1},{"b":[{},{}]},{"c":"}\\n{"}]', other='"[{"' if n % 3 else "{}"
        )
        for n in range(60)
    ]
    for content in (
        b"[" + b",".join(tricky) + b"]",
        b"\n".join(tricky),
        b" ".join(tricky),
        b"[" + b" \n, ".join(tricky) + b"]",
    ):
        rows, rejects = read(content, window=window)
        assert not rejects
        assert [row[0] for row in rows] == [f"k{n}" for n in range(60)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("window", [1, 3, 1 << 20])
def test_another_encoding_is_named_with_what_to_do(encoding: str, window: int) -> None:
    """What Windows programs write is told from a broken character."""
    fault = fault_of('[{"key":"a"}]'.encode(encoding), window=window)
    assert (fault.code, fault.place and fault.place.byte) == ("invalid_encoding", 0)
    name = "UTF-32" if "32" in encoding else "UTF-16"
    assert name in fault.message
    assert f"iconv -f {name} " in fault.hint


NO_JSON = [
    (bz2.compress(b"[]"), "bzip2"),
    (lzma.compress(b"[]"), "xz"),
    (b"PK\x03\x04\x14\0\0\0", "zip"),
    (b"x" + bytes(256) + b"ustar\x0000", "tar"),
    (b"key,name\n1,2\n3,4\n", "CSV"),
    (b"<?xml version='1.0'?><a/>", "XML"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    (b"\0\0\0\x18ftypmp42", ""),
]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(("content", "what"), NO_JSON, ids=[what or "binary" for _, what in NO_JSON])
def test_a_file_that_is_no_json_is_named(content: bytes, what: str, packed: object) -> None:
    """The sender reads what the file seems to be, not only which byte is none of JSON, also where it is compressed."""
    said(gzip.compress(content) if packed else content, what)


def test_a_file_that_is_compressed_twice_is_named() -> None:
    """The first time is no fault."""
    said(gzip.compress(gzip.compress(b"[]")), "gzip")


def said(content: bytes, what: str) -> None:
    """Hold that a fault says what content seems to be; of what nothing is known it says nothing."""
    fault = fault_of(content)
    assert fault.code in {"invalid_json", "invalid_encoding"}
    assert what in fault.hint
    assert "UTF-" not in fault.message or "UTF-8" in fault.message
    assert ("it looks like" in fault.hint) == bool(what)


def test_a_fault_further_in_says_nothing_of_the_file() -> None:
    """What begins as JSON is JSON: nobody is told that it is something else."""
    fault = fault_of(b'[{"key": "' + b"a" * 100 + b'"} x')
    assert "it looks like" not in fault.hint


def test_a_window_that_is_too_long_is_told_from_damage() -> None:
    """``zstd --long=28`` asks for more memory than a file may take: the fault says how to pack it."""
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    fault = fault_of(packer.compress(b"[" + b" " * 1_000) + packer.flush())
    assert fault.code == "invalid_compression"
    assert "--long=27" in fault.hint


def test_what_is_packed_is_told_from_the_first_bytes() -> None:
    """A name that says ``.gz`` or nothing at all changes nothing: the reader never sees it."""
    assert len(read(gzip.compress(b"[" + record() + b"]"))[0]) == len(read(b"[" + record() + b"]")[0]) == 1
