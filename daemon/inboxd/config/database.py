"""The database's URL: which are taken, where the password comes from, and how it is kept out of sight."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from inboxd.config.folders import absolute
from inboxd.extras import how_to_install
from inboxd.regular import read_regular

CREDENTIAL: Final = "inboxd-database-password"
"""The name of the systemd credential (``LoadCredential=``) that holds the password."""

MASK: Final = "***"
SHOWN: Final = frozenset(
    [
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "service",
        "passfile",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "sslnegotiation",
        "gssencmode",
        "channel_binding",
        "require_auth",
        "application_name",
        "connect_timeout",
        "options",
        "target_session_attrs",
        "load_balance_hosts",
        "client_encoding",
        "tcp_user_timeout",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
    ]
)
"""What of a URL people may see. The rest is masked: a later libpq may know secrets that this list does not."""
_FILES: Final = ("passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl")
_SQLITE: Final = re.compile(r"sqlite(?:\+pysqlite)?:///(?P<path>.+)", re.DOTALL)
_POSTGRES: Final = re.compile(r"(?:postgresql(?:\+psycopg)?|postgres)://(?P<rest>.*)", re.DOTALL)
_FORMS: Final = "sqlite:///data/inboxd.db or postgresql://user@host/db"
_NOT_READABLE: Final = (
    "cannot be read: write postgresql://user@host/db, and in a name or password"
    " %40 for @, %2F for /, %3A for :, %3F for ?"
)


def masked(url: str) -> str:
    """Return the URL with its secrets masked, wherever they stand; of one that cannot be read, the scheme alone."""
    if _SQLITE.fullmatch(url):
        return url
    scheme, colon, _ = url.partition("://")
    try:
        options = _options(url)
    except ValueError:
        return f"{scheme}://{MASK}" if colon and scheme.isascii() and scheme.replace("+", "").isalnum() else MASK
    return _url_of({name: value if name in SHOWN else MASK for name, value in options.items()})


def _options(url: str) -> dict[str, str]:
    """Take a PostgreSQL URL apart as libpq does; ``ValueError``, which never quotes it, where that is not possible.

    libpq reads a password with an unquoted ``@``, ``/`` or ``:`` as parts of the host, the port or the database, which
    are shown, here and in its own messages: what looks like that is refused.
    """
    try:
        from psycopg import ProgrammingError  # noqa: PLC0415 - the extra "postgres" may not be installed
        from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - the same
    except ModuleNotFoundError:
        msg = f"needs psycopg, which is not installed: {how_to_install('postgres')}"
        raise ValueError(msg) from None
    postgres = _POSTGRES.fullmatch(url)
    if postgres is None or "\0" in url:
        raise ValueError(_NOT_READABLE)
    try:
        found = conninfo_to_dict(f"postgresql://{postgres['rest']}")
    except (ProgrammingError, UnicodeError):
        raise ValueError(_NOT_READABLE) from None
    options = {name: str(value) for name, value in found.items() if value is not None}
    head = postgres["rest"].partition("/")[0]
    path = postgres["rest"].partition("?")[0].partition("/")[2]
    hosts = options.get("host", "") + options.get("hostaddr", "")
    ports = options.get("port", "").replace(",", "")
    if "?" in head.rpartition("@")[0] or head.partition("?")[0].count("@") > 1 or "@" in path + hosts:
        raise ValueError(_NOT_READABLE)
    if ports and not (ports.isascii() and ports.isdecimal()):
        raise ValueError(_NOT_READABLE)
    return options


def _url_of(options: Mapping[str, str]) -> str:
    """Put a PostgreSQL URL together: user, hosts and database where people look for them, the rest behind."""
    rest = dict(options)
    user = _quoted(rest.pop("user", ""))
    secret = f":{_quoted(rest.pop('password'))}" if user and "password" in rest else ""
    hosts = rest.get("host", "").split(",")
    ports = rest.get("port", "").split(",")
    where = ""
    if not any("/" in host for host in hosts) and len(ports) == len(hosts):  # a socket's folder has a / in it
        rest.pop("host", None)
        rest.pop("port", None)
        pairs = zip(hosts, ports, strict=True)
        where = ",".join(f"{_host(host)}{f':{port}' if port else ''}" for host, port in pairs)
    database = _quoted(rest.pop("dbname", ""))
    query = "&".join(f"{name}={quote(value, safe='/:,*')}" for name, value in rest.items())
    return f"postgresql://{user}{secret}{'@' if user else ''}{where}/{database}{f'?{query}' if query else ''}"


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")


def _quoted(text: str) -> str:
    return quote(text, safe="*")


def check_url(url: str) -> str:
    """Return the URL in one form per database; ``ValueError``, which never quotes it, if it is none that is taken."""
    if (postgres := _POSTGRES.fullmatch(url)) is not None:
        _options(url)
        return f"postgresql://{postgres['rest']}"
    sqlite = _SQLITE.fullmatch(url)
    if sqlite is None:
        if url.startswith("sqlite:"):
            msg = "names no file: an in-memory database would forget what was loaded; write sqlite:///data/inboxd.db"
        elif "://" in url:
            msg = f"is for a database or driver that is not supported; write {_FORMS}"
        else:
            msg = f"is not a URL; write {_FORMS}"
        raise ValueError(msg)
    path = sqlite["path"]
    if path == ":memory:" or path.startswith("file:"):
        msg = "must name a plain file, such as sqlite:///data/inboxd.db"
        raise ValueError(msg)
    if "?" in path or "\0" in path:
        msg = "must name a plain file, without options"
        raise ValueError(msg)
    return f"sqlite:///{path}"


def absolute_url(url: str, base: Path | None) -> str:
    """Return a checked URL with SQLite's path made absolute; ``base`` is the folder that relative paths start from."""
    sqlite = _SQLITE.fullmatch(url)
    if sqlite is None:
        return url
    path = str(absolute(base, sqlite["path"]))
    if "?" in path:
        msg = "the folder's name has a ? in it, which a database's URL cannot hold"
        raise ValueError(msg)
    return f"sqlite:///{path}"


def has_password(url: str) -> bool:
    """Tell whether the URL itself holds a password."""
    return "password" in _options(url)


def files_named(url: str) -> dict[str, Path]:
    """Return the files that a PostgreSQL URL names, by its options: libpq reads them at each connection."""
    options = _options(url)
    return {name: Path(options[name]) for name in _FILES if Path(options.get(name, "")).is_absolute()}


def with_password(url: str, password: str) -> str:
    """Return a PostgreSQL URL with the password in it."""
    return _url_of({**_options(url), "password": password})


def credential_file(env: Mapping[str, str]) -> Path | None:
    """Return the file of the systemd credential that holds the password, if the service was given one."""
    folder = env.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    file = Path(folder, CREDENTIAL)
    return file if file.exists() else None


def read_password(file: Path) -> str:
    """Return the password in a file, without the newline that editors end it with; ``ValueError`` if there is none."""
    try:
        password = read_regular(file).decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        msg = f"the password cannot be read from {file}: {reason}"
        raise ValueError(msg) from None
    if not password or "\0" in password:
        msg = f"{file} {'has a zero byte in it' if password else 'is empty'}"
        raise ValueError(msg)
    return password
