"""A steward's own key, as it is named and opened on the command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from site_agent.commands.shell import EXIT_USAGE
from site_agent.commands.shell import talk as _talk

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


KeyFile = Annotated[
    Path | None, typer.Option("--key", help="The steward's key file; by default the one `stewards add` made.")
]
Passphrase = Annotated[
    Path | None, typer.Option("--passphrase-file", help="A file whose first line is the passphrase, instead of asking.")
]
WithoutKey = Annotated[
    bool, typer.Option("--without-key", help="Without a steward's signature, such as when the key is lost.")
]


def steward_key(home: Path, steward: str, key: Path | None, passphrase_file: Path | None) -> "Ed25519PrivateKey":
    """The steward's own key, with the passphrase asked for, or read from a file."""
    from site_agent.home import open_home
    from site_agent.stewards import default_key_file, read_key_file

    path = key or default_key_file(open_home(home).site, steward)
    return read_key_file(path, passphrase(passphrase_file, f"Passphrase of {path}"))


def passphrase(file: Path | None, question: str, *, twice: bool = False) -> str:
    """Typed without an echo, or the first line of a file that is the person's alone."""
    from consortium.contract.private_files import read_private

    if file is not None:
        try:
            return read_private(file, limit_bytes=4096).decode().partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError):
            _talk.print(f"[bold red]error:[/bold red] {file} cannot be read as a passphrase")
            _talk.print("  Name a file of your own (chmod 600) whose first line it is; or leave it out, to be asked.")
            raise typer.Exit(EXIT_USAGE) from None
    if not sys.stdin.isatty():
        _talk.print("[bold red]error:[/bold red] there is no terminal to ask for the passphrase")
        _talk.print("  Name a file with --passphrase-file.")
        raise typer.Exit(EXIT_USAGE)
    return str(typer.prompt(question, hide_input=True, confirmation_prompt=twice, err=True))
