"""`site-agent`: the hospital's command line. Thin over `app.py`.

stdout carries results (`--json` for programs), stderr carries talk. Exit codes: 0 done, 1 refused or not verified,
2 usage, 75 try later.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from consortium import __version__
from consortium.contract.private_process import keep_memory_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from consortium.contract.names import Digest
    from site_agent.budget import DatasetBudget
    from site_agent.bundles.refusals import Finding
    from site_agent.bundles.report import Report
    from site_agent.bundles.study_loss import StudyLoss
    from site_agent.ledger import LedgerRow
    from site_agent.preflight import Checked
    from site_agent.progress import Standing
    from site_agent.traffic_file import LineTraffic

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Run one hospital's side of a consortium.")
studies_app = typer.Typer(no_args_is_help=True, help="Read studies, approve or reject them.")
stewards_app = typer.Typer(no_args_is_help=True, help="Who may approve studies here, each with a key of their own.")
peers_app = typer.Typer(no_args_is_help=True, help="The other hospitals' keys as this agent knows them.")
app.add_typer(studies_app, name="studies")
app.add_typer(stewards_app, name="stewards")
app.add_typer(peers_app, name="peers")
patients_app = typer.Typer(no_args_is_help=True, help="Patients who withdraw.")
app.add_typer(patients_app, name="patients")
bundle_app = typer.Typer(no_args_is_help=True, help="Look at MONAI bundles; nothing in one is ever run.")
app.add_typer(bundle_app, name="bundle")
weights_app = typer.Typer(no_args_is_help=True, help="Files of weights that studies begin from, or end with.")
app.add_typer(weights_app, name="weights")
audit_app = typer.Typer(no_args_is_help=True, help="Evidence as this hospital has it, and whether evidence holds.")
app.add_typer(audit_app, name="audit")

EXIT_REFUSED, EXIT_USAGE, EXIT_TRY_LATER = 1, 2, 75
HOSPITAL_PACKAGES = frozenset({"monai", "opacus", "pandas", "sklearn", "torch"})

Home = Annotated[Path, typer.Option("--home", help="The agent's folder, made by `site-agent enrol`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

WIDTH_WITHOUT_TERMINAL = 200
FULL_CELL, EMPTY_CELL = "\u2588", "\u2591"  # a full block and a light shade

# What goes to a file or another program must not be squeezed into 80 columns.
_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
_talk = Console(stderr=True, highlight=False, soft_wrap=True)


@app.callback(invoke_without_command=True)
def _version(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False
) -> None:
    if version:
        _out.print(f"site-agent {__version__}")
        raise typer.Exit


@app.command()
def enrol(
    kit: Annotated[Path, typer.Option(help="The kit from the consortium lead.")],
    home: Annotated[Path, typer.Option("--home", help="The agent's folder; must not exist yet.")],
) -> None:
    """Make this hospital's keys here, and have them certified. No key ever leaves the folder."""
    from consortium.contract.certificates import key_fingerprint
    from site_agent.enrolment import enrol as enrol_site

    identity = asyncio.run(enrol_site(kit, home))
    _out.print(
        f"Enrolled as [bold]{identity.site}[/bold] in {identity.consortium}; keys and certificate are in {home}."
    )
    _out.print(f"  TLS key (SHA-256)    {identity.spki_sha256}")
    _out.print(f"  signing key          {identity.signing_key}")
    _out.print(f"  ECDSA key (SHA-256)  {key_fingerprint(identity.ecdsa_key)}")
    _out.print(f"Next: write {home / 'site.yaml'} (see site.example.yaml), then site-agent check --home {home}")
    _out.print(f"Then whoever approves studies makes a key of their own: site-agent stewards add NAME --home {home}")


