"""Every text of the sources that may reach a person, as its author wrote it: what tests of words look at."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from jinja2 import Environment

from places import PACKAGE

SQL: Final = re.compile(
    r"\b(?:SELECT|INSERT|UPDATE|DELETE|CREATE|WHERE|FROM|PRAGMA|ALTER|DROP|JOIN|VALUES|BEGIN|COPY|SET|BY|IS|AND|OR|NOT"
    r"|WHEN|LIMIT|DESC|TEXT|INTEGER|bigint)\b|::\w|CONFLICT|IMMUTABLE|\(\?[:=!P]"
)
PROSE: Final = re.compile(r"[a-z}]{2}[,:;]? [{a-z]{2}|[A-Z][a-z]+ [a-z]")
"""What two words that follow one another look like in a sentence, and hardly in a pattern or a format."""
_CODE: Final = re.compile(r"[a-z][a-z0-9.{}-]*(?:_[a-z0-9.{}]+)*")
_ADORNED: Final = ("command", "group")
PAGE: Final = PACKAGE / "web"
_BRACKETS: Final = {"if": "[", "elif": " | ", "else": " | ", "endif": "]", "for": "(", "endfor": ")…"}
"""How the branches of a template stand in its sentences: ``[once] | [else]``, ``(each)…``."""
_LINE: Final = re.compile(
    r"</?(?:p|li|ul|dl|dt|dd|td|th|tr|table|thead|tbody|h[1-3]|div|section|nav|caption|summary|figcaption|label|button"
    r"|title|head|header|footer|main|form|option|select|pre|details|figure|!doctype)\b[^<>]*>|<span class=\"why\">|\n"
)
_SPOKEN: Final = re.compile(r'(?:aria-label|title|data-label)="([^"]*)"')
_JS_TEXT: Final = re.compile(r"""["`]([^"`\n]*(?:[A-Z][a-z]+ [a-z]|Cop|here)[^"`\n]*)["`]""")


def printed(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, code and text of what a module may print: texts of several words, neither comments nor SQL.

    The code is the word that stands first where the text stands: an error's, an event's, a setting's; or ``""``.
    The docstring of a command is its help, so it is printed.
    """
    tree = ast.parse(path.read_bytes())
    for line, code, text in _texts(tree, ""):
        if PROSE.search(text) and not SQL.search(text):
            yield line, code, text


def _texts(node: ast.AST, code: str) -> Iterator[tuple[int, str, str]]:
    text = _text(node)
    if text is not None:
        yield getattr(node, "lineno", 0), code, text
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.FunctionDef) and any(_adorns(one) for one in node.decorator_list):
        yield node.lineno, node.name, ast.get_docstring(node) or ""
    if isinstance(node, ast.Call | ast.Tuple):
        code = _code(node)
    for child in ast.iter_child_nodes(node):
        yield from _texts(child, code)


def _adorns(node: ast.expr) -> bool:
    called = node.func if isinstance(node, ast.Call) else node
    return isinstance(called, ast.Attribute) and called.attr in _ADORNED


def _code(node: ast.Call | ast.Tuple) -> str:
    parts = node.args if isinstance(node, ast.Call) else node.elts
    first = _text(parts[0]) if parts else None
    return first if first and _CODE.fullmatch(first) else ""


def _text(node: ast.AST) -> str | None:
    """Return a text as it is written, with what is filled in between braces; ``None`` for what is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "" for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"{{{_name(node.value)}}}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        return None if left is None or right is None else left + right
    return None


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call) and node.args:
        return _name(node.args[0])
    return "…"


def said_by_page(path: Path) -> Iterator[str]:
    """Yield what a template or script of the page says: sentences, their branches in brackets, names in braces."""
    source = path.read_text("utf-8")
    if path.suffix == ".js":
        yield from _JS_TEXT.findall(source)
        return
    written, spoken = _flattened(source)
    lines = (re.sub(r"<[^<>]*>", "", line) for line in _LINE.split(written))
    for line in (*spoken, *_SPOKEN.findall(written), *lines):
        plain = " ".join(line.split())
        if re.search(r"[A-Za-z]{3}", re.sub(r"\{\w*\}", "", plain)):
            yield plain


def _flattened(source: str) -> tuple[str, list[str]]:
    """Return a template as one text, what is filled in between braces, and the texts within its expressions."""
    written: list[str] = []
    spoken: list[str] = []
    names: list[str] = []
    filtered = False
    for _, kind, value in Environment(autoescape=True).lex(source):
        if kind == "data":
            written.append(value)
        elif kind in {"variable_begin", "block_begin"}:
            names, filtered = [], False
        elif kind == "variable_end":
            first = names[: names.index("if")] if "if" in names else names
            written.append(f"{{{first[-1] if first else '…'}}}")
        elif kind == "block_end":
            written.append(_BRACKETS.get(names[0], ""))
        elif kind == "operator":
            filtered = filtered or value in {"|", "("}
        elif kind == "name" and not filtered:
            names.append(value)
        elif kind == "string" and re.search(r"^.[A-Z]| ", value):
            spoken.append(value[1:-1])
    return "".join(written), spoken
