"""The files that inboxd writes or reads for itself are each a file of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inboxd.config import InvalidConfig, Settings, load_settings
from inboxd.config.own_files import own_files
from inboxd.locks import lock_file


def load(folder: Path, text: str, **options: str) -> Settings:
    """Return the settings of a config with that text."""
    (folder / "inboxd.toml").write_text(text, encoding="utf-8")
    return load_settings(None, {}, folder, {name.replace("__", "."): value for name, value in options.items()})


BESIDE = ("", "-wal", "-shm", "-journal", ".lock")


@pytest.mark.parametrize("name", [*(f"data/inboxd.db{suffix}" for suffix in BESIDE), "data/inboxd.state.json"])
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("way", ["plain", "dots", "folder link", "file link", "hard link"])
def test_the_log_is_none_of_the_other_files(tmp_path: Path, name: str, way: str, *, exists: bool) -> None:
    """Log lines in a database destroy it: refused by every name that leads there, before the file is made as well."""
    file = tmp_path / name
    if exists or way == "hard link":
        file.parent.mkdir()
        file.write_bytes(b"")
    log = {"plain": name, "dots": f"data/../{name}"}.get(way, "log")
    if way == "folder link":
        (tmp_path / "link").symlink_to("data")
        log = f"link/{file.name}"
    elif way == "file link":
        (tmp_path / "log").symlink_to(name)
    elif way == "hard link":
        (tmp_path / "log").hardlink_to(file)
    with pytest.raises(
        InvalidConfig, match=rf"inboxd.toml:2: log.file: the log \(.*would be the same file as .*{name}"
    ):
        load(tmp_path, f'[log]\nfile = "{log}"\n')


@pytest.mark.parametrize("read", ["config", "headers", "program", "passfile"])
def test_what_inboxd_reads_is_nothing_that_it_writes(tmp_path: Path, read: str) -> None:
    """A log in the config, in a secret or in a program would change what they say."""
    config = {
        "config": '[log]\nfile = "inboxd.toml"\n',
        "headers": '[log]\nfile = "x"\n[[notify]]\non = ["file_failed"]\nurl = "http://h/"\nheaders_file = "x"\n',
        "program": '[log]\nfile = "x"\n[[notify]]\non = ["file_failed"]\nexec = ["./x"]\n',
        "passfile": f'[log]\nfile = "x"\n[database]\nurl = "postgresql://h/d?passfile={tmp_path}/x"\n',
    }
    with pytest.raises(InvalidConfig, match=r"log.file: the log \(.*would be the same file as"):
        load(tmp_path, config[read])


def test_a_commands_own_database_is_held_apart_as_well(tmp_path: Path) -> None:
    """``--db`` names no file that has another use."""
    for name in ("data/inboxd.log", "inboxd.toml", "data/inboxd.state.json"):
        with pytest.raises(InvalidConfig, match="would be the same file as"):
            load(tmp_path, "", database__url=f"sqlite:///{name}")


def test_files_that_are_only_read_may_be_one(tmp_path: Path) -> None:
    """Two receivers may have the same headers; a device is no file that anything could be lost in."""
    (tmp_path / "headers").write_text("", encoding="utf-8")
    one = '[[notify]]\non = ["file_failed"]\nurl = "http://{}/"\nheaders_file = "{}"\n'
    load(tmp_path, one.format("a", "headers") + one.format("b", "headers"))
    load(tmp_path, f'[log]\nfile = "/dev/null"\n{one.format("a", "/dev/null")}')


@pytest.mark.parametrize("name", [*(f"inboxd.db{suffix}" for suffix in BESIDE), "inboxd.state.json"])
def test_what_would_be_waited_for_is_refused(tmp_path: Path, name: str) -> None:
    """SQLite waits for a pipe's writer for ever, and hears no signal meanwhile."""
    (tmp_path / "data").mkdir()
    os.mkfifo(tmp_path / "data" / name)
    with pytest.raises(InvalidConfig, match=rf"data/{name}: it is a pipe, not a regular file"):
        load(tmp_path, "")


def test_each_file_of_ours_is_known(tmp_path: Path) -> None:
    """The list has the lock as the lock calls it."""
    settings = load(tmp_path, "")
    assert lock_file(settings.database.sqlite_path) in {one.path for one in own_files(settings)}