@app.command()
def check(home: Home, *, as_json: Json = False) -> None:
    """Test what a run will need, from the disk to the coordinator, and say what the firewall has to let through."""
    from site_agent.app import check_home

    checked = asyncio.run(check_home(home))
    if as_json:
        _print_json(checked.to_json())
    else:
        _print_checked(checked)
    if not checked.ok:
        raise typer.Exit(EXIT_REFUSED)


def _print_checked(checked: "Checked") -> None:
    marks = {
        "ok": "[green]ok[/green]  ",
        "warning": "[yellow]WARN[/yellow]",
        "failed": "[red]FAIL[/red]",
        "not checked": "[dim]--  [/dim]",
    }
    for result in checked.results:
        _out.print(f"{marks[result.status.value]} [bold]{result.name}[/bold]: ", end="")
        _out.print(result.found, markup=False)
        if result.advice and result.status.value != "not checked":
            _out.print(f"       {result.advice}", markup=False)
    if checked.firewall is not None:
        _out.print("\nFor the firewall team:")
        for what, words in checked.firewall.lines():
            _out.print(f"  {what:<10}  {words}", markup=False)


@app.command()
def run(
    home: Home,
    *,
    drain: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds a round may take to its end, once told to stop.")
    ] = 30.0,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take the place of an agent that ran on a copy of this home, once.")
    ] = False,
) -> None:
    """Take part in approved studies until told to stop. Dials out; listens on nothing."""
    from site_agent.app import run_until_stopped
    from site_agent.processes import alone_or_together

    alone_or_together(lambda: asyncio.run(run_until_stopped(home, drain_s=drain, takes_over=take_over)))


@app.command()
def status(
    home: Home,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing, until interrupted; not with --json.")] = False,
    as_json: Json = False,
) -> None:
    """Show how far this hospital's work on each study has come. None of it is told to anybody else."""
    from rich.console import Group
    from rich.live import Live

    from site_agent.app import line_traffic, study_standings

    def shown() -> Group:
        return Group(_standing_table(study_standings(home)), _traffic_line(line_traffic(home)))

    if as_json:
        _print_json([one.to_json() for one in study_standings(home)])
        return
    if not watch:
        _out.print(shown())
        return
    with Live(console=_out, auto_refresh=False) as live:
        while True:
            live.update(shown(), refresh=True)
            time.sleep(1)


def _traffic_line(found: "LineTraffic | None") -> str:
    if found is None:
        return "line to the coordinator: nothing has passed yet"
    return f"line to the coordinator: {found.passed.words(up='up', down='down')}, at {found.at[11:19]} UTC"


def _standing_table(found: "tuple[Standing, ...]") -> Table:
    from site_agent.progress import time_left

    table = _table("study", "round", "now", "step", "left in this round", "computed on", "as of (UTC)")
    for one in found:
        where = f"{one.round} of {one.rounds}" if one.round <= one.rounds else "after the last"
        step = f"{one.steps_done:,} of {one.steps:,}" if one.steps else ""
        left = "" if one.seconds_left is None else time_left(one.seconds_left)
        table.add_row(one.study, where, one.doing, step, left, one.device, one.at[:19].replace("T", " "))
    return table


@app.command()
def budget(
    home: Home,
    dataset: Annotated[str | None, typer.Option(help="One dataset only.")] = None,
    *,
    as_json: Json = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="First count again what this hospital signed and the ledger lacks.")
    ] = False,
) -> None:
    """Show what privacy has been spent on each dataset, by which study, what is reserved and what is left."""
    from site_agent.app import dataset_budgets, restore_budget

    if restore:
        restored = restore_budget(home)
        _talk.print(
            f"Counted again: {restored} {'attempt' if restored == 1 else 'attempts'}, of training or test figures."
        )
    found = dataset_budgets(home, dataset)
    if as_json:
        _print_json([one.to_json() for one in found])
        return
    for number, one in enumerate(found):
        if number:
            _out.print()
        _print_budget(one)


