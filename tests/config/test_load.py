"""Where settings come from, and how errors are told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from inboxd import regular
from inboxd.config import (
    ArchiveSettings,
    HttpSettings,
    InboxSettings,
    InvalidConfig,
    LogFormat,
    LogLayout,
    LogLevel,
    LogSettings,
    Polling,
    RetentionSettings,
    Settings,
    load_settings,
    sources,
)
from inboxd.config.notify import NOTIFIABLE
from inboxd.errors import EXIT_CONFIG, EXIT_NOPERM
from inboxd.model import Extra, Feed, Field, FieldType, Late, Limit
from places import SOURCE

QUOTED_TYPES = "'text', 'integer', 'real', 'boolean', 'timestamp', 'date', 'decimal' or 'json'"
EVENTS = Feed(
    name="events",
    match=("**",),
    table="target",
    key=("key",),
    cursor="ts",
    fields=(
        Field("key", FieldType.TEXT, ("key",), "key"),
        Field("name", FieldType.TEXT, ("name",), "name"),
        Field("value", FieldType.REAL, ("value",), "value"),
        Field("ts", FieldType.TIMESTAMP, ("ts",), "timestamp"),
    ),
    records=(),
    late=Late.SKIP,
    max_future_s=86_400.0,
    max_rejected=Limit(share=1.0),
    extra=Extra.IGNORE,
    undo=False,
)


@pytest.fixture(autouse=True)
def _no_config_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SYSTEM_FILE", tmp_path / "etc" / "inboxd.toml")


def load(folder: Path, text: str, **env: str) -> Settings:
    """Return the settings of a config file with that text."""
    file = folder / "inboxd.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file, env, folder)


def faults(folder: Path, text: str, **env: str) -> list[str]:
    """Return what is wrong with a config file of that text, its folder left out."""
    with pytest.raises(InvalidConfig) as caught:
        load(folder, text, **env)
    assert caught.value.exit_code == EXIT_CONFIG
    assert caught.value.code == "invalid_config"
    return [str(fault).removeprefix(f"{folder}/") for fault in caught.value.faults]


def test_without_a_config_file_everything_has_the_documented_value(tmp_path: Path) -> None:
    """The defaults, and the built-in feed, are those of the manual; paths start from the working folder."""
    settings = load_settings(None, {}, tmp_path)
    assert settings.inbox == InboxSettings.model_construct(
        path=tmp_path / "inbox",
        ignore=(".*", "*.tmp", "*.part", "*.partial", "*.filepart", "*.crdownload", "*~"),
        settle=0.1,
        settle_unproven=5.0,
        settle_moved=0.0,
        suffixes=(".json", ".ndjson", ".jsonl"),
        rescan=30.0,
        polling=Polling.AUTO,
        max_file_size=16 * 2**30,
    )
    assert settings.archive == ArchiveSettings.model_construct(
        processed=tmp_path / "data/processed", failed=tmp_path / "data/failed", keep=None
    )
    assert settings.database.sqlite_path == tmp_path / "data/inboxd.db"
    assert settings.retention == RetentionSettings.model_construct(
        lineage=None, resolved=None, images=None, tombstones=None
    )
    assert settings.log == LogSettings.model_construct(
        format=LogFormat.AUTO, level=LogLevel.INFO, file=tmp_path / "data/inboxd.log", layout=LogLayout.INBOXD
    )
    assert settings.http == HttpSettings(listen="")
    assert settings.feeds == (EVENTS,)
    assert settings.source is None


def test_every_setting_can_be_set(tmp_path: Path) -> None:
    """Each key of the manual's config is taken, in its own form."""
    settings = load(
        tmp_path,
        """
        [inbox]
        path = "/srv/in"
        ignore = ["*.bak"]
        settle = "1s"
        settle_unproven = "1m"
        settle_moved = "2s"
        suffixes = [".log", ""]
        rescan = "5m"
        polling = "always"
        max_file_size = "1MiB"
        [archive]
        processed = "done"
        failed = "/srv/bad"
        copy = true
        keep = "30d"
        [database]
        url = "postgresql://loader@db.example:5433/warehouse?sslmode=require"
        [retention]
        lineage = "90d"
        resolved = "1w"
        images = "12h"
        [log]
        format = "json"
        level = "debug"
        file = ""
        layout = "ecs"
        [http]
        listen = "[::1]:9000"
        """,
    )
    assert settings.inbox == InboxSettings.model_construct(
        path=Path("/srv/in"),
        ignore=("*.bak",),
        settle=1.0,
        settle_unproven=60.0,
        settle_moved=2.0,
        suffixes=(".log", ""),
        rescan=300.0,
        polling=Polling.ALWAYS,
        max_file_size=2**20,
    )
    assert settings.archive == ArchiveSettings.model_construct(
        processed=tmp_path / "done", failed=Path("/srv/bad"), keep=30 * 86_400.0, copy_files=True
    )
    assert settings.database.url == "postgresql://loader@db.example:5433/warehouse?sslmode=require"
    assert settings.database.is_postgres
    assert settings.retention == RetentionSettings.model_construct(
        lineage=90 * 86_400.0, resolved=7 * 86_400.0, images=43_200.0, tombstones=None
    )
    assert settings.log == LogSettings.model_construct(
        format=LogFormat.JSON, level=LogLevel.DEBUG, file=None, layout=LogLayout.ECS
    )
    assert settings.http == HttpSettings(listen="[::1]:9000")
    assert settings.source == tmp_path / "inboxd.toml"


