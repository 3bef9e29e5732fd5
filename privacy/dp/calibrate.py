"""Target (epsilon, delta) -> the smallest noise multiplier that keeps it, on a grid of 0.0001.

Every site computes it from the study alone and gets the same number. It is rounded up, never to nearest: the whole
study, every round and step of it, costs at most the target.
"""

import math
from collections.abc import Callable
from functools import lru_cache

from privacy.dp.accountant import epsilon
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import NOISE_MULTIPLIER_MAX, NOISE_MULTIPLIER_MIN, PoissonSampledGaussian
from privacy.errors import LocalProtocolError

_GRID = 10_000  # noise multipliers are whole multiples of 1/_GRID


@lru_cache(maxsize=256)
def calibrate(
    *, epsilon_target: float, delta: float, sampling_rate: float, steps: int, clip_norm_l2: float = 1.0
) -> PoissonSampledGaussian:
    """The mechanism with the least noise whose `steps` steps cost at most `epsilon_target` at `delta`.

    Args:
        epsilon_target: Greater than 0.
        delta: Between `accountant.DELTA_MIN` and 1.
        sampling_rate: Each patient's chance to be in a step, greater than 0 and at most 1.
        steps: All steps of the study: rounds times local steps.
        clip_norm_l2: Carried into the result; it does not change the noise multiplier.

    Raises:
        LocalProtocolError: The target cannot be met by any noise multiplier that is allowed, or makes no sense.
    """
    if not (math.isfinite(epsilon_target) and epsilon_target > 0):
        raise LocalProtocolError("a target epsilon is a number greater than 0", str(epsilon_target))

    def cost(multiplier: int) -> float:
        mechanism = PoissonSampledGaussian(
            noise_multiplier=multiplier / _GRID, sampling_rate=sampling_rate, steps=steps, clip_norm_l2=clip_norm_l2
        )
        return epsilon([DpEvent(mechanism=mechanism)], delta=delta)

    low, high = _bracket(cost, epsilon_target)
    while high - low > 1:
        # Epsilon is close to a power of the noise: aim with a straight line in logarithms, then a little to the side
        # of what was hit, so that both ends of the interval move.
        guess = _aim(low, cost(low), high, cost(high), epsilon_target)
        margin = max(1, (high - low) // 50)
        for middle in (guess, guess - margin, guess + margin):
            if low < middle < high:
                if cost(middle) <= epsilon_target:
                    high = middle
                else:
                    low = middle
    return PoissonSampledGaussian(
        noise_multiplier=high / _GRID, sampling_rate=sampling_rate, steps=steps, clip_norm_l2=clip_norm_l2
    )


def _bracket(cost: Callable[[int], float], target: float) -> tuple[int, int]:
    """Two multipliers in grid units: the first costs more than the target, the second at most that."""
    least, most = math.ceil(NOISE_MULTIPLIER_MIN * _GRID), int(NOISE_MULTIPLIER_MAX * _GRID)
    low = high = _GRID
    while cost(high) > target:
        if high >= most:
            raise LocalProtocolError(
                f"no noise multiplier up to {NOISE_MULTIPLIER_MAX:g} keeps the target", str(target)
            )
        low, high = high, min(2 * high, most)
    while low == high or cost(low) <= target:
        if low <= least:
            raise LocalProtocolError(f"noise below {NOISE_MULTIPLIER_MIN} is not a protection", f"epsilon {target}")
        low, high = max(low // 2, least), low
    return low, high


def _aim(low: int, cost_low: float, high: int, cost_high: float, target: float) -> int:
    """Where the line through both ends, on logarithmic axes, meets the target; strictly between them."""
    share = math.log(cost_low / target) / math.log(cost_low / cost_high)
    return min(max(round(low * math.exp(share * math.log(high / low))), low + 1), high - 1)
