"""Commands in processes that are forked from one that has imported inboxd: a fifth of a second each, not more.

What such a command does is what one does that was started; only its imports are made. Started as a program, this is
the process that they are forked from. It gets a message for each command, with the command's standard output and error
and a socket, over which the command's pid is told, and how it ended.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

LONGEST: Final = 1 << 20
"""Bytes of a message: arguments and environment."""
OURS: Final = ("INBOXD_", "PYTEST_")
"""What the names of variables begin with that are looked at by commands, and not by their imports, or by nobody."""


def others(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that may make a difference to Python, or to a library that is imported."""
    return {name: value for name, value in environment.items() if not name.startswith(OURS)}


class Warm:
    """A process that has imported inboxd. Ends with the process that made it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Pipes, as commands will have: Python looks only once whether it can seek in what it writes to.
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Tell whether a command in this environment would do the same if it were started."""
        return others(environment) == self._environment and "COVERAGE_PROCESS_START" not in environment

    def run(
        self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run one command; raises ``subprocess.TimeoutExpired``."""
        about, theirs = socket.socketpair()
        ends = [os.pipe() for _ in range(2)]
        with about:
            message = json.dumps([list(arguments), os.fspath(cwd), dict(environment)]).encode()
            socket.send_fds(self._control, [message], [writing for _, writing in ends] + [theirs.fileno()])
            theirs.close()
            for _, writing in ends:
                os.close(writing)
            about.settimeout(timeout)
            pid = int(about.recv(64))
            said = _read([reading for reading, _ in ends], time.monotonic() + timeout)
            if said is None:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(arguments), timeout)
            code = os.waitstatus_to_exitcode(int(about.recv(64)))
        return subprocess.CompletedProcess(list(arguments), code, *(each.decode() for each in said))


_made: list[Warm] = []


def warm_process(environment: Mapping[str, str]) -> Warm:
    """Return this process's own, made for an environment like the first one that is asked for."""
    if not _made:
        _made.append(Warm(others(environment)))
    return _made[0]


def _read(readings: Sequence[int], until: float) -> list[bytes] | None:
    """Return all that comes from some pipes, and close them; ``None`` if the time is over before."""
    said = dict.fromkeys(readings, b"")
    with selectors.DefaultSelector() as ready:
        for reading in readings:
            ready.register(reading, selectors.EVENT_READ)
        while ready.get_map() and time.monotonic() < until:
            for key, _ in ready.select(until - time.monotonic()):
                data = os.read(key.fd, 1 << 16)
                said[key.fd] += data
                if not data:
                    ready.unregister(key.fd)
        ended = not ready.get_map()
    for reading in readings:
        os.close(reading)
    return list(said.values()) if ended else None


def serve(control: socket.socket) -> None:
    """Fork for each command; return in the process that is to run it, when it is set up for that."""
    while True:
        message, fds, _, _ = socket.recv_fds(control, LONGEST, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            break
        for fd in fds:
            os.close(fd)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
    control.close()
    arguments, cwd, environment = json.loads(message)
    output, errors, about = fds
    command = os.fork()
    if command:
        for fd in (output, errors):
            os.close(fd)
        os.write(about, str(command).encode().ljust(64))
        _, status = os.waitpid(command, 0)
        os.write(about, str(status).encode().ljust(64))
        os._exit(0)
    os.close(about)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for fd in (output, errors):
        os.close(fd)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments


def import_all() -> None:
    """Import all of inboxd."""
    import inboxd  # noqa: PLC0415 - only in the process that commands are forked from

    for module in pkgutil.walk_packages(inboxd.__path__, "inboxd."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    gc.freeze()


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        import_all()
        serve(given)
    from inboxd.cli import main

    main()
