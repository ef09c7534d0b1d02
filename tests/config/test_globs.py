"""Which feed a file is."""

from __future__ import annotations

import fnmatch
import os
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inboxd.config import compile_glob, literal, match_feed, never_reached
from inboxd.config.globs import captures_of
from inboxd.model import Feed, Field, FieldType

NAMES = st.lists(st.text(alphabet="ab.\n-", min_size=1, max_size=4), min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(
    st.one_of(st.just("**"), st.text(alphabet="ab.*?\n-", min_size=1, max_size=4).filter(lambda part: part != "**")),
    min_size=1,
    max_size=4,
).map("/".join)


def feed(name: str, *match: str) -> Feed:
    """Return a feed of that name and match."""
    fields = (Field("id", FieldType.INTEGER, ("id",), "id"),)
    return Feed(name, match, name, ("id",), "id", fields)


def matches(pattern: str, name: str) -> bool:
    """Tell whether a file of that path is matched."""
    return compile_glob(pattern).fullmatch(name) is not None


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("**", "a.json"),
        ("**", "deep/er/a.json"),
        ("orders/**", "orders/a.json"),
        ("orders/**", "orders/2026/01/a.json"),
        ("**/orders/*.json", "orders/a.json"),
        ("**/orders/*.json", "eu/west/orders/a.json"),
        ("a/**/b.json", "a/b.json"),
        ("a/**/b.json", "a/x/y/b.json"),
        ("*.json", "a.json"),
        ("*.json", ".json"),
        ("?.json", "ü.json"),
        ("[a-c]*.json", "beta.json"),
        ("[!a-c]*.json", "delta.json"),
        ("[]x]", "]"),
        ("[!]x]", "y"),
        ("[x-]", "-"),
        ("[", "["),
        ("a[b", "a[b"),
        ("a\\*", "a\\b"),
        ("with\nnewline*", "with\nnewline\n.json"),
        ("*", "bytes\udcff.json"),
        ("x**y", "xaay"),
        ("[.]json", ".json"),
        ("[^a]", "^"),
    ],
)
def test_a_glob_matches(pattern: str, name: str) -> None:
    """``*`` and ``?`` stay within a name, ``**`` is any number of folders, sets are sets."""
    assert matches(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*.json", "deep/a.json"),
        ("orders/**", "orders"),
        ("orders/**", "orders.json"),
        ("orders/**", "more/orders/a.json"),
        ("**/a.json", "ba.json"),
        ("?", "/"),
        ("[!a]", "/"),
        ("[+-9]", "/"),
        ("*.JSON", "a.json"),
        ("[c-a]", "b"),
        ("a.json", "aXjson"),
        ("a*", "b"),
        ("*.json", "a.json\n"),
        ("x**y", "xa/ay"),
    ],
)
def test_a_glob_does_not_match(pattern: str, name: str) -> None:
    """A pattern takes no file that it does not name: never across a folder, never by another case."""
    assert not matches(pattern, name)


@given(NAMES)
def test_two_stars_take_everything(name: str) -> None:
    """``**`` takes every file, whatever its name."""
    assert matches("**", name)


@given(PATTERNS, NAMES)
@example("a/**", "a/\n")
def test_a_glob_means_what_the_naive_reading_of_it_means(pattern: str, name: str) -> None:
    """The compiled pattern agrees with matching name by name."""
    assert matches(pattern, name) == _naive(pattern.split("/"), name.split("/"))


def _naive(pattern: list[str], name: list[str]) -> bool:
    if not pattern or not name:
        return not pattern and not name
    if pattern == ["**"]:
        return True
    if pattern[0] == "**":
        return any(_naive(pattern[1:], name[start:]) for start in range(len(name)))
    return fnmatch.fnmatchcase(name[0], pattern[0]) and _naive(pattern[1:], name[1:])


@given(st.text(alphabet=string.printable, min_size=1))
def test_any_text_is_a_pattern(pattern: str) -> None:
    """No pattern, however odd, breaks the daemon."""
    assert matches(pattern, "a.json") in (True, False)


def test_the_first_feed_that_matches_wins() -> None:
    """The order of the feeds in the file decides; a file that none matches belongs to none."""
    feeds = (feed("eu", "eu/**"), feed("orders", "*/orders*", "orders*"), feed("users", "users/**"))
    found = {name: match_feed(feeds, name) for name in ("eu/orders.json", "us/orders.json", "orders.json", "x.json")}
    assert {name: one and one.name for name, one in found.items()} == {
        "eu/orders.json": "eu",
        "us/orders.json": "orders",
        "orders.json": "orders",
        "x.json": None,
    }


def test_a_name_that_is_not_utf8_finds_its_feed() -> None:
    """A file's name may be any bytes."""
    feeds = (feed("orders", "orders/**"),)
    assert match_feed(feeds, os.fsdecode(b"orders/caf\xe9.json")) is feeds[0]


def test_feeds_behind_one_that_takes_everything_are_told() -> None:
    """``config check`` can say which feeds no file comes to."""
    feeds = (feed("a", "a/**"), feed("all", "b", "**"), feed("c", "c/**"), feed("d", "**"))
    assert never_reached(feeds) == ("c", "d")
    assert never_reached(feeds[:2]) == ()


@example("data[1].json", "data1.json")
@example("a{b}.json", "axx.json")
@example("{1}.json", "x")
@example("st*r?.json", "stxr1.json")
@example("caf\udce9.json", "x")
@given(st.text(alphabet="ab[]{}!*?^-\\\n", min_size=1, max_size=6), st.text(alphabet="ab[]{}!*?^-\\\n", min_size=1))
def test_the_pattern_of_a_name_is_that_name_alone(name: str, other: str) -> None:
    """Whatever is in a name, its pattern can stand in a config, catches nothing, and takes no other file."""
    pattern = literal(name)
    assert captures_of(pattern) == ()
    assert pattern.encode()
    assert matches(pattern, name)
    assert matches(pattern, other) == (other == name)
