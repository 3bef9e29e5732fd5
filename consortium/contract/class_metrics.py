"""Sums over hospitals -> the figures of a label with several classes: one-versus-rest AUC, confusion, Dice.

What `metrics.py` does for everybody, here for each class; numpy only. The minimum of a cell is the study's: a class
with fewer patients in the sum has no figures of its own, and small cells of the confusion matrix are left out together
with as many others as it takes that they cannot be found by subtraction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consortium.contract import estimates
from consortium.contract.estimates import Estimate
from consortium.contract.layout import DICE_BINS, LaneName
from consortium.contract.study import Evaluation
from privacy.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES = {"p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9}
"""What a box plot of Dice is drawn from, by the names in the log."""

FOREGROUND = 0
"""The place in the Dice lanes of the mean over all classes but the background, whose own place it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiceFigures:
    """Dice of one class over the patients who have one, or of the foreground: each patient's mean over the classes."""

    place: int  # in the label's values; FOREGROUND for the mean
    patients: int
    mean: Estimate
    deviation: float | None  # standard deviation over patients; None for one
    quantiles: Mapping[str, float]  # by the names of QUANTILES; empty where there are too few patients

    def named(self) -> Iterator[tuple[str, float | None]]:
        """Every figure with its name in the log."""
        name = "dice" if self.place == FOREGROUND else f"dice.{self.place}"
        yield from named_estimate(name, self.mean)
        yield f"{name}.patients", self.patients
        yield f"{name}.deviation", self.deviation
        for quantile, value in self.quantiles.items():
            yield f"{name}.{quantile}", value


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """What is known of single classes; places count the label's values from 0."""

    auc: Estimate | None = None  # mean over classes of each against the others
    areas: Mapping[int, Estimate]  # by class
    confusion: Mapping[tuple[int, int], int]  # (class, predicted class): patients; without what is withheld
    dice: tuple[DiceFigures, ...] = ()

    def named(self) -> Iterator[tuple[str, float | None]]:
        """Every figure with its name in the log."""
        yield from named_estimate("auc", self.auc)
        for place, area in self.areas.items():
            yield from named_estimate(f"auc.{place}", area)
        for (label, predicted), patients in self.confusion.items():
            yield f"confusion.{label}.{predicted}", patients
        for one in self.dice:
            yield from one.named()


def class_figures(sums: Mapping[str, NDArray[np.float64]], evaluation: Evaluation) -> ClassFigures:
    """What the lanes of a label with several classes hold; lanes that are missing give nothing.

    Args:
        sums: By lane name, the sum over the survivors.
        evaluation: The study's section.
    """
    minimum_cell = evaluation.smallest_cell
    areas: dict[int, Estimate] = {}
    auc = None
    if LaneName.CLASS_POSITIVE in sums and LaneName.CLASS_NEGATIVE in sums:
        positives, negatives = (
            sums[lane].reshape(-1, evaluation.score_bins) for lane in (LaneName.CLASS_POSITIVE, LaneName.CLASS_NEGATIVE)
        )
        auc = estimates.mean_area(positives, negatives)
        for place, (of_class, others) in enumerate(zip(positives, negatives, strict=True)):
            area = estimates.area(of_class, others)
            if area is not None and min(of_class.sum(), others.sum()) >= minimum_cell:
                areas[place] = area
    confusion = sums.get(LaneName.CONFUSION)
    return ClassFigures(
        auc=auc,
        areas=areas,
        confusion={} if confusion is None else shown_confusion(_square(confusion), minimum_cell),
        dice=tuple(_dice(sums, minimum_cell)),
    )


def shown_confusion(counts: NDArray[np.int64], minimum_cell: int) -> dict[tuple[int, int], int]:
    """The cells of a confusion matrix that may be shown: none of 1 to `minimum_cell` - 1 patients.

    The sum of the diagonal is known from the accuracy, and so is that of the rest. In each of the two the cells left
    out therefore hold `minimum_cell` patients or more together; if the small ones do not, the smallest of the others
    are left out as well, and if that is not enough, all of that part, cells of nobody too. Rows and columns have no
    sums that anybody is told.

    Args:
        counts: int64[classes, classes], patients by class and predicted class.
        minimum_cell: At least 1.
    """
    diagonal = np.eye(len(counts), dtype=np.bool_)
    shown = np.zeros(counts.shape, dtype=np.bool_)
    for part in (diagonal, ~diagonal):
        places = np.flatnonzero(part)
        places = places[np.argsort(counts.flat[places], kind="stable")]
        values = counts.flat[places]
        hidden = (values != 0) & (values < minimum_cell)
        if hidden.any():
            # By rising size: those that are too small, then as many more as it takes.
            enough = np.cumsum(values) - values >= minimum_cell
            hidden |= (values != 0) & ~enough
            hidden |= values[hidden].sum() < minimum_cell
        shown.flat[places[~hidden]] = True
    return {(int(row), int(column)): int(counts[row, column]) for row, column in np.argwhere(shown)}


def named_estimate(name: str, estimate: Estimate | None) -> Iterator[tuple[str, float | None]]:
    """A figure and its bounds with their names in the log; nothing for None."""
    if estimate is not None:
        yield name, estimate.value
        yield f"{name}.low", estimate.low
        yield f"{name}.high", estimate.high


def _square(confusion: NDArray[np.float64]) -> NDArray[np.int64]:
    classes = math.isqrt(len(confusion))
    return np.rint(confusion).astype(np.int64).reshape(classes, classes)


def _dice(sums: Mapping[str, NDArray[np.float64]], minimum_cell: int) -> Iterator[DiceFigures]:
    patients, totals = sums.get(LaneName.DICE_PATIENTS), sums.get(LaneName.DICE_SUMS)
    histograms = sums.get(LaneName.DICE_HISTOGRAM)
    if patients is None or totals is None or histograms is None:
        return
    for place, (count, total, squares, histogram) in enumerate(
        zip(patients, *totals.reshape(2, -1), histograms.reshape(-1, DICE_BINS), strict=True)
    ):
        if place != FOREGROUND and count < minimum_cell:
            continue
        mean = estimates.mean(float(total), float(squares), float(count), lowest=0.0, highest=1.0)
        if mean is None:
            continue
        # In a small ring the sums travel in coarse steps, so the difference may come out below 0.
        variance = max(0.0, float(squares) - float(count) * mean.value**2) / max(1.0, count - 1)
        enough = float(histogram.sum()) >= minimum_cell
        yield DiceFigures(
            place=place,
            patients=round(count),
            mean=mean,
            deviation=math.sqrt(variance) if count > 1 else None,
            quantiles=dict(zip(QUANTILES, estimates.quantiles(histogram, tuple(QUANTILES.values())), strict=True))
            if enough
            else {},
        )