def test_the_first_config_file_found_is_the_one(tmp_path: Path) -> None:
    """--config, then INBOXD_CONFIG, the working folder, the user's folder, the system's; never two of them."""
    home, work = tmp_path / "home", tmp_path / "work"
    places = {
        "system": tmp_path / "etc" / "inboxd.toml",
        "home": home / ".config" / "inboxd" / "inboxd.toml",
        "xdg": home / "xdg" / "inboxd" / "inboxd.toml",
        "work": work / "inboxd.toml",
        "variable": tmp_path / "variable.toml",
        "option": tmp_path / "option.toml",
    }
    work.mkdir()
    env = {"HOME": str(home)}
    found = []
    for name, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f'[http]\nlisten = "{name}:1"\n', encoding="utf-8")
        if name == "xdg":
            env["XDG_CONFIG_HOME"] = str(home / "xdg")
        if name == "variable":
            env["INBOXD_CONFIG"] = "../variable.toml"
        settings = load_settings(Path("../option.toml") if name == "option" else None, env, work)
        found.append(settings.http.listen)
    assert found == [f"{name}:1" for name in places]


def test_a_config_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    """A mistyped --config or INBOXD_CONFIG never means the defaults."""
    for path, env in ((Path("no.toml"), {}), (None, {"INBOXD_CONFIG": "no.toml"})):
        with pytest.raises(InvalidConfig, match="there is no such file"):
            load_settings(path, env, tmp_path)
    with pytest.raises(InvalidConfig, match="cannot be read: Is a directory"):
        load_settings(tmp_path, {}, tmp_path)


def test_a_link_that_leads_nowhere_is_no_missing_config(tmp_path: Path) -> None:
    """Whoever made the link wants a file to be read: the defaults, or the next file in the order, would be wrong."""
    home = tmp_path / "home"
    env = {"HOME": str(home)}
    here, user = tmp_path / "inboxd.toml", home / ".config" / "inboxd"
    here.symlink_to("gone.toml")
    with pytest.raises(InvalidConfig, match=rf"inboxd.toml: cannot be read: the link {here} leads nowhere"):
        load_settings(None, env, tmp_path)
    here.unlink()
    here.symlink_to(here)
    with pytest.raises(InvalidConfig, match="leads nowhere"):
        load_settings(None, env, tmp_path)
    with pytest.raises(InvalidConfig, match="leads nowhere"):
        load_settings(Path("inboxd.toml"), env, tmp_path)
    here.unlink()
    user.parent.mkdir(parents=True)
    user.symlink_to(tmp_path / "not-mounted")
    with pytest.raises(InvalidConfig, match=f"the link {user} leads nowhere"):
        load_settings(None, env, tmp_path)
    (tmp_path / "not-mounted").mkdir()
    assert load_settings(None, env, tmp_path).source is None


