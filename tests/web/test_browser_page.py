"""The page as a person meets it: in a real browser, fed by a real daemon."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from page_daemon import PageDaemon, page_daemon
from places import TESTS
from requirements import missing

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.xdist_group("browser")]

Scheme = Literal["light", "dark"]
SCREENSHOTS: Final = TESTS / "screenshots"
STAMP: Final = "%Y-%m-%dT%H:%M:%S.000000Z"
DEADLINE_MS: Final = 20_000
"""After this a test gives up. How fast something is seen is nothing that a busy machine can tell."""
ARGUMENTS: Final = (
    "--no-sandbox",  # the tests may run as root, in a container
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
EVENT: Final = {"key": "user-1", "name": "Alice", "value": 12.5, "ts": "2026-01-15T10:30:00Z"}
PAGES: Final = (
    "/",
    "/?window=all",
    "/runs",
    "/runs?status=failure",
    "/runs/1",
    "/runs/2",
    "/runs/5",
    "/records",
    "/records/events?key=user-1",
    "/dead-letters",
    "/nope",
)


@pytest.fixture(scope="module")
def browser(require_tool: Callable[[str, str], str]) -> Iterator[Browser]:
    """Return Debian's Chromium, driven from outside."""
    chromium = require_tool("chromium", "chromium")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageDaemon]:
    """Return a daemon that has taken a few files: one whole, one half rejected, one broken, one twice."""
    folder = tmp_path_factory.mktemp("page")
    with page_daemon(folder) as started:
        started.drop("monday.json", json.dumps([EVENT]))
        started.wait_for("file_loaded", file="monday.json")
        started.drop("broken.json", '[{"key": ')
        started.wait_for("file_failed", file="broken.json")
        later = "2026-01-16T10:30:00Z"
        half = [EVENT | {"key": "user-2", "ts": later}, EVENT | {"key": "user-3", "value": "many", "ts": later}]
        started.drop("shop/half.ndjson", "\n".join(map(json.dumps, half)))
        started.wait_for("file_loaded", file="shop/half.ndjson")
        started.drop("again.json", json.dumps([EVENT]))
        started.wait_for("file_duplicate", file="again.json")
        older = [EVENT | {"name": "older"}, EVENT | {"key": "user-4", "ts": "2026-01-17T10:30:00Z"}]
        started.drop("older.json", json.dumps([*older, older[1]]))
        started.wait_for("file_loaded", file="older.json", rows_skipped=1, rows_stale=1)
        yield started


@pytest.fixture
def page(browser: Browser, daemon: PageDaemon) -> Iterator[Page]:
    """Return a tab that fails the test for anything the browser complains of, a CSP violation included."""
    with browser.new_context(base_url=daemon.url, viewport={"width": 1280, "height": 900}) as context:
        tab = context.new_page()
        complaints: list[str] = []
        tab.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("requestfailed", lambda failed: complaints.append(f"{failed.url} {failed.failure}"))
        yield tab
        expected = re.compile(
            r"status of 404|net::ERR_ABORTED"
        )  # of /nope; and what a page still wanted when it was left
        assert [said for said in complaints if not expected.search(said)] == []


def test_a_dropped_file_is_seen_without_a_reload(daemon: PageDaemon, page: Page) -> None:
    """A file dropped while the page is open appears on it without a reload."""
    page.goto("/")
    page.evaluate("window.notReloaded = true")
    daemon.drop("tuesday.json", json.dumps([EVENT | {"key": "t", "ts": "2026-02-01T00:00:00Z"}]))
    row = page.locator("#runs tr", has_text="tuesday.json")
    row.get_by_text("loaded").wait_for(timeout=DEADLINE_MS)
    assert page.evaluate("window.notReloaded") is True
    assert "tuesday.json loaded" in page.locator("[role=status]").inner_text()


def test_a_failed_file_is_shown_with_its_reason(daemon: PageDaemon, page: Page) -> None:
    """A file that fails appears with its code and what is wrong with it."""
    page.goto("/")
    daemon.drop("empty.json", "   \n")
    row = page.locator("#runs tr", has_text="empty.json")
    row.get_by_text("failed").wait_for(timeout=DEADLINE_MS)
    assert "empty_file" in row.inner_text()
    row.get_by_role("link").first.click()
    page.get_by_role("heading", level=1, name="Run").wait_for()
    assert "empty_file" in page.locator(".fault").inner_text()


