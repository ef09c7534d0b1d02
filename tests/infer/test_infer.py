"""What ``init`` tells from values: where the records are, what names them, what their fields are."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.config.names import wrong_column, wrong_feed, wrong_table
from inboxd.infer.names import ColumnNames, feed_name
from inboxd.infer.outline import Place, find
from inboxd.infer.propose import Knowledge, Proposal, Wishes
from inboxd.infer.render import toml
from inboxd.infer.sample import read_head
from inboxd.model import Mode, Shape
from inboxd.records.guess import looks_like

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
SPAN = {"traceId": "a", "spanId": "b", "name": "c", "start": 1}


def proposed(content: object, stem: str = "export", wishes: Wishes | None = None) -> Proposal:
    """Return what is proposed for one file of such content; bytes stand for themselves."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    head = read_head(lambda: nullcontext(BytesIO(data)), 8 << 20)
    knowledge = Knowledge([head], [stem], feed_name(stem), wishes or Wishes(), NOW)
    knowledge.look()
    return knowledge.propose()


def fields(proposal: Proposal) -> dict[str, dict[str, Any]]:
    """Return the fields as the config has them."""
    (feed,) = tomllib.loads(toml(proposal, ["**"], proposal.records))["feeds"].values()
    return dict(feed["fields"])


def key_of(records: Sequence[object], stem: str = "export") -> list[str]:
    """Return the key that is proposed for records."""
    content = records[0] if len(records) == 1 else list(records)
    return [column.name for column in proposed(content, stem).key.columns]


