"""Replays in the modes of feeds: what came later wins, what was read around a record is kept, mended ones go back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inboxd.clock import SystemClock
from inboxd.errors import OperatorFault
from inboxd.operate.dead_letters import Filter, edited_records, export_line, list_dead_letters
from inboxd.operate.replay import Replay, replay
from loaders import Files, ended_as_begun

pytestmark = pytest.mark.on_citus


def replayed(files: Files, feed_name: str, edited: dict[int, str] | None = None) -> Replay:
    """Replay the open dead letters of a feed."""
    feed = next(feed for feed in files.settings.feeds if feed.name == feed_name)
    return replay(
        files.store, feed, Filter(feed=feed_name), clock=SystemClock(), host="here", limit=None, edited=edited
    )


def test_a_letter_whose_key_was_applied_later_is_stale(files: Files) -> None:
    """Without a cursor the later commit wins, and in a file the later record; a later dead letter is applied."""
    files.load("ref/1.json", [{"nid": "a", "name": "old"}, {"id": "b", "name": "B"}, {"nid": "c", "name": "C"}])
    files.load("ref/2.json", [{"id": "a", "name": "new"}])
    open_dead_letters = list_dead_letters(files.store, Filter(feed="ref"))
    mended = {one.id: one.raw.replace("nid", "id") for one in open_dead_letters}
    done = replayed(files, "ref", mended)
    assert (done.loaded, done.stale, done.failed) == (1, 1, 0)
    assert files.rows("SELECT id, name FROM ref ORDER BY 1") == [("a", "new"), ("b", "B"), ("c", "C")]
    assert list_dead_letters(files.store, Filter(feed="ref")) == []


def test_a_signal_that_comes_when_a_replay_is_begun_leaves_no_row(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing runs any more, and the dead letters are as they were."""
    files.load("ref/1.json", [{"nid": "a", "name": "A"}])
    (one,) = list_dead_letters(files.store, Filter(feed="ref"))
    with monkeypatch.context() as patched:
        ended_as_begun(files.store, patched)
        with pytest.raises(SystemExit):
            replayed(files, "ref", {one.id: '{"id":"a","name":"A"}'})
    assert files.rows("SELECT status FROM etl_runs") == [("success",)]
    assert list_dead_letters(files.store, Filter(feed="ref")) == [one]


def test_a_letter_loses_to_a_later_record_of_its_own_file(files: Files) -> None:
    """The replay ends as the file would have ended."""
    files.load("ref/1.json", [{"nid": "a", "name": "first"}, {"id": "a", "name": "last"}, {"nid": "a", "name": "end"}])
    first, last = list_dead_letters(files.store, Filter(feed="ref"))
    assert replayed(files, "ref", {first.id: '{"id":"a","name":"first"}'}).stale == 1
    assert files.rows("SELECT name FROM ref") == [("last",)]
    assert replayed(files, "ref", {last.id: '{"id":"a","name":"end"}'}).loaded == 1
    assert files.rows("SELECT name FROM ref") == [("end",)]


def test_what_was_read_around_a_record_is_kept_with_it(files: Files) -> None:
    """A replay needs no file: the day that the path said is in the dead letter, and in its export."""
    files.load("daily-2026-01-01.json", [{"id": "a", "v": "no number"}])
    (dead_letter,) = list_dead_letters(files.store, Filter(feed="daily"))
    assert dead_letter.context is not None
    assert json.loads(dead_letter.context) == {"$path.day": "2026-01-01"}
    line = export_line(dead_letter, next(feed for feed in files.settings.feeds if feed.name == "daily"))
    assert json.loads(line) == {"letter": dead_letter.id, "record": {"id": "a", "v": "no number"}}
    mended = edited_records([line.replace('"no number"', "7").encode(), b"\n"])
    assert replayed(files, "daily", mended).loaded == 1
    assert [(v, str(day)[:10]) for v, day in files.rows("SELECT v, day FROM daily")] == [(7, "2026-01-01")]


def test_an_edit_that_fails_leaves_its_letter_as_it_was(files: Files) -> None:
    """The code is that of the source text, which is kept, and not of what somebody made of it."""
    files.load("ref/1.json", [{"id": "a", "name": 7}])
    before = list_dead_letters(files.store, Filter(feed="ref"))
    assert replayed(files, "ref", {before[0].id: '{"name":"no key"}'}).failed == 1
    assert list_dead_letters(files.store, Filter(feed="ref")) == before


def test_a_letter_that_where_leaves_out_now_is_resolved(files: Files) -> None:
    """It is none of the feed's any more."""
    files.load("facts/1.json", [{"a": "x", "run_id": "y"}])
    (dead_letter,) = list_dead_letters(files.store, Filter(feed="facts"))
    done = replayed(files, "facts", {dead_letter.id: '{"skip": true}'})
    assert (done.considered, done.loaded, done.failed) == (1, 0, 0)
    assert list_dead_letters(files.store, Filter(feed="facts")) == []


def test_an_edit_that_is_none_is_said_with_its_line(tmp_path: Path) -> None:
    """Exit 2, and which line."""
    del tmp_path
    with pytest.raises(OperatorFault, match="line 2"):
        edited_records([b'{"letter":1,"record":{}}', b"{}"])
    with pytest.raises(OperatorFault, match="line 2 is for a dead letter that a line before"):
        edited_records([b'{"letter":1,"record":{}}'] * 2)
