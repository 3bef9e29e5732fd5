"""D-03: a record with NaN or infinity shows as a global model of NaN: a membership signal and a denial of service.

Tried: rows d03 of `mutations.py`.
"""

import numpy as np
import pytest

from site_agent.cohort import Records
from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import vector_of
from tests.fakes.training import entropy_of, patients, spec

MLP = {"network": "mlp", "args": {"hidden": (6,), "activation": "relu"}}


def _with_broken(records, value, *, row=3):
    features = records.features.copy()
    features[row, 1] = value
    return Records(
        features=features, labels=records.labels, patients=records.patients, patient_count=records.patient_count
    )


def _round(training, records):
    one = DpTrainer(training, records, entropy=entropy_of("broken"))
    return one.train_round(vector_of(build_from(training.network)))


@pytest.mark.parametrize("network", [{}, MLP], ids=["logistic", "mlp"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_broken_record_leaves_the_update_finite_and_costs_the_same(network, value):
    training = spec(sampling_rate=1.0, **network)
    found = _round(training, _with_broken(patients(30), value))
    assert np.isfinite(found.update).all()
    assert found.events == (training.privacy.round_event(),)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_its_patient_is_a_zero_and_everybody_else_counts_as_before(value):
    training = spec(sampling_rate=1.0, local_steps=1, clip_norm_l2=0.5)
    train = patients(30)
    broken = _round(training, _with_broken(train, value))
    # The same patient with a gradient of exactly zero: a record the model is already certain about cannot be made,
    # so take the patient's clipped gradient out by hand.
    whole = _round(training, train)
    gradient = (0.5 - train.labels[3]) * np.concatenate([[1.0], train.features[3]])
    gradient *= min(1.0, 0.5 / np.linalg.norm(gradient))
    expected = whole.update + 0.5 * gradient / training.privacy.denominator
    assert broken.update == pytest.approx(expected, abs=1e-6)
    assert broken.local.broken_patients == 1


def test_one_broken_record_of_several_silences_its_patient_only():
    training = spec(sampling_rate=1.0, local_steps=1, max_records_per_patient=3)
    found = _round(training, _with_broken(patients(10, records_each=3), np.nan))
    assert found.local.broken_patients == 1
    assert found.local.sampled_patients == (10,)
