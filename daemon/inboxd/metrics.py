"""Numbers out, for Prometheus: what this daemon counted since it started, and how things stand when it is asked.

Imported only when the page is served. The names are part of the product.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inboxd import __version__
from inboxd.outcomes import ALL_REJECTED, TOLD, Outcome, Verdict

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""From a small file, a few milliseconds, to tens of millions of records, half an hour."""
FILE_OUTCOMES: Final = (Outcome.LOADED.value, ALL_REJECTED, Outcome.DUPLICATE.value, Outcome.FAILED.value)
RECORD_OUTCOMES: Final = tuple(TOLD.values())
"""The last one is of rows, which a record or its absence took out or marked."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand now. Moments are Unix times in seconds; what is not known is left out."""

    inbox_files: int | None = None
    oldest_file_age_s: float | None = None
    deferred_files: int | None = None
    ignored_files: int | None = None
    config_refused: bool | None = None
    watermarks: Mapping[str, float] = field(default_factory=dict)
    last_successes: Mapping[str, float] = field(default_factory=dict)
    feeds_late: Mapping[str, bool] = field(default_factory=dict)
    """Of the feeds whose files are expected, whether they are late."""
    dead_letters: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Those not resolved, by feed and code."""


@dataclass(slots=True)
class _Durations:
    """How long a feed's files took: how many in each span of ``SECONDS``, and all together."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one file."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds


class Metrics:
    """Counted by the daemon's thread, read by the page's: a lock keeps what belongs together, together."""

    def __init__(self, feeds: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._files: dict[tuple[str, str], int] = {}
        self._records: dict[tuple[str, str], int] = {}
        self._durations: dict[str, _Durations] = {}
        self.know(feeds)

    def know(self, feeds: Iterable[str]) -> None:
        """Count these from zero: present beforehand, already their first file is an increase to Prometheus."""
        with self._lock:
            for feed in feeds:
                self._durations.setdefault(feed, _Durations())
                for kind in FILE_OUTCOMES:
                    self._files.setdefault((feed, kind), 0)
                for outcome in RECORD_OUTCOMES:
                    self._records.setdefault((feed, outcome), 0)

    def count(self, verdict: Verdict) -> None:
        """Count one file that ended."""
        seconds = verdict.duration_ms / 1000
        file = (verdict.feed, verdict.outcome_name)
        with self._lock:
            self._files[file] = self._files.get(file, 0) + 1
            self._durations.setdefault(verdict.feed, _Durations()).add(seconds)
            for name, outcome in TOLD.items():
                record = (verdict.feed, outcome)
                self._records[record] = self._records.get(record, 0) + getattr(verdict.counts, name)

    def page(self, standing: Standing) -> bytes:
        """Return everything in Prometheus' text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Scrape([*self._counted(), *_standing(standing), *_process()]))
        return generate_latest(registry)

    def _counted(self) -> list[Metric]:
        labels = ("feed", "outcome")
        files = CounterMetricFamily("inboxd_files", "Files that ended, by outcome.", labels=labels)
        records = CounterMetricFamily("inboxd_records", "Records of loaded files, by outcome.", labels=labels)
        took = "How long a file took, to its COMMIT."
        durations = HistogramMetricFamily("inboxd_file_duration_seconds", took, labels=("feed",))
        with self._lock:
            for family, numbers in ((files, self._files), (records, self._records)):
                for values, number in numbers.items():
                    family.add_metric(values, number)
            bounds = [*map(str, map(float, SECONDS)), "+Inf"]
            for feed, one in self._durations.items():
                buckets = list(zip(bounds, accumulate(one.counts), strict=True))
                durations.add_metric((feed,), buckets, one.seconds)
        return [files, records, durations]


@dataclass(frozen=True, slots=True, eq=False)  # a registry keeps its collectors by identity
class _Scrape(Collector):
    """What one scrape is given."""

    families: list[Metric]

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self.families


def _standing(standing: Standing) -> list[Metric]:
    """Return the gauges, computed when they are asked for."""
    info = GaugeMetricFamily("inboxd_build_info", "Always 1; the version is the label.", labels=("version",))
    info.add_metric((__version__,), 1)
    watermarks = GaugeMetricFamily(
        "inboxd_watermark_timestamp_seconds", "A feed's watermark, where it is a time.", labels=("feed",)
    )
    successes = GaugeMetricFamily(
        "inboxd_last_success_timestamp_seconds",
        "When the feed's last successful run ended; one whose records were all rejected does not count.",
        labels=("feed",),
    )
    dead_letters = GaugeMetricFamily(
        "inboxd_open_dead_letters", "Dead letters that are not resolved.", labels=("feed", "code")
    )
    for key, count in standing.dead_letters.items():
        dead_letters.add_metric(key, count)
    for family, values in ((watermarks, standing.watermarks), (successes, standing.last_successes)):
        for feed, value in values.items():
            family.add_metric((feed,), value)
    refused = None if standing.config_refused is None else int(standing.config_refused)
    plain = (
        ("inboxd_inbox_files", "Files that wait, claimed or not.", standing.inbox_files),
        (
            "inboxd_oldest_file_age_seconds",
            "How long the oldest of them has waited; 0 if there is none.",
            standing.oldest_file_age_s,
        ),
        ("inboxd_deferred_files", "Files that wait after a transient fault.", standing.deferred_files),
        ("inboxd_ignored_files", "Files in the inbox that are left alone.", standing.ignored_files),
        ("inboxd_config_refused", "1 if the config on disk was refused, and an older one is in force.", refused),
    )
    gauges = [GaugeMetricFamily(name, text, value=value) for name, text, value in plain if value is not None]
    late = GaugeMetricFamily(
        "inboxd_feed_late", "1 if nothing has arrived in the time that the feed's expect allows.", labels=("feed",)
    )
    for feed, is_late in standing.feeds_late.items():
        late.add_metric((feed,), int(is_late))
    return [info, *gauges, watermarks, successes, late, dead_letters]


def _process() -> list[Metric]:
    """Return what Prometheus' client libraries tell of a process.

    The library's own collector needs /proc/stat, which the service's sandbox (``ProcSubset=pid``) does not have.
    """
    with suppress(OSError):  # no descriptor is left to read them with: a probe is answered nevertheless
        return _of_process()
    return []


def _of_process() -> list[Metric]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = [int(number) for number in Path("/proc/self/statm").read_text("ascii").split()[:2]]
    virtual, resident = (number * resource.getpagesize() for number in pages)
    gauges = (
        ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", _started()),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", virtual),
        ("process_resident_memory_bytes", "Resident memory size in bytes.", resident),
        ("process_open_fds", "Number of open file descriptors.", sum(1 for _ in Path("/proc/self/fd").iterdir())),
        ("process_max_fds", "Maximum number of open file descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    )
    cpu = "Total user and system CPU time spent in seconds."
    return [
        CounterMetricFamily("process_cpu_seconds", cpu, value=usage.ru_utime + usage.ru_stime),
        *(GaugeMetricFamily(name, text, value=value) for name, text, value in gauges),
    ]


def _started() -> float:
    """Return when the process began (Unix time): the kernel tells it in ticks since the machine's start."""
    ticks = int(Path("/proc/self/stat").read_text("ascii", "replace").rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age
