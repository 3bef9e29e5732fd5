"""What every command of `consortium` speaks with: two streams, exit codes, tables and the options that many have."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

EXIT_REFUSED, EXIT_USAGE, EXIT_TRY_LATER = 1, 2, 75

OwnHome = Annotated[Path, typer.Option("--home", help="The coordinator's folder, made by `consortium init`.")]
Home = Annotated[
    Path, typer.Option("--home", "--account", help="The coordinator's folder; or that of your account, from anywhere.")
]
Reason = Annotated[str, typer.Option(help="Why: one line, in the log for good, and shown to the hospital.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

WIDTH_WITHOUT_TERMINAL = 200

# What goes to a file or another program must not be squeezed into 80 columns.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
talk = Console(stderr=True, highlight=False, soft_wrap=True)


def command(home: Path, name: str, **arguments: object) -> dict[str, Any]:
    """Carry out a command, over the wire or alone (`operator.py`); raises what it raises."""
    from consortium.operator import run_command

    return asyncio.run(run_command(home, name, arguments))


def print_json(value: object, *, compact: bool = False) -> None:
    """A result, for programs."""
    print(json.dumps(value, indent=None if compact else 2, sort_keys=True), flush=True)  # noqa: T201 - a result


def table(columns: list[str], rows: list[list[str]]) -> None:
    """Print one without lines; a value is folded rather than cut."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")  # a fingerprint that ends in dots cannot be compared
    for row in rows:
        made.add_row(*row)
    out.print(made)


def require_new_file(path: Path) -> None:
    """Before anything is done: a file that can be written and would replace nothing."""
    if path.exists():
        fail(f"{path} exists", "Name another file with --out; nothing was changed.", EXIT_REFUSED)
    if not path.absolute().parent.is_dir():
        fail(f"there is no folder {path.parent}", "Make it, or name another file with --out.", EXIT_REFUSED)


def fail(message: str, advice: str, code: int) -> NoReturn:
    """Say what is wrong and what to do, and end with this exit code."""
    talk.print(f"[bold red]error:[/bold red] {message}", markup=True)
    talk.print(f"  {advice}")
    raise typer.Exit(code)
