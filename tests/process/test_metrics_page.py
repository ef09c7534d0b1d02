"""The numbers for Prometheus: their names, what they count, and that what is shipped with them asks for what exists."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Final

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inboxd.metrics import Metrics, Standing
from inboxd.outcomes import Counts, Outcome, Verdict
from places import ROOT

OPS: Final = ROOT / "ops"
PROMISED: Final = {
    "inboxd_files_total": {"feed", "outcome"},
    "inboxd_records_total": {"feed", "outcome"},
    "inboxd_file_duration_seconds_bucket": {"feed", "le"},
    "inboxd_file_duration_seconds_count": {"feed"},
    "inboxd_file_duration_seconds_sum": {"feed"},
    "inboxd_inbox_files": set(),
    "inboxd_oldest_file_age_seconds": set(),
    "inboxd_deferred_files": set(),
    "inboxd_ignored_files": set(),
    "inboxd_config_refused": set(),
    "inboxd_open_dead_letters": {"feed", "code"},
    "inboxd_feed_late": {"feed"},
    "inboxd_watermark_timestamp_seconds": {"feed"},
    "inboxd_last_success_timestamp_seconds": {"feed"},
    "inboxd_build_info": {"version"},
    "process_cpu_seconds_total": set(),
    "process_start_time_seconds": set(),
    "process_virtual_memory_bytes": set(),
    "process_resident_memory_bytes": set(),
    "process_open_fds": set(),
    "process_max_fds": set(),
}
FULL: Final = Standing(
    inbox_files=3,
    oldest_file_age_s=12.5,
    deferred_files=1,
    ignored_files=2,
    config_refused=False,
    watermarks={"events": 1.5e9},
    last_successes={"events": 1.6e9},
    dead_letters={("events", "invalid_value"): 4},
    feeds_late={"events": True},
)


def _samples(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def _value(page: bytes, name: str, **labels: str) -> float:
    return _samples(page)[name, frozenset(labels.items())]


def test_exactly_the_promised_names_and_labels_are_there() -> None:
    """Dashboards may rely on the names and labels: these, and no others."""
    found = {name: {label for label, _ in labels} for name, labels in _samples(Metrics(["events"]).page(FULL))}
    assert found == PROMISED


def test_every_file_and_record_is_counted_once() -> None:
    """A file counts under its outcome, its records under theirs, and its duration in one bucket."""
    metrics = Metrics(["events"])
    metrics.count(Verdict(Outcome.LOADED, 1, "events", "a.json", Counts(10, 5, 1, 2, 2), duration_ms=30))
    metrics.count(Verdict(Outcome.LOADED, 2, "events", "b.json", Counts(1, 1), duration_ms=3_000_000))
    metrics.count(Verdict(Outcome.DUPLICATE, 3, "events", "c.json", duration_ms=1))
    metrics.count(Verdict(Outcome.FAILED, 4, "other", "d.json", duration_ms=2))
    page = metrics.page(Standing())
    assert _value(page, "inboxd_files_total", feed="events", outcome="loaded") == 2
    assert _value(page, "inboxd_files_total", feed="events", outcome="duplicate") == 1
    assert _value(page, "inboxd_files_total", feed="events", outcome="failed") == 0
    assert _value(page, "inboxd_files_total", feed="other", outcome="failed") == 1
    records = {"loaded": 6, "rejected": 1, "skipped": 2, "stale": 2}
    assert {name: _value(page, "inboxd_records_total", feed="events", outcome=name) for name in records} == records
    assert _value(page, "inboxd_file_duration_seconds_bucket", feed="events", le="0.05") == 2
    assert _value(page, "inboxd_file_duration_seconds_bucket", feed="events", le="1800.0") == 2
    assert _value(page, "inboxd_file_duration_seconds_bucket", feed="events", le="+Inf") == 3
    assert _value(page, "inboxd_file_duration_seconds_count", feed="events") == 3
    assert _value(page, "inboxd_file_duration_seconds_sum", feed="events") == pytest.approx(3000.031)
    assert _value(page, "inboxd_file_duration_seconds_count", feed="other") == 1


def test_a_file_of_which_every_record_was_rejected_is_an_outcome_of_its_own() -> None:
    """Whoever counts what was loaded does not count a file that loaded nothing; skipped records make no difference."""
    metrics = Metrics(["events"])
    metrics.count(Verdict(Outcome.LOADED, 1, "events", "a.json", Counts(3, 0, 3, 0, 0)))
    metrics.count(Verdict(Outcome.LOADED, 2, "events", "b.json", Counts(3, 0, 1, 2, 0)))
    metrics.count(Verdict(Outcome.LOADED, 3, "events", "c.json", Counts(3, 0, 2, 0, 1)))
    metrics.count(Verdict(Outcome.LOADED, 4, "events", "d.json", Counts(0)))
    page = metrics.page(Standing())
    assert _value(page, "inboxd_files_total", feed="events", outcome="all_rejected") == 2
    assert _value(page, "inboxd_files_total", feed="events", outcome="loaded") == 2


def test_the_process_is_told_of_without_the_machine() -> None:
    """Memory, time and descriptors are this process's own, also where /proc shows processes alone."""
    page = Metrics([]).page(Standing())
    assert abs(_value(page, "process_start_time_seconds") - psutil.Process().create_time()) < 2
    assert _value(page, "process_resident_memory_bytes") > 1_000_000
    assert _value(page, "process_cpu_seconds_total") > 0
    assert _value(page, "process_open_fds") >= 3


