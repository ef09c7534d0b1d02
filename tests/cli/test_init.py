"""``inboxd init`` as a newcomer uses it: from a file to rows in three commands."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from daemons import Home
from places import SAMPLES

REAL = sorted(path.name for path in SAMPLES.iterdir() if path.name not in ("feeds.toml", "malformed.json"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a folder without a config."""
    return Home(tmp_path)


def init(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``init``, and put what it prints into the config."""
    done = home.call("init", *arguments)
    if done.returncode == 0:
        (home.path / "inboxd.toml").write_text(done.stdout, encoding="utf-8")
    return done


@pytest.mark.parametrize("name", REAL)
def test_from_a_sample_to_rows_in_three_commands(home: Home, name: str) -> None:
    """``init`` prints a config that is valid, with which ``load`` makes a row of every record."""
    shutil.copy(SAMPLES / name, home.path / name)
    proposed = init(home, name)
    assert proposed.returncode == 0, proposed.stderr
    assert home.call("config", "check").returncode == 0
    checked = home.call("check", name, "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    loaded = home.json("load", name)
    assert loaded["rejected"] == 0
    assert loaded["loaded"] == loaded["input_records"] == loaded["target_rows"] > 0
    rows = "1 row" if loaded["loaded"] == 1 else f"{loaded['loaded']:,} rows"
    assert f": {rows}, 0 rejected" in proposed.stderr


def test_numbers_of_any_size_stay_digit_for_digit(home: Home) -> None:
    """Beyond the 53 bits of a double a number is an integer, beyond 64 bits a decimal; both stay as they are."""
    records = [{"id": 2**63 - 1 - number, "big": 10**30 + number} for number in range(3)]
    (home.path / "ids.json").write_text(json.dumps(records), encoding="utf-8")
    assert init(home, "ids.json").returncode == 0
    assert home.json("load", "ids.json")["loaded"] == 3
    assert home.query("SELECT id, big FROM ids ORDER BY id DESC") == [
        (2**63 - 1 - number, str(10**30 + number)) for number in range(3)
    ]


@pytest.mark.parametrize("records", [[{"a": 1.5}, {"a": 2.5}], [1, "a", None], [[1, 2], [3]], [{"id": 1}, {"id": 1}]])
def test_without_a_key_each_record_is_a_row_of_its_own(home: Home, records: list[object]) -> None:
    """Where nothing names a record the feed appends; records that are alike are as many rows."""
    (home.path / "x.json").write_text(json.dumps(records), encoding="utf-8")
    done = init(home, "x.json")
    assert 'mode = "append"' in done.stdout
    assert home.json("load", "x.json")["loaded"] == len(records)
    assert home.query("SELECT count(*) FROM x") == [(len(records),)]


def test_the_evidence_stands_beside_each_choice(home: Home) -> None:
    """The config says how many records the sample had, and what was seen of the key."""
    records = [{"id": n, "updated_at": f"2026-01-15T10:00:{n:02}Z", "n": n % 3} for n in range(40)]
    (home.path / "x.json").write_text(json.dumps(records), encoding="utf-8")
    text = init(home, "x.json").stdout
    assert "40 records of x.json" in text
    assert 'key = ["id"]  # 40 records, 40 different values' in text
    assert 'cursor = "updated_at"' in text
    assert 'late = "merge"' in text
    assert 'max_rejected = "10%"' in text


def test_a_broken_sample_says_which_and_where(home: Home) -> None:
    """A malformed sample is one clear line, with its name and its place, told once, and exit code 1."""
    (home.path / "good.json").write_text('[{"a": 1}]', encoding="utf-8")
    (home.path / "x.json").write_text('[{"a": }]', encoding="utf-8")
    (home.path / "y.json").write_bytes('[{"a": "ü"}]'.encode("latin-1"))
    for broken, where in (("x.json", "line 1, column 8"), ("y.json", "line 1, column 9")):
        done = home.call("init", "good.json", broken, "good.json")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"inboxd: {broken}: {where}" in done.stderr
        assert done.stderr.count("column") == 1
        assert "retry" not in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["{}", "[]", "null"])
def test_nothing_to_take_is_said(home: Home, content: str) -> None:
    """A file without a record is no config, but a sentence and exit code 1."""
    (home.path / "x.json").write_text(content, encoding="utf-8")
    done = home.call("init", "x.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there are no records in x.json" in done.stderr


def test_a_pipe_is_no_sample(home: Home) -> None:
    """It can be read once and may never say anything: nobody waits for it, and it is not said to be empty."""
    os.mkfifo(home.path / "pipe.json")
    done = init(home, "pipe.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "pipe.json: it is not a regular file" in done.stderr


def test_a_file_that_is_no_json_is_told_for_what_it_is(home: Home) -> None:
    """CSV, XML and UTF-16 are named."""
    for content, what in ((b"a,b\n1,2\n3,4\n", "CSV"), (b"<a/>", "XML"), ('{"a":1}'.encode("utf-16"), "UTF-16")):
        (home.path / "x.json").write_bytes(content)
        done = home.call("init", "x.json")
        assert done.returncode == 1
        assert f"x.json looks like {what}" in done.stderr


def test_output_never_replaces_a_file_unless_forced(home: Home) -> None:
    """--output writes a config, and leaves one that is there alone without --force."""
    (home.path / "x.json").write_text('[{"id": 1}]', encoding="utf-8")
    config = home.path / "inboxd.toml"
    config.write_text("# mine\n", encoding="utf-8")
    refused = home.call("init", "x.json", "--output", "inboxd.toml")
    assert (refused.returncode, config.read_text(encoding="utf-8")) == (1, "# mine\n")
    assert "--force" in refused.stderr
    assert home.call("init", "x.json", "--output", "inboxd.toml", "--force").returncode == 0
    assert "[feeds.x]" in config.read_text(encoding="utf-8")


def test_add_puts_the_feed_into_the_config_in_force(home: Home) -> None:
    """--add leaves what is there as it is, gives the feed a name of its own, and files find it."""
    for name in ("orders.json", "stock.json"):
        (home.path / name).write_text(json.dumps([{"id": n} for n in range(3)]), encoding="utf-8")
    config = home.path / "inboxd.toml"
    assert home.call("init", "orders.json", "--output", "inboxd.toml", "--feed", "orders").returncode == 0
    config.write_text(config.read_text(encoding="utf-8").replace('["**"]', '["orders*"]'), encoding="utf-8")
    before = config.read_text(encoding="utf-8")
    added = home.call("init", "--add", "stock.json")
    assert added.returncode == 0, added.stderr
    assert config.read_text(encoding="utf-8").startswith(before.rstrip())
    assert home.call("config", "check").returncode == 0
    assert home.json("load", "orders.json", "stock.json")["loaded"] == 6
    assert home.query("SELECT count(*) FROM stock") == [(3,)]
    assert home.call("init", "--add", "stock.json").returncode == 0
    assert "[feeds.stock_2]" in config.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["data[1].json", "a{1}.json", "{day}.json", "s*r?.json", "caf\udce9.json", "n\new.json"]
)
def test_a_file_of_any_name_finds_the_feed_that_was_made_of_it(home: Home, name: str) -> None:
    """What is a wildcard in a pattern is a character in a file's name; the config is valid whatever is in a name."""
    (home.path / name).write_text('[{"id": 1}]', encoding="utf-8")
    assert init(home, name).returncode == 0
    assert home.call("config", "check").returncode == 0
    (home.path / "inboxd.toml").write_text("", encoding="utf-8")
    added = home.call("init", "--add", "--feed", "made", name)
    assert added.returncode == 0, added.stderr
    home.drop(name, [{"id": 1}])
    home.drop("other.json", [{"id": 2}])
    home.run_once()
    assert home.query("SELECT id FROM made") == [(1,)]


def test_add_needs_a_config(home: Home) -> None:
    """Without a config in force there is nothing to add to."""
    (home.path / "x.json").write_text('[{"id": 1}]', encoding="utf-8")
    done = home.call("init", "--add", "x.json")
    assert done.returncode == 78
    assert "--output" in done.stderr


def test_a_wish_that_the_sample_does_not_fulfil_is_told(home: Home) -> None:
    """A field or a path that is not there, or a key that repeats, is said."""
    (home.path / "x.json").write_text('{"a": [{"b": 1}, {"b": 1}]}', encoding="utf-8")
    assert "there is no field 'c'" in home.call("init", "x.json", "--key", "c").stderr
    assert "no records at 'z'" in home.call("init", "x.json", "--records", "z").stderr
    repeated = home.call("init", "x.json", "--records", "a", "--key", "b")
    assert repeated.returncode == 1
    assert "1 with the key of an earlier one" in repeated.stderr
    assert 'key = ["b"]' in repeated.stdout


def test_several_files_and_compressed_ones_make_one_feed(home: Home) -> None:
    """What one file lacks the others have; a field that only one has is optional."""
    (home.path / "a.json").write_text('{"items": []}', encoding="utf-8")
    (home.path / "b.json.gz").write_bytes(gzip.compress(b'{"items": [{"id": 1, "x": 1}, {"id": 2}]}'))
    done = init(home, "a.json", "b.json.gz", "--feed", "things")
    assert done.returncode == 0, done.stderr
    assert 'records = "items"' in done.stdout
    assert home.json("load", "b.json.gz")["loaded"] == 2


def test_the_daemon_takes_files_of_the_sample_s_kind_of_name(home: Home) -> None:
    """A sample with another suffix brings the setting by which the daemon takes such names."""
    shutil.copy(SAMPLES / "stations.geojson", home.path / "stations.geojson")
    assert init(home, "stations.geojson").returncode == 0
    assert ".geojson" in home.json("config", "show", "--json")["inbox"]["suffixes"]
