"""The routes: which address shows what. Only reading; the guard has let through what is meant for us."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from inboxd.clock import SystemClock, moment
from inboxd.events import Event
from inboxd.log import Logger, emit
from inboxd.metrics import CONTENT_TYPE, Metrics, Standing
from inboxd.model import Feed
from inboxd.operate.browse import last_successes
from inboxd.operate.dead_letters import count_open
from inboxd.operate.explain import HistoryPage
from inboxd.operate.health import health
from inboxd.outcomes import RunStatus
from inboxd.presence import LONGEST_WAIT_S, Published
from inboxd.store.cursors import mark_time, newest_marks
from inboxd.store.database import Store
from inboxd.web.live import Answers, Live
from inboxd.web.reader import Reader, Unanswered
from inboxd.web.render import Renderer, assets, record_url
from inboxd.web.views import Window, dead_letters_page, overview, record_page, run_page, runs_page
from inboxd.web.warm import first_overview, warm_up

ALIVE_S: Final = 3 * LONGEST_WAIT_S
"""The loop comes round every 20 s at the latest, and proves its life several times a second while it works."""
LARGEST_ID: Final = 2**63 - 1
LONGEST_KEY: Final = 1_024
MOST_RUNS: Final = 1_000
MOST_BUGS_SAID: Final = 20
"""So many unexpected errors are logged with their traceback: a client must not be able to fill the log."""


class Page:
    """The application. Made by the main thread; its answers are made on the page's thread.

    Of the daemon it knows what that has published, and what is in the database.
    """

    def __init__(self, published: Published, reader: Reader, prober: Reader, metrics: Metrics, log: Logger) -> None:
        self._published = published
        self._reader = reader
        self._metrics = metrics
        self._log = log
        self._clock = SystemClock()
        self._started = self._clock.monotonic()
        self._answers = Answers(reader)
        self._probes = Answers(prober)  # a page that asks much of the database does not hold them up
        self._live = Live(self._answers, published, self._feeds)
        self._ending = False
        self._bugs = 0
        self._renderer = Renderer(self._roots)
        self.app = Starlette(
            routes=[
                Route("/", self._overview),
                Route("/runs", self._runs),
                Route("/runs/{run:int}", self._run),
                Route("/records", self._record),
                Route("/records/{feed}", self._record),
                Route("/dead-letters", self._dead_letters),
                Route("/health", self._health),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._scrape),
                Route("/events", self._events),
                Route("/static/{name}", self._asset),
            ],
            exception_handlers={
                HTTPException: self._refused,
                Unanswered: self._unanswered,
                Exception: self._bug,
            },
        )

    def end(self) -> None:
        """End the streams; on the page's thread."""
        self._ending = True
        self._live.tell()

    async def warm_up(self) -> None:
        """Do what the first look would have to wait for, once the daemon is ready."""
        question = first_overview(self._feeds, self._clock.now)
        found = await warm_up(self._is_ready, self._reader, self._renderer, question, self._feeds)
        if found is not None:
            self._html("overview.html", page=found)

    def _is_ready(self) -> bool:
        return self._published.state is not None

    def _feeds(self) -> tuple[Feed, ...]:
        return self._published.settings.feeds

    def _roots(self) -> list[str]:
        """Return the folders that stand in messages and are nobody's business, as the config has them now."""
        settings = self._published.settings
        folders = [settings.inbox.path, settings.archive.processed, settings.archive.failed]
        if not settings.database.is_postgres:
            folders.append(settings.database.sqlite_path.parent)
        return [str(folder) for folder in {*folders, *(folder.parent for folder in folders)} if str(folder) != "/"]

    # Pages

    async def _overview(self, request: Request) -> Response:
        window = _window(request)
        feeds = self._feeds()
        now = self._clock.now
        found = await self._answers.get(("overview", window), lambda store: overview(store, feeds, window, now()))
        return self._html("overview.html", page=found)

    async def _runs(self, request: Request) -> Response:
        job, status = request.query_params.get("job") or None, _status(request)
        before = _whole(request, "before", 0) or None
        found = await self._answers.get(
            ("runs", job, status, before), lambda store: runs_page(store, job=job, status=status, before=before)
        )
        return self._html("runs.html", page=found, job=job, only=status, before=before)

    async def _run(self, request: Request) -> Response:
        run_id: int = request.path_params["run"]
        key, number = request.query_params.get("after"), _whole(request, "number", 0)
        after = None if key is None else (key, number)
        question: Callable[[Store], object] = lambda store: run_page(store, run_id, after)  # noqa: E731 - typed
        found = await self._answers.get(("run", run_id, after), question) if run_id <= LARGEST_ID else None
        if found is None:
            raise HTTPException(404, f"There is no run {run_id}.")
        return self._html("run.html", page=found, first=after is None)

    async def _record(self, request: Request) -> Response:
        feeds = self._feeds()
        names = [feed.name for feed in feeds]
        feed = request.path_params.get("feed") or request.query_params.get("feed") or None
        key = request.query_params.get("key", "")
        if feed is not None and feed not in names:
            raise HTTPException(404, "There is no such feed.")
        if request.url.path == "/records" and feed is not None and key:
            return RedirectResponse(record_url(feed, key), 303)
        if "\0" in key or len(key.encode("utf-8", "replace")) > LONGEST_KEY:
            raise HTTPException(400, f"A key has at most {LONGEST_KEY} bytes, and none of them is zero.")
        before = (_whole(request, "before", 0), _whole(request, "number", 0))
        place = before if before[0] else None
        pages: Sequence[HistoryPage] = ()
        if key:
            pages = await self._answers.get(
                ("record", feed, key, place), lambda store: record_page(store, feeds, key, feed, place)
            )
        status = 200 if pages or not key else 404
        return self._html("record.html", status, pages=pages, key=key, feed=feed, feeds=names, newest=place is None)

    async def _dead_letters(self, request: Request) -> Response:
        feed, code = request.query_params.get("feed") or None, request.query_params.get("code") or None
        before = _whole(request, "before", 0) or None
        found = await self._answers.get(
            ("dead_letters", feed, code, before),
            lambda store: dead_letters_page(store, feed=feed, code=code, before=before),
        )
        return self._html("dead_letters.html", page=found, feed=feed, code=code, before=before)

    def _html(self, template: str, status: int = 200, **values: object) -> Response:
        published = self._published
        text = self._renderer.page(
            template,
            now=self._clock.now(),
            state=published.state,
            inbox_lost=published.inbox_lost,
            work=published.work,
            live=self._answers.version,
            **values,
        )
        return Response(text.encode("utf-8", "replace"), status, media_type="text/html")

    # For machines

    async def _health(self, request: Request) -> Response:
        hours = _hours(request)
        job = request.query_params.get("job")
        limit = _whole(request, "limit", 10, most=MOST_RUNS)
        now = self._clock.now
        found = await self._answers.get(
            ("health", hours, job, limit), lambda store: health(store, now=now(), hours=hours, job=job, limit=limit)
        )
        return _json(found)

    async def _healthz(self, _request: Request) -> Response:
        age = self._clock.monotonic() - max(self._published.beat, self._started)
        alive = age <= ALIVE_S
        return _json({"status": "ok" if alive else "stuck", "last_progress_s": round(age, 3)}, 200 if alive else 503)

    async def _readyz(self, _request: Request) -> Response:
        published = self._published
        checks = {"inbox": "starting" if published.state is None else "lost" if published.inbox_lost else "ok"}
        try:
            current = await self._probes.get(("ready",), lambda store: store.schema_current())
            checks["database"] = "ok" if current else "schema_behind"
        except Unanswered as reason:
            checks["database"] = reason.code
        ready = set(checks.values()) == {"ok"}
        return _json({"status": "ready" if ready else "not ready", "checks": checks}, 200 if ready else 503)

    async def _scrape(self, _request: Request) -> Response:
        self._metrics.know(feed.name for feed in self._feeds())
        return Response(self._metrics.page(await self._standing()), media_type=CONTENT_TYPE)

    async def _standing(self) -> Standing:
        """Return the gauges; those of a database that does not answer are left out, as Prometheus wants it."""
        feeds = {feed.name: feed for feed in self._feeds()}
        try:
            marks, successes, dead_letters = await self._probes.get(
                ("standing", *feeds),
                lambda store: (
                    newest_marks(store.watermarks(), feeds.values()),
                    last_successes(store, feeds),
                    count_open(store),
                ),
            )
        except Unanswered:
            marks, successes, dead_letters = {}, {}, []
        times = {name: mark_time(feeds[name], value) for name, value in marks.items()}
        state = self._published.state
        age = None
        if state is not None:
            oldest = state.oldest_waiting
            age = 0.0 if oldest is None else max((self._clock.now() - moment(oldest)).total_seconds(), 0.0)
        return Standing(
            inbox_files=None if state is None else state.files_waiting,
            oldest_file_age_s=age,
            deferred_files=None if state is None else state.files_deferred,
            ignored_files=None if state is None else state.files_ignored,
            config_refused=None if state is None else state.config_refused is not None,
            watermarks={name: _unix(at) for name, at in times.items() if at is not None},
            last_successes={name: _unix(moment(text)) for name, text in successes.items()},
            feeds_late={} if state is None else {one.feed: one.late for one in state.expected},
            dead_letters={(count.feed, count.code): count.count for count in dead_letters},
        )

    async def _events(self, request: Request) -> Response:
        if self._live.full:
            raise HTTPException(503, "Too many pages are open.")
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        stream = self._live.stream(lambda: self._ending)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _asset(self, request: Request) -> Response:
        asset = assets().get(request.path_params["name"])
        if asset is None:
            raise HTTPException(404, "There is no such file.")
        headers = {"cache-control": "max-age=31536000, immutable", "etag": f'"{asset.tag}"'}
        return Response(asset.content, media_type=asset.type, headers=headers)

    # Errors: never a path, a URL, or a driver's words

    async def _refused(self, request: Request, error: Exception) -> Response:
        status, text = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
        return self._error(request, status, text if text != "Not Found" else "There is no such page.", "")

    async def _unanswered(self, request: Request, error: Exception) -> Response:
        reason = error if isinstance(error, Unanswered) else Unanswered("internal_error", "")
        return self._error(request, 503, reason.message, reason.code)

    async def _bug(self, request: Request, error: Exception) -> Response:
        self._bugs += 1
        if self._bugs <= MOST_BUGS_SAID:
            emit(self._log, Event.BUG, traceback="".join(traceback.format_exception(error)))
        return self._error(request, 500, "This is a fault of inboxd itself. Its log says more.", "internal_error")

    def _error(self, request: Request, status: int, message: str, code: str) -> Response:
        if request.url.path in {"/health", "/healthz", "/readyz", "/metrics", "/events"}:
            return _json({"error": code or "refused", "message": message}, status)
        return self._html("error.html", status, message=message, code=code, number=status)


def _window(request: Request) -> Window:
    try:
        return Window(request.query_params.get("window", Window.DAY))
    except ValueError:
        raise HTTPException(400, "The window is one of 1h, 24h, 7d, all.") from None


def _status(request: Request) -> RunStatus | None:
    text = request.query_params.get("status")
    try:
        return RunStatus(text) if text else None
    except ValueError:
        raise HTTPException(400, f"The status is one of {', '.join(RunStatus)}.") from None


def _hours(request: Request) -> float | None:
    text = request.query_params.get("hours")
    if not text:
        return None
    try:
        hours = float(text)
        timedelta(hours=hours)
    except (ValueError, OverflowError):
        hours = -1.0
    if not hours > 0:
        raise HTTPException(400, "hours is a number above zero.")
    return int(hours) if hours.is_integer() else hours


def _whole(request: Request, name: str, default: int, *, most: int = LARGEST_ID) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and int(text) <= most):
        raise HTTPException(400, f"{name} is a whole number, at most {most}.")
    return int(text)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value) + b"\n", status, media_type="application/json")


def _unix(when: datetime) -> float:
    return when.astimezone(UTC).timestamp()
