"""Counts and sums -> estimates with a confidence interval of 95 % (pure arithmetic, no patient's score is needed).

Everything here starts from score histograms (patients with the label and patients without it, by score bin from the
lowest to the highest), from counts, or from a sum together with its sum of squares: what the hospitals' masked sums
hold. An interval speaks of patients like these that might have been tested; it knows nothing of differences between
hospitals, and treats every patient as independent of the others.

| figure | interval |
|---|---|
| a share of patients | Wilson's score interval |
| AUC | DeLong, DeLong and Clarke-Pearson 1988 on the binned scores, on the logit scale |
| mean AUC over classes | mean +- 1.96 times the mean of the standard errors: enough however classes correlate |
| sensitivity at a specificity | Wilson's, at the number of patients that gives the variance of the ROC curve there |
| a mean over patients | mean +- 1.96 standard errors, cut to where the mean can lie |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privacy.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


Z = 1.959963984540054
"""The normal quantile of intervals that hold in 95 of 100 cases."""

_ROUNDING = 1e-12  # shares of counts are compared with decimals such as 1 - 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its interval of 95 %; the bounds are None where the data cannot say how sure they are."""

    value: float
    low: float | None = None
    high: float | None = None


def share(successes: float, trials: float) -> Estimate | None:
    """`successes` of `trials` with Wilson's interval (1927); None of nothing."""
    if trials <= 0:
        return None
    value = min(1.0, max(0.0, successes / trials))
    low, high = _wilson(value, trials)
    return Estimate(value=value, low=low, high=high)


def mean(total: float, squares: float, count: float, *, lowest: float, highest: float) -> Estimate | None:
    """The mean of `count` values that lie within `lowest` to `highest`, from their sum and their sum of squares.

    | count | result |
    |---|---|
    | 0 | None |
    | 1 | the value, without an interval |
    | more | mean +- Z standard errors, cut to the range |
    """
    if count <= 0:
        return None
    value = min(highest, max(lowest, total / count))
    if count <= 1:
        return Estimate(value=value)
    # Sums travel in steps, so the difference of two large ones may come out a little below 0.
    variance = max(0.0, squares / count - value**2) * count / (count - 1)
    half = Z * math.sqrt(variance / count)
    return Estimate(value=value, low=max(lowest, value - half), high=min(highest, value + half))


def area(positives: ArrayLike, negatives: ArrayLike) -> Estimate | None:
    """Area under the ROC curve: two patients in one bin are a tie and count half.

    The value is the trapezoid rule's. The variance is DeLong's for binned scores, which histograms hold in full:
    var = S10 / m + S01 / n, S10 being the variance over patients with the label of the share of the others they score
    above. The interval is symmetric in log(A / (1 - A)) and so stays between 0 and 1.

    Args:
        positives: Patients with the label, by score bin; each at least 0.
        negatives: Patients without it, in the same bins.

    Returns:
        None when one class is empty; no bounds when a class has one patient, or no two patients were ever in the wrong
        order (or ever in the right one): then the data say nothing about how far from 1 (or 0) the area is. The value
        differs from the exact area by at most half the share of pairs that fall into one bin.
    """
    found = _delong(*_histograms(positives, negatives))
    if found is None:
        return None
    value, variance = found
    if variance is None:
        return Estimate(value=value)
    centre, half = math.log(value / (1 - value)), Z * math.sqrt(variance) / (value * (1 - value))
    return Estimate(value=value, low=_logistic(centre - half), high=_logistic(centre + half))


