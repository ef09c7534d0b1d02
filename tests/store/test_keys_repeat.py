"""Records of one file that share a key are told where nothing says which of them is newer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inboxd.cli import run_cli
from inboxd.cli.ending import open_standard_streams
from stores import MakeUrl

pytestmark = pytest.mark.on_citus

CONFIG = """
[feeds.dated]
match = ["dated*"]
key = ["id"]
cursor = "ts"
late = "merge"
fields = { id = { type = "integer" }, ts = { type = "date" }, v = { type = "integer" } }
[feeds.plain]
match = ["plain*"]
key = ["id"]
fields = { id = { type = "integer" }, v = { type = "integer" } }
[feeds.facts]
match = ["facts*"]
mode = "append"
fields = { id = { type = "integer" }, v = { type = "integer" } }
"""


def record(key: int, day: int, value: int) -> dict[str, Any]:
    """Return a record."""
    return {"id": key, "ts": f"2026-01-{day:02}", "v": value}


@pytest.mark.parametrize(
    ("name", "records", "repeated"),
    [
        ("dated.json", [record(1, 1, 1), record(1, 2, 2), record(2, 1, 3)], 0),
        ("dated.json", [record(1, 1, 1), record(1, 1, 2), record(1, 1, 3), record(2, 1, 3)], 2),
        ("plain.json", [record(1, 1, 1), record(1, 2, 2), record(2, 1, 3)], 1),
        ("plain.json", [record(1, 1, 1), record(2, 1, 3)], 0),
        ("facts.json", [record(1, 1, 1), record(1, 1, 1)], 0),
    ],
)
def test_keys_that_repeat_are_told(
    make_url: MakeUrl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    records: list[dict[str, Any]],
    repeated: int,
) -> None:
    """``check`` and ``load`` say how many records have the key of an earlier one from which no cursor tells them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INBOXD_DATABASE__URL", make_url())
    (tmp_path / "inboxd.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / name).write_text(json.dumps(records), encoding="utf-8")
    open_standard_streams()
    run_cli(["check", name, "--json"])
    (checked,) = json.loads(capfd.readouterr().out)["files"]
    assert checked["keys_repeat"] == repeated
    run_cli(["check", name])
    assert ("keys_repeat" in capfd.readouterr().out) is bool(repeated)
    assert run_cli(["load", name]) == 0
    (loaded,) = json.loads(capfd.readouterr().out)["files"]
    assert loaded["keys_repeat"] == repeated
