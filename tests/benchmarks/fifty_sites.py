"""Rounds a minute with fifty hospitals on one machine: each agent a process of its own, a model of 1e5 parameters.

Agents are whole but for the training (`light_hospital.py`); the coordinator is a process, TLS goes over the loopback.
The figure counts only if every round has all fifty in its sum, at the first attempt: a machine that is busy must not
look like hospitals that drop out.

    python -m tests.benchmarks.fifty_sites [--sites 50] [--rounds 12]
"""

import argparse
import asyncio
import os
import statistics
from itertools import pairwise
from typing import Any

from consortium.operator import run_command
from tests.benchmarks.bench_consortium import BenchFailed, Field, consortium
from tests.benchmarks.bench_study import HUNDRED_THOUSAND, bench_study
from tests.benchmarks.coordinator_memory import peak_bytes
from tests.benchmarks.figures import Figure
from tests.benchmarks.idle_memory import size_of

SITES, ROUNDS, WARM_UP_ROUNDS = 50, 12, 2
CONNECTED_WAIT_S, WAIT_S = 900.0, 1800.0
NAME = "fifty"


def measure(*, sites: int = SITES, rounds: int = ROUNDS, parameters: int = HUNDRED_THOUSAND) -> list[Figure]:
    """One figure, for information."""
    return [asyncio.run(_measure(sites, rounds, parameters))]


async def _measure(sites: int, rounds: int, parameters: int) -> Figure:
    names = [f"site-{number:02}" for number in range(1, sites + 1)]
    study = bench_study(NAME, names, parameters=parameters, rounds=rounds, private=False)
    async with consortium(study, agents=names, light=True) as field:
        await field.until_connected(CONNECTED_WAIT_S)
        await field.start(study.id)
        await field.until_round(1 + WARM_UP_ROUNDS, WAIT_S)
        begun = _cpu_s(field)
        await field.until_round(rounds + 1, WAIT_S)
        spent = {name: after - begun[name] for name, after in _cpu_s(field).items()}
        await field.until_ended(study.id, WAIT_S)
        agents = [size_of(field.processes[name].pid).resident for name in names]
        coordinator = peak_bytes(field.processes["coordinator"].pid)
        clock = [mark.clock_s for mark in field.marks("coordinator") if mark.phase == "begin"]
        (shown,) = (await run_command(field.home, "status", {}))["studies"]
    _require_steady(shown, sites)
    if len(clock) != rounds + 1:  # a last one only measures
        raise BenchFailed(f"{len(clock)} attempts were begun for {rounds + 1} rounds")
    counted = clock[WARM_UP_ROUNDS:]
    seconds = [later - earlier for earlier, later in pairwise(counted)]
    each = len(seconds)
    return Figure(
        name="rounds_per_minute_50_sites",
        value=60 * each / (counted[-1] - counted[0]),
        unit=f"rounds/min, {sites} agents, {parameters} parameters",
        reference=1.0,
        better="at least",
        spread=(60 / max(seconds), 60 / min(seconds)),
        note=f"CPU time of a round: coordinator {spent['coordinator'] / each:.2f} s, each agent "
        f"{statistics.median(spent[name] for name in names) / each:.2f} s; coordinator at most {coordinator / 1e6:.0f} "
        f"MB, an agent {statistics.median(agents) / 1e6:.0f} MB; {each} rounds, all {sites} in every sum",
        binding=False,
    )


def _require_steady(shown: dict[str, Any], sites: int) -> None:
    """Every closed round has everybody in it; raises BenchFailed."""
    short = {row["round"]: len(row["survivors"]) for row in shown["history"] if len(row["survivors"]) != sites}
    if short:
        raise BenchFailed(f"not everybody is in the sums of rounds (round: survivors): {short}")


def _cpu_s(field: Field) -> dict[str, float]:
    """CPU seconds of every process so far, user and system."""
    tick = os.sysconf("SC_CLK_TCK")
    found = {}
    for name, process in field.processes.items():
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a line of the kernel's
            fields = file.read().rpartition(")")[2].split()
        found[name] = (int(fields[11]) + int(fields[12])) / tick
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sites", type=int, default=SITES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    for figure in measure(sites=options.sites, rounds=options.rounds):
        print(figure.line())


if __name__ == "__main__":
    main()
