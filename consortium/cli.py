"""`consortium`: the lead's and the scientist's command line. Thin over `commands.py` and `app.py`.

stdout carries results (`--json` for programs), stderr carries talk. Exit codes: 0 done, 1 refused or not verified,
2 usage, 75 try later.
"""

import asyncio
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.table import Table

from consortium import __version__
from consortium.contract.private_process import keep_memory_private

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Run a consortium of hospitals.")
account_app = typer.Typer(no_args_is_help=True, help="Give people accounts, with a role each.")
site_app = typer.Typer(no_args_is_help=True, help="Invite, list, suspend and revoke hospitals.")
study_app = typer.Typer(no_args_is_help=True, help="Validate, submit and run studies.")
audit_app = typer.Typer(no_args_is_help=True, help="Read the log, export evidence, verify it.")
app.add_typer(account_app, name="account")
app.add_typer(site_app, name="site")
app.add_typer(study_app, name="study")
app.add_typer(audit_app, name="audit")

EXIT_REFUSED, EXIT_USAGE, EXIT_TRY_LATER = 1, 2, 75
HOSPITAL_PACKAGES = frozenset({"monai", "opacus", "pandas", "sklearn", "torch"})

OwnHome = Annotated[Path, typer.Option("--home", help="The coordinator's folder, made by `consortium init`.")]
Home = Annotated[
    Path, typer.Option("--home", "--account", help="The coordinator's folder; or that of your account, from anywhere.")
]
Reason = Annotated[str, typer.Option(help="Why: one line, in the log for good, and shown to the hospital.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

WIDTH_WITHOUT_TERMINAL = 200

# What goes to a file or another program must not be squeezed into 80 columns.
_out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
_talk = Console(stderr=True, highlight=False, soft_wrap=True)


@app.callback(invoke_without_command=True)
def _version(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False
) -> None:
    if version:
        _out.print(f"consortium {__version__}")
        raise typer.Exit


# --- setting up ----------------------------------------------------------------------------------------------------


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet.")],
    name: Annotated[str, typer.Option(help="The consortium's name, for example cardio-eu.")],
    address: Annotated[str, typer.Option(help="HOST:PORT that hospitals will dial.")],
    log_entries: Annotated[
        str | None, typer.Option(metavar="URL", help="postgresql://USER@HOST/NAME for the log's entries.")
    ] = None,
    continues: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The last checkpoint of a log whose key was lost or stolen.")
    ] = None,
) -> None:
    """Make a coordinator's home: certificate authority, keys, configuration, database, empty log."""
    from consortium.home import create_home, read_checkpoint

    before = None if continues is None else read_checkpoint(continues)
    home = create_home(directory, name=name, address=address, log_entries=log_entries, continues=before)
    _out.print(f"Made the coordinator of [bold]{name}[/bold] in {directory}")
    _out.print(f"  certificate authority  {home.ca_fingerprint}")
    _out.print(f"  log key                {home.log_vkey}")
    _out.print(
        f"Next: consortium site invite SITE --home {directory} --out kit.zip, then consortium serve --home {directory}"
    )


@app.command()
def serve(
    home: OwnHome,
    *,
    drain: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds a round may take to its end, once told to stop.")
    ] = 30.0,
    standby: Annotated[
        bool, typer.Option("--standby", help="Wait while another coordinator has this home or its database.")
    ] = False,
) -> None:
    """Run the coordinator until it is told to stop."""
    from consortium.app import serve_until_stopped

    ready = lambda line: print(line, flush=True)  # noqa: E731, T201 - a result
    asyncio.run(serve_until_stopped(home, ready=ready, drain_s=drain, standby=standby))


