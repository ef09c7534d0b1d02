"""Numbers out, for Prometheus: what this daemon counted since it started, and how things stand when it is asked.

Imported only when the page is served. The names are part of the product.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inboxd import __version__
from inboxd.model import Counts, Outcome, Verdict

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""From a small file, a few milliseconds, to tens of millions of records, half an hour."""
FILE_OUTCOMES: Final = (Outcome.LOADED, Outcome.DUPLICATE, Outcome.FAILED)
RECORD_OUTCOMES: Final = ("loaded", "rejected", "skipped", "stale")


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand now. Moments are Unix times in seconds; what is not known is left out."""

    inbox_files: int | None = None
    oldest_file_age_s: float | None = None
    deferred_files: int | None = None
    watermarks: Mapping[str, float] = field(default_factory=dict)
    last_successes: Mapping[str, float] = field(default_factory=dict)


class Metrics:
    """Counted by the daemon's thread, read by the page's: a lock keeps what belongs together, together."""

    def __init__(self, feeds: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._files: dict[tuple[str, str], int] = {}
        self._records: dict[tuple[str, str], int] = {}
        self._durations = [0] * (len(SECONDS) + 1)
        self._seconds = 0.0
        self.know(feeds)

    def know(self, feeds: Iterable[str]) -> None:
        """Count these from zero: present beforehand, already their first file is an increase to Prometheus."""
        with self._lock:
            for feed in feeds:
                for kind in FILE_OUTCOMES:
                    self._files.setdefault((feed, kind.value), 0)
                for outcome in RECORD_OUTCOMES:
                    self._records.setdefault((feed, outcome), 0)

    def count(self, verdict: Verdict) -> None:
        """Count one file that ended."""
        seconds = verdict.duration_ms / 1000
        file = (verdict.feed, verdict.outcome.value)
        with self._lock:
            self._files[file] = self._files.get(file, 0) + 1
            self._durations[bisect_left(SECONDS, seconds)] += 1
            self._seconds += seconds
            for outcome, number in zip(RECORD_OUTCOMES, _numbers(verdict.counts), strict=True):
                record = (verdict.feed, outcome)
                self._records[record] = self._records.get(record, 0) + number

    def page(self, standing: Standing) -> bytes:
        """Return everything in Prometheus' text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Scrape([*self._counted(), *_standing(standing)]))
        return generate_latest(registry)

    def _counted(self) -> list[Metric]:
        labels = ("feed", "outcome")
        files = CounterMetricFamily("inboxd_files", "Files that ended, by outcome.", labels=labels)
        records = CounterMetricFamily("inboxd_records", "Records of loaded files, by outcome.", labels=labels)
        durations = HistogramMetricFamily("inboxd_file_duration_seconds", "How long a file took, to its COMMIT.")
        with self._lock:
            for family, numbers in ((files, self._files), (records, self._records)):
                for values, number in numbers.items():
                    family.add_metric(values, number)
            bounds = [*map(str, map(float, SECONDS)), "+Inf"]
            buckets = list(zip(bounds, accumulate(self._durations), strict=True))
            durations.add_metric((), buckets, self._seconds)
        return [files, records, durations]


@dataclass(frozen=True, slots=True, eq=False)  # a registry keeps its collectors by identity
class _Scrape(Collector):
    """What one scrape is given."""

    families: list[Metric]

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self.families


def _numbers(counts: Counts) -> tuple[int, int, int, int]:
    return counts.rows_out, counts.rows_rejected, counts.rows_skipped, counts.rows_stale


def _standing(standing: Standing) -> list[Metric]:
    """Return the gauges, computed when they are asked for."""
    info = GaugeMetricFamily("inboxd_build_info", "Always 1; the version is the label.", labels=("version",))
    info.add_metric((__version__,), 1)
    watermarks = GaugeMetricFamily(
        "inboxd_watermark_timestamp_seconds", "A feed's watermark, where it is a moment.", labels=("feed",)
    )
    successes = GaugeMetricFamily(
        "inboxd_last_success_timestamp_seconds", "When a feed's last successful run ended.", labels=("feed",)
    )
    for family, values in ((watermarks, standing.watermarks), (successes, standing.last_successes)):
        for feed, value in values.items():
            family.add_metric((feed,), value)
    plain = (
        ("inboxd_inbox_files", "Files that wait, claimed or not.", standing.inbox_files),
        (
            "inboxd_oldest_file_age_seconds",
            "For how long the oldest of them waits; 0 if none.",
            standing.oldest_file_age_s,
        ),
        ("inboxd_deferred_files", "Files held up by a fault of the world.", standing.deferred_files),
    )
    gauges = [GaugeMetricFamily(name, text, value=value) for name, text, value in plain if value is not None]
    return [info, *gauges, watermarks, successes]
