"""A simulated study keeps its best model and stops early, as the coordinator's would: the same function decides."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consortium import simulate as simulation
from consortium.contract.best_model import StopEarly, Tally
from consortium.contract.layout import LaneName
from consortium.contract.noisy_metrics import metrics_for
from consortium.contract.plan import RoundKind, RoundPlan
from consortium.contract.study import StudyFile, load_study
from consortium.simulate import Simulation, simulate, with_settings
from consortium.simulated_round import SimulatedRound

HEART = load_study(Path(__file__).parents[3] / "configs/heart-disease/study.yaml")


def study_of(rounds: int, *, validation: float | None = None, **evaluation: Any) -> StudyFile:
    record = with_settings(HEART, sites=3, rounds=rounds).model_dump(mode="json", by_alias=True, exclude_none=True)
    chosen: dict[str, Any] = {"split": "site-held-out", "metrics": ["auc", "loss"], "keep_best": "auc"}
    chosen |= {"every_rounds": 1, "score_bins": 2000}
    record["evaluation"] = chosen | evaluation
    record["training"]["local_steps"] = 1
    if validation is not None:
        record["data"]["split"]["validation_fraction"] = validation
    return StudyFile.model_validate_json(json.dumps(record))


class Heard:
    """The plans, and the figures in the sums, of every round that is simulated."""

    def __init__(self, study: StudyFile, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plans: list[RoundPlan] = []
        self.figures: list[float] = []
        self.patients: list[int] = []
        heard = self

        class Listening(SimulatedRound):
            def run(self) -> Any:
                opened = super().run()
                heard.plans.append(self._plan)
                heard.figures.append(metrics_for(study, opened.sums).named()["auc"] or 0.0)
                heard.patients.append(round(float(opened.sums[LaneName.TEST_PATIENTS][0])))
                return opened

        monkeypatch.setattr(simulation, "SimulatedRound", Listening)

    @property
    def kinds(self) -> list[RoundKind]:
        return [plan.kind for plan in self.plans]


def tally_of(figures: list[float], rule: StopEarly | None) -> Tally:
    tally = Tally()
    for number, figure in enumerate(figures, start=1):
        assert not tally.stops(rule)  # or there was a round too many
        tally = tally.after(figure, made_by=number - 1, metric="auc", rule=rule)
    return tally


@pytest.mark.parametrize("validation", [None, 0.2])
def test_the_model_is_the_best_of_those_measured(validation: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(3, validation=validation)
    heard = Heard(study, monkeypatch)
    found = simulate(study, seed=2)
    apart = validation is not None
    assert heard.kinds == [RoundKind.TRAIN] * 3 + [RoundKind.EVALUATE] * (1 + apart)
    tally = tally_of(heard.figures[:4], None)
    assert found.kept is not None
    assert (found.rounds, found.kept.figure, found.kept.origin) == (3, tally.figure, tally.origin)
    assert found.kept.reason.startswith("kept the ")
    assert dict(found.rows())["model"] == found.kept.reason
    if apart:
        # Others than those who chose, and all of those whom the result speaks of.
        assert len(set(heard.patients[:4])) == 1
        assert heard.patients[4] == found.last.patients != heard.patients[0]
        assert heard.figures[4] == pytest.approx(found.last.auc, abs=0.01)  # from histograms
    else:
        assert set(heard.patients) == {found.last.patients}


@pytest.mark.parametrize("validation", [None, 0.2])
def test_training_stops_where_the_figures_say_so(validation: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = {"patience": 2, "min_delta": 0.5}  # nothing gets so much better than the first figure
    study = study_of(40, validation=validation, stop_early=rule)
    heard = Heard(study, monkeypatch)
    lines: list[str] = []
    found = simulate(study, seed=3, say=lines.append)
    assert heard.kinds == [RoundKind.TRAIN] * 3 + [RoundKind.EVALUATE] * (validation is not None)
    assert (found.rounds, found.kept is not None and found.kept.origin) == (3, 0)
    assert lines[-1].startswith("stopped early after round 3: 2 measured rounds without auc better by more than 0.5")
    assert found.epsilon < HEART.privacy.epsilon / 2  # of three rounds of forty
    record = found.to_json()
    assert record["rounds"] == 3
    assert record["chosen"]["reason"] == lines[-1]
    assert json.dumps(record)


def test_figures_with_a_budget_choose_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(1, privacy={"epsilon": 8.0, "delta": 1e-5}, score_bins=20)
    heard = Heard(study, monkeypatch)
    found: Simulation = simulate(study, seed=4)
    assert found.kept is not None
    assert found.kept.figure == tally_of(heard.figures, None).figure
    assert np.isfinite(heard.figures).all()
