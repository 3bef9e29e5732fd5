"""D-08: records are sampled and clipped instead of patients, so that a patient with many records is hardly protected.

A patient with 8 records at a record epsilon of 2.77 really has 33.5. Here a patient is one coin and one clipped vector.
Tried: rows d08 of `mutations.py`.
"""

import numpy as np
from scipy import stats

from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import vector_of
from tests.fakes.training import entropy_of, patients, spec


def _model(training):
    return vector_of(build_from(training.network))


def test_the_number_of_sampled_patients_is_binomial():
    training = spec(local_steps=400, sampling_rate=0.2)
    one = DpTrainer(training, patients(50, records_each=4), entropy=entropy_of("binomial"))
    sampled = one.train_round(_model(training)).local.sampled_patients
    # Shuffled batches would have no variance at all, sampling records four times as much and counts up to 200.
    assert max(sampled) <= 50
    assert 0.8 < np.var(sampled) / (50 * 0.2 * 0.8) < 1.25
    assert abs(np.mean(sampled) - 10) < 5 * np.sqrt(8 / 400)


def test_every_patient_is_drawn_as_often_and_independently():
    training = spec(local_steps=1, sampling_rate=0.3)
    one = DpTrainer(training, patients(10), entropy=entropy_of("coins"))
    coins = np.stack([one._generator.bernoulli(10, 0.3) for _ in range(4000)])
    assert stats.chisquare(coins.sum(axis=0)).pvalue > 1e-4
    assert np.abs(np.corrcoef(coins.T) - np.eye(10)).max() < 0.08


def test_a_patient_with_eight_loud_records_moves_the_sum_by_one_clip_norm():
    training = spec(sampling_rate=1.0, local_steps=1, learning_rate=1.0, declared_patients=1, max_records_per_patient=8,
                    noise_multiplier=0.1)  # fmt: skip
    loud = patients(1, records_each=8)
    features = np.full_like(loud.features, 1e4)
    loud = type(loud)(features=features, labels=np.ones(8, dtype=np.float32), patients=loud.patients, patient_count=1)
    update = DpTrainer(training, loud, entropy=entropy_of("loud")).train_round(_model(training)).update
    assert np.linalg.norm(update) < 1.0 + 0.1 * 6 * np.sqrt(len(update)) / 2
    assert np.linalg.norm(update) > 0.5


def test_crops_of_one_patient_count_as_that_patient():
    # The same eight loud records, as crops of one patient and as if they were eight: Gaussian noise is far below both.
    training = spec(sampling_rate=1.0, local_steps=1, learning_rate=1.0, declared_patients=1, max_records_per_patient=8,
                    noise_multiplier=0.1)  # fmt: skip
    moved = []
    for numbers in (np.zeros(8, dtype=np.int64), np.arange(8)):
        records = patients(8)
        loud = type(records)(features=np.full_like(records.features, 1e4), labels=np.ones(8, dtype=np.float32),
                             patients=numbers, patient_count=len(set(numbers.tolist())))  # fmt: skip
        one = DpTrainer(training, loud, entropy=entropy_of("crops"))
        trained = one.train_round(_model(training))
        moved.append(np.linalg.norm(trained.update))
        assert trained.local.sampled_patients == (len(set(numbers.tolist())),)
    assert moved[0] < 1.5
    assert moved[1] > 7
