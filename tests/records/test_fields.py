"""Fields: what each type takes, in a file and judged alone, and the codes of what it does not."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inboxd.errors import FileFault
from inboxd.model import Extra, Feed, FieldType, Row
from inboxd.outcomes import Reject
from inboxd.records.fields import compile_feed
from inboxd.records.validate import MAX_DETAIL, judge
from records_feeds import COUNTED, EVENTS, KEEPING, KEY, NESTED, NUMBERED, STRICT, TS, declare, feed_of, read, record
from records_oracle import NOW


def verdict_of(text: bytes, feed: Feed = EVENTS) -> Row | Reject:
    """Judge a record by every road, alone and among good ones; all must agree."""
    alone = judge(text, 1, feed, now=NOW)
    assert alone is not None
    for content in (b"[" + text + b"]", text, text + b"\n" + text)[: 1 if text.startswith(b"[") else 3]:
        rows, rejects = read(content, feed)
        assert repr([*rows, *rejects][0]) == repr(alone)
    return alone


def column(kind: FieldType, text: str, **attributes: Any) -> object:
    """Return what one optional or required field makes of a value: the value, or the code of its refusal."""
    feed = feed_of(KEY, declare("x", kind, **attributes), TS)
    found = verdict_of(f'{{"key":"a","x":{text},"ts":"2026-01-15"}}'.encode(), feed)
    if isinstance(found, Reject):
        assert found.cursor == "2026-01-15T00:00:00.000000Z"
        assert found.record_key == "a"
        return found.code
    return found[1]


TIMES = {
    "2026-01-15T10:30:00Z": "2026-01-15T10:30:00.000000Z",
    "2026-01-15t10:30:00z": "2026-01-15T10:30:00.000000Z",
    "2026-01-15 10:30:00": "2026-01-15T10:30:00.000000Z",
    "2026-01-15T10:30": "2026-01-15T10:30:00.000000Z",
    "2026-01-15": "2026-01-15T00:00:00.000000Z",
    "2026-01-15T10:30:00.1Z": "2026-01-15T10:30:00.100000Z",
    "2026-01-15T10:30:00.123Z": "2026-01-15T10:30:00.123000Z",
    "2026-01-15T10:30:00.123456Z": "2026-01-15T10:30:00.123456Z",
    "2026-01-15T10:30:00.1234569999Z": "2026-01-15T10:30:00.123456Z",
    "2026-01-15T23:59:59.999999999Z": "2026-01-15T23:59:59.999999Z",
    "2026-01-15 10:30:00,123": "2026-01-15T10:30:00.123000Z",
    "2026-01-15T10:30:00,123456Z": "2026-01-15T10:30:00.123456Z",
    "2026-01-15T10:30:00+05:30": "2026-01-15T05:00:00.000000Z",
    "2026-01-15T10:30:00-0800": "2026-01-15T18:30:00.000000Z",
    "2026-01-15 10:30:00+00": "2026-01-15T10:30:00.000000Z",
    "2026-01-15T10:30:00-00:00": "2026-01-15T10:30:00.000000Z",
    "2024-02-29T00:00:00Z": "2024-02-29T00:00:00.000000Z",
    "0001-01-01T00:00:00Z": "0001-01-01T00:00:00.000000Z",
}
NO_TIMES = (
    "2026-01-15T10:30:60Z", "2026-01-15T24:00:00Z", "2026-02-29", "2026-13-01", "2026-00-10", "2026-01-00",
    "2026-W03-4T10:30:00Z", "20260115T103000.000Z", "20260115", "2026-015", "0000-01-01", "10000-01-01",
    "2026-01-15T10:30:00+24:00", "2026-01-15T10:30:00+01:60", "9999-12-31T23:59:59-01:00",
    "0001-01-01T00:00:00+00:01", "2026-01-15X10:30:00Z", "2026-01-15T10:30:00 Z", " 2026-01-15", "2026-01-15 ",
    "2026-1-15", "10:30:00", "now", "yesterday", "1768473000", "٢٠٢٦-٠١-١٥", "2026-01-15T10:30:00.Z",
    "2026-01-15T10Z", "2026-01-15T10:30:00Zz", "2026-01-15T10:30:00+", "2026-01-15T10:30:00Z\n",
    "2026-01-15T1030:00Z", "2026-01-15T10:30:00UTC", "-2026-01-15", "2026-01-15T10:60:00Z",
)  # fmt: skip


@pytest.mark.parametrize("text", TIMES)
def test_timestamps_are_stored_in_utc_with_microseconds(text: str) -> None:
    """RFC 3339 and the common ISO 8601 forms; fractions beyond the microsecond are cut."""
    assert column(FieldType.TIMESTAMP, json.dumps(text)) == TIMES[text]
    assert verdict_of(record(ts=json.dumps(text))) == ("a", "n", 1.5, TIMES[text], 1)


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    """Second 60, hour 24, days that are not, week dates, dense forms, years out of 1 … 9999 are invalid."""
    assert column(FieldType.TIMESTAMP, json.dumps(text)) == "invalid_x"
    refused = verdict_of(record(ts=json.dumps(text)))
    assert isinstance(refused, Reject)
    assert (refused.code, refused.cursor) == ("invalid_timestamp", None)


@pytest.mark.parametrize("odd", (*NO_TIMES, *TIMES))
@pytest.mark.parametrize(
    "usual", ("2026-01-15T10:30:00Z", "2026-01-15 10:30:00.123", "2026-01-15T10:30:00.123456+00:00", "2026-01-15")
)
def test_a_timestamp_of_another_form_is_read_alike_in_any_company(usual: str, odd: str) -> None:
    """One timestamp among many of another form has the verdict it has alone."""
    texts = [usual] * 20 + [odd] + [usual] * 20
    rows, rejects = read(b"[" + b",".join(record(ts=json.dumps(text)) for text in texts) + b"]")
    assert [row[3] for row in rows if row[4] != 21] == [judge(record(ts=json.dumps(usual)), 1, EVENTS, now=NOW)[3]] * 40  # type: ignore[index]
    assert [row[3] for row in rows if row[4] == 21] == ([TIMES[odd]] if odd in TIMES else [])
    assert [reject.record_no for reject in rejects] == ([] if odd in TIMES else [21])


@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(2026, 6, 2)),  # noqa: DTZ001 - naive is what it takes
    st.integers(0, 6),
    st.sampled_from(("T", " ", "t")),
    st.sampled_from(("Z", "", "z", "+00:00", "-00:00", "+0000")),
)
def test_every_moment_keeps_its_value(moment: datetime, digits: int, between: str, zone: str) -> None:
    """A moment written in any of the forms in bulk is stored as that moment."""
    text = moment.isoformat(between, "seconds") + (f".{moment.microsecond:06d}"[: digits + 1] if digits else "") + zone
    rows, rejects = read(b"\n".join([record(ts=json.dumps(text))] * 3))
    assert not rejects
    fraction = f"{moment.microsecond:06d}"[:digits].ljust(6, "0")
    assert {row[3] for row in rows} == {f"{moment.isoformat('T', 'seconds')}.{fraction}Z"}


@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    (
        ("s", "0", "1970-01-01T00:00:00.000000Z"),
        ("s", "1768473000", "2026-01-15T10:30:00.000000Z"),
        ("s", "1768473000.1234569999", "2026-01-15T10:30:00.123456Z"),
        ("s", "1.768473e9", "2026-01-15T10:30:00.000000Z"),
        ("s", "-1", "1969-12-31T23:59:59.000000Z"),
        ("ms", "1768473000123", "2026-01-15T10:30:00.123000Z"),
        ("us", "1768473000123456", "2026-01-15T10:30:00.123456Z"),
        ("us", "253402300799999999", "9999-12-31T23:59:59.999999Z"),
        ("us", "253402300800000000", "invalid_x"),
        ("s", "-62135596800", "0001-01-01T00:00:00.000000Z"),
        ("s", "-62135596801", "invalid_x"),
        ("s", "1e400", "invalid_x"),
        ("s", "1e999999999", "invalid_x"),
        ("s", "1e-999999999", "1970-01-01T00:00:00.000000Z"),
        ("s", "9" * 5_000, "invalid_x"),
        ("s", '"2026-01-15"', "invalid_x"),
        ("s", '"1768473000"', "2026-01-15T10:30:00.000000Z"),
        ("s", '" 1768473000.0000009 "', "2026-01-15T10:30:00.000000Z"),
        ("ns", "1768473000123456789", "2026-01-15T10:30:00.123456Z"),
        ("s", '"x"', "invalid_x"),
        ("s", '" "', "missing_x"),
        ("s", "0." + "9" * 60, "1970-01-01T00:00:00.999999Z"),
        ("s", "true", "invalid_x"),
        ("s", "[]", "invalid_x"),
        ("s", "null", "missing_x"),
    ),
)
def test_epoch_numbers_are_read_in_their_unit(unit: str, text: str, expected: str) -> None:
    """With a unit, a timestamp is a number of seconds, milliseconds or microseconds, exact to the microsecond."""
    assert column(FieldType.TIMESTAMP, text, unit=unit) == expected


REALS = {
    "0": 0.0, "-0": 0.0, "-0.0": -0.0, "12": 12.0, "1.5": 1.5, "1e2": 100.0, "5e-324": 5e-324, "1e-400": 0.0,
    "1.7976931348623157e308": 1.7976931348623157e308, '"12.5"': 12.5, '" 12.5  "': 12.5, '"+3"': 3.0,
    '"-1e3"': -1000.0, "9007199254740993": 9007199254740992.0, "1" * 300: float("1" * 300),
}  # fmt: skip
NO_REALS = (
    "1e400", "-1e400", '"1e400"', "1" * 320, "1" * 5_000, '"NaN"', '"inf"', '"Infinity"', '"0x10"', '"1_000"',
    '"1,5"', '".5"', '"5."', '"01"', '"- 5"', '"1 2"', '""', '" "', '"٣"', '"\\t1"', '"1\\n"', '"abc"', "true",
    "null", "[]", "{}", '"\\u0000"', '"\\ud800"',
)  # fmt: skip


@pytest.mark.parametrize("text", REALS)
def test_real_takes_numbers_and_strings_that_are_numbers(text: str) -> None:
    """A number, or a string that is a JSON number with optional spaces and sign, is stored as its double."""
    found = column(FieldType.REAL, text)
    assert isinstance(found, float)
    assert (found, math.copysign(1, found)) == (REALS[text], math.copysign(1, REALS[text]))


@pytest.mark.parametrize("text", NO_REALS)
def test_real_takes_nothing_else(text: str) -> None:
    """Never NaN, infinities, what overflows a double, or what only Python calls a number."""
    assert column(FieldType.REAL, text) == "invalid_x"


def test_an_absent_value_of_the_seed_is_invalid() -> None:
    """``value`` absent is ``invalid_value``; an absent timestamp is ``missing_timestamp``."""
    assert _code(record(value="")) == "invalid_value"
    assert _code(record(ts="")) == "missing_timestamp"
    assert _code(record(ts="null")) == "missing_timestamp"
    assert _code(record(ts='" "')) == "missing_timestamp"
    assert _code(record(name='""')) == "missing_name"
    assert _code(record(name='"\u00a0\u2003\\t"')) == "missing_name"
    assert _code(record(key="")) == "missing_key"


def _code(text: bytes, feed: Feed = EVENTS) -> str:
    found = verdict_of(text, feed)
    assert isinstance(found, Reject)
    return found.code


@pytest.mark.parametrize("text", ("0", "-0", "9223372036854775807", "-9223372036854775808", "1234567890123456789"))
def test_integers_are_exact_to_64_bits(text: str) -> None:
    """Every 64-bit integer arrives digit for digit."""
    assert column(FieldType.INTEGER, text) == int(text)


@pytest.mark.parametrize(
    "text",
    ("9223372036854775808", "-9223372036854775809", "1" * 400, "1" * 5_000, "1.0", "1e2", '"1"', "true", "null", "[1]"),
)
def test_integer_takes_nothing_but_json_integers(text: str) -> None:
    """Out of 64 bits, with a point or an exponent, in quotes: invalid, never rounded."""
    assert column(FieldType.INTEGER, text) == "invalid_x"


@given(st.lists(st.integers(-(2**64), 2**64), min_size=1, max_size=8))
def test_columns_of_integers_are_exact(numbers: list[int]) -> None:
    """Each integer of a file is stored as it is, or refused for its size."""
    texts = [f'{{"key":"a","count":{number}}}'.encode() for number in numbers]
    rows, rejects = read(b"[" + b",".join(texts) + b"]", COUNTED)
    fits = [number for number in numbers if -(2**63) <= number < 2**63]
    assert [row[1] for row in rows] == fits
    assert {reject.code for reject in rejects} <= {"invalid_n"}


@pytest.mark.parametrize(
    ("text", "expected"),
    (
        ("true", True),
        ("false", False),
        ("1", "invalid_x"),
        ("0", "invalid_x"),
        ('"true"', "invalid_x"),
        ("null", "invalid_x"),
    ),
)
def test_boolean_takes_only_true_and_false(text: str, expected: object) -> None:
    """No number and no text is a boolean."""
    assert column(FieldType.BOOLEAN, text) is expected or column(FieldType.BOOLEAN, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    (
        ('"2026-01-15"', "2026-01-15"),
        ('"2026-02-29"', "invalid_x"),
        ('"2026-01-15T00:00:00Z"', "invalid_x"),
        ('"20260115"', "invalid_x"),
        ('"2026-W03-4"', "invalid_x"),
        ('"0000-01-01"', "invalid_x"),
        ("20260115", "invalid_x"),
        ("null", "missing_x"),
        ('""', "missing_x"),
    ),
)
def test_a_date_is_a_day_and_no_more(text: str, expected: str) -> None:
    """A date is ``2026-01-15``; a time of day would be lost, so it is refused."""
    assert column(FieldType.DATE, text) == expected


NAUGHTY = (
    "x", " x ", "\u200b", "\u00adx", "\ufeff", "\ufffe", "\uffff", "\U0010ffff", "Ω≈ç√", "田中さん", "👾🙇💁", "🇺🇸",
    "ﷺ", "ٱلله", "Z̮̞̠͙͔ͅ", "\u202etest\u202c", "';DROP TABLE target;--", "\\", '"', "/", "<script>", "${jndi:x}", "\x01\x02",
    "\x7f\x80\x9f", "\r\n\t x", "None", "null", "NaN", "1e5", "{}", "},{",
)  # fmt: skip


@pytest.mark.parametrize("text", NAUGHTY)
@pytest.mark.parametrize("escaped", (True, False))
def test_text_arrives_as_it_was_sent(text: str, *, escaped: bool) -> None:
    """Any Unicode scalar values but U+0000, escaped or not, are stored character for character."""
    assert column(FieldType.TEXT, json.dumps(text, ensure_ascii=escaped)) == text


@pytest.mark.parametrize(
    "text",
    ("5", "true", "[]", "{}", '"\\u0000"', '"a\\u0000b"', '"\\ud800"', '"x\\udc00"', '"\\ud800\\ud800"', "1e400"),
)
def test_text_takes_only_storable_strings(text: str) -> None:
    """U+0000, lone surrogates and what is no string are refused, and the raw text is kept as it stood."""
    assert column(FieldType.TEXT, text) == "invalid_x"
    content = record(name=text)
    rejects = read(b"[" + record() + b"," + content + b"]")[1]
    assert [reject.raw for reject in rejects] == [content.decode()]
    assert "\0" not in rejects[0].detail
    assert rejects[0].detail.encode()


def test_a_lone_surrogate_matters_only_in_a_declared_field() -> None:
    """Its escape is JSON; in a field that nobody asked for it harms nothing."""
    rows, rejects = read(b"[" + record() + b"," + record(more='"\\ud800"') + b"," + record() + b"]")
    assert [row[-1] for row in rows] == [1, 2, 3]
    assert not rejects


LIMITS: tuple[tuple[FieldType, dict[str, object], str, object], ...] = (
    (FieldType.TEXT, {"min_length": 2}, '"é"', "invalid_x"),
    (FieldType.TEXT, {"min_length": 2}, '"éé"', "éé"),
    (FieldType.TEXT, {"max_length": 2}, '"😀😀"', "😀😀"),
    (FieldType.TEXT, {"max_length": 2}, '"abc"', "invalid_x"),
    (FieldType.TEXT, {"pattern": "^[A-Z]{3}$"}, '"ABC"', "ABC"),
    (FieldType.TEXT, {"pattern": "^[A-Z]{3}$"}, '"AB"', "invalid_x"),
    (FieldType.TEXT, {"pattern": "B"}, '"ABC"', "ABC"),
    (FieldType.TEXT, {"choices": ("a", "b")}, '"b"', "b"),
    (FieldType.TEXT, {"choices": ("a", "b")}, '"c"', "invalid_x"),
    (FieldType.INTEGER, {"minimum": 3}, "3", 3),
    (FieldType.INTEGER, {"minimum": 3}, "2", "invalid_x"),
    (FieldType.INTEGER, {"maximum": 3}, "4", "invalid_x"),
    (FieldType.INTEGER, {"choices": (1, 2)}, "2", 2),
    (FieldType.INTEGER, {"choices": (1, 2)}, "3", "invalid_x"),
    (FieldType.REAL, {"minimum": 0.5, "maximum": 1.5}, '"1.5"', 1.5),
    (FieldType.REAL, {"minimum": 0.5, "maximum": 1.5}, "1.51", "invalid_x"),
    (FieldType.DATE, {"minimum": "2026-01-02"}, '"2026-01-01"', "invalid_x"),
    (FieldType.TIMESTAMP, {"maximum": "2026-01-01T00:00:00.000000Z"}, '"2026-01-01T00:00:00.000001Z"', "invalid_x"),
    (
        FieldType.TIMESTAMP,
        {"maximum": "2026-01-01T00:00:00.000000Z"},
        '"2026-01-01T01:00:00+01:00"',
        "2026-01-01T00:00:00.000000Z",
    ),
    (FieldType.TEXT, {"required": False}, "null", None),
    (FieldType.TEXT, {"required": False}, '""', ""),
    (FieldType.TEXT, {"required": False, "default": "d"}, "null", "d"),
    (FieldType.TEXT, {"required": False}, "5", "invalid_x"),
    (FieldType.REAL, {"required": False}, "null", None),
    (FieldType.REAL, {"required": False, "default": 1.0}, "null", 1.0),
    (FieldType.REAL, {"required": False, "default": 1.0}, '""', "invalid_x"),
    (FieldType.BOOLEAN, {"required": False, "default": False}, "null", False),
    (FieldType.TIMESTAMP, {"required": False}, '""', "invalid_x"),
    (FieldType.JSON, {"required": False}, "null", None),
    (FieldType.JSON, {"required": False, "default": "{}"}, "null", "{}"),
)


@pytest.mark.parametrize(("kind", "attributes", "text", "expected"), LIMITS)
def test_a_field_keeps_its_limits(kind: FieldType, attributes: dict[str, Any], text: str, expected: object) -> None:
    """Lengths in characters, patterns found anywhere, ranges, choices, defaults for what is absent or null."""
    assert column(kind, text, **attributes) == expected


def test_a_default_stands_for_an_absent_field() -> None:
    """An absent field with a default has it; without one, and not required, it is NULL."""
    feed = feed_of(KEY, declare("a", required=False), declare("b", FieldType.INTEGER, default=7), TS)
    assert verdict_of(b'{"key":"k","ts":"2026-01-15"}', feed)[1:3] == (None, 7)  # type: ignore[index]


JSON_KEPT = (
    '{"b": 1.50,\n "a":[1e2 , 2]}',
    "[]",
    "5",
    "1.000",
    "123456789012345678901234567890",
    '"x"',
    "true",
    "1e1000",
    "1e-1000",
    '"\\u0041\\\\u0000"',
    '{"a":1,"a":2}',
)
JSON_REFUSED = (
    '"\\u0000"',
    '["a\\u0000"]',
    '{"\\u0000":1}',
    '"\\ud800"',
    '[{"\\udfff":1}]',
    "1e1001",
    "[1E-1001]",
    '{"a":[1e99999]}',
    "1e+0001001",
    "1" * 20_000,
)


@pytest.mark.parametrize("text", JSON_KEPT)
def test_json_keeps_the_source_text(text: str) -> None:
    """A ``json`` field holds exactly what stood in the file: spaces, digits and order."""
    assert column(FieldType.JSON, text) == text
    assert column(FieldType.JSON, f" \n{text}\t") == text


@pytest.mark.parametrize("text", JSON_REFUSED)
def test_json_refuses_what_postgresql_cannot_store(text: str) -> None:
    """U+0000, lone surrogates, exponents beyond ±1000, and numbers of very many digits."""
    assert column(FieldType.JSON, text) == "invalid_x"
    refused = verdict_of(f'{{"key":"a","more":{text},"ts":"2026-01-15"}}'.encode(), KEEPING)
    assert isinstance(refused, Reject)
    assert refused.code == "invalid_extra"


@pytest.mark.parametrize("text", ("null", '""', '" \\u00a0"'))
def test_a_required_json_field_may_not_be_blank(text: str) -> None:
    """Null and blank strings are ``missing``."""
    assert column(FieldType.JSON, text) == "missing_x"


def test_extra_fields_are_kept_with_their_source_text() -> None:
    """With ``extra = "keep"`` what the feed does not declare is one JSON object; without any, NULL."""
    text = b'{"a": 1.50, "key":"k", "b":{"x" : [1, 2]}, "ts":"2026-01-15", "a":[ ]}'
    assert verdict_of(text, KEEPING) == ("k", None, "2026-01-15T00:00:00.000000Z", '{"a":[ ],"b":{"x" : [1, 2]}}', 1)
    assert verdict_of(b'{"key":"k","ts":"2026-01-15"}', KEEPING) == ("k", None, "2026-01-15T00:00:00.000000Z", None, 1)


def test_extra_fields_are_refused_after_all_others() -> None:
    """``unexpected_field`` is the code only where the declared fields are right."""
    refused = verdict_of(b'{"key":"k","count":1,"ts":"2026-01-15","b":1,"c":2}', STRICT)
    assert isinstance(refused, Reject)
    assert (refused.code, refused.detail) == ("unexpected_field", "extra: unexpected_field ('b', 'c')")
    assert _code(b'{"key":"k","count":3,"ts":"2026-01-15","b":1}', STRICT) == "invalid_count"


def test_the_first_fault_is_the_code_and_all_are_in_the_detail() -> None:
    """Fields are checked in the feed's order, whatever theirs is in the record."""
    refused = verdict_of(b'{"ts":"x","value":"abc","name":null,"key":"k"}')
    assert isinstance(refused, Reject)
    assert refused.code == "missing_name"
    assert refused.detail == (
        "name: missing_name (null); value: invalid_value ('abc' is not a number); "
        "ts: invalid_timestamp ('x' is not a timestamp)"
    )
    assert (refused.record_key, refused.cursor, refused.record_no) == ("k", None, 1)


