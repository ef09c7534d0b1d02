"""The settings for people and editors: the effective ones as TOML; what may be written as JSON Schema and as a list."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from inboxd.config.moments import format_days
from inboxd.config.notify import shown_url
from inboxd.config.paths import path_text
from inboxd.config.schema import INNER_TABLES, ConfigFile, FeedTable, FieldTable, NotifyTable
from inboxd.config.settings import NotifySettings, Settings
from inboxd.config.values import format_duration, format_limit
from inboxd.model import Condition, Expect, Feed, Field, FieldType, Gone, Mode, printable

Plain = str | int | float | bool | Sequence["Plain"] | Mapping[str, "Plain"]


@dataclass(frozen=True, slots=True)
class DocumentedKey:
    """One key that a config file may have; ``default`` is as the file would write it, ``None`` if there is none."""

    key: str
    default: str | None
    description: str


def show(settings: Settings) -> str:
    """Return the effective settings as a config file that would give them; passwords are masked."""
    blocks = [_block(f"[{section}]", table) for section, table in _sections(settings).items()]
    blocks += [_block("[[notify]]", _notify_table(one)) for one in settings.notify]
    for feed in settings.feeds:
        name = f"feeds.{_toml_key(feed.name)}"
        blocks += [_block(f"[{name}]", _feed_table(feed)), _block(f"[{name}.fields]", _fields_table(feed))]
    return "\n\n".join(blocks) + "\n"


def shown_values(settings: Settings) -> dict[str, Plain]:
    """Return what ``show`` says as one value for JSON."""
    feeds = {feed.name: {**_feed_table(feed), "fields": _fields_table(feed)} for feed in settings.feeds}
    notified = {"notify": [_notify_table(one) for one in settings.notify]} if settings.notify else {}
    return {**_sections(settings), **notified, "feeds": feeds}


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of a config file, for editors."""
    schema = ConfigFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "inboxd's config file"}


def documented_keys() -> tuple[DocumentedKey, ...]:
    """Return every key that a config file may have; ``NAME`` and ``FIELD`` stand for names that the operator gives.

    A key of the elements of a list is named as if there were one.
    """
    keys: list[DocumentedKey] = []
    for section, info in ConfigFile.model_fields.items():
        model = info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            keys += _keys(section, model)
    keys += _keys("notify", NotifyTable)
    keys += (key for key in _keys("feeds.NAME", FeedTable) if key.key != "feeds.NAME.fields")
    for key, inner in INNER_TABLES.items():
        keys += _keys(f"feeds.NAME.{key}", inner)
    keys += _keys("feeds.NAME.fields.FIELD", FieldTable)
    return tuple(keys)


def _keys(prefix: str, model: type[BaseModel]) -> Iterator[DocumentedKey]:
    for name, info in model.model_fields.items():
        default = (
            None if info.default is None or info.is_required() or info.default is ... else _toml(_plain(info.default))
        )
        yield DocumentedKey(f"{prefix}.{info.alias or name}", default, info.description or "")


def _plain(value: object) -> Plain:
    if isinstance(value, list):
        return [str(item) for item in value]
    return value if isinstance(value, (bool, int, float)) else str(value)


def _sections(settings: Settings) -> dict[str, dict[str, Plain]]:
    """Return the tables that every config has; the models know how each value is written."""
    names = (name for name in ConfigFile.model_fields if name not in {"notify", "feeds"})
    return {name: getattr(settings, name).model_dump(by_alias=True) for name in names}


def _notify_table(one: NotifySettings) -> dict[str, Plain]:
    table: dict[str, Plain] = {"on": sorted(one.on)}
    table |= {"exec": list(one.exec)} if one.exec else {"url": shown_url(one.url)}
    if one.headers_file is not None:
        table["headers_file"] = str(one.headers_file)
    if one.deferred_for is not None:
        table["deferred_for"] = format_duration(one.deferred_for)
    return table


