"""Figures of a global model from noisy score histograms, where a study has a budget for its test figures.

Everything here is arithmetic on sums that already carry noise, so it costs no privacy. Bins stand for their middle:
Brier score, loss and calibration are off by what scores differ within a bin. Counts may come out negative; the area
under the ROC curve is computed from them as they are, because cutting them at 0 would add patients to empty bins.

Intervals take in both the patients and the noise: the half width is the root of the sum of squares of the half width
without noise and of 1.96 standard deviations of the figure when as much noise is added once more, `_DRAWS` times, from
a fixed seed. They are approximate, and wide where groups are small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from consortium.contract import estimates
from consortium.contract.estimates import Estimate
from consortium.contract.figures_budget import mechanism_of
from consortium.contract.layout import LOSS_PER_PATIENT_MAX, LaneName
from consortium.contract.metrics import CalibrationBin, Cell, Figures, GlobalMetrics, metrics_of
from consortium.contract.study import Evaluation, StudyFile
from consortium.contract.subgroups import all_cells
from privacy.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Histogram: TypeAlias = "NDArray[np.float64]"
_DRAWS = 100
_SEED = 1


def metrics_for(study: StudyFile, sums: Mapping[str, _Histogram]) -> GlobalMetrics:
    """The figures of one aggregate of a study, with a budget for them or without."""
    if study.evaluation.privacy is None:
        return metrics_of(sums, study.evaluation)
    return noisy_metrics(sums, study.evaluation, mechanism_of(study).share_std)


def basis_of(study: StudyFile, *, chosen: bool = False) -> str | None:
    """What the log says the figures of a round are; None of exact sums over test patients.

    Args:
        study: The study.
        chosen: Whether the round measures the model that validation patients chose: on the test patients, then.
    """
    wanted, of = study.evaluation.privacy, ""
    if study.has_validation:
        of = " of test patients" if chosen else " of validation patients"
    elif wanted is None:
        return None
    if wanted is None:
        return f"exact sums{of} over all survivors under secure aggregation; not differentially private"
    return (
        f"sums{of} over all survivors under secure aggregation, with discrete Gaussian noise of every hospital: "
        f"epsilon {wanted.epsilon:g} at delta {wanted.delta:g} for each patient and hospital, over all measured rounds"
    )


def noisy_metrics(sums: Mapping[str, _Histogram], evaluation: Evaluation, noise_std: float) -> GlobalMetrics:
    """The figures that the noisy histograms of one aggregate hold.

    Args:
        sums: By lane name, the sum over the survivors.
        evaluation: The study's section.
        noise_std: Standard deviation of the noise that one site adds to each count.
    """
    sites = round(float(sums[LaneName.SITES_REPORTING][0]))
    std = noise_std * math.sqrt(sites)
    positives, negatives = sums[LaneName.SCORES_POSITIVE], sums[LaneName.SCORES_NEGATIVE]
    total = float(sums[LaneName.TEST_PATIENTS][0])
    return GlobalMetrics(
        sites=sites,
        overall=_figures(positives, negatives, total, evaluation, std),
        calibration=tuple(_calibration(positives, negatives, evaluation, std)),
        spread={},
        cells=tuple(_cells(sums, evaluation, sites, std)),
    )


def _cells(sums: Mapping[str, _Histogram], evaluation: Evaluation, sites: int, std: float) -> Iterator[Cell]:
    places = all_cells(evaluation.subgroups)
    if not places or not sites:
        return
    positives, negatives = (
        sums[lane].reshape(len(places), -1) for lane in (LaneName.SUBGROUP_POSITIVE, LaneName.SUBGROUP_NEGATIVE)
    )
    for index, (subgroup, cell) in enumerate(places):
        total = float(positives[index].sum() + negatives[index].sum())
        # What is no larger than the noise says nothing about anybody.
        if total >= max(evaluation.smallest_cell, estimates.Z * std * math.sqrt(2 * evaluation.cell_bins)):
            figures = _figures(positives[index], negatives[index], total, evaluation, std)
            yield Cell(subgroup=subgroup, cell=cell, sites=sites, figures=figures)


def _figures(positives: _Histogram, negatives: _Histogram, total: float, evaluation: Evaluation, std: float) -> Figures:
    kinds = _kinds(evaluation)
    if total < 1 or positives.sum() + negatives.sum() < 1:
        return Figures(patients=max(0, round(total)))
    random = np.random.default_rng(_SEED)
    again: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(_DRAWS):
        more = [histogram + random.normal(0, std, len(histogram)) for histogram in (positives, negatives)]
        for name, (value_of, _highest) in kinds.items():
            value = value_of(more[0], more[1])
            again[name] += [] if value is None else [value]
    drowned = _drowned(positives, negatives, std)
    found: dict[str, Estimate] = {}
    without_noise = _monotone(positives), _monotone(negatives)
    for name, (value_of, highest) in kinds.items():
        value, sampled = value_of(positives, negatives), _sampled(name, *without_noise, evaluation)
        if value is None or name in drowned:
            continue
        if sampled is None or sampled.low is None or sampled.high is None or len(again[name]) < _DRAWS:
            found[name] = Estimate(value=value)
            continue
        half = math.hypot((sampled.high - sampled.low) / 2, estimates.Z * float(np.std(again[name])))
        found[name] = Estimate(value=value, low=max(0.0, value - half), high=min(highest, value + half))
    calibrated = "calibration" in evaluation.metrics
    middles, everybody = _middles(len(positives)), positives + negatives
    return Figures(
        patients=round(total),
        score=_within(float(everybody @ middles / everybody.sum())) if calibrated else None,
        rate=_within(float(positives.sum() / everybody.sum())) if calibrated else None,
        **found,
    )


def _drowned(positives: _Histogram, negatives: _Histogram, std: float) -> frozenset[str]:
    """Metrics that say nothing here: what they are divided by is within four standard deviations of nobody."""
    least = 2 * estimates.Z * std * math.sqrt(len(positives))
    by_class = {"auc", "sensitivity"} if min(positives.sum(), negatives.sum()) < least else set()
    of_all = {"accuracy", "brier", "loss"} if positives.sum() + negatives.sum() < math.sqrt(2) * least else set()
    return frozenset(by_class | of_all)


def _kinds(evaluation: Evaluation) -> dict[str, tuple[Callable[[_Histogram, _Histogram], float | None], float]]:
    """For each metric with a value of its own: how it follows from the histograms, and the most it can be."""

    def area(positives: _Histogram, negatives: _Histogram) -> float | None:
        pairs = float(positives.sum() * negatives.sum())
        if positives.sum() < 1 or negatives.sum() < 1:
            return None
        return _within(float(positives @ (np.cumsum(negatives) - negatives / 2)) / pairs)

    def accuracy(positives: _Histogram, negatives: _Histogram) -> float | None:
        bins = len(positives)
        above = np.clip(np.arange(1, bins + 1) - evaluation.decision_threshold * bins, 0.0, 1.0)
        return _ratio(float(positives @ above + negatives @ (1 - above)), positives, negatives, 1.0)

    def brier(positives: _Histogram, negatives: _Histogram) -> float | None:
        middles = _middles(len(positives))
        return _ratio(float(positives @ (1 - middles) ** 2 + negatives @ middles**2), positives, negatives, 1.0)

    def loss(positives: _Histogram, negatives: _Histogram) -> float | None:
        middles = _middles(len(positives))
        total = float(-(positives @ np.log(middles)) - negatives @ np.log(1 - middles))
        return _ratio(total, positives, negatives, LOSS_PER_PATIENT_MAX)

    def sensitivity(positives: _Histogram, negatives: _Histogram) -> float | None:
        found = estimates.sensitivity_at(evaluation.specificity or 0.0, _monotone(positives), _monotone(negatives))
        return None if found is None else found.value

    every = {
        "auc": (area, 1.0),
        "accuracy": (accuracy, 1.0),
        "brier": (brier, 1.0),
        "loss": (loss, LOSS_PER_PATIENT_MAX),
        "sensitivity": (sensitivity, 1.0),
    }
    return {name: kind for name, kind in every.items() if name in evaluation.metrics}


def _sampled(name: str, positives: _Histogram, negatives: _Histogram, evaluation: Evaluation) -> Estimate | None:
    """The figure's interval as if there were no noise."""
    total, middles = float(positives.sum() + negatives.sum()), _middles(len(positives))
    if name == "auc":
        return estimates.area(positives, negatives)
    if name == "sensitivity":
        return estimates.sensitivity_at(evaluation.specificity or 0.0, positives, negatives)
    if name == "accuracy":
        above = np.clip(np.arange(1, len(middles) + 1) - evaluation.decision_threshold * len(middles), 0.0, 1.0)
        return estimates.share(float(positives @ above + negatives @ (1 - above)), total)
    errors = ((1 - middles) ** 2, middles**2) if name == "brier" else (-np.log(middles), -np.log(1 - middles))
    first, second = (float(positives @ errors[0] ** power + negatives @ errors[1] ** power) for power in (1, 2))
    return estimates.mean(first, second, total, lowest=0.0, highest=LOSS_PER_PATIENT_MAX)