def _print_budget(one: "DatasetBudget") -> None:
    """One dataset: a bar of its cap, then a row for each study."""
    note = "" if one.configured else " (no longer in site.yaml)"
    _out.print(
        f"[bold]{one.dataset}[/bold]{note}: epsilon {one.epsilon:.4f} of {one.cap:g} spent for ever, "
        f"at delta {one.delta:g}; {one.left:.4f} left"
    )
    _out.print(f"  {_bar(one.held_against_cap / one.cap)} {one.held_against_cap / one.cap:.1%} of the cap")
    if one.held_against_cap != one.epsilon:
        _out.print(
            f"  Held against the cap: {one.held_against_cap:.4f}. Several studies, or training and test figures, are "
            "counted so that the cap holds even if one was chosen because of another's result."
        )
    for name, patients in one.shares:
        count = "patients" if patients is None else f"{patients:,} {'patient' if patients == 1 else 'patients'}"
        known = ", as far as is known," if patients is None else ""
        _out.print(f"  Shares {count}{known} with dataset {name}: what is spent there counts here too.")
    if one.reserved_rounds:
        rounds, counts = ("round", "It counts") if one.reserved_rounds == 1 else ("rounds", "They count")
        became = "it" if one.reserved_rounds == 1 else "them"
        _out.print(
            f"  Reserved and not settled: {one.reserved_rounds} {rounds}. {counts}, whatever became of {became}."
        )
    if not one.studies:
        _out.print("  No study has trained on it yet.")
        return
    table = _table("  study", "digest", "rounds", "reserved", "steps", "epsilon", "delta", "of the cap")
    for column in table.columns[2:7]:
        column.justify = "right"
    for study in one.studies:
        if study.training is not None:
            table.add_row(f"  {study.study}", study.study_digest[:8], *_line_of(study.training, one.cap))
        else:
            table.add_row(f"  {study.study}", study.study_digest[:8], "0", "0", "0", *("-",) * 3)
        if study.figures is not None:
            table.add_row("    its test figures", "", *_line_of(study.figures, one.cap))
    _out.print(table)


def _line_of(row: "LedgerRow", cap: float) -> tuple[str, ...]:
    """What one line of the ledger counts, for a table."""
    return (
        str(row.rounds),
        str(row.open_rounds),
        f"{row.steps:,}",
        f"{row.epsilon:.4f}",
        f"{row.delta:g}",
        _bar(row.epsilon / cap, 10),
    )


def _bar(share: float, cells: int = 40) -> str:
    """A bar; colours and blocks where a person looks, plain characters in a file."""
    from site_agent.budget import bar

    full, empty = bar(share, cells)
    if not _out.is_terminal:
        return "#" * full + "." * empty
    colour = "green" if share < 0.5 else "yellow" if share < 0.9 else "red"
    return f"[{colour}]{FULL_CELL * full}[/{colour}][dim]{EMPTY_CELL * empty}[/dim]"


@app.command()
def certificate(study: str, home: Home, *, as_json: Json = False) -> None:
    """Show what this hospital promises each patient about a study: guarantee, mechanism, what is outside."""
    from site_agent.app import certificate_of_study

    made, local = certificate_of_study(home, study)
    if as_json:
        _print_json({"certificate": made.to_json(), "stays_here": dict(local)})
        return
    from site_agent.privacy_certificate import describe_certificate

    _out.print(describe_certificate(made, local), markup=False)


@app.command("audit-privacy")
def audit_privacy(study: str, home: Home, *, as_json: Json = False) -> None:
    """Measure what a study's training really does, on made-up records: no patient is read, nothing is spent."""
    from site_agent.app import audit_of_study

    _talk.print("Running the real training step on made-up records; this takes a minute or two.")
    found = audit_of_study(home, study)
    if as_json:
        checks = [{"check": f.check, "ok": f.passed, "found": f.found, "allowed": f.allowed} for f in found.findings]
        _print_json({"checks": checks, "figures": dict(found.figures), "confidence": found.confidence})
    else:
        for finding in found.findings:
            mark = "[green]ok[/green]  " if finding.passed else "[red]FAIL[/red]"
            _out.print(f"{mark} [bold]{finding.check}[/bold]: {finding.found} (allowed: {finding.allowed})")
        _out.print(f"All of these bounds hold together with confidence {found.confidence:g}.")
    if found.failed:
        raise typer.Exit(EXIT_REFUSED)