@app.command()
def status(
    home: Home,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing, until interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Show the studies, their rounds and the hospitals."""
    from consortium.operator import watch_status
    from consortium.status_view import StatusView

    if not watch:
        found = _command(home, "status")
        _print_json(found) if as_json else _out.print(StatusView().render(found))
        return

    async def follow() -> None:
        from rich.live import Live

        if as_json:
            async for snapshot in watch_status(home):
                _print_json(snapshot, compact=True)
            return
        latest: dict[str, Any] = {}

        def picture() -> RenderableType:
            return StatusView().render(latest, now=time.time()) if latest else ""

        # Drawn every second, though news come when there are some: times go on.
        with Live(console=_out, refresh_per_second=1, get_renderable=picture) as live:
            async for snapshot in watch_status(home):
                latest.update(snapshot)
                live.refresh()

    asyncio.run(follow())


@app.command()
def demo(
    study: Annotated[
        Path | None, typer.Option(help="A study file, or the name of one that ships with this package.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="An empty or new folder for everything; by default consortium-demo, or that with a number."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Training rounds (the noise is recalibrated).")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the first weights. Noise is never seeded.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Images of a shipped study that do not come with this package.")
    ] = None,
) -> None:
    """A real study on this machine: four hospitals, mutual TLS, privacy, evidence, verification."""
    from consortium.demo import run_demo

    raise typer.Exit(run_demo(study, out, rounds=rounds, seed=seed, data=data))


@app.command()
def simulate(
    file: Path,
    sites: Annotated[int, typer.Option(min=3, max=128, help="Hospitals in the simulation.")],
    data: Annotated[Path | None, typer.Option(help="A folder with SITE/site.yaml for each; else made-up data.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Training rounds (the noise is recalibrated).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of made-up data and canaries. Noise is never seeded.")] = 0,
    *,
    weights: Annotated[Path | None, typer.Option(help="The file of the study's initial_weights.")] = None,
    audit_privacy: Annotated[
        bool, typer.Option("--audit-privacy", help="Sound a smoke alarm: a lower bound on epsilon from canaries.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a study in one process: real training, masks and steps; no network, no log. Nothing is spent."""
    from consortium.assets import study_file
    from consortium.contract.study import load_study
    from consortium.simulate import simulate as run_simulation
    from consortium.simulate import with_settings

    study = with_settings(load_study(study_file(file)), sites=sites, rounds=rounds)
    kind = "made-up patients" if data is None else f"data in {data}"
    _talk.print(f"{study.title}: {sites} hospitals in one process, {study.training.rounds} rounds, {kind}.")
    found = run_simulation(
        study, seed=seed, data=data, audit=audit_privacy, weights=weights,
        say=lambda line: _talk.print(line, markup=False),
    )  # fmt: skip
    if as_json:
        _print_json(found.to_json())
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in found.rows():
            table.add_row(f"[bold]{name}[/bold]", value)
        _out.print(table)
    if found.alarm is not None and found.alarm.sounds:
        _talk.print("[bold red]error:[/bold red] the canaries refute the epsilon that is claimed")
        _talk.print("  Do not run this study: site-agent audit-privacy says which part of the mechanism is broken.")
        raise typer.Exit(EXIT_REFUSED)


# --- people --------------------------------------------------------------------------------------------------------


@account_app.command("invite")
def account_invite(
    name: str,
    home: Home,
    role: Annotated[str, typer.Option(help="lead, scientist, auditor or operator.")],
    out: Annotated[Path, typer.Option(help="Where to write the kit.")],
) -> None:
    """Write a one-time kit with which a person's own machine enrols."""
    from consortium.contract.private_files import write_private

    _require_new_file(out)
    answer = _command(home, "account.invite", account=name, role=role)
    write_private(out, answer["kit"].encode())
    _out.print(f"Kit for [bold]{name}[/bold] ({role}) in {out}, good for one enrolment until {answer['expires']}.")
    _out.print(f"Send it over a channel you trust. There: consortium account enrol --kit {out.name} --out ACCOUNT")


@account_app.command("enrol")
def account_enrol(
    kit: Annotated[Path, typer.Option(help="The kit from the consortium lead.")],
    out: Annotated[Path, typer.Option(help="The account's folder, which does not exist yet.")],
) -> None:
    """Enrol on your own machine: keys are made here and never leave."""
    from consortium.account_folder import enrol
    from consortium.contract.submission import owner_fingerprint

    account = asyncio.run(enrol(kit, out))
    key = account.signing_key.public_key().public_bytes_raw().hex()
    _out.print(f"Enrolled [bold]{account.account}[/bold] with {account.consortium}; the keys are in {out}.")
    _out.print(f"  your fingerprint as a study's owner  {owner_fingerprint(key)}")
    _out.print(f"Use it with --account: consortium study list --account {out}")


@account_app.command("connect")
def account_connect(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The coordinator's people_address.")],
    ca: Annotated[Path, typer.Option(help="The authority's certificate: certificates/ca.pem of the home.")],
    out: Annotated[Path, typer.Option(help="The folder, which does not exist yet.")],
) -> None:
    """Make a folder for --account that works with tokens of your identity provider, without keys of your own."""
    from consortium.account_folder import connect
    from consortium.contract.certificates import fingerprint, load_authority_certificate

    account = connect(address, ca, out)
    _out.print(f"Made {out} for {account.consortium}. Compare the authority's fingerprint with the consortium lead's:")
    _out.print(f"  {fingerprint(load_authority_certificate(account.ca_pem))}")
    _out.print(f"The token is taken from CONSORTIUM_TOKEN in the environment, else from the file {out / 'token'}.")


@account_app.command("list")
def account_list(home: Home, *, as_json: Json = False) -> None:
    """Show the accounts, their roles and the fingerprints of their signing keys."""
    rows = _command(home, "account.list")["accounts"]
    if as_json:
        _print_json(rows)
        return
    names = ["account", "role", "state", "certificate_ends", "signing_key_sha256"]
    _table(
        ["account", "role", "state", "certificate ends", "signing key (SHA-256)"],
        [[row[name] for name in names] for row in rows],
    )


@account_app.command("role")
def account_role(
    name: str, home: Home, role: Annotated[str, typer.Option(help="lead, scientist, auditor or operator.")]
) -> None:
    """Give an account another role, from its next call on."""
    _command(home, "account.role", account=name, role=role)
    _out.print(f"{name} is {role} from the next call on.")


@account_app.command("revoke")
def account_revoke(name: str, home: Home) -> None:
    """Refuse an account from its next call on, and take back a kit that nobody has used."""
    _command(home, "account.revoke", account=name)
    _out.print(f"{name} is revoked.")


# --- sites ---------------------------------------------------------------------------------------------------------


@site_app.command("invite")
def site_invite(
    site: str,
    home: Home,
    out: Annotated[Path, typer.Option(help="Where to write the kit.")],
    legal_entity: Annotated[
        str, typer.Option(help="Who answers for the hospital: a registered name or an LEI. Each has one certificate.")
    ] = "",
    *,
    offline_wheels: Annotated[
        bool, typer.Option("--offline-wheels", help="With everything to install it without the internet.")
    ] = False,
    python: Annotated[str, typer.Option(help="With --offline-wheels: the hospital's Python, 3.11 or 3.12.")] = "3.11",
    processor: Annotated[
        str, typer.Option(help="With --offline-wheels: the hospital's processor, x86_64 or aarch64.")
    ] = "x86_64",
) -> None:
    """Write a one-time enrolment kit for a hospital."""
    from consortium.contract.kit import write_kit_bytes

    _require_new_file(out)
    if offline_wheels:
        _invite_offline(site, home, out, legal_entity=legal_entity, python=python, processor=processor)
        return
    answer = _command(home, "site.invite", site=site, legal_entity=legal_entity)
    write_kit_bytes(out, bytes.fromhex(answer["kit"]))
    _out.print(f"Kit for [bold]{site}[/bold] in {out}, good for one enrolment until {answer['expires']}.")
    _out.print(f"Send it over a channel you trust. There: site-agent enrol --kit {out.name} --home HOME")


def _invite_offline(site: str, home: Path, out: Path, *, legal_entity: str, python: str, processor: str) -> None:
    """The kit with all wheels beside it; they are fetched first, so that a token is given out only if that works."""
    from consortium.contract.names import SiteId
    from consortium.offline_kit import PROCESSORS, PYTHONS, Machine, wheelhouse, write_offline_kit

    if python not in PYTHONS or processor not in PROCESSORS:
        allowed = f"--python {' or '.join(PYTHONS)}, --processor {' or '.join(PROCESSORS)}"
        raise typer.BadParameter(f"found Python {python} on {processor}; allowed: {allowed}")
    _talk.print("Fetching wheels with pip, as it is configured here ...")
    with wheelhouse(Machine(python=python, processor=processor)) as house:
        answer = _command(home, "site.invite", site=site, legal_entity=legal_entity)
        sha256 = write_offline_kit(out, house, site=SiteId(site), kit=bytes.fromhex(answer["kit"]))
    _out.print(f"Kit for [bold]{site}[/bold] with all it installs in {out}, good until {answer['expires']}.")
    _out.print(f"SHA-256 of the archive, to be compared by telephone: {sha256}")
    _out.print("Bring it over a way you trust. There: unzip it, read README.txt, and sh install.sh")


@site_app.command("list")
def site_list(home: Home, *, as_json: Json = False) -> None:
    """Show the enrolled hospitals and their key fingerprints."""
    from consortium.contract.certificates import key_fingerprint

    rows = _command(home, "site.list")["sites"]
    if as_json:
        _print_json(rows)
        return
    _table(
        ["site", "state", "connected", "legal entity", "TLS key (SHA-256)", "signing key", "ECDSA key (SHA-256)"],
        [
            [
                r["site"],
                r["state"],
                "yes" if r["connected"] else "",
                r["legal_entity"],
                r["spki_sha256"],
                r["signing_key"],
                key_fingerprint(r["ecdsa_key"]),
            ]
            for r in rows
        ],
    )


@site_app.command("revoke")
def site_revoke(site: str, home: Home, reason: Reason = "revoked by the operator") -> None:
    """Refuse a hospital's certificates for good; it comes back with a new kit and new keys."""
    _command(home, "site.revoke", site=site, reason=reason)
    _out.print(f"{site} is revoked; its session, if it had one, is closed.")


@site_app.command("suspend")
def site_suspend(site: str, home: Home, reason: Reason) -> None:
    """Refuse a hospital's calls until it is reinstated; its keys and its place in studies stay."""
    _command(home, "site.suspend", site=site, reason=reason)
    _out.print(f"{site} is suspended; its session, if it had one, is closed, and rounds go on without it.")


@site_app.command("reinstate")
def site_reinstate(site: str, home: Home) -> None:
    """Let a suspended hospital take part again; its agent comes back by itself."""
    _command(home, "site.reinstate", site=site)
    _out.print(f"{site} may take part again; its agent comes back within five minutes.")


# --- studies -------------------------------------------------------------------------------------------------------


@study_app.command("validate")
def study_validate(file: Path, *, as_json: Json = False) -> None:
    """Check a study file: every error at once, with its line and what is allowed."""
    from consortium.assets import study_file
    from consortium.contract.errors import FileInvalid
    from consortium.contract.precision import precision_line
    from consortium.contract.shared_noise import noise_line, require_room
    from consortium.contract.study import load_study

    file = study_file(file)
    try:
        study = load_study(file)
        require_room(file, study)
    except FileInvalid as error:
        if not as_json:
            raise
        problems = [{"path": p.path, "line": p.line, "found": p.found, "allowed": p.allowed} for p in error.problems]
        _print_json({"valid": False, "problems": problems})
        raise typer.Exit(EXIT_REFUSED) from None
    if as_json:
        _print_json({"valid": True, "study": study.id, "digest": study.digest()})
    else:
        _out.print(f"{file} is valid: study [bold]{study.id}[/bold], digest {study.digest()}")
        _out.print(precision_line(study))
        if study.is_distributed:
            _out.print(noise_line(study))
        if not study.is_private:
            _out.print("[bold red]No patient has differential privacy in this study.[/bold red]")


@study_app.command("plan")
def study_plan(
    file: Path,
    epsilon: Annotated[float | None, typer.Option(help="Another target than the study's own.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Say what a study's privacy costs and does: noise, epsilon by round, noise to signal, what is not covered."""
    from consortium.assets import study_file
    from consortium.contract.study import load_study
    from consortium.study_plan import describe_plan, plan

    found = plan(load_study(study_file(file)), epsilon=epsilon)
    if as_json:
        _print_json(found.to_json())
    else:
        _out.print(describe_plan(found), markup=False)


@study_app.command("submit")
def study_submit(file: Path, home: Home, *, as_json: Json = False) -> None:
    """Hand a study to the coordinator; hospitals can then read and approve it."""
    from consortium.contract.shared_noise import require_room
    from consortium.contract.study import load_study

    study = load_study(file)
    require_room(file, study)
    answer = _command(home, "study.submit", document=study.document().decode())
    if as_json:
        _print_json(answer)
    else:
        _out.print(
            f"Submitted [bold]{study.id}[/bold], digest {answer['digest']}. Each hospital now decides for itself:"
        )
        _out.print(f"  signed by its owner, with the key {answer['owner_key_sha256']}")
        _out.print(f"  site-agent studies approve {study.id} --home HOME --steward NAME")


@study_app.command("list")
def study_list(home: Home, *, as_json: Json = False) -> None:
    """Show every study and where it stands."""
    rows = _command(home, "study.list")["studies"]
    if as_json:
        _print_json(rows)
        return
    _table(
        ["study", "state", "next round", "digest"],
        [[r["study"], r["state"], str(r["next_round"]), r["digest"][:16]] for r in rows],
    )


@study_app.command("show")
def study_show(study: str, home: Home) -> None:
    """Print one study whole: its document, approvals, rounds and spends, as JSON."""
    _print_json(_command(home, "study.show", study=study))


def _study_action(name: str, past: str, help_text: str) -> None:
    @study_app.command(name, help=help_text)
    def action(study: str, home: Home) -> None:
        _command(home, f"study.{name}", study=study)
        _out.print(f"{study} {past}.")


_study_action("start", "is started: rounds begin when its hospitals are ready", "Let a study's rounds begin.")
_study_action("pause", "is paused", "Stop at once; the attempt under way is run again after `resume`.")
_study_action("resume", "goes on", "Go on with a paused study.")
_study_action("abort", "is aborted", "End a study for good.")


@study_app.command("release")
def study_release(
    study: str, home: Home, out: Annotated[Path, typer.Option(help="A folder to write the global model to.")]
) -> None:
    """Hand out the final global model and write down that it was handed out."""
    from consortium.account_folder import is_account
    from consortium.models import Models
    from consortium.operator import fetch_model

    answer = _command(home, "study.release", study=study)
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{study}.safetensors"
    if is_account(home):
        asyncio.run(fetch_model(home, study, answer["model_digest"], target))
    else:
        target.write_bytes(Models(home / "models").file(answer["model_digest"]))  # only if it still has its digest
    _out.print(f"Released {target}, digest {answer['model_digest']}")


# --- what people declare -------------------------------------------------------------------------------------------


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
        Path | None, typer.Option(help="The document that says so; its SHA-256 is recorded, and nothing else of it.")
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
    """Declare a fact for the log: an agreement, a board's decision, a review, an incident, a disclosure."""
    from audit.declarations import DECLARED, asked
    from consortium.vault_operator import declare

    if kind is None:
        rows = [[name, f"{one.name}={one.words}", "" if one.needed else "may be left out"]
                for name, declared in DECLARED.items() for one in asked(declared)]  # fmt: skip
        _table(["fact", "field", ""], rows)
        return
    if by is None:
        _fail("nobody records this", "Name yourself with --by; the log has a pseudonym, never the name.", EXIT_USAGE)
    if keep and document is None:
        _fail("there is no document to keep", "Name it with --document; --note is kept without --keep.", EXIT_USAGE)
    _print_json(
        asyncio.run(
            declare(
                home, kind, fields or [], study=study, document=document, keep_document=keep, note=note,
                subject=subject or by, by=by,
            )
        )
    )  # fmt: skip


# --- audit ---------------------------------------------------------------------------------------------------------


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


# --- shared --------------------------------------------------------------------------------------------------------


def _command(home: Path, name: str, **arguments: object) -> dict[str, Any]:
    from consortium.operator import run_command

    return asyncio.run(run_command(home, name, arguments))


def _print_json(value: object, *, compact: bool = False) -> None:
    print(json.dumps(value, indent=None if compact else 2, sort_keys=True), flush=True)  # noqa: T201 - a result


def _table(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # a fingerprint that ends in dots cannot be compared
    for row in rows:
        table.add_row(*row)
    _out.print(table)


def _about(body: Mapping[str, Any]) -> str:
    """Whom an entry of the coordinator is about, if it is about one."""
    return str(body.get("site") or body.get("blamed") or body.get("subject") or "")


def _require_new_file(path: Path) -> None:
    """Before anything is done: a file that can be written and would replace nothing."""
    if path.exists():
        _fail(f"{path} exists", "Name another file with --out; nothing was changed.", EXIT_REFUSED)
    if not path.absolute().parent.is_dir():
        _fail(f"there is no folder {path.parent}", "Make it, or name another file with --out.", EXIT_REFUSED)


def _fail(message: str, advice: str, code: int) -> NoReturn:
    _talk.print(f"[bold red]error:[/bold red] {message}", markup=True)
    _talk.print(f"  {advice}")
    raise typer.Exit(code)


_EXIT_OF_CODE: Mapping[str, int] = {"try_later": EXIT_TRY_LATER, "invalid": EXIT_USAGE}


def report_error(error: Exception) -> int | None:
    """Print a known error as one message and return its exit code; None if it is not one of ours."""
    advice: Callable[[], str] | None = getattr(error, "advice", None)
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
