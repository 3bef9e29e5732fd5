"""`site-agent`: the hospital's command line. Thin over `app.py`.

stdout carries results (`--json` for programs), stderr carries talk. Exit codes: 0 done, 1 refused or not verified,
2 usage, 75 try later.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Table

from consortium import __version__
from consortium.contract.light_start import DRAIN_MAX_S, DRAIN_S
from consortium.contract.private_process import keep_memory_private
from site_agent.commands.audit import audit_app
from site_agent.commands.bundle import bundle_app
from site_agent.commands.patients import patients_app
from site_agent.commands.peers import peers_app
from site_agent.commands.shell import EXIT_REFUSED, EXIT_TRY_LATER, EXIT_USAGE, Home, Json
from site_agent.commands.shell import LATER as _LATER
from site_agent.commands.shell import out as _out
from site_agent.commands.shell import print_json as _print_json
from site_agent.commands.shell import table as _table
from site_agent.commands.shell import talk as _talk
from site_agent.commands.steward_key import KeyFile, Passphrase, steward_key
from site_agent.commands.stewards import stewards_app
from site_agent.commands.studies import studies_app
from site_agent.commands.weights import weights_app

if TYPE_CHECKING:
    from site_agent.budget import DatasetBudget
    from site_agent.ledger import LedgerRow
    from site_agent.preflight import Checked
    from site_agent.progress import Standing
    from site_agent.traffic_file import LineTraffic

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Run one hospital's side of a consortium.")
app.add_typer(studies_app, name="studies")
app.add_typer(stewards_app, name="stewards")
app.add_typer(peers_app, name="peers")
app.add_typer(patients_app, name="patients")
app.add_typer(bundle_app, name="bundle")
app.add_typer(weights_app, name="weights")
app.add_typer(audit_app, name="audit")

HOSPITAL_PACKAGES = frozenset({"monai", "opacus", "pandas", "sklearn", "torch"})

FULL_CELL, EMPTY_CELL = "\u2588", "\u2591"  # a full block and a light shade


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
        float, typer.Option(min=0, max=DRAIN_MAX_S, help="Seconds a round may take to its end, once told to stop.")
    ] = DRAIN_S,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take the place of an agent that ran on a copy of this home, once.")
    ] = False,
) -> None:
    """Take part in approved studies until told to stop. Dials out; listens on nothing."""
    from site_agent.entry import run as run_home

    run_home(home, drain_s=drain, take_over=take_over)


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


@app.command("rotate-keys")
def rotate_keys(home: Home) -> None:
    """Have a new TLS key certified now, and use it from the next connection on. The signing keys stay."""
    from site_agent.app import rotate_tls_key

    renewed = asyncio.run(rotate_tls_key(home))
    _out.print(f"New TLS key {renewed.spki_sha256}, certified until {renewed.not_after:%Y-%m-%d}.")
    _out.print("A running agent takes it up within a minute or two, between two rounds.")


@app.command("rotate-signing-keys")
def rotate_signing_keys_(
    home: Home,
    *,
    steward: Annotated[str, typer.Option(help="The steward who signs for the new keys.")],
    key: KeyFile = None,
    passphrase_file: Passphrase = None,
) -> None:
    """Change the signing keys, on a steward's word. Other hospitals follow by themselves; not for a stolen key."""
    from consortium.contract.certificates import key_fingerprint
    from site_agent.app import rotate_signing_keys

    own = steward_key(home, steward, key, passphrase_file)
    made = asyncio.run(rotate_signing_keys(home, steward, own))
    _out.print(f"New signing key {made.keys.signing}")
    _out.print(f"New ECDSA key   {key_fingerprint(made.keys.ecdsa)} (SHA-256)")
    if made.done:
        _out.print("They count from now on, and the old ones are destroyed. Back up the agent's home.")
    elif made.running:
        _out.print("The running agent changes to them within a minute or two, between two rounds.")
    else:
        _out.print("The coordinator could not be reached: the agent changes to them when it is connected.")


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


_EXIT_OF_CODE: Mapping[str, int] = {"try_later": EXIT_TRY_LATER, "invalid": EXIT_USAGE}


def report_error(error: BaseException) -> int | None:
    """Print a known error as one message and return its exit code; None if it is not one of ours."""
    advice = getattr(error, "advice", None)
    if advice is None:
        return None
    _talk.print("[bold red]error:[/bold red]", end=" ")
    _talk.print(str(error), markup=False)
    _talk.print(f"  {advice()}", markup=False)
    return _EXIT_OF_CODE.get(getattr(error, "code", "refused"), EXIT_REFUSED)


def leave(error: BaseException) -> NoReturn:
    """End the program as an exception asks: a message and an exit code; it is raised again if it is none of ours."""
    if isinstance(error, KeyboardInterrupt):
        sys.exit(130)
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in HOSPITAL_PACKAGES:
        _talk.print(f"[bold red]error:[/bold red] {package} is not installed")
        _talk.print("  This command needs what a hospital needs: pip install 'hospital-consortium\\[site]'")
        sys.exit(EXIT_REFUSED)
    code = report_error(error)
    if code is None:
        raise error
    sys.exit(code)


def main() -> None:
    """Any command, by the words of the command line."""
    keep_memory_private()  # most commands read a private key
    try:
        app()
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - raised again there, if it is none of ours
        leave(error)
