"""`consortium`: the lead's and the scientist's command line. Thin over `commands.py` and `app.py`.

stdout carries results (`--json` for programs), stderr carries talk. Exit codes: 0 done, 1 refused or not verified,
2 usage, 75 try later.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import RenderableType
from rich.table import Table

from consortium import __version__
from consortium.command_line.account import account_app
from consortium.command_line.audit import audit_app
from consortium.command_line.shell import EXIT_REFUSED, EXIT_TRY_LATER, EXIT_USAGE, Home, Json, OwnHome
from consortium.command_line.shell import command as _command
from consortium.command_line.shell import fail as _fail
from consortium.command_line.shell import out as _out
from consortium.command_line.shell import print_json as _print_json
from consortium.command_line.shell import table as _table
from consortium.command_line.shell import talk as _talk
from consortium.command_line.site import site_app
from consortium.command_line.study import study_app
from consortium.contract.light_start import DRAIN_MAX_S, DRAIN_S
from consortium.contract.private_process import keep_memory_private

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Run a consortium of hospitals.")
app.add_typer(account_app, name="account")
app.add_typer(site_app, name="site")
app.add_typer(study_app, name="study")
app.add_typer(audit_app, name="audit")

HOSPITAL_PACKAGES = frozenset({"monai", "opacus", "pandas", "sklearn", "torch"})


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
        float, typer.Option(min=0, max=DRAIN_MAX_S, help="Seconds a round may take to its end, once told to stop.")
    ] = DRAIN_S,
    standby: Annotated[
        bool, typer.Option("--standby", help="Wait while another coordinator has this home or its database.")
    ] = False,
) -> None:
    """Run the coordinator until it is told to stop."""
    from consortium.entry import serve as serve_home

    serve_home(home, drain_s=drain, standby=standby)


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
        if not _out.is_terminal:  # a file, or another program: nothing can be drawn over there
            before: dict[str, Any] | None = None
            async for snapshot in watch_status(home):
                now = {name: value for name, value in snapshot.items() if name != "traffic"}
                if now != before:  # that bytes went by is no line for a file
                    _out.print(StatusView().render(snapshot, now=time.time()))
                before = now
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


_EXIT_OF_CODE: Mapping[str, int] = {"try_later": EXIT_TRY_LATER, "invalid": EXIT_USAGE}


def report_error(error: BaseException) -> int | None:
    """Print a known error as one message and return its exit code; None if it is not one of ours."""
    advice: Callable[[], str] | None = getattr(error, "advice", None)
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
