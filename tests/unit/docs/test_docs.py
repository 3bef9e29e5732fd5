"""The documentation says what the programs do: links lead somewhere, commands exist, lists are complete."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer

from audit import entries
from consortium import cli as consortium_cli
from consortium.wire.fact_log import FIELDS
from site_agent import cli as site_agent_cli

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
UNITS = sorted((ROOT / "configs/deploy").glob("*.service"))
PROGRAMS = {
    "consortium": typer.main.get_command(consortium_cli.app),
    "site-agent": typer.main.get_command(site_agent_cli.app),
}
PACKAGES = ("privacy", "audit", "consortium", "site_agent")

ENVELOPE = {"id", "ts", "actor", "outcome", "study", "round", "attempt", "site_seq", "site_prev"}

FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`((?:consortium|site-agent) [^`\n]+)`")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The fragments GitHub gives to a page's headings."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose(page)))
    return {heading.strip().replace(" ", "-") for heading in plain}


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_leads_to_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text())}
    decisions, changes = DOCS / "adr", DOCS / "changelog.d"
    expected = {p for p in DOCS.rglob("*.md") if p.parent not in (decisions, changes) and p != index}
    assert sorted(map(name_of, expected - linked)) == []
    assert {decisions / "README.md", changes / "README.md"} <= linked


# --- commands --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Typed:
    """A command line somewhere in the documentation."""

    where: str
    line: str
    whole: bool  # shown as typed, so that nothing may be missing; otherwise quoted in passing


def typed_lines() -> Iterator[Typed]:
    for page in PAGES:
        text = page.read_text()
        for block in FENCE.findall(text):
            lines = block.replace("\\\n", " ").splitlines()
            if any(line.startswith("$ ") for line in lines):  # the others are what the programs answered
                lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            for raw in lines:
                line = re.sub(r"^\s*(sudo -u \S+ )?", "", raw)
                if re.match(r"(consortium|site-agent) ", line):
                    yield Typed(name_of(page), line, whole=not raw.startswith(" "))
        for span in INLINE.findall(FENCE.sub("", text)):
            yield Typed(name_of(page), span, whole=False)
    for unit in UNITS:
        for start in re.findall(r"^ExecStart=/usr/local/bin/(.+)$", unit.read_text(), re.MULTILINE):
            yield Typed(name_of(unit), start, whole=True)


def words(line: str) -> list[str]:
    """What the shell would hand to the program, up to the first operator."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if word[0] in "|&;<>()":
            if word == ">" and found and found[-1] == "2":
                found.pop()
            break
        found.append(word)
    return found


def fault(typed: Typed) -> str:
    """Why a command line would not be understood; empty if it would."""
    program, *rest = words(typed.line)
    command: Any = PROGRAMS[program]
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        if rest[0] == "...":
            return ""
        if rest[0] not in command.commands:
            return f"no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    unknown = [word for word in rest if re.match(r"-{1,2}[a-z]", word) and word.partition("=")[0] not in known]
    if unknown:
        return f"no option {unknown[0]}"
    if typed.whole and not hasattr(command, "commands") and "..." not in rest:
        try:
            command.make_context(command.name, list(rest))
        except Exception as error:  # noqa: BLE001 - typer keeps click's errors to itself
            return f"{type(error).__name__}: {error}"
    return ""


def test_every_command_line_in_the_documentation_would_be_understood() -> None:
    found = list(typed_lines())
    assert len(found) > 50
    assert [(t.where, t.line, why) for t in found if (why := fault(t))] == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("consortium study valdate study.yaml", "no command"),
        ("consortium study submit study.yaml --hom hub", "no option"),
        ("consortium study submit study.yaml", "MissingParameter"),
        ("site-agent egress --home HOME | head", ""),
    ],
)
def test_a_wrong_command_line_is_noticed(line: str, why: str) -> None:
    found = fault(Typed("here", line, whole=True))
    assert (why in found) if why else found == ""


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    else:
        yield " ".join(path), command


ALL_COMMANDS = [pair for program, command in PROGRAMS.items() for pair in commands(command, (program,))]


def sections(page: str) -> dict[str, str]:
    """Heading of level three -> what stands under it."""
    parts = re.split(r"^### (.+)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    return {
        title: re.split(r"^## ", text, flags=re.MULTILINE)[0]
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_command_reference_lists_every_command_and_no_other() -> None:
    assert sorted(sections("reference/cli.md")) == sorted(name for name, _ in ALL_COMMANDS)


@pytest.mark.parametrize(("name", "command"), ALL_COMMANDS, ids=[name for name, _ in ALL_COMMANDS])
def test_the_command_reference_lists_every_option_and_no_other(name: str, command: Any) -> None:
    usage = next(line for line in sections("reference/cli.md")[name].splitlines() if line.startswith("    "))
    options = {p.opts[0]: p.required for p in command.params if p.param_type_name == "option"}
    assert set(re.findall(r"--[a-z]+(?:-[a-z]+)*", usage)) == set(options)
    optional = set(re.findall(r"\[(--[a-z]+(?:-[a-z]+)*)", usage))
    assert {option for option, needed in options.items() if not needed} == optional


# --- lists -----------------------------------------------------------------------------------------------------------


def test_the_list_of_entries_is_complete() -> None:
    assert [title.strip("`") for title in sections("reference/events.md")] == list(entries.KINDS)


@pytest.mark.parametrize("kind", entries.KINDS)
def test_every_field_of_an_entry_has_its_row(kind: str) -> None:
    text = sections("reference/events.md")[f"`{kind}`"]
    own = [field.name for field in fields(entries.KINDS[kind]) if field.name not in ENVELOPE]
    assert re.findall(r"^\| `([a-z0-9_]+)` \| .+ \|$", text, re.MULTILINE) == own
    signed = issubclass(entries.KINDS[kind], entries.SITE_SIGNED)
    assert ("*(Signed by a site" in text) == signed


def test_every_field_of_a_log_line_is_explained_and_no_other() -> None:
    logs = (DOCS / "how-to" / "monitor.md").read_text().partition("\n## Logs\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in logs.splitlines() if line.startswith("| `")]
    listed = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted([*listed, "event", "level", "timestamp"]) == sorted(FIELDS)


def test_the_glossary_defines_each_term_once_and_in_order() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", (DOCS / "reference/glossary.md").read_text(), re.MULTILINE)
    terms = [term for term in rows if term != "term"]
    assert len(terms) > 40
    assert terms == sorted(set(terms))


def test_the_floor_plan_shows_every_room() -> None:
    plan = (DOCS / "explanation/architecture.md").read_text()
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    shown = [path for path in files if not path.name.startswith("__")]
    assert sorted({name_of(path) for path in shown if f"{path.name}`" not in plan}) == []


@pytest.mark.parametrize("page", [*PAGES, *UNITS], ids=name_of)
def test_no_page_names_somebodys_machine(page: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:work|root|Users|home/\w+|tmp/\w+)\b[^\s`]*", page.read_text()) == []
