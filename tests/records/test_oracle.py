"""Records read by the daemon against the same records read by the oracle, over adversarial files and windows."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.audit.values import canonical
from inboxd.errors import FileFault
from inboxd.model import Feed, FieldType, names_of
from inboxd.outcomes import Reject
from inboxd.records.validate import judge
from records_feeds import EVENTS, FEEDS, feed_of, read
from records_oracle import NOW, BadFile, Number, Verdicts, judge_file, judge_record

TEXTS = (
    "a", "user-1", "", " ", "\u00a0\u2003", "x},{y", '},\n{"key":1', "[{", "]}", '"quoted"', "back\\slash", "a\nb",
    "\u0000", "\ud800", "\udfff", "é", "日本", "😀", "k" * 1025, "é" * 600, '"name":', "null", "true", "\u001f", "\x7f",
    "/",
)  # fmt: skip
NUMBERS = (
    "0", "-0", "1", "9", "-7", "1.0", "1.5", "-0.0", "1e2", "1E+2", "1e-400", "1e400", "-1e400", "0.1", "5e-324",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "123456789012345678901234567890", "9" * 320, "0.30000000000000004", "1e1000", "1e1001", "1e-1001",
    "9007199254740993",
)  # fmt: skip
REALS = (" 1.5 ", "+3", "-2", "1_000", "0x1", "NaN", "inf", "1e400", "٣", "1.", ".5", "- 5", "1e5", "007", "1 2", "\t1")
TIMES = (
    "2026-01-15T10:30:00Z", "2026-01-15T10:30:01Z", "2025-01-15T10:30:00Z", "2026-01-15", "2026-01-15 10:30:00",
    "2026-01-15t10:30:00z", "2026-01-15T10:30Z", "2026-01-15T10:30:00.5Z", "2026-01-15T10:30:00.123456789Z",
    "2026-01-15T10:30:00,123+01:00", "2026-01-15T10:30:00+0530", "2026-01-15T10:30:00-08", "2026-01-15T10:30:60Z",
    "2026-01-15T24:00:00Z", "2026-02-30T10:30:00Z", "2026-W03-4T10:30:00Z", "20260115T103000.000Z", "20260115",
    "2026-01-15T10:30:00+24:00", "2026-01-15T10:30:00+00:60", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00Z", "2026-06-02T12:00:00Z", "2026-06-02T12:00:01Z",
    "2026-06-02T12:00:00.000001Z", "2026-06-03", "2026-01-15T10Z", "2026-01-15T10:30:00 Z", " 2026-01-15",
    "2026-1-5", "2026-01-15X10:30:00Z", "٢٠٢٦-01-15", "2026-01-15T10:30:00.Z", "2026-01-15T10:30:00Z\n",
    "2026-01-15T10:30:00+0",
)  # fmt: skip
FIRST = {
    FieldType.TEXT: st.sampled_from(("a", "user-1", "é")),
    FieldType.INTEGER: st.sampled_from(("1", "9", "2")).map(Number),
    FieldType.REAL: st.sampled_from(("1", "2.5", "1e2")).map(Number),
    FieldType.BOOLEAN: st.booleans(),
    FieldType.TIMESTAMP: st.sampled_from(TIMES[:3]),
    FieldType.DATE: st.just("2026-01-15"),
    FieldType.JSON: st.sampled_from(((("a", [Number("1.50"), "x"]),), [(("key", "y"),)])),
}
NAMES = (
    "key",
    "name",
    "value",
    "count",
    "ts",
    "actor",
    "stats",
    "repo",
    "extra",
    "",
    "payload",
    'k"ey',
    "z\u00e4",
    "\ud800",
)
SCALARS = st.one_of(
    st.sampled_from(TEXTS + REALS + TIMES),
    st.sampled_from(NUMBERS).map(Number),
    st.none(),
    st.booleans(),
    st.text(max_size=4),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(st.sampled_from(NAMES), inner), max_size=3).map(tuple)
    ),
    max_leaves=5,
)


@st.composite
def records(draw: st.DrawFn, feed: Feed) -> Any:
    """A record of the feed, usually nearly valid; an object is a tuple of pairs."""
    if draw(st.integers(0, 15)) == 0:
        return draw(ANYTHING)
    tree: dict[str, Any] = {}
    for declared in feed.fields:
        if draw(st.integers(0, 19)) == 0:
            continue
        value = draw(ANYTHING if draw(st.integers(0, 7)) == 0 else FIRST[declared.type])
        inner = tree
        for name in names_of(declared.path)[:-1]:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                break
        else:
            inner[names_of(declared.path)[-1]] = value
    pairs = _pairs(tree)
    if draw(st.integers(0, 5)) == 0:
        pairs += tuple(draw(st.lists(st.tuples(st.sampled_from(NAMES), ANYTHING), max_size=3)))
    if draw(st.integers(0, 7)) == 0 and pairs:
        name = draw(st.sampled_from(pairs))[0]
        pairs += ((name, draw(ANYTHING)),)
    return tuple(draw(st.permutations(pairs))) if draw(st.booleans()) else pairs


def _pairs(tree: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, _pairs(value) if isinstance(value, dict) else value) for name, value in tree.items())


def render(value: Any, chance: random.Random, *, spaces: bool) -> str:
    """Write a value as JSON, with white space and escapes at random."""

    def blank() -> str:
        return chance.choice(("", "", " ", "\n", "\t \r\n")) if spaces else ""

    if isinstance(value, Number):
        return value.source
    if isinstance(value, tuple):
        parts = [
            f"{blank()}{_string(n, chance)}{blank()}:{blank()}{render(v, chance, spaces=spaces)}{blank()}"
            for n, v in value
        ]
        return "{" + (",".join(parts) or blank()) + "}"
    if isinstance(value, list):
        return "[" + (",".join(f"{blank()}{render(v, chance, spaces=spaces)}{blank()}" for v in value) or blank()) + "]"
    return _string(value, chance) if isinstance(value, str) else json.dumps(value)


def _string(text: str, chance: random.Random) -> str:
    way = chance.randrange(8)
    if way == 0:
        return '"' + "".join(f"\\u{int.from_bytes(unit):04x}" for unit in _units(text)) + '"'
    written = json.dumps(text, ensure_ascii=way == 1)
    return "".join(f"\\u{ord(letter):04X}" if "\ud800" <= letter <= "\udfff" else letter for letter in written)


def _units(text: str) -> list[bytes]:
    wide = text.encode("utf-16-be", "surrogatepass")
    return [wide[at : at + 2] for at in range(0, len(wide), 2)]


@st.composite
def files(draw: st.DrawFn, feed: Feed, most: int = 12) -> bytes:
    """A file of the feed's records in one of the formats."""
    chance = draw(st.randoms(use_true_random=False))
    spaces = draw(st.booleans())
    texts = [render(value, chance, spaces=spaces) for value in draw(st.lists(records(feed), max_size=most))]

    def blank() -> str:
        return chance.choice(("", "", " ", "\n", "\r\n  ")) if spaces else ""

    if draw(st.booleans()):
        text = "[" + (",".join(f"{blank()}{text}{blank()}" for text in texts) or blank()) + "]"
    else:
        text = chance.choice(("\n", "\r\n", "\n \n")).join(texts) if draw(st.booleans()) else " ".join(texts)
    return (draw(st.sampled_from(("", "", "\ufeff"))) + blank() + text + blank()).encode()


