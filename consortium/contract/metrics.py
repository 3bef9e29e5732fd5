"""Sums over hospitals -> the figures of the global model (protocol section 5, metric lanes).

Nobody sees a hospital's own score: the coordinator holds sums of counts and of score histograms, and everything here
follows from those. numpy only, because the coordinator computes it. `estimates.py` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consortium.contract import estimates
from consortium.contract.class_metrics import ClassFigures, class_figures, named_estimate
from consortium.contract.estimates import Estimate
from consortium.contract.layout import LOSS_PER_PATIENT_MAX, LaneName, spread_figures
from consortium.contract.study import Evaluation
from consortium.contract.subgroups import all_cells
from privacy.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL_SITES_MIN = 2
"""A cell to which fewer hospitals contributed is withheld: its sum would be one hospital's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How a global model did on some patients; None where a metric was not asked for or has no meaning there."""

    patients: int
    auc: Estimate | None = None
    accuracy: Estimate | None = None
    loss: Estimate | None = None  # mean over patients, nats
    brier: Estimate | None = None  # mean of (score - label)^2
    sensitivity: Estimate | None = None  # at the study's specificity among the same patients
    score: float | None = None  # mean score, to be compared with
    rate: float | None = None  # the share of patients with the label


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """The patients whose scores lie in one bin: what was predicted for them and what is so."""

    number: int  # bin i holds scores from i / bins to (i + 1) / bins
    patients: int
    score: float  # mean
    rate: Estimate  # share with the label


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure of every hospital by itself, over hospitals that each weigh the same."""

    sites: int  # that have the figure
    mean: float
    deviation: float | None  # standard deviation over hospitals (n - 1); None for one


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One group of patients, as far as it may be shown."""

    subgroup: int  # place in the study's list
    cell: int  # place in that subgroup
    sites: int  # hospitals that contributed
    figures: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalMetrics:
    """A global model over all patients that the hospitals set aside."""

    sites: int  # hospitals that shared metrics
    overall: Figures
    mean_site_accuracy: float | None = None  # over hospitals, each weighing the same
    calibration: tuple[CalibrationBin, ...] = ()
    calibration_error: float | None = None  # mean over patients of |mean score - rate| of the patient's bin
    spread: Mapping[str, Spread]
    cells: tuple[Cell, ...] = ()  # those that are shown
    classes: ClassFigures | None = None  # of a label with several

    def named(self) -> dict[str, float]:
        """Every figure that has a meaning, by the name it has in the log and in `consortium status --json`."""
        return {name: float(value) for name, value in self._names() if value is not None}

    def _names(self) -> Iterator[tuple[str, float | None]]:
        yield "sites", self.sites
        yield from _named("", self.overall)
        yield "mean_site_accuracy", self.mean_site_accuracy
        if self.classes is not None:
            yield from self.classes.named()
        yield "calibration.error", self.calibration_error
        for one in self.calibration:
            prefix = f"calibration.{one.number}."
            yield f"{prefix}patients", one.patients
            yield f"{prefix}score", one.score
            yield f"{prefix}rate", one.rate.value
            yield f"{prefix}rate.low", one.rate.low
            yield f"{prefix}rate.high", one.rate.high
        for name, spread in self.spread.items():
            yield f"spread.{name}.sites", spread.sites
            yield f"spread.{name}.mean", spread.mean
            yield f"spread.{name}.deviation", spread.deviation
        for cell in self.cells:
            prefix = f"group.{cell.subgroup}.{cell.cell}."
            yield f"{prefix}sites", cell.sites
            yield from _named(prefix, cell.figures)


def metrics_of(sums: Mapping[str, NDArray[np.float64]], evaluation: Evaluation) -> GlobalMetrics:
    """The figures that the decoded metric lanes of one aggregate hold; lanes that are missing give None.

    Args:
        sums: By lane name, the sum over the survivors.
        evaluation: The study's section, which says how the lanes are divided.
    """
    sites = round(_total(sums, LaneName.SITES_REPORTING) or 0)
    bins, bin_error = _calibration(sums, evaluation.smallest_cell)
    return GlobalMetrics(
        sites=sites,
        overall=_overall(sums, evaluation),
        mean_site_accuracy=_ratio(_total(sums, LaneName.SITE_ACCURACY), sites),
        calibration=bins,
        calibration_error=bin_error,
        spread=dict(_spread(sums, evaluation)),
        cells=tuple(_cells(sums, evaluation)),
        classes=class_figures(sums, evaluation),
    )


def _overall(sums: Mapping[str, NDArray[np.float64]], evaluation: Evaluation) -> Figures:
    labelled = scores = None
    if LaneName.CALIBRATION_SCORES in sums:
        labelled = _total(sums, LaneName.CALIBRATION_POSITIVE)
        scores = _total(sums, LaneName.CALIBRATION_SCORES)
    loss, squares = sums.get(LaneName.LOSS_SUM), sums.get(LaneName.LOSS_SQUARES)
    return _figures(
        evaluation,
        patients=_total(sums, LaneName.TEST_PATIENTS) or 0.0,
        correct=_total(sums, LaneName.CORRECT),
        loss=None if loss is None or squares is None else np.concatenate([loss, squares]),
        squared_error=sums.get(LaneName.SQUARED_ERROR),
        positives=sums.get(LaneName.SCORES_POSITIVE),
        negatives=sums.get(LaneName.SCORES_NEGATIVE),
        labelled=labelled,
        scores=scores,
    )


