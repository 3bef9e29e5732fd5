"""Scores and labels of one hospital's test patients -> the numbers in its metric lanes (numpy only, pure).

A small cell of a subgroup is withheld here, before anything is masked: the coordinator must not learn it, and a sum in
which the other hospitals have nothing would be it. What is withheld is zeros, in every lane of the cell.

That alone would give it away: everybody minus the cells that are shown is whoever is not shown, and where one hospital
alone withholds, that is its own. So every hospital also keeps a cover out of its cells: `minimum_cell` test patients
chosen at random, the same in every round. They are in the figures over everybody, so that this difference is always a
sum over all hospitals, of at least `minimum_cell` patients of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consortium.contract.layout import LOSS_PER_PATIENT_MAX, LaneName, spread_figures
from consortium.contract.study import Evaluation as Wanted
from consortium.contract.subgroups import all_cells
from privacy.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COVER_SEED = 20260101  # public: what it chooses from is not


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """One model's scores of one hospital's test patients. It prints without its values."""

    scores: NDArray[np.float64]  # [patients], 0 to 1
    positive: NDArray[np.bool_]  # [patients]: has the label
    groups: NDArray[np.int64]  # [patients, subgroups]: the cell in each of the study's subgroups, -1 for none

    def __len__(self) -> int:
        return len(self.scores)

    def of(self, chosen: NDArray[np.bool_]) -> Scores:
        """Those of some patients, bool[patients]."""
        return Scores(scores=self.scores[chosen], positive=self.positive[chosen], groups=self.groups[chosen])

    def of_cell(self, subgroup: int, cell: int) -> Scores:
        """Those of the patients in one cell."""
        return self.of(self.groups[:, subgroup] == cell)

    def histograms(self, bins: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Patients with the label, and without it, by score: int64[bins] each, bin i holding [i, i + 1) / bins."""
        places = bins_of(self.scores, bins)
        with_label = np.bincount(places[self.positive], minlength=bins)
        return with_label, np.bincount(places[~self.positive], minlength=bins)

    @property
    def losses(self) -> NDArray[np.float64]:
        """[patients]: cross-entropy in nats, cut at LOSS_PER_PATIENT_MAX."""
        with np.errstate(divide="ignore"):
            losses = -np.log(np.where(self.positive, self.scores, 1 - self.scores))
        return np.minimum(losses, LOSS_PER_PATIENT_MAX)

    @property
    def squared_errors(self) -> NDArray[np.float64]:
        """[patients]: (score - label)^2, 0 to 1."""
        return np.square(self.scores - self.positive)

    def correct(self, decision_threshold: float) -> int:
        """Patients on the right side of the threshold; the label is predicted above it."""
        return int(((self.scores > decision_threshold) == self.positive).sum())

    def auc(self) -> float | None:
        """The exact area under the ROC curve; None if a class is missing."""
        return exact_auc(self.scores, self.positive)

    def sensitivity(self, specificity: float) -> float | None:
        """The share with the label above the lowest score that at least `specificity` of those without do not pass.

        None if a class is missing.
        """
        above, below = self.scores[self.positive], np.sort(self.scores[~self.positive])
        if not len(above) or not len(below):
            return None
        limit = below[max(0, math.ceil(specificity * len(below) - 1e-9) - 1)]
        return float((above > limit).mean())

    def __repr__(self) -> str:
        return "Scores()"


