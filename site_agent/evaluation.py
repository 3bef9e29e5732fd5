"""One model on one hospital's held-out patients, measured: the hospital's figures, and what lanes get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consortium.contract.layout import LaneName
from consortium.contract.study import Evaluation as Wanted
from privacy.lazy_numpy import np
from site_agent.tally import Scores, metric_lanes
from site_agent.training_room import Tally

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """One model on one hospital's held-out patients. It prints without its values."""

    scores: Tally
    wanted: Wanted

    @property
    def patients(self) -> int:
        """Patients set aside."""
        return len(self.scores)

    @property
    def loss_sum(self) -> float:
        """Cross-entropy in nats over all patients, each patient's cut at LOSS_PER_PATIENT_MAX."""
        return float(self.scores.losses.sum())

    def lanes(self) -> Mapping[LaneName, NDArray[np.float64]]:
        """What goes into the metric lanes of a round (`consortium.contract.layout`); a layout may not have them all."""
        if isinstance(self.scores, Scores):
            return metric_lanes(self.scores, self.wanted)
        return self.scores.lanes(self.wanted)

    def own_figures(self) -> dict[str, Any]:
        """For the hospital's own eyes: exact, from the scores themselves, with every cell however small."""
        if not isinstance(self.scores, Scores):
            return self.scores.own_figures()
        scores = self.scores
        groups = [
            {"column": subgroup.column, "group": subgroup.name_of(cell), **self._of(scores.of_cell(number, cell))}
            for number, subgroup in enumerate(self.wanted.subgroups or ())
            for cell in range(subgroup.cells)
        ]
        return self._of(scores) | ({"subgroups": groups} if groups else {})

    def _of(self, part: Scores) -> dict[str, Any]:
        patients = max(1, len(part))
        return {
            "patients": len(part),
            "accuracy": part.correct(self.wanted.decision_threshold) / patients,
            "auc": part.auc(),
            "loss": float(part.losses.sum()) / patients,
            "brier": float(part.squared_errors.sum()) / patients,
            "sensitivity": None if self.wanted.specificity is None else part.sensitivity(self.wanted.specificity),
            "score": float(part.scores.sum()) / patients,
            "rate": float(part.positive.sum()) / patients,
        }

    def __repr__(self) -> str:
        return "Evaluation()"
