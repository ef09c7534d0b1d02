"""Deletions and snapshots, as a daemon takes them and as lines, reports, commands, page and numbers tell of them."""

from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from daemons import Home
from page_daemon import PageDaemon, page_daemon

pytestmark = [pytest.mark.xdist_group("web")]

CONFIG = """
[feeds.dump]
match = ["dump/{region}/*.json"]
mode = "snapshot"
key = ["region", "id"]
scope = ["region"]
absent = "remove"
fields = { region = { from = "$path.region", type = "text" }, id = { type = "integer" } }
[feeds.cdc]
key = ["id"]
cursor = "ts"
late = "merge"
deletes = { from = "op", in = ["d"], then = "remove" }
fields = { id = { type = "integer" }, ts = { type = "integer" } }
"""
DAY_S = 86_400


def dump(daemon: PageDaemon, name: str, content: str, *, day: int) -> dict[str, object]:
    """Drop a dump of that day, and return what the daemon says of it."""
    whole = daemon.folder / "elsewhere.json"
    whole.write_text(content, "utf-8")
    os.utime(whole, (day * DAY_S, day * DAY_S))
    target = daemon.folder / "inbox" / "dump" / "EU" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    whole.rename(target)
    return daemon.wait_for("file_loaded" if name.startswith("good") else "file_failed", file=f"dump/EU/{name}")


def ids(*found: int) -> str:
    """Return a dump of these rows."""
    return json.dumps([{"id": each} for each in found])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageDaemon]:
    """Return a daemon that has taken a dump of ten rows, one of nine, and a row of news and its deletion."""
    with page_daemon(tmp_path_factory.mktemp("told"), config=CONFIG) as started:
        dump(started, "good-5.json", ids(*range(10)), day=5)
        dump(started, "good-6.json", ids(*range(9)), day=6)
        for number, record in enumerate(
            [{"id": 7, "ts": 1}, {"id": 7, "ts": 2, "op": "d"}, {"id": 8, "ts": 3, "op": "d"}]
        ):
            started.drop(f"cdc/{number}.json", json.dumps([record]))
            started.wait_for("file_loaded", file=f"cdc/{number}.json")
        yield started


def asked(daemon: PageDaemon, path: str) -> str:
    """Return what a page says, without its tags."""
    address = urlsplit(daemon.url)
    with closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
    if answer.status == http.HTTPStatus.SEE_OTHER:
        return asked(daemon, answer.headers["Location"])
    assert answer.status == http.HTTPStatus.OK, body
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def command(daemon: PageDaemon, *arguments: str) -> Any:  # Any: whatever JSON holds
    """Return the JSON that a command prints."""
    return Home(daemon.folder).json(*arguments)


def live(daemon: PageDaemon) -> list[tuple[Any, ...]]:
    """Return the rows of the dump."""
    return Home(daemon.folder).query("SELECT id, run_id FROM dump ORDER BY id")


def test_an_empty_a_truncated_and_an_older_dump_change_nothing_and_say_so(daemon: PageDaemon) -> None:
    """Refused, or skipped whole: the rows stand, the line has the code, the report what would have gone."""
    before = live(daemon)
    cut = f"{ids(*range(9))[:-12]}"
    refused = {
        "empty.json": ("[]", "snapshot_empty"),
        "cut.json": (cut, "invalid_json"),
        "half.json": (ids(*range(4)), "too_many_deleted"),
        "one.json": (f"{ids(*range(9))[:-1]}, {{}}]", "snapshot_incomplete"),
    }
    for name, (content, code) in refused.items():
        assert dump(daemon, name, content, day=7)["error_code"] == code
        assert (daemon.folder / "data" / "failed" / "dump" / "EU" / name).exists()
    report = json.loads((daemon.folder / "data" / "failed" / "dump" / "EU" / "half.json.error.json").read_text())
    assert report["rows_deleted"] == 5
    assert report["keys"] == [f'["EU",{number}]' for number in range(4, 9)]
    assert "retry NAME --max-deleted 100%" in report["hint"]
    older = dump(daemon, "good-old.json", ids(1, 2), day=5)
    assert (older["rows_in"], older["rows_skipped"], older["rows_out"], older["rows_deleted"]) == (2, 2, 0, 0)
    assert daemon.wait_for("records_skipped", file="dump/EU/good-old.json")
    assert live(daemon) == before


