"""Everything that a feed can say, what it becomes, and what is said of each wrong combination."""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inboxd.config import InvalidConfig, captures, json_schema, load_settings, show
from inboxd.config.moments import format_days, parse_days
from inboxd.config.paths import parse_path, path_text
from inboxd.fieldtypes import TYPES, plain_decimal
from inboxd.model import (
    Condition,
    Expect,
    Feed,
    FieldType,
    Gone,
    Late,
    Limit,
    Mode,
    Origin,
    OwnColumns,
    Shape,
    names_of,
    origin_of,
)

ID = 'id = { type = "integer" }'
AT = 'at = { type = "timestamp" }'


def load(folder: Path, keys: str, fields: str = f"{ID}\n{AT}") -> Feed:
    """Return the one feed of a config with these keys and fields."""
    (folder / "inboxd.toml").write_text(f"[feeds.f]\n{keys}\n[feeds.f.fields]\n{fields}\n", encoding="utf-8")
    (feed,) = load_settings(folder / "inboxd.toml", {}, folder).feeds
    return feed


def faults(folder: Path, keys: str, fields: str = f"{ID}\n{AT}") -> list[str]:
    """Return what is wrong with such a config."""
    with pytest.raises(InvalidConfig) as caught:
        load(folder, keys, fields)
    return [f"{fault.key.removeprefix('feeds.f.')}: {fault.message}" for fault in caught.value.faults]


UPSERT = 'key = ["id"]'
SNAPSHOT = 'mode = "snapshot"\nkey = ["id"]\nabsent = "mark"'


def test_the_modes_and_what_each_needs(tmp_path: Path) -> None:
    """Facts need no key, news no cursor, a snapshot neither cursor nor a moment of its own."""
    feed = load(tmp_path, UPSERT)
    assert (feed.mode, feed.key, feed.cursor, feed.ordered) == (Mode.UPSERT, ("id",), None, True)
    feed = load(tmp_path, 'mode = "append"')
    assert (feed.mode, feed.key, feed.cursor, feed.ordered) == (Mode.APPEND, (), None, False)
    feed = load(tmp_path, f'{SNAPSHOT}\nmax_future = "1h"')
    assert (feed.mode, feed.absent, feed.max_deleted, feed.ordered) == (Mode.SNAPSHOT, Gone.MARK, Limit(0.2), True)
    assert feed.as_of is not None
    assert (feed.as_of.path, feed.as_of.type) == ((Origin.FILE, "mtime"), FieldType.TIMESTAMP)
    assert (feed.scope, feed.allow_empty, feed.max_future_s) == ((), False, 3600.0)


def test_everything_that_a_feed_can_say(tmp_path: Path) -> None:
    """Each setting of the language arrives, and is shown so that it would be read again."""
    keys = """
        match = ["{region}/{day}/*.json"]
        mode = "snapshot"
        records = "data.1.rows"
        shape = "members"
        explode = "hosts.checks"
        where = [{ from = "kind", in = ["a", 1, true, 1.5], not_in = ["x"] }, { from = "$path.day", pattern = "^2", exists = true }]
        key = ["id", "region"]
        as_of = { from = "$.generated", type = "timestamp", format = "%d.%m.%Y" }
        absent = "remove"
        scope = ["region"]
        max_deleted = 7
        allow_empty = true
        expect = { by = "06:00", timezone = "Europe/Berlin", days = "mon-fri", grace = "5m", min_records = 3 }
        null = ["", "N/A"]
        coerce = true
    """  # noqa: E501 - TOML has inline tables on one line
    fields = """
        id = { type = "integer", coalesce = ["after.id", "before.id", "$record.no"] }
        region = { type = "text", from = "$path.region", coerce = false }
        host = { type = "text", from = "^.^.host", null = [] }
        at = { type = "timestamp", format = ["%Y-%m-%d %H:%M:%S", "%d/%m/%y"], timezone = "Europe/Berlin" }
        ns = { type = "timestamp", unit = "ns" }
        day = { type = "date", format = "%Y%m%d" }
        price = { type = "decimal", min = "0.10", max = 5, default = "1.50" }
        dollar = { type = "text", from = ["$file", "name"] }
        mongo = { type = "text", from = "_id.$oid" }
    """
    feed = load(tmp_path, keys, fields)
    assert (feed.records, feed.shape, feed.explode) == (("data", "1", "rows"), Shape.MEMBERS, ("hosts", "checks"))
    assert feed.where == (
        Condition(("kind",), ('"a"', "1", "true", "1.5"), ('"x"',)),
        Condition((Origin.CAPTURE, "day"), pattern="^2", exists=True),
    )
    assert feed.as_of is not None
    assert (feed.as_of.path, feed.as_of.formats) == ((Origin.DOCUMENT, "generated"), ("%d.%m.%Y",))
    assert (feed.absent, feed.scope, feed.max_deleted) == (Gone.REMOVE, ("region",), Limit(count=7))
    assert feed.expect == Expect(None, time(6), "Europe/Berlin", (0, 1, 2, 3, 4), 300.0, 3)
    number, region, host, at, ns, day, price, dollar, mongo = feed.fields
    assert number.paths == (("after", "id"), ("before", "id"), (Origin.RECORD, "no"))
    assert (number.null, number.coerce, region.coerce, host.null, at.coerce) == (("", "N/A"), True, False, (), False)
    assert (region.is_of_file, number.is_of_file, host.path) == (True, False, (Origin.AROUND, Origin.AROUND, "host"))
    assert (at.formats, at.timezone) == (("%Y-%m-%d %H:%M:%S", "%d/%m/%y"), "Europe/Berlin")
    assert (ns.unit, day.formats) == ("ns", ("%Y%m%d",))
    assert (price.minimum, price.maximum, price.default) == ("0.10", "5", "1.50")
    assert (dollar.path, mongo.path) == (("$file", "name"), ("_id", "$oid"))
    shown = show(load_settings(tmp_path / "inboxd.toml", {}, tmp_path))
    (tmp_path / "shown.toml").write_text(shown, encoding="utf-8")
    assert load_settings(tmp_path / "shown.toml", {}, tmp_path).feeds == (feed,)


