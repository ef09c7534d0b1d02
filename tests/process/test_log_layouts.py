"""The names that a JSON line's fields have in each layout, compared with what their authors publish."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from inboxd.events import Event
from inboxd.log import emit, is_logged, open_log
from inboxd.outcomes import Counts, Outcome, Verdict
from inboxd.verdicts import log_verdict

ECS: Final = {
    "@timestamp": str,
    "message": str,
    "ecs.version": str,
    "error.code": str,
    "error.message": str,
    "error.stack_trace": str,
    "event.action": str,
    "event.dataset": str,
    "event.duration": int,
    "event.kind": str,
    "event.outcome": str,
    "file.path": str,
    "file.size": int,
    "host.hostname": str,
    "log.level": str,
    "process.pid": int,
    "service.name": str,
    "service.version": str,
}
"""From the Elastic Common Schema's field reference, 8.11: keyword, text, wildcard and date are texts, long a number."""
OTEL: Final = {
    "Timestamp": str,
    "SeverityText": str,
    "SeverityNumber": int,
    "EventName": str,
    "Body": str,
    "Resource": dict,
    "Attributes": dict,
}
"""From OpenTelemetry's log data model (of its twelve fields those that a program without traces has)."""
CONVENTIONS: Final = {"file.path", "file.size", "error.type", "error.message", "exception.stacktrace"}
"""Attributes from OpenTelemetry's semantic conventions."""
FAILED: Final = Verdict(
    Outcome.FAILED, 7, "events", "a.json", duration_ms=12, size=99, error_code="invalid_json", error="line 1: no"
)
LOADED: Final = Verdict(Outcome.LOADED, 70, "events", "b.json", Counts(3, 1, 1, 1, 0), duration_ms=3, size=10)


def lines(layout: str, path: Path) -> list[dict[str, Any]]:
    """Return a line of every event, and two verdicts, as a log of that layout has them."""
    log = open_log(fmt="json", level="debug", file=path, out=None, layout=layout)
    for event in Event:
        emit(
            log,
            event,
            run_id=1,
            feed="events",
            file="x.json",
            traceback="T",
            error="e",
            error_code="c",
            pid=4,
            host="h",
        )
    log_verdict(log, LOADED, archived="data/processed/b.json")
    log_verdict(log, FAILED, archived=None)
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_elastic_finds_only_names_of_its_schema(tmp_path: Path) -> None:
    """Each field of a line is one of ECS with its type, or one below ``inboxd.``, of which ECS has none."""
    for line in lines("ecs", tmp_path / "log"):
        assert list(line)[:3] == ["@timestamp", "log.level", "message"]
        assert {"ecs.version", "event.action", "service.name"} <= set(line)
        for name, value in line.items():
            assert name.startswith("inboxd.") or type(value) is ECS[name], name
        assert not any(other.startswith(f"{name}.") for name in line for other in line), "a field and an object"


def test_elastic_is_told_outcome_and_duration(tmp_path: Path) -> None:
    """What ECS has a meaning for is said in its words: the outcome of a file, its duration in nanoseconds."""
    failed = next(line for line in lines("ecs", tmp_path / "log") if line.get("inboxd.run_id") == 7)
    assert (failed["event.action"], failed["event.outcome"], failed["log.level"]) == ("file_failed", "failure", "error")
    assert failed["event.duration"] == 12_000_000
    assert failed["message"] == "file failed: a.json: invalid_json: line 1: no"


def test_open_telemetry_finds_the_fields_of_its_data_model(tmp_path: Path) -> None:
    """A line is one log record: the model's own fields, each with its type, and the rest in its attributes."""
    for line in lines("otel", tmp_path / "log"):
        assert {name: type(value) for name, value in line.items()} == OTEL
        assert line["Resource"]["service.name"] == "inboxd"
        assert all(name in CONVENTIONS or name.startswith("inboxd.") for name in line["Attributes"])
        assert abs(int(line["Timestamp"]) / 1e9 - datetime.now(UTC).timestamp()) < 60
        assert (line["SeverityText"], line["SeverityNumber"]) == {
            "debug": ("DEBUG", 5),
            "info": ("INFO", 9),
            "warning": ("WARN", 13),
            "error": ("ERROR", 17),
        }[Event(line["EventName"]).level]


def test_a_line_has_a_sentence(tmp_path: Path) -> None:
    """Whoever reads lines in a viewer reads what happened, to which file, and with how many records."""
    bodies = [line["Body"] for line in lines("otel", tmp_path / "log")]
    assert "file loaded: b.json: 3 records, 1 loaded, 1 rejected, 1 skipped" in bodies
    assert "file failed: a.json: invalid_json: line 1: no" in bodies


@pytest.mark.parametrize("layout", ["inboxd", "ecs", "otel"])
def test_a_verdict_is_found_again_in_any_layout(tmp_path: Path, layout: str) -> None:
    """After a crash the log tells whether a verdict was said, whatever the lines looked like then."""
    log = tmp_path / "log"
    lines(layout, log)
    assert is_logged(log, 7)
    assert is_logged(log, 70)
    assert not is_logged(log, 700)
