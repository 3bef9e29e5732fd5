"""The end of a step with shared noise: on the lane's grid, in its box, counted."""

import numpy as np
from opacus.accountants import RDPAccountant

from consortium.contract.layout import round_layout, update_lanes
from consortium.contract.plan import RoundKind
from privacy.dp.randomness import CryptographicGenerator
from site_agent.cohort import Records
from site_agent.gradients.engine import PatientSum
from site_agent.networks import build_from
from site_agent.shared_step import SharedStep
from site_agent.trainer import DpTrainer
from site_agent.training_spec import spec_of
from site_agent.update import vector_of
from tests.fakes.site_world import small_study
from tests.fakes.training import entropy_of

STUDY = small_study(
    training={"rounds": 5, "optimizer": {"name": "adam", "learning_rate": 0.05}},
    privacy={"mechanism": "distributed-dp-sgd"},
    aggregation={"update_clip": 64.0},
)
SPEC = spec_of(STUDY, declared_patients=7)


def records(patients: int, value: float = 1.0) -> Records:
    features = np.full((patients, *SPEC.network.input_shape), value, dtype=np.float32)
    labels = np.ones(patients, dtype=np.float32)
    return Records(features=features, labels=labels, patients=np.arange(patients), patient_count=patients)


def test_a_sum_beyond_the_box_is_moved_into_it_and_the_step_is_counted():
    mechanism, bound, counts = SPEC.privacy.mechanism, SPEC.privacy.sum_bound, RDPAccountant()
    step = SharedStep(mechanism, bound, CryptographicGenerator(entropy_of("box")), counts)
    (lane,) = update_lanes(round_layout(STUDY, parameters=STUDY.parameters, kind=RoundKind.TRAIN, measured=False))
    huge = np.array([1e9, -1e9, 0.0, 1.0])
    values = step.noisy_sum(PatientSum(total=huge, patients=1, clipped=0, broken=0))
    assert (values * lane.scale == np.rint(values * lane.scale)).all()
    assert np.abs(values).max() <= lane.clip
    assert np.abs(values - np.clip(huge, -bound, bound)).max() <= mechanism.share_tail
    assert counts.history == [(mechanism.noise_multiplier, mechanism.sampling_rate, 1)]


def test_a_round_is_one_step_that_leaves_the_weights_alone_and_is_charged_as_the_sum():
    trainer = DpTrainer(SPEC, records(40))
    module = build_from(SPEC.network)
    model = vector_of(module)
    rounds = [trainer.train_round(model) for _ in range(2)]
    for trained in rounds:
        assert trained.update.dtype == np.float64
        assert trained.events == (SPEC.privacy.round_event(),)
        assert len(trained.local.sampled_patients) == 1
    assert (rounds[0].update != rounds[1].update).all()
    assert SPEC.privacy.study_event().mechanism.shares == 3
    check = trainer.cross_check()
    assert check.pld_epsilon < min(check.renyi_epsilon, check.opacus_epsilon)


def test_the_number_of_patients_changes_nothing_but_the_sum():
    """97 or 96 patients, or none: q, divisor, noise and steps are the study's."""
    for patients in (97, 96, 1):
        trained = DpTrainer(SPEC, records(patients)).train_round(np.zeros(4, dtype=np.float32))
        assert trained.events == (SPEC.privacy.round_event(),)
    assert SPEC.privacy.denominator == STUDY.training.sampling_rate * STUDY.data.minimum_patients
    assert spec_of(STUDY, declared_patients=100_000) == SPEC


def test_a_record_that_is_not_a_number_is_a_zero_in_the_sum():
    trainer = DpTrainer(SPEC, records(40, value=np.nan))
    trained = trainer.train_round(np.zeros(4, dtype=np.float32))
    assert np.isfinite(trained.update).all()
    assert trained.local.broken_patients == sum(trained.local.sampled_patients)
