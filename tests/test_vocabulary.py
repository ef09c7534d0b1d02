"""One vocabulary in all that is printed: the field's own words, each for one thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from test_docs import leaves

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "daemon" / "inboxd"
OURS: Final = {
    r"world's fault|fault of the world": "transient",
    r"(?<![dD]ead )(?<!dead-)\bletters?\b(?! case|, digits)": "dead letter",
    r"\b(?:is|are|as) no moments?\b": "not a time",
    r"\bno TOML\b": "invalid TOML",
    r"% well\b|\bruns? well\b": "succeeded",
    r"\bforeign (?:file|program|writer)": "external",
    r"\bdear(?:er)?\b": "expensive",
    r"\bis no (?:text|integer|number|timestamp|date|object|JSON|regular file|directory)\b": "is not a",
}
"""Words that we had, and what is said instead (see the table of words in ARCHITECTURE.md)."""
SQL: Final = re.compile(r"\b(?:SELECT|INSERT|UPDATE|DELETE|CREATE|WHERE|FROM|PRAGMA|ALTER|DROP|JOIN|VALUES)\b")


def printed(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module that may reach a person: those of several words that are no docstring and no SQL."""
    tree = ast.parse(path.read_bytes())
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in silent:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if " " in text.strip() and not SQL.search(text):
            yield node.lineno, text


def wrong(text: str) -> list[str]:
    """Return what is to be said instead of the words of a text that are ours."""
    return [better for word, better in OURS.items() if re.search(word, text)]


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_printed_has_the_usual_words(module: Path) -> None:
    """Messages, hints, events and settings are said in words that a reader meets elsewhere, too."""
    found = [f"{line}: say {better!r}: {text}" for line, text in printed(module) for better in wrong(text)]
    assert found == []


@pytest.mark.parametrize(("name", "command"), list(leaves()), ids=lambda one: one if isinstance(one, str) else "")
def test_the_help_has_the_usual_words(name: str, command: click.Command) -> None:
    """So has every command's help."""
    assert wrong(command.get_help(click.Context(command, info_name=name))) == []


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_the_documents_have_the_usual_words(document: Path) -> None:
    """And so has what is read before anything is tried."""
    lines = enumerate(document.read_text(encoding="utf-8").splitlines(), 1)
    assert [f"{number}: say {better!r}: {line}" for number, line in lines for better in wrong(line)] == []
