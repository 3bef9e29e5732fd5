"""Which event speaks for which case, and the noise of a sum over sites as it comes out of the ring.

Statistical tests have fixed streams; with new ones each would fail by chance at most once in a million runs.
"""

import math

import numpy as np
import pytest
from scipy import stats

from privacy.dp import accountant
from privacy.dp.distributed import central, honest_shares, site_alone, when_all_contribute, when_shares_are_missing
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import Grid, PoissonSampledDiscreteGaussian, PoissonSampledGaussian, clip_to_grid, noisy_share
from privacy.dp.randomness import CryptographicGenerator
from privacy.encoding import Lane, Layout, decode, encode, lane_scale
from privacy.errors import LocalProtocolError
from privacy.secret import Secret
from tests.fakes.training import entropy_of

FALSE_ALARM = 1e-6
SITES, SHARES = 4, 3
BOUND = 8.0  # of a coordinate of one site's clean sum


def mechanism(**changes):
    fields = {
        "noise_multiplier": 3.4484,
        "sampling_rate": 0.2,
        "steps": 40,
        "clip_norm_l2": 1.0,
        "shares": SHARES,
        "grid_spacing": 2.0**-20,
        "dimension": 21,
    }
    return PoissonSampledDiscreteGaussian(**(fields | changes))


EVENT = DpEvent(mechanism=mechanism())


def cost(event):
    return accountant.epsilon([event], delta=1e-3)


def test_honest_shares_are_the_threshold_without_the_colluding():
    assert honest_shares(threshold=3, colluding=0) == 3
    assert honest_shares(threshold=3, colluding=2) == 1
    for threshold, colluding in ((2, 2), (3, -1)):
        with pytest.raises(LocalProtocolError, match="colluding"):
            honest_shares(threshold=threshold, colluding=colluding)


def test_more_noise_costs_less_and_less_noise_more():
    cases = [when_all_contribute(EVENT, SITES), central(EVENT), when_shares_are_missing(EVENT, 1), site_alone(EVENT)]
    costs = [cost(one) for one in cases]
    assert costs == sorted(costs)
    assert len(set(costs)) == 4
    # Every site's noise is the same in all of them.
    assert {round(one.mechanism.share_std, 12) for one in cases} == {round(EVENT.mechanism.share_std, 12)}


@pytest.mark.parametrize(("case", "shares"), [(site_alone, 1), (lambda e: when_shares_are_missing(e, 2), 1)])
def test_one_share_is_a_gaussian_with_so_much_less_noise(case, shares):
    alone = PoissonSampledGaussian(
        noise_multiplier=3.4484 * math.sqrt(shares / SHARES), sampling_rate=0.2, steps=40, clip_norm_l2=1.0
    )
    assert cost(case(EVENT)) == pytest.approx(cost(DpEvent(mechanism=alone)), rel=1e-6)


def test_what_cannot_be_is_refused():
    for act in (
        lambda: when_shares_are_missing(EVENT, SHARES),
        lambda: when_shares_are_missing(EVENT, -1),
        lambda: when_all_contribute(EVENT, SHARES - 1),
    ):
        with pytest.raises(LocalProtocolError):
            act()


def test_a_site_with_noise_of_its_own_has_no_shares():
    local = DpEvent(
        mechanism=PoissonSampledGaussian(noise_multiplier=1.0, sampling_rate=0.2, steps=1, clip_norm_l2=1.0)
    )
    for function in (central, site_alone, lambda e: when_all_contribute(e, 4), lambda e: when_shares_are_missing(e, 1)):
        with pytest.raises(LocalProtocolError, match="shares of noise"):
            function(local)


def ring(one, bits=32):
    clip = BOUND + one.share_tail
    scale = lane_scale(SITES, clip, bits)
    assert scale * one.grid_spacing >= 1
    layout = Layout(
        modulus_bits=bits,
        lanes=(Lane(name="update", length=one.dimension, clip=clip, scale=1 / one.grid_spacing),),
    )
    layout.check(SITES)
    return layout


def summed(one, sites, label, total=None):
    """The sum over `sites` through the ring, as the coordinator sees it, over the noise's standard deviation."""
    layout = ring(one)
    total = np.zeros(one.dimension, dtype=np.int64) if total is None else total
    aggregate = np.zeros(one.dimension, dtype=layout.dtype)
    for site in range(sites):
        share = noisy_share(total, one, BOUND, CryptographicGenerator(entropy_of(f"{label} {site}")))
        values = {"update": share.astype(np.float64) * one.grid_spacing}
        aggregate += encode(values, layout, Secret(entropy_of(f"dither {label} {site}")(32)))
    return decode(aggregate, layout, survivors=sites)["update"]