@app.command()
def overlays(
    study: str,
    home: Home,
    *,
    count: Annotated[int, typer.Option(min=1, max=100, help="How many test patients, at most.")] = 6,
    as_json: Json = False,
) -> None:
    """Draw test images with their true and predicted masks, into the agent's home. They are patients' images."""
    from site_agent.app import overlays_of_study

    drawn = overlays_of_study(home, study, count)
    if as_json:
        _print_json([str(path) for path in drawn])
        return
    _out.print(f"{len(drawn)} pictures (image, true mask, predicted mask) are in {drawn[0].parent}.", markup=False)
    _out.print("They show patients of this hospital: nothing of them was sent, and the agent never draws any itself.")


@app.command()
def egress(
    home: Home,
    *,
    begin_anew: Annotated[
        bool, typer.Option("--begin-anew", help="Set a damaged log aside first, and begin another.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show everything that has left the building: when, what, for which study, under which approval; how large."""
    from site_agent.app import egress_begun_anew, egress_of

    if begin_anew:
        _talk.print(f"The damaged log is in {egress_begun_anew(home)}; keep it.", markup=False)
    found = egress_of(home)
    if as_json:
        _print_json(found.to_json())
        return
    table = _table("leaf", "time (UTC)", "what", "study", "bytes", "SHA-256", "under approval")
    for line in found.log.lines:
        s = line.sent
        leaf = "waits" if line.leaf is None else str(line.leaf)
        when = s.ts[:19].replace("T", " ")
        study = found.name(s.study_digest)
        table.add_row(leaf, when, s.kind, study, f"{s.size_bytes:,}", s.sha256[:16], (s.approval or "")[:16])
    _out.print(table)
    for total in found.totals():
        _out.print(f"{total.study or 'no single study'}: {total.messages} messages, {total.size_bytes:,} bytes.")
    if found.log.lost:
        _out.print(f"Before this log there were {found.log.lost} entries in logs that were set aside as damaged.")
    _out.print(f"log of {found.log.size} entries, root {found.log.root.hex()}, verified", markup=False)


@app.command()
def policy(
    home: Home,
    study: Annotated[
        str | None, typer.Option(help="With the witnesses of this study, by the copy of the log here.")
    ] = None,
) -> None:
    """Print policy.txt, what an auditor checks evidence against: the log's key as believed here, and its witnesses."""
    from site_agent.app import policy_text

    print(policy_text(home, study).decode(), end="")  # noqa: T201 - a result, byte for byte


@app.command("log-key")
def log_key(
    home: Home,
    accept: Annotated[
        str | None, typer.Option(metavar="VKEY", help="Believe this key from now on, and no other: compare it first.")
    ] = None,
) -> None:
    """Print the keys of the consortium's log that this hospital believes, the newest last."""
    from site_agent.home import open_home
    from site_agent.log_keys import accept_key, believed_keys

    opened = open_home(home)
    if accept is not None:
        accept_key(opened, accept)
    for vkey in believed_keys(opened).vkeys():
        print(vkey)  # noqa: T201 - a result


@app.command("rotate-witness-key")
def rotate_witness_key(home: Home) -> None:
    """Make another key for cosigning the log, with the agent stopped, and overwrite the old one."""
    from site_agent.home import open_home
    from site_agent.witness_key import rotate

    rotate(open_home(home))
    _out.print("There is a new witness key; the agent tells the log when it is started. Policies must be made anew.")


@app.command("verify-study")
def verify_study(study: str, home: Home, *, as_json: Json = False) -> None:
    """Hold a study in the log against what this hospital knows: approvals, rounds, epsilon, bytes, who sees the log."""
    from site_agent.app import review_study

    found = review_study(home, study)
    if as_json:
        _print_json({"study": found.study, "ok": not found.failed, "lines": [one.to_json() for one in found.lines]})
    else:
        colours = {"PASS": "green", "FAIL": "red", "not known": "yellow"}
        for one in found.lines:
            _out.print(f"[{colours[one.status]}]{one.status:<9}[/] [bold]{one.title:<12}[/bold] ", end="")
            _out.print(one.said, markup=False)
    if found.failed:
        raise typer.Exit(EXIT_REFUSED)


@app.command()
def record(
    kind: Annotated[
        str | None, typer.Argument(metavar="[FACT]", help="What is declared; without it, the list.")
    ] = None,
    fields: Annotated[list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="What the fact needs.")] = None,
    *,
    home: Home,
    study: Annotated[str | None, typer.Option(help="The study it is about, if it is about one.")] = None,
    document: Annotated[
        Path | None, typer.Option(help="The document that says so; its SHA-256 is signed, and nothing else of it.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who records it; the log has a pseudonym.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the document sealed beside the log, where it can be erased.")
    ] = False,
    note: Annotated[
        str | None, typer.Option(help="Words that are kept beside the log, where they can be erased.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Whom the document or note is about; else who records it.")
    ] = None,
) -> None:
    """Declare a fact for the log, signed: an agreement, a board's decision, a legal basis, a review, a withdrawal."""
    from audit.declarations import DECLARED, asked
    from site_agent.app import declare_fact

    if kind is None:
        table = _table("fact", "field", "")
        for name, declared in DECLARED.items():
            for one in asked(declared):
                table.add_row(name, f"{one.name}={one.words}", "" if one.needed else "may be left out")
        _out.print(table)
        return
    if by is None:
        _talk.print("[bold red]error:[/bold red] nobody records this")
        _talk.print("  Name yourself with --by; the log has a pseudonym, never the name.")
        raise typer.Exit(EXIT_USAGE)
    if keep and document is None:
        _talk.print("[bold red]error:[/bold red] there is no document to keep")
        _talk.print("  Name it with --document; --note is kept without --keep.")
        raise typer.Exit(EXIT_USAGE)
    made, arrived = asyncio.run(
        declare_fact(
            home, kind, fields or [], study=study, document=document, person=by,
            keep_document=keep, note=note, subject=subject,
        )
    )  # fmt: skip
    _print_json({"entry": json.loads(made)})
    if not arrived:
        _talk.print(_LATER)


_LATER = "The coordinator could not be reached; the agent hands it over when it connects."


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


KeyFile = Annotated[
    Path | None, typer.Option("--key", help="The steward's key file; by default the one `stewards add` made.")
]
Passphrase = Annotated[
    Path | None, typer.Option("--passphrase-file", help="A file whose first line is the passphrase, instead of asking.")
]
WithoutKey = Annotated[
    bool, typer.Option("--without-key", help="Without a steward's signature, such as when the key is lost.")
]


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


def _steward_key(home: Path, steward: str, key: Path | None, passphrase_file: Path | None) -> "Ed25519PrivateKey":
    """The steward's own key, with the passphrase asked for, or read from a file."""
    from site_agent.home import open_home
    from site_agent.stewards import default_key_file, read_key_file

    path = key or default_key_file(open_home(home).site, steward)
    return read_key_file(path, _passphrase(passphrase_file, f"Passphrase of {path}"))


def _passphrase(file: Path | None, question: str, *, twice: bool = False) -> str:
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


@peers_app.command("list")
def peers_list(home: Home, *, as_json: Json = False) -> None:
    """Show the other hospitals' keys, to compare by telephone."""
    from consortium.contract.certificates import key_fingerprint
    from site_agent.app import open_store

    rows = open_store(home).peers()
    if as_json:
        _print_json([{"site": s, "spki_sha256": t, "signing_key": k, "ecdsa_key": e} for s, t, k, e in rows])
        return
    table = _table("site", "TLS key (SHA-256)", "signing key", "ECDSA key (SHA-256)")
    for *row, ecdsa_key in rows:
        table.add_row(*row, key_fingerprint(ecdsa_key))
    _out.print(table)


@peers_app.command("forget")
def peers_forget(site: str, home: Home) -> None:
    """Accept the certificate a hospital shows next. Compare fingerprints with it first."""
    from site_agent.app import open_store

    if not open_store(home).forget_peer(site):
        _talk.print(f"[bold red]error:[/bold red] no hospital named {site} is known here")
        raise typer.Exit(EXIT_REFUSED)
    _out.print(f"Forgot {site}; the next certificate it shows is remembered.")


@app.command("rotate-keys")
def rotate_keys(home: Home) -> None:
    """Have a new TLS key certified now, and use it from the next connection on. The signing keys stay."""
    from site_agent.app import rotate_tls_key

    renewed = asyncio.run(rotate_tls_key(home))
    _out.print(f"New TLS key {renewed.spki_sha256}, certified until {renewed.not_after:%Y-%m-%d}.")
    _out.print("A running agent takes it up within a minute or two, between two rounds.")


@patients_app.command("withdraw")
def patients_withdraw(
    home: Home,
    dataset: Annotated[str, typer.Option(help="The dataset of site.yaml that they are in.")],
    file: Annotated[Path, typer.Option(help="One identifier per line, as the data spell it; - for standard input.")],
) -> None:
    """Leave patients out of every cohort from the next round on. What identifies them is not kept."""
    from site_agent.app import withdraw_patients

    done = asyncio.run(withdraw_patients(home, dataset, file))
    _out.print(f"From the next round on no study here uses them: {done.found} found in the data, {done.unknown} not.")
    if done.unknown:
        _out.print("Those that were not found stay marked, in case they come with a later extract. Check the spelling.")
    if done.studies:
        _out.print(f"The log says that patients withdrew, not who or how many: {', '.join(done.studies)}.")
        _out.print("Models that were released are as they were: see docs/how-to/withdraw-a-patient.md.")
    if not done.told:
        _talk.print("The coordinator could not be reached; the agent hands the entries over when it runs.")


@patients_app.command("list")
def patients_list(home: Home, *, as_json: Json = False) -> None:
    """Show when patients withdrew, and of which dataset. Who and how many is kept nowhere."""
    from site_agent.app import open_store

    rows = [(_time(one.at)[:10], one.dataset) for one in open_store(home).withdrawals()]
    if as_json:
        _print_json([{"at": at, "dataset": dataset} for at, dataset in rows])
        return
    table = _table("when (UTC)", "dataset")
    for row in rows:
        table.add_row(*row)
    _out.print(table)


@app.command("plugin-digest")
def plugin_digest(
    distribution: Annotated[str, typer.Argument(help="An installed distribution, as `pip list` names it.")],
    *,
    as_json: Json = False,
) -> None:
    """Print the digest of an installed distribution, over its files on disk, and the lines for site.yaml."""
    from site_agent.plugin_distribution import installed

    found = installed(distribution)
    if as_json:
        facts = {"distribution": found.name, "version": found.version, "sha256": found.sha256}
        _print_json({**facts, "files": len(found.files), "modules": list(found.modules)})
        return
    _out.print(f"{found.name} {found.version}: {len(found.files)} files, SHA-256 {found.sha256}", markup=False)
    _out.print("In site.yaml, once somebody here has read them:\n  client_algos:\n    NAME:", markup=False)
    _out.print(f"      distribution: {found.name}\n      version: {found.version}", markup=False)
    _out.print(
        f"      module: {'|'.join(found.modules)}\n      sha256: {found.sha256}\n      class: CLASS", markup=False
    )


@bundle_app.command("check")
def bundle_check(
    path: Annotated[Path, typer.Argument(help="A bundle's folder or zip file.")], *, as_json: Json = False
) -> None:
    """Say what a MONAI bundle would do here: its digest, what is used, what is left out, and all that is refused."""
    from site_agent.bundles.report import look_at

    found = look_at(path)
    if as_json:
        _print_json(found.to_json())
    else:
        _print_bundle(found)
    if not found.accepted:
        raise typer.Exit(EXIT_REFUSED)


def _print_bundle(found: "Report") -> None:
    from site_agent.bundles.report import left_out_by_reason, shown_args

    if found.bundle is not None:
        _out.print(f"Bundle {found.bundle.name} {found.bundle.version}", markup=False)
    if found.digest is not None:
        _out.print(f"Digest {found.digest}")
    if found.bundle is not None:
        _out.print("\nUsed, from the allow-list:")
        for part in found.bundle.components:
            args = ", ".join(f"{name}={value}" for name, value in shown_args(part).items())
            _out.print(f"  {part.target.kind.value:<9}  {part.id}: {part.target.name}({args})", markup=False)
        if found.parameters is not None:
            _out.print(f"  The network has {found.parameters:,} parameters. Weights: {found.weights}.", markup=False)
        _out.print("\nOtherwise than it says:")
        for change in found.changes:
            _out.print(f"  {change}", markup=False)
        _out.print("\nLeft out, and never run:")
        for why, places in left_out_by_reason(found.bundle.left_out):
            _out.print(f"  {why}\n      {places}", markup=False)
    if found.views is not None and found.views.left_out:
        _out.print("\nLeft out, because no study can say it so:")
        for why, places in left_out_by_reason(found.views.left_out):
            _out.print(f"  {why}\n      {places}", markup=False)
    for title, findings in (
        ("Refused", found.refused),
        ("Not as patient-level privacy needs it; a study says it itself", found.unfit),
    ):
        if findings:
            _out.print(f"\n[bold red]{title}[/bold red], {len(findings)}:")
        for finding in findings:
            _out.print(f"  {finding.place}\n      found {finding.found}; allowed: {finding.allowed}", markup=False)
            _out.print(f"      {finding.advice}", markup=False)
    if found.model is not None and found.digest is not None:
        given = found.model["args"]
        assert isinstance(given, dict)
        _out.print("\n[green]ok[/green]: every word of it is on the allow-list, and nothing in it is a program.")
        _out.print("\nIn a study:\n  model:", markup=False)
        _out.print(f"    network: {found.model['network']}\n    args:", markup=False)
        _out.print(f"      digest: {given['digest']}\n      definition: '{given['definition']}'", markup=False)
        if found.follows:
            _out.print(f"      follows: [{', '.join(found.follows)}]  # as far as the study is to", markup=False)
        _print_loss(found.loss)
        for name, value in found.data.items():
            _out.print(f"  data:  # of its {name}\n    {name}: {json.dumps(value)}", markup=False)
        _out.print(f"In site.yaml, to let studies use it:\n  bundles:\n    {found.digest}: PATH", markup=False)


def _print_loss(loss: "StudyLoss | Finding | None") -> None:
    from site_agent.bundles.study_loss import StudyLoss

    if isinstance(loss, StudyLoss):
        _out.print(f"  training:\n    loss: {loss.name}", markup=False)
    elif loss is not None:
        _out.print(f"Its loss is none that a study has, because of {loss.place}:", markup=False)
        _out.print(f"  found {loss.found}; allowed: {loss.allowed}. {loss.advice}", markup=False)


StudyPath = Annotated[Path, typer.Argument(help="The study's YAML file.")]
NewFile = Annotated[Path, typer.Option("--out", help="Where to write; must not exist yet.")]


@weights_app.command("make")
def weights_make(study: StudyPath, out: NewFile) -> None:
    """Draw a network's first weights from the study's seed, so that all hospitals can begin from the same file."""
    from consortium.contract.study import load_study
    from site_agent.weights_files import drawn, write_new

    _print_initial(write_new(out, drawn(load_study(study))), out, whole=True)


@weights_app.command("convert")
def weights_convert(
    source: Annotated[Path, typer.Argument(help="A .pt or .safetensors file, or a MONAI bundle.")],
    study: Annotated[Path, typer.Option(help="The study's YAML file: which network they are for.")],
    out: NewFile,
    *,
    partial: Annotated[bool, typer.Option("--partial", help="Also if tensors are left out or missing.")] = False,
) -> None:
    """Bring weights from elsewhere into the form studies begin from. Nothing but tensors is read of a file."""
    from consortium.contract.study import load_study
    from site_agent.weights_files import converted, write_new

    found = converted(load_study(study), source)
    for what, names in (("Left out, not of the network", found.left_out), ("Missing in the file", found.missing)):
        for name in names:
            _talk.print(f"{what}: {name[:200]!r}", markup=False)
    if (found.left_out or found.missing) and not partial:
        _talk.print("[bold red]error:[/bold red] the file does not have exactly the network's parameters")
        _talk.print("  Nothing was written. Convert what fits with --partial.")
        raise typer.Exit(EXIT_REFUSED)
    _print_initial(write_new(out, found.model), out, whole=not found.missing)


@weights_app.command("export")
def weights_export(
    study: StudyPath,
    model: Annotated[Path, typer.Argument(help="A model that the study released, in safetensors.")],
    out: NewFile,
    weights: Annotated[Path | None, typer.Option(help="The file of the study's initial_weights.")] = None,
) -> None:
    """Make a released model whole: with the parameters that were not trained, and adapters worked into layers."""
    from consortium.contract.study import load_study
    from site_agent.weights_files import whole, write_new

    read = load_study(study)
    named = read.initial_weights
    files = {} if named is None or weights is None else {named.sha256: str(weights)}
    sha256 = write_new(out, whole(read, model, files))
    _out.print(f"Every parameter of the network is in {out}.\n  SHA-256  {sha256}", markup=False)
    if read.training.site_kept is not None:
        _talk.print(
            "Parameters that hospitals keep are in it as they were before training: train them where it is used."
        )


def _print_initial(sha256: str, out: Path, *, whole: bool) -> None:
    _out.print(f"Weights are in {out}.\nIn the study:\n  initial_weights:\n    sha256: {sha256}", markup=False)
    if not whole:
        _out.print("    missing: drawn", markup=False)
    _out.print(f"In every hospital's site.yaml:\n  weights:\n    {sha256}: PATH", markup=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # a fingerprint that ends in dots cannot be compared
    return table


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, sort_keys=True))  # noqa: T201 - a result


_EXIT_OF_CODE: Mapping[str, int] = {"try_later": EXIT_TRY_LATER, "invalid": EXIT_USAGE}


def report_error(error: Exception) -> int | None:
    """Print a known error as one message and return its exit code; None if it is not one of ours."""
    advice = getattr(error, "advice", None)
    if advice is None:
        return None
    _talk.print("[bold red]error:[/bold red]", end=" ")
    _talk.print(str(error), markup=False)
    _talk.print(f"  {advice()}", markup=False)
    return _EXIT_OF_CODE.get(getattr(error, "code", "refused"), EXIT_REFUSED)


def main() -> None:
    """The console script."""
    keep_memory_private()  # most commands read a private key
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in HOSPITAL_PACKAGES:
            raise
        _talk.print(f"[bold red]error:[/bold red] {package} is not installed")
        _talk.print("  This command needs what a hospital needs: pip install 'hospital-consortium\\[site]'")
        sys.exit(EXIT_REFUSED)
    except Exception as error:
        code = report_error(error)
        if code is None:
            raise
        sys.exit(code)
