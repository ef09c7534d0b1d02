"""The unit files as they are shipped, judged by systemd's own tools; none of it needs root or a running systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from places import ROOT

SHIPPED: Final = ROOT / "systemd"
MOST_EXPOSED: Final = 15
"""``systemd-analyze security`` at most 1.5; its option takes tenths."""
UNITS: Final = ("inboxd.service", "inboxd@.service")


def settings(unit: str) -> dict[str, list[str]]:
    """Return every ``Name=value`` of a unit file, in order."""
    found: dict[str, list[str]] = {}
    for line in (SHIPPED / unit).read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "drop_ins", [(), ("page",), ("postgresql",), ("notify",), ("notify", "page", "postgresql")], ids="+".join
)
def test_every_unit_is_sandboxed_whatever_is_opened(
    unit: str, drop_ins: tuple[str, ...], tmp_path: Path, require_tool: Callable[[str, str], str]
) -> None:
    """``systemd-analyze security`` finds an exposure of at most 1.5, for the plain unit and with any drop-in."""
    analyze = require_tool("systemd-analyze", "systemd")
    staged = tmp_path / unit
    shutil.copy(SHIPPED / unit, staged)
    folder = tmp_path / f"{unit}.d"
    folder.mkdir()
    for name in drop_ins:
        shutil.copy(SHIPPED / "inboxd.service.d" / f"{name}.conf", folder)
    argv = (analyze, "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager", str(staged))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_renamed_between_folders_stays_on_one_mount(unit: str) -> None:
    """Each writable path of a sandbox is a mount of its own, and a rename between two fails: the data has one."""
    found = settings(unit)
    assert "ReadWritePaths" not in found
    assert len(found["StateDirectory"]) == 1
    assert len(found["StateDirectory"][0].split()) == 1


@pytest.mark.parametrize("unit", UNITS)
def test_a_bad_config_is_not_started_again_and_a_crash_is(unit: str) -> None:
    """Exit 78 stays down until somebody mends the config; everything else is tried again, without a last time."""
    found = settings(unit)
    assert "78" in found["RestartPreventExitStatus"][0].split()
    assert found["Restart"] == ["on-failure"]
    assert found["StartLimitIntervalSec"] == ["0"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_reload_checks_the_config_first(unit: str) -> None:
    """``systemctl reload`` fails where the config is bad, in the step before the one that makes it count."""
    check, tell = settings(unit)["ExecReload"]
    assert "inboxd config check" in check
    assert "exit 78" in check
    assert tell == "/bin/kill -HUP $MAINPID"


@pytest.mark.parametrize("unit", UNITS)
def test_leases_on_other_users_files_are_allowed_and_honoured(unit: str) -> None:
    """CAP_LEASE is the one capability, and there is no user namespace, in which it would count for nothing."""
    found = settings(unit)
    assert found["AmbientCapabilities"] == ["CAP_LEASE"]
    assert found["CapabilityBoundingSet"] == ["CAP_LEASE"]
    assert "PrivateUsers" not in found


def test_the_template_differs_from_the_unit_only_in_its_names() -> None:
    """What was decided for ``inboxd.service`` holds for each ``inboxd@NAME.service`` too."""
    plain, template = settings("inboxd.service"), settings("inboxd@.service")
    assert template.pop("ExecStartPre")
    renamed = {name: [re.sub(r" \(%i\)$|-%i", "", value) for value in values] for name, values in template.items()}
    renamed["Environment"] = [value.replace("/%i.toml", "/inboxd.toml") for value in renamed["Environment"]]
    assert renamed == plain


def test_the_shipped_config_keeps_everything_under_the_one_state_directory() -> None:
    """The config that is installed names absolute paths, all below ``/var/lib/inboxd``, and no secret."""
    config = tomllib.loads((SHIPPED / "inboxd.toml").read_text(encoding="utf-8"))
    places = [
        config["inbox"]["path"],
        *config["archive"].values(),
        config["database"]["url"].removeprefix("sqlite:///"),
    ]
    assert all(place.startswith("/var/lib/inboxd/") for place in places), places
    assert "password" not in str(config)
