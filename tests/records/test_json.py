"""What is JSON and what is not, by RFC 8259: each text alone, as an unknown field, and inside an array."""

from __future__ import annotations

import pytest

from records_feeds import EVENTS, KEEPING, fault_of, read, record

VALID = (
    b"0", b"-0", b"-0.0", b"0e0", b"0E+01", b"-0e-1", b"1e400", b"-1e400", b"1e-400", b"1E5",
    b"123456789012345678901234567890", b"1" * 400, b"1" * 5_000, b"0." + b"1" * 5_000, b"1e" + b"9" * 30, b"true",
    b"false", b"null", b'""', b'" "', b'"\x7f"', b'"\\u0000"', b'"\\ud800"', b'"\\udc00"', b'"\\ud800\\u0041"',
    b'"\\ud83d\\ude00"', b'"\\uD83D"', b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', b'"\xc3\xa9"', b'"\xf0\x9f\x98\x80"',
    b'"\xef\xbb\xbf"', b'"\xe2\x80\xa8"', b'"\xf4\x8f\xbf\xbf"', b'"\xef\xbf\xbf"', b'"//"', b'"/* */"', b"[]",
    b"{}", b"[ ]", b"{ }", b"[\t1\r\n, 2 ]", b'{"" : 0}', b'{"a":1,"a":2}', b'{"\\ud800":1}', b'{"\\u0000":1}',
    b'"' + b"\\n" * 3_000 + b'"', b"[" * 150 + b"]" * 150, b'{"a":' * 150 + b"1" + b"}" * 150,
    b"[" + b"1," * 500 + b"1]", b'["' + b'\\"' * 200 + b'"]', b'"},{"', b'"}\\n{"', b'[{"a":1},{"b":[{},{}]}]',
    b"[[],[[]],{}]",
)  # fmt: skip

INVALID = (
    b"", b"-", b"+1", b"01", b"-01", b"00", b"1.", b".5", b"-.5", b"1.e5", b"1e", b"1e+", b"1.5e", b"0x1", b"1_000",
    b"1.2.3", b"--1", b"1-2", b"1a", b"NaN", b"Infinity", b"-Infinity", b"nul", b"nulll", b"True", b"tru", b"truer",
    b"undefined", b"\xc2\xa01", b"\x0b1", b"\x0c1", b"1\x00", b"\x00", b"\xef\xbb\xbf1", b'"', b'"abc', b'"\\"',
    b'"a\x01"', b'"\t"', b'"\n"', b'"\\x"', b'"\\u12"', b'"\\u12g4"', b'"\\u"', b'"\\', b"'a'", b'"a" "b"', b"[",
    b"]", b"{", b"}", b"[1", b"[1,", b"[1,]", b"[,1]", b"[,]", b"[1 2]", b"[1,,2]", b"[1}", b"{,}", b'{"a"}',
    b'{"a":}', b'{"a":1', b'{"a":1,', b'{"a":1,}', b'{"a" 1}', b'{"a"::1}', b"{a:1}", b"{'a':1}", b"{1:2}",
    b'{"a":1]', b'{"a":1 "b":2}', b'{"a":01}', b'{"a\x01":1}', b'{"\\q":1}', b'{"a":1}}', b"[1]]", b"1//x", b"/**/1",
    b"1#", b"1;", b"a", b"[a]", b"<a/>", b"\\u0031", b"[[[[[", b'[{"a":[{"b":', b"[1]x", b'"a"x', b"{}x", b"@",
    b"[+1]", b"[NaN]", b"[1e]", b'["\x1f"]', b'["\\a"]', b"[\x0c]",
)  # fmt: skip

BAD_UTF8 = (
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    b"\x80",
    b"\xc3",
    b"\xf8\x88\x80\x80\x80",
)


def _name(text: bytes) -> str:
    return ascii(text[:24])


