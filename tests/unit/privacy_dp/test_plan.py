"""The arithmetic of a plan, against numbers worked out by hand and against noise that was really drawn."""

import math

import numpy as np
import pytest

from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from privacy.dp.plan import Design, odds
from privacy.errors import LocalProtocolError

LOCAL = PoissonSampledGaussian(noise_multiplier=3.0, sampling_rate=0.2, steps=40, clip_norm_l2=0.5)
SHARED = PoissonSampledDiscreteGaussian(
    noise_multiplier=3.0, sampling_rate=0.2, steps=40, clip_norm_l2=0.5, shares=4, grid_spacing=2.0**-20, dimension=16
)


def design(mechanism=LOCAL, **changed):
    fields = {"delta": 1e-3, "local_steps": 2, "patients": 30, "sites": 9, "parameters": 16}
    return Design(mechanism=mechanism, **{**fields, **changed})


def test_figures_by_hand():
    found = design()
    assert found.rounds == 20
    assert found.expected_batch == pytest.approx(6)
    assert found.chance_of_empty_batch == pytest.approx(0.8**30)
    # Noise 3 * 0.5 * sqrt(16) = 6 long; six patients of 0.5 in one direction are 3 long.
    assert found.noise_to_signal_site == pytest.approx(2.0)
    assert found.noise_to_signal_sum == pytest.approx(2.0 / 3)
    assert found.noise_to_signal_study == pytest.approx(2.0 / 3 / math.sqrt(40))
    assert found.exposed_patients == pytest.approx(0.03)


def test_a_share_is_the_sums_noise_over_the_root_of_the_shares():
    assert design(SHARED).noise_to_signal_site == pytest.approx(1.0)
    assert design(SHARED, sites=4).noise_to_signal_sum == pytest.approx(0.5)


def test_the_ratio_is_that_of_noise_and_signal_really_summed():
    random, found = np.random.default_rng(7), design(sites=4, parameters=400)
    direction = np.full(400, 1 / 20)
    ratios = []
    for _ in range(200):
        noise = random.normal(size=(4, 400)) * LOCAL.noise_std
        signal = 4 * found.expected_batch * LOCAL.clip_norm_l2 * direction
        ratios.append(np.linalg.norm(noise.sum(axis=0)) / np.linalg.norm(signal))
    assert np.mean(ratios) == pytest.approx(found.noise_to_signal_sum, rel=0.01)


def test_epsilon_by_rounds():
    found = design()
    assert found.milestones() == (1, 5, 10, 15, 20)
    assert found.epsilon_after(5) == accountant.epsilon([DpEvent(mechanism=LOCAL).with_steps(10)], delta=1e-3)
    assert design(PoissonSampledGaussian(noise_multiplier=3, sampling_rate=1, steps=1, clip_norm_l2=1),
                  local_steps=1).milestones() == (1,)  # fmt: skip
    assert design(PoissonSampledGaussian(noise_multiplier=3, sampling_rate=1, steps=1, clip_norm_l2=1),
                  local_steps=1).chance_of_empty_batch == 0  # fmt: skip


def test_odds():
    assert odds(0) == 0.5
    assert odds(1) == pytest.approx(0.7310586)
    assert odds(1e3) == 1.0


@pytest.mark.parametrize("name", ["local_steps", "patients", "sites", "parameters"])
def test_counts_of_nothing_are_refused(name):
    with pytest.raises(LocalProtocolError, match=name):
        design(**{name: 0})
