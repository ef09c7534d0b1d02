"""The model of a file's life holds in every state, and it would notice if it did not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest

from inboxd.outcomes import Step
from spin_model import LIVENESS, MODEL, SAFETY, search

SAFE_MISTAKES = ("ARCHIVE_FIRST", "NO_CLAIM", "NO_LEDGER", "NO_LOCK", "NO_QUESTION", "BLIND_ADVANCE")
STUCK_MISTAKES = ("FORGET_FIRST", "FORGET_UNTOLD")


@pytest.fixture(autouse=True)
def checker(require_tool: Callable[[str, str], str]) -> None:
    """Spin writes a C program, which is compiled and run."""
    require_tool("spin", "spin")
    require_tool("gcc", "gcc")


def label(faults: Mapping[str, int]) -> str:
    """Return a case's name."""
    return "-".join(f"{number}-{name.lower()}" for name, number in faults.items())


def test_the_model_has_the_steps_of_a_files_way() -> None:
    """The steps of the pipeline are the labels of the model, in the same order: who adds one thinks of it here."""
    labels = re.findall(r"^([A-Z]+):", MODEL.read_text(encoding="utf-8"), re.MULTILINE)
    assert labels == [step.name for step in Step]


@pytest.mark.slow
@pytest.mark.parametrize("faults", SAFETY, ids=label)
def test_no_fault_at_any_moment_does_anything_twice_or_loses_anything(faults: Mapping[str, int]) -> None:
    """Whatever is killed, cut off or undone between any two steps: each content once, nothing unaccounted."""
    result = search(faults)
    assert not result.errors, result.violated
    assert result.states > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("faults", LIVENESS, ids=label)
def test_every_file_ends_whatever_happened(faults: Mapping[str, int]) -> None:
    """After any fault each file still ends in processed or failed, its verdict told and its claim forgotten."""
    result = search(faults, liveness=True)
    assert not result.errors, result.violated


@pytest.mark.slow
@pytest.mark.parametrize("mistake", SAFE_MISTAKES)
def test_a_planted_mistake_is_found(mistake: str) -> None:
    """A daemon that moved before its COMMIT, asked nobody, or locked nothing would break a promise in some state."""
    assert search({"KILLS": 1}, mistake=mistake).errors


@pytest.mark.slow
@pytest.mark.parametrize("mistake", STUCK_MISTAKES)
def test_a_planted_mistake_that_strands_a_file_is_found(mistake: str) -> None:
    """A claim that is forgotten before its file was moved, or before its verdict was told, would never end."""
    assert search({"KILLS": 1}, mistake=mistake, liveness=True).errors
