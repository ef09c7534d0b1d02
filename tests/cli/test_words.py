"""How numbers, spans and moments are written for people, and what is taken out of messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inboxd import words

NOW: Final = datetime(2026, 5, 1, 12, tzinfo=UTC)


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


@pytest.mark.parametrize(
    ("seconds", "text"), [(125, "2 min 5 s"), (0, "0 s"), (-0.3, "0 s"), (-7_200, "ahead by 2 h"), (90_000, "1 d 1 h")]
)
def test_a_watermark_ahead_of_the_clock_is_said_to_be_so(seconds: float, text: str) -> None:
    """A sender's clock may be ahead: then the watermark is not told to be on time."""
    assert words.lag(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1_258_291, "1.2 MiB"), (1_048_064, "1024 KiB")]
)
def test_a_size_is_in_powers_of_1024(size: int, text: str) -> None:
    """Sizes have the units that the config takes."""
    assert words.size(size) == text


@given(value=st.integers(0, 10**15))
def test_no_number_is_written_with_an_exponent(value: int) -> None:
    """However large, a size and a chart's number are read at a glance, and are right to half a per cent."""
    units = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
    amount, unit = words.size(value).split(" ")
    short = words.short(value)
    assert "e" not in amount + short
    assert float(amount) * units[unit] == pytest.approx(value, rel=0.005, abs=0.5)
    powers = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    assert float(short.rstrip("kMGT")) * powers.get(short[-1], 1) == pytest.approx(value, rel=0.005, abs=0.5)