def mine(content: bytes, feed: Feed, window: int) -> Verdicts:
    """Read with the code under test, in the oracle's form."""
    rows, rejects = read(content, feed, window=window)
    verdicts = Verdicts(rejects=[(r.record_no, r.raw, r.record_key, r.cursor, r.code) for r in rejects])
    for row in rows:
        values: list[Any] = list(row)
        for position, column in enumerate(feed.row_columns):
            json_like = column == "extra" or (column in {f.name for f in feed.fields if f.type is FieldType.JSON})
            if json_like and isinstance(values[position], str):
                values[position] = canonical(values[position])
        verdicts.rows.append(tuple(values))
    return verdicts


def same(mine: Verdicts, theirs: Verdicts) -> None:
    """Assert that two readings agree, to the type and the sign of each number."""
    assert [repr(row) for row in mine.rows] == [repr(row) for row in theirs.rows]
    assert mine.rejects == theirs.rejects


WINDOWS = st.one_of(st.integers(1, 60), st.integers(60, 400), st.just(1 << 20))
LAX = settings(max_examples=80, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: " ".join(feed.columns))
@LAX
@given(data=st.data())
def test_every_file_is_read_as_the_contract_says(feed: Feed, data: st.DataObject) -> None:
    """Whatever the layout, the window and the order of bad records, each record's verdict is the contract's."""
    content = data.draw(files(feed))
    window = data.draw(WINDOWS)
    try:
        expected = judge_file(content, feed)
    except BadFile as fault:
        with pytest.raises(FileFault) as caught:
            read(content, feed, window=window)
        assert caught.value.code == str(fault)  # noqa: PT017 - the oracle's word
        assert caught.value.place is not None or str(fault) == "empty_file"  # noqa: PT017
        return
    same(mine(content, feed, window), expected)
    if data.draw(st.booleans()):
        same(mine(gzip.compress(content), feed, window), expected)


