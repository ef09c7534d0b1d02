"""Templates and what they may call. Everything is escaped, whatever bytes a file's name or a record is made of."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from inboxd import __version__, words
from inboxd.outcomes import RunStatus
from inboxd.store.base import RunRow
from inboxd.web import charts
from inboxd.web.views import Overview, Window, bucket_label, since

_COMMAND: Final = re.compile(r"`([^`]+)`")
TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Label:
    """A run's outcome: its class in the style sheet, its sign (so that colour alone says nothing), and its words."""

    kind: str
    sign: str
    words: str


def outcome(run: RunRow) -> Label:
    """Return how a run ended, in a word: the first of these that holds."""
    labels = (
        (run.status is RunStatus.RUNNING, Label("running", "…", "running")),
        (run.status is RunStatus.FAILURE, Label("bad", "✕", "failed")),
        (run.duplicate_of is not None, Label("same", "=", "duplicate")),
        (run.undo_of is not None, Label("same", "↶", "undo")),
        (run.superseded_by is not None, Label("same", "↷", "superseded")),
        (run.all_rejected, Label("warn", "!", "all rejected")),
    )
    return next((label for holds, label in labels if holds), Label("good", "✓", "loaded"))


def with_commands(text: str) -> Markup:
    """Return a hint in which what stands in backticks, a command or a setting, is marked as code."""
    return Markup(_COMMAND.sub(r'<code class="typed">\1</code>', str(escape(text))))  # noqa: S704 - escaped before


def record_url(feed: str, key: str, before: tuple[int, int] | None = None) -> str:
    """Return the address of a record's page; of its part before a run and a number in it."""
    run, number = before or (None, None)
    return address(f"/records/{quote(feed, safe='')}", key=key, before=run, number=number)


def address(path: str, **values: object) -> str:
    """Return a path with the values that are not ``None`` as its query."""
    query = urlencode({name: value for name, value in values.items() if value is not None})
    return f"{path}?{query}" if query else path


def overview_charts(page: Overview) -> list[tuple[str, Markup]]:
    """Return the overview's charts, each with its heading."""
    buckets, total = page.trend.buckets, page.trend.total
    if not buckets:
        return []
    labels = [bucket_label(bucket, page.window) for bucket in buckets]
    axis = charts.Axis(labels, labels[0], "now")
    during = page.window.words
    files = charts.bars(
        "files",
        "Runs over time",
        f"{words.counted(total.ended, 'run')} in {during}, {total.failures} of them failed.",
        axis,
        [
            charts.Part("good", "succeeded", [one.files - one.failures - one.all_rejected for one in buckets]),
            charts.Part("warn", "all rejected", [bucket.all_rejected for bucket in buckets]),
            charts.Part("bad", "failed", [bucket.failures for bucket in buckets]),
        ],
    )
    records = charts.bars(
        "records",
        "Records over time",
        f"{words.counted(total.rows_out, 'record')} loaded in {during}, {total.rejected} rejected.",
        axis,
        [
            charts.Part("good", "loaded", [bucket.rows_out for bucket in buckets]),
            charts.Part("warn", "rejected", [bucket.rows_rejected for bucket in buckets]),
        ],
    )
    durations = charts.lines(
        "durations",
        "Duration over time",
        f"Half of the runs of {during} took at most {page.trend.p50_ms} ms, 95 % at most {page.trend.p95_ms} ms.",
        axis,
        [
            charts.Part("half", "p50", [bucket.p50_ms for bucket in buckets]),
            charts.Part("most", "p95", [bucket.p95_ms for bucket in buckets]),
        ],
    )
    return [("Runs", files), ("Records", records), ("Duration, ms", durations)]


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page's own, with a tag that changes when it does."""

    content: bytes
    type: str
    tag: str


@cache
def assets() -> dict[str, Asset]:
    """Return the style sheet, the script and the icon by name."""
    found = {}
    for file in resources.files("inboxd.web").joinpath("static").iterdir():
        content = file.read_bytes()
        kind = TYPES[file.name.rpartition(".")[2]]
        found[file.name] = Asset(content, f"{kind}; charset=utf-8", hashlib.sha256(content).hexdigest()[:16])
    return found


class Renderer:
    """Turns a page's values into HTML. ``roots`` gives the folders that no message may show."""

    def __init__(self, roots: Callable[[], Sequence[str]]) -> None:
        self._environment = Environment(
            loader=PackageLoader("inboxd.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters.update(
            number=words.number,
            span=words.span,
            lag=words.lag,
            rough=words.rough,
            brief=words.brief,
            ms=words.milliseconds,
            size=words.size,
            percent=words.percent,
            clock=words.clock,
            safe_text=lambda text: words.without_places(text, roots()),
            hint=lambda text: with_commands(words.without_places(text, roots())),
        )
        self._environment.globals.update(
            version=__version__,
            Window=Window,
            outcome=outcome,
            record_url=record_url,
            address=address,
            overview_charts=overview_charts,
            bucket_label=bucket_label,
            since=since,
            assets={name: asset.tag for name, asset in assets().items()},
        )

    def templates(self) -> list[str]:
        """Return the names of all templates."""
        return self._environment.list_templates()

    def load(self, template: str) -> None:
        """Compile a template, which is then kept."""
        self._environment.get_template(template)

    def page(self, template: str, **values: object) -> str:
        """Return one page."""
        return self._environment.get_template(template).render(values)
