"""What records have and a feed has not: the fields that it does not name, with how many records have each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from inboxd.infer.sample import Opener, Value, value_of
from inboxd.model import Extra, Feed, Field, FieldType, Mode, Origin, Path, names_of, origin_of
from inboxd.records.decode import Reading

MOST_RECORDS: Final = 100_000
"""Records that are looked at; they are taken apart one by one."""
MOST_NAMES: Final = 1_000
"""Different fields that are counted."""


@dataclass(slots=True)
class Unnamed:
    """The fields of a file's records that the feed does not read. ``cut`` tells that not all records were looked at."""

    counts: Counter[str] = field(default_factory=Counter)
    records: int = 0
    cut: bool = False


def unnamed_fields(opener: Opener, feed: Feed, *, now: datetime) -> Unnamed:
    """Count the fields that the feed's records have beside those that it reads. Raises ``FileFault``."""
    found = Unnamed()
    tree = _read_paths(feed)
    if feed.extra is Extra.KEEP or tree is _EVERYTHING:
        return found
    whole = replace(
        feed,
        fields=(Field("value", FieldType.JSON, (Origin.RECORD, "value"), "value", required=False),),
        key=(),
        cursor=None,
        mode=Mode.APPEND,
        deletes=None,
        extra=Extra.IGNORE,
        as_of=None,
        absent=None,
        scope=(),
    )
    with opener() as stream:
        for batch in Reading(stream, whole, now=now, max_size=1 << 62).batches():
            for source in batch.columns[0] if batch.columns else ():
                if isinstance(source, str):
                    _count(value_of(source), tree, (), found)
                found.records += 1
            if found.records >= MOST_RECORDS:
                found.cut = True
                break
    return found


_Branch = dict[str, "_Branch"]
_EVERYTHING: Final[_Branch] = {}
"""Below it everything is read."""


def _read_paths(feed: Feed) -> _Branch:
    """Return the paths that the feed reads in its records, as branches; one that ends is ``_EVERYTHING``."""
    conditions = (*feed.where, *(feed.deletes.conditions if feed.deletes else ()))
    paths: list[Path] = [path for each in feed.fields for path in each.paths]
    paths += [condition.path for condition in conditions]
    root: _Branch = {}
    for path in paths:
        if origin_of(path) is None:
            _grow(root, names_of(path))
        elif path == (Origin.RECORD, "value"):
            return _EVERYTHING
    return root


def _grow(branch: _Branch, names: tuple[str, ...]) -> None:
    for name in names[:-1]:
        inner = branch.setdefault(name, {})
        if inner is _EVERYTHING:
            return
        branch = inner
    branch[names[-1]] = _EVERYTHING


def _count(value: Value, branch: _Branch, path: tuple[str, ...], found: Unnamed) -> None:
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list) and path == ():
        members = {str(place): element for place, element in enumerate(value)}.items()
    else:
        return
    for name, inner in members:
        below = branch.get(name)
        if below is None:
            spelled = ".".join((*path, name))
            if spelled in found.counts or len(found.counts) < MOST_NAMES:
                found.counts[spelled] += 1
        elif below is not _EVERYTHING:
            _count(inner, below, (*path, name), found)