@pytest.mark.parametrize("feed", FEEDS[:5], ids=lambda feed: " ".join(feed.columns))
@LAX
@given(data=st.data())
def test_a_damaged_file_is_loaded_whole_or_refused_whole(feed: Feed, data: st.DataObject) -> None:
    """A file with bytes lost, added or changed has the oracle's verdict: a code and a place, or the same records."""
    content = bytearray(data.draw(files(feed, most=6)))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(content)))
        junk = data.draw(
            st.sampled_from((b"", b",", b"]", b"}", b"{", b'"', b"\\", b"\x00", b"\xff", b"\xc3", b"1", b"[", b"\n"))
        )
        content[at : at + data.draw(st.integers(0, 3))] = junk
    window = data.draw(WINDOWS)
    try:
        expected = judge_file(bytes(content), feed)
    except BadFile as fault:
        with pytest.raises(FileFault) as caught:
            read(bytes(content), feed, window=window)
        either = ("invalid_encoding", "invalid_json") if str(fault) == "invalid_encoding" else (str(fault),)
        assert caught.value.code in either
        place = caught.value.place
        if place is not None:
            assert 0 <= place.byte <= len(content)
            assert place.line == content[: place.byte].count(b"\n") + 1
            before = bytes(content[: place.byte]).decode("utf-8", "ignore").removeprefix("\ufeff")
            assert place.column == len(before) - (before.rfind("\n") + 1) + 1
        return
    same(mine(bytes(content), feed, window), expected)


@pytest.mark.parametrize("feed", FEEDS, ids=lambda feed: " ".join(feed.columns))
@LAX
@given(data=st.data())
def test_the_judge_and_the_fast_road_agree(feed: Feed, data: st.DataObject) -> None:
    """A dead letter that is replayed has the very verdict, detail included, that its record had in its file."""
    chance = data.draw(st.randoms(use_true_random=False))
    texts = [render(value, chance, spaces=False).encode() for value in data.draw(st.lists(records(feed), max_size=8))]
    rows, rejects = read(b"[" + b",".join(texts) + b"]", feed)
    verdicts = [judge(text, number, feed, now=NOW) for number, text in enumerate(texts, 1)]
    assert repr([verdict for verdict in verdicts if not isinstance(verdict, Reject)]) == repr(rows)
    assert [verdict for verdict in verdicts if isinstance(verdict, Reject)] == rejects


@LAX
@given(data=st.data())
def test_records_inside_a_document_are_found_wherever_they_stand(data: st.DataObject) -> None:
    """With a path to the records, what stands around them is checked and passed over."""
    feed = feed_of(*EVENTS.fields, records=("a", "b"))
    chance = data.draw(st.randoms(use_true_random=False))
    inner = data.draw(st.lists(records(EVENTS), max_size=5)) if data.draw(st.integers(0, 5)) else data.draw(ANYTHING)
    around = st.lists(st.tuples(st.sampled_from(("x", "b", "key", "y")), ANYTHING), max_size=2)
    middle = (*data.draw(around.map(lambda pairs: [p for p in pairs if p[0] != "b"])), ("b", inner), *data.draw(around))
    document = (*data.draw(around), ("a", middle if data.draw(st.integers(0, 9)) else inner), *data.draw(around))
    content = render(document, chance, spaces=data.draw(st.booleans())).encode()
    window = data.draw(WINDOWS)
    try:
        expected = judge_file(content, feed)
    except BadFile as fault:
        with pytest.raises(FileFault) as caught:
            read(content, feed, window=window)
        assert caught.value.code == str(fault)  # noqa: PT017
        return
    same(mine(content, feed, window), expected)


@LAX
@given(data=st.data())
def test_one_record_judged_alone_is_judged_as_the_oracle_judges_it(data: st.DataObject) -> None:
    """The exact judge knows nothing of windows, and the contract's rules hold for it."""
    feed = data.draw(st.sampled_from(FEEDS))
    chance = data.draw(st.randoms(use_true_random=False))
    text = render(data.draw(records(feed)), chance, spaces=True)
    verdict = judge(text.encode(), 7, feed, now=NOW)
    expected = judge_record(text, 7, feed)
    if isinstance(verdict, Reject):
        assert ("reject", 7, text, verdict.record_key, verdict.cursor, verdict.code) == expected
        assert verdict.code in verdict.detail or verdict.code == "not_an_object"
    else:
        assert expected[0] == "row"
