"""Distributed DP-SGD takes a step in every round: how many rounds of the heart study pass in a second.

Everything is real: `configs/studies/heart-disease-distributed.yaml` with a few rounds more, the four hospitals' records
and their own files of rules, four agent processes and the coordinator over mutual TLS on the loopback. Every round
samples patients, sums their clipped gradients, adds noise, is charged to the ledger, masked, summed, unmasked, verified
and logged. The second half of the study is measured apart: a round must not cost more because there were others before.
"""

import asyncio
import statistics
from pathlib import Path

from consortium.contract.study import StudyFile, load_study
from tests.benchmarks.bench_consortium import consortium
from tests.benchmarks.bench_process import ROOT
from tests.benchmarks.figures import Figure

STUDY = ROOT / "configs" / "studies" / "heart-disease-distributed.yaml"
HEART = ROOT / "configs" / "heart-disease"
ROUNDS = 150
WARM_UP_ROUNDS = 10
WINDOW = 20
WAIT_S = 300.0


def measure(*, rounds: int = ROUNDS) -> list[Figure]:
    """The one figure issue 4 holds the protocol to."""
    return asyncio.run(_measure(rounds))


def study_of(rounds: int) -> StudyFile:
    """The study with so many rounds."""
    study = load_study(STUDY)
    return study.model_copy(update={"training": study.training.model_copy(update={"rounds": rounds})})


def as_in_the_example(folder: Path, site: str) -> None:
    """The hospital's own file and records, as they are in `configs/heart-disease`."""
    rules = (HEART / "sites" / site / "site.yaml").read_text()
    (folder / "site.yaml").write_text(rules.replace("../../data", str(HEART / "data")))


async def _measure(rounds: int) -> list[Figure]:
    study = study_of(rounds)
    sites = tuple(study.sites.roster)
    names = ("coordinator", *sites)
    async with consortium(study, agents=sites, furnish=as_in_the_example, train=True) as field:
        await field.start(study.id)
        await field.until_round(rounds, WAIT_S)
        begins = {name: [mark for mark in field.marks(name) if mark.phase == "begin"] for name in names}
    last = min(rounds, *(len(marks) for marks in begins.values())) - 1
    clock = [mark.clock_s for mark in begins["coordinator"]]
    middle = (WARM_UP_ROUNDS + last) // 2

    def cpu_ms(start: int, stop: int) -> dict[str, float]:
        return {name: 1e3 * (m[stop].cpu_s - m[start].cpu_s) / (stop - start) for name, m in begins.items()}

    whole, early, late = cpu_ms(WARM_UP_ROUNDS, last), cpu_ms(WARM_UP_ROUNDS, middle), cpu_ms(middle, last)
    rates = [WINDOW / (clock[at + WINDOW] - clock[at]) for at in range(WARM_UP_ROUNDS, last - WINDOW, WINDOW)]
    sites_ms = statistics.mean(whole[name] for name in sites)
    return [
        Figure(
            name="distributed_dp_rounds_per_s_heart",
            value=(last - WARM_UP_ROUNDS) / (clock[last] - clock[WARM_UP_ROUNDS]),
            unit="rounds/s, heart study, four agents",
            reference=10.0,
            better="at least",
            spread=(min(rates), max(rates)),
            note=f"CPU time of a round: coordinator {whole['coordinator']:.0f} ms, each site {sites_ms:.0f} ms, all "
            f"{sum(whole.values()):.0f} ms (first half {sum(early.values()):.0f}, second {sum(late.values()):.0f}); "
            f"{last - WARM_UP_ROUNDS} rounds, the spread is over stretches of {WINDOW}",
            binding=False,
        )
    ]