def test_the_file_in_force_must_be_there_when_it_is_loaded_anew(tmp_path: Path) -> None:
    """Between an editor's removing and renaming neither the defaults nor the next place's file are taken."""
    env = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    here, user = tmp_path / "inboxd.toml", tmp_path / "xdg" / "inboxd" / "inboxd.toml"
    user.parent.mkdir(parents=True)
    user.write_text("", encoding="utf-8")
    for cwd in (tmp_path, None):  # None: the working folder is gone as well
        with pytest.raises(InvalidConfig, match=f"{here}: is gone, and the settings in force are from it"):
            load_settings(None, env, cwd, in_force=here)
    assert load_settings(None, env, tmp_path, in_force=user).source == user
    assert load_settings(None, env, tmp_path, in_force=None).source == user
    here.write_text("", encoding="utf-8")
    assert load_settings(None, env, tmp_path, in_force=user).source == here, "the order of places holds, as ever"
    user.unlink()
    here.unlink()
    with pytest.raises(InvalidConfig, match="is gone"):
        load_settings(None, env, tmp_path, in_force=user)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe without a writer would hold up whoever reads it for ever; only one that was given by hand is read."""
    pipe = tmp_path / "inboxd.toml"
    os.mkfifo(pipe)
    with pytest.raises(InvalidConfig, match="cannot be read: it is a pipe, not a regular file"):
        load_settings(None, {}, tmp_path)
    with pytest.raises(InvalidConfig, match="it is a pipe"):
        load_settings(None, {"INBOXD_CONFIG": str(pipe)}, tmp_path)
    with pytest.raises(InvalidConfig, match="it is a pipe"):
        load_settings(pipe, {}, tmp_path, in_force=pipe)
    reading, writing = os.pipe()
    os.write(writing, b'[http]\nlisten = "given:1"\n')
    os.close(writing)
    assert load_settings(Path(f"/dev/fd/{reading}"), {}, tmp_path).http.listen == "given:1"
    os.close(reading)
    assert load_settings(Path(os.devnull), {}, tmp_path).http.listen == ""
    pipe.unlink()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(pipe))
        with pytest.raises(InvalidConfig, match="cannot be read: it is a socket"):
            load_settings(None, {}, tmp_path)


def test_a_pipe_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was given a pipe to which nobody writes ends with a sentence."""
    monkeypatch.setattr(regular, "PIPE_S", 0.01)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidConfig, match="cannot be read: nobody wrote to it for"):
        load_settings(Path("pipe"), {}, tmp_path)


def test_a_config_file_that_may_not_be_read_is_a_matter_of_permission(tmp_path: Path) -> None:
    """Exit 77, and not the next file in the order: it would be the wrong one. A closed home is no config file."""
    home = tmp_path / "home"
    (home / ".config" / "inboxd").mkdir(parents=True)
    (home / ".config" / "inboxd" / "inboxd.toml").write_text("", encoding="utf-8")
    code = (
        "import os, sys, pathlib\n"
        "from inboxd.config import load_settings\n"
        "from inboxd.errors import OperatorFault\n"
        "home = pathlib.Path(sys.argv[1])\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: print(load_settings(None, {'HOME': str(home)}, pathlib.Path('/')).source)\n"
        "except OperatorFault as fault: print(fault.exit_code, fault.code)\n"
    )

    def found() -> str:
        command = [sys.executable, "-c", code, str(home)]
        env = {**os.environ, "PYTHONPATH": str(SOURCE)}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()

    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    (home / ".config" / "inboxd" / "inboxd.toml").chmod(0)
    assert found() == f"{EXIT_NOPERM} config_unreadable"
    home.chmod(0)
    assert found() in ("None", str(sources.SYSTEM_FILE))
    home.chmod(0o700)


def test_relative_paths_start_from_the_config_file(tmp_path: Path) -> None:
    """The same config means the same folders, wherever the daemon is started."""
    (tmp_path / "conf").mkdir()
    file = tmp_path / "conf" / "inboxd.toml"
    file.write_text('[inbox]\npath = "../in"\n[database]\nurl = "sqlite:///../db/x.db"\n', encoding="utf-8")
    settings = load_settings(file, {}, Path("/"))
    assert settings.inbox.path == tmp_path / "in"
    assert settings.database.url == f"sqlite:///{tmp_path}/db/x.db"
    assert settings.archive.failed == tmp_path / "conf" / "data" / "failed"


