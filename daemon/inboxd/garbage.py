"""The garbage collector, told what a program that loads files is like."""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 10_000
"""Containers made between two collections of the youngest (Python's own setting is 700). What a window of records
makes is freed by counting; looking for cycles among it took a quarter of the time of a file with many bad records."""


def collect_now() -> None:
    """Collect what a config that was loaded anew has left: seldom as it is else, it would lie there for hours."""
    gc.collect()


def collect_seldom() -> None:
    """Look at new objects less often, and at what the start has made never again: it stays."""
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
