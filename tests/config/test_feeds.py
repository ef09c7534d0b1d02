"""Feeds from the config to the nouns, and what their keys must agree on."""

from __future__ import annotations

from pathlib import Path

import pytest

from inboxd.config import InvalidConfig, load_settings
from inboxd.model import Extra, Feed, FieldType, Late, Limit
from inboxd.records.typed import typed as read_typed

FIELDS = 'id = { type = "integer" }\nat = { type = "timestamp" }\n'
IDENTIFIER = "a table's or column's name is at most 63 letters, digits and _, and begins with no digit"
MINIMAL = f'[feeds.orders]\nkey = ["id"]\ncursor = "at"\n[feeds.orders.fields]\n{FIELDS}'


def load(folder: Path, text: str) -> tuple[Feed, ...]:
    """Return the feeds of a config file with that text."""
    (folder / "inboxd.toml").write_text(text, encoding="utf-8")
    return load_settings(folder / "inboxd.toml", {}, folder).feeds


def faults(folder: Path, text: str) -> list[str]:
    """Return what is wrong with a config file of that text, as ``key: message``."""
    with pytest.raises(InvalidConfig) as caught:
        load(folder, text)
    return [f"{fault.key}: {fault.message}" for fault in caught.value.faults]


def field_faults(folder: Path, attributes: str) -> list[str]:
    """Return what is wrong with one more field of a feed, its key left out."""
    prefix = "feeds.orders.fields.x."
    return [fault.removeprefix(prefix) for fault in faults(folder, f"{MINIMAL}x = {{ {attributes} }}\n")]


def test_a_feed_says_only_what_no_other_could(tmp_path: Path) -> None:
    """Key, cursor and fields; its match and table come from its name, and the rest is as in the built-in feed."""
    (feed,) = load(tmp_path, MINIMAL)
    assert (feed.name, feed.match, feed.table, feed.records) == ("orders", ("orders/**",), "orders", ())
    assert (feed.key, feed.cursor, feed.cursor_field.type) == (("id",), "at", FieldType.TIMESTAMP)
    assert (feed.late, feed.extra, feed.undo) == (Late.SKIP, Extra.IGNORE, False)
    assert (feed.max_future_s, feed.max_rejected) == (86_400.0, Limit(share=1.0))


def test_every_key_of_a_feed_can_be_set(tmp_path: Path) -> None:
    """Each key of the manual's feed is taken, and feeds keep the order of the file."""
    first, second = load(
        tmp_path,
        """
        [feeds.z]
        match = ["a/*.json", "b/**"]
        records = "Data.Records"
        table = "Orders"
        key = ["id", "day"]
        cursor = "rev"
        late = "merge"
        max_future = "5m"
        max_rejected = 3
        extra = "keep"
        undo = true
        fields.id = { type = "text", from = "order.id", label = "order", min_length = 1, max_length = 9, pattern = "^" }
        fields.day = { type = "date", min = 2020-01-01, max = "2029-12-31" }
        fields.rev = { type = "integer", from = ["a.b", "c"], min = -5, max = 9223372036854775807 }
        fields.seen = { type = "timestamp", unit = "ms", required = false, max = 2030-01-01T01:00:00+01:00 }
        fields.rate = { type = "real", default = 1, choices = [1, 2.5] }
        fields.ok = { type = "boolean", default = false }
        fields.tags = { type = "json", default = { a = [1, "é"] } }
        fields.kind = { type = "text", required = false, choices = ["x", "y"] }
        [feeds.a]
        key = ["id"]
        cursor = "at"
        fields = { id = { type = "integer" }, at = { type = "date" } }
        """,
    )
    assert (first.name, second.name) == ("z", "a")
    assert (first.match, first.records, first.table) == (("a/*.json", "b/**"), ("Data", "Records"), "Orders")
    assert (first.key, first.cursor, first.late) == (("id", "day"), "rev", Late.MERGE)
    assert (first.max_future_s, first.max_rejected) == (300.0, Limit(count=3))
    assert (first.extra, first.undo) == (Extra.KEEP, True)
    number, day, rev, seen, rate, ok, tags, kind = first.fields
    assert (number.path, number.label) == (("order", "id"), "order")
    assert (number.min_length, number.max_length, number.pattern) == (1, 9, "^")
    assert (day.minimum, day.maximum) == ("2020-01-01", "2029-12-31")
    assert (rev.path, rev.minimum, rev.maximum) == (("a.b", "c"), -5, 2**63 - 1)
    assert (seen.minimum, seen.maximum) == (None, "2030-01-01T00:00:00.000000Z")
    assert (seen.unit, seen.required) == ("ms", False)
    assert (rate.default, rate.choices, rate.required) == (1.0, (1.0, 2.5), False)
    assert isinstance(rate.default, float)
    assert (ok.default, ok.required) == (False, False)
    assert tags.default == '{"a": [1, "é"]}'
    assert (kind.choices, kind.default, kind.required) == (("x", "y"), None, False)


