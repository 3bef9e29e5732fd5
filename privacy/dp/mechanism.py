"""What is done to a sum so that no one patient shows in it: clip, round to a grid, add noise.

A mechanism is frozen data that says all an accountant needs, and the arithmetic that gives those numbers their
meaning is here beside it. Everything that leaves a step is an integer multiple of one grid spacing:

    output = spacing * ( sum over sampled patients of round(clip(g) / spacing)  +  round(noise / spacing) )

The sum is exact (int64), so it does not depend on the order of the patients, and rounding the noise is the same as
rounding the finished Gaussian output, which is post-processing. No low-order bit of a floating-point sum is ever
shown: that is the answer to Mironov (CCS 2012), short of a discrete Gaussian.

Holds against: anyone who sees every update. Does not hide: the noise multiplier, the rate and the number of steps,
which are constants of the study.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.dp.randomness import CryptographicGenerator
from privacy.errors import LocalProtocolError

GRID_BITS = 32
"""The noise's standard deviation is between 2^32 and 2^33 grid spacings."""

NOISE_MULTIPLIER_MIN, NOISE_MULTIPLIER_MAX = 0.1, 1e6
STEPS_MAX = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonSampledGaussian:
    """`steps` noisy sums, each over an independent Poisson sample of the patients.

    One step: every patient is in with probability `sampling_rate`, contributes a vector of L2 norm at most
    `clip_norm_l2`, and Gaussian noise of standard deviation `noise_multiplier * clip_norm_l2` is added to each
    coordinate of the sum. Sensitivity (add or remove one patient): `clip_norm_l2`.
    """

    noise_multiplier: float  # NOISE_MULTIPLIER_MIN to NOISE_MULTIPLIER_MAX
    sampling_rate: float  # greater than 0, at most 1
    steps: int  # 1 to STEPS_MAX
    clip_norm_l2: float  # greater than 0

    def __post_init__(self) -> None:
        _require(
            NOISE_MULTIPLIER_MIN <= self.noise_multiplier <= NOISE_MULTIPLIER_MAX,
            "noise_multiplier",
            self.noise_multiplier,
            f"{NOISE_MULTIPLIER_MIN} to {NOISE_MULTIPLIER_MAX:g}",
        )
        _require(0 < self.sampling_rate <= 1, "sampling_rate", self.sampling_rate, "greater than 0, at most 1")
        _require(1 <= self.steps <= STEPS_MAX, "steps", self.steps, f"1 to {STEPS_MAX}")
        finite = math.isfinite(self.clip_norm_l2)
        _require(finite and self.clip_norm_l2 > 0, "clip_norm_l2", self.clip_norm_l2, "greater than 0")

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each coordinate of a step's sum, in the unit of the clip norm."""
        return self.noise_multiplier * self.clip_norm_l2


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The lattice a mechanism's sums live on."""

    spacing: float  # a power of two, in the unit of the clip norm
    clip_norm_l2: float  # what a contribution is clipped to, so that after rounding its norm is within the mechanism's

    @classmethod
    def of(cls, mechanism: PoissonSampledGaussian, dimension: int) -> "Grid":
        """The grid of a mechanism over vectors of `dimension` coordinates.

        Rounding moves a vector by at most spacing/2 * sqrt(dimension) in L2; clipping to that much less keeps the
        sensitivity what the accountant is told. For 7 million parameters the difference is a millionth of the norm.

        Raises:
            LocalProtocolError: The vector is so long, or the noise so large, that nothing is left of the clip norm.
        """
        spacing = 2.0 ** (math.floor(math.log2(mechanism.noise_std)) - GRID_BITS)
        # Half a spacing per coordinate from rounding; the rest covers float64 arithmetic on norms.
        inner = mechanism.clip_norm_l2 * (1 - 2.0**-40) - spacing * math.sqrt(dimension)
        if inner <= mechanism.clip_norm_l2 / 2:
            raise LocalProtocolError("a clipped vector must stay well above the grid", f"{dimension} coordinates")
        return cls(spacing=spacing, clip_norm_l2=inner)


def clip_to_grid(contributions: NDArray[np.float64], grid: Grid) -> tuple[NDArray[np.int64], int]:
    """Clip each patient's vector in L2 and round it to the grid.

    Args:
        contributions: float64[patients, d]; a row with NaN or infinity becomes zero, so that one broken record
            neither spoils the sum nor shows in it.
        grid: From `Grid.of` for the same d.

    Returns:
        int64[d], the exact sum of the rounded rows in grid spacings, and how many rows were shortened.
    """
    rows = np.where(np.isfinite(contributions).all(axis=1, keepdims=True), contributions, 0.0)
    # Divided by its largest coordinate first, so that the square of a finite but huge gradient does not overflow.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    direction = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    length = np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1.0)
    with np.errstate(over="ignore"):
        too_long = largest * length > grid.clip_norm_l2
    clipped = np.where(too_long, direction * (grid.clip_norm_l2 / length), rows)
    total = np.rint(clipped / grid.spacing).astype(np.int64).sum(axis=0)
    return total, int(too_long.sum())


def noisy(total: NDArray[np.int64], std: float, grid: Grid, generator: CryptographicGenerator) -> NDArray[np.float64]:
    """A sum on the grid plus Gaussian noise rounded to the grid: float64[d], in the unit of the clip norm."""
    noise = np.rint(generator.gaussian(total.size, std / grid.spacing)).astype(np.int64)
    return (total + noise).astype(np.float64) * grid.spacing


def _require(condition: object, field: str, found: object, allowed: str) -> None:
    if not condition:
        raise LocalProtocolError(f"{field} must be {allowed}", str(found))
