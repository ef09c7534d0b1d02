"""The documents say what the program does: everything they name exists, and everything that exists is named."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import replace
from pathlib import Path

import click
import pytest

from commands import leaves
from inboxd import __version__, errors
from inboxd.cli import COMMANDS
from inboxd.config import STATE_FILE, documented_keys, load_settings, show
from inboxd.events import Event
from inboxd.inbox import faults as inbox_faults
from inboxd.inbox.names import CLAIMED
from inboxd.locks import lock_file
from inboxd.metrics import Metrics, Standing
from inboxd.reload import NEEDS_RESTART
from inboxd.store import postgres_faults, sqlite_driver
from inboxd.store.tables import metadata
from places import ROOT, SUPPORT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FOR_USERS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
DOCS = "\n".join(path.read_text(encoding="utf-8") for path in FOR_USERS)
"""What users read: the README and the pages that it leads to."""
INTERNAL_TABLES = {"lineage_records"}
"""What a view shows in another form: people are told of the view."""


def code_blocks(language: str) -> list[str]:
    """Return the documents' fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


def code_spans() -> list[str]:
    """Return the documents' inline code outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", DOCS, flags=re.MULTILINE | re.DOTALL))


def table_rows(first_header: str) -> list[list[str]]:
    """Return the cells of the documents' table whose first column has that header."""
    table = re.search(rf"^\| {re.escape(first_header)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", DOCS, re.MULTILINE)
    assert table is not None, f"no table {first_header!r} in the documents"
    return [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in table[1].splitlines()]


def commands() -> dict[str, click.Command]:
    """Return every command that does something by its words after ``inboxd``."""
    return dict(leaves())


def options_of(command: click.Command) -> set[str]:
    """Return a command's long options."""
    names = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in names if name.startswith("--")}


def command_rows() -> dict[str, str]:
    """Return the documents' row of each command; ``runs list`` from "`inboxd runs list`, `import`" as well."""
    found: dict[str, str] = {}
    for row in table_rows("command"):
        group = ""
        for span in re.findall(r"`([^`]+)`", row[0]):
            words = [word for word in re.sub(r"\[.*?\]|[A-Z]+…?", "", span.removeprefix("inboxd ")).split() if word]
            if span.startswith("inboxd "):
                group = words[0]
            names = [word for word in words if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
            name = " ".join(names if span.startswith("inboxd ") else [group, *names])
            found[name.strip()] = found.get(name.strip(), "") + " | ".join(row)
    return found


def raised(*families: str) -> set[str]:
    """Return the codes that the source gives to faults of these families, as literals or as constants."""
    source = ROOT / "daemon" / "inboxd"
    found: set[str] = set()
    for path in source.rglob("*.py"):
        if "operate" in path.relative_to(source).parts:  # the answers of commands: no file waits for them
            continue
        module = ".".join(path.relative_to(source.parent).with_suffix("").parts)
        for call in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in families:
                code = call.args[0]
                if isinstance(code, ast.Constant):
                    found.add(str(code.value))
                elif isinstance(code, ast.Name) and code.id.isupper():
                    found.add(getattr(importlib.import_module(module), code.id))
    return found


@pytest.mark.parametrize("name", commands())
def test_every_command_is_in_the_documents(name: str) -> None:
    """No command is a secret."""
    assert name in command_rows()


@pytest.mark.parametrize(("name", "command"), list(commands().items()), ids=list(commands()))
def test_every_option_is_in_the_documents(name: str, command: click.Command) -> None:
    """No option is a secret: each is in its command's row (``--help`` and ``--json`` are named once, for all)."""
    named = set(re.findall(r"--[a-z-]+", command_rows()[name]))
    assert options_of(command) - {"--help", "--json"} <= named


@pytest.mark.parametrize("name", [name for name in command_rows() if name])
def test_every_command_of_the_documents_exists(name: str) -> None:
    """What the documents' table lists can be typed."""
    assert name in commands() or name in COMMANDS


@pytest.mark.parametrize(("name", "command"), list(commands().items()), ids=list(commands()))
def test_every_command_explains_itself(name: str, command: click.Command) -> None:
    """``--help`` says what the command does and shows an example of it."""
    text = (command.help or "") + (command.epilog or "")
    assert f"inboxd {name}" in text or re.search(rf"inboxd .*{re.escape(name)}", text), "no example"
    assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option))


