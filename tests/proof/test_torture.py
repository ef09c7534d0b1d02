"""A bounded ``make torture``: what users run for long runs here for a minute, with a fixed seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from daemons import Home, files_in
from torture import Torturer, broken, table
from torture_truth import CONFIG, damage, scenario

SEED = 20_260_115
ROUNDS = 28
"""Two of each kind."""


@pytest.mark.slow
@pytest.mark.crash
@pytest.mark.timeout(400)
def test_no_fault_at_any_system_call_loses_or_doubles_anything(
    tmp_path: Path, require_tool: Callable[[str, str], str]
) -> None:
    """Killed, or refused by the disk, at system calls of every kind: tables, folders and log end as they must."""
    require_tool("strace", "strace")
    kinds = Torturer(tmp_path.resolve(), SEED).run(ROUNDS)
    assert not broken(kinds), "\n".join([table(kinds, SEED), *broken(kinds)])
    assert sum(kind.struck for kind in kinds.values()) > ROUNDS * 2 / 3, table(kinds, SEED)


def test_the_proof_notices_what_is_lost_and_what_is_done_twice(tmp_path: Path) -> None:
    """The truth that torture is compared with is no yes-man: each row, file and line it misses, it names."""
    chance = random.Random(SEED)
    with Home(tmp_path, CONFIG) as home:
        files = scenario(chance)
        for name, content in files.items():
            home.drop(name, content)
        home.run_once()
        assert not damage(home, files)
        archived = files_in(home.processed)[0]
        archived.rename(archived.with_name("elsewhere.json"))
        log = home.path / "data" / "inboxd.log"
        log.write_bytes(2 * log.read_bytes())
        found = damage(home, files)
        assert [text.partition(":")[0] for text in found.lost] == ["processed"]
        assert {text.partition(":")[0] for text in found.twice} == {"processed", "verdicts"}
