"""Shares of discrete Gaussian noise: the Gaussian's figures hold, each step of the argument checked by arithmetic.

The argument is in `privacy.dp.accountant`. Here its parts are computed from probability mass functions where that can
be done: on coarse grids, in one dimension.
"""

import math

import mpmath
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy import optimize, stats

from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from privacy.errors import LocalProtocolError, UnknownEvent

FIELDS = {
    "noise_multiplier": 3.4484,
    "sampling_rate": 0.2,
    "steps": 40,
    "clip_norm_l2": 1.0,
    "shares": 3,
    "grid_spacing": 2.0**-22,
    "dimension": 21,
}


def shared(**changes):
    return DpEvent(mechanism=PoissonSampledDiscreteGaussian(**(FIELDS | changes)))


def alone(noise=3.4484, rate=0.2, steps=40):
    return DpEvent(
        mechanism=PoissonSampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps, clip_norm_l2=1.0)
    )


def pmf(std, reach):
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-(x**2) / (2 * std**2))
    return x, weight / weight.sum()


def gaussian_epsilon(noise, delta):
    """Balle and Wang 2018, theorem 8: exact for one Gaussian release of sensitivity 1."""

    def gap(epsilon):
        below = stats.norm.cdf(0.5 / noise - epsilon * noise)
        return below - math.exp(epsilon) * stats.norm.cdf(-0.5 / noise - epsilon * noise) - delta

    return optimize.brentq(gap, 0, 100)


# --- the parts of the argument ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [4.0, 8.0, 16.0, 32.0])
def test_a_rounded_gaussian_is_as_near_as_derived(std):
    reach = math.ceil(14 * std)
    x, discrete = pmf(math.sqrt(std**2 + 1 / 12), reach)
    # Differences in the upper tail lose no digits.
    upper = stats.norm.sf((np.abs(x) - 0.5) / std) - stats.norm.sf((np.abs(x) + 0.5) / std)
    found = np.abs(discrete - upper).sum() / 2
    derived = (1 / 48) * (1 / 48 + 1 / 80) * (math.sqrt(24) / std**4 + math.sqrt(120) / std**5)
    assert derived / 12 < found < derived  # neither broken nor vacuous


def test_the_constant_of_the_slack_is_the_derived_one_rounded_up():
    std = 2.0**8
    derived = (1 / 48) * (1 / 48 + 1 / 80) * (math.sqrt(24) / std**4 + math.sqrt(120) / std**5)
    assert derived < 1 / (288 * std**4) < 1.02 * derived


def test_at_the_narrowest_share_the_distance_is_below_the_slack():
    with mpmath.workdps(40):
        std = mpmath.mpf(2) ** 8
        variance = std**2 + mpmath.mpf(1) / 12
        total = mpmath.sqrt(2 * mpmath.pi * variance)  # of the weights, to 10^-560000
        far = 0
        for x in range(0, 3 * 256, 7):  # every seventh place of the bulk: the sum is smooth
            discrete = mpmath.exp(-(x**2) / (2 * variance)) / total
            rounded = mpmath.ncdf((x + 0.5) / std) - mpmath.ncdf((x - 0.5) / std)
            far += abs(discrete - rounded) * 7
        assert 0 < far < mpmath.mpf(1) / (288 * std**4)


@pytest.mark.parametrize(("std", "shares"), [(0.5, 2), (0.6, 3), (0.8, 2), (1.0, 4)])
def test_a_sum_of_shares_is_a_discrete_gaussian_to_within_the_published_gap(std, shares):
    # Kairouz, Liu, Steinke 2021, theorem 9. At 2^8 grid spacings the same formula is below 10^-280000.
    _, share = pmf(std, 40)
    total = share
    for _ in range(shares - 1):
        total = np.convolve(total, share)
    x, whole = pmf(std * math.sqrt(shares), 40 * shares)
    seen = np.abs(x) <= 6 * std * math.sqrt(shares)  # beyond, doubles are too coarse
    gap = np.abs(np.log(total[seen] / whole[seen])).max()
    tau = 10 * sum(math.exp(-2 * math.pi**2 * std**2 * k / (k + 1)) for k in range(1, shares))
    assert 0 < gap <= tau + 1e-12


def test_the_published_gap_is_nothing_at_the_narrowest_share():
    exponent = 2 * math.pi**2 * (2.0**8) ** 2 / 2
    assert exponent / math.log(10) > 280_000