def test_deletions_say_what_becomes_of_the_row(tmp_path: Path) -> None:
    """One condition may stand without brackets; of several, then is said once."""
    one = 'late = "merge"\ncursor = "at"\ndeletes = { from = "op", in = ["d"], then = "remove" }\nmax_deleted = "20%"'
    feed = load(tmp_path, f"{UPSERT}\n{one}")
    assert feed.deletes is not None
    assert (feed.deletes.conditions, feed.deletes.then) == ((Condition(("op",), ('"d"',)),), Gone.REMOVE)
    assert feed.row_columns == ("id", "at", "record_key", "inboxd_deletion", "record_no")
    two = 'deletes = [{ from = "op", in = ["d"], then = "mark" }, { from = "hard", exists = false }]'
    feed = load(tmp_path, f"{UPSERT}\n{two}")
    assert feed.deletes is not None
    assert (len(feed.deletes.conditions), feed.deletes.then) == (2, Gone.MARK)


LATE = "is for feeds with a cursor; without one, the last record of a key counts"


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        (f'{UPSERT}\nlate = "skip"\nmax_future = "1h"', [f"late: {LATE}", f"max_future: {LATE}"]),
        (
            'mode = "append"\ncursor = "at"\nlate = "merge"',
            [
                'cursor: is not for mode "append": every record is a row of its own',
                'late: is for feeds with a cursor, which mode "append" does not have',
            ],
        ),
        ('mode = "snapshot"\nabsent = "mark"',
         ['key: is missing: mode "snapshot" needs one; mode = "append" does not']),
        (
            'mode = "snapshot"\nkey = ["id"]\nmax_rejected = 1\ncursor = "at"\nlate = "merge"',
            [
                "absent: must be given: remove, which deletes a row that a file does not have, or mark",
                "max_rejected: is not for a snapshot: one with a rejected record is refused",
                'cursor: is not for mode "snapshot": as_of instead',
                'late: is for mode "upsert"; of two snapshots the one with the later as_of counts',
            ],
        ),
        (
            f'{UPSERT}\nabsent = "mark"\nscope = ["id"]\nas_of = "$file.mtime"\nallow_empty = true\nmax_deleted = 5',
            [
                'absent: is for mode "snapshot", not for "upsert"',
                'scope: is for mode "snapshot", not for "upsert"',
                'as_of: is for mode "snapshot", not for "upsert"',
                'allow_empty: is for mode "snapshot", not for "upsert"',
                "max_deleted: is for feeds with deletes and for snapshots",
            ],
        ),
        (
            f'{UPSERT}\ncursor = "at"\ndeletes = {{ from = "op", in = ["d"] }}',
            [
                'late: must be "merge" where there is deletes: a skipped deletion would be lost',
                "deletes.then: must be given: remove, which takes the row out, or mark, which sets deleted_at",
            ],
        ),
        (
            f'{SNAPSHOT}\ndeletes = {{ from = "op", in = ["d"], then = "mark" }}',
            ['deletes: is for mode "upsert", not for "snapshot"'],
        ),
        (f'{SNAPSHOT}\nas_of = "at"', ["as_of.from: must come from $file., $path. or $.: a snapshot has one time"]),
        (
            f'{SNAPSHOT}\nas_of = {{ from = "$file.mtime", type = "date" }}',
            ["as_of.type: is date, but $file.mtime is a timestamp in text"],
        ),
        (f'{SNAPSHOT}\nas_of = {{ from = "$file.mtime", type = "text" }}',
         ["as_of.type: must be one of integer, timestamp, date"]),
        (f'{SNAPSHOT}\nscope = ["no"]', ["scope: 'no' is not one of the feed's fields (id, at)"]),
        (
            f'{UPSERT}\nrecords = "a"\nshape = "values"',
            ['shape: "values" takes each top-level value; with records it must be "members" or left out'],
        ),
        (f"{UPSERT}\nshape = 'rows'", ["shape: must be 'members' or 'values'"]),
        (
            f'{UPSERT}\nwhere = {{ from = "a" }}',
            ["where: does not test the value: give it in, not_in, pattern or exists"],
        ),
        (
            f'{UPSERT}\nwhere = [{{ from = "a", in = [{{}}] }}, {{ from = "", pattern = "(" }}]',
            [
                "where[0].in: must be texts, numbers, true or false, as JSON has them",
                "where[1].from: must name at least one field of the record",
                "where[1].pattern: is not a regular expression: missing ), unterminated subpattern at position 0",
            ],
        ),
        (f'{UPSERT}\nwhere = {{ from = "a", patern = "x" }}', ["where[0].patern: unknown key; did you mean pattern?"]),
        (f'{UPSERT}\nmatch = ["{{a}}/{{a}}"]', ["match: '{a}/{a}' has the same capture twice"]),
        (
            f'{UPSERT}\nmatch = ["a{{b"]',
            ["match: 'a{b' has a { that does not begin a capture such as {day}; write [{] for the character"],
        ),
        (f'{UPSERT}\nexpect = {{ grace = "1m" }}',
         ['expect: must have one of the two: every, such as "1h", or by, such as "06:00"']),
        (
            f'{UPSERT}\nexpect = {{ by = "6", days = "mo", timezone = "Mars" }}',
            [
                'expect.by: must be a time of the day, such as "06:00"',
                'expect.days: must be weekdays of mon, tue, wed, thu, fri, sat, sun, such as "mon-fri" or "sat,sun"',
                "expect.timezone: 'Mars' is not a time zone that this host knows; write one such as \"Europe/Berlin\"",
            ],
        ),
        (f'{UPSERT}\nexpect = {{ every = "1h", days = "mon" }}',
         ["expect.days: is for a deadline (by), not for every"]),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, keys: str, messages: list[str]) -> None:
    """Each is named with the key that says it, all at once."""
    assert sorted(faults(tmp_path, keys)) == sorted(messages)


