"""D-02: one update tells a cohort of 96 patients from one of 97, because a loader's length decided something.

Opacus takes the number of steps, the sampling rate and the divisor from the data loader; all three change with one
patient. Here they are constants of the study, and with the same randomness an update differs by what one clipped
patient can move and by nothing else.
Tried: rows d02 of `mutations.py`.
"""

import numpy as np
import pytest

from site_agent.cohort import Records
from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import vector_of
from tests.fakes.training import INPUTS, entropy_of, patients, spec

TRAINING = spec(local_steps=2, declared_patients=100, learning_rate=1.0)


def _without_last(records):
    keep = records.patients != records.patients.max()
    return Records(
        features=records.features[keep],
        labels=records.labels[keep],
        patients=records.patients[keep],
        patient_count=records.patient_count - 1,
    )


def _silent(records):
    """The same number of patients, none of whom moves anything (their records are broken)."""
    return Records(
        features=np.full_like(records.features, np.nan),
        labels=records.labels,
        patients=records.patients,
        patient_count=records.patient_count,
    )


def _round(records, label="same"):
    return DpTrainer(TRAINING, records, entropy=entropy_of(label)).train_round(vector_of(build_from(TRAINING.network)))


def test_events_are_the_same_for_96_and_97_patients():
    more = patients(97)
    assert _round(more).events == _round(_without_last(more)).events == (TRAINING.privacy.round_event(),)


@pytest.mark.parametrize("count", [0, 1, 29, 96, 97, 1000])
def test_steps_and_divisor_do_not_depend_on_the_cohort(count):
    # Pure noise has the same size whoever is there: the divisor is q times the declared size.
    spread = [np.std([_round(_silent(patients(count)), f"{count}/{n}").update for n in range(60)])]
    expected = 1.0 * 2.0 * 1.0 / (0.2 * 100) * np.sqrt(2)
    assert spread[0] == pytest.approx(expected, rel=0.2)
    assert _round(_silent(patients(count))).events == (TRAINING.privacy.round_event(),)


def test_one_patient_moves_an_update_by_at_most_a_clip_norm_a_step():
    # Everyone is sampled and the noise is the same, so what differs is the patient.
    everyone = spec(sampling_rate=1.0, local_steps=1, declared_patients=100, learning_rate=1.0)
    model = vector_of(build_from(everyone.network))
    more = patients(97)
    loud = Records(
        features=np.vstack([more.features[:-1], np.full((1, INPUTS), 1e6, dtype=np.float32)]),
        labels=more.labels,
        patients=more.patients,
        patient_count=97,
    )

    def update(records):
        # One word of the stream per patient's coin: spend the missing patient's word too.
        one = DpTrainer(everyone, records, entropy=entropy_of("neighbours"))
        one._generator.words(97 - records.patient_count)
        return one.train_round(model).update.astype(np.float64)

    moved = np.linalg.norm(update(loud) - update(_without_last(loud)))
    assert 0.5 / 100 < moved <= 1.0 / 100 * (1 + 1e-5)
