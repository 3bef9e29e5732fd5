"""`site-agent stewards`: who may approve studies here."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from site_agent.commands.shell import EXIT_USAGE, Home, Json
from site_agent.commands.shell import LATER as _LATER
from site_agent.commands.shell import out as _out
from site_agent.commands.shell import print_json as _print_json
from site_agent.commands.shell import table as _table
from site_agent.commands.shell import talk as _talk
from site_agent.commands.steward_key import KeyFile, Passphrase
from site_agent.commands.steward_key import passphrase as _passphrase
from site_agent.commands.steward_key import steward_key as _steward_key

stewards_app = typer.Typer(no_args_is_help=True, help="Who may approve studies here, each with a key of their own.")


@stewards_app.command("add")
def stewards_add(
    name: str,
    home: Home,
    *,
    key: KeyFile = None,
    passphrase_file: Passphrase = None,
    by: Annotated[str | None, typer.Option(help="The steward of before who signs for the new one.")] = None,
    by_key: Annotated[Path | None, typer.Option(help="That steward's key file.")] = None,
    by_passphrase_file: Annotated[Path | None, typer.Option(help="That steward's passphrase, in a file.")] = None,
    begin_anew: Annotated[
        bool, typer.Option("--begin-anew", help="All keys of before are lost: they count no more. The log shows it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a steward's own key, under a passphrase, and register it: with such keys alone studies are approved."""
    from site_agent.deciding import add_steward
    from site_agent.home import open_home
    from site_agent.stewards import default_key_file

    if by is not None and begin_anew:
        _talk.print("[bold red]error:[/bold red] --by and --begin-anew contradict each other")
        _talk.print("  Begin anew only if no steward of before can sign.")
        raise typer.Exit(EXIT_USAGE)
    signer = None if by is None else _steward_key(home, by, by_key, by_passphrase_file)
    path = key or default_key_file(open_home(home).site, name)
    passphrase = _passphrase(passphrase_file, f"A new passphrase for {path}", twice=True)
    row, arrived = asyncio.run(add_steward(home, name, path, passphrase, by=signer, anew=begin_anew))
    if as_json:
        _print_json({"name": name, "pseudonym": row.steward, "key": row.key, "file": str(path)})
    else:
        _out.print(f"{name} may approve studies here, with the key in {path}.", markup=False)
        _out.print(f"  public key  {row.key}\n  in the log  {row.steward}")
        _out.print("Keep the file and its passphrase away from the agent's machine, and a copy in a safe.")
    if not arrived:
        _talk.print(_LATER)


@stewards_app.command("list")
def stewards_list(home: Home, *, as_json: Json = False) -> None:
    """Show the stewards' public keys, those that were removed too."""
    from site_agent.deciding import list_stewards

    rows = list_stewards(home)
    if as_json:
        _print_json(rows)
        return
    table = _table("steward", "may approve", "since (UTC)", "public key")
    for row in rows:
        may = "yes" if row["may_approve"] else "no (may_approve)" if row["registered"] else "no (removed)"
        table.add_row(row["name"], may, row["since"][:19].replace("T", " "), row["key"])
    _out.print(table)
    if not any(row["may_approve"] for row in rows):
        _talk.print("Nobody can approve a study here. Make a steward's key: site-agent stewards add NAME")


@stewards_app.command("remove")
def stewards_remove(
    name: str,
    home: Home,
    *,
    by: Annotated[str, typer.Option(help="The steward who signs for it; it may be the same.")],
    by_key: Annotated[Path | None, typer.Option(help="That steward's key file.")] = None,
    by_passphrase_file: Annotated[Path | None, typer.Option(help="That steward's passphrase, in a file.")] = None,
) -> None:
    """Remove a steward's key for good; what was approved with it alone is taken back at once."""
    from site_agent.deciding import drop_steward

    arrived = asyncio.run(drop_steward(home, name, _steward_key(home, by, by_key, by_passphrase_file)))
    _out.print(f"{name} can approve nothing here any more; what only this key approved is withdrawn.", markup=False)
    if not arrived:
        _talk.print(_LATER)
