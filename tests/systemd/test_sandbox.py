"""The sandbox, tried from inside: a probe runs in the daemon's place, under the daemon's own unit."""

from __future__ import annotations

import json
from typing import Final

import pytest

from installed import INBOX, Service

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.xdist_group("systemd"),
    pytest.mark.timeout(600),
]

IN_THE_DAEMONS_PLACE: Final = """[Service]
Type=oneshot
WatchdogSec=0
Restart=no
ExecStart=
ExecStart=/opt/inboxd/bin/python /usr/local/lib/probe.py
"""
PROBE: Final = """
import ctypes, fcntl, json, mmap, os, signal, socket, sys

def error(act):
    try:
        act()
    except OSError as fault:
        return fault.strerror
    return ""

def write(path):
    return lambda: open(path, "w").close()

def lease(path):
    fd = os.open(path, os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    os.close(fd)

def to(address, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_STREAM) as line:
        line.settimeout(3)
        line.connect(address)

signal.signal(signal.SIGIO, signal.SIG_IGN)
state = "/var/lib/inboxd"
libc = ctypes.CDLL(None, use_errno=True)

def call(failed):
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

print(json.dumps({
    "lease on another user's file": error(lambda: lease(f"{state}/inbox/theirs.json")),
    "rename to the archive": error(lambda: os.rename(f"{state}/inbox/theirs.json", f"{state}/data/theirs.json")),
    "write the log": error(write("/var/log/inboxd/probe")),
    "write /tmp": error(write("/tmp/probe")),
    "internet socket": error(lambda: to(("127.0.0.1", 9))),
    "IPv6 socket": error(lambda: to(("::1", 9), socket.AF_INET6)),
    "packet socket": error(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "write /etc": error(write("/etc/inboxd/probe")),
    "write /usr": error(write("/usr/local/probe")),
    "write /opt": error(write("/opt/inboxd/probe")),
    "write another's state": error(write("/var/lib/probe")),
    "read /home": error(lambda: os.listdir("/home/bob")),
    "read /root": error(lambda: os.listdir("/root")),
    "read /etc/shadow": error(lambda: open("/etc/shadow").read()),
    "see other processes": "" if os.path.exists("/proc/1") else "hidden",
    "make a user namespace": error(lambda: call(libc.unshare(0x10000000))),
    "mount": error(lambda: call(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))),
    "make a setuid file": error(lambda: os.chmod("/var/log/inboxd/probe", 0o4755)),
    "make memory executable": error(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "change the clock": error(lambda: __import__("time").clock_settime(0, 0)),
}))
"""
ALLOWED: Final = {"lease on another user's file", "rename to the archive", "write the log", "write /tmp"}


@pytest.fixture
def tried(service: Service) -> dict[str, str]:
    """Run the probe; what it tried, with the error it met."""
    service.machine.shell(f"echo {{}} > {INBOX}/.theirs; chmod 640 {INBOX}/.theirs", user="bob")
    service.systemctl("stop")
    service.machine.run("mv", f"{INBOX}/.theirs", f"{INBOX}/theirs.json", user="bob")
    service.machine.disk.write("/usr/local/lib/probe.py", PROBE)
    service.drop_in("probe", IN_THE_DAEMONS_PLACE)
    service.systemctl("start")
    answer = next(line for line in service.machine.journal("inboxd") if line.startswith('{"lease'))
    result: dict[str, str] = json.loads(answer)
    return result


def test_the_sandbox_allows_what_is_needed_and_nothing_else(tried: dict[str, str]) -> None:
    """No network, no writing elsewhere, no reading of /home; a lease on, and a rename of, another user's file work."""
    assert {what for what, met in tried.items() if not met} == ALLOWED, tried
