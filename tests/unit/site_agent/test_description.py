"""What a steward reads before deciding."""

from pathlib import Path

import pytest

from consortium.contract.layout import largest_layout
from consortium.contract.study import StudyFile, load_study
from consortium.study_plan import plan
from privacy.dp import accountant, distributed
from site_agent.description import cost_of, describe, objection
from site_agent.figures_account import budget_digest, figures_event
from site_agent.ledger import Limits
from site_agent.training_spec import spec_of
from tests.fakes.site_world import make_world, small_study, write_site_file

STUDY = small_study()
DISTRIBUTED = Path(__file__).resolve().parents[3] / "configs/studies/heart-disease-distributed.yaml"


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path, STUDY, approved=False)


def told(world, study=STUDY):
    text = describe(study, study.digest(), world.home.config, world.ledger)
    assert all(len(line) <= 80 for line in text.splitlines() if not line.startswith("Study"))
    return " ".join(text.split())


def test_everything_a_steward_asks(world):
    text = told(world)
    for part in (
        STUDY.digest(),
        STUDY.governance.contact,
        "alder, birch, cedar, dogwood",
        "At least 3 take part",
        "2 rounds of 1 training steps of a logistic network on the columns age, kind and outcome",
        "read from the dataset ward",
        "looks like random numbers to everybody",
        "epsilon 1 at delta 0.001",
        "be right at most 73.2% of the time",
        "exact sums over hospitals",
        "epsilon 1.000 of dataset ward, which has spent 0.000 of 7.631 and will have spent 1.000 (13% of the cap)",
        "needs nobody else to keep to the rules",
        "own limits allow it",
    ):
        assert part in text, part


def test_a_steward_reads_in_which_rounds_this_hospital_is(world):
    study = small_study(training={"rounds": 20, "participants_per_round": 3}, evaluation={"every_rounds": 20})
    own = study.turns_of("birch")
    text = told(world, study)
    named = ", ".join(map(str, own[:12]))
    assert len(own) == 15
    assert f"This hospital is in 15 of the 20 rounds ({named} and so on), and noise is for 15" in text
    assert "no patient more private" in text


def test_a_steward_reads_by_what_the_model_is_chosen_and_what_stays_here(world):
    keeps = small_study(
        training={
            "optimizer": {"name": "adam", "learning_rate": 0.1},
            "optimizer_state": "carried",
            "schedule": {"name": "cosine", "final": 0.1},
        },
        evaluation={"keep_best": "auc", "stop_early": {"patience": 3}},
    )
    text = told(world, keeps)
    assert "The learning rate follows a schedule (cosine), which looks at no patient" in text
    assert "never leaves; it is made of noisy gradients, so it costs no privacy" in text
    assert "the best of those measured, by auc of the patients set aside. Training stops after 3 measured" in text
    assert "what the choice gives away about the patients set aside is in no epsilon" in text
    (warning,) = [line for line in plan(keeps).warnings if "chosen by auc" in line]
    assert "in no epsilon" in warning
    assert "Steps:" not in told(world)
    assert "Model:" not in told(world)


def test_a_steward_reads_that_the_sums_of_groups_are_seen(world):
    sites = tuple(sorted((*(f"site-{number:02}" for number in range(96)), "alder", "birch", "cedar", "dogwood")))
    study = small_study(sites={"required": sites, "minimum": 80}, aggregation={"threshold": 67, "group_size": 64})
    text = told(world, study)
    assert "divided at random, anew in every attempt, into groups of at least 64" in text
    assert "the coordinator sees the sum of each group: of at least 52 hospitals, which any 43 of the group" in text
    assert "no test figures are summed when hospitals are divided into groups" in text
    assert "sum of each group" not in told(world)


def test_odds_are_never_said_to_be_better_than_they_are(world):
    for epsilon, percent in ((0.1, 52.5), (1.0, 73.2), (2.0, 88.1), (8.0, 100)):
        assert f"at most {percent}% of the time" in told(world, small_study(privacy={"epsilon": epsilon}))


def test_the_vector_that_leaves_has_the_size_of_the_network(world):
    mlp = small_study(model={"network": "mlp", "args": {"hidden": (7, 5), "activation": "relu"}})
    # 3 inputs: 4 parameters, or 3*7+7 + 7*5+5 + 5+1 = 74, of 4 bytes each; the test figures are the same.
    rest = sum(lane.length for lane in largest_layout(STUDY, parameters=STUDY.parameters).lanes[1:])
    assert f"of {4 * (4 + rest):,} bytes" in told(world)
    assert f"of {4 * (74 + rest):,} bytes" in told(world, mlp)


def test_no_dataset_named_yet(world, tmp_path):
    write_site_file(tmp_path, STUDY, dataset=None)
    text = told(world)
    assert "none named in site.yaml yet" in text
    assert "unknown until `studies` in site.yaml names a dataset" in text