def mean_area(positives: ArrayLike, negatives: ArrayLike) -> Estimate | None:
    """The mean over classes of the area under the ROC curve of each class against all others (one versus rest).

    The same patients are in every class's curve, so the areas are correlated in a way that histograms do not show. The
    standard deviation of a mean is at most the mean of the standard deviations, which is what is taken.

    Args:
        positives: [classes, bins]: patients of each class, by their score for it.
        negatives: [classes, bins]: patients of the other classes, by their score for it.

    Returns:
        Over the classes that some patients are of and others not; None if there are none. No bounds where one of these
        areas has none.
    """
    pairs = zip(*_histograms(positives, negatives), strict=True)
    areas = [found for with_label, without in pairs if (found := _delong(with_label, without)) is not None]
    if not areas:
        return None
    value = float(np.mean([value for value, _ in areas]))
    errors = [math.sqrt(variance) for _, variance in areas if variance is not None]
    if len(errors) < len(areas):
        return Estimate(value=value)
    half = Z * float(np.mean(errors))
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def quantiles(histogram: ArrayLike, shares: Sequence[float]) -> tuple[float, ...]:
    """Below which values lie these shares of the patients, from a histogram of values between 0 and 1.

    As if the patients of a bin were spread evenly in it, so each is off by less than the width of a bin.

    Args:
        histogram: Patients by value, in bins of equal width; at least one patient. A count below 0, which no honest
            sum has, is taken for 0.
        shares: Above 0 and below 1.
    """
    counts = np.maximum(np.asarray(histogram, dtype=np.float64), 0.0)
    edges = np.linspace(0.0, 1.0, len(counts) + 1)
    below = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    found = []
    for share in shares:
        last = int(np.searchsorted(below, share, side="left"))  # the bin in which the share is reached ends here
        step = below[last] - below[last - 1]
        found.append(float(edges[last - 1] + (share - below[last - 1]) / step * (edges[last] - edges[last - 1])))
    return tuple(found)


def _delong(with_label: NDArray[np.float64], without: NDArray[np.float64]) -> tuple[float, float | None] | None:
    """The area and its variance, which is None where the data do not say it; None for one class alone."""
    m, n = float(with_label.sum()), float(without.sum())
    if m * n <= 0:
        return None
    above = (np.cumsum(without) - without + without / 2) / n  # of those without the label, the share that bin i beats
    below = (m - np.cumsum(with_label) + with_label / 2) / m  # of those with it, the share that beats bin i
    value = float(with_label @ above / m)
    if m <= 1 or n <= 1:
        return value, None
    spread = with_label @ (above - value) ** 2 / (m * (m - 1)) + without @ (below - value) ** 2 / (n * (n - 1))
    return value, float(spread) if spread > 0 and 0 < value < 1 else None


def sensitivity_at(specificity: float, positives: ArrayLike, negatives: ArrayLike) -> Estimate | None:
    """The share of patients with the label above the score that `specificity` of those without it do not reach.

    The ROC curve is drawn through the edges of the bins with straight lines between, as if the patients of a bin were
    spread evenly in it; where it rises straight up at the wanted specificity, its upper end counts.

    The interval takes in that the score is itself an estimate: with t = 1 - specificity, m patients with the label and
    n without, the variance is S (1 - S) / m + (slope of the curve)^2 t (1 - t) / n (Pepe 2003, 5.2); the slope is the
    secant over one standard error of t to either side. Wilson's interval is taken at the m that would give as much.

    Returns:
        None when one of the classes is empty.
    """
    with_label, without = _histograms(positives, negatives)
    m, n = float(with_label.sum()), float(without.sum())
    if m * n <= 0:
        return None
    false_alarms = np.concatenate([[0.0], np.cumsum(without[::-1]) / n])
    found = np.concatenate([[0.0], np.cumsum(with_label[::-1]) / m])
    t = 1 - specificity
    value = _at(t, false_alarms, found)
    step = math.sqrt(t * (1 - t) / n)
    left, right = max(0.0, t - step), min(1.0, t + step)
    slope = (_at(right, false_alarms, found) - _at(left, false_alarms, found)) / (right - left)
    own = value * (1 - value)
    patients = m if own <= 0 else own / (own / m + slope**2 * t * (1 - t) / n)
    low, high = _wilson(value, patients)
    return Estimate(value=value, low=low, high=high)


def _histograms(positives: ArrayLike, negatives: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)


def _at(x: float, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> float:
    """A rising polyline at x: its upper end where it rises straight up."""
    last = int(np.searchsorted(xs, x + _ROUNDING, side="right")) - 1
    if last + 1 == len(xs) or x <= xs[last]:
        return float(ys[last])
    part = (x - xs[last]) / (xs[last + 1] - xs[last])
    return float(ys[last] + part * (ys[last + 1] - ys[last]))


def _wilson(value: float, trials: float) -> tuple[float, float]:
    weight = Z**2 / trials
    centre = (value + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * math.sqrt(value * (1 - value) / trials + weight / (4 * trials))
    # At 0 and at 1 one bound is the value itself, but for rounding.
    return min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
