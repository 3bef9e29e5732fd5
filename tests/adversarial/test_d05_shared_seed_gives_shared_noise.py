"""D-05: two hospitals run one study with one seed, and their noise is the same, so that a difference cancels it.

MONAI's set_determinism and torch.manual_seed do exactly that. A study's seed decides the first weights here and
nothing else.
Tried: rows d05 of `mutations.py`.
"""

import random

import numpy as np
import torch

from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import vector_of
from tests.fakes.training import patients, spec

INPUTS = 300
TRAINING = spec(inputs=INPUTS, seed=42, learning_rate=1.0, sampling_rate=1e-9)


def _noise():
    """One site's first round, with every global generator seeded by the study."""
    torch.manual_seed(42)
    np.random.seed(42)  # noqa: NPY002 - what other software does
    random.seed(42)
    one = DpTrainer(TRAINING, patients(5, inputs=INPUTS))
    return one.train_round(vector_of(build_from(TRAINING.network))).update.astype(np.float64)


def test_two_sites_with_one_seed_have_the_same_model_and_unrelated_noise():
    first, second = vector_of(build_from(TRAINING.network)), vector_of(build_from(TRAINING.network))
    assert (first == second).all()
    one, other = _noise(), _noise()
    assert not (one == other).any()
    # 6 standard deviations: a false alarm once in 10^9 runs.
    assert abs(np.corrcoef(one, other)[0, 1]) < 6 / np.sqrt(INPUTS)
    assert 1.2 < np.std(one - other) / np.std(one) < 1.65


def test_the_global_generators_are_not_even_read():
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 - what other software does
    expected = torch.rand(1), np.random.random()  # noqa: NPY002
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    one = DpTrainer(spec(), patients(50))
    one.train_round(vector_of(build_from(spec().network)))
    assert (torch.rand(1), np.random.random()) == expected  # noqa: NPY002


def test_two_rounds_of_one_site_have_unrelated_noise():
    one = DpTrainer(TRAINING, patients(5, inputs=INPUTS))
    model = vector_of(build_from(TRAINING.network))
    first, second = (one.train_round(model).update.astype(np.float64) for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 6 / np.sqrt(INPUTS)
