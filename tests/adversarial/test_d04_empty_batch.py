"""D-04: a step without patients is skipped, filled with a stand-in, or left without noise: an update of zeros says
that nobody was sampled, and the accountant counts a step that did not happen.

Tried: rows d04 of `mutations.py`.
"""

import numpy as np

from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import vector_of
from tests.fakes.training import entropy_of, patients, spec

# One patient in a thousand: nearly every step is empty.
TRAINING = spec(sampling_rate=1e-3, local_steps=50, rounds=1, learning_rate=1.0, declared_patients=1000)


def test_empty_steps_are_steps():
    one = DpTrainer(TRAINING, patients(10), entropy=entropy_of("empty"))
    found = one.train_round(vector_of(build_from(TRAINING.network)))
    assert found.local.sampled_patients.count(0) >= 40
    assert found.events == (TRAINING.privacy.round_event(),)
    assert sum(steps for _, _, steps in one._accountant.history) == 50


def test_empty_steps_are_as_noisy_as_others():
    model = vector_of(build_from(TRAINING.network))
    updates = [
        DpTrainer(TRAINING, patients(10), entropy=entropy_of(f"empty {n}")).train_round(model).update for n in range(40)
    ]
    expected = 2.0 / (1e-3 * 1000) * np.sqrt(50)
    assert 0.85 * expected < np.std(updates) < 1.15 * expected


def test_nothing_of_a_patient_is_in_an_empty_step():
    # With the same stream, whoever the ten patients are, an unsampled round gives the same update to the last bit.
    quiet = spec(sampling_rate=1e-9, local_steps=2, declared_patients=1000)
    model = vector_of(build_from(quiet.network))
    first, second = (
        DpTrainer(quiet, patients(10, seed=seed), entropy=entropy_of("same")).train_round(model) for seed in (1, 2)
    )
    assert first.local.sampled_patients == (0, 0)
    assert (first.update == second.update).all()
