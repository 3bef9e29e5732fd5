"""Target (epsilon, delta) -> the smallest noise multiplier that keeps it, on a grid of 0.0001.

Every site computes it from the study alone and gets the same number. It is rounded up, never to nearest: the whole
study, every round and step of it, costs at most the target. `calibrate` is for noise of each site's own,
`calibrate_shares` for noise that the sites of a sum share.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from privacy.dp.accountant import SLACK_SHARE_MAX, epsilon, renyi_epsilon, slack
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import (
    NOISE_MULTIPLIER_MAX,
    NOISE_MULTIPLIER_MIN,
    SHARE_STD_MAX,
    SHARE_STD_MIN,
    Mechanism,
    PoissonSampledDiscreteGaussian,
    PoissonSampledGaussian,
)
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
    _check(epsilon_target)

    def mechanism(multiplier: int) -> PoissonSampledGaussian:
        return PoissonSampledGaussian(
            noise_multiplier=multiplier / _GRID, sampling_rate=sampling_rate, steps=steps, clip_norm_l2=clip_norm_l2
        )

    cost = _Cost(mechanism=mechanism, delta=delta)
    return mechanism(_least(cost, epsilon_target, low=NOISE_MULTIPLIER_MIN, high=NOISE_MULTIPLIER_MAX))


@lru_cache(maxsize=256)
def calibrate_shares(
    *,
    epsilon_target: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    clip_norm_l2: float,
    shares: int,
    grid_spacing: float,
    dimension: int,
) -> PoissonSampledDiscreteGaussian:
    """`calibrate` for discrete Gaussian noise that `shares` sites add together, in steps of `grid_spacing`.

    Args:
        epsilon_target: Greater than 0; of the sum over all sites.
        delta: Between `accountant.DELTA_MIN` and 1.
        sampling_rate: Each patient's chance to be in a step, greater than 0 and at most 1.
        steps: All steps of the study.
        clip_norm_l2: Of one patient's contribution, after rounding.
        shares: Honest sites that are certain to be in every sum.
        grid_spacing: A power of two, in the unit of the clip norm.
        dimension: Coordinates of one sum.

    Raises:
        LocalProtocolError: As `calibrate`; or the grid is too coarse for noise this small, or for a vector this long
            at this delta.
    """
    _check(epsilon_target)

    def mechanism(multiplier: int) -> PoissonSampledDiscreteGaussian:
        return PoissonSampledDiscreteGaussian(
            noise_multiplier=multiplier / _GRID,
            sampling_rate=sampling_rate,
            steps=steps,
            clip_norm_l2=clip_norm_l2,
            shares=shares,
            grid_spacing=grid_spacing,
            dimension=dimension,
        )

    cost = _Cost(mechanism=mechanism, delta=delta)
    unit = grid_spacing * math.sqrt(shares) / clip_norm_l2  # noise multiplier of shares one grid spacing wide
    low, high = max(NOISE_MULTIPLIER_MIN, SHARE_STD_MIN * unit), min(NOISE_MULTIPLIER_MAX, SHARE_STD_MAX * unit)
    if low > high:
        raise LocalProtocolError(
            f"shares of noise must fit between {SHARE_STD_MIN:g} and {SHARE_STD_MAX:g} steps of the grid: choose a "
            f"ring with {'fewer' if high < NOISE_MULTIPLIER_MIN else 'more'} bits",
            f"steps of {grid_spacing:g}",
        )
    found = mechanism(_least(cost, epsilon_target, low=low, high=high))
    needed = slack([DpEvent(mechanism=found)], epsilon=epsilon_target)
    if needed > SLACK_SHARE_MAX * delta:
        raise LocalProtocolError(
            f"the part of delta for noise in whole grid steps must be at most {SLACK_SHARE_MAX:g} of it: choose a ring "
            "with more bits, a smaller clip of the sum, or fewer rounds",
            f"{needed:.3g} of delta {delta:g}",
        )
    return found


def _check(epsilon_target: float) -> None:
    if not (math.isfinite(epsilon_target) and epsilon_target > 0):
        raise LocalProtocolError("a target epsilon is a number greater than 0", str(epsilon_target))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """Epsilon of a noise multiplier in grid units, and a bound on it that is quick."""

    mechanism: Callable[[int], Mechanism]
    delta: float

    def __call__(self, multiplier: int) -> float:
        return epsilon([DpEvent(mechanism=self.mechanism(multiplier))], delta=self.delta)

    def bound(self, multiplier: int) -> float:
        return renyi_epsilon([DpEvent(mechanism=self.mechanism(multiplier))], delta=self.delta)


def _least(cost: _Cost, target: float, *, low: float, high: float) -> int:
    """The least multiplier, in grid units, that costs at most the target."""
    below, above = _bracket(cost, target, math.ceil(low * _GRID), math.floor(high * _GRID))
    while above - below > 1:
        # Epsilon is close to a power of the noise: aim with a straight line in logarithms, then a little to the side
        # of what was hit, so that both ends of the interval move.
        guess = _aim(below, cost(below), above, cost(above), target)
        margin = max(1, (above - below) // 50)
        for middle in (guess, guess - margin, guess + margin):
            if below < middle < above:
                if cost(middle) <= target:
                    above = middle
                else:
                    below = middle
    return above


def _bracket(cost: _Cost, target: float, least: int, most: int) -> tuple[int, int]:
    """Two multipliers in grid units: the first costs more than the target, the second at most that."""
    low = high = _enough(cost, target, least, most)
    while cost(high) > target:
        if high >= most:
            raise LocalProtocolError(f"no noise multiplier up to {most / _GRID:g} keeps the target", str(target))
        low, high = high, min(2 * high, most)
    while low == high or cost(low) <= target:
        if low <= least:
            raise LocalProtocolError(
                f"noise below {least / _GRID:g} is not a protection, or not wide enough for the grid",
                f"epsilon {target}",
            )
        low, high = max(low * 17 // 20, least), low
    return low, high


def _enough(cost: _Cost, target: float, least: int, most: int) -> int:
    """A multiplier whose Renyi bound keeps the target, a few percent above the least such one; or `most`."""
    low, high = least, least
    while high < most and cost.bound(high) > target:
        low, high = high, min(2 * high, most)
    while high - low > max(1, high // 32):
        middle = math.isqrt(low * high)
        if cost.bound(middle) <= target:
            high = middle
        else:
            low = middle
    return high


def _aim(low: int, cost_low: float, high: int, cost_high: float, target: float) -> int:
    """Where the line through both ends, on logarithmic axes, meets the target; strictly between them."""
    share = math.log(cost_low / target) / math.log(cost_low / cost_high)
    return min(max(round(low * math.exp(share * math.log(high / low))), low + 1), high - 1)
