"""Fixtures: inboxd installed with its own installer on a machine of its own, and that machine booted.

The installation is made once per test process, from this checkout and the locked dependencies; each test boots a
copy of it and may break what it likes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from nspawn import Disk, Machine, booted, make_plain, new_disk, run_on, until
from places import ROOT
from requirements import missing

SOURCE: Final = "/usr/local/src/inboxd"
INSTALLER: Final = f"{SOURCE}/systemd/install.sh"
INBOX: Final = "/var/lib/inboxd/inbox"
DATA: Final = "/var/lib/inboxd/data"
QUICK_RESTART: Final = "[Service]\nRestartSec=100ms\n"
QUERY: Final = """
import json, sqlite3, sys
with sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True) as database:
    print(json.dumps(database.execute(sys.argv[2]).fetchall()))
"""


def pip_settings() -> dict[str, str]:
    """Return what this host sets pip up with, for the installer."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


@dataclass(frozen=True, slots=True)
class Service:
    """inboxd on a booted machine, as its operator and its senders see it."""

    machine: Machine
    unit: str = "inboxd.service"

    def wait_active(self) -> None:
        """Wait until the unit is ready."""
        until(lambda: self.show("ActiveState") == "active", f"{self.unit} is active")

    def show(self, what: str) -> str:
        """Return a property of the unit."""
        return self.machine.show(self.unit, what)

    def systemctl(self, verb: str) -> None:
        """Start, stop, restart or reload the unit."""
        self.machine.run("systemctl", verb, self.unit)

    def drop_in(self, name: str, text: str) -> None:
        """Change the unit as an operator would; counts from the next start."""
        self.machine.disk.write(f"/etc/systemd/system/{self.unit}.d/{name}.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def configure(self, old: str, new: str) -> None:
        """Replace a line of the config, or add one at its end (``old`` empty)."""
        path = self.machine.path("/etc/inboxd/inboxd.toml")
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1) if old else text + new, encoding="utf-8")

    def events(self, *names: str) -> list[dict[str, object]]:
        """Return the daemon's log lines out of the journal, of all boots; of the events named, if any are."""
        lines = [json.loads(line) for line in self.machine.journal(self.unit) if line.startswith("{")]
        return [line for line in lines if not names or line["event"] in names]

    def wait_event(self, name: str, deadline_s: float = 30.0, **values: object) -> dict[str, object]:
        """Wait for a log line with these values and return it."""
        found: list[dict[str, object]] = []

        def seen() -> bool:
            found[:] = [event for event in self.events(name) if values.items() <= event.items()]
            return bool(found)

        try:
            until(seen, f"{name} with {values} in the journal", deadline_s)
        except AssertionError as late:
            late.add_note("\n".join(self.machine.journal(self.unit)[-20:]))
            raise
        return found[0]

    def sql(self, statement: str, database: str = f"{DATA}/inboxd.db") -> list[list[object]]:
        """Ask the database, as the service's user."""
        done = self.machine.run("/usr/bin/python3", "-c", QUERY, database, statement, user="inboxd")
        answer: list[list[object]] = json.loads(done.stdout)
        return answer

    def number(self, statement: str) -> int:
        """Ask the database for one whole number; 0 while there is no such table yet."""
        done = self.machine.run(
            "/usr/bin/python3", "-c", QUERY, f"{DATA}/inboxd.db", statement, user="inboxd", check=False
        )
        return int(json.loads(done.stdout)[0][0]) if done.returncode == 0 else 0


def record(number: int, key: str | None = None) -> str:
    """Return a line with one valid record; a higher number is a later cursor, one a second."""
    day, second = divmod(number, 86_400)
    minute, second = divmod(second, 60)
    hour, minute = divmod(minute, 60)
    month, day = divmod(day, 28)
    at = f"2026-{month + 1:02}-{day + 1:02}T{hour:02}:{minute:02}:{second:02}Z"
    return f'{{"key":"{key or f"k{number}"}","name":"Alice","value":{number}.5,"ts":"{at}"}}\n'


def write_records(path: Path, count: int) -> None:
    """Write a file of ``count`` records, outside the inbox: it is then moved in, as a careful sender does."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(record(number) for number in range(count))


def copy_checkout(disk: Disk) -> None:
    """Put what the installer reads on the disk: as it is now, whatever becomes of the checkout meanwhile."""
    source = disk.root / SOURCE.lstrip("/")
    for folder in ("daemon", "systemd", "locks"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "Makefile"):
        shutil.copy(ROOT / name, source)


@pytest.fixture(scope="session")
def machines(require_tool: Callable[[str, str], str], require_root: Callable[[], None]) -> None:
    """Skip where no machine can be booted, or fail where everything must be tested."""
    require_root()
    require_tool("systemd-nspawn", "systemd-container")
    require_tool("systemctl", "systemd")
    require_tool("journalctl", "systemd")
    require_tool("useradd", "passwd")
    require_tool("mount", "mount")
    require_tool("umount", "mount")
    require_tool("unshare", "util-linux")
    if subprocess.run(("unshare", "--mount", "true"), capture_output=True, check=False).returncode:
        missing("CAP_SYS_ADMIN, to mount and boot: run the container that the tests run in as a privileged one")


@pytest.fixture(scope="session")
def installation(machines: None) -> Iterator[Disk]:
    """Install inboxd on a disk that is not yet booted."""
    with new_disk() as disk:
        make_plain(disk)
        copy_checkout(disk)
        run_on(disk, (INSTALLER, "install"), pip_settings())
        run_on(disk, ("sh", "-c", "useradd -m -G inboxd-drop bob; useradd -m -G inboxd-drop carol"), {})
        run_on(disk, ("sh", "-c", "useradd -m -G inboxd alice; useradd -m eve"), {})
        disk.write("/etc/systemd/system/inboxd.service.d/quick.conf", QUICK_RESTART)
        yield disk


@pytest.fixture
def disk(installation: Disk) -> Iterator[Disk]:
    """Copy the installation."""
    with new_disk(installation.changes) as copy:
        yield copy


@pytest.fixture
def service(disk: Disk) -> Iterator[Service]:
    """Boot a copy of the installation. Its users: alice may read, bob and carol drop, eve neither."""
    with booted(disk) as machine:
        running = Service(machine)
        running.wait_active()
        yield running
