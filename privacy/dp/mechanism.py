"""What is done to a sum so that no one patient shows in it: clip, round to a grid, add noise.

A mechanism is frozen data that says all an accountant needs, and the arithmetic that gives those numbers their
meaning is here beside it. Everything that leaves a step is an integer multiple of one grid spacing:

    output = spacing * ( sum over sampled patients of round(clip(g) / spacing)  +  round(noise / spacing) )

The sum is exact (int64), so it does not depend on the order of the patients, and rounding the noise is the same as
rounding the finished Gaussian output, which is post-processing. No low-order bit of a floating-point sum is ever
shown: that is the answer to Mironov (CCS 2012), short of a discrete Gaussian.

| mechanism | noise of one site | what is private |
|---|---|---|
| `PoissonSampledGaussian` | all of it, Gaussian, rounded to the grid | each site's output |
| `PoissonSampledDiscreteGaussian` | its share, discrete Gaussian, whole grid steps | the sum over sites, seen alone |

Holds against: anyone who sees every output (the first), every sum of enough sites (the second). Does not hide: the
noise multiplier, the rate and the number of steps, which are constants of the study.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from privacy.dp.discrete_gaussian import discrete_gaussian
from privacy.dp.randomness import CryptographicGenerator
from privacy.errors import LocalProtocolError
from privacy.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRID_BITS = 32
"""The noise's standard deviation is between 2^32 and 2^33 grid spacings."""

NOISE_MULTIPLIER_MIN, NOISE_MULTIPLIER_MAX = 0.1, 1e6
STEPS_MAX = 10_000_000
_BLOCK = 1 << 14

SHARES_MAX = 1000
DIMENSION_MAX = 2**33
NOISE_MULTIPLIER_SHARE_MIN = 1e-3
"""Lower than `NOISE_MULTIPLIER_MIN`: what is left when shares are missing must be said, however little it is."""

EXACT_STEPS_MAX = 2.0**53
"""Whole numbers below this are exact in float64."""

TAIL_PROBABILITY = 2.0**-128
"""Per step and site: the chance that a share of noise does not fit beside the clean sum and is clamped."""

SHARE_STD_MIN, SHARE_STD_MAX = 2.0**8, 2.0**40
"""A site's share of discrete Gaussian noise, in grid spacings: wide enough that the sum of shares is as good as one
discrete Gaussian (`accountant`), narrow enough for exact integers."""


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
class PoissonSampledDiscreteGaussian:
    """`steps` noisy sums over the patients of several sites; each site adds a share of the noise (distributed DP).

    One step: every patient at every site is in with probability `sampling_rate` and contributes a vector of
    `dimension` whole multiples of `grid_spacing`, of L2 norm at most `clip_norm_l2` after rounding. Each of at least
    `shares` honest sites adds discrete Gaussian noise of standard deviation `share_std`, and only the sum over sites
    is ever seen. Sensitivity (add or remove one patient): `clip_norm_l2`.

    Two sites' shares of variance v make a sum of variance 2v that is almost exactly a discrete Gaussian again
    (Kairouz, Liu, Steinke 2021, theorem 9), so `noise_multiplier` is of the sum.

    With `shares=1` it is the discrete Gaussian mechanism of one party; with `sampling_rate=1` a plain noisy query that
    is answered `steps` times, for instance a histogram of `dimension` cells: one event for all of these.

    Raises:
        LocalProtocolError: A number out of range; a share narrower than `SHARE_STD_MIN` grid spacings; a grid so
            coarse that rounding takes half of the clip norm.
    """

    noise_multiplier: float  # standard deviation of the sum of `shares` shares over `clip_norm_l2`; 1e-3 to 1e6
    sampling_rate: float  # greater than 0, at most 1
    steps: int  # 1 to STEPS_MAX
    clip_norm_l2: float  # greater than 0
    shares: int  # h: honest sites that are certain to be in every sum; 1 to SHARES_MAX
    grid_spacing: float  # a power of two, in the unit of the clip norm
    dimension: int  # coordinates of one sum; 1 to 2^33

    def __post_init__(self) -> None:
        _require(
            NOISE_MULTIPLIER_SHARE_MIN <= self.noise_multiplier <= NOISE_MULTIPLIER_MAX,
            "noise_multiplier",
            self.noise_multiplier,
            f"{NOISE_MULTIPLIER_SHARE_MIN} to {NOISE_MULTIPLIER_MAX:g}",
        )
        _require(0 < self.sampling_rate <= 1, "sampling_rate", self.sampling_rate, "greater than 0, at most 1")
        _require(1 <= self.steps <= STEPS_MAX, "steps", self.steps, f"1 to {STEPS_MAX}")
        finite = math.isfinite(self.clip_norm_l2)
        _require(finite and self.clip_norm_l2 > 0, "clip_norm_l2", self.clip_norm_l2, "greater than 0")
        _require(1 <= self.shares <= SHARES_MAX, "shares", self.shares, f"1 to {SHARES_MAX}")
        _require(1 <= self.dimension <= DIMENSION_MAX, "dimension", self.dimension, f"1 to {DIMENSION_MAX}")
        power_of_two = math.isfinite(self.grid_spacing) and math.frexp(self.grid_spacing)[0] == 0.5
        _require(power_of_two, "grid_spacing", self.grid_spacing, "a power of two")
        wide = SHARE_STD_MIN <= self.share_std / self.grid_spacing <= SHARE_STD_MAX
        _require(
            wide,
            "a share's standard deviation in grid spacings",
            self.share_std / self.grid_spacing,
            f"{SHARE_STD_MIN:g} to {SHARE_STD_MAX:g}: choose a ring with more bits or a smaller clip",
        )
        lost = self.grid_spacing * math.sqrt(self.dimension)
        _require(
            lost < self.clip_norm_l2 / 2,
            "what rounding to the grid may move",
            lost,
            f"less than half of the clip norm {self.clip_norm_l2:g}: choose a ring with more bits or a smaller clip",
        )

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each coordinate of the sum of all shares, in the unit of the clip norm."""
        return self.noise_multiplier * self.clip_norm_l2

    @property
    def share_std(self) -> float:
        """Standard deviation of one site's share on each coordinate, in the unit of the clip norm."""
        return self.noise_std / math.sqrt(self.shares)

    @property
    def share_tail(self) -> float:
        """What no coordinate of one site's share is beyond, in the unit of the clip norm.

        Some coordinate of a step is, with probability below `TAIL_PROBABILITY`: a discrete Gaussian passes x standard
        deviations with probability at most 2 exp(-x^2/2) (Canonne, Kamath, Steinke 2020, section 3.1). A lane that
        holds the clean sum's bound plus this may clamp what it is given; the accountant counts it.
        """
        deviations = math.sqrt(2 * math.log(2 * self.dimension / TAIL_PROBABILITY))
        return (math.ceil(deviations * self.share_std / self.grid_spacing) + 1) * self.grid_spacing

    def with_shares(self, shares: int) -> PoissonSampledDiscreteGaussian:
        """The same sites, each with the same noise, when `shares` shares are in the sum instead."""
        multiplier = self.noise_multiplier * math.sqrt(shares / self.shares)
        return replace(self, noise_multiplier=multiplier, shares=shares)


