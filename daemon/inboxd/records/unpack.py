"""Compressed or not: told from the first bytes, never from the name; unpacked piece by piece in bounded memory.

RFC 1952 (gzip, several members in a row) and RFC 8878 (zstd, several frames in a row, skippable frames between).
What ends early, fails its checksum or is followed by something else is ``invalid_compression``.
"""

from __future__ import annotations

import zlib
from typing import Final, Protocol

import zstandard

from inboxd.errors import FileFault

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
"""The last three bytes of a skippable frame's magic; the first is 0x50 … 0x5f (RFC 8878, 3.1.2)."""

_FIRST_PIECE: Final = 65_536
"""Bytes read to tell the format by: most files are no larger, and so are read at once."""
_GZIP_PIECE: Final = 65_536
_ZSTD_PIECE: Final = 1_024
"""Packed bytes given to zstd at once. A zstd block takes at least 4 bytes and gives at most 128 KiB (RFC 8878,
3.1.1.2), so that one piece of a bomb unpacks to at most 32 MiB."""


class ByteStream(Protocol):
    """What is read from: an open file, or anything with its ``read``."""

    def read(self, n: int, /) -> bytes:
        """Return at most ``n`` bytes, at least one before the end, and none at the end."""
        ...


def unpacked(stream: ByteStream) -> ByteStream:
    """Return a stream of the content, unpacked if the first bytes are those of a gzip member or a zstd frame."""
    head = b""
    while len(head) < len(ZSTD_MAGIC):
        more = stream.read(_FIRST_PIECE)
        if not more:
            break
        head += more
    source = _Source(stream, head)
    if head.startswith(GZIP_MAGIC):
        return _Gzip(source)
    if _is_zstd(head[: len(ZSTD_MAGIC)]):
        return _Zstd(source)
    return source


def is_packed(head: bytes) -> bool:
    """Tell whether content is compressed that begins with these four bytes."""
    return head.startswith(GZIP_MAGIC) or _is_zstd(head)


def _is_zstd(head: bytes) -> bool:
    return head == ZSTD_MAGIC or (head[1:] == _ZSTD_SKIPPABLE and 0x50 <= head[0] <= 0x5F)  # noqa: PLR2004 - RFC 8878


def _broken(kind: str, why: str) -> FileFault:
    return FileFault(
        "invalid_compression",
        f"the {kind} data cannot be unpacked: {why}",
        "the file was cut short or damaged on its way; send it again",
    )


def _too_long() -> FileFault:
    return FileFault(
        "invalid_compression",
        "the zstd data was packed with a window of more than 128 MiB, which unpacking would need as memory",
        "pack it with --long=27 at most",
    )


class _Source:
    """The bytes as dropped, with those that were read to tell the format put back."""

    def __init__(self, stream: ByteStream, head: bytes) -> None:
        self._stream = stream
        self._head = head

    def read(self, n: int, /) -> bytes:
        head, self._head = self._head[:n], self._head[n:]
        return head + self._stream.read(n - len(head)) if len(head) < n else head


class _Gzip:
    """The members of a gzip file, one after another."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._member: zlib._Decompress | None = None
        self._packed = b""
        self._members = 0

    def read(self, n: int, /) -> bytes:
        while True:
            if self._member is None and not self._next_member():
                return b""
            if self._member is not None:
                out = self._inflate(self._member, n)
                if out:
                    return out
            if self._member is not None and not self._packed:
                self._packed = self._source.read(_GZIP_PIECE)
                if not self._packed:
                    raise _broken("gzip", "it ends too early")

    def _inflate(self, member: zlib._Decompress, n: int) -> bytes:
        try:
            out = member.decompress(self._packed, n)
        except zlib.error as error:
            raise _broken("gzip", str(error)) from error
        if member.eof:
            self._packed, self._member = member.unused_data, None
        else:
            self._packed = member.unconsumed_tail
        return out

    def _next_member(self) -> bool:
        """Begin the next member; zeros after the last one are padding, as gzip(1) reads them."""
        while True:
            if self._members:
                self._packed = self._packed.lstrip(b"\0")
            if len(self._packed) >= len(GZIP_MAGIC):
                break
            more = self._source.read(_GZIP_PIECE)
            if not more:
                break
            self._packed += more
        if not self._packed:
            return False
        if not self._packed.startswith(GZIP_MAGIC):
            raise _broken("gzip", "other data follows its end")
        self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._members += 1
        return True


class _Zstd:
    """The frames of a zstd file, one after another."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._packed = b""
        self._ready = b""

    def read(self, n: int, /) -> bytes:
        while not self._ready:
            if self._frame is None and not self._next_frame():
                return b""
            if self._frame is not None:
                self._unpack(self._frame)
        out, self._ready = self._ready[:n], self._ready[n:]
        return out

    def _unpack(self, frame: zstandard.ZstdDecompressionObj) -> None:
        if not self._packed:
            self._packed = self._source.read(_ZSTD_PIECE)
            if not self._packed:
                raise _broken("zstd", "it ends too early")
        try:
            self._ready = frame.decompress(self._packed[:_ZSTD_PIECE])
        except zstandard.ZstdError as error:
            if "too much memory" in str(error):
                raise _too_long() from error
            raise _broken("zstd", str(error)) from error
        self._packed = self._packed[_ZSTD_PIECE:]
        if frame.eof:
            self._packed, self._frame = frame.unused_data + self._packed, None

    def _next_frame(self) -> bool:
        """Begin the next frame, past skippable ones; return whether there is one."""
        while self._have(1):
            if not self._have(len(ZSTD_MAGIC)) or not _is_zstd(self._packed[:4]):
                raise _broken("zstd", "other data follows its end")
            if self._packed.startswith(ZSTD_MAGIC):
                self._frame = zstandard.ZstdDecompressor().decompressobj()
                return True
            self._skip_frame()
        return False

    def _skip_frame(self) -> None:
        """Pass over a skippable frame: its magic, its size in 4 bytes (little-endian), that many bytes."""
        if not self._have(8):
            raise _broken("zstd", "it ends too early")
        left = int.from_bytes(self._packed[4:8], "little")
        self._packed = self._packed[8:]
        while left:
            if not self._have(1):
                raise _broken("zstd", "it ends too early")
            passed = min(left, len(self._packed))
            self._packed = self._packed[passed:]
            left -= passed

    def _have(self, size: int) -> bool:
        """Read until ``size`` packed bytes are there; return whether they are."""
        while len(self._packed) < size:
            more = self._source.read(_ZSTD_PIECE)
            if not more:
                return False
            self._packed += more
        return True