def test_the_detail_is_bounded() -> None:
    """A value of any size is shown in part."""
    fields = [declare(f"field_{n}", label="l" * 100) for n in range(100)]
    feed = feed_of(KEY, *fields, TS)
    text = json.dumps({f"field_{n}": [n] for n in range(100)} | {"key": "x" * 10**6, "ts": "y" * 10**6}).encode()
    refused = judge(text, 1, feed, now=NOW)
    assert isinstance(refused, Reject)
    assert len(refused.detail) == MAX_DETAIL


def test_the_cursor_of_a_refused_record_is_told() -> None:
    """Stale is not invalid: a cursor that can be read is told, also with other faults, and when it is in the future."""
    refused = verdict_of(record(name="null"))
    assert isinstance(refused, Reject)
    assert refused.cursor == "2026-01-15T10:30:00.000000Z"
    ahead = verdict_of(record(ts='"2026-06-02T12:00:00.000001Z"', value="null"))
    assert isinstance(ahead, Reject)
    assert (ahead.code, ahead.cursor) == ("invalid_value", "2026-06-02T12:00:00.000001Z")
    assert _code(record(ts='"2026-06-02T12:00:00.000001Z"')) == "future_timestamp"
    assert not isinstance(verdict_of(record(ts='"2026-06-02T12:00:00Z"')), Reject)


