"""On which line a key stands."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from inboxd.config.faults import Key
from inboxd.config.locate import locate

DOCUMENT = (
    "# a comment with key = 1 in it\n"  # 1
    "top = 1\n"  # 2
    "[inbox]   # [not.a.table]\n"  # 3
    'path = "a # no comment"   # a comment\n'  # 4
    "ignore = [\n"  # 5
    '    ".*", # hidden = true\n'  # 6
    '    "]",\n'  # 7
    "    'x\\',\n"  # 8
    "]\n"  # 9
    'text = """\n'  # 10
    'not = "a key"\n'  # 11
    '[nor.a.table]\\""""""\n'  # 12
    "after = '''\n"  # 13
    "it''s = 5'''''\n"  # 14
    "\n"  # 15
    '[ feeds . "my feed" . fields ]\r\n'  # 16
    'key = { type = "text", from = "a}b", choices = [ { a = 1 }, 2 ] }\r\n'  # 17
    '"quo\\u0074ed"."=" = 2026-01-15 10:30:00\n'  # 18
    "'lit#eral' = 1.5\n"  # 19
    "[[many]]\n"  # 20
    "a = 1\n"  # 21
    "[[many]]\n"  # 22
    "a = 2\n"  # 23
    "[many.sub]\n"  # 24
    "b = 3\n"  # 25
    "[[many.deep]]\n"  # 26
    "c = 4"  # 27
)
LINES: dict[Key, int] = {
    ("top",): 2,
    ("inbox",): 3,
    ("inbox", "path"): 4,
    ("inbox", "ignore"): 5,
    ("inbox", "ignore", 0): 6,
    ("inbox", "ignore", 1): 7,
    ("inbox", "ignore", 2): 8,
    ("inbox", "text"): 10,
    ("inbox", "after"): 13,
    ("feeds",): 16,
    ("feeds", "my feed"): 16,
    ("feeds", "my feed", "fields"): 16,
    ("feeds", "my feed", "fields", "key"): 17,
    ("feeds", "my feed", "fields", "key", "type"): 17,
    ("feeds", "my feed", "fields", "key", "from"): 17,
    ("feeds", "my feed", "fields", "key", "choices"): 17,
    ("feeds", "my feed", "fields", "key", "choices", 0): 17,
    ("feeds", "my feed", "fields", "key", "choices", 0, "a"): 17,
    ("feeds", "my feed", "fields", "key", "choices", 1): 17,
    ("feeds", "my feed", "fields", "quoted"): 18,
    ("feeds", "my feed", "fields", "quoted", "="): 18,
    ("feeds", "my feed", "fields", "lit#eral"): 19,
    ("many",): 20,
    ("many", 0): 20,
    ("many", 0, "a"): 21,
    ("many", 1): 22,
    ("many", 1, "a"): 23,
    ("many", 1, "sub"): 24,
    ("many", 1, "sub", "b"): 25,
    ("many", 1, "deep"): 26,
    ("many", 1, "deep", 0): 26,
    ("many", 1, "deep", 0, "c"): 27,
}


def paths(value: object, at: Key = ()) -> Iterator[Key]:
    """Yield the key of everything in a document."""
    if at:
        yield at
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, (*at, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from paths(inner, (*at, number))


def test_every_key_is_found_on_its_line() -> None:
    """Comments, strings of all four kinds, arrays over many lines, inline tables and quoted keys do not mislead."""
    assert locate(DOCUMENT) == LINES
    assert set(LINES) == set(paths(tomllib.loads(DOCUMENT)))


def test_an_empty_document_has_no_keys() -> None:
    """A file with nothing, or with comments only, is a config too."""
    assert locate("") == locate("# nothing\n\n   # here") == {}


BASIC = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=8).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
LITERAL = st.text(alphabet='ab#[]{}=",. \\', max_size=8).map(lambda text: f"'{text}'")
LONG = st.text(alphabet="ab#[]{}=,. \n'", max_size=12).map(lambda text: f'"""{text}"""')
LONG_LITERAL = st.text(alphabet='ab#[]{}=,. \n"\\', max_size=12).map(lambda text: f"'''{text}'''")
PLAIN = st.sampled_from(["1", "-2.5e3", "true", "1979-05-27 07:32:00", "1979-05-27T07:32:00Z", "0xf", "inf"])
ONE_LINE = st.one_of(BASIC, LITERAL, PLAIN)
BLANK = st.sampled_from(["", " ", "\n", ' # it\'s a "comment" ]\n', "\r\n\t"])
KEYS = st.one_of(st.text(alphabet="ab-_1", min_size=1, max_size=3), BASIC, LITERAL)


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return arrays with blanks, comments and new lines where TOML allows them."""
    element = st.tuples(BLANK, inner, BLANK).map("".join)
    return st.tuples(st.lists(element, max_size=3), BLANK).map(lambda parts: f"[{','.join(parts[0])}{parts[1]}]")


def inline(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return inline tables with keys that differ."""
    return st.dictionaries(st.sampled_from(["a", '"b.c"', "'d'", "e-f"]), inner, max_size=3).map(
        lambda table: "{ " + ", ".join(f"{key} = {value}" for key, value in table.items()) + " }"
    )


VALUES = st.recursive(
    st.one_of(ONE_LINE, LONG, LONG_LITERAL), lambda inner: st.one_of(arrays(inner), inline(ONE_LINE)), max_leaves=6
)


@given(st.lists(st.tuples(BLANK, st.booleans(), KEYS, VALUES), max_size=8))
def test_no_key_is_missed_and_none_made_up(items: list[tuple[str, bool, str, str]]) -> None:
    """For any document exactly its keys are located, each statement's on the line on which it begins."""
    text = ""
    table: Key = ()
    expected: dict[Key, int] = {}
    for blank, header, key, value in items:
        before = text + (blank if blank.endswith("\n") else "")
        after = before + (f"[{key}]\n" if header else f"{key} = {value}\n")
        try:
            tomllib.loads(after)
        except tomllib.TOMLDecodeError:  # the same key twice
            continue
        text = after
        name = next(iter(tomllib.loads(f"{key} = 0")))
        table = (name,) if header else table
        expected[table if header else (*table, name)] = before.count("\n") + 1
    found = locate(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    assert found.items() >= expected.items()
