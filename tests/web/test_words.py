"""The page's charts, for any numbers."""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from inboxd.web import charts
from inboxd.web.render import with_commands

VALUES: Final = st.lists(st.integers(0, 10**12), min_size=1, max_size=60)


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


def test_a_command_in_a_hint_is_marked_and_nothing_else_is() -> None:
    """What stands in backticks is code; whatever a name in the hint is made of stays text."""
    marked = with_commands("run `inboxd retry <b>` for <i>a</i>")
    assert str(marked) == 'run <code class="typed">inboxd retry &lt;b&gt;</code> for &lt;i&gt;a&lt;/i&gt;'
