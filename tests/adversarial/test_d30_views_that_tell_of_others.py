"""D-30: one patient more, and everybody else is augmented otherwise: clipping one of them then bounds nothing.

Tried with the record's row in the key of its generator instead of its content, and with one generator for all records
of a step (`views.py`): both tests fail with either; row d30 of `mutations.py`.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from privacy.dp.mechanism import Grid
from site_agent.cohort import Records
from site_agent.gradients.engine import FLOAT_MARGIN
from site_agent.local_steps import FRESH
from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import load_vector, parameter_count, vector_of
from site_agent.views import RecordViews
from tests.fakes.training import entropy_of
from tests.fakes.training import spec as training_of
from tests.fakes.viewed_study import MOVED, PATCH, SHIFTED, masked, network, views

PATIENTS = 12
VICTIM = 3
CLIP = 0.01  # far below any gradient, so that everybody counts with exactly this length


def without(records, patient):
    left = records.patients != patient
    _, numbers = np.unique(records.patients[left], return_inverse=True)
    return Records(
        features=records.features[left], labels=records.labels[left], patients=numbers, patient_count=PATIENTS - 1
    )


def with_another(records, patient):
    features = records.features.copy()
    features[records.patients == patient] *= -3.0
    return replace(records, features=features)


def batch_of(records, spec):
    made = RecordViews(network(PATCH), spec, records)
    made.begin(1)
    return made.next_step([np.flatnonzero(records.patients == one) for one in np.unique(records.patients)])


@pytest.mark.parametrize("neighbour", [without, with_another])
def test_everybody_else_is_seen_as_before(neighbour):
    spec, everybody = views(MOVED + SHIFTED, PATCH), masked(PATIENTS, records_each=2)
    whole, other = batch_of(everybody, spec), batch_of(neighbour(everybody, VICTIM), spec)
    each = 2 * PATCH.per_record
    rest = torch.arange(len(whole.features)) // each != VICTIM
    seen = other.features if neighbour is without else other.features[rest]
    assert torch.equal(whole.features[rest], seen)
    assert torch.equal(whole.labels[rest], other.labels if neighbour is without else other.labels[rest])


@pytest.mark.parametrize(("neighbour", "norms"), [(without, 1), (with_another, 2)])
def test_one_patient_moves_a_sum_by_at_most_the_clip_norm(neighbour, norms):
    spec = training_of(sampling_rate=1.0, clip_norm_l2=CLIP, max_records_per_patient=2)
    spec = replace(spec, network=network(PATCH), views=views(MOVED + SHIFTED, PATCH))
    everybody = masked(PATIENTS, records_each=2)
    module = build_from(spec.network)
    grid = Grid.of(spec.privacy.mechanism, parameter_count(module), margin=FLOAT_MARGIN)

    def sum_of(records):
        one = DpTrainer(spec, records, entropy=entropy_of("neighbours"))
        load_vector(one._module, vector_of(module))
        one._views.begin(FRESH.round)
        return one.clean_sum(grid)

    whole, other = sum_of(everybody), sum_of(neighbour(everybody, VICTIM))
    assert whole.clipped == PATIENTS
    assert 0 < np.linalg.norm(whole.total - other.total) <= norms * CLIP
