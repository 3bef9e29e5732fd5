"""Probabilities and classes of one hospital's test patients -> the numbers in its metric lanes (numpy only, pure).

What `tally.py` does for a binary label, for one of several classes. Everything here is summed over all patients; there
are no groups of patients with such labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consortium.contract.layout import LOSS_PER_PATIENT_MAX, LaneName
from consortium.contract.study import Evaluation as Wanted
from privacy.lazy_numpy import np
from site_agent.tally import bins_of, exact_auc, lanes_of_everybody, spread_lanes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassScores:
    """One model's probabilities for one hospital's test patients. It prints without its values."""

    probabilities: NDArray[np.float64]  # [patients, classes], 0 to 1; those of a patient add up to 1
    labels: NDArray[np.int64]  # [patients]: the place of the patient's class in the study's values

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.probabilities.shape[1])

    @property
    def predicted(self) -> NDArray[np.int64]:
        """[patients]: the class with the highest probability, the first of several."""
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1).astype(np.int64)
        return found

    @property
    def correct(self) -> int:
        """Patients whose class is the predicted one."""
        return int((self.predicted == self.labels).sum())

    @property
    def losses(self) -> NDArray[np.float64]:
        """[patients]: cross-entropy in nats, cut at LOSS_PER_PATIENT_MAX."""
        with np.errstate(divide="ignore"):
            losses = -np.log(self.probabilities[np.arange(len(self)), self.labels])
        return np.minimum(losses, LOSS_PER_PATIENT_MAX)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """[classes, classes]: patients by class and predicted class."""
        cells = self.labels * self.classes + self.predicted
        return np.bincount(cells, minlength=self.classes**2).reshape(self.classes, self.classes)

    def histograms(self, bins: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each class the patients of it, and those of the others, by the probability of it: [classes, bins]."""
        places = bins_of(self.probabilities, bins) + bins * np.arange(self.classes)
        of_class = self.labels[:, None] == np.arange(self.classes)
        first, second = (np.bincount(places[chosen], minlength=self.classes * bins) for chosen in (of_class, ~of_class))
        return first.reshape(-1, bins), second.reshape(-1, bins)

    def auc(self) -> float | None:
        """Mean over classes of the exact area of each against the others; of those that can have one, if any."""
        areas = [exact_auc(self.probabilities[:, one], self.labels == one) for one in range(self.classes)]
        known = [area for area in areas if area is not None]
        return float(np.mean(known)) if known else None

    def lanes(self, wanted: Wanted) -> dict[LaneName, NDArray[np.float64]]:
        """What goes into the metric lanes of a round (`consortium.contract.layout`); a layout may not have them all."""
        of_class, others = self.histograms(wanted.score_bins)
        patients = max(1, len(self))
        own = {
            "auc": self.auc(),
            "accuracy": self.correct / patients,
            "loss": float(self.losses.sum()) / patients / LOSS_PER_PATIENT_MAX,
        }
        return {
            **lanes_of_everybody(self.losses),
            LaneName.CORRECT: np.array([float(self.correct)]),
            LaneName.SITE_ACCURACY: np.array([self.correct / patients]),
            LaneName.CONFUSION: self.confusion.reshape(-1).astype(np.float64),
            LaneName.CLASS_POSITIVE: of_class.reshape(-1).astype(np.float64),
            LaneName.CLASS_NEGATIVE: others.reshape(-1).astype(np.float64),
            **spread_lanes(own if len(self) else {}, wanted),
        }

    def own_figures(self) -> dict[str, Any]:
        """For the hospital's own eyes: exact, with every class however small."""
        patients = max(1, len(self))
        return {
            "patients": len(self),
            "accuracy": self.correct / patients,
            "auc": self.auc(),
            "loss": float(self.losses.sum()) / patients,
            "confusion": self.confusion.tolist(),
        }

    def __repr__(self) -> str:
        return "ClassScores()"