def test_a_hospital_that_shares_no_figures(world, tmp_path):
    write_site_file(tmp_path, STUDY, share_exact_metrics=False)
    assert "shares no test figures" in told(world)


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ({"max_epsilon_per_study": 0.5}, "max_epsilon"),
        ({"max_epsilon_total": 0.5, "max_epsilon_per_study": 0.5}, "max_epsilon"),
        ({"max_delta": 1e-6}, "max_delta"),
        ({"minimum_sites": 4}, "minimum_sites"),
        ({"minimum_threshold": 4}, "minimum_threshold"),
        ({"allowed_networks": ["mlp"]}, "allowed_networks"),
        ({"max_egress_bytes_per_round": 10}, "max_egress_bytes_per_round"),
    ],
)
def test_the_hospitals_limits_do_not_allow_it(world, tmp_path, policy, why):
    write_site_file(tmp_path, STUDY, **policy)
    text = told(world)
    assert "do NOT allow" in text
    assert why in text.rpartition("NOT allow")[2]


def test_what_other_studies_spent_counts(world, tmp_path):
    event = spec_of(STUDY, declared_patients=100).privacy.study_event()
    world.ledger.reserve(
        dataset="ward",
        study=STUDY.study_id,
        study_digest="e" * 64,
        round_number=1,
        attempt=1,
        event=event,
        limits=Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3),
    )
    assert "allow it." in told(world)
    write_site_file(tmp_path, STUDY, max_epsilon_total=1.2)
    assert "do NOT allow it (max_epsilon_total" in told(world)


MEASURED = small_study(evaluation={"privacy": {"epsilon": 0.5, "delta": 1e-4}, "score_bins": 20, "subgroup_bins": 10})


def test_test_figures_with_a_budget_are_in_the_risk_and_in_the_cost(world, tmp_path):
    write_site_file(tmp_path, MEASURED, max_epsilon_per_study=1.5)
    text = told(world, MEASURED)
    training, figures = spec_of(MEASURED, declared_patients=100).privacy.study_event(), figures_event(MEASURED)
    cap = world.home.config.policy.max_epsilon_total
    held = accountant.filter_epsilon([training, figures], delta=1e-3, cap=cap)
    after = accountant.epsilon([training, figures], delta=1e-3)
    for part in (
        "epsilon 1 at delta 0.001 for the training and epsilon 0.5 at delta 0.0001 for the test figures",
        "together 1.5 at 0.0011 over the whole study",
        "be right at most 81.8% of the time (but for a chance of 0.0011)",
        "epsilon 1.000 for training and 0.500 for test figures, of dataset ward",
        f"will have spent {after:.3f} (held against the cap as {held:.3f}, {held / cap:.0%} of the cap)",
        "own limits allow it",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (
            {"max_epsilon_per_study": 1.4},
            "epsilon 1 and 0.5 for test figures is more than this hospital gives one study",
        ),
        ({"max_epsilon_per_study": 1.2, "max_epsilon_total": 1.2}, "max_epsilon_total"),
    ],
)
def test_the_hospitals_limits_are_for_training_and_test_figures_together(world, tmp_path, policy, why):
    """The training alone would be allowed; so says the warning of `studies approve`, too."""
    write_site_file(tmp_path, MEASURED, **policy)
    assert why in told(world, MEASURED).rpartition("NOT allow")[2]
    assert why in objection(MEASURED, MEASURED.digest(), world.home.config, world.ledger)
    plain = small_study()
    write_site_file(tmp_path, plain, **policy)
    assert objection(plain, plain.digest(), world.home.config, world.ledger) is None


def test_figures_that_were_drawn_are_not_counted_twice(world, tmp_path):
    write_site_file(tmp_path, MEASURED, max_epsilon_per_study=1.5)
    digest, figures = MEASURED.digest(), figures_event(MEASURED)
    before = cost_of(MEASURED, digest, world.home.config, world.ledger, "ward")
    world.ledger.reserve(
        dataset="ward",
        study=MEASURED.study_id,
        study_digest=budget_digest(digest),
        round_number=1,
        attempt=1,
        event=figures.with_steps(1),
        limits=Limits(study_epsilon=9, study_delta=1e-4, total_epsilon=9, total_delta=1e-3),
    )
    later = cost_of(MEASURED, digest, world.home.config, world.ledger, "ward")
    assert later.before > before.before == 0
    assert (later.after, later.held) == (before.after, before.held)


def test_shared_noise_says_who_must_be_trusted_and_what_is_left(world):
    record = load_study(DISTRIBUTED).model_dump(mode="python", by_alias=True, exclude_none=True)
    for name in ("id", "sites", "data"):
        record[name] = STUDY.model_dump(mode="python", by_alias=True, exclude_none=True)[name]
    study = StudyFile.model_validate(record)
    text = told(world, study)
    assert "At least t = 3 are in every sum, up to c = 0 of them" in text
    assert "the shares of the other h = 3 give the epsilon above" in text
    event = spec_of(study, declared_patients=100).privacy.study_event()
    alone = accountant.epsilon([distributed.site_alone(event)], delta=study.privacy.delta)
    assert f"epsilon {alone:.3f} is left" in text
    assert alone > 1.5
