"""Epsilon against closed forms, published figures and the other accountants."""

import math

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant
from scipy import optimize, stats

from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledGaussian
from privacy.errors import LocalProtocolError, UnknownEvent


def event(noise, rate, steps, clip=1.0):
    return DpEvent(
        mechanism=PoissonSampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps, clip_norm_l2=clip)
    )


def gaussian_epsilon(noise, delta):
    """Balle and Wang 2018, theorem 8: exact for one Gaussian release of sensitivity 1."""

    def gap(epsilon):
        below = stats.norm.cdf(0.5 / noise - epsilon * noise)
        return below - math.exp(epsilon) * stats.norm.cdf(-0.5 / noise - epsilon * noise) - delta

    return optimize.brentq(gap, 0, 100)


def test_nothing_costs_nothing():
    for function in (accountant.epsilon, accountant.renyi_epsilon):
        assert function([], delta=1e-5) == 0
    assert accountant.filter_epsilon([], delta=1e-5, cap=1.0) == 0
    assert accountant.spend([], delta=1e-5).epsilon == 0


@pytest.mark.parametrize(("noise", "delta"), [(1.0, 1e-5), (2.5, 1e-3), (10.0, 1e-6)])
def test_one_full_release_is_the_closed_form_and_not_less(noise, delta):
    exact = gaussian_epsilon(noise, delta)
    assert exact <= accountant.epsilon([event(noise, 1.0, 1)], delta=delta) <= exact * 1.001


@pytest.mark.parametrize("steps", [4, 100])
def test_full_releases_compose_like_one_with_less_noise(steps):
    exact = gaussian_epsilon(5.0 / math.sqrt(steps), 1e-5)
    assert exact <= accountant.epsilon([event(5.0, 1.0, steps)], delta=1e-5) <= exact * 1.001


def test_the_heart_study_costs_its_epsilon():
    assert accountant.epsilon([event(3.4484, 0.2, 40)], delta=1e-3) == pytest.approx(1.0, abs=1e-4)


def test_rounds_add_up_to_the_study():
    rounds = [event(3.4484, 0.2, 2)] * 20
    assert accountant.epsilon(rounds, delta=1e-3) == accountant.epsilon([event(3.4484, 0.2, 40)], delta=1e-3)


def test_the_clip_norm_does_not_change_the_cost():
    assert accountant.epsilon([event(2, 0.1, 10, clip=5.0)], delta=1e-5) == accountant.epsilon(
        [event(2, 0.1, 10)], delta=1e-5
    )


def test_different_mechanisms_compose():
    both = [event(2.0, 0.2, 10), event(4.0, 0.1, 50)]
    together = accountant.epsilon(both, delta=1e-4)
    parts = [accountant.epsilon([one], delta=1e-4) for one in both]
    assert max(parts) < together < sum(parts)
    assert together <= accountant.renyi_epsilon(both, delta=1e-4)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(3.45, 0.2, 40), (1.0, 0.01, 1000), (50, 1, 400), (0.8, 0.05, 10)]
)
def test_renyi_is_above_and_in_sight(noise, rate, steps):
    tight = accountant.epsilon([event(noise, rate, steps)], delta=1e-5)
    assert tight <= accountant.renyi_epsilon([event(noise, rate, steps)], delta=1e-5) <= 1.5 * tight


def test_renyi_agrees_with_google():
    theirs = RdpAccountant(orders=accountant._ORDERS)
    theirs.compose(PoissonSampledDpEvent(0.2, GaussianDpEvent(3.45)), 40)
    assert accountant.renyi_epsilon([event(3.45, 0.2, 40)], delta=1e-3) == pytest.approx(theirs.get_epsilon(1e-3))


def test_the_filter_never_says_less_than_what_was_spent():
    for cap in (0.5, 1.0, 3.0, 10.0):
        for history in ([event(3.45, 0.2, 40)], [event(3.45, 0.2, 40)] * 3, [event(10, 1, 5), event(2, 0.1, 20)]):
            assert accountant.filter_epsilon(history, delta=1e-3, cap=cap) >= accountant.epsilon(history, delta=1e-3)


