"""What is handed on is tested as it is handed on: built, put where nothing else is, and run there."""

from __future__ import annotations

import http.client
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from daemons import Home, eventually, record
from packages import Packages
from places import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packages"), pytest.mark.timeout(600)]

RECORDS: Final = [record("a"), record("b", ts="2026-01-15T10:31:00Z")]


def stranger(folder: Path, *command: str) -> Home:
    """Return a home for a program that knows nothing of this checkout: its sources are not on the path."""
    return Home(folder, command=command, env={"PYTHONPATH": "", "HOME": str(folder), "SHIV_ROOT": str(folder / "shiv")})


def walk(home: Home) -> None:
    """Load a file by the command, another by the daemon, look at the page: sources, SQL and templates are all there."""
    home.write("one.json", RECORDS)
    assert home.json("load", "outside/one.json")["loaded"] == 2
    with home:
        home.start("--http", "127.0.0.1:0")
        home.drop("two.json", [record("c", ts="2026-01-15T10:32:00Z")])
        assert home.verdict("two.json")["rows_out"] == 1
        address = eventually(lambda: home.lines("http_started"), "the page")[0]["address"]
        page = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        for path in ("/", "/static/page.css", "/metrics"):
            page.request("GET", path)
            answer = page.getresponse()
            answer.read()
            assert (path, answer.status) == (path, 200)
        page.close()
        assert home.stop() == 0
    assert [row[0] for row in home.rows()] == ["a", "b", "c"]
    assert home.call("doctor").returncode == 0


def test_the_wheel_holds_every_file_of_the_program_and_no_other(packages: Packages) -> None:
    """Templates, SQL and the mark of a typed package are in it; tests, samples and caches are not."""
    with zipfile.ZipFile(packages.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    source = ROOT / "daemon"
    there = {
        str(path.relative_to(source))
        for path in (source / "inboxd").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == there


def test_the_wheel_runs_in_an_environment_that_was_empty(packages: Packages, tmp_path: Path) -> None:
    """What ``pip``, ``pipx`` or ``uv`` install loads files and serves its page."""
    environment = packages.environment
    where = ("-c", "import inboxd; print(inboxd.__file__)")
    home = stranger(tmp_path, str(environment / "bin" / "python"))
    assert home.call(*where).stdout.startswith(str(environment))
    walk(stranger(tmp_path, str(environment / "bin" / "inboxd")))


def test_the_wheel_names_what_it_needs(packages: Packages, tmp_path: Path) -> None:
    """With what it declares, its extras included, nothing is missing and nothing contradicts."""
    code = """
import importlib.metadata, re
for line in importlib.metadata.requires("inboxd"):
    if "extra == 'dev'" not in line:
        print(re.match(r"[\\w-]+", line)[0], importlib.metadata.version(re.match(r"[\\w-]+", line)[0]))
"""
    home = stranger(tmp_path, str(packages.environment / "bin" / "python"))
    done = home.call("-c", code)
    assert done.returncode == 0, done.stderr
    assert "psycopg" in done.stdout
    assert "jinja2" in done.stdout


def test_the_one_file_runs_where_nothing_was_installed(packages: Packages, tmp_path: Path) -> None:
    """``inboxd.pyz`` needs its Python and nothing else: PostgreSQL's driver and the page are in it."""
    walk(stranger(tmp_path, *interpreter(), str(packages.zipapp)))


def interpreter() -> Sequence[str]:
    """Return the Python that the one file is for, without what this test's environment has."""
    return (str(Path(sys.executable).resolve()), "-I")


def test_a_package_is_the_same_when_it_is_built_again(packages: Packages, tmp_path: Path) -> None:
    """The wheel's bytes depend on the sources alone, so anybody can check what was handed on."""
    again = Packages(tmp_path).wheel
    assert again.read_bytes() == packages.wheel.read_bytes()


def test_the_documents_are_a_site_with_search(packages: Packages) -> None:
    """``make docs`` fails where a link leads nowhere, and every page can be found by its words."""
    site = packages.made("docs", "build/site")
    assert (site / "docs" / "operations.html").exists()
    assert "Prometheus" in "".join(path.read_text(encoding="utf-8") for path in site.glob("search.*"))


def test_a_tool_installer_finds_one_command(packages: Packages) -> None:
    """``pipx`` and ``uv tool`` put ``inboxd`` on the path, and no other command."""
    with zipfile.ZipFile(packages.wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert wheel.read(name).decode().split() == ["[console_scripts]", "inboxd", "=", "inboxd.cli:main"]
