"""``inboxd audit`` as a judge: run in this process, as it is asked of many states."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from inboxd.cli import run_cli


def command(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run one command of a folder with an ``inboxd.toml``; return its exit code, its output and its errors."""
    out, err, before = StringIO(), StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(out), redirect_stderr(err), patch.dict(os.environ, env or {}):
            code = run_cli(["--config", str(folder / "inboxd.toml"), *arguments])
    finally:
        os.chdir(before)
    return code, out.getvalue(), err.getvalue()


def audited(folder: Path, env: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return what an audit finds; that it could not be done is a difference, too."""
    code, printed, said = command(folder, "audit", "--json", env=env)
    if code not in {0, 1}:
        about = {"kind": "no_audit", "detail": f"exit code {code}: {said.strip()[-500:]}"}
        return [{"table": "", "key": None, "run_id": None, "file": None, **about}]
    tables: list[dict[str, Any]] = json.loads(printed)["tables"]
    return [{"table": table["table"], **one} for table in tables for one in table["differences"]]