def test_a_date_cursor_may_be_as_far_ahead_as_a_timestamp() -> None:
    """With 24 hours, tomorrow is allowed and the day after is not."""
    assert verdict_of(b'{"count":1,"day":"2026-06-02"}', NUMBERED) == (1, "2026-06-02", None, "1", 1)
    assert _code(b'{"count":1,"day":"2026-06-03"}', NUMBERED) == "future_day"


def test_integer_cursors_know_no_future() -> None:
    """A counter is no clock."""
    assert verdict_of(b'{"key":"a","count":9223372036854775807}', COUNTED) == ("a", 9223372036854775807, 1)


def test_an_endless_max_future_is_no_fault() -> None:
    """A limit past the year 9999 allows every timestamp."""
    feed = feed_of(*EVENTS.fields, max_future_s=1e15)
    assert verdict_of(record(ts='"9999-12-31T23:59:59.999999Z"'), feed)[3] == "9999-12-31T23:59:59.999999Z"  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "expected"),
    (
        (b'{"key":"a","key":"b","name":"n","value":1,"ts":"2026-01-15"}', "b"),
        (b'{"key":"a","k\\u0065y":"b","name":"n","value":1,"ts":"2026-01-15"}', "b"),
        (b'{"key":5,"key":"b","name":"n","value":1,"ts":"2026-01-15"}', "invalid_key"),
        (b'{"key":"a","name":"","name":"n","value":1,"ts":"2026-01-15"}', "missing_name"),
        (b'{"key":"a","name":"n","n\\u0061me":null,"value":1,"ts":"2026-01-15"}', "missing_name"),
        (b'{"key":"a","name":"n","value":1,"value":"x","value":2,"ts":"2026-01-15"}', "invalid_value"),
        (b'{"key":"a","name":"n","value":1,"ts":"x","ts":"2026-01-15"}', "invalid_timestamp"),
    ),
)
def test_a_name_twice_is_refused_if_any_value_is_invalid(text: bytes, expected: str) -> None:
    """Of valid values the last one counts; the name may be written with escapes."""
    found = verdict_of(text)
    assert (found.code if isinstance(found, Reject) else found[0]) == expected
    rows, rejects = read(b"[" + b",".join([record()] * 30 + [text] + [record()] * 30) + b"]")
    assert len(rows) + len(rejects) == 61
    assert (rejects[0].code if rejects else rows[30][0]) == expected


