"""Durations, sizes and limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inboxd.config.values import (
    LONGEST_S,
    format_duration,
    format_limit,
    format_size,
    parse_duration,
    parse_keep,
    parse_limit,
    parse_size,
)
from inboxd.model import Limit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("100ms", 0.1),
        ("0s", 0.0),
        ("5s", 5.0),
        ("1.5m", 90.0),
        ("24h", 86_400.0),
        ("30d", 2_592_000.0),
        ("2w", 1_209_600.0),
        (" 5 s ", 5.0),
        ("0.1s", 0.1),
    ],
)
def test_a_duration_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    """Durations are written as people say them, and mean exactly that many seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["5", "", "s", "-5s", "5 parsecs", "1h30m", "5S", "1e3s", "\u0665s", "101000000w", True, None]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """A number without a unit is never taken for seconds, as it might be milliseconds."""
    with pytest.raises(ValueError, match=r"must be a duration|longer than"):
        parse_duration(text)


def test_forever_is_a_way_to_say_never_remove() -> None:
    """What is kept "forever" is never removed."""
    assert parse_keep("forever") is None
    assert parse_keep("90d") == 90 * 86_400
    with pytest.raises(ValueError, match='or "forever"'):
        parse_keep("for ever")


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GiB", 16 * 2**30), ("500MB", 500_000_000), ("1B", 1), ("1.5KiB", 1536), ("10 kB", 10_000), ("2TiB", 2**41)],
)
def test_a_size_is_a_number_with_its_unit(text: str, size: int) -> None:
    """Sizes are bytes, in powers of 1024 (KiB) or of 1000 (kB)."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["16", 16, "0B", "0.5B", "1gib", "-1B", "8388608TiB", ""])
def test_what_is_no_size_is_refused(text: object) -> None:
    """A size without a unit, or of no bytes at all, is refused."""
    with pytest.raises(ValueError, match="must be"):
        parse_size(text)


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        ("100%", Limit(share=1.0)),
        ("0.5%", Limit(share=0.005)),
        ("0%", Limit(share=0.0)),
        (0, Limit(count=0)),
        (12, Limit(count=12)),
    ],
)
def test_a_limit_is_a_share_or_a_count(value: object, limit: Limit) -> None:
    """``max_rejected`` is a share of the records in per cent, or a number of records."""
    assert parse_limit(value) == limit


@pytest.mark.parametrize("value", ["101%", "-1%", -1, 1.5, "12", True, "%", None])
def test_what_is_no_limit_is_refused(value: object) -> None:
    """A share above all of the records, or a text that may mean either, is refused."""
    with pytest.raises(ValueError, match="must be a share"):
        parse_limit(value)


@given(st.integers(min_value=0, max_value=LONGEST_S * 1000))
def test_a_shown_duration_reads_as_itself(milliseconds: int) -> None:
    """What ``config show`` prints means the same when it is put into a config."""
    seconds = parse_duration(f"{milliseconds}ms")
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=1, max_value=2**63 - 1))
def test_a_shown_size_reads_as_itself(size: int) -> None:
    """The same holds for sizes."""
    assert parse_size(format_size(size)) == size


@given(st.one_of(st.integers(0, 10_000).map(lambda n: f"{n / 100}%"), st.integers(0, 10**9)))
def test_a_shown_limit_reads_as_itself(value: str | int) -> None:
    """The same holds for limits."""
    limit = parse_limit(value)
    assert parse_limit(format_limit(limit)) == limit