@pytest.mark.parametrize(
    ("field", "messages"),
    [
        ('{ type = "text", from = "$file.size" }', "from: '$file.size' is none of $file.name, $file.path, $file.mtime"),
        ('{ type = "text", from = "$record.x" }', "from: '$record.x' is none of $record.no, $record.name, "),
        ('{ type = "text", from = "$path.a.b" }', "from: '$path.a.b' must be $path. and one name in braces of match"),
        ('{ type = "text", from = "$path.day" }', "from: $path.day needs {day} in every pattern of match; 'f/**' has"),
        ('{ type = "text", from = "$record.name" }', "from: $record.name is the name of a member: it needs shape ="),
        ('{ type = "text", from = "^.a" }', "from: ^.a is the record around an exploded one, so it needs explode"),
        ('{ type = "text", from = "$.a" }', "from: $.a is what is around the records, and there is nothing"),
        ('{ type = "text", from = "a", coalesce = ["b"] }', "coalesce: replaces from; leave one of the two out"),
        ('{ type = "timestamp", unit = "s", format = "%Y" }', "format: '%Y' does not say the year, the month and"),
        ('{ type = "timestamp", unit = "s", timezone = "UTC" }', "timezone: is for times written as text; unit says"),
        ('{ type = "timestamp", format = "%d.%m.%Y %Z" }', "format: '%d.%m.%Y %Z' has %Z, which is not one of %% %A"),
        ('{ type = "timestamp", format = "%d.%m.%Y %" }', "format: '%d.%m.%Y %' has %, which is not one of %% %A"),
        ('{ type = "timestamp", format = "%d.%d.%m.%Y" }', "format: '%d.%d.%m.%Y' has the same directive twice"),
        (
            '{ type = "date", format = "%d.%m.%Y %H" }',
            "format: '%d.%m.%Y %H' has a time of the day, which a date does not have",
        ),
        ('{ type = "text", format = "%d.%m.%Y" }', "format: is for timestamp, date, not for text"),
        ('{ type = "date", timezone = "UTC" }', "timezone: is for timestamp, not for date"),
        ('{ type = "timestamp", timezone = "Europe" }', "timezone: 'Europe' is not a time zone that this host knows"),
        ('{ type = "json", coerce = true }', "coerce: is for text, integer, boolean, not for json"),
        ('{ type = "decimal", default = 1.5 }', 'default: must be a number in quotes, such as "12.50", of at most '),
        ('{ type = "decimal", min = "1e1", max = "9.5" }', "min: is greater than max"),
        ('{ type = "decimal", choices = ["1", "1.0"] }', "choices: has the same value twice"),
        ('{ type = "integer", from = "$file.mtime" }', "type: is integer, but $file.mtime is a timestamp in text"),
        ('{ type = "date", from = "$file.mtime" }', "type: is date, but $file.mtime is a timestamp in text"),
        ('{ type = "timestamp", unit = "s", from = "$file.mtime" }', "type: is timestamp, but $file.mtime is a time"),
        ('{ type = "text", from = "$record.no" }', "type: is text, but $record.no is a number"),
        ('{ type = "timestamp", from = "$record.no" }', "type: is timestamp, but $record.no is a number"),
        (
            '{ type = "integer", coalesce = ["n", "$file.name"] }',
            "type: is integer, but $file.name is text, which such a field takes with coerce = true alone",
        ),
    ],
)  # fmt: skip
def test_attributes_that_lead_nowhere_are_refused(tmp_path: Path, field: str, messages: str) -> None:
    """What could only be absent, or mean two things, is told when the config is read."""
    (fault,) = faults(tmp_path, UPSERT, f"{ID}\nx = {field}")
    assert fault.startswith(f"fields.x.{messages}")


