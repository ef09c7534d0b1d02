"""How numbers, spans and moments are written on the page, and what is taken out of messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("jinja2", reason="needs the extra web: pip install 'inboxd[web]'")

from hypothesis import given
from hypothesis import strategies as st

from inboxd.web import charts, words

NOW: Final = datetime(2026, 5, 1, 12, tzinfo=UTC)
VALUES: Final = st.lists(st.integers(0, 10**12), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (3_700, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (-5, "0 s"),
    ],
)
def test_a_span_has_its_two_largest_units(seconds: float, text: str) -> None:
    """A span is cut, never rounded up."""
    assert words.span(seconds) == text
    assert text.startswith(words.rough(seconds))


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-05-01T08:00:01.000000Z", "08:00:01"),
        ("2026-04-30T20:00:00.000000Z", "20:00:00"),
        ("2026-04-30T11:00:00.000000Z", "30 Apr 11:00:00"),
        ("2025-04-30T11:00:00.000000Z", "30 Apr 2025 11:00"),
    ],
)
def test_a_time_of_day_stands_alone_only_where_it_is_clear(moment: str, text: str) -> None:
    """The date is left out for the last 18 hours, within which a time of day comes once."""
    assert words.clock(moment, NOW) == text


@pytest.mark.parametrize(("value", "text"), [(100.0, "100"), (99.9, "99.9"), (0.0, "0"), (50.0, "50")])
def test_a_hundred_per_cent_is_only_said_of_all(value: float, text: str) -> None:
    """A rate comes with one decimal, without a needless zero."""
    assert words.percent(value) == text


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("cannot open /var/lib/inboxd/data/inboxd.db: denied", "cannot open …/inboxd.db: denied"),
        ("cannot open '/a b/c/x.db'", "cannot open '…/x.db'"),
        ("postgresql://me:secret@db.example/inboxd refused", "postgresql://…@db.example/inboxd refused"),
        ("password=hunter2 is wrong", "… is wrong"),
        ("line 1, column 2 (byte 1): and/or 3/4", "line 1, column 2 (byte 1): and/or 3/4"),
    ],
)
def test_messages_lose_folders_and_passwords(message: str, shown: str) -> None:
    """A message keeps what helps, the file's name, and loses where it lies and who may open it."""
    assert words.without_places(message, ["/a b/c"]) == shown


@given(first=VALUES, top=st.integers(0, 10**12))
def test_a_chart_is_well_formed_and_within_its_box(first: list[int], top: int) -> None:
    """Whatever the numbers: valid SVG, with a title and a description, and no bar outside of the box."""
    labels = ['<&>"'] * len(first)
    parts = [charts.Part("good", "loaded", first), charts.Part("bad", "failed", [top] * len(first))]
    axis = charts.Axis(labels, "<first>", "last")
    for chart in (charts.bars("a", "A & B", "<C>", axis, parts), charts.lines("a", "A & B", "<C>", axis, parts)):
        root = ET.fromstring(str(chart))  # noqa: S314 - our own chart
        assert [child.text for child in root[:2]] == ["A & B", "<C>"]
        for mark in root.iter("rect"):
            left, upper = float(mark.attrib["x"]), float(mark.attrib["y"])
            assert left >= charts.LEFT - 0.1
            assert upper >= charts.TOP - 2 * charts.LEAST - 0.1
            assert left + float(mark.attrib["width"]) <= charts.WIDTH + 1
            assert upper + float(mark.attrib["height"]) <= charts.FLOOR + 0.2


@given(value=st.floats(0.001, 1e15))
def test_an_axis_ends_above_its_values(value: float) -> None:
    """The top of a chart is not below its values, and not far above them."""
    assert value * (1 - 1e-9) <= charts.ceiling(value) <= max(4.0, value * 2.5)
