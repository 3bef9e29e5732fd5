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
    from site_agent.budget import DatasetBudget
    from site_agent.bundles.refusals import Finding
    from site_agent.bundles.report import Report
    from site_agent.bundles.study_loss import StudyLoss
    from site_agent.ledger import LedgerRow
    from site_agent.progress import Standing

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Run one hospital's side of a consortium.")
studies_app = typer.Typer(no_args_is_help=True, help="Read studies, approve or reject them.")
peers_app = typer.Typer(no_args_is_help=True, help="The other hospitals' keys as this agent knows them.")
app.add_typer(studies_app, name="studies")
app.add_typer(peers_app, name="peers")
bundle_app = typer.Typer(no_args_is_help=True, help="Look at MONAI bundles; nothing in one is ever run.")
app.add_typer(bundle_app, name="bundle")
weights_app = typer.Typer(no_args_is_help=True, help="Files of weights that studies begin from, or end with.")
app.add_typer(weights_app, name="weights")

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


@app.command()
def check(home: Home, *, as_json: Json = False) -> None:
    """Test what a run will need: configuration, keys, data, disk, certificate (and so the clock), connection."""
    from site_agent.preflight import run_checks

    results = asyncio.run(run_checks(home))
    if as_json:
        _print_json([{"check": r.name, "ok": r.ok, "found": r.found, "advice": r.advice} for r in results])
    else:
        for result in results:
            mark = "[green]ok[/green]  " if result.ok else "[red]FAIL[/red]"
            _out.print(f"{mark} [bold]{result.name}[/bold]: {result.found}")
            if not result.ok:
                _out.print(f"       {result.advice}")
    if not all(result.ok for result in results):
        raise typer.Exit(EXIT_REFUSED)


@app.command()
def run(home: Home) -> None:
    """Take part in approved studies until told to stop. Dials out; listens on nothing."""
    from site_agent.app import run_until_stopped
    from site_agent.processes import alone_or_together

    alone_or_together(lambda: asyncio.run(run_until_stopped(home)))


@app.command()
def status(
    home: Home,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing, until interrupted; not with --json.")] = False,
    as_json: Json = False,
) -> None:
    """Show how far this hospital's work on each study has come. None of it is told to anybody else."""
    from rich.live import Live

    from site_agent.app import study_standings

    if as_json:
        _print_json([one.to_json() for one in study_standings(home)])
        return
    if not watch:
        _out.print(_standing_table(study_standings(home)))
        return
    with Live(console=_out, auto_refresh=False) as live:
        while True:
            live.update(_standing_table(study_standings(home)), refresh=True)
            time.sleep(1)


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
def egress(home: Home, *, as_json: Json = False) -> None:
    """Show everything that has left the building: when, what, for which study, how large, its digest."""
    from site_agent.app import open_store

    records = open_store(home).egress()
    if as_json:
        _print_json(
            [
                {
                    "at": r.at,
                    "kind": r.kind,
                    "study_digest": r.study_digest,
                    "sha256": r.sha256,
                    "size_bytes": r.size_bytes,
                }
                for r in records
            ]
        )
        return
    table = _table("time (UTC)", "what", "study", "bytes", "SHA-256")
    for r in records:
        table.add_row(_time(r.at), r.kind, r.study_digest[:12], f"{r.size_bytes:,}", r.sha256[:16])
    _out.print(table)
    _out.print(f"{len(records)} messages, {sum(r.size_bytes for r in records):,} bytes in all.")


@app.command()
def policy(home: Home) -> None:
    """Print policy.txt, the log's key as this hospital's kit had it: what an auditor checks evidence against."""
    from audit.policy import policy_for
    from site_agent.home import open_home

    print(policy_for(open_home(home).identity.log_vkey).decode(), end="")  # noqa: T201 - a result, byte for byte


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
def studies_show(study: str, home: Home) -> None:
    """Say in plain words what a study would compute here, what would leave, and what it costs in privacy."""
    from site_agent.app import describe_study

    _out.print(asyncio.run(describe_study(home, study)), markup=False)


@studies_app.command("approve")
def studies_approve(
    study: str,
    home: Home,
    steward: Annotated[str, typer.Option(help="Who approves. Only a pseudonym leaves the building.")],
    statement: Annotated[str, typer.Option(help="What the approval says.")] = "I have read this study and approve it.",
) -> None:
    """Approve one study as it is now; any change to it needs a new approval."""
    from site_agent.app import decide_study, objection_to, promises_nothing

    digest = asyncio.run(decide_study(home, study, "approved", steward=steward, statement=statement))
    _out.print(f"Approved {study}, digest {digest}. To take it back: site-agent studies reject {study}")
    if promises_nothing(home, digest):
        _talk.print("[bold red]warning:[/bold red] no patient has differential privacy in this study.")
    objection = objection_to(home, digest)
    if objection is not None:
        _talk.print("[bold yellow]warning:[/bold yellow] as things stand nothing will be trained here:", end=" ")
        _talk.print(objection, markup=False)
        _talk.print("  The approval stands; the agent asks site.yaml and the ledger again whenever it is invited.")


@studies_app.command("reject")
def studies_reject(
    study: str,
    home: Home,
    steward: Annotated[str, typer.Option(help="Who rejects. Only a pseudonym leaves the building.")],
    reason: Annotated[str, typer.Option(help="Why; the consortium lead will read it.")],
) -> None:
    """Reject a study, or take back an approval."""
    from site_agent.app import decide_study

    digest = asyncio.run(decide_study(home, study, "rejected", steward=steward, statement=reason))
    _out.print(f"Rejected {study}, digest {digest}.")


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
        _print_loss(found.loss)
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