def test_the_environment_overrides_any_key(tmp_path: Path) -> None:
    """INBOXD_SECTION__KEY outranks the file: texts as they are, other values as in TOML; feeds and fields too."""
    settings = load(
        tmp_path,
        '[log]\nlevel = "error"\n[feeds.My-Feed]\nkey = ["id"]\ncursor = "At"\n'
        '[feeds.My-Feed.fields]\nid = { type = "integer" }\nAt = { type = "timestamp" }\n',
        INBOXD_LOG__LEVEL="debug",
        INBOXD_INBOX__IGNORE='["*.x", "*.y"]',
        INBOXD_INBOX__PATH="12",
        INBOXD_ARCHIVE__KEEP="7d",
        INBOXD_FEEDS__MY_FEED__LATE="merge",
        INBOXD_FEEDS__MY_FEED__UNDO="true",
        INBOXD_FEEDS__MY_FEED__MAX_REJECTED="10",
        INBOXD_FEEDS__MY_FEED__TABLE="mine",
        INBOXD_FEEDS__MY_FEED__FIELDS__AT__UNIT="ms",
        INBOXD_FEEDS__MY_FEED__FIELDS__NOTE='{ type = "text", required = false }',
        inboxd_http__listen="localhost:1",
    )
    feed = settings.feeds[0]
    assert (settings.log.level, settings.inbox.ignore, settings.inbox.path) == (
        "debug",
        ("*.x", "*.y"),
        tmp_path / "12",
    )
    assert (settings.archive.keep, settings.http.listen) == (604_800.0, "localhost:1")
    assert (feed.name, feed.late, feed.undo, feed.table) == ("My-Feed", Late.MERGE, True, "mine")
    assert feed.max_rejected == Limit(count=10)
    assert [(field.name, field.unit) for field in feed.fields] == [("id", None), ("At", "ms"), ("note", None)]


def test_the_environment_overrides_the_built_in_feed_key_by_key(tmp_path: Path) -> None:
    """One variable changes one key of the feed that needs no config file."""
    env = {"INBOXD_FEEDS__EVENTS__LATE": "merge", "INBOXD_FEEDS__EVENTS__FIELDS__VALUE__REQUIRED": "false"}
    settings = load_settings(None, env, tmp_path)
    assert settings.feeds[0].late is Late.MERGE
    assert not settings.feeds[0].field("value").required
    assert settings.feeds[0].field("ts") == EVENTS.field("ts")


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    """What Kubernetes or a script sets beside ours is no setting and no error."""
    env = {"INBOXD_SERVICE_HOST": "10.0.0.1", "INBOXD_PORT": "tcp://x", "INBOXD": "1", "INBOX__PATH": "x"}
    assert load_settings(None, env, tmp_path) == load_settings(None, {}, tmp_path)


def test_a_variable_with_one_underscore_too_few_is_told(tmp_path: Path) -> None:
    """INBOXD_DATABASE_URL would be ignored in silence, and the wrong database filled."""
    with pytest.raises(InvalidConfig, match=r"INBOXD_DATABASE_URL: .*INBOXD_DATABASE__URL"):
        load_settings(None, {"INBOXD_DATABASE_URL": "postgresql://x/y"}, tmp_path)


def test_a_commands_option_outranks_all_and_starts_from_the_working_folder(tmp_path: Path) -> None:
    """``--db sqlite:///x.db`` is the file x.db here, whatever the config file and the environment say."""
    (tmp_path / "here").mkdir()
    (tmp_path / "inboxd.toml").write_text("", encoding="utf-8")
    settings = load_settings(
        tmp_path / "inboxd.toml",
        {"INBOXD_DATABASE__URL": "sqlite:///y.db"},
        tmp_path / "here",
        {"database.url": "sqlite:///x.db"},
    )
    assert settings.database.sqlite_path == tmp_path / "here" / "x.db"
    with pytest.raises(InvalidConfig, match=r"the command line: database\.url: is for a database"):
        load_settings(None, {}, tmp_path, {"database.url": "mysql://x"})


