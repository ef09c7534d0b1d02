"""The forms in which values are written, each against an oracle of the standard library."""

from __future__ import annotations

import json
import locale
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from inboxd.config.faults import Faults
from inboxd.config.moments import check_format
from inboxd.fieldtypes import TYPES, plain_decimal
from inboxd.model import Field, FieldType, Mode, Scalar
from inboxd.operate import target, undo_sql
from inboxd.records import kinds
from records_feeds import feed_of, read

WORDS = ("2026", "15", "01", "1", "31", "30", "29", "Jan", "feb", "MARCH", "Mon", "sunday", ":", "-", ".", " ", "PM",
         "am", "+0100", "Z", "12", "23", "59", "60", "7", "53", "000001", "é")  # fmt: skip
WITH_FRACTION = ("%d.%m.%Y %H:%M:%S.%f",)
FORMATS = (
    "%d-%m-%Y %H:%M:%S", "%Y%m%d", "%b %d %Y %I:%M %p", "%A, %d %B %y", "%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%j", "%G-%V-%u",
    "%d/%b/%Y:%H:%M:%S %z", "%f%Y%m%d", "%%%d.%m.%Y", "%H%M%S%d%m%y", "%a %d %b %Y",
)  # fmt: skip


def value_of(kind: FieldType, source: str, **attributes: Any) -> Scalar | str:
    """Return what becomes of one value, alone and among a hundred others: its stored form, or the code of its fault."""
    feed = feed_of(Field("x", kind, ("x",), "x", **attributes), key="", cursor="x")
    feed = replace(feed, key=(), cursor=None, mode=Mode.APPEND)
    one = f'{{"x":{source}}}'.encode()
    rows, rejects = read(one, feed)
    many_rows, many_rejects = read(b"[" + b",".join([one] * 100) + b"]", feed)
    assert (len(many_rows), len(many_rejects)) == (100 * len(rows), 100 * len(rejects))
    found = rows[0][0] if rows else rejects[0].code
    assert all(row[0] == found for row in many_rows)
    assert all(reject.code == found for reject in many_rejects)
    return found


