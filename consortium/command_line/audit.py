"""`consortium audit`: the log, evidence, and what is kept beside the log."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from consortium.command_line.shell import EXIT_USAGE, Home, Json, OwnHome
from consortium.command_line.shell import command as _command
from consortium.command_line.shell import fail as _fail
from consortium.command_line.shell import out as _out
from consortium.command_line.shell import print_json as _print_json
from consortium.command_line.shell import require_new_file as _require_new_file
from consortium.command_line.shell import table as _table

audit_app = typer.Typer(no_args_is_help=True, help="Read the log, export evidence, verify it.")


@audit_app.command("export")
def audit_export(
    home: Home,
    study: Annotated[str, typer.Option(help="The study to give evidence of.")],
    out: Annotated[Path, typer.Option(help="Where to write evidence.zip.")],
    payload: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Disclose this payload in it, for good; may be repeated.")
    ] = None,
) -> None:
    """Write a study's evidence: log, proofs, study, model, privacy spent, report, and the program that checks it."""
    from consortium.account_folder import is_account
    from consortium.operator import fetch

    _require_new_file(out)
    answer = _command(home, "audit.export", study=study, payloads=payload or [])
    if is_account(home):
        asyncio.run(fetch(home, "audit.export-part", {"name": answer["name"]}, out))
    else:
        shutil.move(answer["path"], out)
    _out.print(f"Evidence of {study} in {out} ({answer['size_bytes']:,} bytes, {answer['entries']} log entries).")
    _out.print(f"Anybody can check it offline: unzip -p {out} verify.py > verify.py && python3 verify.py {out}")


@audit_app.command("verify")
def audit_verify(
    file: Path,
    policy: Annotated[Path | None, typer.Option(help="The log's keys, obtained elsewhere.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint of this log that you have from elsewhere.")
    ] = None,
) -> None:
    """Check a bundle the way a stranger would: with the program that travels inside it."""
    from audit.verify import main as verify_main

    given = {"--policy": policy, "--checkpoint": checkpoint}
    raise typer.Exit(verify_main([str(file), *(word for key, one in given.items() if one for word in (key, str(one)))]))


@audit_app.command("fsck")
def audit_fsck(home: OwnHome) -> None:
    """Examine the log on its disk: every entry, hash and chain against the signed root. Changes nothing."""
    from audit.fsck import examine
    from consortium.home import open_home

    opened = open_home(home)
    found = examine(opened.config.log_folder(home), opened.log_signer.verifier, opened.config.log_entries)
    _out.print(
        f"The log {found.origin} is sound: {found.entries} entries, {found.hospitals} hospitals' chains unbroken."
    )
    _out.print(f"root {found.root.hex()}")
    if found.dropped:
        _out.print(found.dropped)


@audit_app.command("log")
def audit_log(
    home: Home,
    start: Annotated[int, typer.Option("--from", min=0, help="First leaf index.")] = 0,
    *,
    as_json: Json = False,
) -> None:
    """Print the log."""
    rows: list[dict[str, Any]] = []
    while (page := _command(home, "audit.log", start=start + len(rows)))["entries"]:
        rows += page["entries"]
    if as_json:
        _print_json({"size": start + len(rows), "entries": rows})
        return
    _table(
        ["leaf", "time", "type", "actor", "study", "round", "about"],
        [[str(r["index"]), r["ts"], r["type"], r["actor"], r["study"], r["round"], _about(r["body"])] for r in rows],
    )


@audit_app.command("rotate-key")
def audit_rotate_key(
    home: Home,
    reason: Annotated[str | None, typer.Option(help="Why; the log keeps it.")] = None,
    overlap_days: Annotated[int, typer.Option(min=1, max=3650, help="How long both keys sign.")] = 30,
    *,
    finish: Annotated[
        bool, typer.Option("--finish", help="End the overlap now: the new key signs alone, the old one is destroyed.")
    ] = False,
) -> None:
    """Give the log another signing key, with an overlap in which both sign."""
    if finish == (reason is not None):
        _fail("say why with --reason, or end the overlap with --finish", "Nothing was changed.", EXIT_USAGE)
    found = _command(home, "audit.rotate-key", reason=reason or "", days=overlap_days, finish=finish)
    for vkey in found["vkeys"]:
        _out.print(f"  log key  {vkey}")
    if found["overlap_until"] is not None:
        _out.print(f"Both keys sign until {found['overlap_until']}. Then, or with --finish, only the second one.")
        _out.print("Tell outside witnesses and whoever keeps a policy.txt: the second key is the log's.")
    else:
        _out.print("One key signs. The one before it is destroyed here; destroy it in backups too.")