def test_the_filter_adds_linearly_at_its_order():
    one, two, three = (accountant.filter_epsilon([event(3.45, 0.2, 40)] * n, delta=1e-3, cap=3.0) for n in (1, 2, 3))
    assert three - two == pytest.approx(two - one)


def test_three_studies_of_epsilon_one_fit_under_three():
    # What the filter costs in adaptivity it gives back in composition: 3 times 1 is well under 3.
    assert accountant.filter_epsilon([event(3.4484, 0.2, 40)] * 3, delta=1e-3, cap=3.0) <= 3.0


@pytest.mark.parametrize("cap", [0.0, -1.0, math.inf, math.nan])
def test_a_cap_is_a_number(cap):
    with pytest.raises(LocalProtocolError, match="cap"):
        accountant.filter_epsilon([event(1, 0.1, 1)], delta=1e-5, cap=cap)


@pytest.mark.parametrize("delta", [0.0, 1e-11, 1.0, 2.0, math.nan])
def test_a_delta_is_in_range(delta):
    for function in (accountant.epsilon, accountant.renyi_epsilon):
        with pytest.raises(LocalProtocolError, match="delta"):
            function([event(1, 0.1, 1)], delta=delta)


def test_no_guarantee_is_said_to_be_none():
    assert accountant.epsilon([event(0.1, 1.0, 1000)], delta=1e-5) > accountant.EPSILON_EXACT_MAX


def test_another_unit_is_refused():
    strange = event(1, 0.1, 1)
    object.__setattr__(strange, "unit", "record")
    with pytest.raises(UnknownEvent):
        accountant.epsilon([strange], delta=1e-5)


def test_versions_name_what_computed_it():
    assert set(accountant.versions()) == {"dp-accounting", "numpy", "scipy"}


def test_millions_of_steps_are_still_counted():
    # The library's own composition of a narrow loss distribution with itself would not end.
    exact = gaussian_epsilon(1e4 / math.sqrt(10_000_000), 1e-8)
    assert exact <= accountant.epsilon([event(1e4, 1.0, 10_000_000)], delta=1e-8) <= exact * 1.05


def test_many_mechanisms_are_brought_together_against_us(monkeypatch):
    history = [event(3 + 0.02 * n, 0.1 + 0.001 * (n % 3), 20) for n in range(10)]
    exactly = accountant.epsilon(history, delta=1e-3)
    runs = accountant._history(history).rounded
    monkeypatch.setattr(accountant, "RUNS_MAX", 4)
    merged = accountant._merged(runs)
    assert len(merged) <= 4 < len(runs) == len(history)
    assert sum(steps for _, _, steps in merged) == sum(steps for _, _, steps in runs)
    accountant._pld_epsilon.cache_clear()
    assert exactly < accountant.epsilon(history, delta=1e-3) <= exactly * 1.1


def test_a_mechanism_that_stands_for_others_is_no_better_than_any(monkeypatch):
    monkeypatch.setattr(accountant, "RUNS_MAX", 1)
    for runs in (((3.0, 0.1, 5), (3.001, 0.1, 5)), ((2.0, 0.1, 1), (9.0, 0.99, 1)), ((1.0, 0.2, 1), (4.0, 1.0, 2))):
        ((noise, rate, _),) = accountant._merged(runs)
        assert noise <= min(one for one, _, _ in runs)
        assert max(one for _, one, _ in runs) <= rate <= 1


def test_a_few_mechanisms_are_left_as_they_are():
    runs = ((2.0, 0.1, 10), (2.001, 0.1, 10))
    assert accountant._merged(runs) == runs


def test_a_step_is_looked_at_once_and_not_after_every_round():
    accountant._one_step.cache_clear()
    for rounds in range(30, 36):
        accountant.epsilon([event(3.3, 0.21, rounds)], delta=1e-3)
    assert accountant._one_step.cache_info().misses == 1
