"""What a config file may say: every key with its form, its default and a sentence, as pydantic models.

The models take what is written apart and say what has the wrong form. What only makes sense together (a feed's key must
be one of its fields) is checked by ``feeds``. The defaults stand here as a config file would write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    GetJsonSchemaHandler,
    StrictBool,
    StrictInt,
)
from pydantic.json_schema import JsonSchemaValue

from inboxd.config.forms import (
    PATH_SCHEMA,
    ConfigTable,
    Duration,
    Formats,
    From,
    Names,
    ShareOrCount,
    Text,
    one_or_more,
    setting,
)
from inboxd.config.settings import (
    ArchiveSettings,
    DatabaseSettings,
    HttpSettings,
    InboxSettings,
    LogSettings,
    RetentionSettings,
)
from inboxd.model import Extra, FieldType, Gone, Late, Mode, Shape

EVENTS: Final = "events"
EVENTS_FEED: Final[Mapping[str, Any]] = {  # Any: the values of a TOML table
    "match": ["**"],
    "records": "",
    "table": "target",
    "key": ["key"],
    "cursor": "ts",
    "fields": {
        "key": {"type": "text"},
        "name": {"type": "text"},
        "value": {"type": "real"},
        "ts": {"type": "timestamp", "label": "timestamp"},
    },
}
"""What the built-in feed has that others must say, or have from their name; the rest is ``FeedTable``'s defaults."""


class NotifyTable(ConfigTable):
    """Somebody who is told of events."""

    on: tuple[Text, ...] = setting([], "The events that notices are sent of, such as file_failed.")
    exec: tuple[Text, ...] = setting([], "A program and its arguments; it gets the notice as JSON on standard input.")
    url: str = setting("", "An address that the notice is posted to as JSON, in place of exec.")
    headers_file: str = setting("", 'A file with headers for url, "Name: value" a line, such as a secret token.')
    deferred_for: Duration | None = setting(None, "Also send a notice of files that are deferred for longer than this.")


class FieldTable(ConfigTable):
    """One field of a feed's records."""

    type: FieldType | None = setting(None, "What values it has.")
    path: From | None = setting(None, "The path to its value; default the field's name.", alias="from")
    coalesce: tuple[From, ...] | None = setting(
        None, "Paths in place of from: the first that is there and not null counts.", min_length=1
    )
    required: StrictBool | None = setting(None, "Whether a record without it is refused; default true.")
    default: object = setting(None, "The value where the record has none; makes the field optional.")
    label: str | None = setting(None, "The name in error codes; default the field's name.")
    minimum: object = setting(None, "The least value: numbers, timestamps, dates.", alias="min")
    maximum: object = setting(None, "The greatest value: numbers, timestamps, dates.", alias="max")
    min_length: StrictInt | None = setting(None, "The least number of characters of a text.", ge=0)
    max_length: StrictInt | None = setting(None, "The greatest number of characters of a text.", ge=0)
    pattern: str | None = setting(None, "A regular expression that a text must match somewhere.")
    choices: tuple[object, ...] | None = setting(None, "The only values it may have.", min_length=1)
    unit: str | None = setting(None, "The unit of epoch numbers in a timestamp: s, ms, us or ns.")
    format: Formats | None = setting(
        None, "How times or dates are written, in strptime's directives; of several, the first that fits.", min_length=1
    )
    timezone: str | None = setting(None, "The zone of times without an offset, such as Europe/Berlin; default UTC.")
    null: tuple[str, ...] | None = setting(None, "Texts that count as null.")
    coerce: StrictBool | None = setting(
        None, "Accept the same value in another JSON type: numbers as text, digits as integers, 0 and 1 as booleans."
    )


class ConditionTable(ConfigTable):
    """What a value must be for a record to count."""

    path: From = setting(..., "The path to the value, as JSON has it.", alias="from")
    any_of: tuple[object, ...] | None = setting(None, "It is one of these.", alias="in", min_length=1)
    none_of: tuple[object, ...] | None = setting(
        None, "It is none of these; so is an absent one.", alias="not_in", min_length=1
    )
    pattern: str | None = setting(None, "It is a text that this regular expression matches somewhere.")
    exists: StrictBool | None = setting(None, "true: it is there and not null; false: it is not.")


class DeletionTable(ConditionTable):
    """What a value must be for a record to be a deletion."""

    then: Gone | None = setting(None, "What becomes of the row: remove it, or mark it in the column deleted_at.")


class MomentTable(ConfigTable):
    """Where the moment of a snapshot stands, and how."""

    path: From = setting(..., "The path: one of $file., $path. or $.", alias="from")
    type: FieldType = setting(FieldType.TIMESTAMP, "timestamp, date or integer.")
    unit: str | None = setting(None, "The unit of an epoch number: s, ms, us or ns.")
    format: Formats | None = setting(None, "How it is written, in strptime's directives.", min_length=1)
    timezone: str | None = setting(None, "The zone of a time without an offset.")


