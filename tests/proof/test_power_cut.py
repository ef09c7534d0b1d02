"""The power goes while files are loaded: what is in processed has its rows, and the next start goes on from there."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemons import Home, eventually, record
from faults import QUICK, mount
from inboxd.store.sqlite_driver import driver

CUTS = 8
FILES = 240
IMAGE_MIB = 24


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """The filesystem in an image; mounting one that was cut replays its journal."""
    place.mkdir(exist_ok=True)
    mount("-o", "loop,data=ordered,commit=1", image, place)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def content(number: int) -> bytes:
    """Return a file of three records that no other file has."""
    second = f"2026-01-15T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"
    return json.dumps([record(f"{number}-{one}", ts=second) for one in range(3)]).encode()


def cut_power(image: Path, copy: Path) -> None:
    """Take what the disk holds at this moment, while the filesystem may still be writing to it.

    The backing file has every write that the filesystem has sent to its device. Copying takes a while, so it is done
    until the image read again is the same: then the copy is the disk of one moment. What the filesystem still keeps in
    memory is not in it, as in a power cut, and that is the point: only what was fsynced may be relied on.
    """
    for _ in range(50):
        shutil.copyfile(image, copy)
        if copy.read_bytes() == image.read_bytes():
            return
    pytest.fail("the disk was never still for as long as it takes to read it")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_after_a_power_cut_every_processed_file_has_its_rows(
    tmp_path: Path, require_root: Callable[[], None], require_tool: Callable[[str, str], str]
) -> None:
    """Inbox and database on one disk that loses its power while files are loaded: nothing is lost, nothing doubled."""
    require_root()
    mkfs = require_tool("mkfs.ext4", "e2fsprogs")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(IMAGE_MIB << 20)
    subprocess.run([mkfs, "-q", str(image)], check=True)
    cuts = []
    with mounted(image, tmp_path / "disk") as disk, Home(disk / "home", QUICK) as home:
        home.start()
        chance = random.Random(1)
        moments = sorted(chance.sample(range(10, FILES), CUTS))
        for number in range(FILES):
            home.drop(f"{number:04d}.json", content(number))
            if number in moments:
                _wait_for(home, number // 2)
                cuts.append(tmp_path / f"cut-{number}.img")
                with _held_still(home):
                    cut_power(image, cuts[-1])
        home.stop()
    for cut in cuts:
        with mounted(cut, tmp_path / "after"):
            _check(Home(tmp_path / "after" / "home", QUICK))
        cut.unlink()


@contextmanager
def _held_still(home: Home) -> Iterator[None]:
    """Stop the daemon wherever it is just then: a disk that is written to all the time cannot be copied as one."""
    home.suspend()
    try:
        yield
    finally:
        home.resume()


def _wait_for(home: Home, files: int) -> None:
    eventually(lambda: len(home.verdicts()) > files)


def _check(home: Home) -> None:
    """Compare the disk with the database, then start again and compare them once more."""
    kept = {path.name for path in home.processed.rglob("*.json")}
    rows = _rows(home)
    loaded = {name for (name,) in _ask(home, "SELECT file_name FROM etl_runs WHERE status = 'success'")}
    assert kept <= loaded, f"processed without its run: {sorted(kept - loaded)}"
    for name in kept:
        assert _keys(name) <= rows, f"{name} is processed, and its rows are lost"
    there = {path.name for path in home.inbox.rglob("*.json") if path.stat().st_size}
    assert home.run_once() in {0, 1}
    processed = {path.name for path in home.processed.rglob("*.json")}
    assert kept | there <= processed | {path.name for path in home.failed.rglob("*.json")}
    assert _rows(home) == set().union(*map(_keys, processed))
    assert _ask(home, "SELECT COUNT(*) - COUNT(DISTINCT content_sha256) FROM etl_runs WHERE status = 'success'") == [
        (0,)
    ]
    assert _ask(home, "SELECT COUNT(*) FROM lineage WHERE step = 'load'") == [(3 * len(processed),)]
    assert _ask(home, "PRAGMA integrity_check") == [("ok",)]


def _keys(name: str) -> set[str]:
    return {f"{int(name.partition('.')[0])}-{one}" for one in range(3)}


def _rows(home: Home) -> set[str]:
    return {str(key) for (key,) in _ask(home, "SELECT key FROM target")}


def _ask(home: Home, sql: str) -> list[tuple[object, ...]]:
    """Ask the database, replaying its log, as the daemon's start does."""
    connection = driver.connect(str(home.database))
    try:
        found: list[tuple[object, ...]] = connection.execute(sql).fetchall()
    finally:
        connection.close()
    return found