def test_all_errors_are_told_at_once_each_with_key_and_line(tmp_path: Path) -> None:
    """One look at the output is enough to mend a whole config."""
    assert faults(
        tmp_path,
        """\
[inbox]
setle = "5s"
rescan = 5
ignore = [
  "*.tmp",
  5,
]
polling = "sometimes"
max_file_size = "lots"
[archiv]
keep = "1d"
[database]
url = 5
[http]
listen = "8765"
[feeds]
x = 1
[feeds.orders]
match = "orders/**"
cursor = "nmae"
undo = "yes"
[feeds.orders.fields]
id = { typ = "text" }
at = { type = "time" }
name = { type = "text", min_length = -1, required = "no" }
""",
        INBOXD_LOG__LEVEL="loud",
    ) == [
        "inboxd.toml:2: inbox.setle: unknown key; did you mean settle?",
        'inboxd.toml:3: inbox.rescan: must be a duration with its unit (ms, s, m, h, d, w), such as "5s"',
        'inboxd.toml:6: inbox.ignore[1]: must be a text in quotes, such as "this"',
        "inboxd.toml:8: inbox.polling: must be 'auto', 'always' or 'never'",
        'inboxd.toml:9: inbox.max_file_size: must be a size with its unit, such as "16GiB"',
        "inboxd.toml:10: archiv: unknown key; did you mean archive?",
        'inboxd.toml:13: database.url: must be a text in quotes, such as "this"',
        'inboxd.toml:15: http.listen: must be "host:port", such as "127.0.0.1:8765", or "" for no page',
        "inboxd.toml:17: feeds.x: must be a table",
        'inboxd.toml:18: feeds.orders.key: is missing: mode "upsert" needs one; mode = "append" does not',
        'inboxd.toml:19: feeds.orders.match: must be an array, such as ["this"]',
        "inboxd.toml:20: feeds.orders.cursor: 'nmae' is not one of the feed's fields (id, at, name)",
        "inboxd.toml:21: feeds.orders.undo: must be true or false",
        "inboxd.toml:23: feeds.orders.fields.id.typ: unknown key; did you mean type?",
        f"inboxd.toml:23: feeds.orders.fields.id.type: is missing; it is one of {', '.join(FieldType)}",
        f"inboxd.toml:24: feeds.orders.fields.at.type: must be {QUOTED_TYPES}",
        "inboxd.toml:25: feeds.orders.fields.name.min_length: must be greater than or equal to 0",
        "inboxd.toml:25: feeds.orders.fields.name.required: must be true or false",
        "INBOXD_LOG__LEVEL: log.level: must be 'debug', 'info', 'warning' or 'error'",
    ]


def test_what_only_follows_from_an_error_is_not_told(tmp_path: Path) -> None:
    """A value of the wrong form is told once: nothing is said to be absent, or of another mode, because of it."""
    assert faults(
        tmp_path,
        """\
[feeds.a]
mode = "snap"
absent = "remove"
[feeds.b]
key = ["id"]
cursor = ["c"]
late = "merge"
fields.id = { type = "text" }
expect = { every = "1 day" }
deletes = { form = "op", then = "remove" }
max_deleted = "5%"
[[notify]]
exec = "/bin/tell"
deferred_for = "soon"
[[notify]]
on = ["file_fialed"]
url = "ftp://x"
[[notify]]
on = "file_failed"
exec = ["/bin/tell"]
""",
    ) == [
        "inboxd.toml:1: feeds.a.fields: is missing: a feed must name its fields",
        "inboxd.toml:2: feeds.a.mode: must be 'upsert', 'append' or 'snapshot'",
        'inboxd.toml:6: feeds.b.cursor: must be a text in quotes, such as "this"',
        'inboxd.toml:9: feeds.b.expect.every: must be a duration with its unit (ms, s, m, h, d, w), such as "5s"',
        "inboxd.toml:10: feeds.b.deletes[0].form: unknown key; did you mean from?",
        "inboxd.toml:10: feeds.b.deletes[0].from: is missing",
        'inboxd.toml:13: notify[0].exec: must be an array, such as ["this"]',
        'inboxd.toml:14: notify[0].deferred_for: must be a duration with its unit (ms, s, m, h, d, w), such as "5s"',
        (
            "inboxd.toml:16: notify[1].on[0]: is not an event that notices are sent of; "
            f"these are: {', '.join(NOTIFIABLE)}"
        ),
        (
            "inboxd.toml:17: notify[1].url: must be https://host/path, "
            "or http:// for a receiver on this machine or network"
        ),
        'inboxd.toml:19: notify[2].on: must be an array, such as ["this"]',
    ]


def test_a_table_of_which_nothing_is_left_is_told_by_its_errors(tmp_path: Path) -> None:
    """A table whose every key is wrong ends in its errors, not in a bug."""
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, '[feeds.a]\nkey = ["key"]\ncursor = "ts"\n[feeds.a.fields]\nkey = "text"\nts = "timestamp"\n')
    assert {"feeds.a.fields.key", "feeds.a.fields.ts"} <= {fault.key for fault in caught.value.faults}


