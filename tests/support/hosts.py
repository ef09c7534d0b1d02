"""Hosts for tests: network namespaces on a switch, each with an address and a host name of its own.

What one machine can show with them: several daemons that share nothing but a folder and a database, links that are cut,
sessions that hang. What it cannot: clocks that differ, and a network filesystem between them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

NETWORK = "10.213.{}."
NAME_A_HOST = 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"'


@dataclass(frozen=True)
class Host:
    """One namespace. ``port`` is its end of the switch."""

    name: str
    namespace: str
    address: str
    switch: str
    port: str

    @property
    def inside(self) -> list[str]:
        """What runs a command that follows in this host's network."""
        return ["ip", "netns", "exec", self.namespace]

    def command(self, *command: str) -> list[str]:
        """Return what runs a command on this host, in a process that is the command's own."""
        return [*self.inside, "unshare", "--uts", "sh", "-c", NAME_A_HOST, self.name, *command]

    def cut(self) -> None:
        """Pull the cable: what is sent, in either direction, is lost, and nobody is told."""
        _ip("-n", self.switch, "link", "set", self.port, "down")

    def mend(self) -> None:
        """Put the cable back."""
        _ip("-n", self.switch, "link", "set", self.port, "up")


@dataclass
class Network:
    """A switch and its hosts. Nothing of it is seen outside of its namespaces, and nothing outside is touched."""

    names: Sequence[str]
    hosts: dict[str, Host] = field(default_factory=dict)

    def __enter__(self) -> Self:
        tag = f"ix{os.getpid() % 100_000}"
        self._switch = f"{tag}-switch"
        try:
            self._make_switch()
            for number, name in enumerate(self.names, start=1):
                address = NETWORK.format(os.getpid() % 200 + 20) + str(number)
                host = Host(name, f"{tag}-{name}", address, self._switch, f"port{number}")
                self.hosts[name] = host
                self._connect(host)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _make_switch(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")

    def _connect(self, host: Host) -> None:
        _ip("netns", "add", host.namespace)
        there = ["peer", "name", "eth0", "netns", host.namespace]
        _ip("-n", self._switch, "link", "add", host.port, "type", "veth", *there)
        _ip("-n", self._switch, "link", "set", host.port, "master", "bridge")
        _ip("-n", self._switch, "link", "set", host.port, "up")
        _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", host.namespace, "link", "set", "eth0", "up")
        _ip("-n", host.namespace, "link", "set", "lo", "up")

    def _remove(self) -> None:
        for namespace in (*(host.namespace for host in self.hosts.values()), self._switch):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", namespace)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)
