"""What content is that is no JSON: told from its first bytes, so that its sender knows what to change."""

from __future__ import annotations

import csv
import re
from typing import Final

from inboxd.records.unpack import GZIP_MAGIC, ZSTD_MAGIC

LOOK: Final = 65_536
"""Bytes at the beginning that tell what it is."""
_MAGIC: Final = (
    (b"\xff\xfe\0\0", "UTF-32 text; write it as UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32 text; write it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text; write it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; write it as UTF-8"),
    (b"PK\x03\x04", "a zip archive, or an Excel workbook; unpack it, or export it as JSON"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; export it as JSON"),
    (b"PAR1", "Parquet; convert it to JSON"),
    (b"Obj\x01", "Avro; convert it to JSON"),
    (b"ORC", "ORC; convert it to JSON"),
    (b"SQLite format 3", "an SQLite database; export its tables as JSON"),
    (b"%PDF", "a PDF"),
    (b"BZh", "bzip2; compress it with gzip or zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (GZIP_MAGIC, "gzip, inside of what was unpacked; compress it once"),
    (ZSTD_MAGIC, "zstd, inside of what was unpacked; compress it once"),
    (b"version https://git-lfs", "a pointer of Git LFS in place of the file; fetch the file with `git lfs pull`"),
    (b"\xfd7zXZ", "xz; compress it with gzip or zstd"),
    (b"\x1e{", "JSON text sequences (RFC 7464); remove the bytes 0x1E"),
)
_TEXTS: Final = (
    (re.compile(r"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE), "HTML: perhaps an error page in place of the data"),
    (re.compile(r"\s*<[?!a-zA-Z]"), "XML; convert it to JSON"),
    (
        re.compile(r"\s*(?:(?:var|let|const|window|module|export)\b[^={(\[]*=?|[\w.$]+\s*\()\s*[\[{]"),
        "JavaScript around JSON; take out what comes before the first brace and after the last",
    ),
    (re.compile(r"\s*(?://|/\*|#)"), "JSON with comments, which JSON does not allow; remove them"),
    (re.compile(r"\s*[\[{]\s*'"), "a Python or JavaScript literal in single quotes; write it with a JSON library"),
    (re.compile(r"\s*---|\s*[\w-]+:(?: |\n)"), "YAML; convert it to JSON"),
)
_WIDE: Final = 0.3
"""The share of zero bytes from which a text without a mark is UTF-16."""


def looks_like(head: bytes) -> str | None:
    """Say what content is that begins like this, and what to do about it; ``None`` if nothing comes to mind."""
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it"
    if head and head.count(0) > _WIDE * len(head):
        return "UTF-16 text; write it as UTF-8"
    text = head.decode("utf-8-sig", "replace")
    for pattern, what in _TEXTS:
        if pattern.match(text):
            return what
    if re.search(r"[:\[,]\s*(?:NaN|-?Infinity)\b", text):
        return "JSON with NaN or Infinity, which JSON does not allow; write null"
    return "CSV; convert it to JSON, with its header as names" if _is_csv(text) else None


def _is_csv(text: str) -> bool:
    """Tell whether the first lines have one delimiter, the same number of times each."""
    whole = text if text.endswith("\n") else text.rpartition("\n")[0]  # the last line may be cut
    lines = [line for line in whole.splitlines() if line.strip()][:20]
    if len(lines) < 2 or lines[0].lstrip()[:1] in "[{":  # noqa: PLR2004 - a header and a row
        return False
    return any(
        len({len(row) for row in csv.reader(lines, delimiter=delimiter)}) == 1 and delimiter in lines[0]
        for delimiter in ",;\t|"
    )