def test_every_invocation_in_the_documents_can_be_typed() -> None:
    """Wherever a document writes ``inboxd something``, something is a command and its options are real."""
    written = [*code_spans(), *(line for block in code_blocks("(?:console|sh)") for line in block.splitlines())]
    for line in written:
        typed = re.sub(r"(?:-u|-aG) inboxd ", "", line)  # the user and the group of the service, not the command
        for invocation in re.findall(r"(?:^|[\s;|&$])inboxd ([a-z-][^|;&#>]*)", f" {typed}"):
            words = invocation.split()
            while words and words[0].startswith("--"):
                words = words[2:] if words[0] == "--config" else words[1:]
            if not words:
                continue
            assert words[0] in COMMANDS, line
            name = " ".join(words[:2]) if " ".join(words[:2]) in commands() else words[0]
            if name in commands():
                known = options_of(commands()[name]) | {"--help"}
                used = {re.match(r"--[a-z-]+", word)[0] for word in words if re.match(r"--[a-z]", word)}  # type: ignore[index]  # matched just before
                assert used <= known, line


def test_the_config_of_the_documents_is_the_config_in_force_without_one(tmp_path: Path) -> None:
    """The documents' config block is every setting with its default, and a config file as it stands."""
    block = next(block for block in code_blocks("toml") if block.startswith("[inbox]"))
    (tmp_path / "inboxd.toml").write_text(block, encoding="utf-8")
    assert show(load_settings(tmp_path / "inboxd.toml", {}, tmp_path)) == show(load_settings(None, {}, tmp_path))
    for key in documented_keys():
        section, _, name = key.key.rpartition(".")
        if not key.key.startswith("feeds."):
            part = block.split(f"[{section}]")[1].split("\n[")[0]
            assert re.search(rf"^(# )?{name}\b", part, re.MULTILINE), key.key


@pytest.mark.parametrize("key", [key.key for key in documented_keys() if key.key.startswith("feeds.")])
def test_every_key_of_a_feed_and_a_field_is_in_the_documents(key: str) -> None:
    """No attribute is a secret."""
    name = key.rpartition(".")[2]
    assert f"`{name}`" in DOCS or re.search(rf"^{name} = ", DOCS, re.MULTILINE)


def test_the_events_of_the_documents_are_those_of_the_log() -> None:
    """Each event of the log is in the documents with its level and meaning, and no other is."""
    assert [tuple(row) for row in table_rows("event")] == [
        (f"`{event.value}`", event.level, event.meaning) for event in Event
    ]


def test_the_codes_of_the_documents_are_those_that_files_wait_with() -> None:
    """Each transient fault that may hold a file up is explained, with what to do, and no other is."""
    sorted_by_table = [*inbox_faults._KINDS.values(), *sqlite_driver.TRANSIENT.values()]
    sorted_by_table += [*postgres_faults.BY_CLASS.values(), *postgres_faults.BY_STATE.values()]
    codes = {code for code, _ in sorted_by_table} | raised("TransientFault", "DatabaseFault")
    rows = table_rows("code")
    assert {row[0].strip("`") for row in rows} == codes
    assert all(len(row) == 3 and all(row) for row in rows)
    assert len(rows) == len(codes)


def test_the_codes_of_failed_files_are_in_the_documents() -> None:
    """Each code that a file may fail with is named, and so is that of a run which a crash ended."""
    assert raised("FileFault") | {"interrupted"} <= set(code_spans())


def test_what_a_hangup_cannot_change_is_in_the_documents() -> None:
    """Each setting that needs a restart is named where HUP is explained, and no other is."""
    said = re.search(r"HUP cannot change (.*?):", DOCS, re.DOTALL)
    assert said is not None
    assert re.findall(r"`([^`]+)`", said[1]) == list(NEEDS_RESTART)


def test_the_files_that_inboxd_keeps_are_in_the_documents() -> None:
    """Whoever finds a file of inboxd's own beside the database, or in the inbox, reads what it is."""
    named = {span for row in table_rows("file") for span in re.findall(r"`([^`]+)`", row[0])}
    database = Path("data/inboxd.db")
    kept = {str(lock_file(database)), f"{database}-wal", f"{database}-shm", f"data/{STATE_FILE}", f"inbox/{CLAIMED}/"}
    assert kept <= named


