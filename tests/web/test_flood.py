"""A page under flood loses visitors, and nothing else is lost."""

from __future__ import annotations

import http.client
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from page_daemon import page_daemon
from requirements import missing

VISITORS = 2_000
FILES = 40


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Let this process have a descriptor for each visitor, and some to work with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = VISITORS + 200
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            missing(f"{wanted} file descriptors: raise the hard limit (ulimit -Hn)")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _probe(url: str) -> int:
    where = urlsplit(url)
    with closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().status


def test_two_thousand_connections_change_nothing_for_files(tmp_path: Path, descriptors: None) -> None:
    """They take no descriptor that a file needs, they fill no log, and probes are answered meanwhile."""
    with page_daemon(tmp_path) as daemon, ExitStack() as stack:
        where = urlsplit(daemon.url)
        process = psutil.Process(daemon.process.pid)
        before = process.num_fds()
        most = 0
        for number in range(VISITORS):
            visitor = stack.enter_context(socket.socket())
            visitor.setblocking(False)
            visitor.connect_ex((where.hostname or "", where.port or 0))
            if number % (VISITORS // FILES) == 0:
                file = f"{number}.json"
                daemon.drop(file, f'{{"key": "{number}", "name": "n", "value": 1, "ts": "2026-01-01"}}')
                most = max(most, process.num_fds())
            if number % 500 == 0:
                assert _probe(daemon.url) == 200
        for number in range(0, VISITORS, VISITORS // FILES):
            daemon.wait_for("file_loaded", file=f"{number}.json")
            most = max(most, process.num_fds())
        assert _probe(daemon.url) == 200
        assert most - before < 120
        events = [line["event"] for line in daemon.events()]
        assert len(events) < FILES + 60
        assert "file_deferred" not in events