def test_a_name_made_of_markup_is_text(daemon: PageDaemon, page: Page) -> None:
    """A file's name and its records are shown as they are, and nothing in them is ever run or rendered."""
    name = "<script>alert(1)<img src=x onerror=alert(2)>.json"
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.goto("/")
    record = {"key": '"><script>alert(3)</script>', "name": "n", "value": "<b>no</b>", "ts": "2026-03-01T00:00:00Z"}
    daemon.drop(name, json.dumps([record]))
    row = page.locator("#runs tr", has_text=name)
    row.wait_for(timeout=DEADLINE_MS)
    row.get_by_role("link").first.click()
    page.get_by_text("<b>no</b>").first.wait_for()
    page.get_by_role("link", name='"><script>').first.click()
    page.get_by_role("heading", level=1, name=re.compile("<script>alert")).wait_for()
    assert page.locator("main script, main img, main b >> text=no").count() == 0


def test_a_name_that_is_not_utf_8_is_shown_escaped(daemon: PageDaemon, page: Page) -> None:
    """A name in another encoding is shown with its bytes escaped."""
    (daemon.folder / "elsewhere").write_text(json.dumps([EVENT | {"key": "x", "ts": "2026-04-01T00:00:00Z"}]))
    (daemon.folder / "elsewhere").rename(daemon.folder / "inbox" / b"caf\xe9.json".decode("utf-8", "surrogateescape"))
    page.goto("/")
    page.locator("#runs tr", has_text="caf\\xe9.json").wait_for(timeout=DEADLINE_MS)


def test_windows_and_pages_lead_where_they_say(page: Page) -> None:
    """The windows, the pages, a run, a record and its history are reached by links."""
    page.goto("/")
    for window in ("1h", "24h", "7d", "all"):
        page.get_by_role("link", name=window, exact=True).click()
        page.wait_for_url(f"**/?window={window}")
        assert page.locator(".windows [aria-current]").inner_text() == window
        assert page.locator("#runs tbody tr").count() >= 4
    page.get_by_role("link", name="run 3", exact=True).click()
    page.get_by_text("invalid_value").first.wait_for()
    page.locator("#run-records").get_by_role("link", name="user-2").click()
    page.get_by_role("heading", level=1, name="Record user-2").wait_for()
    assert "shop/half.ndjson" in page.locator("#history").inner_text()
    page.get_by_role("link", name="Dead letters").click()
    page.get_by_role("heading", level=1, name="Dead letters").wait_for()
    page.get_by_role("link", name=re.compile("invalid_value events")).click()
    assert "user-3" in page.locator("#dead-letters").inner_text()


def test_a_record_is_found_by_its_key(page: Page) -> None:
    """The form of the records' page leads to a key's history by the keyboard alone."""
    page.goto("/records")
    page.get_by_label("Key").focus()
    page.keyboard.type("user-1")
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1, name="Record user-1").wait_for()
    assert "monday.json" in page.locator("#history").inner_text()
    page.get_by_label("Key").fill("user-2")
    page.get_by_label("Key").focus()
    page.keyboard.press("Tab")  # the feed
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.get_by_role("heading", level=1, name="Record user-2").wait_for()


