"""Databases on a real cluster of Citus, which ``INBOXD_TEST_CITUS`` names: its coordinator's URL, then its workers'.

Each database is a copy of a template that has the extension, the nodes, and a trigger that distributes feeds' tables
and ``lineage_records`` as they are made. The role of the URLs must be a superuser, and reach one node from another.

A test that stops nodes makes itself a cluster of its own, of the same programs, if they are on this machine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict

from clusters import Cluster
from requirements import missing

TEMPLATE: Final = f"inboxd_citus_{os.getpid()}"
DISTRIBUTE: Final = """
CREATE SCHEMA trial;
CREATE FUNCTION trial.distribute() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE made record; col text;
BEGIN
  SET LOCAL citus.multi_shard_modify_mode = 'sequential';  -- or a long name's index waits for its own table's making
  FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' AND object_type = 'table'
  LOOP
    CONTINUE WHEN made.schema_name <> 'public';
    IF made.object_identity = 'public.lineage_records' THEN
      col := 'run_id';
    ELSIF made.object_identity <> 'public.watermarks' AND (SELECT count(*) FROM pg_attribute WHERE attrelid = made.objid
        AND attname IN ('run_id', 'inboxd_run_id', 'updated_at', 'inboxd_updated_at')) >= 2 THEN
      SELECT a.attname INTO col FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
         AND a.attnum = i.indkey[0] WHERE i.indrelid = made.objid AND i.indisprimary;
    ELSE
      CONTINUE;
    END IF;
    CONTINUE WHEN col IS NULL;  -- its key comes later
    PERFORM create_distributed_table(made.objid::regclass, col, shard_count => 4);
  END LOOP;
END $$;
CREATE EVENT TRIGGER distribute ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION trial.distribute();
"""
END_DAEMONS: Final = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'inboxd%'
"""
EMPTY: Final = """
DO $$ DECLARE made record; BEGIN
  SET LOCAL citus.multi_shard_modify_mode = 'sequential';  -- or a long name's index waits for its own table's making
  FOR made IN
    WITH theirs AS (SELECT objid FROM pg_depend WHERE deptype IN ('e', 'a', 'i')),
         kinds (letter, kind) AS (VALUES ('v', 'VIEW'), ('r', 'TABLE'), ('S', 'SEQUENCE'))
    SELECT kind, quote_ident(relname) AS name FROM pg_class JOIN kinds ON letter = relkind::text
     WHERE relnamespace = 'public'::regnamespace AND oid NOT IN (SELECT objid FROM theirs)
    UNION ALL
    SELECT 'FUNCTION', quote_ident(proname) FROM pg_proc
     WHERE pronamespace = 'public'::regnamespace AND oid NOT IN (SELECT objid FROM theirs)
  LOOP
    EXECUTE format('DROP %s IF EXISTS public.%s CASCADE', made.kind, made.name);
  END LOOP;
END $$
"""
"""Drops all that is not an extension's: the schema could not be dropped without that."""
ALONE: Final = "SET citus.enable_create_database_propagation = off"