@pytest.mark.parametrize("rate", [0.2, 1.0])
@pytest.mark.parametrize("shift", [1, 3])
def test_renyi_at_integer_orders_is_the_gaussians(rate, shift):
    std = 4.0
    _, q = pmf(std, 120)
    p = np.roll(q, shift)
    for order in (2, 3, 8, 20):
        ours = accountant._renyi_step(std / shift, rate, order)
        mixed = (1 - rate) * q + rate * p
        more = math.log(np.sum(q * (mixed / q) ** order)) / (order - 1)
        fewer = math.log(np.sum(mixed * (q / mixed) ** order)) / (order - 1)
        assert more == pytest.approx(ours, rel=1e-9)
        assert fewer <= ours * (1 + 1e-9)


# --- the figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta"), [(3.4484, 0.2, 40, 1e-3), (1.0, 1.0, 1, 1e-5), (0.8, 0.05, 100, 1e-5)]
)
def test_in_one_dimension_as_the_library_counts_a_discrete_gaussian(noise, rate, steps, delta):
    units = 512  # a patient moves the sum by so many grid steps
    per_step = {
        pessimistic: pld.from_discrete_gaussian_mechanism(
            noise * units,
            sensitivity=units,
            pessimistic_estimate=pessimistic,
            value_discretization_interval=1e-4,
            sampling_prob=rate,
        ).self_compose(steps)
        for pessimistic in (True, False)
    }
    event = shared(
        noise_multiplier=noise, sampling_rate=rate, steps=steps, shares=1, grid_spacing=1 / units, dimension=1
    )
    ours = accountant.epsilon([event], delta=delta)
    assert per_step[False].get_epsilon_for_delta(delta) <= ours
    assert ours <= per_step[True].get_epsilon_for_delta(delta) * 1.001


def test_the_heart_study_costs_the_same_as_with_gaussian_noise():
    gaussian, discrete = (accountant.epsilon([one], delta=1e-3) for one in (alone(), shared()))
    assert discrete == pytest.approx(gaussian, rel=1e-9)


def test_as_published_for_ten_million_coordinates():
    # A Gaussian release of epsilon 15.328; on a grid of 2^16 steps per clip norm, stochastic rounding lengthens a
    # contribution (Kairouz, Liu, Steinke 2021, proposition 26 at beta = exp(-1/2)), which makes it 15.334.
    units, dimension = 2.0**16, 10_000_000
    noise = optimize.brentq(lambda sigma: gaussian_epsilon(sigma, 1e-5) - 15.328, 0.2, 1.0)
    longer = math.sqrt(units**2 + dimension / 4 + units + math.sqrt(dimension) / 2) / units
    assert accountant.epsilon([alone(noise / longer, 1.0, 1)], delta=1e-5) == pytest.approx(15.334, abs=1e-3)
    # Here a contribution is clipped to so much less before it is rounded, so it costs what the Gaussian does.
    ours = shared(noise_multiplier=noise, sampling_rate=1.0, steps=1, grid_spacing=2.0**-20, dimension=dimension)
    assert accountant.epsilon([ours], delta=1e-5) == pytest.approx(15.328, abs=1e-3)


@pytest.mark.parametrize(("nominal", "without_one"), [(1.0, 1.2), (3.0, 3.7), (10.0, 13.2)])
def test_one_of_four_sites_without_its_noise(nominal, without_one):
    # The design's example (section 1): noise for four, three contribute; 60 steps of the heart study.
    noise = {1.0: 4.1474, 3.0: 1.8168, 10.0: 0.8764}[nominal]
    whole = shared(noise_multiplier=noise, shares=4, steps=60)
    assert accountant.epsilon([whole], delta=1e-3) == pytest.approx(nominal, abs=3e-3)
    left = DpEvent(mechanism=whole.mechanism.with_shares(3))
    assert accountant.epsilon([left], delta=1e-3) == pytest.approx(without_one, abs=0.05)


def test_histories_of_both_kinds_add_up():
    both = [alone(5.0, 0.1, 30), shared(steps=10), shared(steps=30)]
    together = accountant.epsilon(both, delta=1e-3)
    assert together == pytest.approx(accountant.epsilon([alone(5.0, 0.1, 30), alone()], delta=1e-3), rel=1e-5)
    assert together <= accountant.renyi_epsilon(both, delta=1e-3)
    assert accountant.filter_epsilon(both, delta=1e-3, cap=3.0) == pytest.approx(
        accountant.filter_epsilon([alone(5.0, 0.1, 30), alone()], delta=1e-3, cap=3.0), rel=1e-9
    )


def test_rounds_add_up_to_the_study():
    assert accountant.epsilon([shared(steps=1)] * 40, delta=1e-3) == pytest.approx(
        accountant.epsilon([shared()], delta=1e-3), rel=1e-12
    )


