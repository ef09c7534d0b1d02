"""The database's URL: which are taken, where the password comes from, and how it is kept out of sight."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from inboxd.config.folders import absolute

CREDENTIAL: Final = "inboxd-database-password"
"""The name of the systemd credential (``LoadCredential=``) that holds the password."""

MASK: Final = "***"
_SQLITE: Final = re.compile(r"sqlite(?:\+pysqlite)?:///(?P<path>.+)", re.DOTALL)
_POSTGRES: Final = re.compile(r"(?:postgresql(?:\+psycopg)?|postgres)://(?P<rest>.*)", re.DOTALL)
# Greedy to the last "@": a password with an unquoted "@", "/" or "?" in it must not leak in part.
_USERINFO: Final = re.compile(r"(?P<before>://[^:/@]*):.*@", re.DOTALL)
_SECRET_OPTION: Final = re.compile(r"(?P<name>[?&](?:password|sslpassword)=)[^&]*", re.IGNORECASE)
_FORMS: Final = "sqlite:///data/inboxd.db or postgresql://user@host/db"


def masked(url: str) -> str:
    """Return the URL with its password, if any, masked, wherever in it the password stands."""
    return _SECRET_OPTION.sub(rf"\g<name>{MASK}", _USERINFO.sub(rf"\g<before>:{MASK}@", url))


def check_url(url: str) -> str:
    """Return the URL in one form per database; ``ValueError``, which never quotes it, if it is none that is taken."""
    if (postgres := _POSTGRES.fullmatch(url)) is not None:
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
    return masked(url) != url


def with_password(url: str, password: str) -> str:
    """Return a PostgreSQL URL with the password in it."""
    scheme, rest = url.split("://", 1)
    user, at, server = rest.partition("@")
    secret = quote(password, safe="")
    if at:
        return f"{scheme}://{user}:{secret}@{server}"
    return f"{url}{'&' if '?' in url else '?'}password={secret}"


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
        password = file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        msg = f"the password cannot be read from {file}: {reason}"
        raise ValueError(msg) from None
    if not password:
        msg = f"{file} is empty"
        raise ValueError(msg)
    return password