def test_the_line_the_run_and_the_numbers_count_what_was_deleted(daemon: PageDaemon) -> None:
    """``rows_deleted`` in the log and the ledger, ``outcome="deleted"`` in the metrics, words on the pages."""
    line = daemon.wait_for("file_loaded", file="dump/EU/good-6.json")
    assert (line["rows_in"], line["rows_out"], line["rows_stale"], line["rows_deleted"]) == (9, 0, 9, 1)
    metrics = asked(daemon, "/metrics")
    assert 'inboxd_records_total{feed="dump",outcome="deleted"} 1.0' in metrics
    assert 'inboxd_records_total{feed="cdc",outcome="deleted"} 1.0' in metrics
    assert 'inboxd_watermark_timestamp_seconds{feed="dump"} 518400.0' in metrics
    assert "Rows deleted 1" in asked(daemon, f"/runs/{line['run_id']}")
    overview = asked(daemon, "/")
    assert "; 2 rows deleted" in overview
    assert "1970-01-07T00:00:00.000000Z" in overview
    (run,) = [one for one in command(daemon, "runs", "list", "--json")["runs"] if one["id"] == line["run_id"]]
    assert run["rows_deleted"] == 1


def test_a_records_page_says_who_deleted_it(daemon: PageDaemon) -> None:
    """A row that a snapshot had not, a deletion, and a tombstone of a key that never had a row: each has its words."""
    absent = asked(daemon, "/records?key=%5B%22EU%22%2C9%5D")
    assert "There is no row with this key now." in absent
    assert "absent from this snapshot" in absent
    deleted = asked(daemon, "/records?key=7&feed=cdc")
    assert "deleted by this record" in deleted
    assert re.search(r"Last deleted by run \d+ \( cdc/1.json \), .*, by a record whose cursor is 2\.", deleted)
    never = asked(daemon, "/records?key=8&feed=cdc")
    assert re.search(r"There is no row with this key now\. Last deleted by run \d+ \( cdc/2.json \)", never)
    assert "deleted by this record" in never
    (history,) = command(daemon, "explain", "8", "--feed", "cdc", "--json")["feeds"]
    assert (history["row"], history["tombstone"]["cursor"], history["tombstone"]["file_name"]) == (
        None,
        "3",
        "cdc/2.json",
    )


def test_status_and_the_watermark_commands_know_each_scope(daemon: PageDaemon) -> None:
    """A snapshot feed has a watermark for each scope: shown, set, and reset by its values."""

    def marks() -> dict[str, tuple[dict[str, object], object]]:
        shown = command(daemon, "watermark", "show", "--json")["watermarks"]
        in_status = command(daemon, "status", "--json")["watermarks"]
        assert [(one["feed"], one["scope"], one["value"]) for one in shown] == [
            (one["feed"], one["scope"], one["value"]) for one in in_status
        ]
        return {one["feed"]: (one["scope"], one["value"]) for one in shown}

    before = ({"region": "EU"}, "1970-01-07T00:00:00.000000Z")
    assert marks() == {"dump": before, "cdc": ({}, "3")}
    home = Home(daemon.folder)
    assert "dump (region = EU)" in home.call("status", check=True).stdout
    wrong = home.call("watermark", "set", "dump", "1970-01-01")
    assert (wrong.returncode, "takes --scope for each of region" in wrong.stderr) == (2, True)
    done = home.call("watermark", "set", "dump", "1970-01-20", "--scope", "US", check=True)
    assert done.stdout == "dump (region = US): 1970-01-20T00:00:00.000000Z\n"
    assert marks()["dump"] in (({"region": "US"}, "1970-01-20T00:00:00.000000Z"), before)
    assert home.call("watermark", "reset", "dump", "--scope", "US", check=True).stdout == "dump (region = US): none\n"
    assert marks()["dump"] == before


def test_load_tells_the_watermark_of_a_snapshot(tmp_path: Path) -> None:
    """Of a feed without a scope, too, whose name in the table is not only the feed's."""
    home = Home(tmp_path, CONFIG.replace('scope = ["region"]', "").replace('["region", "id"]', '["id"]'))
    path = tmp_path / "dump" / "EU" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_text(ids(1), "utf-8")
    os.utime(path, (DAY_S, DAY_S))
    assert home.json("load", str(path))["watermark"] == "1970-01-02T00:00:00.000000Z"
    assert home.json("status", "--json")["watermarks"][0]["value"] == "1970-01-02T00:00:00.000000Z"
    assert home.query("SELECT name FROM watermarks") == [("dump []",)]
    assert home.call("watermark", "reset", "dump", check=True).stdout == "dump: none\n"
    assert home.query("SELECT name FROM watermarks") == []
