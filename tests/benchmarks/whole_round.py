"""Whole rounds with masks and without, in turns: four agent processes, a coordinator process, TLS on the loopback.

A round lasts from its invitation to the next one's: keys, upload, confirmation, unmasking, the next global model
computed and verified by every hospital. Training takes no time. In even rounds every process leaves the masks out
(`bench_process.py`), and does all else; nothing but that differs.
"""

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.benchmarks.bench_consortium import BenchFailed, Mark, consortium
from tests.benchmarks.bench_study import MILLION, TEN_MILLION, bench_study
from tests.benchmarks.figures import Figure

SITES = ("site-01", "site-02", "site-03", "site-04")
ROUNDS: Mapping[int, int] = {MILLION: 22, TEN_MILLION: 12}
WARM_UP_ROUNDS = (
    2  # the first is measured by the study and everything is allocated in it; the second is the first plain
)
WAIT_S = 240.0
SECONDS = {MILLION: ("secure_round_1M_s", 1.0, 42), TEN_MILLION: ("secure_round_10M_s", 3.0, 77)}
"""Name, what it is held to, and the seconds that were measured for the usual platforms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What was measured for one number of parameters."""

    parameters: int
    secure_s: tuple[float, ...]  # wall clock
    plain_s: tuple[float, ...]
    secure_cpu_s: float  # median over rounds, all five processes together
    plain_cpu_s: float
    keys_s: float  # median time of a plain round until every site may mask

    @property
    def ratio(self) -> float:
        """Secure over plain, by the clock."""
        return statistics.median(self.secure_s) / statistics.median(self.plain_s)

    def words(self) -> str:
        """All of it in a line."""
        return (
            f"d = {self.parameters:.0e}: secure {_seconds(self.secure_s)}, plain {_seconds(self.plain_s)}, "
            f"by the clock {self.ratio:.2f}, by CPU time {self.secure_cpu_s / self.plain_cpu_s:.2f} "
            f"({self.secure_cpu_s:.2f} over {self.plain_cpu_s:.2f} s); of a plain round, keys take {self.keys_s:.3f} s"
        )


def measure(sizes: Mapping[int, int] = ROUNDS) -> list[Figure]:
    """The ratio, and the seconds of each size; `sizes` is parameters -> rounds."""
    return figures(asyncio.run(run(sizes)))


async def run(sizes: Mapping[int, int]) -> list[Rounds]:
    """One study for each size, one after the other, in the same processes."""
    studies = {
        parameters: bench_study(f"rounds-{parameters}", SITES, parameters=parameters, rounds=rounds)
        for parameters, rounds in sizes.items()
    }
    found, seen = [], dict.fromkeys(("coordinator", *SITES), 0)
    async with consortium(*studies.values(), agents=SITES, plain_even_rounds=True) as field:
        for parameters, study in studies.items():
            await field.start(study.id)
            # Only then has every process begun the round after the last: that is where the last one ends.
            await field.until_ended(study.id, WAIT_S)
            marks = {name: field.marks(name)[lines:] for name, lines in seen.items()}
            found.append(rounds_of(parameters, study.training.rounds, marks))
            seen = {name: len(field.marks(name)) for name in seen}
    return found


def rounds_of(parameters: int, rounds: int, marks: Mapping[str, Sequence[Mark]]) -> Rounds:
    """Marks of one study, by process -> what they say; raises BenchFailed if the switch for masks did not work."""
    begins = {name: [mark for mark in lines if mark.phase == "begin"] for name, lines in marks.items()}
    spans = {name: {a.round: (a, b) for a, b in pairwise(lines)} for name, lines in begins.items()}
    numbers = range(WARM_UP_ROUNDS + 1, rounds + 1)
    for name, of in spans.items():
        for number in numbers:
            if number not in of:
                raise BenchFailed(f"{name} has no whole round {number}")
            before, after = of[number]
            if (after.left_out > before.left_out) != (number % 2 == 0):
                raise BenchFailed(f"{name}: the switch for masks did not do its work in round {number}")
    seconds = {number: _clock(spans["coordinator"][number]) for number in numbers}
    cpu = {number: sum(_cpu(of[number]) for of in spans.values()) for number in numbers}
    plain = [number for number in numbers if number % 2 == 0]
    secure = [number for number in numbers if number % 2 == 1]
    exchanged = {mark.round: mark.clock_s for mark in marks["coordinator"] if mark.phase == "Masking"}
    return Rounds(
        parameters=parameters,
        secure_s=tuple(seconds[number] for number in secure),
        plain_s=tuple(seconds[number] for number in plain),
        secure_cpu_s=statistics.median(cpu[number] for number in secure),
        plain_cpu_s=statistics.median(cpu[number] for number in plain),
        keys_s=statistics.median(exchanged[number] - spans["coordinator"][number][0].clock_s for number in plain),
    )


def figures(found: Sequence[Rounds]) -> list[Figure]:
    """The worst ratio of all sizes, and the seconds of each."""
    worst = max(found, key=lambda rounds: rounds.ratio)
    turns = [a / b for a, b in zip(worst.secure_s, worst.plain_s, strict=False)]
    listed = [
        Figure(
            name="secure_vs_plain_round",
            value=worst.ratio,
            unit="seconds of a round over the same without masks",
            reference=1.5,
            better="at most",
            spread=(min(turns), max(turns)),
            note="\n".join(rounds.words() for rounds in found),
        )
    ]
    for rounds in found:
        name, reference, others = SECONDS[rounds.parameters]
        listed.append(
            Figure(
                name=name,
                value=statistics.median(rounds.secure_s),
                unit="s, a whole secure round with four agents",
                reference=reference,
                better="at most",
                spread=(min(rounds.secure_s), max(rounds.secure_s)),
                note=f"the usual Python platforms: about {others} s",
                binding=False,
            )
        )
    return listed


def _clock(span: tuple[Mark, Mark]) -> float:
    return span[1].clock_s - span[0].clock_s


def _cpu(span: tuple[Mark, Mark]) -> float:
    return span[1].cpu_s - span[0].cpu_s


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} s ({min(values):.3f} to {max(values):.3f})"