def canonical(moment: datetime) -> str:
    """Return a moment as it is stored."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


@settings(max_examples=100)
@given(st.data())
def test_a_format_is_read_as_strptime_reads_it(data: st.DataObject) -> None:
    """What was written by ``strftime``, and what only looks like it."""
    text = data.draw(st.sampled_from(FORMATS))
    moment = data.draw(st.datetimes(datetime(1969, 1, 2), datetime(2068, 12, 30)))  # noqa: DTZ001 - its zone is drawn
    zone = timezone(timedelta(minutes=data.draw(st.integers(-700, 700))))
    written = moment.replace(tzinfo=zone).strftime(text)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(written)))
        written = written[:at] + data.draw(st.sampled_from(WORDS)) + written[at + data.draw(st.integers(0, 2)) :]
    found: datetime | None = None
    expected = day = "invalid_x"
    with suppress(ValueError, OverflowError):
        read_by_strptime = datetime.strptime(written, text)  # noqa: DTZ007 - as the text has it
        zoned = read_by_strptime if read_by_strptime.tzinfo else read_by_strptime.replace(tzinfo=UTC)
        expected, day, found = canonical(zoned), zoned.date().isoformat(), zoned
    if not written.isascii() or not written.strip() or ("%f" in text and found is None):
        return  # digits beyond the microsecond are cut here, as everywhere
    if found is not None and "%G" in text and found.isocalendar()[:2] != tuple(map(int, written.split("-")[:2])):
        return  # strptime counts a 53rd week that the year has not into the next one
    assert value_of(FieldType.TIMESTAMP, json.dumps(written), formats=(text,)) == expected
    if "%H" not in text and "%I" not in text:
        assert value_of(FieldType.DATE, json.dumps(written), formats=(text,)) == day


def test_of_several_formats_the_first_that_fits_counts() -> None:
    """Day first, or month first: the order of the list decides."""
    for formats, day in ((("%d/%m/%Y", "%m/%d/%Y"), "2026-02-01"), (("%m/%d/%Y", "%d/%m/%Y"), "2026-01-02")):
        assert value_of(FieldType.DATE, '"01/02/2026"', formats=formats) == day
        assert value_of(FieldType.DATE, '"31/01/2026"', formats=formats) == "2026-01-31"
    assert value_of(FieldType.DATE, '" "', formats=("%Y%m%d",)) == "missing_x"
    cut = value_of(FieldType.TIMESTAMP, '"20260115101112.1234567"', formats=("%Y%m%d%H%M%S.%f",))
    assert cut == "2026-01-15T10:11:12.123456Z"


def test_names_of_months_are_english_whatever_the_locale() -> None:
    """A German host reads ``Oct`` and not ``Okt``."""
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C"):
            with suppress(locale.Error):  # whichever of them the machine has
                locale.setlocale(locale.LC_TIME, name)
            assert value_of(FieldType.DATE, '"3 OCT 2026"', formats=("%d %b %Y",)) == "2026-10-03"
            assert value_of(FieldType.DATE, '"3 Okt 2026"', formats=("%d %b %Y",)) == "invalid_x"
    finally:
        locale.setlocale(locale.LC_TIME, before)


@pytest.mark.parametrize("text", FORMATS)
def test_every_format_of_these_tests_is_one_that_the_config_takes(text: str) -> None:
    """What the config refuses never reaches a record."""
    faults = Faults()
    check_format(text, ("format",), faults, dates=False)
    assert not faults.items()


@settings(max_examples=100)
@given(
    st.booleans(),
    st.datetimes(datetime(1980, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - without a zone is what this is about
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
)
def test_a_time_without_an_offset_is_in_the_feeds_zone(near_a_change: object, moment: datetime, name: str) -> None:
    """One that a change of the clocks leaves out is invalid, one that it has twice is the first."""
    zone = ZoneInfo(name)
    moment = moment.replace(fold=0)  # text does not tell the two of an hour apart, so the first is expected
    if near_a_change:
        moment = moment.replace(month=10 if moment.day % 2 else 3, hour=moment.hour % 4, day=25 + moment.day % 7)
    there = moment.replace(tzinfo=zone)
    back = there.astimezone(UTC).astimezone(zone).replace(tzinfo=None)
    expected = canonical(there) if back == moment else "invalid_x"
    assert value_of(FieldType.TIMESTAMP, json.dumps(moment.isoformat()), timezone=name) == expected
    written = moment.strftime("%d.%m.%Y %H:%M:%S.%f")
    assert value_of(FieldType.TIMESTAMP, json.dumps(written), timezone=name, formats=WITH_FRACTION) == expected
    with_offset = moment.replace(tzinfo=timezone(timedelta(hours=2)))
    assert value_of(FieldType.TIMESTAMP, json.dumps(with_offset.isoformat()), timezone=name) == canonical(with_offset)


EPOCHS = st.one_of(
    st.integers(-(10**11), 10**11).map(str),
    st.decimals(-(10**10), 10**10, allow_nan=False, places=9).map(lambda number: f"{number:f}"),
    st.sampled_from(["0", "-0", "1e9", "1.5E+9", "-1e-9", "0." + "9" * 70, "9" * 40, "1e400", "253402300799.9999999"]),
)


@settings(max_examples=100)
@given(EPOCHS, st.sampled_from(["s", "ms", "us", "ns"]), st.booleans())
def test_an_epoch_number_is_exact_and_cut_at_the_microsecond(number: str, unit: str, quoted: object) -> None:
    """As a number or as text, with any fraction; never rounded."""
    scaled = Decimal(number).as_tuple()
    exponent = int(scaled.exponent) + {"s": 6, "ms": 3, "us": 0, "ns": -3}[unit]
    digits = "".join(map(str, scaled.digits))
    whole = digits + "0" * exponent if exponent >= 0 else digits[:exponent] or "0"
    microseconds = int(whole) * (-1 if scaled.sign else 1) if len(whole) < 30 else 10**29
    try:
        expected = canonical(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds))
    except OverflowError:
        expected = "invalid_x"
    source = json.dumps(f" {number} ") if quoted else number
    assert value_of(FieldType.TIMESTAMP, source, unit=unit) == expected


NUMBERS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?\Z")


@settings(max_examples=100)
@given(NUMBERS, st.sampled_from(["", "+", " "]))
def test_a_decimal_keeps_every_digit(number: str, before: str) -> None:
    """In one form: plain digits with the scale as given."""
    scaled = Decimal(number)
    expected = f"{scaled or scaled.copy_abs():f}"
    if not scaled and int(scaled.as_tuple().exponent) >= 0:
        expected = "0"
    assert value_of(FieldType.DECIMAL, number) == expected
    if before == " " or not number.startswith("-"):
        assert value_of(FieldType.DECIMAL, json.dumps(before + number)) == expected
    assert plain_decimal(expected) == expected


@pytest.mark.parametrize(
    ("source", "attributes", "expected"),
    [
        ('"x"', {}, "invalid_x"), ("true", {}, "invalid_x"), ('""', {}, "invalid_x"), ("null", {}, "invalid_x"),
        ("[1]", {}, "invalid_x"), ("9" * 1_000, {}, "9" * 1_000), ("9" * 1_001, {}, "invalid_x"),
        ("1e999999999999", {}, "invalid_x"), ("9.5", {"minimum": "10"}, "invalid_x"), ("10", {"minimum": "9.5"}, "10"),
        ("1.50", {"choices": ("1.5",)}, "1.50"), ("100", {"maximum": "99.9"}, "invalid_x"),
    ],
)  # fmt: skip
def test_a_decimal_has_bounds_like_any_number(source: str, attributes: dict[str, Any], expected: str) -> None:
    """They are compared as numbers, not as the texts that they are stored as."""
    assert value_of(FieldType.DECIMAL, source, **attributes) == expected


@pytest.mark.parametrize(
    ("kind", "source", "expected"),
    [
        (FieldType.TEXT, "1.50", "1.50"), (FieldType.TEXT, "1e5", "1e5"), (FieldType.TEXT, "true", "true"),
        (FieldType.TEXT, '"a\\u00e9"', "aé"),
        (FieldType.TEXT, "[1]", "invalid_x"),
        (FieldType.TEXT, "{}", "invalid_x"),
        (FieldType.TEXT, "null", "missing_x"),
        (FieldType.TEXT, '" "', "missing_x"),
        (FieldType.TEXT, '"\\u0000"', "invalid_x"),
        (FieldType.INTEGER, '"17"', 17), (FieldType.INTEGER, "17.0", 17), (FieldType.INTEGER, '" -17.00 "', -17),
        (FieldType.INTEGER, "1.7e1", 17),
        (FieldType.INTEGER, "17.5", "invalid_x"),
        (FieldType.INTEGER, '"017"', "invalid_x"),
        (FieldType.INTEGER, "true", "invalid_x"),
        (FieldType.INTEGER, '""', "invalid_x"),
        (FieldType.INTEGER, "-0", 0),
        (FieldType.INTEGER, "9223372036854775807", 2**63 - 1),
        (FieldType.INTEGER, '"9223372036854775808"', "invalid_x"),
        (FieldType.INTEGER, "9007199254740993.0", 9007199254740993), (FieldType.INTEGER, "1e400", "invalid_x"),
        (FieldType.BOOLEAN, "0", False), (FieldType.BOOLEAN, "1", True), (FieldType.BOOLEAN, '"true"', True),
        (FieldType.BOOLEAN, '"false"', False),
        (FieldType.BOOLEAN, "true", True),
        (FieldType.BOOLEAN, '"1"', "invalid_x"),
        (FieldType.BOOLEAN, "2", "invalid_x"),
        (FieldType.BOOLEAN, '"True"', "invalid_x"),
        (FieldType.BOOLEAN, "null", "invalid_x"),
    ],
)  # fmt: skip
def test_coerce_takes_what_says_exactly_the_same(kind: FieldType, source: str, expected: Scalar) -> None:
    """And nothing that would have to be guessed; without it the contract's strict rule holds."""
    found = value_of(kind, source, coerce=True)
    assert (type(found), found) == (type(expected), expected)
    native = {FieldType.TEXT: str, FieldType.INTEGER: int, FieldType.BOOLEAN: bool}[kind]
    if type(json.loads(source)) is not native:
        assert str(value_of(kind, source)).startswith(("invalid", "missing"))


