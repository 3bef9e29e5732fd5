"""`site-agent weights`: files of weights."""

from pathlib import Path
from typing import Annotated

import typer

from site_agent.commands.shell import EXIT_REFUSED
from site_agent.commands.shell import out as _out
from site_agent.commands.shell import talk as _talk

weights_app = typer.Typer(no_args_is_help=True, help="Files of weights that studies begin from, or end with.")


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