def test_a_key_left_out_of_the_built_in_feed_has_its_built_in_value(tmp_path: Path) -> None:
    """``[feeds.events]`` names only what is to be otherwise; fields that are named are all the fields."""
    (feed,) = load(tmp_path, '[feeds.events]\nlate = "merge"\n')
    assert (feed.late, feed.table, feed.match, feed.field("ts").label) == (Late.MERGE, "target", ("**",), "timestamp")
    (feed,) = load(tmp_path, MINIMAL.replace("feeds.orders", "feeds.events"))
    assert [field.name for field in feed.fields] == ["id", "at"]


def test_named_feeds_take_the_place_of_the_built_in_one(tmp_path: Path) -> None:
    """Whoever names feeds gets those; a config file about other things leaves the built-in feed as it is."""
    assert [feed.name for feed in load(tmp_path, MINIMAL)] == ["orders"]
    assert [feed.name for feed in load(tmp_path, f"{MINIMAL}[feeds.events]\n")] == ["orders", "events"]
    assert [feed.name for feed in load(tmp_path, '[log]\nlevel = "error"\n')] == ["events"]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "[feeds.orders]\n",
            [
                "feeds.orders.fields: is missing: a feed must name its fields",
                'feeds.orders.key: is missing: mode "upsert" needs one; mode = "append" does not',
            ],
        ),
        (
            MINIMAL.replace('["id"]', '["id", "no"]').replace('"at"', '"when"', 1),
            [
                "feeds.orders.key: 'no' is not one of the feed's fields (id, at)",
                "feeds.orders.cursor: 'when' is not one of the feed's fields (id, at)",
            ],
        ),
        (
            MINIMAL.replace('"integer" }', '"integer", required = false }').replace(
                '"timestamp" }', '"timestamp", default = 2020-01-01 }'
            ),
            [
                "feeds.orders.key: 'id' must be required, and have no default",
                "feeds.orders.cursor: 'at' must be required, and have no default",
            ],
        ),
        (MINIMAL.replace('["id"]', '["id", "id"]'), ["feeds.orders.key: names the same field twice"]),
        (
            MINIMAL.replace('"integer"', '"json"'),
            ["feeds.orders.key: 'id' is of type json, which a key cannot be: equal values have many texts"],
        ),
        (
            MINIMAL.replace('"timestamp"', '"real"'),
            ["feeds.orders.cursor: 'at' is of type real; it must be integer, timestamp or date"],
        ),
        (
            MINIMAL.replace("[feeds.orders]\n", '[feeds.orders]\nmatch = ["/abs/*", "ok"]\n'),
            ["feeds.orders.match: '/abs/*' can match nothing: paths are relative to the inbox"],
        ),
        (
            MINIMAL.replace("[feeds.orders]\n", '[feeds.orders]\nmatch = ["a/../b"]\n'),
            ["feeds.orders.match: 'a/../b' can match nothing: paths are relative to the inbox"],
        ),
        (
            f"{MINIMAL}ID = {{ type = 'text' }}\n",
            ["feeds.orders.fields.ID: differs from 'id' only in case, which column names do not distinguish"],
        ),
        (
            MINIMAL + '"first name" = { type = "text" }\n',
            [f'feeds.orders.fields."first name": {IDENTIFIER}'],
        ),
        (
            MINIMAL.replace("[feeds.orders]\n", '[feeds.orders]\nrecords = "a..b"\n'),
            ["feeds.orders.records: has an empty name in it"],
        ),
        (
            MINIMAL.replace("feeds.orders", "feeds.-x"),
            ["feeds.-x: a feed's name is at most 63 letters, digits, - _ and ., and begins with no - or ."],
        ),
    ],
)
def test_a_feed_that_makes_no_sense_is_refused(tmp_path: Path, text: str, messages: list[str]) -> None:
    """What could only go wrong with the first file is told when the config is read."""
    assert faults(tmp_path, text) == messages


