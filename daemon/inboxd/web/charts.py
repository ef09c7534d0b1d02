"""Charts as SVG, made here: pure functions from numbers to marks. Colours come from the style sheet, by class.

Coordinates are in a box of ``WIDTH`` by ``HEIGHT`` that is scaled to the page. Every chart has a title and a
description for those who do not see it, and the page puts the same numbers into a table below it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from inboxd.words import short

WIDTH: Final = 360
HEIGHT: Final = 140
LEFT: Final = 36
RIGHT: Final = 4
TOP: Final = 8
BOTTOM: Final = 20
FLOOR: Final = HEIGHT - BOTTOM
GAP: Final = 0.22
"""Share of a bucket's width that stays empty beside its bar."""
LEAST: Final = 1.5
"""Height of the smallest bar that is not nothing: one failure among a million stays visible."""


@dataclass(frozen=True, slots=True)
class Part:
    """One line or one layer of bars: its class in the style sheet, its name, a value per bucket."""

    kind: str
    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Axis:
    """What stands along the bottom: a label per bucket (for its tooltip), and those written at both ends."""

    labels: Sequence[str]
    first: str
    last: str


def bars(name: str, title: str, description: str, axis: Axis, parts: Sequence[Part]) -> Markup:
    """Return stacked bars, a bar per bucket."""
    totals = [sum(values) for values in zip(*(part.values for part in parts), strict=True)]
    top = ceiling(max(totals, default=0))
    step = (WIDTH - LEFT - RIGHT) / max(len(totals), 1)
    marks = [_bar(index, axis, parts, top, step) for index, total in enumerate(totals) if total]
    return _figure(name, title, description, axis, top, marks)


def lines(name: str, title: str, description: str, axis: Axis, parts: Sequence[Part]) -> Markup:
    """Return a line per part; a bucket of zero is no value, and the line jumps over it with a gap."""
    top = ceiling(max((value for part in parts for value in part.values), default=0))
    step = (WIDTH - LEFT - RIGHT) / max(len(axis.labels), 1)
    marks: list[Markup] = []
    for part in parts:
        points = [(LEFT + (index + 0.5) * step, _y(value, top)) for index, value in enumerate(part.values)]
        for stretch in _stretches(part.values):
            path = " ".join(f"{points[index][0]:.1f},{points[index][1]:.1f}" for index in stretch)
            if len(stretch) > 1:
                marks.append(Markup('<polyline class="line {}" points="{}"/>').format(part.kind, path))
        for index, value in enumerate(part.values):
            if value:
                x, y = points[index]
                tip = f"{axis.labels[index]}: {part.name} {short(value)} ms"
                marks.append(
                    Markup('<circle class="dot {}" cx="{}" cy="{}" r="2"><title>{}</title></circle>').format(
                        part.kind, f"{x:.1f}", f"{y:.1f}", tip
                    )
                )
    return _figure(name, title, description, axis, top, marks)


def ceiling(value: float) -> float:
    """Return the least of 4, 5, 8, 10, 20, 40, 50 … that is not below ``value``: its quarters read well."""
    if value <= 4:  # noqa: PLR2004 - so that the quarters of a count are whole
        return 4.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(factor * size for factor in (1, 2, 4, 5, 8, 10) if factor * size >= value * (1 - 1e-12))


def _y(value: float, top: float) -> float:
    return FLOOR - (FLOOR - TOP) * value / top


def _bar(index: int, axis: Axis, parts: Sequence[Part], top: float, step: float) -> Markup:
    """Return one bucket: its layers from the bottom up, and an unseen column as high as the chart that has the tip."""
    left = LEFT + index * step
    width = max(step * (1 - GAP), 1.0)
    bottom = float(FLOOR)
    layers = Markup()
    for part in parts:
        value = part.values[index]
        if not value:
            continue
        height = max(FLOOR - _y(value, top), LEAST)
        bottom -= height
        layers += Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"/>').format(
            part.kind, f"{left + step * GAP / 2:.1f}", f"{bottom:.1f}", f"{width:.1f}", f"{height:.1f}"
        )
    said = ", ".join(f"{short(part.values[index])} {part.name}" for part in parts if part.values[index])
    reach = Markup('<rect class="reach" x="{}" y="{}" width="{}" height="{}"/>').format(
        f"{left:.1f}", TOP, f"{step:.1f}", FLOOR - TOP
    )
    return Markup("<g><title>{}</title>{}{}</g>").format(f"{axis.labels[index]}: {said}", reach, layers)


def _stretches(values: Sequence[float]) -> list[list[int]]:
    """Return the runs of neighbouring buckets that have a value."""
    found: list[list[int]] = []
    for index, value in enumerate(values):
        if value and index and values[index - 1]:
            found[-1].append(index)
        elif value:
            found.append([index])
    return found


def _figure(name: str, title: str, description: str, axis: Axis, top: float, marks: Sequence[Markup]) -> Markup:
    grid = Markup()
    for quarter in (0, 1, 2, 3, 4):
        value = top * quarter / 4
        y = _y(value, top)
        grid += Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            LEFT, WIDTH - RIGHT, f"{y:.1f}", f"{y:.1f}"
        )
        if quarter % 2 == 0:
            grid += Markup('<text class="tick" x="{}" y="{}">{}</text>').format(
                LEFT - 6, f"{y + 3.5:.1f}", short(value)
            )
    ends = Markup('<text class="end" x="{}" y="{}">{}</text><text class="end last" x="{}" y="{}">{}</text>').format(
        LEFT, HEIGHT - 5, axis.first, WIDTH - RIGHT, HEIGHT - 5, axis.last
    )
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-title {}-desc">'
        '<title id="{}-title">{}</title><desc id="{}-desc">{}</desc>{}{}{}</svg>'
    ).format(
        WIDTH, HEIGHT, name, name, name, escape(title), name, escape(description), grid, Markup().join(marks), ends
    )
