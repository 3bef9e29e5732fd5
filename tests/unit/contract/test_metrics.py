"""The figures of a global model follow from sums alone."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score, roc_curve

from audit import entries
from consortium.contract.metrics import metrics_of
from consortium.contract.study import Evaluation
from site_agent.tally import Scores, covered, metric_lanes

EVERYTHING = ("auc", "accuracy", "loss", "brier", "calibration", "sensitivity")


def evaluation(*metrics, **choices):
    metrics = metrics or EVERYTHING
    given = {"specificity": 0.9} if "sensitivity" in metrics else {}
    return Evaluation.model_validate(
        {
            "split": "site-held-out", "metrics": metrics, "every_rounds": 1, "score_bins": 100,
            "decision_threshold": 0.5, **given, **choices,
        }
    )  # fmt: skip


SEX = {"column": "sex", "values": (0, 1), "names": ("women", "men")}
AGE = {"column": "age", "bands": (50.0, 65.0)}


def hospital(seed, patients=400):
    random = np.random.default_rng(seed)
    positive = random.random(patients) < 0.4
    scores = 1 / (1 + np.exp(-random.normal(-0.8 + 1.6 * positive, 1.0)))
    groups = np.stack([random.integers(0, 2, patients), random.integers(0, 3, patients)], axis=1)
    return Scores(scores=scores, positive=positive, groups=groups)


def sums_of(hospitals, wanted):
    lanes = [metric_lanes(one, wanted) for one in hospitals]
    return {name: np.sum([lane[name] for lane in lanes], axis=0) for name in lanes[0]}


def pooled(hospitals):
    return (
        np.concatenate([one.scores for one in hospitals]),
        np.concatenate([one.positive for one in hospitals]),
        np.concatenate([one.groups for one in hospitals]),
    )


@pytest.fixture(scope="module")
def hospitals():
    return [hospital(seed) for seed in range(4)]


def test_figures_are_those_of_the_pooled_patients(hospitals):
    scores, positive, _ = pooled(hospitals)
    wanted = evaluation()
    found = metrics_of(sums_of(hospitals, wanted), wanted)
    assert (found.sites, found.overall.patients) == (4, 1600)
    assert found.overall.auc.value == pytest.approx(roc_auc_score(positive, scores), abs=0.002)
    assert found.overall.brier.value == pytest.approx(brier_score_loss(positive, scores), abs=1e-9)
    assert found.overall.loss.value == pytest.approx(log_loss(positive, scores), abs=1e-9)
    assert found.overall.accuracy.value == pytest.approx(np.mean((scores > 0.5) == positive))
    assert found.overall.score == pytest.approx(scores.mean())
    assert found.overall.rate == pytest.approx(positive.mean())
    false_alarms, sensitivities, _ = roc_curve(positive, scores, drop_intermediate=False)
    exact = sensitivities[false_alarms <= 0.1].max()
    assert found.overall.sensitivity.value == pytest.approx(exact, abs=0.015)


def test_the_calibration_curve_is_the_pooled_one(hospitals):
    scores, positive, _ = pooled(hospitals)
    wanted = evaluation(minimum_cell=2)
    found = metrics_of(sums_of(hospitals, wanted), wanted)
    rates, means = calibration_curve(positive, scores, n_bins=10)
    assert [one.rate.value for one in found.calibration] == pytest.approx(list(rates))
    assert [one.score for one in found.calibration] == pytest.approx(list(means))
    counts = np.array([one.patients for one in found.calibration])
    assert found.calibration_error == pytest.approx(counts @ np.abs(rates - means) / 1600)
    assert all(one.rate.low <= one.rate.value <= one.rate.high for one in found.calibration)


def test_a_bin_of_few_patients_is_left_out_of_the_curve(hospitals):
    wanted = evaluation(minimum_cell=100)
    found = metrics_of(sums_of(hospitals, wanted), wanted)
    assert 0 < len(found.calibration) < 10
    assert all(one.patients >= 100 for one in found.calibration)


def test_cells_are_those_of_the_pooled_patients(hospitals):
    scores, positive, groups = pooled(hospitals)
    wanted = evaluation(subgroups=(SEX, AGE), subgroup_bins=50)
    found = metrics_of(sums_of(hospitals, wanted), wanted)
    assert [(one.subgroup, one.cell, one.sites) for one in found.cells] == [
        (0, 0, 4), (0, 1, 4), (1, 0, 4), (1, 1, 4), (1, 2, 4),
    ]  # fmt: skip
    for one in found.cells:
        here = (groups[:, one.subgroup] == one.cell) & ~np.tile(covered(400, 10), 4)
        assert one.figures.patients == here.sum()
        assert one.figures.auc.value == pytest.approx(roc_auc_score(positive[here], scores[here]), abs=0.01)
        assert one.figures.brier.value == pytest.approx(brier_score_loss(positive[here], scores[here]))
        assert one.figures.loss.value == pytest.approx(log_loss(positive[here], scores[here]))
        assert one.figures.accuracy.value == pytest.approx(np.mean((scores[here] > 0.5) == positive[here]))
        assert one.figures.score == pytest.approx(scores[here].mean())
        assert one.figures.rate == pytest.approx(positive[here].mean())


def test_a_cell_of_one_hospital_is_not_shown(hospitals):
    few = hospitals[0].groups.copy()
    few[:, 0] = -1
    others = [Scores(scores=one.scores, positive=one.positive, groups=few) for one in hospitals]
    wanted = evaluation("auc", subgroups=(SEX,))
    assert metrics_of(sums_of([hospitals[0], *others[1:]], wanted), wanted).cells == ()
    assert len(metrics_of(sums_of([hospitals[0], hospitals[1], others[2]], wanted), wanted).cells) == 2


def test_the_spread_is_that_of_the_hospitals_own_figures(hospitals):
    wanted = evaluation(per_site="spread")
    found = metrics_of(sums_of(hospitals, wanted), wanted).spread
    own = {
        "auc": [roc_auc_score(one.positive, one.scores) for one in hospitals],
        "accuracy": [np.mean((one.scores > 0.5) == one.positive) for one in hospitals],
        "brier": [brier_score_loss(one.positive, one.scores) for one in hospitals],
        "loss": [log_loss(one.positive, one.scores) for one in hospitals],
    }
    assert set(found) == set(own)
    for name, values in own.items():
        assert found[name].sites == 4
        assert found[name].mean == pytest.approx(np.mean(values))
        assert found[name].deviation == pytest.approx(np.std(values, ddof=1))


def test_a_hospital_of_one_class_is_not_in_the_spread_of_the_auc(hospitals):
    one = hospitals[0]
    ill = one.of(one.positive)
    wanted = evaluation(per_site="spread")
    found = metrics_of(sums_of([*hospitals[1:], ill], wanted), wanted).spread
    assert (found["auc"].sites, found["accuracy"].sites) == (3, 4)


def test_sums_of_hospitals_become_means():
    sums = {
        "sites_reporting": np.array([4.0]),
        "test_patients": np.array([254.0]),
        "correct": np.array([200.0]),
        "site_accuracy": np.array([3.2]),
        "loss_sum": np.array([127.0]),
        "loss_squares": np.array([100.0]),
        "scores_positive": np.array([0.0, 2.0]),
        "scores_negative": np.array([2.0, 0.0]),
    }
    named = metrics_of(sums, evaluation("auc", "accuracy", "loss", score_bins=2)).named()
    plain = {name: value for name, value in named.items() if not name.endswith((".low", ".high"))}
    assert plain == {
        "sites": 4, "patients": 254, "auc": 1.0, "accuracy": 200 / 254, "mean_site_accuracy": 0.8, "loss": 0.5,
    }  # fmt: skip


def test_what_was_not_asked_for_has_no_name():
    sums = {"sites_reporting": np.array([4.0]), "test_patients": np.array([254.0])}
    assert metrics_of(sums, evaluation("auc")).named() == {"sites": 4, "patients": 254}


def test_nobody_reporting_is_no_division_by_zero():
    wanted = evaluation(subgroups=(SEX,), per_site="spread")
    zeros = {name: 0 * values for name, values in sums_of([hospital(1)], wanted).items()}
    assert metrics_of(zeros, wanted).named() == {"sites": 0, "patients": 0}


def test_every_figure_has_a_name_that_a_log_entry_takes(hospitals):
    many = tuple({"column": f"c{number}", "bands": tuple(range(1, 16))} for number in range(2))
    groups = np.random.default_rng(1).integers(0, 16, (400, 2))
    crowded = [Scores(scores=one.scores, positive=one.positive, groups=groups) for one in hospitals]
    wanted = evaluation(subgroups=many, per_site="spread", calibration_bins=50, minimum_cell=2, score_bins=10)
    named = metrics_of(sums_of(crowded, wanted), wanted).named()
    assert {"sensitivity.low", "calibration.error", "spread.auc.deviation", "group.1.15.auc.high"} <= set(named)
    about = {"study": "study", "round": 1, "attempt": 1, "model_digest": "0" * 64}
    entry = entries.ModelEvaluated(**entries.stamp(0, bytes(10)), **about, metrics=tuple(named.items()))
    read = entries.parse_entry(entries.entry_bytes(entry))  # no larger than an entry may be, and every name is one
    assert dict(read.metrics) == named
