from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from daemons import Home

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
REAL = ["clean.json", "cloudtrail.json", "earthquakes.json", "github-events.json", "part-00000-c000.json"]


@pytest.mark.parametrize("name", REAL)
def test_from_a_sample_to_rows_in_three_commands(tmp_path: Path, name: str) -> None:
    """``init`` prints a config with which ``check`` finds nothing wrong and ``load`` loads every record."""
    home = Home(tmp_path)
    shutil.copy(SAMPLES / name, tmp_path / name)
    proposed = home.call("init", name)
    assert proposed.returncode == 0, proposed.stderr
    (tmp_path / "inboxd.toml").write_text(proposed.stdout, encoding="utf-8")
    checked = home.call("check", name, "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    forecast = json.loads(checked.stdout)["files"][0]
    loaded = home.json("load", name)
    assert loaded["rejected"] == 0
    assert loaded["loaded"] == loaded["target_rows"] == forecast["inserted"] > 0


def test_numbers_of_64_bits_stay_digit_for_digit(tmp_path: Path) -> None:
    """An id beyond the 53 bits of a double is inferred as an integer and comes out as it went in."""
    home = Home(tmp_path)
    records = [{"id": 2**63 - 1 - number, "updated_at": f"2026-01-0{number + 1}T00:00:00Z"} for number in range(3)]
    (tmp_path / "ids.json").write_text(json.dumps(records), encoding="utf-8")
    (tmp_path / "inboxd.toml").write_text(home.call("init", "ids.json").stdout, encoding="utf-8")
    assert home.json("load", "ids.json")["loaded"] == 3
    assert home.query("SELECT id FROM ids ORDER BY id DESC") == [(2**63 - 1 - number,) for number in range(3)]


def test_samples_without_a_key_say_what_to_do(tmp_path: Path) -> None:
    """Where nothing is fit to be the key or the cursor, the rest is printed and the remedy is named."""
    home = Home(tmp_path)
    (tmp_path / "x.json").write_text('[{"a": 1.5}, {"a": 2.5}]', encoding="utf-8")
    done = home.call("init", "x.json")
    assert done.returncode == 78
    assert "[feeds.x.fields]" in done.stdout
    assert "key and cursor" in done.stderr


def test_a_broken_sample_says_where(tmp_path: Path) -> None:
    """A malformed sample is one clear line, with its place, and exit code 1."""
    home = Home(tmp_path)
    (tmp_path / "x.json").write_text('[{"a": }]', encoding="utf-8")
    done = home.call("init", "x.json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
