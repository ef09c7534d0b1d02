"""The settings for people and editors."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inboxd.config import Settings, documented_keys, json_schema, load_settings, show, shown_values
from inboxd.model import Field, FieldType
from places import SAMPLES

NO_PATTERN = {ord("/"): None, ord("{"): "[{]"}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


def reload(folder: Path, text: str) -> Settings:
    """Return the settings of a config file with that text."""
    (folder / "shown.toml").write_text(text, encoding="utf-8")
    return load_settings(folder / "shown.toml", {}, folder)


def test_what_is_shown_is_a_config_that_means_the_same(tmp_path: Path) -> None:
    """The output of ``config show`` can be saved and used; every default and every feed is in it."""
    for source in (None, SAMPLES / "feeds.toml"):
        loaded = load_settings(source, {}, tmp_path)
        again = reload(tmp_path, show(loaded))
        assert (again.inbox, again.archive, again.database) == (loaded.inbox, loaded.archive, loaded.database)
        assert (again.retention, again.log, again.http) == (loaded.retention, loaded.log, loaded.http)
        assert again.feeds == loaded.feeds


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example writes the same file anew
@given(
    name=TEXT, pattern=TEXT, choices=st.lists(TEXT, min_size=1, max_size=3, unique=True), least=st.floats(-1e308, 1e308)
)
def test_any_text_survives_being_shown(
    tmp_path: Path, name: str, pattern: str, choices: list[str], least: float
) -> None:
    """Quotes, control characters, emoji and long numbers come back as they were."""
    first = load_settings(SAMPLES / "feeds.toml", {}, tmp_path)
    feed = first.feeds[0]
    fields = (
        *feed.fields[:2],
        Field("odd", FieldType.TEXT, (name, f"{name}.{name}"), "odd", required=False, choices=tuple(choices)),
        Field("number", FieldType.REAL, ("number",), "number", minimum=least),
    )
    odd = dataclasses.replace(feed, match=(f"x{pattern.translate(NO_PATTERN)}x",), fields=fields)
    changed = dataclasses.replace(first, feeds=(odd,), inbox=first.inbox.model_copy(update={"ignore": (pattern,)}))
    again = reload(tmp_path, show(changed))
    assert again.feeds == (odd,)
    assert again.inbox == changed.inbox


def test_the_shown_values_for_programs_are_those_for_people(tmp_path: Path) -> None:
    """``config show --json`` and ``config show`` say the same, key for key."""
    loaded = load_settings(SAMPLES / "feeds.toml", {}, tmp_path)
    assert tomllib.loads(show(loaded)) == msgspec.json.decode(msgspec.json.encode(shown_values(loaded)))


def test_every_shown_key_is_documented(tmp_path: Path) -> None:
    """No setting is in force that the list of settings does not explain, and the list explains each in a sentence."""
    keys = {key.key for key in documented_keys()}
    shown = tomllib.loads(show(load_settings(None, {}, tmp_path)))
    feed = shown.pop("feeds")["events"]
    fields = feed.pop("fields")
    assert {f"{section}.{key}" for section, table in shown.items() for key in table} == {
        key for key in keys if not key.startswith(("feeds.", "notify."))
    }
    assert {f"feeds.NAME.{key}" for key in feed} <= keys
    assert {f"feeds.NAME.fields.FIELD.{key}" for field in fields.values() for key in field} <= keys
    assert all(key.description.endswith((".", '".')) for key in documented_keys())
    assert len(keys) == len(documented_keys())


def test_the_documented_defaults_are_the_ones_in_force(tmp_path: Path) -> None:
    """A config of nothing but the documented defaults is no different from none."""
    sections: dict[str, list[str]] = {}
    for key in documented_keys():
        section, _, name = key.key.partition(".")
        if section not in {"feeds", "notify"} and key.default is not None:
            sections.setdefault(section, []).append(f"{name} = {key.default}")
    text = "\n".join(f"[{section}]\n" + "\n".join(lines) for section, lines in sections.items())
    assert show(reload(tmp_path, text)) == show(load_settings(None, {}, tmp_path))


def test_the_schema_knows_every_key_and_refuses_others() -> None:
    """An editor with the schema completes and checks what inboxd itself would take."""
    schema = msgspec.json.decode(msgspec.json.encode(json_schema()))
    definitions = schema["$defs"]
    named = {name: set(table["properties"]) for name, table in definitions.items() if "properties" in table}
    documented = {key.key.rpartition(".")[2] for key in documented_keys()} | {"fields"}
    assert set(schema["properties"]) == {
        *("inbox", "archive", "database", "retention", "log", "http", "notify", "feeds")
    }
    assert set().union(*named.values()) == documented
    assert not schema["additionalProperties"]
    assert not any(definitions[name]["additionalProperties"] for name in named)


def test_who_is_told_is_shown_as_it_was_written_but_for_its_secret(tmp_path: Path) -> None:
    """``[[notify]]`` comes back as it was; of an address only what is no secret is shown."""
    text = """
        [[notify]]
        on = ["file_failed", "bug"]
        exec = ["/usr/local/bin/tell", "it's \\"quoted\\""]
        deferred_for = "10m"
        [[notify]]
        on = ["config_rejected"]
        url = "https://hooks.example.com:8443/services/s3cret?key=s3cret"
        headers_file = "headers"
        """
    loaded = reload(tmp_path, text)
    assert reload(tmp_path, show(loaded)).notify[0] == loaded.notify[0]
    assert loaded.notify[1].headers_file == tmp_path / "headers"
    assert 'url = "https://hooks.example.com:8443/***"' in show(loaded)
    assert "s3cret" not in show(loaded) + repr(loaded) + loaded.notify[1].name
    assert tomllib.loads(show(loaded)) == msgspec.json.decode(msgspec.json.encode(shown_values(loaded)))