def test_the_slack_grows_with_steps_length_and_epsilon():
    base = accountant.slack([shared(grid_spacing=2.0**-12)], epsilon=1.0)
    assert base == pytest.approx((1 + math.e) * 40 * 21 / (288 * (3.4484 * 2**12) ** 4), rel=1e-6, abs=0)
    assert accountant.slack([shared(grid_spacing=2.0**-12)] * 2, epsilon=1.0) == pytest.approx(2 * base, abs=0)
    assert accountant.slack([shared(grid_spacing=2.0**-12, dimension=42)], epsilon=1.0) == pytest.approx(
        2 * base, abs=0
    )
    assert accountant.slack([shared(grid_spacing=2.0**-12)], epsilon=3.0) > 5 * base
    assert accountant.slack([alone()], epsilon=1.0) == 0


def test_on_the_finest_grid_the_slack_is_what_the_sampler_and_the_lane_may_be_off():
    finest = shared(grid_spacing=2.0**-38)
    expected = (1 + math.e) * 3 * 40 * (21 * 2.0**-140 + 2.0**-128)
    assert accountant.slack([finest], epsilon=1.0) == pytest.approx(expected, rel=1e-6, abs=0)


def test_the_gaussian_that_is_rounded_has_the_variance_that_rounding_adds_less():
    event = shared(noise_multiplier=256.0, grid_spacing=1.0, shares=1, clip_norm_l2=10.0)
    ((noise, _, _),) = accountant._history([event]).rounded
    spacings = 10.0  # of the clip norm
    assert (noise * spacings) ** 2 == pytest.approx((256.0 * spacings) ** 2 - 1 / 12, rel=1e-13)
    assert noise < 256.0


def test_on_a_coarse_grid_the_renyi_bound_is_reported():
    coarse = shared(grid_spacing=2.0**-7, shares=2, dimension=4000, steps=1000)
    assert accountant.slack([coarse], epsilon=1.0) > accountant.SLACK_SHARE_MAX * 1e-5
    assert accountant.epsilon([coarse], delta=1e-5) == accountant.renyi_epsilon([coarse], delta=1e-5)
    assert accountant.epsilon([coarse], delta=1e-5) > accountant.epsilon([alone(steps=1000)], delta=1e-5)


def test_the_slack_is_taken_from_delta():
    # Between the two: a slack that shows in the figure and is still small against delta.
    event = shared(grid_spacing=2.0**-7, shares=2, dimension=2000)
    needed = accountant.slack([event], epsilon=1.2)
    assert 1e-5 * 1e-3 < needed < accountant.SLACK_SHARE_MAX * 1e-3
    assert accountant.epsilon([event], delta=1e-3) > accountant.epsilon([alone()], delta=1e-3) * (1 + 1e-6)
    assert accountant.epsilon([event], delta=1e-3) >= accountant.epsilon([alone()], delta=1e-3 - needed / 2)


def test_a_mechanism_without_a_rule_is_refused():
    strange = shared()
    object.__setattr__(strange, "mechanism", FakeMechanism())
    with pytest.raises(UnknownEvent, match="FakeMechanism"):
        accountant.epsilon([strange], delta=1e-3)


class FakeMechanism:
    noise_multiplier = sampling_rate = 1.0
    steps = 1


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"noise_multiplier": 1e-4}, "noise_multiplier"),
        ({"noise_multiplier": float("nan")}, "noise_multiplier"),
        ({"sampling_rate": 0.0}, "sampling_rate"),
        ({"steps": 0}, "steps"),
        ({"clip_norm_l2": 0.0}, "clip_norm_l2"),
        ({"clip_norm_l2": float("inf")}, "clip_norm_l2"),
        ({"shares": 0}, "shares"),
        ({"shares": 1001}, "shares"),
        ({"dimension": 0}, "dimension"),
        ({"dimension": 2**33 + 1}, "dimension"),
        ({"grid_spacing": 0.3}, "power of two"),
        ({"grid_spacing": 0.0}, "power of two"),
        ({"grid_spacing": -0.5}, "power of two"),
        ({"grid_spacing": float("nan")}, "power of two"),
        ({"grid_spacing": 2.0**-6}, "grid spacings"),  # a share of 127
        ({"grid_spacing": 2.0**-45}, "grid spacings"),
        ({"grid_spacing": 2.0**-12, "dimension": 2**22}, "rounding"),
    ],
)
def test_what_protects_nobody_is_refused(changes, rule):
    with pytest.raises(LocalProtocolError, match=rule):
        shared(**changes)
