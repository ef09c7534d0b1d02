"""Where things stand in the checkout, for tests that read them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = ROOT / "daemon"
"""The source root, for ``PYTHONPATH``."""
PACKAGE: Final = SOURCE / "inboxd"
TESTS: Final = ROOT / "tests"
SUPPORT: Final = TESTS / "support"
SAMPLES: Final = ROOT / "data" / "samples"
