"""How a table is made to fit: what says nothing goes first, then long names are shortened, then whole columns go.

Pure: columns and cells in, lines out. Words and numbers are never broken; a width of ``None`` is a pipe's, where
nothing is left out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from inboxd.words import middle

TWO_LINES: Final = 100
"""Below this many columns of a terminal a row may have a second line."""
LEAST: Final = 16
"""A name shortened further tells nothing."""
INDENT: Final = 4
"""Of what stands below a row."""
GAP: Final = 2

Cells = list[str]
Pieces = list[tuple[str, str]]
"""A line's pieces: the padding in front of each, and the cell's own text, which may be coloured."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    ``cut`` says how a cell is shortened where there is no room: a name in its middle, a text at its end; a number
    never. ``goes`` is the order in which columns are left out, 1 first, 0 never. ``below`` is a text that moves to
    lines of its own in a narrow terminal.
    """

    title: str
    number: bool = False
    cut: Literal["", "middle", "end"] = ""
    goes: int = 0
    below: bool = False


def lay_out(columns: Sequence[Column], rows: Sequence[Cells], width: int | None) -> list[Pieces]:
    """Return the lines of a table, its titles first; every row has a cell for every column."""
    if width is None:
        return _drawn(columns, rows, [], None)
    kept = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    if _total(columns, rows, kept) > width:
        kept = [at for at in kept if not (columns[at].number and all(row[at] in {"", "0"} for row in rows))]
    below: list[int] = []
    if _total(columns, rows, kept) > width and width < TWO_LINES:
        below = [at for at in kept if columns[at].below]
        kept = [at for at in kept if at not in below]
    for at in sorted((at for at in kept if columns[at].goes), key=lambda at: columns[at].goes):
        if _smallest(columns, rows, kept) <= width:
            break
        kept.remove(at)
    widths = _shrunk(columns, rows, kept, width)
    shortened = [[_shortened(row[at], widths[at], columns[at].cut) for at in kept] for row in rows]
    second = [[row[at] for at in below] for row in rows]
    return _drawn([columns[at] for at in kept], shortened, second if below else [], width)


def _width(columns: Sequence[Column], rows: Sequence[Cells], at: int) -> int:
    return max(len(columns[at].title), *(len(row[at]) for row in rows))


def _total(columns: Sequence[Column], rows: Sequence[Cells], kept: Sequence[int]) -> int:
    return sum(_width(columns, rows, at) for at in kept) + GAP * (len(kept) - 1)


def _least(columns: Sequence[Column], rows: Sequence[Cells], at: int) -> int:
    full = _width(columns, rows, at)
    return min(full, max(LEAST, len(columns[at].title))) if columns[at].cut else full


def _smallest(columns: Sequence[Column], rows: Sequence[Cells], kept: Sequence[int]) -> int:
    return sum(_least(columns, rows, at) for at in kept) + GAP * (len(kept) - 1)


def _shrunk(columns: Sequence[Column], rows: Sequence[Cells], kept: Sequence[int], width: int) -> dict[int, int]:
    """Return how wide each column may be: the widest that can be shortened give way first."""
    widths = {at: _width(columns, rows, at) for at in kept}
    least = {at: _least(columns, rows, at) for at in kept}
    over = sum(widths.values()) + GAP * (len(kept) - 1) - width
    while over > 0:
        able = [at for at in kept if widths[at] > least[at]]
        if not able:
            break
        widest = max(able, key=lambda at: widths[at])
        widths[widest] -= 1
        over -= 1
    return widths


def _shortened(text: str, width: int, cut: str) -> str:
    if len(text) <= width or not cut:
        return text
    if cut == "end":
        return f"{text[: width - 1].rstrip()}…"
    longest = max(text.split(" "), key=len)  # of an error code and a name, the name is what can be shortened
    room = width - (len(text) - len(longest))
    return text.replace(longest, middle(longest, room), 1) if room >= LEAST // 2 else middle(text, width)


def _drawn(columns: Sequence[Column], rows: Sequence[Cells], below: Sequence[Cells], width: int | None) -> list[Pieces]:
    widths = [_width(columns, rows, at) for at in range(len(columns))]
    lines = [_line([column.title for column in columns], columns, widths)]
    for number, row in enumerate(rows):
        lines.append(_line(row, columns, widths))
        if below:
            texts = (text for text in below[number] if text)
            lines.extend([(" " * INDENT, line)] for text in texts for line in wrapped(text, (width or 0) - INDENT))
    return lines


def _line(cells: Cells, columns: Sequence[Column], widths: Sequence[int]) -> Pieces:
    pieces: Pieces = []
    after = 0
    for at, (cell, column, width) in enumerate(zip(cells, columns, widths, strict=True)):
        space = " " * (width - len(cell))
        before = " " * (GAP if at else 0) + " " * after
        pieces.append((before + space, cell) if column.number else (before, cell))
        after = 0 if column.number else len(space)
    while pieces and not pieces[-1][1]:
        pieces.pop()
    return pieces


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most so many characters, broken at spaces; longer words are shortened."""
    words = (middle(word, max(width, LEAST)) for word in re.split(r"\s+", text) if word)
    return textwrap.wrap(" ".join(words), max(width, LEAST), break_long_words=False, break_on_hyphens=False)
