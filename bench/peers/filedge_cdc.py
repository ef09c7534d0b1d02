"""filedge as its guide for change logs has it (``write_mode: cdc``): each key's newest record, into SQLite.

It finds a key's row without an index, as it makes none; with "indexed" one is made by hand before it starts, which
its documents do not ask for.   filedge_cdc.py FOLDER DATABASE [indexed]
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from filedge.cli import cli as filedge
from filedge.config import load_config
from filedge.connectors import get_connector

PIPELINE = """
format: ndjson
dest_table: target
write_mode: cdc
cdc: {{keys: [key], operation_column: op, sequence_by: ts, operations: {{insert: [c], update: [u], delete: [d]}}}}
connector: {{type: sqlite, url: "sqlite:///{database}"}}
columns:
  - {{source: key, dest: key, type: string}}
  - {{source: name, dest: name, type: string}}
  - {{source: value, dest: value, type: float}}
  - {{source: ts, dest: ts, type: timestamp}}
"""


def main(source: str, database: str, indexed: str = "") -> None:
    """Load a folder of files into one database."""
    pipeline = Path(database).with_name("pipeline.yaml")
    pipeline.write_text(PIPELINE.format(database=database), encoding="utf-8")
    if indexed:
        config = load_config(str(pipeline))
        get_connector(config).ensure_table(config)
        connection = sqlite3.connect(database)
        connection.execute("CREATE INDEX target_key ON target (key)")
        connection.close()
    audit = f"sqlite:///{database}.audit"
    filedge(["run", "--dir", source, "--config", str(pipeline), "--audit-db-url", audit])


if __name__ == "__main__":
    main(*sys.argv[1:])
