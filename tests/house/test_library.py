"""inboxd as a library: what its three functions promise to programs that decide themselves when a file is loaded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

import inboxd
from daemons import record
from inboxd import FileFault, OperatorFault, Outcome, RunStatus, TransientFault, load_file, load_folder, runs
from places import ROOT

GUIDE: Final = ROOT / "docs" / "library.md"
REGIONS: Final[dict[str, Any]] = {
    "feeds": {
        "sales": {
            "match": ["{region}/*.json"],
            "key": ["id"],
            "mode": "append",
            "fields": {"id": {"type": "integer"}, "region": {"type": "text", "from": "$path.region"}},
        }
    }
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, with no config anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def write(name: str, *records: object, age_s: float = 0.0) -> Path:
    """Write a file of records, last changed so many seconds ago."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), encoding="utf-8")
    os.utime(path, times=(path.stat().st_mtime - age_s,) * 2)
    return path


def test_importing_the_package_imports_nothing_else() -> None:
    """``import inboxd`` costs nothing until a function of it is used."""
    code = "import sys; before = set(sys.modules); import inboxd; print(*sorted(set(sys.modules) - before))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True, env=environment)
    assert [name for name in done.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names] == ["inboxd"]


def test_every_name_that_is_promised_is_there() -> None:
    """What ``__all__`` lists can be imported and is documented; another name is an ``AttributeError``."""
    guide = GUIDE.read_text(encoding="utf-8")
    for name in inboxd.__all__:
        assert getattr(inboxd, name) is not None
    for name in ("load_file", "load_folder", "runs", "FileFault", "TransientFault", "OperatorFault", "InboxdError"):
        assert name in guide
    assert set(dir(inboxd)) == set(inboxd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_stream'"):
        inboxd.load_stream  # noqa: B018 - the name that is none is what is tried


def test_a_file_is_loaded_once_and_stays_where_it_is() -> None:
    """The second call is told which run loaded the content; the daemon's ledger, ``etl_runs``, has both."""
    path = write("a.json", record("k"), record("l", ts="2026-01-15T10:31:00Z"))
    first = load_file(path)
    assert (first.outcome, first.counts.rows_out) == (Outcome.LOADED, 2)
    again = load_file(write("other.json", record("k"), record("l", ts="2026-01-15T10:31:00Z")))
    assert (again.outcome, again.duplicate_of) == (Outcome.DUPLICATE, first.run_id)
    assert path.exists()
    assert [(run.id, run.file_name, run.rows_out) for run in runs()] == [
        (again.run_id, "other.json", 0),
        (first.run_id, "a.json", 2),
    ]


def test_a_file_at_fault_raises_with_its_place_and_is_in_the_ledger() -> None:
    """A task that ignores what is returned fails all the same, with the code that the daemon's report would have."""
    Path("bad.json").write_text('[{"key":"k",\n oops}]', encoding="utf-8")
    with pytest.raises(FileFault) as raised:
        load_file("bad.json")
    fault = raised.value
    assert fault.code == "invalid_json"
    assert fault.place is not None
    assert fault.place.line == 2
    assert fault.hint
    (run,) = runs(status=RunStatus.FAILURE)
    assert (run.file_name, run.error_code) == ("bad.json", "invalid_json")


def test_what_cannot_be_is_said_by_family() -> None:
    """A wrong config is the operator's, a missing file the system's, a server that is away transient."""
    write("a.json", record("k"))
    with pytest.raises(OperatorFault, match="there is no feed 'orders'"):
        load_file("a.json", feed="orders")
    with pytest.raises(OperatorFault, match="unknown key"):
        load_file("a.json", config={"inbox": {"pth": "in"}})
    with pytest.raises(OperatorFault, match=r"no feed matches 'a\.json'"):
        load_file("a.json", config={"feeds": {"events": {"match": ["in/*.json"]}}})
    with pytest.raises(FileNotFoundError):
        load_file("b.json")
    with pytest.raises(OperatorFault, match="there is no database"):
        runs(database="sqlite:///none.db")
    with pytest.raises(TransientFault, match=r"127\.0\.0\.1"):
        runs(database="postgresql://nobody@127.0.0.1:1/none")


def test_a_feed_may_read_the_path() -> None:
    """Where a feed reads parts of the path, the path's end has to have them, or ``as_path`` says them."""
    write("in/EU/a.json", {"id": 1})
    assert load_file("in/EU/a.json", config=REGIONS).counts.rows_out == 1
    write("a.json", {"id": 2})
    with pytest.raises(OperatorFault, match=r"'a\.json' ends in none of"):
        load_file("a.json", config=REGIONS, feed="sales")
    assert load_file("a.json", config=REGIONS, as_path="US/a.json").counts.rows_out == 1
    assert [run.file_name for run in runs(config=REGIONS, feed="sales")] == ["a.json", "in/EU/a.json"]


def test_a_folder_is_loaded_oldest_first_and_a_bad_file_holds_up_no_other() -> None:
    """Suffixes, ignored names and hidden folders are as in the inbox; called again, nothing changes."""
    write("in/new.json", record("a", value=2, ts="2026-01-15T10:31:00Z"))
    write("in/deep/old.json", record("a", value=1), age_s=60)
    Path("in/bad.json").write_text("{", encoding="utf-8")
    os.utime("in/bad.json", (0, 0))
    for name in ("in/notes.txt", "in/half.json.part", "in/.hidden/x.json"):
        write(name, record("x"))
    Path("in/link.json").symlink_to("new.json")
    verdicts = load_folder("in")
    assert [(verdict.file_name, verdict.outcome.value) for verdict in verdicts] == [
        ("in/bad.json", "failed"),
        ("in/deep/old.json", "loaded"),
        ("in/new.json", "loaded"),
    ]
    assert verdicts[0].error_code == "invalid_json"
    assert [verdict.outcome.value for verdict in load_folder("in")] == ["failed", "duplicate", "duplicate"]


def test_a_folder_is_taken_as_the_inbox_would_be() -> None:
    """Feeds are matched by the path below the folder; ``feed`` takes every file by that one."""
    write("drop/EU/a.json", {"id": 1})
    write("drop/b.json", {"id": 2})
    assert [verdict.file_name for verdict in load_folder("drop", config=REGIONS)] == ["drop/EU/a.json"]
    write("all/b.json", record("k"))
    assert [verdict.feed for verdict in load_folder("all", feed="events")] == ["events"]


def test_two_programs_load_a_folder_once() -> None:
    """Both see every file; each content is loaded by one of them, and a duplicate for the other."""
    for number in range(8):
        write(f"in/{number}.json", record(f"k{number}", ts=f"2026-01-15T10:3{number}:00Z"), age_s=60 - number)
    code = "from inboxd import load_folder; print(*(verdict.outcome.value for verdict in load_folder('in')))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    both = [
        subprocess.Popen((sys.executable, "-c", code), stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    outcomes = sorted(word for one in both for word in one.communicate(timeout=60)[0].split())
    assert outcomes == ["duplicate"] * 8 + ["loaded"] * 8
    assert sum(run.rows_out for run in runs()) == 8


def test_the_ledger_is_asked_by_time() -> None:
    """``since`` is a time with a zone, or in UTC."""
    load_file(write("a.json", record("k")))
    now = datetime.now(UTC)
    assert len(runs(since=now - timedelta(minutes=5))) == 1
    assert runs(since=now + timedelta(minutes=5)) == []
    assert len(runs(since=(now - timedelta(minutes=5)).replace(tzinfo=None), limit=1)) == 1


def test_the_examples_of_the_guide_run(folder: Path) -> None:
    """Each example of docs/library.md does what it says, from the first to the last, in one folder."""
    write("exports/orders.json", {"id": 1, "total": "9.50", "changed": "2026-01-15T10:30:00Z"})
    Path("exports/broken.json").write_text("[1,", encoding="utf-8")
    Path("inboxd.toml").write_text(
        '[feeds.orders]\nkey = ["id"]\ncursor = "changed"\nlate = "merge"\nmatch = ["**"]\n[feeds.orders.fields]\n'
        'id = { type = "integer" }\ntotal = { type = "decimal" }\nchanged = { type = "timestamp" }\n',
        encoding="utf-8",
    )
    examples = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(examples) == 5
    for example in examples:
        exec(compile(example, str(GUIDE), "exec"), {})  # noqa: S102 - the guide's own words
