"""How the learning rate of `training.optimizer` changes over the rounds: a pure function of round and step.

Whoever takes a step computes its rate from the study and the step's place in it, and nothing is remembered: a hospital
that was away, and a coordinator that restarts, go on with the rate that everybody has. With distributed-dp-sgd the
coordinator takes the step and every hospital repeats it to the byte (`server_optimizer.py`), so this is arithmetic
that is the same number on every machine: additions, multiplications and divisions of Python's floats. The cosine is a
polynomial of our own, since that of one library is not that of another.

With t of T steps done (those of a warm-up apart, t and T counted after it), the rate is `learning_rate` times

| schedule | factor |
|---|---|
| warm-up of W rounds, before any other | (t + 1) / (steps in W rounds) |
| constant | 1 |
| cosine | final + (1 - final) (1 + cos(pi t / T)) / 2 (Loshchilov and Hutter 2017, without restarts) |
| step | factor ^ (whole periods of `every_rounds` rounds done) |

A rate is a constant of the study that looks at no patient, and multiplies gradients that carry their noise: it costs no
privacy. An attempt that is repeated has its round's rate again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from consortium.contract.errors import shown
from consortium.contract.schema import Finding, Rule, Section

_PI = 3.141592653589793
_TERMS = 12  # of the cosine's series on [0, pi / 2]: the next one is below 1e-18


def _arguments_fit_schedule(
    name: str, final: float | None, every_rounds: int | None, factor: float | None
) -> Iterator[Finding]:
    for key, value, owner in (
        ("final", final, "cosine"),
        ("every_rounds", every_rounds, "step"),
        ("factor", factor, "step"),
    ):
        if value is None and name == owner:
            yield Finding(key, "nothing", f"a number, with {owner}")
        elif value is not None and name != owner:
            yield Finding(key, shown(value), f"nothing with {name}: it belongs to {owner}")


class Schedule(Section):
    """The learning rate over rounds, as a factor of `training.optimizer.learning_rate`."""

    name: Literal["constant", "cosine", "step"]
    warmup_rounds: Annotated[int, Ge(1), Le(100_000)] | None = (
        None  # in which the rate rises from nearly 0, step by step
    )
    final: Annotated[float, Ge(0), Le(1)] | None = None  # of cosine: the factor it ends near
    every_rounds: Annotated[int, Ge(1), Le(100_000)] | None = None  # of step
    factor: Annotated[float, Gt(0), Lt(1)] | None = None  # of step

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("name", "final", "every_rounds", "factor"), check=_arguments_fit_schedule),
    )


def schedule_fits_rounds(rounds: int, schedule: Schedule | None) -> Iterator[Finding]:
    """A rule of `training`: something is left to train after the warm-up."""
    if schedule is not None and schedule.warmup_rounds is not None and schedule.warmup_rounds >= rounds:
        yield Finding(
            "schedule.warmup_rounds",
            shown(schedule.warmup_rounds),
            f"a whole number below training.rounds, {rounds}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """A study's learning rates, all of them."""

    learning_rate: float
    schedule: Schedule | None
    rounds: int
    local_steps: int

    def at(self, round_number: int, step: int = 0) -> float:
        """The rate of one step.

        Args:
            round_number: From 1.
            step: Of the round, from 0.
        """
        if self.schedule is None:
            return self.learning_rate
        return self.learning_rate * _factor(self.schedule, self.rounds, self.local_steps, round_number, step)


def _factor(schedule: Schedule, rounds: int, local_steps: int, round_number: int, step: int) -> float:
    warmup = schedule.warmup_rounds or 0
    done = (round_number - 1) * local_steps + step
    if done < warmup * local_steps:
        return (done + 1) / (warmup * local_steps)
    done -= warmup * local_steps
    match schedule.name:
        case "constant":
            return 1.0
        case "cosine":
            final = schedule.final or 0.0
            return final + (1 - final) * (1 + cosine(done / ((rounds - warmup) * local_steps))) / 2
        case "step":
            assert schedule.every_rounds is not None  # rules of the section
            assert schedule.factor is not None
            return power(schedule.factor, (round_number - 1 - warmup) // schedule.every_rounds)


def cosine(turn: float) -> float:
    """cos(pi * turn) for a turn from 0 to 1, the same number on every machine and right to 1e-15."""
    if turn > 0.5:
        return -cosine(1 - turn)
    square = (_PI * turn) * (_PI * turn)
    total = 1.0
    for term in range(_TERMS, 0, -1):
        total = 1.0 - total * square / (2 * term * (2 * term - 1))
    return total


def power(base: float, exponent: int) -> float:
    """Raise to a whole power by repeated squaring, so that it is the same number on every machine."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
