"""The global model on the patients this hospital set aside.

Everything here is exact and stays at the site, except what is put into the masked lanes: those are summed over
hospitals before anyone sees them. The metrics carry no noise and are outside the (epsilon, delta) guarantee; reports
say so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from consortium.contract.layout import LOSS_PER_PATIENT_MAX, LaneName
from site_agent.cohort import Records
from site_agent.update import load_vector

_RECORDS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """One model on one hospital's held-out patients. It prints without its values."""

    patients: int
    correct: int  # predicted on the right side of the decision threshold
    loss_sum: float  # cross-entropy in nats, each patient's cut at LOSS_PER_PATIENT_MAX
    positives: NDArray[np.int64]  # [bins]: patients with the label by score, bin i holding [i, i+1) / bins
    negatives: NDArray[np.int64]  # [bins]: patients without it
    exact_auc: float | None  # None when one class is missing

    @property
    def accuracy(self) -> float:
        """Share of patients predicted right; 0 for none."""
        return self.correct / max(1, self.patients)

    def lanes(self) -> Mapping[LaneName, NDArray[np.float64]]:
        """What goes into the metric lanes of a round (`consortium.contract.layout`); a layout may not have them all."""
        return {
            LaneName.SITES_REPORTING: np.ones(1),
            LaneName.TEST_PATIENTS: np.array([float(self.patients)]),
            LaneName.CORRECT: np.array([float(self.correct)]),
            LaneName.SITE_ACCURACY: np.array([self.accuracy]),
            LaneName.LOSS_SUM: np.array([self.loss_sum]),
            LaneName.SCORES_POSITIVE: self.positives.astype(np.float64),
            LaneName.SCORES_NEGATIVE: self.negatives.astype(np.float64),
        }

    def __repr__(self) -> str:
        return "Evaluation()"


def evaluate(
    module: nn.Module, model: NDArray[np.float32], test: Records, *, score_bins: int, decision_threshold: float
) -> Evaluation:
    """Measure a global model on every held-out patient.

    Args:
        module: The study's network, from `networks.build_from`; its parameters are overwritten.
        model: float32[d], the global model.
        test: The cohort's test part.
        score_bins: Bins of the score histograms over [0, 1].
        decision_threshold: A patient above it is predicted to have the label.

    Raises:
        TrainingFailed: The model does not fit the network.
    """
    scores, positive = score_patients(module, model, test)
    bins = np.minimum((scores * score_bins).astype(np.int64), score_bins - 1)
    with np.errstate(divide="ignore"):
        losses = np.minimum(-np.log(np.where(positive, scores, 1 - scores)), LOSS_PER_PATIENT_MAX)
    return Evaluation(
        patients=len(scores),
        correct=int(((scores > decision_threshold) == positive).sum()),
        loss_sum=float(losses.sum()),
        positives=np.bincount(bins[positive], minlength=score_bins),
        negatives=np.bincount(bins[~positive], minlength=score_bins),
        exact_auc=exact_auc(scores, positive),
    )


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


def exact_auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Probability that a patient with the label scores above one without, ties half; None if a class is missing."""
    above, below = scores[positive], np.sort(scores[~positive])
    if not len(above) or not len(below):
        return None
    wins = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(wins.sum() / (2 * len(above) * len(below)))


def _probabilities(module: nn.Module, features: NDArray[np.float32]) -> NDArray[np.float64]:
    module.eval()
    parts = [np.zeros(0)]
    with torch.inference_mode():
        for start in range(0, len(features), _RECORDS_AT_ONCE):
            rows = torch.tensor(features[start : start + _RECORDS_AT_ONCE], dtype=torch.float32)
            parts.append(torch.sigmoid(module(rows).squeeze(1).double()).numpy())
    return np.nan_to_num(np.concatenate(parts), nan=0.5)
