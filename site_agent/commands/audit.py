"""`site-agent audit`: evidence as this hospital has it, and what is kept beside the log."""

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

audit_app = typer.Typer(no_args_is_help=True, help="Evidence as this hospital has it, and whether evidence holds.")


@audit_app.command("payloads")
def audit_payloads(home: Home, *, as_json: Json = False) -> None:
    """List what is kept beside the log and what was erased, with the entries that commit to it."""
    from audit.disclosure import line
    from site_agent.app import kept_payloads

    found = kept_payloads(home)
    if as_json:
        _print_json(found)
        return
    table = _table("id", "state", "fact", "part", "about", "study", "leaf", "erased")
    for one in found:
        table.add_row(*line(one))
    _out.print(table)


@audit_app.command("show-payload")
def audit_show_payload(
    payload: Annotated[str, typer.Argument(metavar="ID", help="As `audit payloads` lists it.")],
    home: Home,
    out: Annotated[Path | None, typer.Option(help="Write the payload to this file; needed unless it is text.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Open what is kept, checked against the commitment in the log: for whoever may ask what was said."""
    from audit.disclosure import describe
    from consortium.contract.private_files import write_private
    from site_agent.app import show_payload

    if out is not None and (out.exists() or not out.absolute().parent.is_dir()):
        _talk.print(f"[bold red]error:[/bold red] {out} exists, or its folder does not; name another file")
        raise typer.Exit(EXIT_USAGE)
    shown = show_payload(home, payload)
    if shown.payload is not None and out is not None:
        write_private(out, shown.payload)
    _print_json(shown.to_json()) if as_json else _out.print(describe(shown, out), markup=False)


@audit_app.command("erase")
def audit_erase(
    payloads: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="As `audit payloads` lists them.")
    ] = None,
    *,
    home: Home,
    by: Annotated[str, typer.Option(help="Who erases; the log has a pseudonym.")],
    subject: Annotated[
        str | None, typer.Option(help="Instead: all that is kept about this person, and whose pseudonym was whose.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Destroy what is kept beside the log, for good, and sign that it was destroyed."""
    from site_agent.app import erase_payloads

    what = f"everything kept about {subject}, and the pseudonym" if subject else ", ".join(payloads or [])
    if not yes:
        typer.confirm(f"Destroy {what or 'nothing'} for good? Nobody can bring it back", abort=True, err=True)
    gone, arrived = asyncio.run(erase_payloads(home, payloads or [], subject, person=by))
    _out.print(f"Erased {gone} payloads" + (", and whose pseudonym it was." if subject else "."))
    _out.print("What the log committed to is erasure.executed there. Backups of the vault are yours to destroy.")
    if not arrived:
        _talk.print(_LATER)


@audit_app.command("export")
def audit_export(
    home: Home,
    study: Annotated[str, typer.Option(help="The study to give evidence of.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write evidence.zip; must not exist yet.")],
) -> None:
    """Write a study's evidence from this hospital's own copy of the log, with its log of what left. Asks nobody."""
    from site_agent.app import export_evidence

    if out.exists():
        _talk.print(f"[bold red]error:[/bold red] {out} exists; name a file that does not")
        raise typer.Exit(EXIT_USAGE)
    made = export_evidence(home, study, out)
    _out.print(
        f"Evidence of {study} in {out}: {made.log_size} entries of the consortium's log, {made.egress_size} of this "
        "hospital's own.",
        markup=False,
    )
    _out.print(f"Anybody can check it offline: unzip -p {out} verify.py > verify.py && python3 verify.py {out}")


@audit_app.command("verify")
def audit_verify(
    file: Path,
    policy: Annotated[Path | None, typer.Option(help="The log's keys, obtained elsewhere.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint of this log that you have from elsewhere.")
    ] = None,
) -> None:
    """Check evidence the way a stranger would: with the program that travels inside it."""
    from audit.verify import main as verify_main

    given = {"--policy": policy, "--checkpoint": checkpoint}
    raise typer.Exit(verify_main([str(file), *(word for key, one in given.items() if one for word in (key, str(one)))]))
