"""The hospital's own figures, in its own home."""

import json

import numpy as np
import pytest

from consortium.contract.study import Evaluation as Wanted
from site_agent.dice_tally import Overlaps
from site_agent.evaluation import Evaluation
from site_agent.results import Results, curves_of
from site_agent.tally import Scores


def evaluation(correct=7):
    """Ten patients, half of them with the label; so many are on the right side of 0.5."""
    positive = np.arange(10) % 2 == 0
    right = np.arange(10) < correct
    scores = np.where(positive == right, 0.75, 0.25)
    wanted = Wanted(
        split="site-held-out", metrics=("auc",), every_rounds=1, score_bins=10, decision_threshold=0.5,
        subgroups=({"column": "sex", "values": (0, 1), "names": ("women", "men")},),
    )  # fmt: skip
    groups = (np.arange(10) // 9).reshape(-1, 1)
    return Evaluation(scores=Scores(scores=scores, positive=positive, groups=groups), wanted=wanted)


def test_a_round_measured_again_replaces_its_row(tmp_path):
    path = tmp_path / "results" / "study.json"
    results = Results(path, "study")
    results.add(1, evaluation())
    results.add(2, evaluation())
    results.add(1, evaluation(correct=9))
    results.finish("completed", "a" * 64, verified=True)
    record = json.loads(path.read_text())
    assert [(row["round"], row["accuracy"]) for row in record["rounds"]] == [(2, 0.7), (1, 0.9)]
    row = record["rounds"][0]
    assert (row["patients"], row["accuracy"], row["auc"], row["rate"]) == (10, 0.7, 0.7, 0.5)
    assert row["brier"] == pytest.approx(0.7 * 0.25**2 + 0.3 * 0.75**2)
    assert row["loss"] == pytest.approx(-0.7 * np.log(0.75) - 0.3 * np.log(0.25))
    assert row["sensitivity"] is None  # no specificity was asked for
    # Small cells too: these figures are the hospital's own.
    assert [(g["column"], g["group"], g["patients"]) for g in row["subgroups"]] == [
        ("sex", "women", 9),
        ("sex", "men", 1),
    ]
    assert (record["outcome"], record["model_digest"], record["verified"]) == ("completed", "a" * 64, True)
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"rounds": 7}', '{"rounds": [7]}', "{}"])
def test_a_damaged_file_is_put_aside(tmp_path, damage):
    path = tmp_path / "results" / "study.json"
    path.parent.mkdir()
    path.write_text(damage)
    Results(path, "study").add(1, evaluation())
    assert len(json.loads(path.read_text())["rounds"]) == 1
    assert path.with_suffix(".damaged").read_text() == damage


def test_curves_are_drawn_of_numbers_alone():
    found = curves_of(evaluation())
    assert found["accuracy"] == 0.7
    assert "sensitivity" not in found  # it was not asked for
    assert all(isinstance(value, float) for value in found.values())
    wanted = Wanted(split="site-held-out", metrics=("dice",), every_rounds=1)
    dice = np.array([[0.5, 0.5, np.nan], [0.75, 0.75, np.nan]])
    masks = Evaluation(scores=Overlaps(dice=dice, losses=np.zeros(2)), wanted=wanted)
    assert curves_of(masks) == {"patients": 2.0, "dice": 0.625, "dice_of_classes.1": 0.625, "loss": 0.0}