@pytest.mark.parametrize(
    ("keys", "path", "messages"),
    [
        ('records = "a.b"', "$.a", "leads into the records, which are at a.b"),
        ('records = "a.b"', "$.a.b.c", "leads into the records, which are at a.b"),
        ('explode = "items"', "$.items", "leads into the records, which are at items"),
        ('explode = "items"', "^.^.x", "leads out of the elements of records"),
        ('shape = "members"', "$.x", "is what is around the records, and there is nothing"),
    ],
)
def test_a_path_around_the_records_cannot_enter_them(tmp_path: Path, keys: str, path: str, messages: str) -> None:
    """The document around the records has everything but the records."""
    (fault,) = faults(tmp_path, f"{UPSERT}\n{keys}", f'{ID}\nx = {{ type = "text", from = "{path}" }}')
    assert fault.startswith(f"fields.x.from: {path} {messages}")


def test_a_cursor_of_the_whole_file_needs_merge(tmp_path: Path) -> None:
    """With skip, the second file of a day would be lost."""
    fields = f'{ID}\nat = {{ type = "timestamp", from = "$file.mtime" }}'
    (fault,) = faults(tmp_path, f'{UPSERT}\ncursor = "at"', fields)
    assert fault.startswith("late: must be \"merge\", as 'at' is one value for the whole file")
    assert load(tmp_path, f'{UPSERT}\ncursor = "at"\nlate = "merge"', fields).cursor == "at"


def test_a_decimal_names_no_row(tmp_path: Path) -> None:
    """Equal numbers have several texts, so a decimal is neither in the key nor in the scope."""
    fields = 'id = { type = "decimal" }'
    assert faults(tmp_path, f'{SNAPSHOT}\nscope = ["id"]', fields) == [
        f"{role}: 'id' is of type decimal, which a {role} cannot be: its text has its scale in it"
        for role in ("key", "scope")
    ]