def test_the_keyboard_leads_past_the_head_of_the_page(page: Page) -> None:
    """The first stop of the keyboard is a link, seen only then, that leads to the content."""
    page.goto("/")
    link = page.get_by_role("link", name="Skip to the content")
    assert (link.bounding_box() or {"x": 0.0})["x"] < 0
    page.keyboard.press("Tab")
    assert (link.bounding_box() or {"x": -1.0})["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_it_is_a_plain_page_without_javascript(browser: Browser, daemon: PageDaemon) -> None:
    """Everything is there without JavaScript; only a reload shows what is new."""
    with browser.new_context(base_url=daemon.url, java_script_enabled=False) as context:
        tab = context.new_page()
        tab.goto("/")
        assert tab.locator("#runs tbody tr").count() >= 4
        assert tab.locator("svg.chart").count() == 3
        tab.locator("#run-1 th a").click()
        assert "monday.json" in tab.locator("main").inner_text()


def test_what_one_does_survives_a_refresh(daemon: PageDaemon, page: Page) -> None:
    """Focus and open details stay while the page refreshes itself, and no element is made anew without need."""
    page.goto("/")
    page.locator("#numbers summary").click()
    page.evaluate("document.querySelector('#feeds-title').mine = true")
    daemon.drop("wednesday.json", json.dumps([EVENT | {"key": "w", "ts": "2026-05-01T00:00:00Z"}]))
    page.locator("#runs tr", has_text="wednesday.json").wait_for(timeout=DEADLINE_MS)
    assert page.locator("#numbers").get_attribute("open") is not None
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.evaluate("document.querySelector('#feeds-title').mine") is True


@pytest.fixture(scope="module")
def axe() -> str:
    """Return axe-core, the accessibility checker, as a script."""
    if find_spec("axe_playwright_python") is None:
        missing("axe-playwright-python: `make test` installs it")
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_accessible(browser: Browser, daemon: PageDaemon, axe: str, scheme: Scheme, width: int) -> None:
    """Every page passes the checker without a violation, and on a phone nothing but a table scrolls sideways."""
    size = ViewportSize(width=width, height=860)
    with browser.new_context(base_url=daemon.url, viewport=size, color_scheme=scheme) as context:
        tab = context.new_page()
        for path in PAGES:
            tab.goto(path)
            assert violations(tab, axe) == [], path
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, path


def test_an_empty_page_is_accessible_and_says_how_to_begin(browser: Browser, axe: str, tmp_path: Path) -> None:
    """Before the first file the page says where the inbox is, and shows a record that its feed takes."""
    with page_daemon(tmp_path) as empty, browser.new_context(base_url=empty.url) as context:
        tab = context.new_page()
        tab.goto("/")
        assert str(tmp_path / "inbox") in tab.locator("#runs").inner_text()
        assert "Nothing needs attention" in tab.locator("#attention").inner_text()
        assert violations(tab, axe) == []
        record = tab.locator("#sample").inner_text()
        empty.drop("first.json", record)
        assert empty.wait_for("file_loaded", file="first.json")["rows_out"] == 1


def test_what_needs_attention_comes_first(browser: Browser, axe: str, tmp_path: Path) -> None:
    """Failures by code, files that loaded nothing, late feeds, a refused config and files that no feed takes."""
    text = """
        [feeds.events]
        match = ["*.json"]
        max_rejected = 2
        expect = { every = "1s" }
        """
    with page_daemon(tmp_path, config=text) as busy:
        busy.drop("torn.json", '[{"key": "user-1"')
        busy.wait_for("file_failed", file="torn.json")
        later = EVENT | {"value": "many", "ts": "2026-02-01T00:00:00Z"}
        busy.drop("nothing.json", json.dumps([later]))
        busy.wait_for("all_rejected", file="nothing.json")
        busy.drop("many.json", json.dumps([later | {"key": str(number)} for number in range(30)]))
        failed = busy.wait_for("file_failed", file="many.json")
        busy.drop("elsewhere/table.json", "[]")
        busy.wait_for("file_ignored", file="elsewhere/table.json")
        (tmp_path / "inboxd.toml").write_text(text + "\n[inbox]\npaht = 1\n")
        busy.process.send_signal(signal.SIGHUP)
        busy.wait_for("config_rejected")
        busy.wait_for("feed_late")
        with browser.new_context(base_url=busy.url, viewport={"width": 390, "height": 860}) as context:
            tab = context.new_page()
            tab.goto("/")
            said = tab.locator("#attention")
            for text in (
                "config on disk was refused",
                "invalid_json",
                "too_many_rejected",
                "nothing.json",
                "table.json",
            ):
                said.get_by_text(text).first.wait_for(timeout=DEADLINE_MS)
            said.get_by_text("Late:").wait_for(timeout=DEADLINE_MS)
            assert violations(tab, axe) == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390
            row = tab.locator("#runs tr", has_text="nothing.json")
            assert "rejected" in row.evaluate("row => getComputedStyle(row.cells[7], '::before').content")
            assert row.get_by_role("link", name="events", exact=True).is_visible()
            tab.goto(f"/runs/{failed['run_id']}")
            assert tab.locator("#retry").inner_text() == "inboxd retry many.json"
            tab.get_by_role("button", name="Copy the line").click()
            copied = tab.get_by_role("button", name="The line is copied")
            copied.wait_for(timeout=DEADLINE_MS)
            title = tab.locator("h1")
            said_before = title.inner_text()
            title.evaluate("title => { title.textContent = 'until the next refresh' }")
            busy.drop("good.json", json.dumps([EVENT]))
            tab.get_by_role("heading", level=1, name=said_before, exact=True).wait_for(timeout=DEADLINE_MS)
            assert copied.is_visible()  # a page that is refreshed in place does not forget it
            assert violations(tab, axe) == []


def test_a_time_is_told_in_the_readers_own_zone_too(browser: Browser, daemon: PageDaemon) -> None:
    """Whoever points at a time, or has it read out, gets it in UTC and in his own zone."""
    with browser.new_context(base_url=daemon.url, timezone_id="Asia/Tokyo", locale="en-GB") as context:
        tab = context.new_page()
        tab.goto("/runs/1")
        when = tab.locator("dd time").first
        moment = datetime.fromisoformat(when.get_attribute("datetime") or "")
        local = f"{moment.astimezone(ZoneInfo('Asia/Tokyo')):%H:%M:%S}"
        assert local in (when.get_attribute("title") or "")
        assert "UTC, " in when.inner_text()
        assert local in when.inner_text()


def test_screenshots_of_the_main_states(browser: Browser, tmp_path: Path) -> None:
    """Pictures of the main states are left in tests/screenshots/ for whoever wants to see what it looks like."""
    SCREENSHOTS.mkdir(exist_ok=True)
    with page_daemon(tmp_path) as busy:
        _shoot(browser, busy, "empty", "/", "light")
    _write_history(tmp_path / "data" / "inboxd.db")
    with page_daemon(tmp_path) as busy:
        busy.drop(
            "orders/2026-01-15.json", json.dumps([EVENT, {"key": "user-9", "name": "Bob", "value": 3, "ts": "soon"}])
        )
        run = busy.wait_for("file_loaded", file="orders/2026-01-15.json")["run_id"]
        busy.drop("torn.json", '[{"key": "user-1"')
        failed = busy.wait_for("file_failed", file="torn.json")["run_id"]
        _shoot(browser, busy, "overview-light", "/", "light")
        _shoot(browser, busy, "overview-dark", "/", "dark")
        _shoot(browser, busy, "overview-all", "/?window=all", "light")
        _shoot(browser, busy, "overview-phone", "/", "light", width=390)
        _shoot(browser, busy, "run", f"/runs/{run}", "light")
        _shoot(browser, busy, "run-failed", f"/runs/{failed}", "dark")
        _shoot(browser, busy, "record", "/records/events?key=user-1", "light")
        _shoot(browser, busy, "dead-letters", "/dead-letters", "light")
        _shoot(browser, busy, "not-here", "/runs/999999", "light")
    assert len(list(SCREENSHOTS.glob("*.png"))) >= 10


def _shoot(browser: Browser, daemon: PageDaemon, name: str, path: str, scheme: Scheme, width: int = 1280) -> None:
    size = ViewportSize(width=width, height=860)
    with browser.new_context(base_url=daemon.url, viewport=size, color_scheme=scheme) as context:
        tab = context.new_page()
        tab.goto(path)
        (SCREENSHOTS / f"{name}.png").write_bytes(tab.screenshot(full_page=True))


def _write_history(database: Path) -> None:
    """Put a day of imaginary runs behind the daemon, more of them by day than by night."""
    now = datetime.now(UTC)
    rows = []
    stamp = now.strftime(STAMP)
    for minute in range(0, 24 * 60, 4):
        when = now - timedelta(minutes=24 * 60 - minute)
        number = minute // 4
        busy = 1 + (number * 7919 % 5) + (4 if 8 <= when.hour <= 18 else 0)
        for extra in range(busy // 3 + 1):
            failed, job = (number * 31 + extra) % 53 == 7, ("orders", "events", "sensors")[(number + extra) % 3]
            rows_in = 0 if failed else 40 * busy + number % 17
            rejected = 0 if failed or number % 9 else busy
            stamp = when.strftime(STAMP)
            rows.append(
                (
                    job,
                    "failure" if failed else "success",
                    rows_in,
                    rows_in - rejected,
                    rejected,
                    3 + busy * 2 + number * 37 % 29,
                    stamp,
                    stamp,
                    f"{job}/part-{number:05}.json",
                    "invalid_json" if failed else None,
                    "line 3, column 9 (byte 77): not a value" if failed else None,
                )
            )
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT INTO etl_runs (job_name, status, rows_in, rows_out, rows_rejected, duration_ms, started_at,"
            " finished_at, file_name, error_code, error) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            rows,
        )
        dead_letters = [
            (
                json.dumps({"key": f"k{number}", "value": "n/a"}),
                code,
                stamp,
                1 + number,
                feed,
                number,
                f"k{number}",
                detail,
            )
            for number, (code, feed, detail) in enumerate(
                [("invalid_value", "events", "value: not a number")] * 14
                + [("missing_timestamp", "orders", "timestamp: missing")] * 5
                + [("future_timestamp", "sensors", "timestamp: 3 days ahead")] * 2
            )
        ]
        connection.executemany(
            "INSERT INTO dead_letters (raw, error, created, run_id, feed, record_no, record_key, detail)"
            " VALUES (?,?,?,?,?,?,?,?)",
            dead_letters,
        )


AXE: Final = """
async () => {
  const found = await axe.run();
  return found.violations.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.html.slice(0, 200)}`));
}
"""
"""Every rule of axe-core, its best practices included."""


def violations(tab: Page, axe: str) -> list[str]:
    """Return what the checker has to say against a page."""
    tab.evaluate(axe)
    found: list[str] = tab.evaluate(AXE)
    return found
