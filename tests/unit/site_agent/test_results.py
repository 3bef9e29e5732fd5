"""The hospital's own figures, in its own home."""

import json

import numpy as np
import pytest

from site_agent.evaluate import Evaluation
from site_agent.results import Results


def evaluation(correct=7):
    return Evaluation(
        patients=10,
        correct=correct,
        loss_sum=5.0,
        positives=np.zeros(2, dtype=np.int64),
        negatives=np.zeros(2, dtype=np.int64),
        exact_auc=0.8,
    )


def test_a_round_measured_again_replaces_its_row(tmp_path):
    path = tmp_path / "results" / "study.json"
    results = Results(path, "study")
    results.add(1, evaluation())
    results.add(2, evaluation())
    results.add(1, evaluation(correct=9))
    results.finish("completed", "a" * 64, verified=True)
    record = json.loads(path.read_text())
    assert [(row["round"], row["accuracy"]) for row in record["rounds"]] == [(2, 0.7), (1, 0.9)]
    assert record["rounds"][0] == {"round": 2, "patients": 10, "accuracy": 0.7, "auc": 0.8, "loss": 0.5}
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
