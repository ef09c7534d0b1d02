"""``init``'s promise, for any JSON: its feed takes every record of its own sample as a row of its own."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.errors import FileFault
from inboxd.infer import prove, settle
from inboxd.infer.propose import NothingToTake, Wishes
from inboxd.infer.settle import Inferred, infer

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)

names = st.sampled_from(
    ["id", "a", "b", "ts", "data", "items", "name", "Records", "_id", "$oid", "x.y", "", "0", "1", "é"]
)
texts = st.text(max_size=8) | st.sampled_from(
    [
        "",
        " ",
        "2026-01-15",
        "2026-01-15T10:30:00Z",
        "15/01/2026",
        "01/02/2026",
        "1768471200",
        "N/A",
        "\0",
        "\ud800",
        "7",
    ]
)
numbers = (
    st.integers(-(2**70), 2**70)
    | st.integers(-3, 3)
    | st.sampled_from([1768471200, 1768471200123, 10**400, -(10**400)])
    | st.floats(allow_nan=False, allow_infinity=False)
)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=5), max_leaves=20
)
rows = st.lists(st.dictionaries(names, scalars | values, max_size=5), max_size=30)
documents = (
    values
    | rows
    | st.dictionaries(names, rows, max_size=3)
    | st.dictionaries(st.text(max_size=4), st.fixed_dictionaries({"p": scalars, "v": scalars}), max_size=25)
    | st.lists(st.lists(scalars, max_size=5), max_size=8)
)


def inferred(*contents: bytes) -> Inferred:
    """Infer a feed from contents."""
    openers = [lambda content=content: nullcontext(BytesIO(content)) for content in contents]
    return infer(openers, ["export"] * len(contents), "export", ["**"], Wishes(), now=NOW)


def written(value: object, *, ascii_only: bool = True) -> bytes:
    """Return a value as JSON; lone surrogates need escapes."""
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(documents)
def test_every_record_of_a_document_becomes_a_row(document: Any) -> None:
    """Nested, flat, mixed, of any shape: nothing is rejected, and no two records share a row."""
    try:
        outcome = inferred(written(document)).outcome
    except NothingToTake:
        assert document in (None, {}, [])
        return
    assert outcome.records == outcome.rows > 0
    assert (outcome.rejected, outcome.filtered, outcome.repeated) == (0, 0, 0)


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(st.lists(values, min_size=2, max_size=12))
def test_every_line_becomes_a_row(lines: list[Any]) -> None:
    """Values one a line, whatever they are, are as many rows."""
    outcome = inferred(b"\n".join(map(written, lines))).outcome
    assert outcome.records == outcome.rows
    assert (outcome.rejected, outcome.filtered, outcome.repeated) == (0, 0, 0)


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(st.lists(documents, min_size=2, max_size=4))
def test_every_record_of_several_files_becomes_a_row(contents: list[Any]) -> None:
    """Files of one feed need not be alike: what has records where they stand is taken, the others are named."""
    try:
        found = inferred(*map(written, contents)).outcome
    except NothingToTake:
        assert all(content in (None, {}, []) for content in contents)
        return
    assert found.records == found.rows + found.filtered
    assert (found.rejected, found.repeated) == (0, 0)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"null", b"[\n]", b" {} "])
def test_where_nothing_is_nothing_is_taken(content: bytes) -> None:
    """An empty document has no record."""
    with pytest.raises(NothingToTake):
        inferred(content)


@pytest.mark.parametrize("content", [b"", b"  ", b"{", b"[1,]", b'{"a": 01}', b"nope", b"\xff\xfe{\0}\0"])
def test_what_is_no_json_is_a_fault_with_its_place(content: bytes) -> None:
    """A broken sample is told as a broken file is."""
    with pytest.raises(FileFault):
        inferred(content)


def test_names_that_are_there_twice_are_taken() -> None:
    """The last of two values counts, but each must be one that the field takes."""
    found = inferred(b'[{"a": "x", "a": 1}, {"a": 2}, {"a": 3, "b": {"c": 1}, "b": 2}]')
    assert found.outcome.rows == 3
    assert found.outcome.complete


def test_a_large_file_is_proved_by_its_first_part_and_a_few_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only stands far down in a large file is seen, too: the type that takes it is proposed."""
    for module in (prove, settle):
        monkeypatch.setattr(module, "READ", 1 << 20)
    path = tmp_path / "big.json"
    lines = [{"id": n, "text": "x" * 1000, "value": n if n < 2_000 else "no number"} for n in range(4_000)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = infer([partial(path.open, "rb")], ["big"], "big", ["**"], Wishes(), now=NOW)
    assert found.outcome.cut
    assert found.outcome.complete
    assert 0 < found.outcome.records < 4_000
    assert "coerce = true" in found.toml
    assert [column.name for column in found.proposal.key.columns] == ["id"]
