"""Command lines that are read without the command line's libraries, and mean there what they mean in `cli.py`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from consortium import cli as consortium_cli
from consortium.contract.light_start import DRAIN_MAX_S, DRAIN_S, PlainLine, plain_line
from site_agent import cli as agent_cli

HOME = Path("hub")
COMMANDS = {"serve": (consortium_cli.app, "--standby"), "run": (agent_cli.app, "--take-over")}


def read(*words: str) -> PlainLine | None:
    return plain_line(words, "serve", "--standby")


@pytest.mark.parametrize(
    ("words", "drain_s", "switched"),
    [
        (("--home", "hub"), DRAIN_S, False),
        (("--home=hub",), DRAIN_S, False),
        (("--standby", "--home", "hub"), DRAIN_S, True),
        (("--drain", "0", "--home", "hub"), 0, False),
        (("--home", "hub", "--standby", "--drain=86400"), DRAIN_MAX_S, True),
        (("--home", "hub", "--drain", "2.5"), 2.5, False),
    ],
)
def test_a_plain_line_is_read(words, drain_s, switched) -> None:
    assert read("serve", *words) == PlainLine(home=HOME, drain_s=drain_s, switched=switched)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--version",),
        ("status", "--home", "hub"),
        ("serve",),
        ("serve", "--help"),
        ("serve", "--home"),
        ("serve", "--home="),
        ("serve", "--home", "--standby"),
        ("serve", "--home", "hub", "more"),
        ("serve", "--home", "hub", "--home", "other"),
        ("serve", "--home", "hub", "--drain", "-1"),
        ("serve", "--home", "hub", "--drain=-1"),
        ("serve", "--home", "hub", "--drain", "86401"),
        ("serve", "--home", "hub", "--drain", "nan"),
        ("serve", "--home", "hub", "--drain", "soon"),
        ("serve", "--home", "hub", "--standby=yes"),
        ("serve", "--home", "hub", "--standby", "--standby"),
        ("serve", "--home", "hub", "--take-over"),
        ("--help", "serve", "--home", "hub"),
    ],
)
def test_every_other_line_is_for_the_command_line(words) -> None:
    assert read(*words) is None


def options_of(command: str) -> dict[str, Any]:
    found: Any = typer.main.get_command(COMMANDS[command][0])
    return {one.opts[0]: one for one in found.commands[command].params}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_plain_line_knows_every_option_of_its_command_and_the_same_defaults(command) -> None:
    options, switch = options_of(command), COMMANDS[command][1]
    assert set(options) - {"--help"} == {"--home", "--drain", switch}
    line = plain_line([command, "--home", "hub"], command, switch)
    assert line is not None
    assert options["--drain"].default == line.drain_s
    assert options[switch].is_flag
    assert options[switch].default is line.switched is False


@pytest.mark.parametrize("module", ["consortium", "site_agent"])
def test_what_a_plain_start_finds_wrong_is_said_as_the_command_line_says_it(module, tmp_path) -> None:
    command = "serve" if module == "consortium" else "run"
    plain = [sys.executable, "-m", module, command, "--home", str(tmp_path)]
    script = (
        f"import sys; sys.argv = ['x', '{command}', '--home', {str(tmp_path)!r}]; import {module}.cli as c; c.main()"
    )
    said = [
        subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
        for line in (plain, [sys.executable, "-c", script])
    ]
    assert said[0].returncode == said[1].returncode != 0
    assert said[0].stderr == said[1].stderr
    assert said[0].stderr.startswith("error: ")


TRACEBACK = """
import sys
from consortium.contract.light_start import load_structlog_alone
if sys.argv[1:] == ["alone"]:
    load_structlog_alone()
import structlog
from consortium.wire.fact_log import log_as_facts
sys.stderr.isatty = lambda: True
log_as_facts()
try:
    raise ValueError("no")
except ValueError:
    structlog.get_logger().exception("something.failed", study="heart", timestamp="now")
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"rich", "pygments"}))
import rich.console
"""


def test_structlog_alone_says_the_same_on_a_terminal_and_rich_is_there_afterwards() -> None:
    alone, with_rich = (
        subprocess.run([sys.executable, "-c", TRACEBACK, word], capture_output=True, text=True, timeout=120, check=True)
        for word in ("alone", "with")
    )
    assert alone.stdout.split() == []
    assert with_rich.stdout.split() == ["pygments", "rich"]
    assert "ValueError: no" in alone.stderr
    assert alone.stderr.partition("something.failed")[2] == with_rich.stderr.partition("something.failed")[2]
