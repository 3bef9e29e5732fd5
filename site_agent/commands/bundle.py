"""`site-agent bundle`: what a MONAI bundle would do here."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from site_agent.commands.shell import EXIT_REFUSED, Json
from site_agent.commands.shell import out as _out
from site_agent.commands.shell import print_json as _print_json

if TYPE_CHECKING:
    from site_agent.bundles.refusals import Finding
    from site_agent.bundles.report import Report
    from site_agent.bundles.study_loss import StudyLoss


bundle_app = typer.Typer(no_args_is_help=True, help="Look at MONAI bundles; nothing in one is ever run.")


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