def _feed_table(feed: Feed) -> dict[str, Plain]:
    """Return what the feed says; what means nothing in its mode is left out, and so is what it does without."""
    table: dict[str, Plain] = {
        "match": list(feed.match),
        "mode": feed.mode.value,
        "records": path_text(feed.records),
        "table": feed.table,
        "key": list(feed.key),
        "cursor": feed.cursor or "",
    }
    if feed.cursor:
        table |= {"late": feed.late.value, "max_future": format_duration(feed.max_future_s)}
    if feed.mode is Mode.SNAPSHOT:
        table |= {"max_future": format_duration(feed.max_future_s), **_snapshot_table(feed)}
    else:
        table["max_rejected"] = format_limit(feed.max_rejected)
    table |= {"extra": feed.extra.value, "undo": feed.undo}
    if feed.shape:
        table["shape"] = feed.shape.value
    if feed.explode:
        table["explode"] = path_text(feed.explode)
    if feed.where:
        table["where"] = [_condition_table(condition) for condition in feed.where]
    if feed.deletes:
        then = feed.deletes.then
        table["deletes"] = [_condition_table(condition, then) for condition in feed.deletes.conditions]
        table["max_deleted"] = format_limit(feed.max_deleted)
    if feed.expect:
        table["expect"] = _expect_table(feed.expect)
    return table


def _snapshot_table(feed: Feed) -> dict[str, Plain]:
    table: dict[str, Plain] = {"max_deleted": format_limit(feed.max_deleted), "allow_empty": feed.allow_empty}
    if feed.as_of:
        moment = {name: value for name, value in _field_table(feed.as_of).items() if name != "coerce"}
        table["as_of"] = {"from": path_text(feed.as_of.path), **moment}
    if feed.absent:
        table["absent"] = feed.absent.value
    if feed.scope:
        table["scope"] = list(feed.scope)
    return table


def _condition_table(condition: Condition, then: Gone | None = None) -> dict[str, Plain]:
    table: dict[str, Plain] = {"from": path_text(condition.path)}
    for key, sources in (("in", condition.any_of), ("not_in", condition.none_of)):
        if sources is not None:
            table[key] = [json.loads(source) for source in sources]
    if condition.pattern is not None:
        table["pattern"] = condition.pattern
    if condition.exists is not None:
        table["exists"] = condition.exists
    return table if then is None else {**table, "then": then.value}


def _expect_table(expect: Expect) -> dict[str, Plain]:
    table: dict[str, Plain] = {"grace": format_duration(expect.grace), "min_records": expect.min_records}
    if expect.every is not None:
        return {"every": format_duration(expect.every), **table}
    by = "" if expect.by is None else f"{expect.by:%H:%M}"
    return {"by": by, "timezone": expect.timezone, "days": format_days(expect.days), **table}


def _fields_table(feed: Feed) -> dict[str, Plain]:
    return {field.name: _field_table(field) for field in feed.fields}


def _field_table(field: Field) -> dict[str, Plain]:
    """Return what the field's values are; what is as without being written is left out."""
    table: dict[str, Plain] = {"type": field.type.value}
    if field.coalesce:
        table["coalesce"] = [path_text(path) for path in field.paths]
    elif field.path != (field.name,):
        table["from"] = path_text(field.path)
    if not field.required and field.default is None:
        table["required"] = False
    if field.label != field.name:
        table["label"] = field.label
    if field.default is not None:
        table["default"] = json.loads(str(field.default)) if field.type is FieldType.JSON else field.default
    attributes = {
        "min": field.minimum,
        "max": field.maximum,
        "min_length": field.min_length,
        "max_length": field.max_length,
        "pattern": field.pattern,
        "unit": field.unit,
        "timezone": field.timezone,
    }
    table.update({key: value for key, value in attributes.items() if value is not None})
    lists = {"choices": field.choices, "format": field.formats, "null": field.null}
    table.update({key: [each for each in values if each is not None] for key, values in lists.items() if values})
    if field.coerce:
        table["coerce"] = True
    return table


def _toml(value: Plain) -> str:
    """Return a value in TOML. Text as JSON writes it is TOML, but for DEL, which TOML wants escaped."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(printable(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml_key(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    return repr(value)


def _block(header: str, table: Mapping[str, Plain]) -> str:
    return "\n".join([header, *map(_toml_pair, table.items())])


def _toml_pair(pair: tuple[str, Plain]) -> str:
    key, value = pair
    return f"{_toml_key(key)} = {_toml(value)}"


def _toml_key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _toml(key)
