"""The proof of a proposal: the config read as any other, and the files with it, by the reader that will load them."""

from __future__ import annotations

import io
import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Final

from inboxd.config.faults import Faults
from inboxd.config.feeds import build_feeds
from inboxd.config.schema import FeedTable
from inboxd.errors import FileFault
from inboxd.infer.propose import WrongWish
from inboxd.infer.sample import Opener
from inboxd.model import Feed, Mode, Path, Scalar
from inboxd.outcomes import Reject
from inboxd.records.decode import Reading

READ: Final = 64 << 20
"""Unpacked bytes of all files together that are read for the proof."""
MOST_KEYS: Final = 2_000_000
"""Keys that are compared with each other."""
_ENOUGH_REFUSED: Final = 500
"""Refused records from which a round learns; the next one finds the others."""
_FAULT: Final = re.compile(r"(?:^|; )(\w+): (missing|invalid|future)_")


@dataclass(slots=True)
class Outcome:
    """What the reader made of the sample."""

    records: int = 0
    rows: int = 0
    rejected: int = 0
    filtered: int = 0
    repeated: int = 0
    """Records whose key an earlier one has."""
    cut: bool = False
    """Whether there is more in the files than was read."""
    empty: list[int] = field(default_factory=list)
    """Which files have nothing where the records should stand."""
    refused: list[Reject] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every record became a row of its own."""
        return not self.rejected and not self.repeated

    def columns_at_fault(self) -> tuple[set[str], set[str]]:
        """Return the names of columns in refused records that were missing or invalid, and those in the future."""
        found = [match.groups() for reject in self.refused for match in _FAULT.finditer(reject.detail)]
        return {name for name, code in found if code != "future"}, {name for name, code in found if code == "future"}


def feed_of(toml: str) -> Feed:
    """Return the feed of a config's text, as ``inboxd config check`` would read it; raises ``WrongWish``."""
    ((name, table),) = tomllib.loads(toml)["feeds"].items()
    faults = Faults()
    feeds = build_feeds({name: FeedTable.model_validate(table)}, faults)
    if wrong := faults.items():
        raise WrongWish("; ".join(f"{'.'.join(map(str, key[2:]))} {why}" for key, why in wrong))
    return feeds[0]


def prove(feed: Feed, openers: Sequence[Opener], distant: Sequence[str] = (), *, now: datetime) -> Outcome:
    """Read the files as the feed; count what becomes of their records, and of the ``distant`` ones, given as sources.

    Raises ``FileFault`` where a file is broken. One that has nothing where the records stand is told in the outcome.
    """
    outcome = Outcome()
    share = max(READ // max(1, len(openers)), 1 << 20)
    seen: set[int] = set()
    for number, opener in enumerate(openers):
        try:
            _prove_file(feed, opener, share, outcome, seen, now)
        except FileFault as fault:
            if fault.code not in ("no_records", "empty_file") or len(openers) == 1:
                raise
            outcome.empty.append(number)
        if len(outcome.refused) >= _ENOUGH_REFUSED:
            return outcome
    if distant:
        lines = "\n".join(distant).encode()
        apart = replace(feed, records=(), explode=(), shape=None)
        _prove_file(apart, lambda: nullcontext(io.BytesIO(lines)), len(lines), outcome, seen, now)
        outcome.cut = True
    return outcome


def _prove_file(feed: Feed, opener: Opener, share: int, outcome: Outcome, seen: set[int], now: datetime) -> None:
    unique = feed.mode is not Mode.APPEND
    places = [feed.row_columns.index(name) for name in feed.key] if unique else []
    read = 0
    with opener() as stream:
        for batch in Reading(stream, feed, now=now, max_size=1 << 62).batches():
            rows = len(batch.columns[0]) if batch.columns else 0
            outcome.records += rows + len(batch.rejects) + batch.filtered
            outcome.filtered += batch.filtered
            outcome.rejected += len(batch.rejects)
            outcome.refused.extend(islice(batch.rejects, _ENOUGH_REFUSED - len(outcome.refused)))
            repeated = _repeated([batch.columns[place] for place in places], seen) if unique and rows else 0
            outcome.repeated += repeated
            outcome.rows += rows - repeated
            read += batch.size
            if len(outcome.refused) >= _ENOUGH_REFUSED or read >= share:
                outcome.cut = True
                return


def _repeated(columns: Sequence[Sequence[Scalar]], seen: set[int]) -> int:
    """Count the keys that were seen before, and note the others by their hashes."""
    repeated = 0
    for key in zip(*columns, strict=True):
        mark = hash("\0".join(map(str, key)))
        if mark in seen:
            repeated += 1
        elif len(seen) < MOST_KEYS:
            seen.add(mark)
    return repeated


def paths_of(feed: Feed, names: set[str]) -> Iterator[Path]:
    """Yield the paths of a feed's fields of such names."""
    return (each.path for each in feed.fields if each.name in names)
