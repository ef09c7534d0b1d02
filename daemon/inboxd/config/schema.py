"""What a config file may say: every key with its form, its default and a sentence, as pydantic models.

The models take what is written apart and say what has the wrong form. What only makes sense together (a feed's key must
be one of its fields) is checked by ``feeds``. The defaults stand here as a config file would write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StrictInt,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from inboxd.config.database import check_url
from inboxd.config.paths import parse_names, parse_path
from inboxd.config.settings import LogFormat, LogLayout, LogLevel, Polling
from inboxd.config.values import parse_duration, parse_keep, parse_limit, parse_size
from inboxd.model import Extra, FieldType, Gone, Late, Limit, Mode, Path, Shape

EVENTS: Final = "events"
LONGEST_SUFFIX: Final = 64
"""Bytes in one of ``inbox.suffixes``."""
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


def _one_or_more(value: object) -> object:
    """Return one condition, path or format as a list of one."""
    return value if isinstance(value, (list, tuple)) else [value]


def _not_empty(value: str) -> str:
    if not value:
        msg = "must not be empty"
        raise ValueError(msg)
    return value


def _listen(value: str) -> str:
    """Return ``host:port`` unchanged if that is what it is, or empty."""
    host, colon, port = value.rpartition(":")
    if value and not (colon and host and port.isascii() and port.isdecimal() and int(port) < 2**16):
        msg = 'must be "host:port", such as "127.0.0.1:8765", or "" for no page'
        raise ValueError(msg)
    return value


def _suffix(value: str) -> str:
    """Return the end of a name unchanged if it is one, or empty."""
    if value and not value.startswith("."):
        msg = f'must begin with a dot, such as ".{value}"; "" takes any name'
        raise ValueError(msg)
    if "/" in value or "\0" in value or len(value.encode()) > LONGEST_SUFFIX:
        msg = f"must be the end of a file's name, of at most {LONGEST_SUFFIX} bytes"
        raise ValueError(msg)
    return value


_DURATION_SCHEMA: Final = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d|w)$"}
_KEEP_SCHEMA: Final = {"type": "string", "pattern": r"^(forever|[0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d|w))$"}
_SIZE_SCHEMA: Final = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*([KMGT]iB|[kMGT]?B)$"}
_LIMIT_SCHEMA: Final = {
    "anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*%$"}, {"type": "integer", "minimum": 0}],
}
_TEXTS: Final = {"type": "array", "items": {"type": "string"}}
_PATH_SCHEMA: Final = {"anyOf": [{"type": "string"}, _TEXTS]}

Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
Keep = Annotated[float | None, BeforeValidator(parse_keep), WithJsonSchema(_KEEP_SCHEMA)]
Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
ShareOrCount = Annotated[Limit, BeforeValidator(parse_limit), WithJsonSchema(_LIMIT_SCHEMA)]
Names = Annotated[tuple[str, ...], BeforeValidator(parse_names), WithJsonSchema(_PATH_SCHEMA)]
From = Annotated[Path, BeforeValidator(parse_path), WithJsonSchema(_PATH_SCHEMA)]
Text = Annotated[str, AfterValidator(_not_empty)]
Formats = Annotated[tuple[Text, ...], BeforeValidator(_one_or_more), WithJsonSchema(_PATH_SCHEMA)]
Suffix = Annotated[str, AfterValidator(_suffix)]


def setting(default: object, description: str, **constraints: Any) -> Any:  # noqa: ANN401 - becomes the key's type
    """Return a key's default, as a config file would write it, and the sentence that explains it."""
    return Field(default, description=description, **constraints)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)


class InboxTable(_Table):
    """The watched folder, and when a file in it is whole."""

    path: Text = setting("inbox", "The watched folder.")
    ignore: tuple[Text, ...] = setting(
        [".*", "*.tmp", "*.part", "*.partial", "*.filepart", "*.crdownload", "*~"],
        "Names of files and folders that are left alone.",
    )
    settle: Duration = setting("100ms", "How long size and mtime must be still before a file is taken.")
    settle_unproven: Duration = setting("5s", "The same, where the kernel cannot tell whether a writer is left.")
    settle_moved: Duration = setting(
        "0s", "The same for files that were moved in; for senders that change times afterwards."
    )
    suffixes: tuple[Suffix, ...] = setting(
        [".json", ".ndjson", ".jsonl"],
        'Names that are taken, each also with .gz or .zst, in any letter case; "" is any name.',
        min_length=1,
    )
    rescan: Duration = setting("30s", "How often the inbox is listed, whatever events came.")
    polling: Polling = setting(Polling.AUTO, "Poll in place of watching: auto is on filesystems without events.")
    max_file_size: Size = setting("16GiB", "Larger files fail, as dropped and as unpacked.")