@pytest.mark.parametrize(
    ("survivors", "withheld"), [(4, 0), (3, 0), (4, 1), (3, 1), (1, 0)], ids=str
)  # all; one dropped out; one left its noise out; both; a vector seen alone
def test_the_sum_carries_the_noise_of_those_who_added_it(survivors, withheld):
    one = mechanism(dimension=60_000)
    noise = summed(one, survivors - withheld, f"sum {survivors} {withheld}") / one.noise_std
    shares = survivors - withheld
    # The sum of squares over its variance is chi-square with so many degrees of freedom.
    statistic = float((noise**2).sum()) / (shares / SHARES)
    probability = stats.chi2.cdf(statistic, len(noise))
    assert FALSE_ALARM / 2 < probability < 1 - FALSE_ALARM / 2
    assert stats.kstest(noise / math.sqrt(shares / SHARES), "norm").pvalue > FALSE_ALARM
    # The event for this case has the variance that was measured, and not another.
    event = DpEvent(mechanism=one.with_shares(shares))
    assert event.mechanism.noise_std == pytest.approx(one.noise_std * math.sqrt(shares / SHARES))


def test_whole_steps_come_out_of_the_ring_as_they_went_in():
    one = mechanism(dimension=5000)
    out = summed(one, 1, "exact") / one.grid_spacing
    share = noisy_share(np.zeros(5000, dtype=np.int64), one, BOUND, CryptographicGenerator(entropy_of("exact 0")))
    assert (out == share).all()


def test_a_sum_beyond_its_bound_is_moved_onto_it():
    one = mechanism(dimension=3)
    total = np.array([2**40, -(2**40), 7], dtype=np.int64)
    generator, same = (CryptographicGenerator(entropy_of("box")) for _ in range(2))
    moved = noisy_share(total, one, BOUND, generator) - noisy_share(np.zeros(3, dtype=np.int64), one, BOUND, same)
    assert (moved * one.grid_spacing).tolist() == [BOUND, -BOUND, 7 * one.grid_spacing]
    assert total.tolist() == [2**40, -(2**40), 7]


def test_a_bound_between_two_steps_is_rounded_down():
    one = mechanism(dimension=1)
    generator, same = (CryptographicGenerator(entropy_of("box")) for _ in range(2))
    total = np.array([2**40], dtype=np.int64)
    nothing = np.zeros(1, dtype=np.int64)
    moved = noisy_share(total, one, 1.7 * one.grid_spacing, generator) - noisy_share(nothing, one, BOUND, same)
    assert moved.tolist() == [1]


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_a_bound_is_a_number(bound):
    with pytest.raises(LocalProtocolError, match="bound"):
        noisy_share(np.zeros(21, dtype=np.int64), mechanism(), bound, CryptographicGenerator(entropy_of("x")))


def test_a_bound_beyond_exact_floats_is_refused():
    with pytest.raises(LocalProtocolError, match="noisy sum in grid spacings"):
        noisy_share(np.zeros(21, dtype=np.int64), mechanism(), 2.0**33, CryptographicGenerator(entropy_of("x")))


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(LocalProtocolError, match="shape"):
        noisy_share(np.zeros(20, dtype=np.int64), mechanism(), BOUND, CryptographicGenerator(entropy_of("x")))
    with pytest.raises(LocalProtocolError, match="dimension"):
        Grid.of(mechanism(), 20)


def test_one_patient_moves_the_sum_by_at_most_the_clip_norm_after_rounding():
    one = mechanism(dimension=500, grid_spacing=2.0**-9, noise_multiplier=3.0, shares=1)
    grid = Grid.of(one, 500)
    assert grid.spacing == one.grid_spacing
    random = np.random.default_rng(5)
    for scale in (0.01, 1.0, 1e6):
        row = scale * random.normal(size=(1, 500))
        total, _ = clip_to_grid(row, grid)
        assert np.linalg.norm(total * grid.spacing) <= one.clip_norm_l2


def test_the_tail_of_a_share_is_wide_enough_and_no_wider_than_needed():
    one = mechanism(dimension=7_000_000)
    deviations = one.share_tail / one.share_std
    per_step = 2 * one.dimension * math.exp(-(deviations**2) / 2)
    assert 2.0**-129 < per_step <= 2.0**-128
    assert one.share_tail / one.grid_spacing == round(one.share_tail / one.grid_spacing)


def test_two_steps_never_share_their_noise():
    one = mechanism(dimension=1000)
    generator = CryptographicGenerator(entropy_of("steps"))
    first, second = (noisy_share(np.zeros(1000, dtype=np.int64), one, BOUND, generator) for _ in range(2))
    # 4.9 standard deviations of a correlation of nothing with nothing.
    assert abs(np.corrcoef(first, second)[0, 1]) < 4.9 / math.sqrt(1000)
