"""Test figures beside their study's training: which line of the ledger, and whether both fit together."""

import pytest

from consortium.contract.figures_budget import measured_rounds
from privacy.dp import accountant
from privacy.errors import BudgetExceeded
from site_agent.errors import StepsExceeded
from site_agent.figures_account import admit_figures, budget_digest, figures_event, figures_limits, ledger_name
from site_agent.ledger_caps import Limits
from site_agent.policy import facts_of
from site_agent.training_spec import spec_of
from tests.fakes.site_world import make_world, small_study

STUDY = small_study(evaluation={"privacy": {"epsilon": 0.5, "delta": 1e-3}, "score_bins": 20, "subgroup_bins": 10})
DIGEST = STUDY.digest()
TRAINING = spec_of(STUDY, declared_patients=100).privacy.study_event()
FIGURES = figures_event(STUDY)
AMPLE = Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3)


def grouped(study):
    """The same study with hospitals in groups, which sum no test figures."""
    return study.model_copy(update={"aggregation": study.aggregation.model_copy(update={"group_size": 64})})


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path, STUDY, max_epsilon_per_study=1.5)


def admit(world, *, total):
    policy = world.home.config.policy.model_copy(update={"max_epsilon_total": total, "max_epsilon_per_study": total})
    admit_figures(world.ledger, study=STUDY, digest=DIGEST, dataset="ward", policy=policy, training=TRAINING)


def reserve(world, *, digest, event, number=1, limits=AMPLE):
    return world.ledger.reserve(
        dataset="ward",
        study=STUDY.study_id,
        study_digest=digest,
        round_number=number,
        attempt=1,
        event=event,
        limits=limits,
    )


def held(*events, cap):
    return accountant.filter_epsilon(events, delta=1e-3, cap=cap)


def test_they_must_fit_beside_all_of_the_training_and_all_other_studies(world):
    """Beside either alone they would."""
    other = TRAINING.with_steps(1)
    reserve(world, digest="e" * 64, event=other)
    cap = 1.8
    assert held(FIGURES, TRAINING, cap=cap) < cap
    assert held(FIGURES, other, cap=cap) < cap
    assert held(FIGURES, TRAINING, other, cap=cap) > cap
    with pytest.raises(BudgetExceeded):
        admit(world, total=cap)
    admit(world, total=2.5)


def test_what_is_spent_of_a_study_is_not_asked_for_a_second_time(world):
    cap = 1.8
    admit(world, total=cap)
    reserve(world, digest=DIGEST, event=TRAINING)
    reserve(world, digest=budget_digest(DIGEST), event=FIGURES)
    admit(world, total=cap)


def test_not_a_draw_more_than_the_noise_was_calibrated_for(world):
    policy = world.home.config.policy.model_copy(update={"max_epsilon_per_study": 5.0})
    generous = STUDY.model_copy(
        update={
            "evaluation": STUDY.evaluation.model_copy(
                update={"privacy": STUDY.evaluation.privacy.model_copy(update={"epsilon": 5.0})}
            )
        }
    )
    limits = figures_limits(policy, generous)
    draw, planned = FIGURES.with_steps(1), measured_rounds(STUDY)
    for number in range(1, planned + 1):
        reserve(world, digest=budget_digest(DIGEST), event=draw, number=number, limits=limits)
    with pytest.raises(StepsExceeded):
        reserve(world, digest=budget_digest(DIGEST), event=draw, number=planned + 1, limits=limits)


def test_groups_of_hospitals_draw_none():
    assert figures_event(grouped(STUDY)) is None
    assert facts_of(STUDY, upload_bytes=1).figures_epsilon == 0.5
    assert facts_of(grouped(STUDY), upload_bytes=1).figures_epsilon == 0.0


def test_the_line_is_the_studys_and_no_other_studys():
    assert budget_digest(DIGEST) != DIGEST
    assert budget_digest(DIGEST) != budget_digest(small_study().digest())
    assert ledger_name(STUDY.study_id) == "small-study-test-figures"