def test_an_unreadable_cursor_among_two_is_no_cursor() -> None:
    """A cursor that is there twice can be read only if both can."""
    refused = verdict_of(b'{"key":"a","name":"n","value":1,"ts":"x","ts":"2026-01-15"}')
    assert isinstance(refused, Reject)
    assert refused.cursor is None


def test_a_path_leads_through_objects_only() -> None:
    """A field inside something that is no object is absent."""
    good = b'{"actor":{"repo":"r","stats":{"count":2}},"ts":"2026-01-15"}'
    assert verdict_of(good, NESTED) == ("r", 2, None, "2026-01-15T00:00:00.000000Z", '["r",2]', 1)
    for bad in (b'"x"', b"null", b"[]", b"5", b"{}", b'[{"repo":"r"}]'):
        text = b'{"actor":' + bad + b',"ts":"2026-01-15"}'
        assert _code(text, NESTED) == "missing_repo"
        rows, rejects = read(b"\n".join([good, text, good]), NESTED)
        assert ([row[-1] for row in rows], [reject.record_no for reject in rejects]) == ([1, 3], [2])


@pytest.mark.parametrize("more", ("", ',"other":{"repo":1,"count":"x","actor":{"repo":2}}'))
def test_a_name_twice_on_the_way_is_refused_if_any_value_is_invalid(more: str) -> None:
    """The rule holds inside objects, and for the objects on the way; names that stand elsewhere are nothing to it."""
    good = '{"actor":{"repo":"r","stats":{"count":2}},"ts":"2026-01-15"' + more + "}"
    inner = good.replace('"repo":"r"', '"repo":5,"repo":"r"')
    outer = good.replace('{"actor"', '{"actor":{"repo":"q","stats":{"count":"x"}},"actor"')
    right = good.replace('"repo":"r"', '"repo":"q","repo":"r"')
    texts = [good, inner, good, outer, right, good]
    rows, rejects = read("\n".join(texts).encode(), NESTED)
    assert [(row[0], row[-1]) for row in rows] == [("r", 1), ("r", 3), ("r", 5), ("r", 6)]
    assert [(reject.code, reject.record_no) for reject in rejects] == [("invalid_repo", 2), ("invalid_count", 4)]
    for number, text in enumerate(texts, 1):
        assert judge(text.encode(), number, NESTED, now=NOW) in (*rows, *rejects)


