"""Files that would hurt: bombs, files that change, files that never end, links to elsewhere. None stalls the others."""

from __future__ import annotations

import gzip
import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zstandard

from daemons import Home, eventually, record
from faults import QUICK, is_whole, loaded_once, rss_kib

LIMITED = QUICK.replace("[inbox]", '[inbox]\nmax_file_size = "48MiB"')
MEMORY_KIB = 200_000
"""What a daemon may use at most, whatever it is fed."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Return a place for a daemon that settles at once."""
    with Home(tmp_path, LIMITED) as home:
        yield home


def _gzip_bomb() -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        for _ in range(400):
            file.write(b" " * (1 << 20))
    return packed.getvalue()


def _zstd_bomb() -> bytes:
    line = json.dumps(record("k")).encode() + b"\n"
    return zstandard.ZstdCompressor().compress(line * (4_000_000_000 // len(line) // 10))


def _deep() -> bytes:
    return b"[" * 3_000_000 + b"]" * 3_000_000


def _huge_record() -> bytes:
    return b'[{"key": "' + b"x" * (40 << 20) + b'"}]'


def _endless_line() -> bytes:
    return b'{"key": "a", "name": "' + b"n" * (40 << 20)


BOMBS = [
    ("bomb.json.gz", _gzip_bomb, "file_too_large"),
    ("bomb.ndjson.zst", _zstd_bomb, "file_too_large"),
    ("deep.json", _deep, "nesting_too_deep"),
    ("huge.json", _huge_record, "record_too_large"),
    ("endless.jsonl", _endless_line, "record_too_large"),
]


def test_bombs_fail_with_their_codes_in_flat_memory_and_stall_nobody(home: Home) -> None:
    """Each of them ends in failed, whole, with its code; the files dropped beside them are loaded meanwhile."""
    home.start()
    for number, (name, content, _) in enumerate(BOMBS):
        home.drop(name, content())
        home.drop(f"good-{number}.json", [record(f"k{number}", ts=f"2026-02-{number + 1:02d}T00:00:00Z")])
    for number, (name, _, code) in enumerate(BOMBS):
        assert home.verdict(name)["error_code"] == code
        assert (home.failed / name).stat().st_size > 1000
        assert home.verdict(f"good-{number}.json")["rows_out"] == 1
    assert home.query("SELECT COUNT(*) FROM target") == [(len(BOMBS),)]
    assert home.query("SELECT COUNT(*) FROM lineage") == [(2 * len(BOMBS),)]
    assert rss_kib(home) < MEMORY_KIB
    assert not list(home.path.rglob(".inboxd-staging-*"))


def test_a_slow_producer_is_never_read_half(tmp_path: Path) -> None:
    """A file written byte by byte, of which every prefix is valid, is loaded when it is closed, and once."""
    with Home(tmp_path, '[inbox]\nsettle = "20ms"\nrescan = "1s"\n[feeds.events]\nlate = "merge"\n') as home:
        home.start()
        lines = [json.dumps(record(f"k{number}")).encode() + b"\n" for number in range(6)]
        with (home.inbox / "slow.ndjson").open("wb", buffering=0) as file:
            for number, line in enumerate(lines):
                for byte in line:
                    file.write(bytes([byte]))
                home.drop(f"quick-{number}.json", [record(f"quick-{number}")])  # and others go on meanwhile
                home.verdict(f"quick-{number}.json")
                assert home.verdicts("slow.ndjson") == []
                assert (home.inbox / "slow.ndjson").exists()
        assert home.verdict("slow.ndjson")["rows_in"] == len(lines)
        assert loaded_once(home, "slow.ndjson")


def test_a_producer_that_opens_the_file_again_and_again_gets_each_state_at_most_once(tmp_path: Path) -> None:
    """Appended to with pauses shorter than the settle time, a file is taken when it is left alone, whole."""
    with Home(tmp_path, '[inbox]\nsettle = "2s"\nrescan = "1s"\n') as home:
        home.start()
        for number in range(20):
            with (home.inbox / "log.ndjson").open("ab") as file:
                file.write(json.dumps(record(f"k{number}")).encode() + b"\n")
            eventually(lambda: not home.verdicts())
        assert home.verdict("log.ndjson")["rows_in"] == 20
        assert loaded_once(home, "log.ndjson")


def test_a_file_rewritten_while_it_is_read_is_loaded_in_its_final_form(home: Home) -> None:
    """Whoever still holds the file open and changes it under the reader gets its last state loaded, and only that."""
    home.start()
    size = 300_000
    old = b"".join(json.dumps(record(f"old{number:06d}")).encode() + b"\n" for number in range(size))
    new = old.replace(b"old", b"new")
    path = home.write("a.ndjson", old)
    with path.open("r+b") as file:
        path.rename(home.inbox / "a.ndjson")
        file.write(new[: len(new) // 2])
        file.flush()
        file.write(new[len(new) // 2 :])
    assert home.verdict("a.ndjson")["rows_out"] == size
    assert home.query("SELECT COUNT(*) FROM target WHERE key LIKE 'new%'") == [(size,)]
    assert home.query("SELECT COUNT(*) FROM target") == [(size,)]
    assert loaded_once(home, "a.ndjson")
    assert is_whole(home, "a.ndjson", new)


def _inside(home: Home) -> bool:
    return bool(home.query("SELECT 1 FROM etl_runs WHERE status = 'running'"))


def _being_read(home: Home, name: str) -> Path | None:
    """Return where a claimed file is, once the daemon has read some of it."""
    assert home.process is not None
    opened = {one.path for one in psutil.Process(home.process.pid).open_files() if one.position > 0}
    return next((path for path in home.inbox.glob(f".claimed/*/{name}") if str(path) in opened), None)


def test_a_claimed_file_that_is_changed_under_the_reader_settles_again(home: Home) -> None:
    """A writer that kept its handle across the claim has its file put back, and loaded in its final form."""
    home.start()
    lines = [json.dumps(record(f"k{number:06d}")).encode() + b"\n" for number in range(200_000)]
    path = home.write("a.ndjson", b"".join(lines))
    path.rename(home.inbox / "a.ndjson")
    claimed = eventually(lambda: _being_read(home, "a.ndjson"), "it is being read")
    with claimed.open("ab") as file:
        file.write(json.dumps(record("late")).encode() + b"\n")
    assert home.verdict("a.ndjson")["rows_in"] == len(lines) + 1
    assert home.lines("file_unsettled")
    assert loaded_once(home, "a.ndjson")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stop_or_a_crash_in_the_middle_of_a_large_file_loads_it_once(home: Home, number: signal.Signals) -> None:
    """TERM ends the daemon with 0 within 10 s, a kill at once; either way the next start loads the file, once."""
    home.start()
    size = 400_000
    content = b"".join(json.dumps(record(f"k{number}")).encode() + b"\n" for number in range(size))
    home.drop("a.ndjson", content)
    eventually(lambda: _inside(home), "it is being loaded")
    assert home.process is not None
    home.process.send_signal(number)
    code = home.process.wait(10)
    assert code == (0 if number is signal.SIGTERM else -number)
    home.run_once()
    assert home.query("SELECT COUNT(*) FROM etl_runs WHERE status = 'running'") == [(0,)]
    assert len(home.verdicts("a.ndjson")) == 1
    loaded = home.query("SELECT rows_in, rows_out FROM etl_runs WHERE status = 'success'")
    assert loaded == [(size, size)]
    assert home.query("SELECT COUNT(*) FROM target") == [(size,)]
