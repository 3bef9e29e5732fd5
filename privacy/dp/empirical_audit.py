"""How well somebody guessed which canaries were in -> a lower bound on epsilon, from one run of training.

Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run" (NeurIPS 2023), theorem 5.2 and appendix D.
Each of m canaries is in or out by a fair coin of its own. After the run somebody guesses r of them and is right v
times. Were the run (epsilon, delta)-differentially private, then

    P[right >= v]  <=  P[W >= v]  +  2 m delta max_i  P[v > W >= v - i] / i,     W ~ Binomial(r, e^eps / (1 + e^eps)),

so an epsilon for which the right side is below 1 - confidence is refuted.

A smoke alarm only: the bound is far below what was spent, and a bound of 0 shows nothing. Pure; no data pass here.
"""

import math
from functools import lru_cache

from privacy.errors import LocalProtocolError

EPSILON_TRIED_MAX = 60.0
"""Beyond this a right guess is certain in float64, and no number of canaries tells more."""

CANARIES_MAX = 100_000


def delta_max(canaries: int) -> float:
    """The largest delta an audit with so many canaries may be about: 1 / (100 m).

    With a larger one the term in delta swallows the evidence, or a mechanism that gives one canary away passes.
    """
    return 1 / (100 * canaries)


def p_value(*, canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The most likely it can be to guess `right` or more under (epsilon, delta)-differential privacy; at most 1.

    Args:
        canaries: m, each in or out by a fair coin.
        guesses: r of them were guessed, the others passed over.
        right: v of the guesses were right.
        epsilon: At least 0.
        delta: From 0 to `delta_max(canaries)`.

    Raises:
        LocalProtocolError: The numbers do not fit together.
    """
    if not 0 <= right <= guesses <= canaries <= CANARIES_MAX or guesses < 1:
        raise LocalProtocolError("right guesses, guesses and canaries must follow each other", f"{right}, {guesses}")
    if not (math.isfinite(epsilon) and epsilon >= 0 and 0 <= delta <= delta_max(canaries)):
        raise LocalProtocolError(
            f"an audit with {canaries} canaries is about epsilon >= 0 and delta <= {delta_max(canaries):g}",
            f"{epsilon}, {delta}",
        )
    weights = _binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    tail = math.fsum(weights[right:])
    steepest, total = 0.0, 0.0
    for below in range(1, right + 1):
        total += weights[right - below]
        steepest = max(steepest, total / below)
    return min(1.0, tail + 2 * canaries * delta * steepest)


def epsilon_lower(*, canaries: int, guesses: int, right: int, delta: float, confidence: float = 0.95) -> float:
    """The largest epsilon that is refuted with this confidence; 0 if none is. Rounded down.

    Raises:
        LocalProtocolError: See `p_value`; or a confidence that is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise LocalProtocolError("a confidence is between 0 and 1", str(confidence))

    def refuted(epsilon: float) -> bool:
        value = p_value(canaries=canaries, guesses=guesses, right=right, epsilon=epsilon, delta=delta)
        return value < 1 - confidence

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < EPSILON_TRIED_MAX and refuted(high):
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def epsilon_reach(*, canaries: int, delta: float, confidence: float = 0.95) -> float:
    """What the bound would be if every guess were right: so many canaries can refute no more."""
    return epsilon_lower(canaries=canaries, guesses=canaries, right=canaries, delta=delta, confidence=confidence)


@lru_cache(maxsize=64)
def _binomial(count: int, chance: float) -> tuple[float, ...]:
    """Probabilities of 0 to `count` successes."""
    if chance == 1:
        return (*(0.0 for _ in range(count)), 1.0)
    log_in, log_out = math.log(chance), math.log1p(-chance)
    whole = math.lgamma(count + 1)
    return tuple(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * log_in + (count - k) * log_out)
        for k in range(count + 1)
    )