def _calibration(
    positives: _Histogram, negatives: _Histogram, evaluation: Evaluation, std: float
) -> Iterator[CalibrationBin]:
    """The bins of the curve whose patients stand out of the noise; without intervals, which would not hold."""
    if "calibration" not in evaluation.metrics:
        return
    merged = len(positives) // evaluation.curve_bins
    middles = _middles(len(positives)).reshape(-1, merged)
    labelled, others = positives.reshape(-1, merged), negatives.reshape(-1, merged)
    counts = (labelled + others).sum(axis=1)
    for number, count in enumerate(counts):
        if count >= max(evaluation.smallest_cell, 2 * estimates.Z * std * math.sqrt(2 * merged)):
            score = float((labelled[number] + others[number]) @ middles[number] / count)
            rate = Estimate(value=_within(float(labelled[number].sum() / count)))
            yield CalibrationBin(number=number, patients=round(count), score=_within(score), rate=rate)


def _middles(bins: int) -> _Histogram:
    return (np.arange(bins) + 0.5) / bins


def _ratio(sum_of: float, positives: _Histogram, negatives: _Histogram, highest: float) -> float | None:
    total = float(positives.sum() + negatives.sum())
    return None if total < 1 else min(highest, max(0.0, sum_of / total))


def _within(value: float) -> float:
    return min(1.0, max(0.0, value))


def _monotone(histogram: _Histogram) -> _Histogram:
    """No negative bin and the same total: the counts above each score, made to rise from the top down."""
    total = max(0.0, float(histogram.sum()))
    above = np.maximum.accumulate(np.clip(np.cumsum(histogram[::-1]), 0.0, total))
    above[-1] = total
    return np.diff(above, prepend=0.0)[::-1]