@pytest.mark.parametrize(
    "table",
    ["etl_runs", "Dead_Letters", "lineage", "lineage_records", "watermarks", "run_log", "before_images", "staging",
     "alembic_version", "sqlite_sequence", "pg_class", "staged_x", "", "1st", "drop table", "naïve", 'a"b', "x" * 64],
)  # fmt: skip
def test_no_feed_fills_a_table_of_ours_or_one_that_no_database_could_have(tmp_path: Path, table: str) -> None:
    """The control tables are safe from feeds, whatever the case of the letters."""
    (messages,) = faults(tmp_path, MINIMAL.replace("[feeds.orders]\n", f"[feeds.orders]\ntable = '{table}'\n"))
    assert messages.startswith("feeds.orders.table: ")


@pytest.mark.parametrize("column", ["rowid", "OID", "xmin", "ctid", "inboxd_run_id"])
def test_no_field_takes_a_column_that_is_kept(tmp_path: Path, column: str) -> None:
    """A field of the record with such a name can be loaded under another one, and the message says how."""
    (messages,) = faults(tmp_path, f"{MINIMAL}{column} = {{ type = 'text' }}\n")
    assert f'give the field another name, and from = "{column}"' in messages


def test_the_table_of_a_feed_must_be_named_where_its_own_name_is_none(tmp_path: Path) -> None:
    """A feed may be called eu-orders, but no table is: the message asks for one."""
    (messages,) = faults(tmp_path, MINIMAL.replace("feeds.orders", "feeds.eu-orders"))
    assert messages.startswith("feeds.eu-orders.table: a table's or column's name")
    named = MINIMAL.replace("feeds.orders", "feeds.eu-orders").replace("key =", 'table = "eu_orders"\nkey =')
    assert load(tmp_path, named)[0].table == "eu_orders"


@pytest.mark.parametrize(
    ("attributes", "messages"),
    [
        ('type = "text", min = 1', "min: is for integer, real, timestamp, date, decimal, not for text"),
        ('type = "boolean", max = true', "max: is for integer, real, timestamp, date, decimal, not for boolean"),
        ('type = "integer", min_length = 1', "min_length: is for text, not for integer"),
        ('type = "date", pattern = "x"', "pattern: is for text, not for date"),
        ('type = "json", choices = [1]', "choices: is for text, integer, real, boolean, timestamp, date, decimal"),
        ('type = "integer", unit = "s"', "unit: is for timestamp, not for integer"),
        ('type = "timestamp", unit = "h"', "unit: must be one of s, ms, us, ns"),
        ('type = "text", pattern = "("', "pattern: is not a regular expression: missing ), unterminated subpattern"),
        ('type = "integer", min = 2, max = 1', "min: is greater than max"),
        ('type = "timestamp", min = "2021-01-01", max = 2020-12-31T23:59:59Z', "min: is greater than max"),
        ('type = "text", min_length = 2, max_length = 1', "min_length: is greater than max_length"),
        ('type = "integer", min = 1.5', "min: must be an integer of 64 bits"),
        ('type = "integer", max = 9223372036854775808', "max: must be an integer of 64 bits"),
        ('type = "real", min = inf', "min: must be a finite number"),
        ('type = "real", default = true', "default: must be a number"),
        ('type = "text", default = 5', "default: must be a text, without U+0000"),
        ('type = "text", default = "a\\u0000"', "default: must be a text, without U+0000"),
        ('type = "date", max = "2026-02-30"', 'max: must be a date, such as "2026-01-15"'),
        ('type = "timestamp", max = "soon"', 'max: must be a timestamp, such as "2026-01-15T10:30:00Z"'),
        ('type = "timestamp", max = "0001-01-01T00:00:00+05:00"', "max: is outside the years 1 to 9999 in UTC"),
        ('type = "json", default = 10:30:00', "default: must be a value that JSON has"),
        ('type = "boolean", choices = [true, 1]', "choices: must be true or false"),
        ('type = "text", choices = ["a", "a"]', "choices: has the same value twice"),
        ('type = "text", default = "c", choices = ["a", "b"]', "default: is not what choices allows"),
        ('type = "integer", default = 0, min = 1', "default: is not what min allows"),
        ('type = "integer", default = 2, max = 1', "default: is not what max allows"),
        ('type = "text", default = "ab", max_length = 1', "default: is not what its length bounds allows"),
        ('type = "text", default = "ab", pattern = "^b"', "default: is not what pattern allows"),
        ('type = "text", required = true, default = ""', "default: is never used, as the field is required = true"),
        ('type = "text", label = "two words"', "label: a label is at most 63 letters, digits and _"),
        ('type = "text", from = ""', "from: must name at least one field of the record"),
        ('type = "text", from = 5', 'from: must be a path such as "actor.login"'),
        ('type = "text", choices = []', "choices: must not be empty"),
    ],
)  # fmt: skip
def test_attributes_that_contradict_their_field_are_refused(tmp_path: Path, attributes: str, messages: str) -> None:
    """Each attribute fits its field's type and the field's other attributes, or is told as wrong."""
    (fault,) = field_faults(tmp_path, attributes)
    assert fault.startswith(messages)


