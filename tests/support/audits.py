"""``inboxd audit`` as a judge: run in this process, as it is asked of many states."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from inboxd.cli import run_cli


def command(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run one command of a folder with an ``inboxd.toml``; return its exit code, its output and its errors.

    The lines of a daemon's log go to the descriptor itself, and here to nobody.
    """
    out, err = StringIO(), StringIO()
    with (
        chdir(folder),
        _unheard(),
        redirect_stdout(out),
        redirect_stderr(err),
        patch.dict(os.environ, env or {}),
    ):
        code = run_cli(["--config", str(folder / "inboxd.toml"), *arguments])
    return code, out.getvalue(), err.getvalue()


@contextmanager
def _unheard() -> Iterator[None]:
    """Lead the descriptor of standard output to nowhere."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def audited(folder: Path, env: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return what an audit finds; that it could not be done is a difference, too."""
    code, printed, said = command(folder, "audit", "--json", env=env)
    if code not in {0, 1}:
        about = {"kind": "no_audit", "detail": f"exit code {code}: {said.strip()[-500:]}"}
        return [{"table": "", "key": None, "run_id": None, "file": None, **about}]
    tables: list[dict[str, Any]] = json.loads(printed)["tables"]
    return [{"table": table["table"], **one} for table in tables for one in table["differences"]]
