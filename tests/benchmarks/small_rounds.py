"""Rounds per second where the vector is nothing: 14 parameters, four agent processes, the whole protocol.

What is left is the protocol itself: keys, signatures, messages, everything that is written down and synced to disk.
"""

import asyncio
import statistics
from itertools import pairwise

from tests.benchmarks.bench_consortium import consortium
from tests.benchmarks.bench_study import LOGISTIC, bench_study
from tests.benchmarks.figures import Figure

SITES = ("site-01", "site-02", "site-03", "site-04")
ROUNDS = 100
WARM_UP_ROUNDS = 5
WINDOW = 10
WAIT_S = 180.0


def measure(*, rounds: int = ROUNDS) -> list[Figure]:
    """One figure, for information."""
    return asyncio.run(_measure(rounds))


async def _measure(rounds: int) -> list[Figure]:
    study = bench_study("small-rounds", SITES, parameters=LOGISTIC, rounds=rounds)
    names = ("coordinator", *SITES)
    async with consortium(study, agents=SITES) as field:
        await field.start(study.id)
        await field.until_round(rounds + 1, WAIT_S)
        begins = {name: [mark for mark in field.marks(name) if mark.phase == "begin"] for name in names}
    clock = [mark.clock_s for mark in begins["coordinator"]][WARM_UP_ROUNDS : rounds + 1]
    cpu_s = {name: statistics.median(b.cpu_s - a.cpu_s for a, b in pairwise(marks)) for name, marks in begins.items()}
    window = min(WINDOW, len(clock) - 1)
    rates = [window / (clock[at + window] - clock[at]) for at in range(0, len(clock) - window, window)]
    sites_ms = 1e3 * statistics.median(cpu_s[name] for name in SITES)
    return [
        Figure(
            name="rounds_per_s_small",
            value=(len(clock) - 1) / (clock[-1] - clock[0]),
            unit="rounds/s, 14 parameters, four agents",
            reference=10.0,
            better="at least",
            spread=(min(rates), max(rates)),
            note=f"CPU time of a round: coordinator {1e3 * cpu_s['coordinator']:.0f} ms, each site {sites_ms:.0f} ms; "
            f"{len(clock) - 1} rounds, the spread is over stretches of {window}",
            binding=False,
        )
    ]