@pytest.mark.parametrize("mode", ["append", "snapshot"])
def test_a_table_of_facts_or_of_everything_has_no_other_feed(tmp_path: Path, mode: str) -> None:
    """Whose row it is would not be known."""
    more = f'mode = "{mode}"\nkey = ["id"]\n' + ('absent = "mark"\n' if mode == "snapshot" else "")
    text = f'[feeds.g]\ntable = "f"\n{UPSERT}\nfields = {{ {ID} }}\n[feeds.f]\n{more}fields = {{ {ID} }}\n'
    (tmp_path / "inboxd.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfig) as caught:
        load_settings(tmp_path / "inboxd.toml", {}, tmp_path)
    assert f"is also filled by feed 'g'; a feed of mode {mode} has its table alone" in str(caught.value)


def test_a_number_in_a_path_needs_no_leave_to_be_one(tmp_path: Path) -> None:
    """Nobody can write a path as anything but text, so an integer or boolean field from there takes text."""
    keys = f'{UPSERT}\nmatch = ["{{part}}-{{last}}.json"]'
    fields = (
        f'{ID}\npart = {{ type = "integer", from = "$path.part" }}\nlast = {{ type = "boolean", from = "$path.last" }}'
    )
    fields += '\nname = { type = "text", from = "$file.name" }\nn = { type = "integer" }'
    feed = load(tmp_path, keys, fields)
    assert {field.name: field.coerce for field in feed.fields if field.coerce} == {"part": True, "last": True}


def test_columns_of_ours_step_aside(tmp_path: Path) -> None:
    """A field may have the name of a column of inboxd's, whatever the case of its letters."""
    fields = f'{ID}\nRUN_ID = {{ type = "text" }}\nextra = {{ type = "text" }}\nrecord_no = {{ type = "text" }}'
    feed = load(tmp_path, f'{UPSERT}\nextra = "keep"', fields)
    assert feed.own_columns == OwnColumns(run_id="inboxd_run_id", extra="inboxd_extra", record_no="inboxd_record_no")
    assert feed.row_columns == ("id", "RUN_ID", "extra", "record_no", "inboxd_extra", "record_key", "inboxd_record_no")


LEFT_OUT = "which leaves out what is at or below the watermark, as when files arrive out of order"


def test_what_is_allowed_and_may_not_be_meant_is_a_warning(tmp_path: Path) -> None:
    """A feed that leaves ``late`` out loses what arrives late; one behind a feed for everything gets nothing."""
    text = f"""
        [feeds.events]
        [feeds.a]
        {UPSERT}
        cursor = "at"
        fields = {{ {ID}, {AT} }}
        [feeds.b]
        {UPSERT}
        cursor = "at"
        late = "skip"
        fields = {{ {ID}, {AT} }}
        [feeds.c]
        {UPSERT}
        fields = {{ {ID} }}
    """
    (tmp_path / "inboxd.toml").write_text(text, encoding="utf-8")
    messages = load_settings(tmp_path / "inboxd.toml", {}, tmp_path).warnings
    nothing = "no file in the inbox comes to this feed: one before it takes everything"
    assert [line.partition("inboxd.toml:")[2] for line in messages] == [
        *(f"{line}: feeds.{name}.match: {nothing}" for line, name in ((3, "a"), (7, "b"), (12, "c"))),
        f'3: feeds.a.late: is not said; it is "skip", {LEFT_OUT}',
    ]
    assert load(tmp_path, f'{UPSERT}\ncursor = "at"').late is Late.SKIP


def test_an_editor_takes_what_may_stand_without_brackets() -> None:
    """One condition, or a path in place of a table, is right in the JSON Schema too."""
    schema: Any = json_schema()
    feed = schema["$defs"]["FeedTable"]["properties"]
    for key, table in (("where", "ConditionTable"), ("deletes", "DeletionTable")):
        kinds = feed[key]["anyOf"][0]["anyOf"]
        assert kinds[0] == {"$ref": f"#/$defs/{table}"}
        assert (kinds[1]["type"], kinds[1]["items"]) == ("array", kinds[0])
    assert {"type": "string"} in feed["as_of"]["anyOf"]


def test_the_built_in_feed_can_have_another_mode(tmp_path: Path) -> None:
    """Its cursor is left out where the mode has none."""
    (tmp_path / "inboxd.toml").write_text('[feeds.events]\nmode = "append"\n', encoding="utf-8")
    (feed,) = load_settings(tmp_path / "inboxd.toml", {}, tmp_path).feeds
    assert (feed.mode, feed.cursor, feed.key) == (Mode.APPEND, None, ("key",))


@pytest.mark.parametrize(
    ("pattern", "name", "caught"),
    [
        ("{region}/{day}/*.json", "EU/01/x.json", {"region": "EU", "day": "01"}),
        ("sales-{day}.json", "sales-2026-01-15.json", {"day": "2026-01-15"}),
        ("{a}{b}", "xyz", {"a": "x", "b": "yz"}),
        ("*{a}.json", "abc.json", {"a": "abc"}),
        ("*-{a}-*.json", "a-b-c-d.json", {"a": "b"}),
        ("**/{a}/*", "x/y/z/f", {"a": "z"}),
        ("[{]{a}}", "{x}", {"a": "x"}),
        ("{a}/f", "x/y/f", None),
        ("a{b}", "a", None),
    ],
)
def test_a_capture_is_what_stands_in_its_place(
    tmp_path: Path, pattern: str, name: str, caught: dict[str, str] | None
) -> None:
    """At least one character of one part of the path; wildcards and captures take as little as possible."""
    feed = load(tmp_path, f'{UPSERT}\nmatch = ["{pattern}"]')
    assert captures(feed, name) == caught


def test_a_file_from_elsewhere_is_held_against_its_last_parts(tmp_path: Path) -> None:
    """``load`` is given paths that do not begin in the inbox."""
    feed = load(tmp_path, f'{UPSERT}\nmatch = ["{{region}}/*.json"]')
    assert captures(feed, "/home/me/EU/x.json", tail=True) == {"region": "EU"}
    assert captures(feed, "/home/me/EU/x.json") is None


def test_a_file_from_elsewhere_whose_last_parts_fit_in_several_ways_tells_nothing(tmp_path: Path) -> None:
    """Any folder on its way could be the first part: no guess is made."""
    feed = load(tmp_path, f'{UPSERT}\nmatch = ["{{region}}/**"]')
    assert captures(feed, "EU/x.json", tail=True) == {"region": "EU"}
    assert captures(feed, "me/EU/x.json", tail=True) is None
    assert captures(feed, "EU/2026/x.json") == {"region": "EU"}


@given(st.lists(st.sampled_from(["a", "0", "$", "^", "$file", "$path", "b.c", ""]), min_size=1, max_size=4))
def test_names_come_back_as_they_were_written(names: list[str]) -> None:
    """A list is always literal, and a path is shown so that it is read as the same."""
    path = parse_path(names)
    assert origin_of(path) is None
    assert names_of(path) == tuple(names)
    assert parse_path(path_text(path)) == path


@given(st.sets(st.integers(0, 6), min_size=1))
def test_weekdays_come_back_as_they_were_written(days: set[int]) -> None:
    """Runs of days are written as such."""
    assert parse_days(format_days(tuple(sorted(days)))) == tuple(sorted(days))


def test_a_week_may_run_over_its_end() -> None:
    """Saturday to Monday is three days."""
    assert parse_days("sat-mon") == (0, 5, 6)


def test_every_type_of_field_is_in_the_table() -> None:
    """Whoever adds a type is told where."""
    assert set(TYPES) == set(FieldType)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("-0.00", "0.00"), ("1.5e3", "1500"), ("1.50e1", "15.0"), ("+5", "5"), (" 12.50 ", "12.50"), ("1e-3", "0.001"),
        ("0e5", "0"), ("0e-2", "0.00"), ("-1.0E+2", "-100"), ("1e999", "1" + "0" * 999), ("1e1000", None),
        ("007", None),
        ("1e-1000", "0." + "0" * 999 + "1"), ("1e-1001", None), ("1e99999999999999999999", None), (".5", None),
        ("1.", None), ("NaN", None), ("", None), ("1e0000000003", "1000"), ("\u0661", None),
    ],
)  # fmt: skip
def test_a_decimal_has_one_form(text: str, plain: str | None) -> None:
    """Plain digits, the scale as given, no exponent, no plus, no negative zero."""
    assert plain_decimal(text) == plain


def test_a_limit_of_the_live_rows_is_rounded_up_and_at_least_one() -> None:
    """A small table can lose a row, and shares are exact."""
    assert [Limit(share=0.1).most(rows) for rows in (0, 1, 10, 30, 31)] == [1, 1, 1, 3, 4]
    assert Limit(count=0).most(100) == 0
    assert not Limit(share=0.29).exceeded(29, 100)
    assert Limit(share=0.29).exceeded(30, 100)
