"""Every text of the sources that may reach a person, as its author wrote it: what tests of words look at."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parents[1] / "daemon" / "inboxd"
SQL: Final = re.compile(
    r"\b(?:SELECT|INSERT|UPDATE|DELETE|CREATE|WHERE|FROM|PRAGMA|ALTER|DROP|JOIN|VALUES|BEGIN|COPY|SET|BY|IS|AND|OR|NOT"
    r"|WHEN|LIMIT|DESC|TEXT|INTEGER|bigint)\b|::\w|CONFLICT|IMMUTABLE|\(\?[:=!P]"
)
PROSE: Final = re.compile(r"[a-z}]{2}[,:;]? [{a-z]{2}|[A-Z][a-z]+ [a-z]")
"""What two words that follow one another look like in a sentence, and hardly in a pattern or a format."""
_CODE: Final = re.compile(r"[a-z][a-z0-9.{}-]*(?:_[a-z0-9.{}]+)*")
_ADORNED: Final = ("command", "group")


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
