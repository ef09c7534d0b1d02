"""The forms of a config's values, from what is written to what is meant and back, and the tables that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from inboxd.config.paths import parse_names, parse_path
from inboxd.config.values import (
    format_duration,
    format_size,
    parse_duration,
    parse_keep,
    parse_limit,
    parse_size,
)
from inboxd.model import Limit
from inboxd.model import Path as Way

LONGEST_SUFFIX: Final = 64
"""Bytes in one of ``inbox.suffixes``."""
NO_TEXT: Final = 'must be a text in quotes, such as "this"'


def one_or_more(value: object) -> object:
    """Return one condition, path or format as a list of one."""
    return value if isinstance(value, (list, tuple)) else [value]


def _not_empty(value: str) -> str:
    if not value:
        msg = "must not be empty"
        raise ValueError(msg)
    return value


def _path(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError(NO_TEXT)  # noqa: TRY004 - pydantic makes an error of the key of this one
    return Path(_not_empty(str(value)))


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
PATH_SCHEMA: Final = {"anyOf": [{"type": "string"}, _TEXTS]}

Duration = Annotated[
    float, BeforeValidator(parse_duration), PlainSerializer(format_duration), WithJsonSchema(_DURATION_SCHEMA)
]
Keep = Annotated[
    float | None, BeforeValidator(parse_keep), PlainSerializer(format_duration), WithJsonSchema(_KEEP_SCHEMA)
]
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size), WithJsonSchema(_SIZE_SCHEMA)]
ShareOrCount = Annotated[Limit, BeforeValidator(parse_limit), WithJsonSchema(_LIMIT_SCHEMA)]
Names = Annotated[tuple[str, ...], BeforeValidator(parse_names), WithJsonSchema(PATH_SCHEMA)]
From = Annotated[Way, BeforeValidator(parse_path), WithJsonSchema(PATH_SCHEMA)]
Text = Annotated[str, AfterValidator(_not_empty)]
_FILE: Final = (PlainSerializer(lambda path: "" if path is None else str(path)), WithJsonSchema({"type": "string"}))
FilePath = Annotated[Path, BeforeValidator(_path), *_FILE]
MaybePath = Annotated[Path | None, BeforeValidator(lambda value: None if value == "" else _path(value)), *_FILE]
"""A file that may be none: empty is none."""
Formats = Annotated[tuple[Text, ...], BeforeValidator(one_or_more), WithJsonSchema(PATH_SCHEMA)]
Suffix = Annotated[str, AfterValidator(_suffix)]


def setting(default: object, description: str, **constraints: Any) -> Any:  # noqa: ANN401 - becomes the key's type
    """Return a key's default, as a config file would write it, and the sentence that explains it."""
    return Field(default, description=description, **constraints)


class ConfigTable(BaseModel):
    """A table of a config file: only keys that it has, each of its form, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)