class ExpectTable(ConfigTable):
    """When files are to arrive."""

    every: Duration | None = setting(None, "At least so often.")
    by: str | None = setting(None, 'Before this time of each of the days, such as "06:00".')
    timezone: str = setting("UTC", "The zone of that time.")
    days: str = setting("mon-sun", 'The weekdays it is for: "mon-fri", "sat,sun".')
    grace: Duration = setting("0s", "How much later is not late yet.")
    min_records: StrictInt = setting(1, "A file with fewer records does not count as an arrival.", ge=0)


class _OneOrMore:
    """Says in the JSON Schema that one of them may stand without the brackets."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:  # noqa: ANN401 - handed through
        """Return the schema of one of them, or of the list."""
        schema = handler(core)
        return {"anyOf": [schema["items"], schema]}


class _PathOrTable:
    """Says in the JSON Schema that a path stands for the table with that path alone."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:  # noqa: ANN401 - handed through
        """Return the schema of a path, or of the table."""
        return {"anyOf": [*PATH_SCHEMA["anyOf"], handler(core)]}


def _moment(value: object) -> object:
    """Return a moment that is only a path as the table that it stands for."""
    return {"from": value} if isinstance(value, (str, list)) else value


Where = Annotated[tuple[ConditionTable, ...], BeforeValidator(one_or_more), _OneOrMore()]
Deletions = Annotated[tuple[DeletionTable, ...], BeforeValidator(one_or_more), _OneOrMore()]
Moment = Annotated[MomentTable, BeforeValidator(_moment), _PathOrTable()]


class FeedTable(ConfigTable):
    """A named kind of file: which files, which fields, which table."""

    match: tuple[Text, ...] | None = setting(
        None, 'Globs relative to the inbox; the first feed that matches wins. Default "NAME/**".', min_length=1
    )
    mode: Mode = setting(
        Mode.UPSERT, "What a file is: news (upsert), facts (append), or everything there is (snapshot)."
    )
    records: Names = setting("", "Where the records sit in a document; empty is the top level.")
    shape: Shape | None = setting(None, "members: each member of an object is a record; values: each top-level value.")
    explode: Names = setting("", "An array inside each of the records, whose elements are the records instead.")
    where: Where | None = setting(None, "Conditions that a record must meet to be one of the feed's.", min_length=1)
    table: str | None = setting(None, "The table that it fills; default the feed's name.")
    key: tuple[Text, ...] | None = setting(None, "The fields that tell one record from another.")
    cursor: str | None = setting(None, "The field that tells newer from older; without it, the last one counts.")
    late: Late = setting(Late.SKIP, "Records at or below the watermark: skip them, or merge the newer ones.")
    max_future: Duration = setting("24h", "A cursor further ahead of the clock is rejected.")
    max_rejected: ShareOrCount = setting(
        "100%", "Above this share of the records not skipped, or count, the file fails."
    )
    deletes: Deletions | None = setting(
        None, "Conditions that a record meets if it is a deletion, and then, what becomes of the row.", min_length=1
    )
    max_deleted: ShareOrCount | None = setting(
        None, "Above this share of the live rows, or count, the file fails; default 100%, in a snapshot 20%."
    )
    as_of: Moment | None = setting(None, 'The time of a snapshot: a path, or a table; default "$file.mtime".')
    absent: Gone | None = setting(None, "What becomes of rows that a snapshot does not have: remove or mark.")
    scope: tuple[Text, ...] | None = setting(
        None, "Fields whose values say of which rows a snapshot is everything; default all.", min_length=1
    )
    allow_empty: StrictBool = setting(False, "Whether a snapshot without records counts.")
    expect: ExpectTable | None = setting(None, "When files are to arrive.")
    extra: Extra = setting(Extra.IGNORE, "Unknown fields: ignore, reject, or keep them in the column extra.")
    undo: StrictBool = setting(False, "Keep before-images, so that a run can be undone.")
    null: tuple[str, ...] | None = setting(None, "Texts that count as null in every field that does not say its own.")
    coerce: StrictBool | None = setting(None, "coerce for every text, integer and boolean field.")
    fields: dict[str, FieldTable] | None = setting(None, "The record's fields, by name.", min_length=1)


INNER_TABLES: Final[Mapping[str, type[BaseModel]]] = {
    "where": ConditionTable,
    "deletes": DeletionTable,
    "as_of": MomentTable,
    "expect": ExpectTable,
}
"""The tables in a feed's table, or the elements of the list that it holds."""


def table_of_feed(key: Sequence[str | int]) -> type[BaseModel]:
    """Return the model of the table that a key of ``feeds.NAME`` stands in."""
    if key[2:3] == ("fields",):
        return FieldTable
    return INNER_TABLES.get(str(key[2]), FeedTable) if len(key) > 3 else FeedTable  # noqa: PLR2004 - feeds.NAME.where.from


class ConfigFile(ConfigTable):
    """The whole config."""

    inbox: InboxSettings = InboxSettings()
    archive: ArchiveSettings = ArchiveSettings()
    database: DatabaseSettings = DatabaseSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    http: HttpSettings = HttpSettings()
    notify: tuple[NotifyTable, ...] = setting([], "Who receives notices of events.")
    feeds: dict[str, FeedTable] = setting({}, "The feeds; without any, the feed events.")
