"""``inboxd init``: from sample files to a config."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click

from inboxd.cli.arguments import GivenFile, Text
from inboxd.config.names import RESERVED_COLUMNS
from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.records.infer import Guess, Opener, Proposal, infer


@click.command()
@click.argument("names", metavar="FILE…", nargs=-1, required=True, type=GivenFile())
@click.option("--feed", "feed_name", type=Text(), help="The feed's name; without it, one made from the first file's.")
def init(names: tuple[str, ...], feed_name: str | None) -> None:
    """Infer a feed from sample files, and print its config, ready to edit.

    \b
    Example:  inboxd init export.json > inboxd.toml
              inboxd check export.json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    files = tuple(Path(name) for name in names)
    proposal = infer([_opener(path) for path in files], reserved=RESERVED_COLUMNS)
    click.echo("\n".join(_lines(_feed_name(files[0], feed_name), proposal, files)))
    if not proposal.key or not proposal.cursor:
        missing = " and ".join(
            what for what, found in (("key", proposal.key), ("cursor", proposal.cursor)) if not found
        )
        msg = f"no field of the samples is fit to be the {missing}"
        hint = (
            "a key is unique and always there; a cursor is a timestamp, date or integer that grows: name them by hand"
        )
        raise OperatorFault("nothing_inferred", msg, hint, exit_code=EXIT_CONFIG)


def _opener(path: Path) -> Opener:
    return lambda: path.open("rb")


def _feed_name(path: Path, given: str | None) -> str:
    stem = path.name.split(".")[0]
    return given or re.sub(r"[^A-Za-z0-9_]+", "_", stem).strip("_").lower() or "records"


def _lines(feed: str, proposal: Proposal, files: tuple[Path, ...]) -> Iterator[str]:
    yield f"# Inferred by `inboxd init` from {proposal.sampled} records of {', '.join(path.name for path in files)}."
    yield "# Look at each line; then try it: inboxd check FILE"
    yield f"[feeds.{feed}]"
    yield 'match = ["**"]  # globs relative to the inbox; the first feed that matches wins'
    if proposal.records:
        yield f"records = {_path(proposal.records)}  # the array inside the document"
    yield f"key = {json.dumps(list(proposal.key))}  # unique: one row per key"
    yield f"cursor = {json.dumps(proposal.cursor)}  # what makes a record newer"
    yield 'late = "merge"  # skip: leave out what is at or below the watermark; merge: newer rows win'
    yield ""
    yield f"[feeds.{feed}.fields]"
    width = max(len(guess.name) for guess in proposal.fields)
    for guess in proposal.fields:
        yield f"{guess.name:<{width}} = {_attributes(guess)}"


def _attributes(guess: Guess) -> str:
    parts = [f'type = "{guess.type.value}"']
    if guess.path != (guess.name,):
        parts.append(f"from = {_path(guess.path)}")
    if guess.unit:
        parts.append(f'unit = "{guess.unit}"')
    if not guess.required:
        parts.append("required = false")
    return "{ " + ", ".join(parts) + " }"


def _path(path: tuple[str, ...]) -> str:
    if any("." in part or not part for part in path):
        return json.dumps(list(path), ensure_ascii=False)
    return json.dumps(".".join(path), ensure_ascii=False)
