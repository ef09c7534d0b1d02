"""What the config can already say and the rest cannot do yet: refused at start, before it could be done wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inboxd.errors import EXIT_CONFIG, OperatorFault
from inboxd.model import Feed, Field, FieldType, names_of


def refuse_unfinished(feeds: Sequence[Feed]) -> None:
    """Raise for feeds that cannot be followed yet."""
    for feed in feeds:
        plain = Feed(
            feed.name, feed.match, feed.table, feed.key, feed.cursor, feed.fields, late=feed.late, expect=feed.expect
        )
        same = replace(
            plain,
            records=feed.records,
            max_future_s=feed.max_future_s,
            max_rejected=feed.max_rejected,
            extra=feed.extra,
            undo=feed.undo,
        )
        own = {"run_id", "record_no", "record_key", "updated_at", "extra"}
        if (
            feed != same
            or feed.cursor is None
            or any(field != _plain_field(field) or field.name.lower() in own for field in feed.fields)
        ):
            hint = "leave them out until the next version"
            message = f"feed {feed.name!r} uses settings that this version knows but cannot follow yet"
            raise OperatorFault("unsupported_feed", message, hint, exit_code=EXIT_CONFIG)


def _plain_field(field: Field) -> Field:
    unit = field.unit if field.unit != "ns" else None
    kind = FieldType.TEXT if field.type is FieldType.DECIMAL else field.type
    return replace(
        field,
        path=names_of(field.path),
        unit=unit,
        type=kind,
        coalesce=(),
        formats=(),
        timezone=None,
        null=(),
        coerce=False,
    )