def test_names_that_stand_elsewhere_too_are_no_doubles() -> None:
    """A declared name inside another object, or as a value, is nothing to the field."""
    text = record(more='{"key":"z","name":["name","ts"],"ts":null}')
    assert verdict_of(text) == ("a", "n", 1.5, "2026-01-15T10:30:00.000000Z", 1)


@pytest.mark.parametrize("text", (b"7", b"-9223372036854775809", b'" 7.0 "', b"7e0"))
def test_a_number_out_of_range_is_told_in_the_same_words_on_every_road(text: bytes) -> None:
    """However a number is written, alone or among others, the detail names the double that it stands for."""
    feed = feed_of(KEY, declare("value", FieldType.REAL, minimum=10.0), TS)
    good, bad = record(name=""), record(name="", value=text.decode())
    refused = verdict_of(bad, feed)
    assert isinstance(refused, Reject)
    assert refused.detail in {
        "value: invalid_value (7.0 is below 10.0)",
        "value: invalid_value (-9.223372036854776e+18 is below 10.0)",
    }
    for content in (
        b"[" + bad + b"]",
        b"[" + good.replace(b"1.5", b"50") + b"," + bad + b"," + record(value="{}") + b"]",
    ):
        found = [reject.detail for reject in read(content, feed)[1] if b"{}" not in reject.raw.encode()]
        assert found == [refused.detail]


