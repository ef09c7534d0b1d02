"""A session on PostgreSQL: what it pins, whatever a server, database, role or URL says, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import psycopg
import pytest

from daemons import Home
from inboxd.cli import run_cli
from inboxd.clock import SystemClock
from inboxd.errors import EXIT_CONFIG, EXIT_UNAVAILABLE, DatabaseFault, OperatorFault
from inboxd.model import FieldType
from inboxd.operate.undo import undo
from inboxd.store import open_store
from inboxd.store.database import Store
from inboxd.store.postgres import PostgresStore
from inboxd.store.postgres_driver import DURABLE, SESSION
from stores import MakeUrl, batches, load, make_feed, query, row, start

pytestmark = pytest.mark.postgres

HOSTILE: Final = {
    "client_encoding": "LATIN1",
    "timezone": "Asia/Kathmandu",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "lc_numeric": "C",
    "lc_time": "C",
    "backslash_quote": "off",
    "escape_string_warning": "off",
    "timezone_abbreviations": "India",
    "search_path": "public, pg_temp",
    "synchronous_commit": "off",
}
"""What somebody may have set for a database, with other programs in mind."""

HARMLESS: Final = {
    "allow_alter_system": "of superusers",
    "allow_in_place_tablespaces": "of a server's developers",
    "allow_system_table_mods": "of a server's developers",
    "backslash_quote": "no statement has a string with a backslash in it, as standard_conforming_strings is pinned",
    "client_min_messages": "what is said of the rows, not the rows",
    "check_function_bodies": "inboxd makes no function",
    "createrole_self_grant": "inboxd makes no role",
    "default_table_access_method": "where rows lie changes none of them",
    "default_tablespace": "as above",
    "default_text_search_config": "inboxd searches no text",
    "default_toast_compression": "as above",
    "default_transaction_read_only": "an administrator's wish: files wait, and nothing is wrong",
    "dynamic_library_path": "of superusers",
    "enable_self_join_elimination": "a plan",
    "escape_string_warning": "a warning",
    "event_triggers": "of superusers",
    "extension_control_path": "of superusers",
    "file_extend_method": "how a file grows",
    "gin_fuzzy_search_limit": "inboxd has no such index",
    "gin_pending_list_limit": "as above",
    "icu_validation_level": "inboxd makes no collation",
    "idle_in_transaction_session_timeout": "pinned",
    "idle_session_timeout": "a lost session is opened again",
    "io_method": "how a disk is read",
    "jit_provider": "of a server's start",
    "lc_messages": "the words of an error, not its code",
    "lc_monetary": "no amount of money is written",
    "lc_numeric": "to_char is asked for no number",
    "lc_time": "to_char is asked for no name of a month",
    "lo_compat_privileges": "inboxd has no large objects",
    "local_preload_libraries": "an administrator's code",
    "lock_timeout": "an administrator's wish: files wait, and nothing is wrong",
    "restrict_nonsystem_relation_kind": "of dumps",
    "search_path": "where the tables are is an administrator's to say; temporary ones are named with their schema",
    "session_preload_libraries": "an administrator's code",
    "session_replication_role": "of superusers",
    "statement_timeout": "an administrator's wish: files wait, and nothing is wrong",
    "synchronize_seqscans": "no result rests on the order of a scan",
    "temp_tablespaces": "where rows lie changes none of them",
    "timezone_abbreviations": "moments are written with Z alone, which is none of them",
    "transaction_deferrable": "of a transaction",
    "transaction_isolation": "of a transaction",
    "transaction_read_only": "of a transaction",
    "xmlbinary": "inboxd has no XML",
    "transaction_timeout": "an administrator's wish: files wait, and nothing is wrong",
}
"""Settings that a session may have as it likes, and why."""

FEED = make_feed(
    undo=True,
    more=(("real", FieldType.REAL), ("text", FieldType.TEXT), ("day", FieldType.DATE), ("doc", FieldType.JSON)),
)
FIRST = (0.1 + 0.2, "gr\u00fc\u00df \u20ac \\ 'x'", "2026-03-04", '{"n": 1.10}')
SECOND = (1.0, "other", "2026-03-05", "[]")


@pytest.fixture
def url(make_postgres_url: MakeUrl) -> str:
    """Return the URL of a database that somebody has set up for other programs."""
    url = make_postgres_url()
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for name, value in HOSTILE.items():
            quoted = value if name == "search_path" else f"'{value}'"
            connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {name} = {quoted}".encode())
    return url


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Return a store in that database."""
    with open_store(url) as opened:
        opened.upgrade()
        opened.prepare([FEED])
        yield opened


def load_both(store: Store) -> int:
    """Load a record, and one that replaces it; return the second run."""
    first = row(FEED, 1, ("k",), FIRST, "2026-01-01T00:00:00.000001Z")
    second = row(FEED, 1, ("k",), SECOND, "2026-01-02T00:00:00.000000Z")
    load(store, FEED, batches([first]))
    return load(store, FEED, batches([second]))[0]


def test_no_setting_of_a_database_changes_what_is_stored(store: Store) -> None:
    """A number, a text, a moment come back as they were given, and so from an undo, whatever a database is set to."""
    run = load_both(store)
    undo(store, (FEED,), run, clock=SystemClock(), host="here")
    asked = "SELECT real, text, day::text, doc::text, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"US') FROM events"
    assert query(store, asked) == [(*FIRST, "2026-01-01T000001")]


