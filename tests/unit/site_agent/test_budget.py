"""What a hospital reads about its budget: every figure the ledger's, nothing left out, plain where nobody looks."""

import json

import pytest
from typer.testing import CliRunner

from privacy.dp import accountant
from site_agent.app import dataset_budgets
from site_agent.budget import bar, budgets
from site_agent.cli import app, report_error
from site_agent.errors import SiteError
from site_agent.figures_account import budget_digest
from site_agent.ledger_caps import Limits
from site_agent.patient_marks import marks_of
from site_agent.training_spec import spec_of
from tests.fakes.site_world import CAP, make_world, small_study

STUDY = small_study()
EVENT = spec_of(STUDY, declared_patients=100).privacy.round_event()
LIMITS = Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3)


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path, STUDY)


def spend(world, *, dataset="ward", study="a", rounds=2, settled=1):
    for number in range(1, rounds + 1):
        reservation = world.ledger.reserve(
            dataset=dataset,
            study=STUDY.study_id,
            study_digest=study * 64 if len(study) == 1 else study,
            round_number=number,
            attempt=1,
            event=EVENT,
            limits=LIMITS,
        )
        if number <= settled:
            world.ledger.settle(reservation, EVENT)


def shown(folder, *arguments):
    done = CliRunner().invoke(app, ["budget", "--home", str(folder), *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_nothing_spent_yet(world, tmp_path):
    (ward,) = budgets(world.home.config, world.ledger)
    assert (ward.epsilon, ward.left, ward.studies, ward.configured) == (0.0, CAP, (), True)
    assert "epsilon 0.0000 of 7.631 spent for ever, at delta 0.001; 7.6310 left" in shown(tmp_path)


def test_one_study(world, tmp_path):
    spend(world)
    (ward,) = budgets(world.home.config, world.ledger)
    assert ward.epsilon == ward.held_against_cap == accountant.epsilon([EVENT] * 2, delta=1e-3)
    assert ward.left == CAP - ward.epsilon
    assert ward.reserved_rounds == 1
    text = shown(tmp_path)
    for part in (f"epsilon {ward.epsilon:.4f} of 7.631", f"{ward.left:.4f} left", "Reserved and not settled: 1 round.",
                 "small-study", "a" * 8, "#####.....", "13.1% of the cap"):  # fmt: skip
        assert part in text, part
    assert "\x1b" not in text


def test_several_studies_are_held_against_the_cap_by_the_filter(world, tmp_path):
    spend(world, study="a")
    spend(world, study="b")
    (ward,) = budgets(world.home.config, world.ledger)
    assert ward.held_against_cap == accountant.filter_epsilon([EVENT] * 4, delta=1e-3, cap=CAP) > ward.epsilon
    assert "Held against the cap" in shown(tmp_path)


def test_datasets_that_share_patients_say_so_and_count_together(world, tmp_path):
    spend(world, dataset="clinic")
    for name, people in (("ward", ["p", "q"]), ("clinic", ["q"])):
        world.ledger.register(name, marks_of(people, world.home.long_term_secret))
    clinic, ward = budgets(world.home.config, world.ledger)
    assert ward.epsilon == clinic.epsilon > 0
    assert (ward.studies, ward.shares) == ((), (("clinic", 1),))
    text = shown(tmp_path, "--dataset", "ward")
    assert "Shares 1 patient with dataset clinic: what is spent there counts here too." in text
    assert "No study has trained on it yet." in text
    assert "clinic (no longer in site.yaml)" in shown(tmp_path)


def test_for_programs(world, tmp_path):
    spend(world)
    (ward,) = json.loads(shown(tmp_path, "--json"))
    assert (ward["dataset"], ward["cap"], ward["delta"], ward["window"]) == ("ward", CAP, 1e-3, "for ever")
    (study,) = ward["studies"]
    assert (study["rounds"], study["open_rounds"], study["steps"]) == (2, 1, 2)
    assert study["events"] == [EVENT.with_steps(2).to_dict()]


def test_test_figures_are_shown_under_their_study(world, tmp_path):
    spend(world, study=STUDY.digest())
    spend(world, study="b")
    spend(world, study=budget_digest(STUDY.digest()), rounds=3, settled=3)
    world.ledger.close()
    (ward,) = budgets(world.home.config, world.ledger)
    first, second = ward.studies
    assert (first.study, first.training.steps, first.figures.steps) == ("small-study", 2, 3)
    assert (second.study_digest, second.figures) == ("b" * 64, None)
    assert ward.reserved_rounds == 2
    lines = shown(tmp_path).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("    its test figures"))
    assert lines[at - 1].split()[:2] == ["small-study", STUDY.digest()[:8]]
    assert lines[at].split()[3:6] == ["3", "0", "3"]
    (ward,) = json.loads(shown(tmp_path, "--json"))
    assert ward["studies"][0]["test_figures"]["events"] == [EVENT.with_steps(3).to_dict()]
    assert ward["studies"][1]["test_figures"] is None


def test_test_figures_of_a_study_that_trained_nothing_here_have_its_name(world, tmp_path):
    """A hospital that was back for the last evaluation only."""
    spend(world, study=budget_digest(STUDY.digest()), settled=2)
    (ward,) = dataset_budgets(tmp_path, "ward")
    (one,) = ward.studies
    assert (one.study, one.study_digest, one.training) == ("small-study", STUDY.digest(), None)
    assert one.figures.rounds == 2
    assert one.figures.epsilon == ward.epsilon > 0
    assert "  small-study" in shown(tmp_path)
    (found,) = json.loads(shown(tmp_path, "--json"))
    assert (found["studies"][0]["steps"], found["studies"][0]["epsilon"]) == (0, 0.0)


def test_a_dataset_nobody_knows(world, tmp_path):
    done = CliRunner().invoke(app, ["budget", "--home", str(tmp_path), "--dataset", "elsewhere"])
    assert isinstance(done.exception, SiteError)
    assert "there are: ward" in str(done.exception)
    assert report_error(done.exception) == 1


def test_restoring_says_how_much_was_missing(world, tmp_path):
    assert "epsilon 0.0000" in shown(tmp_path, "--restore")


@pytest.mark.parametrize(("share", "full"), [(0, 0), (1e-9, 1), (0.5, 20), (0.999, 39), (1.0, 40), (1.7, 40)], ids=str)
def test_a_bar_never_hides_that_something_was_spent_or_is_left(share, full):
    assert bar(share) == (full, 40 - full)
