"""What every command of `site-agent` speaks with: two streams, exit codes, tables and the options that many have."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

EXIT_REFUSED, EXIT_USAGE, EXIT_TRY_LATER = 1, 2, 75
LATER = "The coordinator could not be reached; the agent hands it over when it connects."

Home = Annotated[Path, typer.Option("--home", help="The agent's folder, made by `site-agent enrol`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

WIDTH_WITHOUT_TERMINAL = 200

# What goes to a file or another program must not be squeezed into 80 columns.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
talk = Console(stderr=True, highlight=False, soft_wrap=True)


def table(*columns: str) -> Table:
    """One without lines; a value is folded rather than cut."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")  # a fingerprint that ends in dots cannot be compared
    return made


def time_words(at: float) -> str:
    """Unix seconds as a time in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def print_json(value: object) -> None:
    """A result, for programs."""
    print(json.dumps(value, indent=2, sort_keys=True))  # noqa: T201 - a result
