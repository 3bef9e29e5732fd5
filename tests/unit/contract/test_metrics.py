"""The figures of a global model follow from sums alone."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from consortium.contract.metrics import GlobalMetrics, auc_from_histograms, metrics_of


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        ([0, 1], [1, 0], 1.0),
        ([1, 0], [0, 1], 0.0),
        ([1, 1], [1, 1], 0.5),
        ([0, 0, 2], [1, 0, 1], 0.75),
        ([5], [3], 0.5),
        ([0, 0], [1, 1], None),
        ([1, 1], [0, 0], None),
        ([], [], None),
    ],
)
def test_auc_by_hand(positives, negatives, expected):
    assert auc_from_histograms(positives, negatives) == expected


def test_auc_is_the_one_of_binned_scores():
    random = np.random.default_rng(1)
    labels = random.random(3000) < 0.4
    bins = np.clip((random.normal(0.4 + 0.2 * labels, 0.2) * 50).astype(int), 0, 49)
    found = auc_from_histograms(np.bincount(bins[labels], minlength=50), np.bincount(bins[~labels], minlength=50))
    assert found == pytest.approx(roc_auc_score(labels, bins))


def test_sums_of_hospitals_become_means():
    sums = {
        "sites_reporting": np.array([4.0]),
        "test_patients": np.array([254.0]),
        "correct": np.array([200.0]),
        "site_accuracy": np.array([3.2]),
        "loss_sum": np.array([127.0]),
        "scores_positive": np.array([0.0, 2.0]),
        "scores_negative": np.array([2.0, 0.0]),
    }
    assert metrics_of(sums) == GlobalMetrics(
        sites=4, patients=254, auc=1.0, accuracy=200 / 254, mean_site_accuracy=0.8, loss=0.5
    )


def test_what_was_not_asked_for_is_none():
    sums = {"sites_reporting": np.array([4.0]), "test_patients": np.array([254.0])}
    assert metrics_of(sums) == GlobalMetrics(
        sites=4, patients=254, auc=None, accuracy=None, mean_site_accuracy=None, loss=None
    )


def test_nobody_reporting_is_no_division_by_zero():
    zero = np.zeros(1)
    names = ("sites_reporting", "test_patients", "correct", "site_accuracy", "loss_sum")
    found = metrics_of(dict.fromkeys(names, zero) | {"scores_positive": zero, "scores_negative": zero})
    assert found == GlobalMetrics(sites=0, patients=0, auc=None, accuracy=None, mean_site_accuracy=None, loss=None)
