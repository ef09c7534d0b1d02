"""The Debian package, on a machine of its own: from nothing to a newer version, and away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from installed import DATA, INBOX, Service, record
from nspawn import booted, make_plain, new_disk
from packages import Packages
from requirements import missing

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.xdist_group("systemd"),
    pytest.mark.timeout(600),
]

CONFIG: Final = "/etc/inboxd/inboxd.toml"


@pytest.fixture(scope="module")
def debian(packages: Packages, require_tool: Callable[[str, str], str]) -> Path:
    """Return the Debian package, built from this checkout for the Python that Debian brings."""
    require_tool("dpkg-deb", "dpkg")
    require_tool("dpkg", "dpkg")
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    asked = ("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    its = subprocess.run(asked, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin"}).stdout.strip()
    if its != ours:
        missing(f"/usr/bin/python3 of version {ours}: the tests run on that one, Debian's is {its or 'not there'}")
    return packages.debian


def newer(package: Path, folder: Path) -> Path:
    """Make a later version of a package."""
    tree, later = folder / "tree", folder / "later.deb"
    subprocess.run(("dpkg-deb", "--raw-extract", package, tree), check=True)
    control = tree / "DEBIAN" / "control"
    version = next(line for line in control.read_text().splitlines() if line.startswith("Version: "))
    control.write_text(control.read_text().replace(version, "Version: 99.0.0"))
    (source,) = tree.glob("opt/inboxd/lib/python3.*/site-packages/inboxd/__init__.py")
    text = source.read_text()
    source.write_text(text.replace(f'"{version.removeprefix("Version: ")}"', '"99.0.0"'))
    assert source.read_text() != text
    for compiled in source.parent.glob("__pycache__/__init__.*"):
        compiled.unlink()
    subprocess.run(("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, later), check=True)
    return later


@pytest.fixture
def service(machines: None, debian: Path, tmp_path: Path) -> Iterator[Service]:
    """Boot a machine without inboxd, on which the package and a newer one lie in /mnt."""
    newer(debian, tmp_path)
    os.link(debian, tmp_path / "inboxd.deb")
    with new_disk() as disk:
        make_plain(disk)
        with booted(disk, binds={tmp_path: "/mnt"}) as machine:
            yield Service(machine)


def dpkg(service: Service, *arguments: str, code: int = 0) -> str:
    """Run dpkg without anybody to answer it; return what it said."""
    done = service.machine.run("dpkg", *arguments, check=False, stdin="")
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def load(service: Service, number: int) -> None:
    """Let bob drop a file of one record, and wait for its verdict."""
    service.machine.shell(f"echo '{record(number).strip()}' > {INBOX}/{number}.json", user="bob")
    service.wait_event("file_loaded", file=f"{number}.json", rows_out=1)


def test_the_debian_package_from_its_installation_to_its_purge(service: Service) -> None:
    """It starts the service, keeps data and config through an upgrade, and leaves what is yours when it goes.

    The sandbox is that of ``make install``; an upgrade starts what it stopped, and no unit that was off.
    """
    machine = service.machine
    machine.shell("mkdir -p /opt/inboxd/releases")
    assert "make uninstall" in dpkg(service, "--install", "/mnt/inboxd.deb", code=1)
    machine.shell("rmdir -p /opt/inboxd/releases || true")

    dpkg(service, "--install", "/mnt/inboxd.deb")
    service.wait_active()
    assert service.show("UnitFileState") == "enabled"
    done = machine.run("systemd-analyze", "verify", "inboxd.service", "inboxd@.service")
    assert done.stdout + done.stderr == ""
    machine.shell("useradd -m -G inboxd-drop bob; useradd -m -G inboxd alice")
    load(service, 1)
    assert "succeeded" in machine.run("inboxd", "status", user="alice").stdout
    assert machine.run("dpkg", "--verify", "inboxd").stdout == ""

    service.configure("", "\n# mine\n")
    dpkg(service, "--install", "/mnt/later.deb")
    service.wait_active()
    assert service.wait_event("daemon_started", version="99.0.0")
    assert machine.path(CONFIG).read_text(encoding="utf-8").endswith("# mine\n")
    load(service, 2)
    assert service.number("SELECT count(*) FROM target") == 2

    service.systemctl("stop")
    service.systemctl("disable")
    dpkg(service, "--install", "/mnt/later.deb")
    assert (service.show("ActiveState"), service.show("UnitFileState")) == ("inactive", "disabled")

    service.systemctl("start")
    dpkg(service, "--remove", "inboxd")
    assert service.show("ActiveState") == "inactive"
    assert not machine.path("/usr/bin/inboxd").exists()
    assert machine.path(CONFIG).exists()

    assert "/var/lib/inboxd stays" in dpkg(service, "--purge", "inboxd")
    gone = ("/etc/inboxd", "/opt/inboxd", "/etc/logrotate.d/inboxd", "/lib/systemd/system/inboxd.service")
    assert [path for path in gone if machine.path(path).exists()] == []
    assert sorted(path.name for path in machine.path(f"{DATA}/processed").iterdir()) == ["1.json", "2.json"]
    assert machine.path(f"{DATA}/inboxd.db").exists()

    dpkg(service, "--install", "/mnt/inboxd.deb")
    service.wait_active()
    assert service.number("SELECT count(*) FROM target") == 2