@audit_app.command("retention")
def audit_retention(
    home: Home,
    years: Annotated[int, typer.Option(min=1, max=100, help="How long entries are kept.")] = 6,
    by: Annotated[
        str | None, typer.Option(help="Who looked: write down that they are kept; the log has a pseudonym.")
    ] = None,
    document: Annotated[Path | None, typer.Option(help="The written policy; its SHA-256 is recorded.")] = None,
    *,
    drop: Annotated[bool, typer.Option("--drop", help="Drop what may be dropped, for good; hashes stay.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Drop without asking.")] = False,
) -> None:
    """Show which entries are older than a policy asks for, or drop those that may go."""
    if drop:
        _drop(home, years, by, document, yes=yes)
        return
    found = _command(home, "audit.retention", years=years, by=by)
    _out.print(f"{found['entries']} entries are from before {found['older_than']}; all of them are kept.")
    _out.print(f"In whole bundles of 256: {found['bundles']}, {found['size_bytes']:,} bytes. Hashes must stay.")
    if by is not None:
        _out.print("Written down as retention.applied.")


def _drop(home: Path, years: int, by: str | None, document: Path | None, *, yes: bool) -> None:
    """`audit retention --drop`."""
    from consortium.contract.documents import document_sha256

    if by is None or document is None:
        _fail(
            "dropping needs who decided it (--by) and the written policy (--document)", "Nothing was changed.",
            EXIT_USAGE,
        )  # fmt: skip
    found = _command(home, "audit.retention", years=years, drop=False)
    if found["announced"] is not None:
        _out.print(f"A drop is announced in the log (leaf {found['announced']}) and is finished now.")
    else:
        _out.print(
            f"{found['entries']} entries from before {found['older_than']}, {found['size_bytes']:,} bytes, may go."
        )
        _out.print(f"Studies that go with them: {', '.join(found['studies']) or 'none'}.")
    if not yes and (found["entries"] or found["announced"] is not None):
        typer.confirm("They cannot be brought back. Their hashes stay, and proofs hold. Drop them?", abort=True)
    digest = document_sha256(document)
    _out.print(_command(home, "audit.retention", years=years, drop=True, by=by, document_sha256=digest)["said"])


@audit_app.command("payloads")
def audit_payloads(home: Home, *, as_json: Json = False) -> None:
    """List what is kept beside the log and what was erased, with the entries that commit to it."""
    from audit.disclosure import line

    found = _command(home, "audit.payloads")["payloads"]
    if as_json:
        _print_json(found)
        return
    columns = ["id", "state", "fact", "part", "about", "study", "leaf", "erased"]
    _table(columns, [line(one) for one in found])


@audit_app.command("show-payload")
def audit_show_payload(
    payload: Annotated[str, typer.Argument(metavar="ID", help="As `audit payloads` lists it.")],
    home: OwnHome,
    out: Annotated[Path | None, typer.Option(help="Write the payload to this file; needed unless it is text.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Open what is kept, checked against the commitment in the log: for whoever may ask what was said."""
    from audit.disclosure import describe
    from consortium.contract.private_files import write_private
    from consortium.vault_operator import show

    if out is not None:
        _require_new_file(out)
    shown = asyncio.run(show(home, payload))
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
    """Destroy what is kept beside the log, for good, and write down that it was destroyed."""
    what = f"everything kept about {subject}, and the pseudonym" if subject else ", ".join(payloads or [])
    if not yes:
        typer.confirm(f"Destroy {what or 'nothing'} for good? Nobody can bring it back", abort=True, err=True)
    gone = _command(home, "audit.erase", payloads=payloads or [], subject=subject, by=by)["erased"]
    _out.print(f"Erased {len(gone)} payloads" + (", and whose pseudonym it was." if subject else "."))
    _out.print("What the log committed to is erasure.executed there. Backups of the vault are yours to destroy.")


@audit_app.command("proof")
def audit_proof(
    index: int,
    home: Home,
    entry: Annotated[
        Path | None, typer.Option(help="The entry as somebody kept it: prove it only if it is this one.")
    ] = None,
) -> None:
    """Print the receipt (.tlog-proof) of one entry, also of one that was dropped."""
    from audit.merkle import leaf_hash

    try:
        kept = leaf_hash(entry.read_bytes()).hex() if entry is not None else None
    except OSError as error:
        _fail(f"{entry} cannot be read: {error.strerror}", "Name the file with the entry, byte for byte.", EXIT_USAGE)
    receipt = _command(home, "audit.proof", index=index, leaf_hash=kept)["receipt"]
    print(receipt, end="")  # noqa: T201 - a result, byte for byte


def _about(body: Mapping[str, Any]) -> str:
    """Whom an entry of the coordinator is about, if it is about one."""
    return str(body.get("site") or body.get("blamed") or body.get("subject") or "")
