"""A proposal as a config file has it, with the evidence beside each choice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from inboxd.config.paths import path_text
from inboxd.infer.columns import ENOUGH, Column
from inboxd.infer.outline import Place
from inboxd.infer.propose import Proposal
from inboxd.model import Mode, Path, Shape, spelled
from inboxd.words import counted

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_MOST_NAMED: Final = 12
"""Paths that a comment names."""


def quoted(text: str) -> str:
    """Return a text as TOML writes it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml(proposal: Proposal, match: Sequence[str], records: int) -> str:
    """Return the table of a feed, ready to be a config file or to be added to one; ``records`` is the evidence."""
    return "\n".join((*_feed(proposal, match, records), "", *_fields(proposal))) + "\n"


def _feed(proposal: Proposal, match: Sequence[str], records: int) -> Iterator[str]:
    yield f"[feeds.{proposal.feed if _BARE.fullmatch(proposal.feed) else quoted(proposal.feed)}]"
    yield f"match = {_list(match)}  # globs relative to the inbox; the first feed that matches wins"
    yield from _place(proposal.place)
    for place, size in proposal.close:
        yield f"# close: {counted(size, 'record')} with {'; '.join(_spelled(place)) or 'neither records nor explode'}"
    yield from _around(proposal)
    yield from _identity(proposal, records)
    if proposal.mode is not Mode.SNAPSHOT:
        yield 'max_rejected = "10%"  # above this share the whole file fails, so that a new kind of file is noticed'
    if proposal.layout.extra:
        yield 'extra = "keep"  # more names than columns: the others are kept, as JSON, in the column extra'
    if proposal.layout.left_out:
        yield f"# left out, as no column can store what is there: {_named(proposal.layout.left_out)}"


def _place(place: Place) -> Iterator[str]:
    if place.records:
        where = "the records are the members of the object there" if place.shape else "where the records are"
        yield f"records = {_path(place.records)}  # {where}"
    if place.explode:
        yield f"explode = {_path(place.explode)}  # each element of this array inside them is a record"
    if place.shape is Shape.MEMBERS:
        yield 'shape = "members"  # each member of an object is a record'
    elif place.shape is Shape.VALUES:
        yield 'shape = "values"  # each top-level value is a record, an array too'


def _spelled(place: Place) -> list[str]:
    return [line.partition("  #")[0] for line in _place(place)]


def _around(proposal: Proposal) -> Iterator[str]:
    names = [name for name in proposal.around if "." not in name and _BARE.fullmatch(name)][:_MOST_NAMED]
    if names:
        yield f'# around the records: {", ".join(names)}; a field reads one of them with from = "$.{names[0]}"'


def _identity(proposal: Proposal, records: int) -> Iterator[str]:
    names = [column.name for column in proposal.key.columns]
    yield f'mode = "{proposal.mode}"  # {_MODES[proposal.mode]}'
    if names:
        what = "value" if len(names) == 1 else "combination"
        seen = f"{counted(records, 'record')}, {counted(records, f'different {what}')}"
        evidence = "as asked for" if proposal.key.wished else seen
        yield f"key = {_list(names)}  # {evidence}"
    else:
        yield f"# no key: in {counted(records, 'record')} no field that names them was always there and unique"
    if proposal.also_unique is not None:
        other = proposal.also_unique.name
        yield f'# {other} was unique here, too: if it names the record, mode = "upsert" and key = {_list([other])}'
    if proposal.cursor is not None:
        yield f"cursor = {quoted(proposal.cursor.name)}  # every record has it; of two with one key the later counts"
        yield 'late = "merge"  # merge: newer rows win, in whatever order files come; skip: leave out what is late'
    elif proposal.mode is Mode.UPSERT:
        yield "# no cursor: no field tells when a record was changed, so the file that is loaded last counts"
    if proposal.mode is Mode.SNAPSHOT:
        yield 'absent = "remove"  # what becomes of rows that a file has not: remove or mark'


_MODES: Final = {
    Mode.UPSERT: "a file is news: each record replaces the row of its key",
    Mode.APPEND: "a file is facts: each record is a row of its own",
    Mode.SNAPSHOT: "a file is everything there is: the table mirrors it",
}


def _fields(proposal: Proposal) -> Iterator[str]:
    fixed = {column.name for column in (*proposal.key.columns, proposal.cursor) if column is not None}
    columns = proposal.layout.columns
    name = proposal.feed if _BARE.fullmatch(proposal.feed) else quoted(proposal.feed)
    yield f"[feeds.{name}.fields]"
    width = max(len(column.name) for column in columns)
    enough = proposal.records >= ENOUGH
    for column in columns:
        required = column.name in fixed or (enough and column.always)
        line = f"{column.name:<{width}} = {_attributes(column, required=required)}"
        yield f"{line}  # or {column.kind.doubt}" if column.kind.doubt else line


def _attributes(column: Column, *, required: bool) -> str:
    kind = column.kind
    parts = [f'type = "{kind.type}"']
    if column.path != (column.name,):
        parts.append(f"from = {_path(column.path)}")
    if kind.unit:
        parts.append(f'unit = "{kind.unit}"')
    if kind.format:
        parts.append(f"format = {quoted(kind.format)}")
    if kind.null:
        parts.append(f"null = {_list(kind.null)}")
    if kind.coerce:
        parts.append("coerce = true")
    if not required:
        parts.append("required = false")
    return "{ " + ", ".join(parts) + " }"


def _path(path: Path) -> str:
    written = path_text(path)
    return quoted(written) if isinstance(written, str) else _list(written)


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted, texts))}]"


def _named(paths: Sequence[Path]) -> str:
    shown = [json.dumps(spelled(path)) for path in paths[:_MOST_NAMED]]
    return ", ".join(shown) + (f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else "")
