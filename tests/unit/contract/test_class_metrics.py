"""Figures of labels with several classes follow from sums alone, and are those of the pooled patients."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score

from audit import entries
from consortium.contract.class_metrics import shown_confusion
from consortium.contract.estimates import area, mean_area, quantiles
from consortium.contract.metrics import metrics_of
from consortium.contract.study import Evaluation
from site_agent.class_tally import ClassScores
from site_agent.dice_tally import Overlaps


def evaluation(*metrics, **choices):
    given = {"split": "site-held-out", "metrics": metrics, "every_rounds": 1, **choices}
    return Evaluation.model_validate(given)


def classified(seed, patients=300, classes=3):
    random = np.random.default_rng(seed)
    labels = random.choice(classes, patients, p=[0.6, 0.3, 0.1])
    logits = random.normal(size=(patients, classes)) + 1.5 * np.eye(classes)[labels]
    powers = np.exp(logits)
    return ClassScores(probabilities=powers / powers.sum(axis=1, keepdims=True), labels=labels)


def segmented(seed, patients=40, classes=3):
    random = np.random.default_rng(seed)
    dice = random.beta(8, 2, size=(patients, classes))
    dice[random.random((patients, classes)) < 0.2] = np.nan
    dice[:, 0] = np.nanmean(np.column_stack([dice[:, 1:], np.full(patients, 0.5)]), axis=1)
    return Overlaps(dice=dice, losses=random.random(patients))


def summed(hospitals, wanted):
    lanes = [one.lanes(wanted) for one in hospitals]
    return {name: np.sum([lane[name] for lane in lanes], axis=0) for name in lanes[0]}


def test_figures_of_classes_are_those_of_the_pooled_patients():
    hospitals = [classified(seed) for seed in range(4)]
    wanted = evaluation("auc", "accuracy", "loss", "confusion", minimum_cell=2)
    found = metrics_of(summed(hospitals, wanted), wanted)
    probabilities = np.concatenate([one.probabilities for one in hospitals])
    labels = np.concatenate([one.labels for one in hospitals])
    assert (found.sites, found.overall.patients) == (4, 1200)
    assert found.overall.accuracy.value == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
    assert found.overall.loss.value == pytest.approx(log_loss(labels, probabilities))
    assert found.overall.auc is None  # that of a binary label
    assert found.classes.auc.value == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"), abs=0.003)
    assert found.classes.auc.low < found.classes.auc.value < found.classes.auc.high
    for place, estimate in found.classes.areas.items():
        exact = roc_auc_score(labels == place, probabilities[:, place])
        assert estimate.value == pytest.approx(exact, abs=0.003)
    counts = confusion_matrix(labels, probabilities.argmax(axis=1))
    assert counts.min() >= 2
    assert found.classes.confusion == {(r, c): counts[r, c] for r in range(3) for c in range(3)}


def test_figures_of_masks_are_those_of_the_pooled_patients():
    hospitals = [segmented(seed) for seed in range(4)]
    wanted = evaluation("dice", "loss", minimum_cell=5, per_site="spread")
    found = metrics_of(summed(hospitals, wanted), wanted)
    dice = np.concatenate([one.dice for one in hospitals])
    assert [one.place for one in found.classes.dice] == [0, 1, 2]
    for one in found.classes.dice:
        values = dice[:, one.place][~np.isnan(dice[:, one.place])]
        assert one.patients == len(values)
        assert one.mean.value == pytest.approx(values.mean())
        assert one.deviation == pytest.approx(values.std(ddof=1))
        half = 1.959964 * values.std(ddof=1) / np.sqrt(len(values))
        assert (one.mean.low, one.mean.high) == pytest.approx((values.mean() - half, values.mean() + half))
        exact = np.quantile(values, [0.1, 0.25, 0.5, 0.75, 0.9])
        assert list(one.quantiles.values()) == pytest.approx(list(exact), abs=0.05)
    assert found.overall.loss.value == pytest.approx(np.concatenate([one.losses for one in hospitals]).mean())
    own = [np.nanmean(one.dice[:, 0]) for one in hospitals]
    assert found.spread["dice"].mean == pytest.approx(np.mean(own))
    assert found.spread["dice"].deviation == pytest.approx(np.std(own, ddof=1))


def test_a_class_that_few_patients_have_gets_no_figures_of_its_own():
    one = segmented(1, patients=30)
    one.dice[9:, 2] = np.nan
    wanted = evaluation("dice", minimum_cell=10)
    assert [found.place for found in metrics_of(one.lanes(wanted), wanted).classes.dice] == [0, 1]
    rare = classified(2)
    few = np.flatnonzero(rare.labels == 2)[9:]
    kept = np.setdiff1d(np.arange(300), few)
    rare = ClassScores(probabilities=rare.probabilities[kept], labels=rare.labels[kept])
    wanted = evaluation("auc", minimum_cell=10)
    assert set(metrics_of(rare.lanes(wanted), wanted).classes.areas) == {0, 1}


def test_a_box_is_not_drawn_of_a_few_patients():
    wanted = evaluation("dice", minimum_cell=10)
    (foreground, *_) = metrics_of(segmented(3, patients=9).lanes(wanted), wanted).classes.dice
    assert foreground.patients == 9
    assert foreground.quantiles == {}


@pytest.mark.parametrize(
    ("counts", "hidden"),
    [
        ([[50, 20], [30, 40]], set()),
        ([[50, 0], [0, 40]], set()),  # nobody is nobody
        ([[50, 3], [30, 40]], {(0, 1), (1, 0)}),  # 3 could be found from the accuracy: so 30 is left out too
        ([[50, 20], [30, 4]], {(0, 0), (1, 1)}),
        ([[50, 3, 8], [0, 60, 30], [20, 30, 70]], {(0, 1), (0, 2)}),  # 11 together
        ([[50, 3, 4], [0, 60, 30], [20, 30, 70]], {(0, 1), (0, 2), (2, 0)}),
        ([[50, 3], [0, 40]], {(0, 1), (1, 0)}),  # else the accuracy would tell that they are 3
        ([[50, 3, 4], [0, 60, 0], [0, 0, 70]], {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}),
        ([[3, 2], [1, 4]], {(0, 0), (0, 1), (1, 0), (1, 1)}),
    ],
)
def test_small_cells_of_a_confusion_matrix_cannot_be_found_by_subtraction(counts, hidden):
    counts = np.array(counts)
    every = {(row, column) for row in range(len(counts)) for column in range(len(counts))}
    shown = shown_confusion(counts, 10)
    assert every - set(shown) == hidden
    assert all(counts[place] == value for place, value in shown.items())


def test_the_interval_of_a_mean_area_holds_whatever_the_correlation():
    random = np.random.default_rng(5)
    positives, negatives = random.integers(0, 9, (2, 3, 10))
    areas = [area(p, n) for p, n in zip(positives, negatives, strict=True)]
    found = mean_area(positives, negatives)
    assert found.value == pytest.approx(np.mean([one.value for one in areas]))
    # The same class three times: no less wide than the interval of one, on the plain scale.
    (one, three) = (mean_area(positives[:1].repeat(n, axis=0), negatives[:1].repeat(n, axis=0)) for n in (1, 3))
    assert three.high - three.low == pytest.approx(one.high - one.low)
    assert mean_area(np.zeros((2, 4)), negatives[:2, :4]) is None
    alone = mean_area([[0, 0, 3], [1, 1, 1]], [[3, 0, 0], [1, 1, 1]])  # never in the wrong order: no variance
    assert (alone.value, alone.low) == (0.75, None)


def test_quantiles_are_read_off_a_histogram():
    assert quantiles([0, 10, 0, 10], (0.25, 0.5, 0.75)) == pytest.approx((0.375, 0.5, 0.875))
    assert quantiles([4], (0.1, 0.9)) == pytest.approx((0.1, 0.9))
    values = np.random.default_rng(1).random(1000)
    found = quantiles(np.histogram(values, bins=20, range=(0, 1))[0], (0.1, 0.5, 0.9))
    assert found == pytest.approx(tuple(np.quantile(values, [0.1, 0.5, 0.9])), abs=0.01)


def test_every_figure_has_a_name_that_a_log_entry_takes():
    wanted = evaluation("auc", "accuracy", "loss", "confusion", minimum_cell=2, per_site="spread")
    named = metrics_of(summed([classified(seed) for seed in range(4)], wanted), wanted).named()
    assert {"auc", "auc.low", "auc.2", "auc.2.high", "confusion.0.2", "spread.auc.mean", "accuracy"} <= set(named)
    masks = evaluation("dice", "loss", minimum_cell=2)
    named |= metrics_of(segmented(1, patients=90, classes=64).lanes(masks), masks).named()
    assert {"dice", "dice.high", "dice.p50", "dice.63.deviation", "dice.63.patients", "dice.1.p90"} <= set(named)
    about = {"study": "study", "round": 1, "attempt": 1, "model_digest": "0" * 64}
    entry = entries.ModelEvaluated(**entries.stamp(0, bytes(10)), **about, metrics=tuple(named.items()))
    read = entries.parse_entry(entries.entry_bytes(entry))
    assert dict(read.metrics) == named


def test_nobody_reporting_is_no_division_by_zero():
    for one, wanted in (
        (classified(1), evaluation("auc", "accuracy", "loss", "confusion", minimum_cell=2)),
        (segmented(1), evaluation("dice", "loss", minimum_cell=2)),
    ):
        zeros = {name: 0 * values for name, values in one.lanes(wanted).items()}
        named = metrics_of(zeros, wanted).named()
        assert {name: value for name, value in named.items() if value} == {}
