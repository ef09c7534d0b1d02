"""The installer, on a machine of its own: from nothing, again, to a newer version, and away."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Final

import pytest

from installed import DATA, INBOX, INSTALLER, SOURCE, Service, pip_settings, record
from nspawn import Disk, booted
from places import ROOT

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.xdist_group("systemd"),
    pytest.mark.timeout(600),
]

NEWER: Final = "/root/newer"


@pytest.fixture
def online(disk: Disk) -> Iterator[Service]:
    """Boot a copy of the installation with the host's network, for pip."""
    with booted(disk, host_network=True) as machine:
        running = Service(machine)
        running.wait_active()
        yield running


def install(service: Service, installer: str = INSTALLER) -> subprocess.CompletedProcess[str]:
    """Run the installer inside, with what the host sets pip up with."""
    settings = [f"{name}={value}" for name, value in {**pip_settings(), "PIP_RETRIES": "1"}.items()]
    return service.machine.run("env", *settings, installer, "install", check=False)


def load_one(service: Service) -> None:
    """Load a file of one record."""
    service.machine.shell(f"echo '{record(1).strip()}' > {INBOX}/one.json", user="bob")
    service.wait_event("file_loaded", file="one.json", rows_out=1)


def newer_checkout(service: Service) -> str:
    """Make a checkout of a later version inside; returns its installer."""
    later = """s/^__version__.*/__version__ = "99.0.0"/"""
    service.machine.shell(f"cp -r {SOURCE} {NEWER}; sed -i '{later}' {NEWER}/daemon/inboxd/__init__.py")
    return f"{NEWER}/systemd/install.sh"


def test_what_is_installed_pleases_systemd(service: Service) -> None:
    """``systemd-analyze verify`` has nothing to say, ``security`` at most 1.5, and the folders are declared cleanly."""
    units = [f"/etc/systemd/system/{name}" for name in ("inboxd.service", "inboxd@.service")]
    done = service.machine.run("systemd-analyze", "verify", *units)
    assert done.stdout + done.stderr == ""
    service.machine.run("systemd-analyze", "security", "--threshold=15", "inboxd.service")
    for command in (("systemd-sysusers", "inboxd.conf"), ("systemd-tmpfiles", "--create", "inboxd.conf")):
        done = service.machine.run(*command)
        assert done.stdout + done.stderr == ""
    assert service.show("UnitFileState") == "enabled"
    assert service.machine.run("inboxd", "--version", user="eve").returncode == 0


def test_installing_again_changes_nothing(service: Service) -> None:
    """A second run builds nothing (this machine has no network), restarts nothing and leaves the config alone."""
    load_one(service)
    service.configure("", "\n# mine\n")
    before = service.show("MainPID")
    done = install(service)
    assert done.returncode == 0, done.stderr
    assert "building" not in done.stdout
    assert service.show("MainPID") == before
    assert service.machine.path("/etc/inboxd/inboxd.toml").read_text(encoding="utf-8").endswith("# mine\n")


def test_an_upgrade_keeps_data_and_config(online: Service) -> None:
    """A newer checkout's installer replaces the program, restarts the service, and the same data is there."""
    load_one(online)
    online.configure("", "\n# mine\n")
    done = install(online, newer_checkout(online))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "99.0.0" in online.machine.run("inboxd", "--version").stdout
    assert online.wait_event("daemon_started", version="99.0.0")
    assert online.number("SELECT count(*) FROM target") == 1
    assert online.machine.path("/etc/inboxd/inboxd.toml").read_text(encoding="utf-8").endswith("# mine\n")
    assert len(list(online.machine.path("/opt/inboxd/releases").iterdir())) == 1
    online.machine.shell(f"echo '{record(2).strip()}' > {INBOX}/two.json", user="bob")
    online.wait_event("file_loaded", file="two.json", rows_out=1)


def test_an_upgrade_that_fails_leaves_the_running_version(service: Service) -> None:
    """Without a network the newer version cannot be built: the installer says so, and nothing has changed."""
    before = service.show("MainPID")
    done = install(service, newer_checkout(service))
    assert done.returncode != 0
    assert service.show("MainPID") == before
    assert "99.0.0" not in service.machine.run("inboxd", "--version").stdout
    load_one(service)


def test_an_uninstalled_service_leaves_what_is_yours(online: Service) -> None:
    """Program, units and command are gone; data, config and archive stay as they were, and a new install finds them."""
    load_one(online)
    online.machine.run(INSTALLER, "uninstall")
    gone = ("/opt/inboxd", "/usr/local/bin/inboxd", "/etc/systemd/system/inboxd.service", "/etc/tmpfiles.d/inboxd.conf")
    assert [path for path in gone if os.path.lexists(online.machine.path(path))] == []
    assert online.show("ActiveState") == "inactive"
    kept = ("/etc/inboxd/inboxd.toml", f"{DATA}/inboxd.db", f"{DATA}/processed/one.json", INBOX)
    assert [path for path in kept if not online.machine.path(path).exists()] == []
    done = install(online)
    assert done.returncode == 0, done.stdout + done.stderr
    assert online.show("ActiveState") == "active"
    assert online.number("SELECT count(*) FROM target") == 1


def test_the_installer_says_what_is_missing(machines: None) -> None:
    """Without root, and with an interpreter that the service could not reach, it stops before it has done anything."""
    installer = ROOT / "systemd/install.sh"

    def refused(*before: str) -> str:
        done = subprocess.run((*before, str(installer), "install"), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        return done.stderr

    assert "needs root" in refused("setpriv", "--reuid=65534", "--clear-groups", "--")
    assert "no-such-python is not Python 3.11" in refused("env", "PYTHON=/usr/bin/no-such-python")
