"""The database's URL, and that its password is seen by no one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from inboxd.config import DatabaseSettings, InvalidConfig, Settings, load_settings, show
from inboxd.config.database import check_url, masked, with_password

SECRET = "hunter2"  # noqa: S105 - what the tests look for

TWO = "h1:5432,h2:5433/d?options=-c%20lock_timeout%3D9s&target_session_attrs=read-write"
"""Of a URL with two hosts what follows the user."""


def load(folder: Path, database: str, **env: str) -> Settings:
    """Return the settings with that ``[database]`` table."""
    (folder / "inboxd.toml").write_text(f"[database]\n{database}\n", encoding="utf-8")
    return load_settings(folder / "inboxd.toml", env, folder)


def secret_file(folder: Path, text: str = f"{SECRET}\n") -> Path:
    """Return a file that holds the password, as an editor would write it."""
    file = folder / "inboxd-database-password"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db"),
        ("sqlite+pysqlite:////x.db", "sqlite:////x.db"),
        ("postgres://u@h/d", "postgresql://u@h/d"),
        ("postgresql+psycopg://u@h/d", "postgresql://u@h/d"),
        ("postgresql:///d?host=/run/postgresql", "postgresql:///d?host=/run/postgresql"),
        (f"postgres://u@{TWO}", f"postgresql://u@{TWO}"),
    ],
)
def test_one_form_of_url_for_each_database(url: str, taken: str) -> None:
    """The forms that other tools take are taken too, and become one."""
    assert check_url(url) == taken


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory",
        "sqlite:///x.db?timeout=5",
        "mysql://root@h/d",
        "postgresql+asyncpg://h/d",
        "data/inboxd.db",
        "",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    """A database that would forget the ledger, or that is not supported, is refused before anything is opened."""
    with pytest.raises(ValueError, match=r"sqlite:///|plain file"):
        check_url(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://u:{SECRET}@h/d", "postgresql://u:***@h/d"),
        (f"postgresql://:{SECRET}@h/d", "postgresql://h/d?password=***"),
        (f"postgresql://u:{SECRET}@{SECRET}/{SECRET}@h/d", "postgresql://***"),
        (f"postgresql://u:a/b?c#{SECRET}@h/d", "postgresql://***"),
        (f"postgresql://u@h/d?password={SECRET}&port=1", "postgresql://u:***@h:1/d"),
        (f"postgresql://u@h/d?p%61ssword={SECRET}", "postgresql://u:***@h/d"),
        (f"postgresql://h/d?port=1&sslpassword={SECRET}", "postgresql://h:1/d?sslpassword=***"),
        (f"postgresql://u@h/d?password={SECRET}&x=1", "postgresql://***"),
        ("postgresql://h/app?user=me@corp", "postgresql://me%40corp@h/app"),
        (f"postgresql://?password={SECRET}&user=me@corp", "postgresql://***"),
        ("postgresql://[::1]:5432,[fe80::1]/d", "postgresql://[::1]:5432,[fe80::1]/d"),
        (f"mysql://u:{SECRET}@h/d", "mysql://***"),
        (f"{SECRET}", "***"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
        (f"postgresql://u@{TWO}", f"postgresql://u@{TWO}"),
        (f"postgresql://u:{SECRET}@{TWO}", f"postgresql://u:***@{TWO}"),
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
    ],
)
def test_a_password_is_masked_wherever_it_stands(url: str, shown: str) -> None:
    """Logs, pages and messages show the URL without its password, also where the password was not quoted."""
    assert masked(url) == shown


words = st.text("abcxyz0189.-_", min_size=1, max_size=8)
odd = st.text("ab:@/?#&=%[],+ *\\'\"é", min_size=1, max_size=8)
secrets = st.builds("{}{}{}".format, odd | st.just(""), st.just(SECRET), odd | st.just(""))


def _quoted(text: str) -> str:
    return quote(text, safe="")


@st.composite
def urls(draw: st.DrawFn) -> str:
    """Make a URL as somebody might write it: quoted or not, its secret in any of the places where one may stand."""
    forms: list[Callable[[str], str]] = [_quoted, quote, str]
    as_written = draw(st.sampled_from(forms))
    secret = as_written(draw(secrets))
    user = as_written(draw(words | odd | st.just("")))
    hosts = ",".join(draw(st.lists(st.sampled_from(["h", "h:5432", "[::1]:1", "%2Frun%2Fpg", ""]), max_size=3)))
    path = draw(st.sampled_from(["", "/", "/d", "/d%40e"]))
    query = draw(
        st.lists(st.sampled_from(["user=me@corp", "sslmode=require", "host=/run", "port=7", "application_name=a%26b"]))
    )
    place = draw(st.sampled_from(["user", "query", "ssl", "file"]))
    if place != "user":
        query.insert(draw(st.integers(0, len(query))), f"{'ssl' if place == 'ssl' else ''}password={secret}")
    at = f"{user}:{secret}@" if place == "user" else f"{user}@" if user else ""
    scheme = draw(st.sampled_from(["postgresql", "postgres", "postgresql+psycopg"]))
    return f"{scheme}://{at}{hosts}{path}{'?' if query else ''}{'&'.join(query)}"


@example(f"postgresql://:@{SECRET}:@?port=7")
@example(f"postgresql://u:p@{SECRET}:@h/d?port=7")
@given(urls())
@settings(max_examples=500)
def test_no_form_of_url_ever_shows_the_secret(url: str) -> None:
    """Whatever is written where: it is masked, or the URL is refused without a word of it."""
    shown = masked(url)
    assert SECRET not in shown
    said = ""
    try:
        assert masked(check_url(url)) == shown
    except ValueError as refused:
        said = str(refused)
    assert SECRET not in said
    assert said or check_url(shown)


@given(urls(), st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
@settings(max_examples=500)
def test_a_password_is_added_to_any_url_and_nothing_else_is_changed(url: str, password: str) -> None:
    """Libpq finds the password in the URL, and everything that was there before."""
    try:
        before = conninfo_to_dict(check_url(url))
    except ValueError:
        return
    with_it = with_password(url, password)
    assert conninfo_to_dict(with_it) == {**before, "password": password}
    assert masked(with_it) == masked(with_password(url, "another"))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_any_password_fits_into_a_url_and_is_masked_in_it(password: str) -> None:
    """A password may hold any character."""
    assert masked(with_password("postgresql://u@h/d", password)) == "postgresql://u:***@h/d"
    assert masked(with_password(f"postgresql://u@{TWO}", password)) == f"postgresql://u:***@{TWO}"
    assert masked(with_password("postgresql:///d", password)) == "postgresql:///d?password=***"
    assert masked(with_password("postgresql:///d?host=x", password)) == "postgresql://x/d?password=***"


def test_the_password_may_come_from_a_file(tmp_path: Path) -> None:
    """``password_file`` keeps the secret out of the config; the newline at its end is not part of it."""
    secret_file(tmp_path, "p@ss/w:rd \n")
    found = load(tmp_path, 'url = "postgresql://u@h/d"\npassword_file = "inboxd-database-password"')
    assert found.database.url == "postgresql://u:p%40ss%2Fw%3Ard%20@h/d"
    assert found.database.shown_url == "postgresql://u:***@h/d"


def test_the_password_may_come_from_a_credential_of_systemd(tmp_path: Path) -> None:
    """``LoadCredential=inboxd-database-password:…`` is all that a unit needs; a password_file outranks it."""
    (tmp_path / "credentials").mkdir()
    secret_file(tmp_path / "credentials")
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    assert load(tmp_path, 'url = "postgresql://u@h/d"', **env).database.url == f"postgresql://u:{SECRET}@h/d"
    secret_file(tmp_path, "other")
    both = 'url = "postgresql://u@h/d"\npassword_file = "inboxd-database-password"'
    assert load(tmp_path, both, **env).database.url == "postgresql://u:other@h/d"
    assert load(tmp_path, 'url = "postgresql://u:own@h/d"', **env).database.url == "postgresql://u:own@h/d"
    assert not load(tmp_path, 'url = "sqlite:///x.db"', **env).database.is_postgres


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ('url = "postgresql://u@h/d"\npassword_file = "none"', "cannot be read from .*none: No such file"),
        ('url = "postgresql://u@h/d"\npassword_file = "pipe"', "cannot be read from .*pipe: it is a pipe, not a reg"),
        ('url = "postgresql://u@h/d"\npassword_file = "empty"', "is empty"),
        ('url = "postgresql://u:x@h/d"\npassword_file = "empty"', "is not used, as database.url has a password"),
        ('url = "sqlite:///x.db"\npassword_file = "empty"', "SQLite has no password"),
    ],
)
def test_a_password_that_cannot_be_had_is_told(tmp_path: Path, database: str, message: str) -> None:
    """The daemon does not start without the password that it was promised."""
    (tmp_path / "empty").write_text("", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidConfig, match=message) as caught:
        load(tmp_path, database)
    assert [(fault.key, fault.line) for fault in caught.value.faults] == [("database.password_file", 3)]


@pytest.mark.parametrize(
    "url", [f"postgresql://u:{SECRET}@h/d", f"mysql://u:{SECRET}@h/d", f"postgresql://u@h/d?password={SECRET}"]
)
def test_the_password_is_in_nothing_that_is_shown(tmp_path: Path, url: str) -> None:
    """Neither ``config show``, nor an error, nor a settings object printed by mistake tells it."""
    try:
        found = load(tmp_path, f'url = "{url}"')
    except InvalidConfig as fault:
        shown = f"{fault} {fault.message} {fault!r} {fault.faults} {fault.__cause__!r} {fault.__context__!r}"
    else:
        shown = f"{found!r} {found.database} {show(found)}"
    assert SECRET not in shown


def test_a_sqlite_database_is_a_file_and_a_postgresql_one_is_not() -> None:
    """Only SQLite has a path."""
    assert DatabaseSettings(url="sqlite:////a b/x.db").sqlite_path == Path("/a b/x.db")
    with pytest.raises(ValueError, match="no file"):
        DatabaseSettings(url="postgresql://h/d").sqlite_path  # noqa: B018 - asking is what raises


def test_a_folder_that_no_url_can_hold_is_told(tmp_path: Path) -> None:
    """A question mark in the folder's name would end the path of the database."""
    (tmp_path / "what?").mkdir()
    with pytest.raises(InvalidConfig, match=r"has a \? in it"):
        load_settings(None, {}, tmp_path / "what?")
