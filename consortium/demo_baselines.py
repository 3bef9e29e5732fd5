"""What the demo compares with: each hospital alone, and all records in one place. Neither has any privacy.

Only a demonstration can do this, because only here are all hospitals' records on one machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from site_agent.cohort import Cohort
from site_agent.tally import exact_auc


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """One model on held-out patients. None where a figure has no meaning, such as an AUC with one class only."""

    auc_all: float | None  # over the test patients of all hospitals together
    accuracy_all: float
    auc_here: Mapping[str, float | None]  # by hospital, over its own test patients
    accuracy_here: Mapping[str, float]

    @property
    def mean_site_accuracy(self) -> float:
        """Mean over hospitals, each weighing the same."""
        return float(np.mean(list(self.accuracy_here.values())))


def pooled(cohorts: Mapping[str, Cohort], threshold: float) -> Baseline:
    """Logistic regression on all training patients in one place."""
    features = np.concatenate([cohort.train.features for cohort in cohorts.values()])
    labels = np.concatenate([cohort.train.labels for cohort in cohorts.values()])
    return measure(_fit(features, labels), cohorts, threshold)


def alone(cohorts: Mapping[str, Cohort], threshold: float) -> dict[str, Baseline | None]:
    """Each hospital's own logistic regression; None where its training patients are all of one class."""
    return {
        name: measure(_fit(cohort.train.features, cohort.train.labels), cohorts, threshold)
        if len(np.unique(cohort.train.labels)) == 2
        else None
        for name, cohort in cohorts.items()
    }


def measure(model: LogisticRegression, cohorts: Mapping[str, Cohort], threshold: float) -> Baseline:
    """A fitted model on everybody's held-out patients."""
    scores = {name: model.predict_proba(cohort.test.features)[:, 1] for name, cohort in cohorts.items()}
    labels = {name: cohort.test.labels > 0 for name, cohort in cohorts.items()}
    all_scores, all_labels = _joined(list(scores.values())), _joined(list(labels.values()))
    return Baseline(
        auc_all=exact_auc(all_scores, all_labels),
        accuracy_all=float(((all_scores > threshold) == all_labels).mean()),
        auc_here={name: exact_auc(scores[name], labels[name]) for name in cohorts},
        accuracy_here={name: float(((scores[name] > threshold) == labels[name]).mean()) for name in cohorts},
    )


def _fit(features: NDArray[np.float32], labels: NDArray[np.float32]) -> LogisticRegression:
    return LogisticRegression(max_iter=1000).fit(features, labels)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts)