def test_the_metrics_of_the_documents_are_those_that_are_served() -> None:
    """Each metric is in the documents with its labels, and no other is."""
    known = {"events": 0.0}
    full = Standing(0, 0.0, 0, 0, config_refused=False, watermarks=known, last_successes=known)
    full = replace(full, dead_letters={("events", "invalid_value"): 1}, feeds_late={"events": False})
    served = Metrics(["events"]).page(full).decode()
    names = set(re.findall(r"^# TYPE (inboxd_\w+)", served, re.MULTILINE))
    labels: dict[str, set[str]] = {name: set() for name in names}
    for name, of_line in re.findall(r"^(\w+?)(?:_bucket|_sum|_count)?\{(.*)\} ", served, re.MULTILINE):
        labels[name] |= set(re.findall(r'(\w+)="', of_line))
    written = {span.split("{")[0]: span for span in code_spans() if re.fullmatch(r"inboxd_[a-z_]+(\{.*\})?", span)}
    assert set(written) == names
    assert all(label in written[name] for name, of_one in labels.items() for label in of_one - {"le", "version"})


def test_the_exit_codes_of_the_documents_are_those_of_the_program() -> None:
    """Each exit code is explained, and no other is."""
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(row[0]) for row in table_rows("exit code")} == codes | {0}


def test_the_tables_of_the_documents_are_those_of_the_database() -> None:
    """Each control table and view is in the documents with all its columns."""
    rows = {span: row[1] for row in table_rows("table") for span in re.findall(r"`(\w+)`", row[0])}
    tables = [table for table in metadata.sorted_tables if table.name not in INTERNAL_TABLES]
    assert {table.name for table in tables} <= set(rows)
    for table in tables:
        missing = [column.name for column in table.columns if not re.search(rf"\b{column.name}\b", rows[table.name])]
        assert not missing, table.name


def test_the_targets_of_make_that_documents_name_exist() -> None:
    """``make something`` in a document is a target, and each target that ``make`` lists has its sentence."""
    targets = set(re.findall(r"^([a-z][a-z-]*):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        named = set(re.findall(r"(?:`|^\$ )(?:sudo )?make ([a-z-]+)", text, re.MULTILINE))
        assert named <= targets, document.name


def headings(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as hosts of Markdown make them."""
    found = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_page_is_reached_from_the_readme() -> None:
    """The README leads to each page of the documents."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"](docs/{page.name})" in readme for page in ROOT.glob("docs/*.md"))


def test_the_readme_is_short_and_fits_a_terminal() -> None:
    """At most 200 lines of at most 100 columns."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert [line for line in lines if len(line) > 100] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    """A link to a file leads to a file, a link to a heading to a heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            name, _, heading = target.partition("#")
            file = document.parent / name if name else document
            assert file.exists(), target
            assert not heading or heading in headings(file), target


def test_the_changelog_keeps_its_form() -> None:
    """The changelog is that of Keep a Changelog: an Unreleased section, this version's, and changes sorted by kind."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE)
    assert re.search(rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE)
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_modules_that_the_architecture_names_exist() -> None:
    """A reader who follows ARCHITECTURE.md finds each file of it."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for name in re.findall(r"(?:`|^# )((?:\w+/)*\w+\.py)\b", text, re.MULTILINE):
        assert any((folder / name).exists() for folder in (ROOT / "daemon" / "inboxd", ROOT, SUPPORT)), name


def test_the_files_that_contributing_names_exist() -> None:
    """Who follows a list of CONTRIBUTING.md finds each file of it, but those that are to be made."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:daemon|tests|docs|\.ci)/[\w/.*]+|\w+\.(?:py|toml))`(?! \(new\))", text)
    assert len(named) > 20
    for name in named:
        places = (name, f"daemon/inboxd/{name}", f"daemon/inboxd/*/{name}")
        assert any(next(ROOT.glob(place.rstrip("/")), None) for place in places), name


def test_every_page_is_in_the_site() -> None:
    """The site leads to each document, and to nothing else."""
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == {str(path.relative_to(ROOT)) for path in DOCUMENTS}


def test_the_host_runs_what_a_developer_runs() -> None:
    """The workflow of the code's host calls .ci/run, and nothing that is not in there."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    steps = re.findall(r"^ +- run: (.+)$", workflow, re.MULTILINE)
    assert [step for step in steps if not step.startswith("apt-get ")] == [".ci/run"]
