"""The global model on the patients this hospital set aside.

Everything here is exact and stays at the site, except what is put into the masked lanes: those are summed over
hospitals before anyone sees them. Unless the study has a budget for its test figures, they carry no noise and are
outside the (epsilon, delta) guarantee; reports say so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from consortium.contract.layout import LaneName
from consortium.contract.study import Evaluation as Wanted
from site_agent.cohort import Records
from site_agent.tally import Scores, metric_lanes
from site_agent.update import load_vector

_RECORDS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """One model on one hospital's held-out patients. It prints without its values."""

    scores: Scores
    wanted: Wanted

    @property
    def patients(self) -> int:
        """Patients set aside."""
        return len(self.scores)

    @property
    def correct(self) -> int:
        """Patients predicted on the right side of the decision threshold."""
        return self.scores.correct(self.wanted.decision_threshold)

    @property
    def accuracy(self) -> float:
        """Share of patients predicted right; 0 for none."""
        return self.correct / max(1, self.patients)

    @property
    def loss_sum(self) -> float:
        """Cross-entropy in nats over all patients, each patient's cut at LOSS_PER_PATIENT_MAX."""
        return float(self.scores.losses.sum())

    @property
    def exact_auc(self) -> float | None:
        """Area under the ROC curve of the scores themselves; None when one class is missing."""
        return self.scores.auc()

    def lanes(self) -> Mapping[LaneName, NDArray[np.float64]]:
        """What goes into the metric lanes of a round (`consortium.contract.layout`); a layout may not have them all."""
        return metric_lanes(self.scores, self.wanted)

    def own_figures(self) -> dict[str, Any]:
        """For the hospital's own eyes: exact, from the scores themselves, with every cell however small."""
        groups = [
            {"column": subgroup.column, "group": subgroup.name_of(cell), **self._of(self.scores.of_cell(number, cell))}
            for number, subgroup in enumerate(self.wanted.subgroups or ())
            for cell in range(subgroup.cells)
        ]
        return self._of(self.scores) | ({"subgroups": groups} if groups else {})

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


def evaluate(
    module: nn.Module,
    model: NDArray[np.float32],
    test: Records,
    wanted: Wanted,
    groups: NDArray[np.int64] | None = None,
) -> Evaluation:
    """Measure a global model on every held-out patient.

    Args:
        module: The study's network, from `networks.build_from`; its parameters are overwritten.
        model: float32[d], the global model.
        test: The cohort's test part.
        wanted: The study's section on evaluation.
        groups: int64[patients, subgroups], `Cohort.test_groups`; None puts every patient in no cell.

    Raises:
        TrainingFailed: The model does not fit the network.
    """
    scores, positive = score_patients(module, model, test)
    if groups is None:
        groups = np.full((len(scores), len(wanted.subgroups or ())), -1, dtype=np.int64)
    return Evaluation(scores=Scores(scores=scores, positive=positive, groups=groups), wanted=wanted)


def score_patients(
    module: nn.Module, model: NDArray[np.float32], test: Records
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Score and label of every patient, by the patients' numbers: float64[patients] in [0, 1] and bool[patients].

    A patient's score is the mean probability over the patient's records, and the patient has the label if one of the
    records has it. A record the network cannot score (NaN) counts as 0.5.
    """
    load_vector(module, model)
    probabilities = _probabilities(module, test.features)
    _, owner, counts = np.unique(test.patients, return_inverse=True, return_counts=True)
    scores = np.bincount(owner, weights=probabilities, minlength=len(counts)) / np.maximum(counts, 1)
    labelled = np.bincount(owner, weights=test.labels > 0, minlength=len(counts))
    return np.clip(scores, 0.0, 1.0), labelled > 0


def _probabilities(module: nn.Module, features: NDArray[np.float32]) -> NDArray[np.float64]:
    module.eval()
    parts = [np.zeros(0)]
    with torch.inference_mode():
        for start in range(0, len(features), _RECORDS_AT_ONCE):
            rows = torch.tensor(features[start : start + _RECORDS_AT_ONCE], dtype=torch.float32)
            parts.append(torch.sigmoid(module(rows).squeeze(1).double()).numpy())
    return np.nan_to_num(np.concatenate(parts), nan=0.5)
