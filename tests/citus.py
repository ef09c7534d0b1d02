"""Databases on a real cluster of Citus, which ``INBOXD_TEST_CITUS`` names: its coordinator's URL, then its workers'.

Each database is a copy of a template that has the extension, the nodes, and a trigger that distributes feeds' tables
and ``lineage_records`` as they are made. The role of the URLs must be a superuser, and reach one node from another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

TEMPLATE: Final = f"inboxd_citus_{os.getpid()}"
DISTRIBUTE: Final = """
CREATE FUNCTION distribute() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE made record; col text;
BEGIN
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
    PERFORM create_distributed_table(made.objid::regclass, col, shard_count => 4);
  END LOOP;
END $$;
CREATE EVENT TRIGGER distribute ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION distribute();
"""
ALONE: Final = "SET citus.enable_create_database_propagation = off"


@dataclass(frozen=True, slots=True)
class CitusCluster:
    """The nodes, the coordinator first, as URLs of their maintenance databases."""

    nodes: tuple[str, ...]

    def make(self, name: str) -> str:
        """Make a database on all nodes from the template; returns the coordinator's URL of it."""
        for node in reversed(self.nodes):
            _run(node, ALONE, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return _url(self.nodes[0], name)

    def drop(self, name: str) -> None:
        """Remove a database from all nodes."""
        for node in self.nodes:
            _run(node, ALONE, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def make_template(self) -> None:
        """Make what the databases are copied from. Nobody may be connected to it while it is copied."""
        for node in self.nodes:
            _run(node, ALONE, f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)", f"CREATE DATABASE {TEMPLATE}")
        coordinator, *workers = (_url(node, TEMPLATE) for node in self.nodes)
        for node in (*workers, coordinator):
            _run(node, "CREATE EXTENSION citus")
        places = [conninfo_to_dict(node) for node in self.nodes]
        host, port = places[0]["host"], places[0].get("port", 5432)
        _run(coordinator, f"SELECT citus_set_coordinator_host('{host}', {port})")
        for place in places[1:]:
            _run(coordinator, f"SELECT citus_add_node('{place['host']}', {place.get('port', 5432)})")
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
    cluster.drop(TEMPLATE)


def _url(node: str, database: str) -> str:
    before, _, options = node.partition("?")
    return f"{before.rpartition('/')[0]}/{database}?{options}"


def _run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
