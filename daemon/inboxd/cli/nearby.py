"""What somebody may have meant who typed a name that is none."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

LISTED: Final = 20
"""Names that are listed where none is near; of more nobody reads the end."""


def near(name: str, names: Collection[str], otherwise: str) -> str:
    """Return the rest of a sentence about a name that is none: what may have been meant, else what there is."""
    close = difflib.get_close_matches(name, sorted(names), n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    listed = sorted(names)
    return f"{otherwise}: {', '.join(listed[:LISTED])}{' …' if len(listed) > LISTED else ''}"
