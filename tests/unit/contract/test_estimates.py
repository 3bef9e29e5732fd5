"""Estimates and their intervals, by hand, against other libraries, and by how often they hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from consortium.contract import estimates
from consortium.contract.estimates import Estimate, area, mean, sensitivity_at, share


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        ([0, 1], [1, 0], 1.0),
        ([1, 0], [0, 1], 0.0),
        ([1, 1], [1, 1], 0.5),
        ([0, 0, 2], [1, 0, 1], 0.75),
        ([5], [3], 0.5),
    ],
)
def test_area_by_hand(positives, negatives, expected):
    assert area(positives, negatives).value == expected


@pytest.mark.parametrize(("positives", "negatives"), [([0, 0], [1, 1]), ([1, 1], [0, 0]), ([], [])])
def test_one_class_has_no_curve(positives, negatives):
    assert area(positives, negatives) is None
    assert sensitivity_at(0.9, positives, negatives) is None


def binned(seed=1, patients=3000, bins=50, apart=0.2):
    random = np.random.default_rng(seed)
    labels = random.random(patients) < 0.4
    places = np.clip((random.normal(0.4 + apart * labels, 0.2, patients) * bins).astype(int), 0, bins - 1)
    return labels, places


def histograms(labels, places, bins=50):
    return np.bincount(places[labels], minlength=bins), np.bincount(places[~labels], minlength=bins)


def test_area_is_the_one_of_binned_scores():
    labels, places = binned()
    assert area(*histograms(labels, places)).value == pytest.approx(roc_auc_score(labels, places))


def test_the_interval_of_an_area_is_delongs():
    """Against placements counted patient by patient, in a loop over pairs."""
    labels, places = binned(patients=300)
    with_label, without = places[labels], places[~labels]
    wins = (with_label[:, None] > without) + (with_label[:, None] == without) / 2
    variance = wins.mean(axis=1).var(ddof=1) / len(with_label) + wins.mean(axis=0).var(ddof=1) / len(without)
    value = wins.mean()
    found = area(*histograms(labels, places))
    half = estimates.Z * np.sqrt(variance) / (value * (1 - value))
    assert np.log(found.high / (1 - found.high)) == pytest.approx(np.log(value / (1 - value)) + half)
    assert np.log(found.low / (1 - found.low)) == pytest.approx(np.log(value / (1 - value)) - half)


def test_an_area_without_doubt_has_no_interval():
    assert area([0, 9], [9, 0]) == Estimate(value=1.0)
    assert area([1, 0], [4, 4]) == Estimate(value=0.25)


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (3, 7), (7, 7), (431, 1600)])
def test_a_share_has_wilsons_interval(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    found = share(successes, trials)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_share_of_nobody_is_none():
    assert share(0, 0) is None


def test_a_mean_has_its_standard_error():
    values = np.random.default_rng(1).random(500)
    found = mean(values.sum(), np.square(values).sum(), 500, lowest=0, highest=1)
    half = estimates.Z * values.std(ddof=1) / np.sqrt(500)
    assert (found.value, found.low, found.high) == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half)
    )


@pytest.mark.parametrize(
    ("total", "squares", "count", "expected"),
    [
        (0, 0, 0, None),
        (0.5, 0.25, 1, Estimate(value=0.5)),
        (1.0, 0.49, 2, Estimate(value=0.5, low=0.5, high=0.5)),  # squares that rounding made too small
        (1.0, 1.0, 2, Estimate(value=0.5, low=0.0, high=1.0)),  # cut to the range
    ],
)
def test_means_of_few(total, squares, count, expected):
    assert mean(total, squares, count, lowest=0.0, highest=1.0) == expected


@pytest.mark.parametrize(
    ("specificity", "expected"),
    [
        (0.75, 0.8),  # a quarter of those without the label lies in the top bin, with eight of ten
        (0.5, 0.8 + 0.2 / 3),  # a third of the way through the middle bin, and so a third of its two patients
        (0.875, 0.4),  # half of the top bin
    ],
)
def test_sensitivity_by_hand(specificity, expected):
    assert sensitivity_at(specificity, [0, 2, 8], [0, 6, 2]).value == pytest.approx(expected)


def test_where_the_curve_rises_straight_up_its_upper_end_counts():
    assert sensitivity_at(0.9, [0, 0, 4, 6], [9, 1, 0, 0]).value == 1.0
    assert sensitivity_at(0.9, [2, 0, 8], [9, 1, 0]).value == pytest.approx(0.8)
    assert sensitivity_at(0.8, [2, 0, 8], [8, 2, 0]).value == pytest.approx(0.8)


def test_sensitivity_at_every_specificity_traces_the_roc_curve():
    labels, places = binned()
    positives, negatives = histograms(labels, places)
    found = [sensitivity_at(s, positives, negatives).value for s in np.linspace(0.001, 0.999, 2001)]
    assert found == sorted(found, reverse=True)
    assert np.mean(found) == pytest.approx(area(positives, negatives).value, abs=0.001)  # the area below it


def test_intervals_hold_about_as_often_as_they_say():
    """600 trials: a true rate of 95 % shows between 91 % and 99 % of them with probability above 1 - 1e-5."""
    rng = np.random.default_rng(7)
    truth_labels, truth_places = binned(seed=99, patients=400_000)
    truth = histograms(truth_labels, truth_places)
    true_area, true_sensitivity = area(*truth).value, sensitivity_at(0.9, *truth).value
    held = {"area": 0, "sensitivity": 0}
    for _ in range(600):
        chosen = rng.integers(0, len(truth_labels), 250)
        sample = histograms(truth_labels[chosen], truth_places[chosen])
        one, other = area(*sample), sensitivity_at(0.9, *sample)
        held["area"] += one.low <= true_area <= one.high
        held["sensitivity"] += other.low <= true_sensitivity <= other.high
    assert 0.91 <= held["area"] / 600 <= 0.99
    assert 0.90 <= held["sensitivity"] / 600 <= 0.995  # the slope of the curve is estimated too


COUNTS = st.lists(st.integers(0, 50), min_size=8, max_size=8)


@given(positives=COUNTS, negatives=COUNTS, specificity=st.floats(0.01, 0.99))
@settings(max_examples=200, deadline=None)
def test_estimates_lie_in_their_intervals_and_intervals_between_0_and_1(positives, negatives, specificity):
    for found in (area(positives, negatives), sensitivity_at(specificity, positives, negatives)):
        assert (found is None) == (sum(positives) == 0 or sum(negatives) == 0)
        if found is not None:
            assert 0 <= found.value <= 1
            if found.low is not None:
                assert 0 <= found.low <= found.value <= found.high <= 1


@given(positives=COUNTS, negatives=COUNTS)
@settings(max_examples=100, deadline=None)
def test_swapping_the_classes_turns_the_area_over(positives, negatives):
    one, other = area(positives, negatives), area(negatives, positives)
    if one is not None and other is not None:
        assert one.value == pytest.approx(1 - other.value)
