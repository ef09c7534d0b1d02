"""Where records stand, which of them count and what is read around them, against an oracle of the standard library."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inboxd.audit.judge import Judge as AuditJudge
from inboxd.audit.judge import Kind
from inboxd.audit.values import canonical
from inboxd.errors import FileFault
from inboxd.model import Condition, Deletes, Extra, Feed, Field, FieldType, Gone, Mode, Origin, Path, Scalar, Shape
from inboxd.outcomes import Reject
from inboxd.records.decode import Reading
from inboxd.records.surroundings import FileFacts, variant_of
from inboxd.records.validate import judge
from records_oracle import NOW, audited_reading

UP, DOC, FILE, CAPTURE, SELF = Origin.AROUND, Origin.DOCUMENT, Origin.FILE, Origin.CAPTURE, Origin.RECORD
FACTS = FileFacts("EU/x.json", "2026-01-15T10:30:00.000000Z", {"region": "EU"})


def field(name: str, path: Path, kind: FieldType = FieldType.JSON, **attributes: Any) -> Field:
    """Return a field that takes whatever is there, if nothing else is said."""
    return Field(name, kind, path, name, required=attributes.pop("required", False), **attributes)


def facts(*fields: Field, **attributes: Any) -> Feed:
    """Return a feed of facts with these fields."""
    return Feed("f", ("**",), "f", (), None, fields, mode=Mode.APPEND, **attributes)


def batches(
    content: bytes, feed: Feed, window: int = 1 << 20, max_size: int = 2**40
) -> tuple[list[Any], list[Reject], int]:
    """Read a whole content; return its rows, its rejects and how many records were filtered."""
    rows: list[Any] = []
    rejects: list[Reject] = []
    filtered = 0
    reading = Reading(
        io.BytesIO(content), feed, now=NOW, max_size=max_size, window=window, facts=FACTS,
        again=lambda: io.BytesIO(content),
    )  # fmt: skip
    for batch in reading.batches():
        rows += batch.rows
        rejects += batch.rejects
        filtered += batch.filtered
    return rows, rejects, filtered


NAMES = st.sampled_from(["a", "b", "items", "0", "1", "x y"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "d", "},{", "é", "1", "true"]),
    st.sampled_from([1.0, 1.5, -0.0, 1e300, 2.5e-7]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)


@st.composite
def conditions(draw: st.DrawFn, paths: st.SearchStrategy[Any]) -> Condition:
    """Draw a condition."""
    values = st.lists(SCALARS.filter(lambda value: value is not None).map(json.dumps), min_size=1, max_size=3).map(
        tuple
    )
    kind = draw(st.sampled_from(["any_of", "none_of", "pattern", "exists"]))
    said: Any = {
        "any_of": values, "none_of": values, "pattern": st.sampled_from(["^a", "d", "^$"]), "exists": st.booleans(),
    }[kind]  # fmt: skip
    return Condition(draw(paths), **{kind: draw(said)})


@st.composite
def feeds(draw: st.DrawFn) -> Feed:
    """Draw where the records stand, and which count."""
    path = draw(st.lists(NAMES, max_size=2).map(tuple))
    shape = draw(st.sampled_from([None, None, Shape.MEMBERS] + ([] if path else [Shape.VALUES])))
    explode = draw(st.just(()) | st.lists(NAMES, min_size=1, max_size=2).map(tuple))
    read: list[Path] = draw(st.lists(PATHS, min_size=1, max_size=3))
    read += [(SELF, "no"), (SELF, "value")]
    if shape is Shape.MEMBERS:
        read.append((SELF, "name"))
    if explode:
        read.append((UP, *draw(PATHS)))
    if len(explode) > 1:
        read.append((UP, UP, *draw(PATHS)))
    if path:
        around = draw(PATHS)
        if around[: len(path)] != path[: len(around)]:
            read.append((DOC, *around))
    where = tuple(draw(st.lists(conditions(st.sampled_from(read)), max_size=2)))
    fields = tuple(field(f"f{number}", each) for number, each in enumerate(read))
    return facts(*fields, records=path, shape=shape, explode=explode, where=where)


def expected(feed: Feed, text: str) -> tuple[list[list[Scalar]], int]:
    """Return what the audit's reader says of a text: the fields' values, and how many records are filtered."""
    reading, judge_of = audited_reading(text.encode(), feed), AuditJudge(feed, NOW)
    verdicts = [judge_of.judge(record) for record in reading.records()]
    filtered = reading.filtered + sum(verdict.kind is Kind.FILTERED for verdict in verdicts)
    kept = [verdict.values for verdict in verdicts if verdict.kind is not Kind.FILTERED]
    return [[values[each.name] for each in feed.fields] for values in kept], filtered


def read_again(source: Any) -> Any:
    """Return a stored JSON text as equal ones are alike."""
    return None if source is None else canonical(source)


@settings(max_examples=400)
@given(
    feeds(),
    st.lists(VALUES, min_size=1, max_size=4),
    st.sampled_from(["\n", "\n\n", " \n"]),
    st.sampled_from([1, 7, 1 << 20]),
)
def test_records_are_where_the_feed_says(feed: Feed, values: list[Any], between: str, window: int) -> None:
    """Each record once, in order, with what is around it, whatever the envelope; the others are counted."""
    text = between.join(json.dumps(value, ensure_ascii=False) for value in values)
    if not feed.records and feed.shape is None and text.startswith("["):
        text = json.dumps(values[0], ensure_ascii=False)
    try:
        rows, rejects, filtered = batches(text.encode(), feed, window)
    except FileFault as fault:
        found = fault.code
        assert (found, expected(replace(feed, where=()), text)[0]) == ("no_records", [])
        return
    wanted, left_out = expected(feed, text)
    assert not rejects
    assert [[read_again(value) for value in row[: len(feed.fields)]] for row in rows] == wanted
    assert filtered == left_out


@settings(max_examples=100)
@given(st.lists(st.fixed_dictionaries({"a": SCALARS, "b": VALUES}), max_size=30), st.data())
def test_conditions_choose_the_same_records_by_every_road(values: list[Any], data: st.DataObject) -> None:
    """Whether decoded together or one by one."""
    where = tuple(
        data.draw(st.lists(conditions(st.sampled_from([("a",), ("b",), ("b", "a"), ("b", "0")])), min_size=1))
    )
    feed = facts(field("a", ("a",)), field("no", (SELF, "no"), FieldType.INTEGER), where=where)
    text = json.dumps(values)
    rows, rejects, filtered = batches(text.encode(), feed)
    found, left_out = expected(feed, text)
    assert ([row[1] for row in rows], len(rejects), filtered) == ([number for _, number in found], 0, left_out)
    lines = "".join(f"{json.dumps(value)}" for value in values)  # without white space
    if values:
        assert batches(lines.encode(), feed)[0] == rows


def test_what_is_around_a_record_is_kept_with_a_rejected_one_and_enough_to_judge_it_again() -> None:
    """A replay needs no file: the same reject, or after the config was mended the row that the file would give."""
    feed = facts(
        field("n", ("n",), FieldType.INTEGER, required=True),
        field("host", (UP, "host"), FieldType.TEXT),
        field("account", (DOC, "account"), FieldType.TEXT),
        field("no", (SELF, "no"), FieldType.INTEGER),
        field("region", (CAPTURE, "region"), FieldType.TEXT, required=True),
        field("seen", (FILE, "mtime"), FieldType.TIMESTAMP, required=True),
        records=("hosts",),
        explode=("checks",),
        where=(Condition((UP, "live"), any_of=("true",)),),
    )
    content = b"""{"hosts": [{"checks": [{"n": 1}, {"n": "x"}], "host": "a", "live": true}, {"checks": [{"n": 3}]}],
                   "account": "A1"}"""
    rows, (reject,), filtered = batches(content, feed)
    assert rows == [(1, "a", "A1", 1, "EU", "2026-01-15T10:30:00.000000Z", "#1", 1)]
    assert filtered == 1
    assert (reject.record_no, reject.raw, reject.code) == (2, '{"n": "x"}', "invalid_n")
    assert json.loads(reject.context or "") == {
        "^.host": "a", "$.account": "A1", "$record.no": 2, "$path.region": "EU", "^.live": True,
        "$file.mtime": "2026-01-15T10:30:00.000000Z",
    }  # fmt: skip
    assert judge(reject.raw.encode(), 2, feed, now=NOW, context=reject.context) == reject
    mended = replace(feed, fields=(field("n", ("n",), FieldType.TEXT), *feed.fields[1:]))
    again = judge(reject.raw.encode(), 2, mended, now=NOW, context=reject.context)
    assert again == ("x", "a", "A1", 2, "EU", "2026-01-15T10:30:00.000000Z", "#2", 2)
    stricter = replace(feed, where=(Condition((UP, "live"), any_of=("false",)),))
    assert judge(reject.raw.encode(), 2, stricter, now=NOW, context=reject.context) is None


@pytest.mark.parametrize("position", ["before", "after"])
def test_a_value_around_the_records_is_known_wherever_it_stands(position: str) -> None:
    """Also after a million records: the document is read twice for it."""
    inner = ",".join(f'{{"n":{number}}}' for number in range(5_000))
    around = '"meta":{"account":"A1"}'
    text = f'{{{around},"rows":[{inner}]}}' if position == "before" else f'{{"rows":[{inner}],{around}}}'
    feed = facts(
        field("n", ("n",), FieldType.INTEGER),
        field("account", (DOC, "meta", "account"), FieldType.TEXT),
        records=("rows",),
    )
    rows, rejects, _ = batches(text.encode(), feed, window=1_000)
    assert [row[:2] for row in rows] == [(number, "A1") for number in range(5_000)]
    assert not rejects


def test_a_missing_value_around_the_records_fails_the_file_once() -> None:
    """Not a million records."""
    feed = facts(field("account", (DOC, "account"), FieldType.TEXT, required=True), records=("rows",))
    for content in (b'{"rows":[{},{}]}', b'{"rows":[{}],"account":5}'):
        with pytest.raises(FileFault) as caught:
            batches(content, feed)
        assert caught.value.code == "invalid_context"
        assert "$.account" in caught.value.message
    assert batches(b'{"rows":[]}', feed) == ([], [], 0)  # there is no record to lack it


def test_deletions_need_no_more_than_their_key_and_cursor() -> None:
    """Other fields of a deletion are not looked at; it stands among the others in the order of the file."""
    feed = Feed(
        "f", ("**",), "f", ("id",), "at",
        (field("value", ("value",), FieldType.REAL, required=True), field("id", ("id",), FieldType.TEXT),
         field("at", ("at",), FieldType.INTEGER)),
        deletes=Deletes((Condition(("op",), any_of=('"d"',)),), Gone.REMOVE), extra=Extra.REJECT,
    )  # fmt: skip
    content = b"""[{"id":"a","at":1,"value":1},{"id":"b","at":2,"op":"d","value":"?","more":1},{"op":"d","id":"c"},
                   {"id":"d","at":4},{"id":"e","at":5,"value":2.5}]"""
    rows, rejects, _ = batches(content, feed)
    assert rows == [(1.0, "a", 1, False, 1), (None, "b", 2, True, 2), (2.5, "e", 5, False, 5)]
    assert [(each.record_no, each.code) for each in rejects] == [(3, "invalid_at"), (4, "invalid_value")]
    assert judge(b'{"id":"b","at":2,"op":"d"}', 2, feed, now=NOW) == rows[1]


def test_the_values_of_coalesce_are_tried_in_order() -> None:
    """The first that is there and not null, or a text that counts as null; typed like any other value."""
    paths = {"path": ("after", "id"), "coalesce": (("before", "id"), (FILE, "name"))}
    feed = facts(Field("id", FieldType.TEXT, label="id", null=("-",), **paths))  # type: ignore[arg-type] # as written
    content = b"""[{"after":{"id":"1"},"before":{"id":"2"}},{"after":null,"before":{"id":"2"}},
                   {"before":{"id":"-"}},{"after":{"id":3}}]"""
    rows, rejects, _ = batches(content, feed)
    assert [row[0] for row in rows] == ["1", "2", "x.json"]
    assert [each.code for each in rejects] == ["invalid_id"]


def test_names_that_only_a_condition_reads_are_not_unexpected() -> None:
    """``extra = "reject"`` is about names that the feed does not know at all; ``keep`` keeps them."""
    feed = facts(field("a", ("a",)), where=(Condition(("op", "x"), exists=True),), extra=Extra.REJECT)
    content = b'[{"a":1,"op":{"x":1}},{"a":1,"op":{"x":1},"more":2}]'
    rows, rejects, _ = batches(content, feed)
    assert (len(rows), [each.code for each in rejects]) == (1, ["unexpected_field"])
    rows, rejects, _ = batches(content, replace(feed, extra=Extra.KEEP))
    assert [json.loads(row[1]) for row in rows] == [{"op": {"x": 1}}, {"op": {"x": 1}, "more": 2}]


def test_rows_of_arrays_are_read_by_position() -> None:
    """A spreadsheet in JSON; without such a field, what is no object is refused."""
    feed = facts(field("name", ("0",), FieldType.TEXT), field("deep", ("1", "x"), FieldType.INTEGER))
    assert [row[:2] for row in batches(b'[["a",{"x":1}],{"0":"b"},["c"]]', feed)[0]] == [
        ("a", 1),
        ("b", None),
        ("c", None),
    ]
    lines = replace(feed, shape=Shape.VALUES)
    assert [row[:2] for row in batches(b'["a",{"x":1}]\n["b"]\n', lines)[0]] == [("a", 1), ("b", None)]
    with pytest.raises(FileFault, match="line to itself"):
        batches(b'["a"]["b"]\n', lines)
    (reject,) = batches(b'[["a"]]', facts(field("name", ("name",))))[1]
    assert reject.code == "not_an_object"


def test_scalars_are_records_where_a_field_reads_them_whole() -> None:
    """``$record.value``."""
    feed = facts(field("value", (SELF, "value"), FieldType.INTEGER, required=True), shape=Shape.VALUES)
    rows, rejects, _ = batches(b'1\n2\n"x"\n', feed)
    assert ([row[0] for row in rows], [each.raw for each in rejects]) == ([1, 2], ['"x"'])


def test_members_of_an_object_are_records_repeated_names_too() -> None:
    """``{"AAPL": {…}}``: the name is a value like any other."""
    feed = facts(
        field("symbol", (SELF, "name"), FieldType.TEXT), field("n", ("n",), FieldType.INTEGER), shape=Shape.MEMBERS
    )
    for window in (1, 1 << 20):
        rows, _, _ = batches(b'{"AAPL":{"n":1},"M\\u00e9":{"n":2},"AAPL":{"n":3}}', feed, window)
        assert [row[:2] for row in rows] == [("AAPL", 1), ("Mé", 2), ("AAPL", 3)]


def test_what_is_copied_to_each_record_counts_towards_the_largest_file() -> None:
    """A document cannot blow itself up: a large value around many records is a file too large."""
    feed = facts(field("note", (UP, "note"), FieldType.TEXT), explode=("items",))
    content = json.dumps([{"note": "x" * 1_000, "items": [{}] * 100}]).encode()
    assert len(batches(content, feed, max_size=200_000)[0]) == 100
    with pytest.raises(FileFault) as caught:
        batches(content, feed, max_size=90_000)
    assert caught.value.code == "file_too_large"


def test_the_moment_and_the_scope_of_a_snapshot_are_known_before_its_records() -> None:
    """Also of a file without records."""
    feed = Feed(
        "f", ("**",), "f", ("id",), None,
        (field("id", ("id",), FieldType.TEXT), field("region", (CAPTURE, "region"), FieldType.TEXT)),
        records=("rows",), mode=Mode.SNAPSHOT, absent=Gone.REMOVE, scope=("region",),
        as_of=Field("as_of", FieldType.TIMESTAMP, (DOC, "at"), "as_of", unit="s"),
    )  # fmt: skip

    def reading(content: bytes, feed: Feed = feed) -> Reading:
        return Reading(
            io.BytesIO(content), feed, now=NOW, max_size=2**40, facts=FACTS, again=lambda: io.BytesIO(content)
        )

    found = reading(b'{"rows":[],"at":0}')
    assert (found.as_of, found.scope) == ("1970-01-01T00:00:00.000000Z", ("EU",))
    assert list(found.batches())[-1].rows == []
    with pytest.raises(FileFault, match="as_of"):
        assert reading(b'{"rows":[]}').as_of
    by_record = replace(feed, fields=(feed.fields[0], field("region", ("region",), FieldType.TEXT)))
    assert reading(b'{"rows":[],"at":0}', by_record).scope is None
    with pytest.raises(FileFault, match="different times"):
        list(reading(b'{"rows":[],"at":0}\n{"rows":[],"at":1}').batches())


def test_the_same_bytes_are_two_contents_where_the_path_tells_them_apart() -> None:
    """What the feed reads of the path is part of what was loaded; the file's name where it decides about rows."""
    plain = facts(field("a", ("a",)), field("name", (FILE, "name"), FieldType.TEXT))
    assert variant_of(plain, FACTS) == ""
    assert variant_of(replace(plain, key=("name",)), FACTS) == '{"$file.name":"x.json"}'
    captured = facts(field("r", (CAPTURE, "region"), FieldType.TEXT), where=(Condition((FILE, "path"), pattern="x"),))
    assert variant_of(captured, FACTS) == '{"$file.path":"EU/x.json","$path.region":"EU"}'