Mechanism: TypeAlias = PoissonSampledGaussian | PoissonSampledDiscreteGaussian
"""Every mechanism that an accountant has a rule for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The lattice a mechanism's sums live on."""

    spacing: float  # a power of two, in the unit of the clip norm
    clip_norm_l2: float  # what a contribution is clipped to, so that after rounding its norm is within the mechanism's

    @classmethod
    def of(cls, mechanism: Mechanism, dimension: int, *, margin: float = 2.0**-40) -> Grid:
        """The grid of a mechanism over vectors of `dimension` coordinates.

        Rounding moves a vector by at most spacing/2 * sqrt(dimension) in L2; clipping to that much less keeps the
        sensitivity what the accountant is told. For 7 million parameters the difference is a millionth of the norm.

        Args:
            mechanism: Whose noise gives the spacing.
            dimension: Coordinates of a vector.
            margin: The part of the clip norm kept back for what float arithmetic adds to a sum; the default covers
                float64 arithmetic on the norms of vectors that are rounded one by one, as in `clip_to_grid`.

        Raises:
            LocalProtocolError: The vector is so long, or the noise so large, that nothing is left of the clip norm; or
                the mechanism is for vectors of another length.
        """
        if isinstance(mechanism, PoissonSampledDiscreteGaussian):
            _require(dimension == mechanism.dimension, "dimension", dimension, str(mechanism.dimension))
            spacing = mechanism.grid_spacing
        else:
            spacing = 2.0 ** (math.floor(math.log2(mechanism.noise_std)) - GRID_BITS)
        # Half a spacing per coordinate from rounding a contribution, or from rounding each of two neighbouring sums.
        inner = mechanism.clip_norm_l2 * (1 - margin) - spacing * math.sqrt(dimension)
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
    out = generator.gaussian(total.size, std / grid.spacing)
    for start in range(0, out.size, _BLOCK):  # in place, in blocks that stay in the cache
        part = out[start : start + _BLOCK]
        np.rint(part, out=part)
        # Whole numbers: float64 adds them exactly below 2^53, and beyond it rounds the finished output.
        part += total[start : start + _BLOCK]
        part *= grid.spacing
    return out


def noisy_share(
    total: NDArray[np.int64], mechanism: PoissonSampledDiscreteGaussian, bound: float, generator: CryptographicGenerator
) -> NDArray[np.int64]:
    """A site's sum on the grid plus its share of the noise: what it encodes and masks, in grid spacings.

    Args:
        total: int64[dimension], the exact sum of clipped and rounded contributions, from `clip_to_grid`.
        mechanism: Whose share is added.
        bound: The largest absolute value of a coordinate of the clean sum, in the unit of the clip norm. The sum is
            moved into that box first: a projection, so two neighbouring sums do not move apart.
        generator: Every call draws a new share.

    Returns:
        int64[dimension]; its absolute values are at most `bound + mechanism.share_tail`, but for TAIL_PROBABILITY.

    Raises:
        LocalProtocolError: A sum of another length; a bound that is not a number above 0, or so large that the noisy
            sum would not be exact in float64.
    """
    _require(total.shape == (mechanism.dimension,), "shape", total.shape, f"({mechanism.dimension},)")
    _require(math.isfinite(bound) and bound > 0, "bound", bound, "greater than 0")
    # A lane takes float64: what is not exact there would be rounded after the noise was added, in each site's way.
    largest = (bound + mechanism.share_tail) / mechanism.grid_spacing
    _require(largest < EXACT_STEPS_MAX, "the noisy sum in grid spacings", largest, f"below {EXACT_STEPS_MAX:g}")
    # Whole grid steps: a bound between two of them would round contributions after they were clipped.
    most = math.floor(bound / mechanism.grid_spacing)
    noise = discrete_gaussian(generator, mechanism.dimension, mechanism.share_std / mechanism.grid_spacing)
    noise += np.clip(total, -most, most)
    return noise


def _require(condition: object, field: str, found: object, allowed: str) -> None:
    if not condition:
        raise LocalProtocolError(f"{field} must be {allowed}", str(found))
