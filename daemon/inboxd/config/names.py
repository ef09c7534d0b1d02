"""Which names a table and a column may have, on both databases."""

from __future__ import annotations

import re
from typing import Final

from inboxd.model import OWN_PREFIX

LONGEST_NAME: Final = 63
"""Bytes of a name in PostgreSQL (NAMEDATALEN - 1); SQLite has no limit."""

MOST_FIELDS: Final = 1000
"""Columns of a table: PostgreSQL takes 1,600, SQLite 2,000, less the columns of ours."""

RESERVED_TABLES: Final = frozenset(
    {
        "etl_runs",
        "dead_letters",
        "lineage",
        "lineage_records",
        "watermarks",
        "tombstones",
        "notices",
        "expectations",
        "feed_columns",
        "run_log",
        "before_images",
        "staging",
        "staged",
        "alembic_version",
        "inboxd_schema",
    }
)
"""The control tables, and names that they may come to have."""

_RESERVED_TABLE_STARTS: Final = ("sqlite_", "pg_", "staging_", "staged_", OWN_PREFIX)

RESERVED_COLUMNS: Final = frozenset(
    {
        # SQLite's row number
        "rowid",
        "oid",
        "_rowid_",
        # PostgreSQL's system columns, which not even quotes make legal
        "tableoid",
        "xmin",
        "cmin",
        "xmax",
        "cmax",
        "ctid",
    }
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FEED_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LABEL: Final = re.compile(r"[A-Za-z0-9_]+")


def wrong_table(name: str) -> str | None:
    """Say what keeps a name from being a table's, ``None`` if nothing does. SQLite tells no case apart."""
    lower = name.lower()
    if lower in RESERVED_TABLES or lower.startswith(_RESERVED_TABLE_STARTS):
        return f"{name!r} is a name that inboxd or the database keeps for itself"
    return _wrong_identifier(name)


def wrong_column(name: str) -> str | None:
    """Say what keeps a name from being a column's, ``None`` if nothing does."""
    if name.lower() in RESERVED_COLUMNS or name.lower().startswith(OWN_PREFIX):
        return f'{name!r} is a column kept for inboxd or the database; give the field another name, and from = "{name}"'
    return _wrong_identifier(name)


def wrong_feed(name: str) -> str | None:
    """Say what keeps a name from being a feed's, ``None`` if nothing does."""
    if _FEED_NAME.fullmatch(name) is None or len(name) > LONGEST_NAME:
        return f"a feed's name is at most {LONGEST_NAME} letters, digits, - _ and ., and begins with no - or ."
    return None


def wrong_label(label: str) -> str | None:
    """Say what keeps a text from being part of an error code, ``None`` if nothing does."""
    if _LABEL.fullmatch(label) is None or len(label) > LONGEST_NAME:
        return f"a label is at most {LONGEST_NAME} letters, digits and _: it becomes part of error codes"
    return None


def _wrong_identifier(name: str) -> str | None:
    if _IDENTIFIER.fullmatch(name) is None or len(name) > LONGEST_NAME:
        return f"a table's or column's name is at most {LONGEST_NAME} letters, digits and _, and begins with no digit"
    return None