@pytest.mark.parametrize("text", VALID, ids=_name)
@pytest.mark.parametrize("window", (1, 7, 1 << 20))
def test_what_rfc_8259_allows_is_never_called_invalid(text: bytes, window: int) -> None:
    """A valid text in a field that nobody asked for loads the record, whatever stands in it."""
    good = record(more=text.decode())
    for content in (
        b"[" + good + b"]",
        good,
        b"[" + record() + b"," + good + b" ,\n" + record() + b"]",
        record() + b"\n" + good,
    ):
        rows, rejects = read(content, window=window)
        assert len(rows) == content.count(b'"key":"a"')
        assert not rejects


@pytest.mark.parametrize("text", VALID, ids=_name)
def test_any_value_may_stand_where_a_record_should(text: bytes) -> None:
    """A value that is no object is one refused record, with its exact text; its neighbours load."""
    for content in (b"[" + record() + b"," + text + b"," + record() + b"]", record() + b"\n" + text + b"\n" + record()):
        rows, rejects = read(content, window=50)
        assert len(rows) == 2
        assert [(r.record_no, r.raw.encode()) for r in rejects] == [(2, text)]
        assert rejects[0].code == ("not_an_object" if text[:1] != b"{" else "missing_key")


@pytest.mark.parametrize("text", INVALID, ids=_name)
@pytest.mark.parametrize("window", (1, 7, 1 << 20))
def test_what_rfc_8259_forbids_fails_the_file_with_a_place(text: bytes, window: int) -> None:
    """An invalid text anywhere, also where nobody asked for it, is ``invalid_json`` with line, column and byte."""
    bad = b'{"more":' + text + b',"key":"a"}'
    layouts = (b"[" + bad + b"]", bad, b"[" + record() + b",\n" + bad + b"]", record() + b"\n" + bad + b"\n" + record())
    for content in layouts:
        fault = fault_of(content, window=window)
        assert fault.code == "invalid_json"
        assert fault.place is not None
        assert content.index(bad) < fault.place.byte <= len(content)
        assert fault.place.line == content[: fault.place.byte].count(b"\n") + 1
        assert f"byte {fault.place.byte}" in fault.message


@pytest.mark.parametrize("text", [text for text in INVALID if text not in (b"", b"\xef\xbb\xbf1")], ids=_name)
def test_a_file_of_nothing_but_an_invalid_text_fails(text: bytes) -> None:
    """An invalid text by itself is no file of records."""
    assert fault_of(text, window=3).code == "invalid_json"


@pytest.mark.parametrize("text", BAD_UTF8, ids=_name)
@pytest.mark.parametrize("window", (1, 7, 1 << 20))
def test_bytes_that_are_not_utf_8_fail_the_file_with_their_place(text: bytes, window: int) -> None:
    """The encoding is checked everywhere, also in fields and names that nobody asked for."""
    for bad in (
        b'{"more":"' + text + b'"}',
        b'{"' + text + b'":1}',
        b'{"key":"' + text + b'"}',
        b'[{"a":["' + text + b'"]}]',
    ):
        for content in (b"[" + record() + b",\n" + bad + b"]", record() + b"\n" + bad):
            fault = fault_of(content, window=window)
            assert fault.code == "invalid_encoding"
            assert fault.place is not None
            assert fault.place.byte == content.index(text)
            assert fault.place.line == 2


def test_a_fault_is_named_where_it_is() -> None:
    """Line and column count from 1, the column in characters; the byte offset from 0, a byte order mark included."""
    fault = fault_of('\ufeff[\n  {"é": tru}\n]'.encode())
    assert (fault.place.line, fault.place.column, fault.place.byte) == (2, 9, 14) if fault.place else False


def test_the_first_fault_of_a_file_is_the_one_reported() -> None:
    """A syntax fault before a wrong byte is the syntax fault; one after it, the wrong byte."""
    assert fault_of(b'[{"a":tru}, {"b":"\xff"}]').code == "invalid_json"
    assert fault_of(b'[{"b":"\xff"}, {"a":tru}]').code == "invalid_encoding"


