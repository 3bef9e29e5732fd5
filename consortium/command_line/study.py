"""`consortium study`: validate, submit and run studies."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from consortium.command_line.shell import EXIT_REFUSED, Home, Json
from consortium.command_line.shell import command as _command
from consortium.command_line.shell import out as _out
from consortium.command_line.shell import print_json as _print_json
from consortium.command_line.shell import table as _table

study_app = typer.Typer(no_args_is_help=True, help="Validate, submit and run studies.")


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
