"""One vocabulary in all that is printed: the field's own words, each for one thing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click
import pytest

from commands import leaves
from messages import PAGE, printed, said_by_page
from places import PACKAGE, ROOT, TESTS

OURS: Final = {
    r"world's fault|fault of the world": "transient",
    r"(?<![dD]ead )(?<!dead-)(?<!\x22)\bletters?\b(?! case|, digits)": "dead letter",
    r"\b(?:is|are|as) no moments?\b": "not a time",
    r"\bno TOML\b": "invalid TOML",
    r"% well\b|\bruns? well\b": "succeeded",
    r"\bforeign (?:file|program|writer)": "external",
    r"\bdear(?:er)?\b": "expensive",
    r"\bis no (?:text|integer|number|timestamp|date|object|JSON|regular file|directory)\b": "is not a",
}
"""Words that we had, and what is said instead (see the table of words in ARCHITECTURE.md)."""
PAGES: Final = [*sorted(PAGE.rglob("*.html")), *sorted(PAGE.rglob("*.js"))]
GOLDEN: Final = TESTS / "house" / "messages.txt"


def wrong(text: str) -> list[str]:
    """Return what is to be said instead of the words of a text that are ours."""
    return [better for word, better in OURS.items() if re.search(word, text)]


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_printed_has_the_usual_words(module: Path) -> None:
    """Messages, hints, events and settings are said in words that a reader meets elsewhere, too."""
    found = [f"{line}: say {better!r}: {text}" for line, _code, text in printed(module) for better in wrong(text)]
    assert found == []


@pytest.mark.parametrize("part", PAGES, ids=lambda path: path.name)
def test_the_page_has_the_usual_words(part: Path) -> None:
    """So does the page."""
    assert [f"say {better!r}: {text}" for text in said_by_page(part) for better in wrong(text)] == []


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


def test_a_change_of_words_is_seen(request: pytest.FixtureRequest) -> None:
    """Each message, hint, event, setting, help and sentence of the page stands in one file: to be read, and held."""
    found = {(code or "-", " ".join(text.split())) for path in PACKAGE.rglob("*.py") for _, code, text in printed(path)}
    found |= {(path.name, " ".join(text.split())) for path in PAGES for text in said_by_page(path)}
    text = "".join(f"{code}: {words}\n" for code, words in sorted(found))
    if request.config.getoption("--golden"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text.splitlines() == GOLDEN.read_text("utf-8").splitlines(), (
        f"if meant: pytest {Path(__file__).relative_to(ROOT)} --golden"
    )