class ArchiveTable(_Table):
    """Where files end."""

    processed: Text = setting("data/processed", "Where loaded files go.")
    failed: Text = setting("data/failed", "Where failed files go, each with its report.")
    keep: Keep = setting("forever", "Processed files are removed that long after their run ended.")
    copy_files: StrictBool = setting(
        False, "Archive a copy, which no sender who has the file open can change.", alias="copy"
    )


class DatabaseTable(_Table):
    """The database."""

    url: Annotated[str, AfterValidator(check_url)] = setting(
        "sqlite:///data/inboxd.db", "Where records go: sqlite:///FILE or postgresql://user@host/db."
    )
    password_file: str = setting("", "A file with PostgreSQL's password, so that it need not be in the URL.")


class RetentionTable(_Table):
    """How long rows are kept that nothing needs for loading."""

    lineage: Keep = setting("forever", "How long lineage is kept.")
    resolved: Keep = setting("forever", "How long resolved dead letters are kept.")
    images: Keep = setting("forever", "How long before-images are kept, and so how far back undo reaches.")
    tombstones: Keep = setting("forever", "How long it is remembered that a key was deleted.")


class LogTable(_Table):
    """The lines."""

    format: LogFormat = setting(LogFormat.AUTO, "Lines on standard output: auto is console on a terminal.")
    level: LogLevel = setting(LogLevel.INFO, "The least level of the lines that are written.")
    file: str = setting("data/inboxd.log", "JSON lines, safe to rotate; empty for none.")
    layout: LogLayout = setting(
        LogLayout.INBOXD, "The names of JSON's fields: inboxd's, Elastic's, or OpenTelemetry's."
    )


class HttpTable(_Table):
    """The page."""

    listen: Annotated[str, AfterValidator(_listen)] = setting(
        "", "Where page, health and metrics are served, as host:port; empty for nowhere."
    )


class NotifyTable(_Table):
    """Somebody who is told of events."""

    on: tuple[Text, ...] = setting([], "The events that are told, such as file_failed.")
    exec: tuple[Text, ...] = setting([], "A program and its arguments; it gets the notice as JSON on standard input.")
    url: str = setting("", "An address that the notice is posted to as JSON, in place of exec.")
    headers_file: str = setting("", 'A file with headers for url, "Name: value" a line, such as a secret token.')
    deferred_for: Duration | None = setting(None, "Also tell of files that wait for longer than this.")


class FieldTable(_Table):
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


class ConditionTable(_Table):
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


class MomentTable(_Table):
    """Where the moment of a snapshot stands, and how."""

    path: From = setting(..., "The path: one of $file., $path. or $.", alias="from")
    type: FieldType = setting(FieldType.TIMESTAMP, "timestamp, date or integer.")
    unit: str | None = setting(None, "The unit of an epoch number: s, ms, us or ns.")
    format: Formats | None = setting(None, "How it is written, in strptime's directives.", min_length=1)
    timezone: str | None = setting(None, "The zone of a time without an offset.")


class ExpectTable(_Table):
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
        return {"anyOf": [*_PATH_SCHEMA["anyOf"], handler(core)]}


def _moment(value: object) -> object:
    """Return a moment that is only a path as the table that it stands for."""
    return {"from": value} if isinstance(value, (str, list)) else value


Where = Annotated[tuple[ConditionTable, ...], BeforeValidator(_one_or_more), _OneOrMore()]
Deletions = Annotated[tuple[DeletionTable, ...], BeforeValidator(_one_or_more), _OneOrMore()]
Moment = Annotated[MomentTable, BeforeValidator(_moment), _PathOrTable()]


class FeedTable(_Table):
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


class ConfigFile(BaseSettings):
    """The whole config. Its sources, the strongest first, are given as ``ConfigFile(sources=[...])``."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)

    inbox: InboxTable = InboxTable()
    archive: ArchiveTable = ArchiveTable()
    database: DatabaseTable = DatabaseTable()
    retention: RetentionTable = RetentionTable()
    log: LogTable = LogTable()
    http: HttpTable = HttpTable()
    notify: tuple[NotifyTable, ...] = setting([], "Who receives notices of events.")
    feeds: dict[str, FeedTable] = setting({}, "The feeds; without any, the feed events.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - reads os.environ; ours is handed in
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the environment is the service manager's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - see database.password_file
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the sources that were handed in, in their order, and no others."""
        assert isinstance(init_settings, InitSettingsSource)  # noqa: S101 - tells mypy what pydantic-settings promises
        return tuple(InitSettingsSource(settings_cls, source) for source in init_settings.init_kwargs["sources"])
