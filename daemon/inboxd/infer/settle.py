"""A proposal and its proof, in turns, until the proof has nothing to say against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from inboxd.infer.distant import distant_records
from inboxd.infer.propose import Knowledge, NothingToTake, Proposal, Wishes
from inboxd.infer.prove import READ, Outcome, feed_of, paths_of, prove
from inboxd.infer.render import toml
from inboxd.infer.sample import Opener, read_heads
from inboxd.model import Feed

_TURNS: Final = 12
"""Each takes at least one type, key or cursor out of the question; a few are enough for files of people."""
_PROBE: Final = """[feeds.probe]
mode = "append"
[feeds.probe.fields]
value = { type = "json", from = "$record.value", required = false }
"""
"""A feed that takes anything: what it does not take is no JSON."""


@dataclass(frozen=True, slots=True)
class Inferred:
    """A config and what became of the sample with it."""

    toml: str
    proposal: Proposal
    outcome: Outcome


def infer(
    openers: Sequence[Opener], stems: Sequence[str], feed: str, match: Sequence[str], wishes: Wishes, *, now: datetime
) -> Inferred:
    """Propose a feed for files, and prove it on them.

    ``stems`` are the files' names without their suffixes. Raises ``FileFault`` where a file is broken,
    ``NothingToTake`` where there is no record in any of them, ``WrongWish`` where they are not as asked for.
    """
    knowledge = Knowledge(read_heads(list(openers)), stems, feed, wishes, now)
    try:
        knowledge.look()
    except NothingToTake:
        prove(feed_of(_PROBE), openers, now=now)
        raise
    distant = _distant(knowledge, openers)

    def attempt(proposal: Proposal) -> _Attempt:
        text = toml(proposal, match, proposal.records)
        proposed = feed_of(text)
        return _Attempt(proposal, text, proposed, prove(proposed, openers, distant, now=now))

    last = attempt(knowledge.propose())
    for _ in range(_TURNS):
        if last.outcome.complete:
            break
        _learn(knowledge, last)
        proposal = knowledge.propose()
        if toml(proposal, match, proposal.records) == last.text:  # a person's wish is what stands in the way
            break
        last = attempt(proposal)
    return Inferred(toml(last.proposal, match, last.outcome.rows), last.proposal, last.outcome)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A proposal, its config, and what became of the sample with it."""

    proposal: Proposal
    text: str
    feed: Feed
    outcome: Outcome


def _distant(knowledge: Knowledge, openers: Sequence[Opener]) -> list[str]:
    """Return records from further on in large files, and take them in."""
    if knowledge.tree.objects < knowledge.tree.records or knowledge.found.place.shape is not None:
        return []
    names = knowledge.tree.root.members.keys()
    found = [source for opener in openers for source in distant_records(opener, READ // len(openers), names)]
    knowledge.learn(found, set())
    return found


def _learn(knowledge: Knowledge, last: _Attempt) -> None:
    """Take in what the proof found: records that no type took, keys that repeat, cursors that are none."""
    key, outcome = last.proposal.key, last.outcome
    wrong, future = outcome.columns_at_fault()
    wished = key.names if key.wished else frozenset()
    if outcome.refused:
        at_fault = set(paths_of(last.feed, wrong - wished - {knowledge.wishes.cursor or ""}))
        knowledge.learn([reject.raw for reject in outcome.refused], at_fault)
    knowledge.keep_extra = knowledge.keep_extra and last.feed.own_columns.extra not in wrong
    if key.columns and (outcome.repeated or not wrong.isdisjoint(key.names)):
        knowledge.no_keys.add(key.names)
    if last.feed.cursor is not None and last.feed.cursor in future | wrong:
        knowledge.no_cursors.add(last.feed.cursor)