@pytest.mark.parametrize(
    ("feed", "text", "key"),
    (
        (EVENTS, record(value="null"), "a"),
        (EVENTS, record(key="5"), "?"),
        (EVENTS, record(key='""'), "?"),
        (EVENTS, record(key='"' + "é" * 512 + '"', name="null"), "é" * 512),
        (EVENTS, record(key='"' + "é" * 513 + '"'), "?"),
        (EVENTS, b"[1]", "?"),
        (NUMBERED, b'{"count":7}', "7"),
        (NUMBERED, b'{"count":"7"}', "?"),
        (NESTED, b'{"actor":{"repo":"\xc3\xa9\\"","stats":{"count":2}}}', '["é\\"",2]'),
        (NESTED, b'{"actor":{"repo":"r"}}', "?"),
    ),
)
def test_a_refused_record_tells_its_key(feed: Feed, text: bytes, key: str) -> None:
    """The key's text; of several columns a JSON array; ``?`` when it cannot be read."""
    refused = verdict_of(text, feed)
    assert isinstance(refused, Reject)
    assert refused.record_key == key
    assert refused.raw == text.decode()


def test_a_key_is_at_most_1024_bytes_in_all() -> None:
    """The key's text is measured in UTF-8; of several columns the longest is named."""
    assert not isinstance(verdict_of(record(key='"' + "k" * 1024 + '"')), Reject)
    assert _code(record(key='"' + "k" * 1025 + '"')) == "invalid_key"
    assert not isinstance(verdict_of(record(key='"' + "é" * 512 + '"')), Reject)
    assert _code(record(key='"' + "\\u00e9" * 513 + '"')) == "invalid_key"
    feed = feed_of(declare("a"), declare("b"), TS, key="a b")
    long = json.dumps({"a": "x" * 500, "b": "y" * 600, "ts": "2026-01-15"}).encode()
    assert _code(long, feed) == "invalid_b"
    fits = json.dumps({"a": "x" * 500, "b": "y" * 500, "ts": "2026-01-15"}).encode()
    rows, rejects = read(b"\n".join([fits, long, fits]), feed)
    assert ([row[-1] for row in rows], [reject.code for reject in rejects]) == ([1, 3], ["invalid_b"])


