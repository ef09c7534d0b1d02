"""What a daemon tells of the file that it works on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from inboxd.daemon import Daemon
from inboxd.inbox.source import Source
from inboxd.presence import Work
from inboxd.standing import work_of


def at_work(source: Source | None) -> Daemon:
    """Return a daemon that reads a file of a claim, as far as the question looks at it."""
    held: Any = SimpleNamespace(claim=SimpleNamespace(id="c1", name="a/b.json"), feed="events")
    return cast("Daemon", SimpleNamespace(reading=None if source is None else (held, source)))


def test_a_file_is_told_of_while_it_is_read_and_then_written(tmp_path: Path) -> None:
    """How many of its bytes were read, and that it is being written once that is all of them."""
    (tmp_path / "file").write_bytes(b"x" * 100)
    with Source(tmp_path / "file") as source:
        source.read(40)
        assert work_of(at_work(source)) == Work("c1", "a/b.json", "events", "reading", 40, 100)
        source.read(60)
        assert work_of(at_work(source)) == Work("c1", "a/b.json", "events", "writing", 100, 100)
    assert work_of(at_work(None)) is None
