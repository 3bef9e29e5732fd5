"""A study in one process: its figures, its smoke alarm on a healthy and on a broken mechanism, its refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from consortium import simulate as simulation
from consortium.cli import app
from consortium.contract.digest import canonical_bytes
from consortium.contract.errors import DocumentInvalid
from consortium.contract.study import StudyFile, load_study
from consortium.simulate import SimulationRefused, simulate, with_settings
from site_agent.canaries import guessed
from tests.fakes import broken_trainers as broken

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
HEART = CONFIGS / "heart-disease"
DISTRIBUTED = CONFIGS / "studies/heart-disease-distributed.yaml"


def alarm(factory, path=HEART / "study.yaml", rounds=20):
    run = simulation._Run(with_settings(load_study(path), sites=4, rounds=rounds), factory)
    return run.sound(5, say=lambda _: None)


def test_a_study_on_the_hospitals_own_folders_learns_and_stays_within_its_epsilon():
    """Through the command line, with the canaries: the table is what people read."""
    result = CliRunner().invoke(
        app,
        [
            *("simulate", str(HEART / "study.yaml"), "--sites", "4", "--data", str(HEART / "sites"), "--rounds", "8"),
            *("--audit-privacy", "--json"),
        ],
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["sites"] == ["cleveland", "hungary", "switzerland", "va-long-beach"]
    assert not found["synthetic"]
    assert found["after"]["auc"] > 0.75 > found["before"]["auc"]
    assert 0.9 < found["epsilon_claimed"] <= 1.0
    audit = found["audit"]
    assert audit["canaries"] == 52
    assert audit["delta"] == pytest.approx(1 / 5200)
    assert audit["epsilon_lower_bound"] <= audit["epsilon_claimed"] < audit["largest_bound_possible"]
    assert not audit["alarm"]


def test_made_up_patients_and_other_sites():
    study = with_settings(load_study(HEART / "study.yaml"), sites=3, rounds=2)
    found = simulate(study, seed=1)
    assert found.sites == ("site-01", "site-02", "site-03")
    assert (found.synthetic, found.alarm, found.last.patients) == (True, None, 3 * 68)
    assert "made-up patients" in dict(found.rows())["before training"]


def test_without_noise_the_alarm_sounds():
    found = alarm(broken.noise_off)
    assert found.sounds
    assert found.right > 0.9 * found.canaries
    assert found.epsilon_claimed < found.epsilon_lower <= found.epsilon_reach


def test_a_distributed_study_is_watched_through_its_sum():
    """13 canaries can show an epsilon of 1.3 at the most, so the noise is not all that is measured here."""
    found = alarm(simulation.DpTrainer, DISTRIBUTED, rounds=10)
    assert (found.canaries, found.sounds) == (13, False)


def test_a_study_that_cannot_be_simulated(tmp_path):
    study = load_study(HEART / "study.yaml")
    with pytest.raises(SimulationRefused, match="cleveland"):
        simulate(study, data=tmp_path)
    with pytest.raises(DocumentInvalid):
        with_settings(study, sites=2)
    groups = study.model_copy(update={"aggregation": study.aggregation.model_copy(update={"group_size": 3})})
    with pytest.raises(SimulationRefused, match="groups"):
        simulate(groups)


def test_guesses_follow_the_gap():
    scores = np.array([0.1, 5.0, -0.2, 4.0, 6.0, 0.0])
    assert guessed(scores).tolist() == [False, True, False, True, True, False]


def test_the_alarm_compares_at_a_delta_the_canaries_can_speak_of():
    one = simulation.Alarm(canaries=10, right=9, delta=1e-3, epsilon_claimed=1.0, epsilon_lower=1.01, epsilon_reach=1.2)
    assert one.sounds
    assert not replace(one, epsilon_lower=1.0).sounds


def test_hospitals_by_turns():
    """Of four hospitals three train in a round; one of six has no turn in a single round, and spends nothing."""
    record = load_study(HEART / "study.yaml").model_dump(mode="json", by_alias=True, exclude_none=True)
    record["training"] |= {"participants_per_round": 3, "rounds": 4}
    record["evaluation"]["every_rounds"] = 4
    study = StudyFile.from_document(canonical_bytes(record))
    said = []
    assert 0 < simulate(study, say=said.append).epsilon <= study.privacy.epsilon
    assert said == ["round 4 of 4: the sum of 3 sites is open"]
    assert with_settings(study, sites=4, rounds=7).evaluation.every_rounds == 7
    six = with_settings(study, sites=6, rounds=1)
    assert six.training.participants_per_round == six.aggregation.threshold == 5
    run = simulation._Run(six, simulation.DpTrainer)
    run.train({site: one.train for site, one in simulation._cohorts(six, None, 1).items()}, say=said.append)
    idle = set(six.sites.roster) - set(six.sites_of_round(1))
    assert {site for site, events in run.spent.items() if not events} == idle
    assert len(idle) == 1