@dataclass(frozen=True, slots=True)
class CitusCluster:
    """The nodes, the coordinator first, as URLs of their maintenance databases.

    ``places`` are their hosts and ports for one another, where the URLs are only the tests' way to them.
    """

    nodes: tuple[str, ...]
    places: tuple[tuple[str, int], ...] = ()
    _made: list[str] = field(default_factory=list)
    _free: list[str] = field(default_factory=list)

    def programs(self) -> Path:
        """Return the folder of the coordinator's programs; where that is elsewhere, the test is skipped."""
        with psycopg.connect(self.nodes[0]) as connection:
            rows = connection.execute(
                "SELECT setting FROM pg_config WHERE name IN ('BINDIR', 'PKGLIBDIR') ORDER BY name"
            )
            folder, libraries = (Path(str(setting)) for (setting,) in rows)
        if not (folder / "initdb").exists() or not (libraries / "citus.so").exists():
            missing(f"the programs of the cluster that INBOXD_TEST_CITUS names on this machine, in {folder}")
        return folder

    def make(self, name: str) -> str:
        """Make a database on all nodes from the template; returns the coordinator's URL of it."""
        for node in reversed(self.nodes):
            _run(node, ALONE, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return url_of(self.nodes[0], name)

    def drop(self, name: str) -> None:
        """Remove a database from all nodes."""
        for node in self.nodes:
            _run(node, ALONE, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextmanager
    def lent(self) -> Iterator[Callable[[], str]]:
        """Lend a maker of empty databases. In the end they are emptied, and lent again: to copy one takes seconds."""
        taken: list[str] = []

        def make() -> str:
            taken.append(self._free.pop() if self._free else f"inboxd_{os.getpid()}_{os.urandom(4).hex()}")
            if taken[-1] not in self._made:
                self._made.append(taken[-1])
                return self.make(taken[-1])
            return url_of(self.nodes[0], taken[-1])

        yield make
        for name in taken:
            _run(url_of(self.nodes[0], name), END_DAEMONS, EMPTY)
            self._free.append(name)

    def end(self) -> None:
        """Remove what was made."""
        for name in (*self._made, TEMPLATE):
            self.drop(name)

    def make_template(self) -> None:
        """Make what the databases are copied from. Nobody may be connected to it while it is copied."""
        for node in self.nodes:
            _run(node, ALONE, f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)", f"CREATE DATABASE {TEMPLATE}")
        coordinator, *workers = (url_of(node, TEMPLATE) for node in self.nodes)
        for node in (*workers, coordinator):
            _run(node, "CREATE EXTENSION citus")
        (host, port), *others = self.places or [_place(node) for node in self.nodes]
        _run(coordinator, f"SELECT citus_set_coordinator_host('{host}', {port})")
        for host, port in others:
            _run(coordinator, f"SELECT citus_add_node('{host}', {port})")
        _run(coordinator, DISTRIBUTE)
        for node in self.nodes:
            end = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{TEMPLATE}'"
            _run(node, f"ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false", end)


@contextmanager
def citus_cluster(nodes: tuple[str, ...]) -> Iterator[CitusCluster]:
    """Lend the cluster, with its template."""
    cluster = CitusCluster(nodes)
    cluster.make_template()
    yield cluster
    cluster.end()


class Node(Cluster):
    """A server with Citus, of a test's own. What a lost one has left unfinished stays so until the test recovers it."""

    def _make_files(self, secret: Path) -> None:
        super()._make_files(secret)
        with (self.folder / "data" / "postgresql.conf").open("a", encoding="ascii") as config:
            config.write("shared_preload_libraries = 'citus'\ncitus.recover_2pc_interval = -1\n")
            config.write("citus.node_conninfo = 'sslmode=disable'\n")  # no certificates of whoever runs the tests

    @property
    def url(self) -> str:
        """The URL of its maintenance database: by its socket, wherever it listens."""
        return f"postgresql://postgres@/postgres?host={self.folder}&port={self.port}"

    def set(self, setting: str, value: str) -> None:
        """Change the server's configuration; the empty string resets it."""
        with self.connect() as connection:
            change = f"SET {setting} = '{value}'" if value else f"RESET {setting}"
            connection.execute(f"ALTER SYSTEM {change}".encode())
            connection.execute("SELECT pg_reload_conf()")

    def ask(self, database: str, query: str) -> list[tuple[object, ...]]:
        """Ask one of its databases; nothing is found where it does not answer."""
        with suppress(psycopg.OperationalError), self.connect(url_of(self.url, database)) as connection:
            return connection.execute(query.encode()).fetchall()
        return []


@contextmanager
def own_nodes(programs: Path, listen: str = "127.0.0.1", prefix: Sequence[str] = ()) -> Iterator[list[Node]]:
    """Start a coordinator and two workers."""
    with ExitStack() as stack:
        nodes: list[Node] = []
        for _ in range(3):
            folder = Path("/tmp") / f"ixc-{os.getpid()}-{os.urandom(3).hex()}"  # noqa: S108 - short, for the socket
            folder.mkdir()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            node = Node(folder, programs, listen, prefix=prefix, auth="trust")
            nodes.append(node)
            node.start()
            stack.callback(_end, node)
        yield nodes


def cluster_of(nodes: Sequence[Node]) -> CitusCluster:
    """Make one cluster of a coordinator and its workers."""
    cluster = CitusCluster(tuple(node.url for node in nodes), tuple((node.listen, node.port) for node in nodes))
    cluster.make_template()
    return cluster


def _end(node: Node) -> None:
    with suppress(psutil.NoSuchProcess, FileNotFoundError):  # the test may have ended it
        node.kill()


def _place(node: str) -> tuple[str, int]:
    found = conninfo_to_dict(node)
    return str(found["host"]), int(found.get("port") or 5432)


def url_of(node: str, database: str) -> str:
    """Return the URL of a database of a node."""
    before, _, options = node.partition("?")
    return f"{before.rpartition('/')[0]}/{database}?{options}"


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
