"""A bounded ``make soak``: what users run for an hour runs here for a moment, and its judge is judged."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest

from daemons import Home
from soak import MEASURES, Sample, Soak, config, grown

CALM = [Sample(number / 10, 100.0, 40, 9, 16.0, 2, number * 10, 3) for number in range(30)]


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_busy_life_loses_nothing_and_holds_nothing(tmp_path: Path) -> None:
    """Files, faults, reloads, rotations, readers, visitors and floods at once: each file has its one verdict."""
    with Home(tmp_path, config(0)) as home:
        soak = Soak(home, 0.5, Random(1))
        soak.run()
        assert soak.faults == []
        assert soak.dropped > 20


def holding(sample: Sample, name: str, value: float) -> Sample:
    """Return a sample with another value of one measure."""
    return Sample(**{**asdict(sample), name: value})


@pytest.mark.parametrize("name", MEASURES)
def test_what_keeps_growing_is_named(name: str) -> None:
    """The judge is no yes-man: each measure that climbs, or is beyond its bound, is told; caches may fill."""
    assert grown(CALM) == []
    measure, level = MEASURES[name], getattr(CALM[0], name)
    climbing = [holding(sample, name, level + number * measure.slack / 8) for number, sample in enumerate(CALM)]
    assert any(found.startswith(f"{name} grows") for found in grown(climbing))
    once = [*CALM[:-1], holding(CALM[-1], name, measure.most + 1)]
    assert grown(once) == [f"{name} was {measure.most + 1:g}; its bound is {measure.most:g}"]
    filled = [holding(sample, name, level + measure.slack * (number > 8)) for number, sample in enumerate(CALM)]
    assert grown(filled) == []


def test_too_short_a_soak_proves_nothing() -> None:
    """Two samples are no trend."""
    assert grown(CALM[:2]) != []
