"""Scores of held-out patients, their histograms, and what a hospital shares of them."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from consortium.contract.layout import LOSS_PER_PATIENT_MAX, LaneName
from consortium.contract.metrics import metrics_of
from consortium.contract.study import Evaluation as Wanted
from site_agent.cohort import Records
from site_agent.errors import TrainingFailed
from site_agent.evaluate import evaluate
from site_agent.networks import build_from
from site_agent.tally import exact_auc
from tests.fakes.training import patients, spec

WEIGHTS = np.array([0.1, 2.0, 0.5, 0.0, 0.0, 0.0], dtype=np.float32)  # bias first: the layout is sorted by name


def wanted(*, bins=100, threshold=0.5, **others):
    return Wanted(
        split="site-held-out",
        metrics=("auc", "accuracy", "loss"),
        every_rounds=1,
        score_bins=bins,
        decision_threshold=threshold,
        **others,
    )


def run(test, weights=WEIGHTS, **choices):
    return evaluate(build_from(spec().network), weights, test, wanted(**choices))


def one_record(value, label):
    return Records(
        features=np.array([[value, 0, 0, 0, 0]], dtype=np.float32),
        labels=np.array([label], dtype=np.float32),
        patients=np.zeros(1, dtype=np.int64),
        patient_count=1,
    )


def probabilities(test, weights=WEIGHTS):
    return 1 / (1 + np.exp(-(test.features @ weights[1:] + weights[0]).astype(np.float64)))


def test_figures_are_those_of_the_model():
    test = patients(500)
    scores, positive = probabilities(test), test.labels > 0
    found = run(test)
    assert found.patients == 500
    assert found.own_figures()["accuracy"] == ((scores > 0.5) == positive).mean()
    assert found.loss_sum == pytest.approx(-np.log(np.where(positive, scores, 1 - scores)).sum(), rel=1e-5)
    assert found.scores.auc() == pytest.approx(roc_auc_score(test.labels, scores), abs=1e-6)


def test_histograms_hold_every_patient_once():
    test = patients(500)
    found = run(test, bins=10)
    positives, negatives = (found.lanes()[name] for name in (LaneName.SCORES_POSITIVE, LaneName.SCORES_NEGATIVE))
    assert positives.sum() == (test.labels > 0).sum()
    assert negatives.sum() == (test.labels == 0).sum()
    expected, _ = np.histogram(probabilities(test)[test.labels > 0], bins=10, range=(0, 1))
    assert positives.tolist() == expected.tolist()


def test_auc_from_the_lanes_is_close_to_the_exact_one():
    found = run(patients(2000))
    assert metrics_of(found.lanes(), wanted()).overall.auc.value == pytest.approx(found.scores.auc(), abs=0.005)


def test_lanes_are_what_a_layout_asks_for():
    lanes = run(patients(30), bins=20).lanes()
    others = {name for name in LaneName if name.startswith(("subgroup_", "class_", "dice_", "confusion"))}
    assert set(lanes) == set(LaneName) - {LaneName.UPDATE, LaneName.WEIGHT} - others
    assert all(values.dtype == np.float64 for values in lanes.values())
    assert lanes[LaneName.SCORES_POSITIVE].shape == (20,)


def test_a_patients_records_count_as_one_patient():
    test = patients(40, records_each=3)
    found = run(test)
    mean = probabilities(test).reshape(40, 3).mean(axis=1)
    label = test.labels.reshape(40, 3).max(axis=1)
    assert found.patients == 40
    assert found.scores.correct(0.5) == ((mean > 0.5) == (label > 0)).sum()


def test_a_certain_score_is_in_the_last_bin():
    found = run(one_record(1e6, 1.0))
    assert found.lanes()[LaneName.SCORES_POSITIVE][-1] == 1
    assert found.loss_sum == 0


def test_a_patients_loss_is_cut():
    found = run(one_record(1e6, 0.0))
    assert found.loss_sum == LOSS_PER_PATIENT_MAX


def test_a_record_that_cannot_be_scored_counts_as_a_half():
    found = run(one_record(math.nan, 1.0))
    assert found.lanes()[LaneName.SCORES_POSITIVE][50] == 1
    assert found.scores.correct(0.5) == 0
    assert found.loss_sum == pytest.approx(math.log(2))


def test_the_threshold_decides_what_is_predicted():
    assert run(one_record(0.0, 1.0), threshold=0.5).scores.correct(0.5) == 1  # its score is 0.525
    assert run(one_record(0.0, 1.0), threshold=0.6).scores.correct(0.6) == 0


def test_one_class_has_no_auc():
    assert run(one_record(1.0, 1.0)).scores.auc() is None
    assert exact_auc(np.array([0.5, 0.5]), np.array([True, False])) == 0.5


def test_nobody_set_aside_is_not_an_error():
    none = Records(
        features=np.zeros((0, 5), dtype=np.float32),
        labels=np.zeros(0, dtype=np.float32),
        patients=np.zeros(0, dtype=np.int64),
        patient_count=0,
    )
    found = run(none)
    assert (found.patients, found.own_figures()["accuracy"], found.loss_sum) == (0, 0, 0)


def test_it_prints_without_its_numbers():
    assert repr(run(patients(10))) == "Evaluation()"


def test_a_model_that_does_not_fit_is_refused():
    with pytest.raises(TrainingFailed):
        run(patients(10), np.zeros(3, dtype=np.float32))
