"""`site-agent studies`: read studies, approve or reject them."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from site_agent.commands.shell import Home, Json
from site_agent.commands.shell import out as _out
from site_agent.commands.shell import print_json as _print_json
from site_agent.commands.shell import table as _table
from site_agent.commands.shell import talk as _talk
from site_agent.commands.steward_key import KeyFile, Passphrase, WithoutKey
from site_agent.commands.steward_key import steward_key as _steward_key

if TYPE_CHECKING:
    from consortium.contract.names import Digest


studies_app = typer.Typer(no_args_is_help=True, help="Read studies, approve or reject them.")


@studies_app.command("list")
def studies_list(home: Home, *, as_json: Json = False) -> None:
    """Show the consortium's studies and what this hospital decided about each."""
    from site_agent.app import list_studies

    rows = asyncio.run(list_studies(home))
    if as_json:
        _print_json(rows)
        return
    table = _table("study", "state", "here", "title", "digest")
    for row in rows:
        table.add_row(row["study"], row["state"], row["decision"], row["title"], row["digest"][:16])
    _out.print(table)


@studies_app.command("show")
def studies_show(
    study: str,
    home: Home,
    *,
    count: Annotated[bool, typer.Option("--count", help="Read the images too, to count the patients.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a study would compute here, what would leave, what it costs, and what is new since a decision."""
    from site_agent.app import study_sheet

    sheet = asyncio.run(study_sheet(home, study, count=count))
    if as_json:
        _print_json(sheet.to_json())
    else:
        _out.print(sheet.text(), markup=False)


@studies_app.command("approve")
def studies_approve(
    study: str,
    home: Home,
    *,
    steward: Annotated[str, typer.Option(help="Who approves. Only a pseudonym leaves the building.")],
    statement: Annotated[str, typer.Option(help="What the approval says.")] = "I have read this study and approve it.",
    key: KeyFile = None,
    passphrase_file: Passphrase = None,
) -> None:
    """Approve one study as it is now, signed with the steward's own key; any change to it needs a new approval."""
    from site_agent.app import objection_to, promises_nothing
    from site_agent.deciding import check_words, decide_study

    check_words(statement, steward)
    own = _steward_key(home, steward, key, passphrase_file)
    made = asyncio.run(decide_study(home, study, "approved", steward=steward, statement=statement, key=own))
    if made.missing:
        others = "1 more steward has" if made.missing == 1 else f"{made.missing} more stewards have"
        _out.print(f"Signed for {study}, digest {made.digest}. Nothing runs yet: {others} to approve it here.")
        return
    _out.print(f"Approved {study}, digest {made.digest}. To take it back: site-agent studies withdraw {study}")
    if promises_nothing(home, made.digest):
        _talk.print("[bold red]warning:[/bold red] no patient has differential privacy in this study.")
    objection = objection_to(home, made.digest)
    if objection is not None:
        _talk.print("[bold yellow]warning:[/bold yellow] as things stand nothing will be trained here:", end=" ")
        _talk.print(objection, markup=False)
        _talk.print("  The approval stands; the agent asks site.yaml and the ledger again whenever it is invited.")


@studies_app.command("reject")
def studies_reject(
    study: str,
    home: Home,
    *,
    steward: Annotated[str, typer.Option(help="Who rejects. Only a pseudonym leaves the building.")],
    reason: Annotated[str, typer.Option(help="Why; the consortium lead will read it.")],
    key: KeyFile = None,
    passphrase_file: Passphrase = None,
    without_key: WithoutKey = False,
) -> None:
    """Say no to a study, or take back an approval."""
    own = None if without_key else (key, passphrase_file)
    digest = _say_no(home, study, "rejected", steward=steward, reason=reason, key=own)
    _out.print(f"Rejected {study}, digest {digest}.")


@studies_app.command("withdraw")
def studies_withdraw(
    study: str,
    home: Home,
    *,
    steward: Annotated[str, typer.Option(help="Who withdraws. Only a pseudonym leaves the building.")],
    reason: Annotated[str, typer.Option(help="Why; the consortium lead will read it.")],
    key: KeyFile = None,
    passphrase_file: Passphrase = None,
    without_key: WithoutKey = False,
) -> None:
    """Take an approval back: a running agent stops at once, in the middle of a round too."""
    own = None if without_key else (key, passphrase_file)
    digest = _say_no(home, study, "withdrawn", steward=steward, reason=reason, key=own)
    _out.print(f"Withdrawn: {study}, digest {digest}. A running agent stops within a second; nothing more leaves.")


def _say_no(
    home: Path, study: str, decision: str, *, steward: str, reason: str, key: tuple[Path | None, Path | None] | None
) -> "Digest":
    """Decide against a study, with the steward's key and passphrase file, or without a key; what it was about."""
    from site_agent.deciding import check_words, decide_study

    check_words(reason, steward)
    own = None if key is None else _steward_key(home, steward, *key)
    return asyncio.run(decide_study(home, study, decision, steward=steward, statement=reason, key=own)).digest