@pytest.mark.parametrize("depth", (199, 200))
def test_two_hundred_levels_are_enough(depth: int) -> None:
    """Nesting up to 200 levels loads, counted from the outermost bracket of the file."""
    content = b"[" * depth + b"]" * depth
    _, rejects = read(content, window=32)
    assert [reject.code for reject in rejects] == ["not_an_object"]


@pytest.mark.parametrize("opener", (b"[", b'{"a":', b'[{"a":', b' [\n{ "a" : '))
@pytest.mark.parametrize("window", (16, 1 << 20))
@pytest.mark.parametrize("levels", (201, 1_200, 300_000))
def test_deeper_nesting_fails_the_file(opener: bytes, window: int, levels: int) -> None:
    """The 201st level is ``nesting_too_deep`` with its place, also when there are millions and no end."""
    brackets = opener.count(b"[") + opener.count(b"{")
    if window < 1_000:
        levels = min(levels, 1_200)
    content = opener * (levels // brackets + 1)
    fault = fault_of(content, window=window)
    assert fault.code == "nesting_too_deep"
    assert fault.place is not None
    opened = [at for at, byte in enumerate(content[:3_000]) if byte in b"[{"]
    assert fault.place.byte == opened[200]


def test_deep_nesting_is_found_in_a_window_of_good_records() -> None:
    """One record of 201 levels among many flat ones, complete and valid otherwise, fails the file."""
    deep = record(more="[" * 199 + "]" * 199)
    most = record(more="[" * 198 + "]" * 198)
    assert len(read(b"[" + b",".join([record()] * 50 + [most] * 3) + b"]")[0]) == 53
    assert fault_of(b"[" + b",".join([record()] * 50 + [deep] + [record()] * 50) + b"]").code == "nesting_too_deep"
    assert len(read(b"\n".join([record()] * 50 + [deep]))[0]) == 51
    assert fault_of(b"\n".join([record()] * 50 + [record(more="[" * 200 + "]" * 200)])).code == "nesting_too_deep"


@pytest.mark.parametrize("depth", (198, 199))
def test_deep_nesting_in_a_declared_field_is_found(depth: int) -> None:
    """It makes no difference whether the nested value is one that the feed wants, in a form that it wants or not."""
    deep = "[" * depth + "]" * depth
    wanted = f'{{"key":"a","payload":{deep},"ts":"2026-01-15"}}'.encode()
    unwanted = record(value=deep)
    for text, feed in ((wanted, KEEPING), (unwanted, EVENTS)):
        content = b"[" + text + b"]"
        if depth == 198:
            rows, rejects = read(content, feed)
            assert len(rows) + len(rejects) == 1
        else:
            assert fault_of(content, feed).code == "nesting_too_deep"


def test_brackets_in_strings_are_no_nesting() -> None:
    """A string full of brackets is a string."""
    rows, _ = read(b"[" + b",".join([record(more='"' + "[{" * 300 + '"')] * 5) + b"]")
    assert len(rows) == 5
    assert EVENTS.columns == ("key", "name", "value", "ts")


@pytest.mark.parametrize("window", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("content", "place"),
    [
        ('["éé中", @]', (1, 9, 12)),
        ("\ufeff[1,@]", (1, 4, 6)),
        ('[{"key":"日本"},\n {"key":"é"},  @]', (2, 16, 35)),
    ],
)
def test_a_column_counts_characters_and_a_byte_counts_bytes(
    content: str, place: tuple[int, int, int], window: int
) -> None:
    """The place of a fault is where an editor shows it, in any script, and the byte where a hex dump does."""
    fault = fault_of(content.encode(), window=window)
    assert fault.place is not None
    assert (fault.place.line, fault.place.column, fault.place.byte) == place