def test_every_session_pins_the_same(store: Store) -> None:
    """What results depend on is pinned in the session that loads and in those that answer and mend."""
    wanted = {name: SESSION[name] for name in HOSTILE.keys() & SESSION.keys()}
    assert len(wanted) > 10
    for session in (store.reading(), store.writing()):
        with session as connection:
            rows = connection.exec_driver_sql("SELECT lower(name), setting FROM pg_settings")
            found = {str(name): str(setting) for name, setting in rows}
        assert {name: found[name] for name in wanted} == wanted


def test_every_setting_of_a_server_is_pinned_or_known_to_change_nothing(make_postgres_url: MakeUrl) -> None:
    """A server's list has no setting of statements, forms or compatibility that nobody has thought about."""
    asked = (
        "SELECT lower(name) FROM pg_settings WHERE (category LIKE 'Client Connection Defaults%%' "
        "OR category LIKE 'Version and Platform%%') AND context IN ('user', 'superuser')"
    )
    with closing(psycopg.connect(make_postgres_url(), autocommit=True)) as connection:
        names = {name for (name,) in connection.execute(asked.replace("%%", "%").encode())}
    assert names - SESSION.keys() - HARMLESS.keys() - {DURABLE[0]} == {
        name for name in names if name.startswith("vacuum_") or name.endswith("_output_format")
    }


def test_a_commit_waits_for_the_disk_though_the_server_is_set_not_to(store: Store) -> None:
    """``synchronous_commit = off`` would lose files that are moved; only the row of a run that begins does without."""
    assert isinstance(store, PostgresStore)
    assert store._open is not None
    run_id = store.begin(start(FEED))
    with store.transaction(run_id, FEED):
        assert store._open.execute("SHOW synchronous_commit").fetchone() == ("on",)
    with store.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_is_not_utf8_is_refused_for_good(
    make_postgres_url: MakeUrl, encoding: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not every character could be kept: exit code 78, after which the service is not started again and again."""
    url = make_postgres_url()
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        name = connection.info.dbname
        asked = f"CREATE DATABASE {name}_old ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        connection.execute(asked.encode())
    other = url.replace(f"/{name}?", f"/{name}_old?")
    try:
        for readonly in (False, True):
            with pytest.raises(OperatorFault, match=encoding) as caught:
                open_store(other, readonly=readonly)
            assert (caught.value.code, caught.value.exit_code) == ("invalid_encoding", EXIT_CONFIG)
        monkeypatch.setenv("INBOXD_DATABASE__URL", other)
        assert run_cli(["db", "upgrade"]) == EXIT_CONFIG
        assert "ENCODING 'UTF8'" in capsys.readouterr().err
    finally:
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            connection.execute(f"DROP DATABASE {name}_old WITH (FORCE)".encode())


def test_a_role_without_the_right_to_temporary_tables_is_told_what_to_grant(make_postgres_url: MakeUrl) -> None:
    """The hint is the GRANT that is missing, on the database, not on the schema."""
    url = make_postgres_url()
    with open_store(url) as store:
        store.upgrade()
        store.prepare([FEED])
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        name = connection.info.dbname
        role = f"{name}_role"
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'x'",
            f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        ):
            connection.execute(statement.encode())
        given = f"postgresql://{role}:x@{url.partition('@')[2]}"
        try:
            with open_store(given) as store, pytest.raises(DatabaseFault) as caught:
                load_both(store)
            assert caught.value.code == "access_denied"
            assert caught.value.hint == f'GRANT TEMPORARY ON DATABASE "{name}" TO "{role}"'
        finally:
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_search_path_that_leads_nowhere_is_told_with_its_remedy(make_postgres_url: MakeUrl, tmp_path: Path) -> None:
    """A start says in one sentence what to create, and so does doctor, whose other remedies could not help."""
    url = make_postgres_url()
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET search_path = nosuch".encode())
    home = Home(tmp_path, env={"INBOXD_DATABASE__URL": url})
    started = home.call("run", "--once")
    assert started.returncode == EXIT_UNAVAILABLE
    assert "PostgreSQL: no schema has been selected to create in\n" in started.stderr
    checks = {one["message"]: one["remedy"] for one in home.json("doctor", "--json")["checks"] if one["status"] != "ok"}
    assert "search_path" in checks["the role's search_path names no schema that is there"]
    assert not any("db upgrade" in remedy for remedy in checks.values())


def test_doctor_says_why_a_database_cannot_be_looked_into(make_postgres_url: MakeUrl, tmp_path: Path) -> None:
    """Only one that is not there yet is to be made."""
    url = make_postgres_url()
    home = Home(tmp_path, env={"INBOXD_DATABASE__URL": url.replace("postgresql://postgres", "postgresql://nobody")})
    checks = {one["check"]: one for one in home.json("doctor", "--json")["checks"]}
    assert checks["database"]["status"] == "wrong"
    assert "nobody" in checks["database"]["message"]
    assert "schema" not in checks


@pytest.mark.parametrize(
    "url", ["postgresql://u:se%zzcret@h/d", "postgresql://u:secret@h:5432/d?nonsense", "postgresql://[h"]
)
def test_a_url_that_cannot_be_read_is_the_operators_to_mend(url: str) -> None:
    """Exit code 78 and what to do, and none of it shows the password that may be in it."""
    with pytest.raises(OperatorFault) as caught:
        open_store(url)
    assert (caught.value.code, caught.value.exit_code) == ("invalid_database_url", EXIT_CONFIG)
    assert "ecret" not in f"{caught.value.message} {caught.value.hint}"