@pytest.mark.parametrize(
    ("kind", "attributes", "source", "expected"),
    [
        (FieldType.TEXT, {}, '"n/a"', "missing_x"), (FieldType.TEXT, {}, '"N/A"', "N/A"),
        (FieldType.REAL, {}, '"n/a"', "invalid_x"), (FieldType.REAL, {"required": False}, '"n/a"', None),
        (FieldType.REAL, {"default": 1.5}, '""', 1.5),
        (FieldType.INTEGER, {"required": False, "coerce": True}, '""', None),
        (FieldType.TIMESTAMP, {"required": False, "unit": "s"}, '"n/a"', None),
        (FieldType.JSON, {"required": False}, '"n/a"', None),
        (FieldType.JSON, {"required": False}, '["n/a"]', '["n/a"]'),
        (FieldType.DATE, {"required": False}, '""', None),
        (FieldType.DATE, {"required": False, "formats": ("%Y%m%d",)}, '"n/a"', None),
        (FieldType.DECIMAL, {"required": False}, '""', None),
    ],
)  # fmt: skip
def test_texts_that_count_as_null(kind: FieldType, attributes: dict[str, Any], source: str, expected: Scalar) -> None:
    """They are as null is: absent where the field is required, the default where it has one."""
    assert value_of(kind, source, null=("", "n/a"), **attributes) == expected


def test_every_room_has_every_type_of_field() -> None:
    """One who adds a type is told by this test, and by the table in ``fieldtypes``, what there is to say of it."""
    every = set(FieldType)
    assert set(TYPES) == set(kinds.CHECKS) == set(target.TYPES) == set(undo_sql.POSTGRES_TYPES) == every
    assert all(isinstance(kind(), sa.types.TypeEngine) for kind in target.TYPES.values())
    for kind in FieldType:  # the literal of a config file is in the form that records have
        literal = {
            FieldType.TEXT: "a", FieldType.INTEGER: 1, FieldType.REAL: 1.5, FieldType.BOOLEAN: True,
            FieldType.TIMESTAMP: datetime(2026, 1, 15, tzinfo=UTC), FieldType.DATE: date(2026, 1, 15),
            FieldType.DECIMAL: "1.50", FieldType.JSON: {"a": 1},
        }[kind]  # fmt: skip
        assert value_of(kind, json.dumps(TYPES[kind].example(datetime.now(UTC)))) not in {"invalid_x", "missing_x"}
        stored = TYPES[kind].literal(literal)
        source = json.dumps(stored) if kind is not FieldType.JSON else str(stored)
        assert value_of(kind, source) == stored
