"""A Debian of its own for each test: this host's root file system, copied on write, booted by systemd-nspawn.

Nothing a machine does reaches the host: its changes live in a tmpfs over the host's files, it has its own network,
processes and journal. ``Disk.freeze()`` turns what was done so far (an installation, say) into a layer that any
number of machines can start from.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BOOT_DEADLINE_S: Final = 60.0
POLL_S: Final = 0.05
HALT: Final = signal.SIGRTMIN + 3
"""What systemd as the first process takes for ``halt``, see systemd(1)."""
COMMAND_TIMEOUT_S: Final = 110.0
NSPAWN: Final = (
    "systemd-nspawn",
    "--quiet",
    "--register=no",  # no machined needed on the host
    "--keep-unit",
    "--resolv-conf=off",
    "--timezone=off",
    "--link-journal=no",
    "--settings=no",
)
ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def until(condition: Callable[[], bool], what: str, deadline_s: float = 30.0) -> None:
    """Wait for the condition; fails with ``what`` after the deadline."""
    pause = threading.Event()
    for _ in range(int(deadline_s / POLL_S)):
        if condition():
            return
        pause.wait(POLL_S)
    raise AssertionError(f"not within {deadline_s:.0f} s: {what}")


@dataclass(frozen=True, slots=True)
class Disk:
    """A root file system: the host's, with what was changed in ``changes`` on top."""

    root: Path
    changes: Path

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file there."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        place.chmod(mode)


@contextmanager
def new_disk(*below: Path) -> Iterator[Disk]:
    """Mount a disk over the host's root and the ``changes`` of other disks, topmost first."""
    with tempfile.TemporaryDirectory(prefix="inboxd-disk-") as name:
        base = Path(name)
        # A tmpfs, because the changes may not lie inside a layer below them, nor on another overlay.
        subprocess.run(("mount", "-t", "tmpfs", "-o", "mode=755", "inboxd-test", base), check=True)
        try:
            root, changes, work = base / "root", base / "changes", base / "work"
            for folder in (root, changes, work):
                folder.mkdir()
            layers = ":".join(str(path) for path in (*below, Path("/")))
            options = f"lowerdir={layers},upperdir={changes},workdir={work}"
            subprocess.run(("mount", "-t", "overlay", "-o", options, "inboxd-test", root), check=True)
            try:
                yield Disk(root, changes)
            finally:
                subprocess.run(("umount", "--recursive", root), check=True)
        finally:
            subprocess.run(("umount", base), check=True)


def make_plain(disk: Disk) -> None:
    """Take from the copy what the host has enabled, so that the machine is the same one everywhere."""
    system = disk.root / "etc/systemd/system"
    for wanted in system.glob("*.wants/*"):
        wanted.unlink()
    (disk.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)  # CI's own word that packages may start nothing
    disk.write("/etc/machine-id", f"{uuid.uuid4().hex}\n")
    disk.write("/etc/hostname", "inboxd-test\n")
    for unit in ("console-getty.service", "getty.target", "systemd-resolved.service", "systemd-networkd.service"):
        (system / unit).unlink(missing_ok=True)
        (system / unit).symlink_to("/dev/null")


def run_on(disk: Disk, command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a command on a disk that is not booted, with the host's network; returns what it printed."""
    settings = [f"--setenv={name}={value}" for name, value in {**ENVIRONMENT, **environment}.items()]
    argv = (*NSPAWN, f"--directory={disk.root}", *settings, "--", *command)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Machine:
    """A disk with a systemd running on it. One thread uses it."""

    def __init__(self, disk: Disk, *, host_network: bool = False, binds: Mapping[Path, str] | None = None) -> None:
        self.disk = disk
        self._binds = binds or {}
        self._host_network = host_network
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> None:
        """Boot until systemd answers; units may still be starting."""
        argv = [*NSPAWN, f"--directory={self.disk.root}", "--boot"]
        argv += [f"--bind-ro={here}:{inside}" for here, inside in self._binds.items()]
        if not self._host_network:
            argv.append("--private-network")
        argv += ["systemd.unit=multi-user.target", "systemd.firstboot=no", "systemd.show_status=no"]
        console = (self.disk.changes.parent / "console").open("ab")
        with console:
            self._nspawn = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        until(self._answers, f"systemd boots: {console.name}", BOOT_DEADLINE_S)

    def _answers(self) -> bool:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            console = (self.disk.changes.parent / "console").read_text(encoding="utf-8", errors="replace")
            raise AssertionError(f"systemd-nspawn ended with {self._nspawn.returncode}:\n{console}")
        children = (
            Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text(encoding="ascii").split()
        )
        if not children:
            return False
        self._leader = int(children[0])
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in {"starting", "running", "degraded"}

    def run(
        self, *command: str, user: str | None = None, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or as ``user`` (with a fresh login's groups)."""
        become = ("runuser", "-u", user, "--") if user else ()
        argv = ("nsenter", f"--target={self._leader}", "--all", "--wd", "--", *become, *command)
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            input=stdin,
            env={**ENVIRONMENT, "HOME": f"/home/{user}" if user else "/root"},
            timeout=COMMAND_TIMEOUT_S,
        )
        assert done.returncode == 0 or not check, (
            f"{shlex.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def shell(self, script: str, *, user: str | None = None, check: bool = True) -> str:
        """Run a shell script inside; returns what it printed."""
        return self.run("sh", "-euc", script, user=user, check=check).stdout

    def show(self, unit: str, what: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={what}", unit).stdout.strip()

    def journal(self, unit: str) -> list[str]:
        """Return the messages of a unit, of all boots, oldest first."""
        return self.run("journalctl", "--unit", unit, "--output=cat", "--no-pager", "--quiet").stdout.splitlines()

    def path(self, inside: str) -> Path:
        """Return a file of the machine as the host sees it."""
        return self.disk.root / inside.lstrip("/")

    def halt(self) -> None:
        """Shut down in order, as ``poweroff`` does. May be called twice."""
        if self._nspawn is None:
            return
        if self._leader:
            with suppress(ProcessLookupError):
                os.kill(self._leader, HALT)
        try:
            self._nspawn.wait(BOOT_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.cut_power()
        self._nspawn, self._leader = None, 0

    def cut_power(self) -> None:
        """End everything at once, with nothing told. May be called twice."""
        if self._nspawn is None:
            return
        # The machine outlives systemd-nspawn; but with its first process all of its processes end.
        with suppress(ProcessLookupError):
            os.kill(self._leader or self._nspawn.pid, signal.SIGKILL)
        self._nspawn.wait(BOOT_DEADLINE_S)
        self._nspawn, self._leader = None, 0


@contextmanager
def booted(disk: Disk, *, host_network: bool = False, binds: Mapping[Path, str] | None = None) -> Iterator[Machine]:
    """Boot a machine on the disk, with folders of the host (``binds``) to be read inside, and halt it at the end."""
    machine = Machine(disk, host_network=host_network, binds=binds)
    try:
        machine.boot()
        yield machine
    finally:
        machine.halt()