def other(**changes: str) -> str:
    """Return a second feed of the table ``orders``, with some of its text replaced."""
    text = MINIMAL.replace("feeds.orders", "feeds.more").replace("key =", 'table = "orders"\nkey =')
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("second", "messages"),
    [
        (other(integer="text"), "is also filled by feed 'orders', with another type of id"),
        (
            other().replace('cursor = "at"', 'cursor = "id"').replace('["id"]', '["id", "at"]'),
            "is also filled by feed 'orders', with another key and cursor",
        ),
        (
            other().replace('"orders"', '"Orders"'),
            "differs from the table of feed 'orders' only in case, which SQLite does not distinguish",
        ),
    ],
)
def test_feeds_that_share_a_table_agree_about_its_rows(tmp_path: Path, second: str, messages: str) -> None:
    """Two feeds may fill one table if a row of it means the same to both."""
    assert faults(tmp_path, MINIMAL + second) == [f"feeds.more.table: {messages}"]


def test_feeds_may_share_a_table_and_fill_other_columns_of_it(tmp_path: Path) -> None:
    """Feeds with the same key and cursor may each bring fields of their own."""
    feeds = load(tmp_path, f"{MINIMAL}a = {{ type = 'text' }}\n{other()}b = {{ type = 'text' }}\n")
    assert [feed.table for feed in feeds] == ["orders", "orders"]


@pytest.mark.parametrize(
    ("kind", "typed", "value"),
    [
        ("timestamp", "2026-01-15T11:30:00+01:00", "2026-01-15T10:30:00.000000Z"),
        ("timestamp", "2026-01-15", "2026-01-15T00:00:00.000000Z"),
        ("timestamp", "2026-01-15 10:30:00.1234567z", "2026-01-15T10:30:00.123456Z"),
        ("date", "2026-01-15", "2026-01-15"),
        ("timestamp", "2026-01-15T11:30:00,5+01", "2026-01-15T10:30:00.500000Z"),
        ("integer", "-42", -42),
    ],
)
def test_a_cursor_typed_by_a_person_becomes_a_cursor(tmp_path: Path, kind: str, typed: str, value: object) -> None:
    """``watermark set`` takes what a record would have."""
    (feed,) = load(tmp_path, MINIMAL.replace("timestamp", kind))
    assert read_typed(feed.cursor_field, typed) == value


@pytest.mark.parametrize(
    ("kind", "typed"),
    [
        ("timestamp", "now"),
        ("timestamp", "2026-W03-4"),
        ("timestamp", "2026-01-15T24:00:00Z"),
        ("timestamp", "2026-01-15T10:30:60Z"),
        ("date", "2026-1-5"),
        ("date", "2026-01-15T10:30:00Z"),
        ("integer", "1.0"),
        ("integer", "9223372036854775808"),
        ("integer", "1_0"),
        ("integer", "٣"),
        ("integer", "9" * 5_000),
        ("timestamp", ""),
    ],
)
def test_what_is_no_cursor_is_refused(tmp_path: Path, kind: str, typed: str) -> None:
    """A watermark that no record could have is never set."""
    (feed,) = load(tmp_path, MINIMAL.replace("timestamp", kind))
    with pytest.raises(ValueError, match="must be"):
        read_typed(feed.cursor_field, typed)