def test_the_judge_wants_one_json_value() -> None:
    """A raw text that somebody mended badly is refused as a file would be."""
    for raw, code in (
        (b"{", "invalid_json"),
        (b"{} {}", "invalid_json"),
        (b'{"a":"\xff"}', "invalid_encoding"),
        (b"[" * 300, "nesting_too_deep"),
        (b"", "invalid_json"),
    ):
        with pytest.raises(FileFault) as caught:
            judge(raw, 1, EVENTS, now=NOW)
        assert caught.value.code == code
        assert caught.value.place is not None
    assert judge(b" \n" + record() + b"\n", 3, EVENTS, now=NOW)[-1] == 3  # type: ignore[index]


def test_a_feed_is_compiled_once() -> None:
    """Compiling is cached by the feed's value."""
    assert compile_feed(feed_of(*EVENTS.fields)) is compile_feed(feed_of(*EVENTS.fields))


def test_bad_records_anywhere_leave_the_others_alone() -> None:
    """Whatever is wrong with one record in ten, each record has the verdict it has alone, in file order."""
    chance = random.Random(11)
    kinds = (
        record(name='" "'), record(value='"abc"'), record(value='" 7 "'), record(ts='"yesterday"'),
        record(ts='"2026-02-30T00:00:00Z"'), record(key="null"), record(ts='"2031-01-01T00:00:00Z"'), b"5", b"null",
        b'"x"', record(value="1e400"), record(more='"\\ud800"'), record(name='"\\u0000"'), b"{}",
        record(more='{"key":1}'), b'{"key":"a","key":"b"}', record(key='"' + "k" * 2000 + '"'),
        record(ts='"2026-01-15 10:30:00"'), record(name='"\\u00a0"'),
    )  # fmt: skip
    texts = [chance.choice(kinds) if chance.random() < 0.1 else record(key=f'"u{n}"') for n in range(3_000)]
    expected = [judge(text, number, EVENTS, now=NOW) for number, text in enumerate(texts, 1)]
    rows, rejects = read(b"[" + b",\n".join(texts) + b"]", window=20_000)
    assert rows == [verdict for verdict in expected if not isinstance(verdict, Reject)]
    assert rejects == [verdict for verdict in expected if isinstance(verdict, Reject)]
    assert len(rejects) > 100


def test_the_clock_is_given_not_asked() -> None:
    """The same record is judged by the ``now`` that it is judged with."""
    text = record(ts='"2030-01-01T00:00:00Z"')
    assert isinstance(judge(text, 1, EVENTS, now=NOW), Reject)
    assert not isinstance(judge(text, 1, EVENTS, now=datetime(2030, 1, 1, tzinfo=UTC)), Reject)
    assert Extra.IGNORE is EVENTS.extra