def test_what_is_not_known_is_left_out() -> None:
    """A database that does not answer leaves gaps, not zeros that would look like facts."""
    names = {name for name, _ in _samples(Metrics([]).page(Standing()))}
    assert "inboxd_inbox_files" not in names
    assert "inboxd_watermark_timestamp_seconds" not in names
    assert "inboxd_build_info" in names


def test_a_feed_of_any_name_is_escaped() -> None:
    """Quotes, backslashes and line breaks in a label do not break the page."""
    name = 'a "quoted"\\\nname'
    metrics = Metrics([name])
    metrics.count(Verdict(Outcome.LOADED, 1, name, "a.json"))
    assert _value(metrics.page(Standing()), "inboxd_files_total", feed=name, outcome="loaded") == 1


def test_the_alert_rules_are_valid_and_fire_when_they_should(require_tool: Callable[[str, str], str]) -> None:
    """The shipped rules pass promtool, and each alert fires in its own unit test."""
    promtool = require_tool("promtool", "prometheus")
    for command in (["check", "rules", "prometheus-rules.yml"], ["test", "rules", "prometheus-rules.test.yml"]):
        done = subprocess.run([promtool, *command], cwd=OPS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    rules = set(re.findall(r"alert: (\w+)", (OPS / "prometheus-rules.yml").read_text()))
    tested = set(re.findall(r"alertname: (\w+)\n", (OPS / "prometheus-rules.test.yml").read_text()))
    assert tested == rules


def test_the_page_of_metrics_passes_promtool(require_tool: Callable[[str, str], str]) -> None:
    """Prometheus' own linter has nothing to say against the names, types and help texts."""
    promtool = require_tool("promtool", "prometheus")
    page = Metrics(["events"]).page(FULL)
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["prometheus-rules.yml", "grafana-dashboard.json"])
def test_rules_and_dashboard_ask_only_for_what_exists(name: str) -> None:
    """No rule and no panel asks for a number, or a label of it, that is not there."""
    asked = set(re.findall(r"\b(?:inboxd|process)_\w+", (OPS / name).read_text()))
    assert asked
    assert asked <= set(PROMISED)


def test_the_dashboard_is_whole() -> None:
    """Every panel of the dashboard has a title, a query, and a place of its own in the grid."""
    dashboard = json.loads((OPS / "grafana-dashboard.json").read_text())
    places: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert all(target["expr"] for target in panel["targets"])
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places
        assert all(x < 24 for x, _ in cells)
        places |= cells