def exact_auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Probability that a patient with the label scores above one without, ties half; None if a class is missing."""
    above, below = scores[positive], np.sort(scores[~positive])
    if not len(above) or not len(below):
        return None
    wins = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(wins.sum() / (2 * len(above) * len(below)))


def metric_lanes(scores: Scores, wanted: Wanted) -> dict[LaneName, NDArray[np.float64]]:
    """What goes into the metric lanes of a round (`consortium.contract.layout`); a layout may not have them all."""
    positives, negatives = scores.histograms(wanted.score_bins)
    calibrated = scores.histograms(wanted.curve_bins)
    losses, errors = scores.losses, scores.squared_errors
    correct = scores.correct(wanted.decision_threshold)
    lanes: dict[LaneName, NDArray[np.float64]] = {
        **lanes_of_everybody(losses),
        LaneName.CORRECT: np.array([float(correct)]),
        LaneName.SITE_ACCURACY: np.array([correct / max(1, len(scores))]),
        LaneName.SQUARED_ERROR: np.array([errors.sum(), np.square(errors).sum()]),
        LaneName.SCORES_POSITIVE: positives.astype(np.float64),
        LaneName.SCORES_NEGATIVE: negatives.astype(np.float64),
        LaneName.CALIBRATION_POSITIVE: calibrated[0].astype(np.float64),
        LaneName.CALIBRATION_NEGATIVE: calibrated[1].astype(np.float64),
        LaneName.CALIBRATION_SCORES: np.bincount(
            bins_of(scores.scores, wanted.curve_bins), weights=scores.scores, minlength=wanted.curve_bins
        ).astype(np.float64),
    }
    return lanes | spread_lanes(_own_figures(scores, correct), wanted) | _subgroup_lanes(scores, wanted)


def lanes_of_everybody(losses: NDArray[np.float64]) -> dict[LaneName, NDArray[np.float64]]:
    """The lanes that every label has, from the loss of each test patient in nats."""
    return {
        LaneName.SITES_REPORTING: np.ones(1),
        LaneName.TEST_PATIENTS: np.array([float(len(losses))]),
        LaneName.LOSS_SUM: np.array([losses.sum()]),
        LaneName.LOSS_SQUARES: np.array([np.square(losses).sum()]),
    }


def covered(patients: int, minimum_cell: int) -> NDArray[np.bool_]:
    """bool[patients]: who is the cover and in no cell; everybody of a hospital with no more than `minimum_cell`.

    The choice is by the patients' places in the file alone, so it is the same in every round: if it changed, the
    difference of two rounds would be single patients.
    """
    cover = np.zeros(patients, dtype=np.bool_)
    cover[np.random.default_rng(_COVER_SEED).permutation(patients)[:minimum_cell]] = True
    return cover


def spread_lanes(own: Mapping[str, float | None], wanted: Wanted) -> dict[LaneName, NDArray[np.float64]]:
    """A hospital's own figures, each within 0 and 1, for mean and standard deviation over hospitals."""
    figures = [own.get(name) for name in spread_figures(wanted)]
    values = np.array([figure or 0.0 for figure in figures])
    return {
        LaneName.SITE_FIGURES: np.concatenate([values, np.square(values)]),
        LaneName.SITE_COUNTED: np.array([float(figure is not None) for figure in figures]),
    }


def bins_of(scores: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """In which of so many bins of equal width each value between 0 and 1 lies; bin i holds [i, i + 1) / bins."""
    return np.minimum((scores * bins).astype(np.int64), bins - 1)


def _own_figures(scores: Scores, correct: int) -> dict[str, float | None]:
    """This hospital's own figures within 0 and 1."""
    patients = len(scores)
    if not patients:
        return {}
    return {
        "auc": scores.auc(),
        "accuracy": correct / patients,
        "brier": float(scores.squared_errors.mean()),
        "loss": float(scores.losses.mean()) / LOSS_PER_PATIENT_MAX,
    }


def _subgroup_lanes(scores: Scores, wanted: Wanted) -> dict[LaneName, NDArray[np.float64]]:
    if not wanted.subgroups:
        return {}
    open_to_cells = scores.of(~covered(len(scores), wanted.smallest_cell))
    found = [open_to_cells.of_cell(*cell) for cell in all_cells(wanted.subgroups)]
    nobody = scores.of(np.zeros(len(scores), dtype=np.bool_))
    shown = [len(part) >= wanted.smallest_cell for part in found]
    parts = [part if is_shown else nobody for part, is_shown in zip(found, shown, strict=True)]
    errors, losses = [part.squared_errors for part in parts], [part.losses for part in parts]
    histograms = [part.histograms(wanted.cell_bins) for part in parts]
    return {
        LaneName.SUBGROUP_SITES: np.array(shown, dtype=np.float64),
        LaneName.SUBGROUP_PATIENTS: np.array([float(len(part)) for part in parts]),
        LaneName.SUBGROUP_CORRECT: np.array([float(part.correct(wanted.decision_threshold)) for part in parts]),
        LaneName.SUBGROUP_LOSS: np.array([[one.sum(), np.square(one).sum()] for one in losses]).reshape(-1),
        LaneName.SUBGROUP_SQUARED_ERROR: np.array([[one.sum(), np.square(one).sum()] for one in errors]).reshape(-1),
        LaneName.SUBGROUP_LABELLED: np.array([float(part.positive.sum()) for part in parts]),
        LaneName.SUBGROUP_SCORES: np.array([part.scores.sum() for part in parts]),
        LaneName.SUBGROUP_POSITIVE: np.concatenate([one[0] for one in histograms]).astype(np.float64),
        LaneName.SUBGROUP_NEGATIVE: np.concatenate([one[1] for one in histograms]).astype(np.float64),
    }