def test_the_fault_carries_its_parts_for_programs(tmp_path: Path) -> None:
    """Key, line and message can be had one by one, and the message for people holds them all."""
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, '\n[log]\nlevle = "info"\n')
    (fault,) = caught.value.faults
    assert (fault.key, fault.line, fault.origin) == ("log.levle", 3, str(tmp_path / "inboxd.toml"))
    assert str(fault) in caught.value.message
    assert caught.value.message.startswith("an error in the config:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[inbox]\npath = nope\n", "inboxd.toml:2: invalid TOML: Invalid value (column 8)"),
        ("a = 1\na = 2\n", "inboxd.toml:2: invalid TOML: Cannot overwrite a value (column 6)"),
        ('a = 1\nb = """\n\n', "inboxd.toml:2: invalid TOML: Unterminated string"),
        ("[inbox]\npath = " + "[" * 5000, "inboxd.toml: invalid TOML: nested too deep"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    """A slip in the syntax is pointed at."""
    assert faults(tmp_path, text) == [expected]


def test_a_config_that_is_not_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    """A file saved in another encoding is refused where it goes wrong; a BOM is none."""
    (tmp_path / "inboxd.toml").write_bytes(b"# caf\xc3\xa9\n# caf\xe9\n")
    with pytest.raises(InvalidConfig, match=r"inboxd.toml:2: is not UTF-8"):
        load_settings(None, {}, tmp_path)
    (tmp_path / "inboxd.toml").write_bytes(b'\xef\xbb\xbf[log]\nlevel = "error"\n')
    assert load_settings(None, {}, tmp_path).log.level == "error"


def test_inboxd_does_not_write_into_its_own_inbox(tmp_path: Path) -> None:
    """A folder of processed files, a log or a database in the inbox would be found there and loaded."""
    assert faults(
        tmp_path,
        '[archive]\nprocessed = "inbox/done"\nfailed = "inbox"\n[database]\nurl = "sqlite:///inbox/x.db"\n'
        '[log]\nfile = "./data/../inbox/log.json"\n',
    ) == [
        f"inboxd.toml:2: archive.processed: must not be in the inbox ({tmp_path}/inbox)",
        f"inboxd.toml:3: archive.failed: must not be in the inbox ({tmp_path}/inbox)",
        f"inboxd.toml:5: database.url: must not be in the inbox ({tmp_path}/inbox)",
        f"inboxd.toml:7: log.file: must not be in the inbox ({tmp_path}/inbox)",
    ]
    assert faults(tmp_path, '[archive]\nprocessed = "x"\nfailed = "./x"\n') == [
        "inboxd.toml:3: archive.failed: must not be the same folder as archive.processed"
    ]
    assert load(tmp_path, '[archive]\nprocessed = "inbox2"\n').archive.processed == tmp_path / "inbox2"


def test_an_archive_folder_holds_nothing_of_ours(tmp_path: Path) -> None:
    """``archive.keep`` removes what is old in processed/: no database, log, inbox or failed file may be there."""
    holds = f"must not be in archive.processed ({tmp_path}/data), which holds senders' files alone"
    assert faults(
        tmp_path, '[archive]\nprocessed = "data"\nfailed = "data/failed"\n[inbox]\npath = "data/inbox"\n'
    ) == [
        f"inboxd.toml: database.url: {holds}",
        f"inboxd.toml: log.file: {holds}",
        f"inboxd.toml:3: archive.failed: {holds}",
        f"inboxd.toml:5: inbox.path: {holds}",
    ]


@pytest.mark.parametrize("listen", ["127.0.0.1:1:2", "name:1:2", "[1.2.3.4:5]:6"])
def test_an_address_of_too_many_parts_is_none(tmp_path: Path, listen: str) -> None:
    """It would only be met when the page is to be served."""
    with pytest.raises(InvalidConfig, match=r'http.listen: must be "host:port"'):
        load(tmp_path, f'[http]\nlisten = "{listen}"\n')


def test_a_scan_without_a_pause_is_refused(tmp_path: Path) -> None:
    """A rescan of 0s would keep a core busy."""
    assert faults(tmp_path, '[inbox]\nrescan = "0s"\n') == ['inboxd.toml:2: inbox.rescan: must be at least "100ms"']


def test_reading_the_config_brings_no_database_and_no_web_server() -> None:
    """Commands that need neither start without them."""
    code = "import sys, inboxd.config; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    loaded = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert {"pydantic", "inboxd"} <= set(loaded.split())
    assert not {"sqlalchemy", "alembic", "psycopg", "pysqlite3", "starlette", "uvicorn", "jinja2", "rich"} & set(
        loaded.split()
    )
