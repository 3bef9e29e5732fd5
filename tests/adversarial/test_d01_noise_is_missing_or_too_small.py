"""D-01: a build whose noise is off, too small or added to some steps only, while the accountant reports as usual.

The mechanism is measured from outside: a cohort of nobody makes every update pure noise, so its standard deviation
must be learning rate * sigma * C / (q * declared patients), times the root of the steps. The generator's entropy is
fixed, so the test gives one answer; the bound is one that honest noise misses once in a million keys.
Tried: rows d01 of `mutations.py`.
"""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from site_agent import trainer as trainer_module
from site_agent.cohort import Records
from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import vector_of
from tests.fakes.training import entropy_of, spec

INPUTS, ROUNDS = 400, 20
TRAINING = spec(inputs=INPUTS, noise_multiplier=3.0, clip_norm_l2=0.7, learning_rate=0.5, declared_patients=50)
NOBODY = Records(
    features=np.zeros((0, INPUTS), dtype=np.float32),
    labels=np.zeros(0, dtype=np.float32),
    patients=np.zeros(0, dtype=np.int64),
    patient_count=0,
)
EXPECTED = 0.5 * 3.0 * 0.7 / (0.2 * 50) * math.sqrt(2)


def _updates(label="noise"):
    one = DpTrainer(TRAINING, NOBODY, entropy=entropy_of(label))
    model = vector_of(build_from(TRAINING.network))
    return np.concatenate([one.train_round(model).update for _ in range(ROUNDS)]).astype(np.float64)


def _is_as_promised(values):
    """Two-sided chi-square test of the standard deviation, false alarm 1e-6, and of the shape."""
    count = len(values)
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], count)
    variance_holds = low <= (values**2).sum() / EXPECTED**2 <= high
    return bool(variance_holds) and stats.kstest(values / EXPECTED, "norm").pvalue > 1e-6


def test_the_noise_is_as_promised():
    assert _is_as_promised(_updates())


def test_it_is_as_promised_under_the_systems_own_entropy():
    one = DpTrainer(TRAINING, NOBODY)
    model = vector_of(build_from(TRAINING.network))
    values = np.concatenate([one.train_round(model).update for _ in range(ROUNDS)]).astype(np.float64)
    assert _is_as_promised(values)  # a false alarm once in 500,000 runs


@pytest.mark.parametrize(
    "broken",
    [
        lambda total, std, grid, generator: total * grid.spacing,
        lambda total, std, grid, generator: _honest(total, std * 0.95, grid, generator),
        lambda total, std, grid, generator: _honest(total, std / 0.7, grid, generator),
        lambda total, std, grid, generator: _honest(total, std * (generator.uniform(1)[0] < 0.5), grid, generator),
    ],
    ids=["off", "five percent short", "clip norm forgotten", "every other step"],
)
def test_the_measurement_finds_broken_noise(broken, monkeypatch):
    monkeypatch.setattr(trainer_module, "noisy", broken)
    assert not _is_as_promised(_updates())


_honest = trainer_module.noisy


def test_no_coordinate_is_left_without_noise():
    assert (_updates() != 0).all()


def test_coordinates_and_rounds_are_independent():
    values = _updates().reshape(ROUNDS, INPUTS + 1)
    for first, second in itertools.pairwise(values):
        assert abs(np.corrcoef(first, second)[0, 1]) < 6 / math.sqrt(INPUTS)
