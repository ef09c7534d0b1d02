"""The samples that come with inboxd, loaded as a newcomer would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from places import ROOT, SAMPLES

# In this order: the built-in feed skips what is older than what it has seen.
FILES = (
    "clean.json",
    "events.ndjson",
    "rejects.json",
    "malformed.json",
    "cloudtrail.json",
    "earthquakes.json",
    "github-events.json",
    "part-00000-c000.json",
    "webhook.json",
    "eve.ndjson",
    "traces.json",
    "debezium.ndjson",
    "dms.json",
    "maxwell.ndjson",
    "sensors.ndjson",
    "currencies.json",
    "stations.geojson",
    "sheet.json",
    "quotes-2026-01-15.json",
    "deploys.json",
    "firehose.json",
)


def load(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:  # Any: a JSON document
    """Run ``inboxd load`` on a database in ``folder``; return its exit code and its output."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "daemon"),
        "INBOXD_DATABASE__URL": f"sqlite:///{folder}/inboxd.db",
        "INBOXD_LOG__FILE": str(folder / "inboxd.log"),
    }
    command = [sys.executable, "-m", "inboxd", *arguments, "--output", str(folder / "out.json")]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads((folder / "out.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:  # Any: a JSON document
    """Load all samples with their feeds; return the database and each file's part of the output."""
    folder = tmp_path_factory.mktemp("samples")
    files = [str(SAMPLES / name) for name in FILES]
    code, output = load(folder, "--config", str(SAMPLES / "feeds.toml"), "load", *files)
    assert code == 1, "malformed.json fails"
    return folder / "inboxd.db", {Path(file["file"]).name: file for file in output["files"]}


def rows(database: Path, sql: str) -> list[tuple[Any, ...]]:  # Any: what the columns hold
    """Return what a query finds."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def test_every_sample_is_tested() -> None:
    """A sample that was added is loaded here too."""
    assert {path.name for path in SAMPLES.iterdir()} == {*FILES, "feeds.toml"}


@pytest.mark.parametrize(
    ("name", "read", "applied", "rejected", "stale"),
    [
        ("clean.json", 5, 5, 0, 0),
        ("events.ndjson", 4, 4, 0, 0),
        ("rejects.json", 25, 1, 24, 0),
        ("cloudtrail.json", 3, 3, 0, 0),
        ("earthquakes.json", 4, 4, 0, 0),
        ("github-events.json", 3, 3, 0, 0),
        ("part-00000-c000.json", 4, 3, 0, 1),
        ("webhook.json", 1, 1, 0, 0),
        ("eve.ndjson", 4, 3, 0, 0),
        ("traces.json", 4, 4, 0, 0),
        ("debezium.ndjson", 5, 3, 0, 2),
        ("dms.json", 4, 3, 0, 1),
        ("maxwell.ndjson", 4, 2, 0, 2),
        ("sensors.ndjson", 5, 5, 0, 0),
        ("currencies.json", 4, 4, 0, 0),
        ("stations.geojson", 3, 3, 0, 0),
        ("sheet.json", 4, 4, 0, 0),
        ("quotes-2026-01-15.json", 3, 3, 0, 0),
        ("deploys.json", 3, 3, 0, 0),
        ("firehose.json", 3, 3, 0, 0),
    ],
)
def test_a_sample_loads_as_it_says(
    loaded: tuple[Path, dict[str, dict[str, Any]]], name: str, read: int, applied: int, rejected: int, stale: int
) -> None:
    """Each sample loads with the counts that a reader of it expects."""
    file = loaded[1][name]
    assert file["status"] == "success"
    assert (file["input_records"], file["loaded"], file["rejected"], file["stale"]) == (read, applied, rejected, stale)


def test_the_malformed_sample_fails_at_its_comma_too_many(loaded: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    """The failed file is told with its place, and nothing of it is in the table."""
    file = loaded[1]["malformed.json"]
    assert (file["status"], file["error_code"]) == ("failure", "invalid_json")
    lines = (SAMPLES / "malformed.json").read_bytes().splitlines(keepends=True)
    place = file["place"]
    assert lines[place["line"] - 1][place["column"] - 2 :].startswith(b",}")
    assert b"".join(lines)[place["byte"] - 1 :].startswith(b",}")
    assert rows(loaded[0], "SELECT count(*) FROM target WHERE key IN ('user-0010', 'user-0011')") == [(0,)]


def test_the_rejects_show_every_code_of_the_built_in_feed(loaded: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    """The sample of bad records has each code, and each dead letter holds its record's own text."""
    assert Counter(error.rsplit(": ")[-1] for error in loaded[1]["rejects.json"]["errors"]) == {
        "missing_key": 3,
        "invalid_key": 4,
        "missing_name": 1,
        "invalid_name": 1,
        "invalid_value": 7,
        "missing_timestamp": 2,
        "invalid_timestamp": 3,
        "future_timestamp": 1,
        "not_an_object": 2,
    }
    lines = [line.strip().rstrip(",") for line in (SAMPLES / "rejects.json").read_text(encoding="utf-8").splitlines()]
    dead_letters = rows(loaded[0], "SELECT record_no, raw FROM dead_letters ORDER BY id")
    assert [raw for _, raw in dead_letters] == [lines[number] for number, _ in dead_letters]


def test_text_and_numbers_arrive_exactly(loaded: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    """Newlines, emoji and integers of 64 bits are in the tables as they were in the files."""
    database = loaded[0]
    assert rows(database, "SELECT key, name FROM target WHERE key IN ('user-0001', 'user-0007', 'user-0008')") == [
        ("user-0001", "Ada King"),
        ("user-0007", 'Radia "Bridge" Perlman 🌉'),
        ("user-0008", "Line\nbreaks\tand \\ backslashes"),
    ]
    assert rows(database, "SELECT actor_id, repo_id FROM github_events WHERE id = '54321098765'") == [
        (9007199254740993, 9223372036854775807)
    ]
    assert rows(database, "SELECT occurred, magnitude FROM earthquakes WHERE id IN ('xx00000001', 'xx00000004')") == [
        ("2026-01-15T09:40:00.123000Z", 1.27),
        ("2026-01-15T10:06:40.001000Z", None),
    ]
    assert rows(database, "SELECT status, amount, paid FROM orders WHERE order_id = 10001") == [("shipped", 19.9, 1)]
    ((user, extra),) = rows(database, "SELECT user_name, extra FROM cloudtrail WHERE error_code IS NOT NULL")
    assert user == "grace"
    assert json.loads(extra)["errorMessage"] == "You are not authorized to perform this operation."


def test_without_a_config_the_clean_sample_loads_too(tmp_path: Path) -> None:
    """The first command of the README needs no config file."""
    code, output = load(tmp_path, "load", str(SAMPLES / "clean.json"))
    assert (code, output["loaded"], output["target_rows"]) == (0, 5, 5)


SHAPES = [
    ("invoices", "invoice, created, customer, cents", [("in_7001", "2026-01-15T10:00:01.000000Z", "cus_42", 129900)]),
    (
        "network",
        "kind, what, rcode, file",
        [
            ("dns", "example.org", "NOERROR", "eve.ndjson"),
            ("alert", "Made-up scan of many ports", None, "eve.ndjson"),
            ("dns", "nowhere.example", "NXDOMAIN", "eve.ndjson"),
        ],
    ),
    (
        "spans",
        "span, library, service, began, nanoseconds",
        [
            ("eee19b7ec3c1b174", "http", "checkout", "2026-01-15T10:30:00.000000Z", 1768473000250000456),
            ("eee19b7ec3c1b175", "http", "checkout", "2026-01-15T10:30:00.010000Z", 1768473000030000000),
            ("eee19b7ec3c1b176", "redis", "checkout", "2026-01-15T10:30:00.040000Z", 1768473000041500000),
            ("eee19b7ec3c1b177", "smtp", "mailer", "2026-01-15T10:30:01.000000Z", 1768473002000000000),
        ],
    ),
    (
        "customers",
        "id, name, email",
        [(1001, "Sally Thomas", "sally.t@example.com"), (1003, "Ada King", "ada@example.net")],
    ),
    (
        "stock",
        "sku, quantity, price, deleted_at IS NOT NULL",
        [("B-100", 37, "12.50", 0), ("C-7", 5, "0.990", 1)],
    ),
    ("sessions", "id, account, daemon", [(1, "ada", "Iain Banks")]),
    (
        "sensors",
        "sensor, time, celsius, humidity, battery",
        [
            ("t-01", "2026-01-15T10:00:00.000200Z", 21.25, 41, "3.10"),
            ("t-02", "2026-01-15T10:00:00.500000Z", -4.0, None, "2.95"),
            ("t-01", "2026-01-15T10:01:00.000100Z", 21.5, 40, "3.10"),
            ("t-02", "2026-01-15T10:01:00.500000Z", None, None, "2.9500"),
            ("t-01", "2026-01-15T10:01:00.000100Z", 21.5, 40, "3.10"),
        ],
    ),
    (
        "currencies",
        "code, symbol, digits, introduced",
        [
            ("BHD", "", 3, "1965-10-16"),
            ("EUR", "€", 2, "1999-01-01"),
            ("JPY", "¥", 0, "1871-05-10"),
            ("XTS", None, None, None),
        ],
    ),
    (
        "stations",
        "id, name, lines, opened, longitude",
        [
            ("st-1", "Harbour", "[1,4]", "1988-05-01", 9.9937),
            ("st-2", "Market", "[4]", None, 10.001),
            ("st-3", "Depot", "[]", "2025-12-14", None),
        ],
    ),
    (
        "deliveries",
        "day, depot, parcels, late, remark, sheet",
        [
            ("2026-01-12", "North", 118, 0.02, "", "Deliveries, week 3"),
            ("2026-01-13", "North", 131, 0.0, "ice", "Deliveries, week 3"),
            ("2026-01-13", "South", 97, 0.11, None, "Deliveries, week 3"),
            ("2026-01-14", "South", 104, None, None, "Deliveries, week 3"),
        ],
    ),
    (
        "quotes",
        "symbol, day, close, volume",
        [
            ("AAPL", "2026-01-15", "244.870", "61482900"),
            ("BRK.B", "2026-01-15", "456.2", "3310000"),
            ("MSFT", "2026-01-15", "421.01", "20111234567890123456"),
        ],
    ),
    (
        "steps",
        "deploy, step, at, seconds",
        [
            ("d-101", "build", "2026-01-15T07:00:03.000000Z", 61.5),
            ("d-101", "ship", "2026-01-15T07:00:03.000000Z", 8.0),
            ("d-102", "build", "2026-01-15T08:41:00.000000Z", 40.25),
        ],
    ),
    ("ticks", "ticker, price", [("QXZ", "84.51"), ("TGT", "100.10"), ("QXZ", "84.51")]),
]


@pytest.mark.parametrize(("table", "columns", "expected"), SHAPES, ids=[shape[0] for shape in SHAPES])
def test_each_shape_of_json_arrives_as_its_feed_says(
    loaded: tuple[Path, dict[str, dict[str, Any]]], table: str, columns: str, expected: list[tuple[object, ...]]
) -> None:
    """The samples that "your files" begins from are in their tables, value by value."""
    found = rows(loaded[0], f"SELECT {columns} FROM {table}")
    found = [
        tuple(
            re.sub(r"\s", "", value) if column == "lines" else value
            for column, value in zip(columns.split(", "), row, strict=True)
        )
        for row in found
    ]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_every_sample_is_in_the_page_that_begins_from_them() -> None:
    """A reader of "your files" finds each sample in its table."""
    page = (ROOT / "docs" / "your-files.md").read_text(encoding="utf-8")
    assert all(f"`{path.name}`" in page for path in SAMPLES.iterdir() if path.name != "feeds.toml")