def _cells(sums: Mapping[str, NDArray[np.float64]], evaluation: Evaluation) -> Iterator[Cell]:
    """The cells that enough hospitals contributed to and that are large enough; the others are left out whole."""
    counts, sites = sums.get(LaneName.SUBGROUP_PATIENTS), sums.get(LaneName.SUBGROUP_SITES)
    if counts is None or sites is None:
        return
    places = all_cells(evaluation.subgroups)
    for index, (subgroup, cell) in enumerate(places):
        if round(sites[index]) < CELL_SITES_MIN or counts[index] < evaluation.smallest_cell:
            continue

        def part(lane: LaneName, index: int = index) -> NDArray[np.float64] | None:
            values = sums.get(lane)
            return None if values is None else values.reshape(len(places), -1)[index]

        correct, labelled = part(LaneName.SUBGROUP_CORRECT), part(LaneName.SUBGROUP_LABELLED)
        scores = part(LaneName.SUBGROUP_SCORES)
        figures = _figures(
            evaluation,
            patients=float(counts[index]),
            correct=None if correct is None else float(correct[0]),
            loss=part(LaneName.SUBGROUP_LOSS),
            squared_error=part(LaneName.SUBGROUP_SQUARED_ERROR),
            positives=part(LaneName.SUBGROUP_POSITIVE),
            negatives=part(LaneName.SUBGROUP_NEGATIVE),
            labelled=None if labelled is None else float(labelled[0]),
            scores=None if scores is None else float(scores[0]),
        )
        yield Cell(subgroup=subgroup, cell=cell, sites=round(sites[index]), figures=figures)


def _figures(
    evaluation: Evaluation,
    *,
    patients: float,
    correct: float | None,
    loss: NDArray[np.float64] | None,  # [2]: sum, sum of squares
    squared_error: NDArray[np.float64] | None,  # [2]: likewise
    positives: NDArray[np.float64] | None,
    negatives: NDArray[np.float64] | None,
    labelled: float | None,
    scores: float | None,
) -> Figures:
    auc = sensitivity = None
    if positives is not None and negatives is not None:
        auc = estimates.area(positives, negatives) if "auc" in evaluation.metrics else None
        if evaluation.specificity is not None:
            sensitivity = estimates.sensitivity_at(evaluation.specificity, positives, negatives)
    return Figures(
        patients=round(patients),
        auc=auc,
        accuracy=None if correct is None else estimates.share(correct, patients),
        loss=_mean(loss, patients, LOSS_PER_PATIENT_MAX),
        brier=_mean(squared_error, patients, 1.0),
        sensitivity=sensitivity,
        score=_ratio(scores, patients),
        rate=_ratio(labelled, patients),
    )


def _mean(sums: NDArray[np.float64] | None, patients: float, highest: float) -> Estimate | None:
    if sums is None:
        return None
    return estimates.mean(float(sums[0]), float(sums[1]), patients, lowest=0.0, highest=highest)


def _calibration(
    sums: Mapping[str, NDArray[np.float64]], minimum_cell: int
) -> tuple[tuple[CalibrationBin, ...], float | None]:
    """The bins with enough patients, and the error over all of them, small ones included."""
    positives, negatives = sums.get(LaneName.CALIBRATION_POSITIVE), sums.get(LaneName.CALIBRATION_NEGATIVE)
    scores = sums.get(LaneName.CALIBRATION_SCORES)
    if positives is None or negatives is None or scores is None:
        return (), None
    counts = positives + negatives
    total = float(counts.sum())
    if total <= 0:
        return (), None
    bins = []
    for number, (count, labelled, score) in enumerate(zip(counts, positives, scores, strict=True)):
        rate = estimates.share(float(labelled), float(count))
        if rate is not None and count >= minimum_cell:
            mean = min(1.0, max(0.0, float(score / count)))
            bins.append(CalibrationBin(number=number, patients=round(count), score=mean, rate=rate))
    return tuple(bins), min(1.0, float(np.abs(scores - positives).sum()) / total)


def _spread(sums: Mapping[str, NDArray[np.float64]], evaluation: Evaluation) -> Iterator[tuple[str, Spread]]:
    figures, counted = sums.get(LaneName.SITE_FIGURES), sums.get(LaneName.SITE_COUNTED)
    if figures is None or counted is None:
        return
    names = spread_figures(evaluation)
    for name, total, squares, count in zip(names, figures[: len(names)], figures[len(names) :], counted, strict=True):
        sites = round(count)
        if sites == 0:
            continue
        mean, unit = float(total / sites), LOSS_PER_PATIENT_MAX if name == "loss" else 1.0
        variance = max(0.0, float(squares) - sites * mean**2) / (sites - 1) if sites > 1 else None
        deviation = None if variance is None else unit * math.sqrt(variance)
        yield name, Spread(sites=sites, mean=unit * mean, deviation=deviation)


def _named(prefix: str, figures: Figures) -> Iterator[tuple[str, float | None]]:
    yield f"{prefix}patients", figures.patients
    for name in ("auc", "accuracy", "loss", "brier", "sensitivity"):
        yield from named_estimate(f"{prefix}{name}", getattr(figures, name))
    yield f"{prefix}score", figures.score
    yield f"{prefix}rate", figures.rate


def _total(sums: Mapping[str, NDArray[np.float64]], lane: LaneName) -> float | None:
    values = sums.get(lane)
    return None if values is None else float(np.sum(values))


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None