@pytest.mark.parametrize(
    ("documents", "place"),
    [
        ([[{"id": 1}, {"id": 2}]], Place()),
        ([{"id": 1}, {"id": 2}], Place()),
        ([{"Records": [{"eventID": "x"}]}], Place(("Records",))),
        ([{"count": 2, "next": None, "results": [{"id": 1}, {"id": 2}]}], Place(("results",))),
        ([{"hits": {"total": 2, "hits": [{"_id": "1", "_source": {"a": 1}}]}}], Place(("hits", "hits"))),
        ([{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": None}]}], Place(("features",))),
        ([{"message": "success", "number": 2, "people": [{"name": "a"}, {"name": "b"}]}], Place(("people",))),
        ([{"description": "words", "animals": ["ant", "bee", *map(str, range(10))]}], Place(("animals",))),
        ([{"columns": ["a", "b"], "rows": [[1, "x"], [2, "y"], [3, "z"]]}], Place(("rows",))),
        ([{"AAPL": {"p": 1, "v": 2}, "MSFT": {"p": 1, "v": 2}, "IBM": {"p": 1, "v": 3}}], Place((), Shape.MEMBERS)),
        (
            [{"meta": {"of": "x"}, "days": {f"2026-01-{day:02}": {"open": 1, "close": 2} for day in range(1, 9)}}],
            Place(("days",), Shape.MEMBERS),
        ),
        (
            [{"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": [SPAN]}]}]}],
            Place(("resourceSpans",), None, ("scopeSpans", "spans")),
        ),
        ([{"apiVersion": "v1", "kind": "List", "items": [{"a": 1, "b": 2}]}], Place(("items",))),
        (
            [{"version": "2.1.0", "runs": [{"tool": {"name": "x"}, "results": [{"a": n, "b": n} for n in range(30)]}]}],
            Place(("runs",), None, ("results",)),
        ),
        ([{"Records": [{"a": 1}]}, {"Records": [{"a": 2}, {"a": 3}]}], Place(("Records",))),
        ([[1, "a"], [2, "b"]], Place(shape=Shape.VALUES)),
        # What is a record itself, whatever it has inside:
        ([{"id": 7, "customer": "x", "items": [{"sku": 1}, {"sku": 2}, {"sku": 3}]}], Place()),
        ([{"orderDate": "2026-01-15", "customerId": 3, "lineItems": [{"sku": 1}, {"sku": 2}]}], Place()),
        ([{"schema": {"type": "struct", "fields": []}, "payload": {"op": "c", "after": {"id": 1}}}], Place()),
        ([{"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [5, 6], [1, 2]]]}], Place()),
    ],
)
def test_the_records_are_found(documents: list[Any], place: Place) -> None:
    """An envelope, a map, arrays in arrays, lines and documents: the records are what the file is about."""
    assert find([documents]).place == place


def test_the_envelope_need_not_be_in_every_file() -> None:
    """What the first file lacks is found in the others."""
    files: list[list[Any]] = [[{"status": "empty"}], [{"status": "ok", "items": [{"a": 1, "b": 2}, {"a": 2, "b": 3}]}]]
    assert find(files).place == Place(("items",))


def test_a_close_call_is_told() -> None:
    """Where an array inside the records could be the records, the config says so in a comment."""
    orders = [{"id": n, "lines": [{"sku": s, "n": 1, "p": 2} for s in range(9)]} for n in range(30)]
    text = toml(proposed(orders), ["**"], 30)
    assert '# close: 270 records with explode = "lines"' in text


def test_the_evidence_of_one_record_is_told_in_the_singular() -> None:
    """``1 record, 1 different value``; and so where an array of one is a close call, or nothing names the record."""
    assert "# 1 record, 1 different value\n" in toml(proposed({"id": 1}), ["**"], 1)
    assert "# no key: in 1 record no field" in toml(proposed({"a": 1}), ["**"], 1)


@pytest.mark.parametrize(
    ("records", "stem", "key"),
    [
        ([{"id": n} for n in range(3)], "x", ["id"]),
        ([{"AAPL": {"p": 1, "v": 2}, "MSFT": {"p": 1, "v": 2}, "IBM": {"p": 1, "v": 3}}], "x", ["name"]),
        ([{"_id": {"$oid": f"{n:024x}"}} for n in range(3)], "x", ["id"]),
        ([{"properties": {"code": f"c{n}"}} for n in range(3)], "x", ["code"]),
        ([{"order_id": n} for n in range(20)], "orders-2026-01", ["order_id"]),
        ([{"orderId": n} for n in range(20)], "Orders", ["order_id"]),
        ([{"order": {"id": n}} for n in range(20)], "orders", ["id"]),
        ([{"sensor_id": n % 4, "ts": 1768470000 + n // 4 * 60} for n in range(40)], "dump", ["sensor_id", "ts"]),
        ([{"order_id": n // 4, "line": n % 4, "amount": n * 1.5} for n in range(40)], "x", ["order_id", "line"]),
        ([{"sku": f"s{n}", "price": n} for n in range(20)], "products", ["sku"]),
        ([{"isbn": f"i{n}"} for n in range(20)], "books-2026", ["isbn"]),
        ([{"sku": f"s{n % 4}", "day": f"2026-01-{n // 4 + 1:02}"} for n in range(40)], "sales", ["sku", "day"]),
        ([{"country_code": f"c{n // 4}", "year": 2000 + n % 4} for n in range(40)], "x", ["country_code", "year"]),
    ],
)
def test_a_key_is_proposed_where_the_sample_shows_it(records: list[Any], stem: str, key: list[str]) -> None:
    """Unique, always there, and named like an identity of these records, or such a field with others."""
    assert key_of(records, stem) == key


@pytest.mark.parametrize(
    ("records", "stem"),
    [
        ([{"price": n * 1.1, "name": f"n{n}"} for n in range(50)], "x"),
        ([{"measured": n} for n in range(50)], "x"),
        ([{"user_id": n, "amount": 3} for n in range(50)], "orders"),
        ([{"user_id": n} for n in range(50)], "user_events"),
        ([{"actor": {"id": n}} for n in range(50)], "x"),
        ([{"order_id": n} for n in range(19)], "orders"),
        ([{"iban": f"DE{n}", "amount": n} for n in range(50)], "bookings"),
        ([{"sku": f"s{n}", "sold": n} for n in range(50)], "sales"),
        ([{"isbn": f"i{n}", "reader": n} for n in range(50)], "loans"),
        ([{"id": 1}, {"id": 1}], "x"),
        ([{"id": 1}, {"id": None}], "x"),
        ([{"id": 1.5}, {"id": 2.5}], "x"),
        ([{"id": "x" * 2000}, {"id": "y"}], "x"),
        ([{"base": "EUR", "date": "2026-01-15", "rates": {f"{a}{b}C": 1.5 for a in "ABCD" for b in "ABCD"}}], "x"),
        ([{f"2026-01-{day:02}": {"open": 1, "close": 2} for day in range(1, 30)}], "x"),
        ([{"email": f"{n}@example.org"} for n in range(50)], "x"),
    ],
)
def test_nothing_else_is_proposed_as_a_key(records: list[Any], stem: str) -> None:
    """Not what happens to be unique, not what measures, not what names something else, not with too few records."""
    proposal = proposed(records[0] if len(records) == 1 else records, stem)
    assert (list(proposal.key.columns), proposal.mode) == ([], Mode.APPEND)


@pytest.mark.parametrize(
    ("value", "attributes"),
    [
        ("2026-01-15T10:30:00Z", {"type": "timestamp"}),
        ("2026-01-15", {"type": "date"}),
        (1768471200, {"type": "timestamp", "unit": "s"}),
        (1768471200.25, {"type": "timestamp", "unit": "s"}),
        (1768471200123, {"type": "timestamp", "unit": "ms"}),
        ("1768471200.000200", {"type": "timestamp", "unit": "s"}),
        (1768471200123456, {"type": "timestamp", "unit": "us"}),
        ("1768471200123456789", {"type": "timestamp", "unit": "ns"}),
        ("Thu, 15 Jan 2026 10:30:00 GMT", {"type": "timestamp", "format": "%a, %d %b %Y %H:%M:%S GMT"}),
        ("Thu Jan 15 10:30:00 +0000 2026", {"type": "timestamp", "format": "%a %b %d %H:%M:%S %z %Y"}),
        ("15/Jan/2026:10:30:00 +0100", {"type": "timestamp", "format": "%d/%b/%Y:%H:%M:%S %z"}),
        ("15-01-2026 10:30:00", {"type": "timestamp", "format": "%d-%m-%Y %H:%M:%S"}),
        ("01/15/2026", {"type": "date", "format": "%m/%d/%Y"}),
        ("15.01.2026", {"type": "date", "format": "%d.%m.%Y"}),
        ("01/02/2026", {"type": "text"}),
        (12, {"type": "integer"}),
        (2**63, {"type": "decimal"}),
        (1.5, {"type": "real"}),
        (True, {"type": "boolean"}),
        ([1], {"type": "json"}),
        ({}, {"type": "json"}),
        (None, {"type": "json"}),
    ],
)
def test_a_value_has_the_narrowest_type_that_fits(value: object, attributes: dict[str, str]) -> None:
    """Times are told in any form that a feed can read, with unit and format written out."""
    found = fields(proposed([{"time": value}] * 20))["time"]
    assert {name: value for name, value in found.items() if name != "required"} == attributes


@pytest.mark.parametrize(
    ("values", "attributes"),
    [
        ([1, "a"], {"type": "text", "coerce": True}),
        ([1, 1.5], {"type": "real"}),
        ([2**60, 1.5], {"type": "decimal"}),
        ([1, True], {"type": "json"}),
        ([1, [2]], {"type": "json"}),
        (["2026-01-15", ""], {"type": "date", "null": [""], "required": False}),
        ([1, ""], {"type": "integer", "null": [""], "required": False}),
        ([1, None], {"type": "integer", "required": False}),
        (["a", "0123"], {"type": "text"}),
        (["0123", "0456"], {"type": "text"}),
    ],
)
def test_mixed_values_have_a_type_that_takes_them_all(values: list[Any], attributes: dict[str, Any]) -> None:
    """What has two types is ``json`` or coerced, what is missing once is optional, digits in quotes stay text."""
    assert fields(proposed([{"x": value} for value in values] * 20))["x"] == attributes


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (b"12345678901234567.89", "decimal"),
        (b"1.234567890123456789", "decimal"),
        (b"9007199254740993.5", "decimal"),
        (b"0.1000000000000000055511151231257827", "real"),
        (b"0.10000000000000000555", "real"),
        (b"0.30000000000000004", "real"),
        (b"123456789012345.67", "real"),
        (b"1.5000000000000000000000", "real"),
        (b"5e-324", "real"),
    ],
)
def test_digits_that_a_double_does_not_keep_make_a_decimal(source: bytes, kind: str) -> None:
    """An amount stays digit for digit; what is only a double, printed in many digits, stays a real."""
    assert fields(proposed(b'[{"x": 1.5}, {"x": %s}]' % source))["x"]["type"] == kind
    assert fields(proposed(b'[{"x": %s}]' % source))["x"]["type"] == kind


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("2026-01-15T10:30:00Z", False),
        ("2026-01-15 10:30:00+01", False),
        ("2026-01-15", False),
        ("Thu, 15 Jan 2026 10:30:00 GMT", False),
        ("Thu Jan 15 10:30:00 +0000 2026", False),
        ("2026-01-15 10:30", True),
        ("15.01.2026 10:30:00", True),
        ("Thu Jan 15 10:30:00 2026", True),
    ],
)
def test_times_without_an_offset_are_told_to_be_taken_for_utc(text: str, *, local: bool) -> None:
    """Whether they are local times no sample tells: the config says what it does, and how to say the other."""
    assert ("no offset, and are taken for UTC" in toml(proposed([{"at": text}]), ["**"], 1)) is local


def test_an_epoch_with_many_digits_is_a_moment() -> None:
    """Seconds with nanoseconds have more digits than a double, and are read exactly all the same."""
    assert fields(proposed(b'[{"ts": 1768471200.123456789}]'))["ts"] == {
        "type": "timestamp",
        "unit": "s",
        "required": False,
    }


def test_the_cursor_is_what_tells_when_a_record_was_changed() -> None:
    """Of several times the one of the last change is taken; a day of birth, or a time to come, never."""
    record = {"id": 1, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-02T00:00:00Z", "born": "1990-01-01"}
    cursor = proposed([record]).cursor
    assert cursor is not None
    assert cursor.name == "updated_at"
    assert proposed([{"id": 1, "born": "1990-01-01"}]).cursor is None
    assert proposed([{"id": 1, "updated": "2031-01-01T00:00:00Z"}]).cursor is None
    stripe = proposed([{"id": "evt_1", "api_version": "2020-08-27", "created": 1768470000}]).cursor
    assert stripe is not None
    assert stripe.name == "created"
    assert proposed([{"id": 1, "version": "2012-10-17"}]).cursor is None


def test_what_a_person_decides_is_taken() -> None:
    """Key, cursor, mode and the place of the records can be given."""
    content = {"a": {"b": [{"no": 1, "at": "2026-01-15"}, {"no": 2, "at": "2026-01-15"}]}, "c": 1}
    wishes = Wishes(key=("no",), cursor="at", records=("a", "b"))
    proposal = proposed(content, wishes=wishes)
    assert proposal.place == Place(("a", "b"))
    assert [column.name for column in proposal.key.columns] == ["no"]
    assert proposal.cursor is not None
    assert proposed(content, wishes=Wishes(mode=Mode.APPEND)).mode is Mode.APPEND


def test_what_cannot_be_stored_is_left_out_and_named() -> None:
    """U+0000 and lone surrogates are in no column; their fields are named, and what is beside them is taken."""
    proposal = proposed(rb'[{"a": "\u0000", "b": {"c": "\ud800", "d": 1}, "\udc00": 2, "e": ["\u0000"], "f": 1}]')
    assert set(fields(proposal)) == {"d", "f"}
    text = toml(proposal, ["**"], 1)
    assert all(name in text.split("left out")[1].split("\n")[0] for name in ('"a"', '"b.c"', '"e"', "udc00"))


names = st.text(max_size=80) | st.sampled_from(
    ["rowid", "Order", "ORDER", "order", "1", "ctid", "inboxd_x", "$a", "a.b"]
)


@settings(suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(names, min_size=1, max_size=3).map(tuple), unique=True, max_size=12))
def test_names_of_columns_are_valid_and_unlike(paths: list[tuple[str, ...]]) -> None:
    """Any script, any length, digits first, reserved words: each path gets a column of its own."""
    made = ColumnNames(paths)
    given_out = [made.name(path) for path in paths]
    assert all(wrong_column(name) is None for name in given_out)
    assert len({name.lower() for name in given_out}) == len(paths)


@settings(suppress_health_check=list(HealthCheck))
@given(names)
def test_names_of_feeds_are_valid(stem: str) -> None:
    """Whatever a file is called, its feed and its table have names."""
    name = feed_name(stem)
    assert wrong_feed(name) is None
    assert wrong_table(name) is None
    assert name != "events"


def test_nested_objects_take_time_that_grows_with_their_size_alone() -> None:
    """A document four times as large takes about four times as long, however deep it is."""

    def seconds(copies: int) -> float:
        deep: Any = {"x": 1}
        for level in range(150):
            deep = {f"n{level}": deep, "beside": {"a": level}}
        started = time.process_time()
        proposed({f"part{copy}": deep for copy in range(copies)})
        return time.process_time() - started

    small = min(seconds(10) for _ in range(3))
    assert seconds(40) < 16 * max(small, 0.01)


def test_of_a_large_file_the_beginning_is_looked_at() -> None:
    """An array that does not end within the head is cut after its last whole element."""
    data = json.dumps({"kind": "x", "items": [{"a": n, "b": [n, "},{"]} for n in range(10_000)]}).encode()
    head = read_head(lambda: nullcontext(BytesIO(data)), 5_000)
    assert head.cut
    (document,) = head.values
    assert document["items"][50] == {"a": 50, "b": [50, "},{"]}


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"id,name\n1,a\n2,b\n3", "CSV"),
        (b"id;name\n1;a\n2;b\n", "CSV"),
        (b"id;name\n1;a\n", "CSV"),
        (b'<?xml version="1.0"?><a/>', "XML"),
        (b"<!DOCTYPE html><html>", "HTML"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        ('{"a": 1}'.encode("utf-16-le"), "UTF-16"),
        (b"PK\x03\x04...", "zip"),
        (b"PAR1...", "Parquet"),
        (b"window.YTD.tweets.part0 = [ {", "JavaScript"),
        (b"callback({", "JavaScript"),
        (b"// about\n{}", "comments"),
        (b"{'a': 1}", "single quotes"),
        (b'{"a": NaN}', "NaN"),
        (b"name: x\nother: y\n", "YAML"),
        (b'{"a": 1}', None),
    ],
)
def test_what_is_no_json_is_named(head: bytes, what: str | None) -> None:
    """A sender reads what the file is instead, and what to do."""
    found = looks_like(head)
    assert found is None if what is None else found is not None and what in found
