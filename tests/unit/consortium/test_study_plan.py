"""`consortium study plan`: the plan that hospitals will compute, in figures and in words."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consortium.cli import app, report_error
from consortium.contract.figures_budget import mechanism_of
from consortium.contract.study import load_study
from consortium.study_plan import FiguresPlan, NoPlan, describe_plan, plan
from privacy.dp import accountant
from privacy.dp.events import DpEvent
from site_agent.training_spec import spec_of
from tests.fakes.site_world import small_study

ROOT = Path(__file__).resolve().parents[3]
HEART = ROOT / "configs/heart-disease/study.yaml"
SHARED = ROOT / "configs/studies/heart-disease-distributed.yaml"


@pytest.mark.parametrize("file", [HEART, SHARED], ids=["local", "distributed"])
def test_the_noise_is_the_one_every_hospital_will_add(file):
    study = load_study(file)
    found = plan(study)
    assert found.design.mechanism == spec_of(study, declared_patients=100).privacy.mechanism
    assert found.cumulative[-1][1] <= study.privacy.epsilon
    assert found.cumulative[-1][0] == study.training.rounds + study.training.spare_rounds
    assert [epsilon for _, epsilon in found.cumulative] == sorted(epsilon for _, epsilon in found.cumulative)
    assert bool(found.cases) == study.is_distributed


def test_another_target_gets_another_noise():
    study = small_study()
    loose, tight = plan(study, epsilon=2.0), plan(study, epsilon=0.5)
    assert tight.design.mechanism.noise_multiplier > 2 * loose.design.mechanism.noise_multiplier
    assert tight.epsilon == 0.5 >= tight.cumulative[-1][1] > 0.49
    assert study.privacy.epsilon == 1.0


def test_what_is_left_when_hospitals_fail():
    found = plan(load_study(SHARED))
    by_shares = {case.shares: case.epsilon for case in found.cases}
    assert sorted(by_shares) == [1, 2, 3, 4]
    assert by_shares[4] < by_shares[3] <= 1.0 < by_shares[2] < by_shares[1]
    one_share = DpEvent(mechanism=found.design.mechanism.with_shares(1))
    assert by_shares[1] == accountant.epsilon([one_share], delta=1e-3)


def test_alternatives_cost_the_same_and_are_better():
    found = plan(load_study(HEART))
    assert [(a.rounds, a.sampling_rate) for a in found.alternatives] == [(20, 0.4)]
    assert all(a.noise_to_signal_study < found.design.noise_to_signal_study for a in found.alternatives)


def test_warnings_name_what_deserves_a_look():
    quiet = " ".join(plan(small_study(training={"spare_rounds": 1})).warnings)
    assert "no spare_rounds" not in quiet
    assert "epsilons add up" in quiet
    loud = " ".join(
        plan(small_study(training={"sampling_rate": 0.05}, privacy={"epsilon": 0.05, "delta": 1e-2})).warnings
    )
    for part in ("times the best signal", "delta 0.01 against 20 patients", "sample nobody", "no spare_rounds"):
        assert part in loud, part


def test_test_figures_with_a_budget_are_planned_and_added():
    study = small_study(evaluation={"privacy": {"epsilon": 0.5, "delta": 1e-4}, "score_bins": 20, "subgroup_bins": 10})
    found = plan(study)
    mechanism = mechanism_of(study)
    assert found.figures == FiguresPlan(
        epsilon=0.5,
        delta=1e-4,
        draws=3,
        patients_std=mechanism.share_std,
        patients_std_sum=mechanism.share_std * 3**0.5,
    )
    assert found.together == (1.5, 1.1e-3)
    assert found.to_json()["right_at_most"] == pytest.approx(0.8176, abs=1e-4)
    text = " ".join(describe_plan(found).split())
    assert "epsilon 0.5 at delta 0.0001 over 3 measured rounds" in text
    assert "With the training, epsilon 1.5 at delta 0.0011" in text
    assert "right at most 81.8% of the time" in text
    assert "must allow training and test figures together" in text
    plain = plan(small_study())
    assert (plain.figures, plain.together) == (None, (1.0, 1e-3))
    assert plain.to_json()["test_figures"] is None


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_a_target_that_no_noise_meets(epsilon):
    with pytest.raises(NoPlan) as caught:
        plan(small_study(), epsilon=epsilon)
    assert "--epsilon" in caught.value.advice()
    assert report_error(caught.value) == 2


def test_on_the_command_line():
    run = CliRunner()
    words = run.invoke(app, ["study", "plan", str(HEART)])
    assert words.exit_code == 0
    assert words.stdout.rstrip("\n") == describe_plan(plan(load_study(HEART)))
    assert all(len(line) <= 110 for line in words.stdout.splitlines())
    figures = json.loads(run.invoke(app, ["study", "plan", str(HEART), "--epsilon", "3", "--json"]).stdout)
    assert (figures["epsilon"], figures["steps"], figures["expected_batch"]) == (3.0, 42, 6.0)
    assert figures["epsilon_after"][-1]["rounds"] == 21
    assert figures["accountant"]["dp-accounting"]
