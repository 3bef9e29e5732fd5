"""`site-agent patients`: patients who withdraw."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from site_agent.commands.shell import Home, Json
from site_agent.commands.shell import out as _out
from site_agent.commands.shell import print_json as _print_json
from site_agent.commands.shell import table as _table
from site_agent.commands.shell import talk as _talk
from site_agent.commands.shell import time_words as _time

patients_app = typer.Typer(no_args_is_help=True, help="Patients who withdraw.")


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
