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
site_app = typer.Typer(no_args_is_help=True, help="Invite, list and revoke hospitals.")
study_app = typer.Typer(no_args_is_help=True, help="Validate, submit and run studies.")
audit_app = typer.Typer(no_args_is_help=True, help="Read the log, export evidence, verify it.")
app.add_typer(site_app, name="site")
app.add_typer(study_app, name="study")
app.add_typer(audit_app, name="audit")

EXIT_REFUSED, EXIT_USAGE, EXIT_TRY_LATER = 1, 2, 75
HOSPITAL_PACKAGES = frozenset({"monai", "opacus", "pandas", "sklearn", "torch"})

Home = Annotated[Path, typer.Option("--home", help="The coordinator's folder, made by `consortium init`.")]
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
) -> None:
    """Make a coordinator's home: certificate authority, keys, configuration, database, empty log."""
    from consortium.home import create_home

    home = create_home(directory, name=name, address=address)
    _out.print(f"Made the coordinator of [bold]{name}[/bold] in {directory}")
    _out.print(f"  certificate authority  {home.ca_fingerprint}")
    _out.print(f"  log key                {home.log_vkey}")
    _out.print(
        f"Next: consortium site invite SITE --home {directory} --out kit.zip, then consortium serve --home {directory}"
    )


@app.command()
def serve(home: Home) -> None:
    """Run the coordinator until it is told to stop."""
    from consortium.app import serve_until_stopped

    asyncio.run(serve_until_stopped(home, ready=lambda line: print(line, flush=True)))  # noqa: T201 - a result


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


# --- sites ---------------------------------------------------------------------------------------------------------


@site_app.command("invite")
def site_invite(site: str, home: Home, out: Annotated[Path, typer.Option(help="Where to write the kit.")]) -> None:
    """Write a one-time enrolment kit for a hospital."""
    from consortium.contract.kit import write_kit_bytes

    _require_new_file(out)
    answer = _command(home, "site.invite", site=site)
    write_kit_bytes(out, bytes.fromhex(answer["kit"]))
    _out.print(f"Kit for [bold]{site}[/bold] in {out}, good for one enrolment until {answer['expires']}.")
    _out.print(f"Send it over a channel you trust. There: site-agent enrol --kit {out.name} --home HOME")


@site_app.command("list")
def site_list(home: Home, *, as_json: Json = False) -> None:
    """Show the enrolled hospitals and their key fingerprints."""
    from consortium.contract.certificates import key_fingerprint

    rows = _command(home, "site.list")["sites"]
    if as_json:
        _print_json(rows)
        return
    _table(
        ["site", "state", "connected", "TLS key (SHA-256)", "signing key", "ECDSA key (SHA-256)"],
        [
            [
                r["site"],
                r["state"],
                "yes" if r["connected"] else "",
                r["spki_sha256"],
                r["signing_key"],
                key_fingerprint(r["ecdsa_key"]),
            ]
            for r in rows
        ],
    )


@site_app.command("revoke")
def site_revoke(site: str, home: Home) -> None:
    """Refuse a hospital's certificate from now on."""
    _command(home, "site.revoke", site=site)
    _out.print(f"{site} is revoked; its session, if it had one, is closed.")


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
    from consortium.models import Models

    answer = _command(home, "study.release", study=study)
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{study}.safetensors"
    target.write_bytes(Models(home / "models").file(answer["model_digest"]))  # only if it still has its digest
    _out.print(f"Released {target}, digest {answer['model_digest']}")


# --- audit ---------------------------------------------------------------------------------------------------------


@audit_app.command("export")
def audit_export(
    home: Home,
    study: Annotated[str, typer.Option(help="The study to give evidence of.")],
    out: Annotated[Path, typer.Option(help="Where to write evidence.zip.")],
) -> None:
    """Write a study's evidence: log, proofs, study, model, privacy spent, report, and the program that checks it."""
    _require_new_file(out)
    answer = _command(home, "audit.export", study=study)
    shutil.move(answer["path"], out)
    _out.print(f"Evidence of {study} in {out} ({answer['size_bytes']:,} bytes, {answer['entries']} log entries).")
    _out.print(f"Anybody can check it offline: unzip -p {out} verify.py > verify.py && python3 verify.py {out}")


@audit_app.command("verify")
def audit_verify(
    file: Path, policy: Annotated[Path | None, typer.Option(help="The log's keys, obtained elsewhere.")] = None
) -> None:
    """Check a bundle the way a stranger would: with the program that travels inside it."""
    from audit.verify import main as verify_main

    raise typer.Exit(verify_main([str(file), *(["--policy", str(policy)] if policy else [])]))


@audit_app.command("fsck")
def audit_fsck(home: Home) -> None:
    """Examine the log on its disk: every entry, hash and chain against the signed root. Changes nothing."""
    from audit.fsck import examine
    from consortium.home import open_home

    opened = open_home(home)
    found = examine(opened.config.log_folder(home), opened.log_signer.verifier)
    _out.print(
        f"The log {found.origin} is sound: {found.entries} entries, {found.hospitals} hospitals' chains unbroken."
    )
    _out.print(f"root {found.root.hex()}")


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


@audit_app.command("proof")
def audit_proof(index: int, home: Home) -> None:
    """Print the receipt (.tlog-proof) of one entry."""
    print(_command(home, "audit.proof", index=index)["receipt"], end="")  # noqa: T201 - a result, byte for byte


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
