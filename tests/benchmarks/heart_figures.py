"""The heart study's quality, as figures: see `heart_disease.py`."""

import numpy as np

from tests.benchmarks import heart_disease
from tests.benchmarks.figures import Figure


def measure(seeds: int) -> list[Figure]:
    """Mean over complete runs of the study, each with fresh noise."""
    runs = heart_disease.measure(seeds).federated
    auc = [run.auc for run in runs]
    accuracy = [run.mean_site_accuracy for run in runs]
    return [
        Figure(
            name="heart_auc",
            value=float(np.mean(auc)),
            unit="AUC over all test patients",
            reference=heart_disease.AUC_TO_REACH,
            better="at least",
            spread=(min(auc), max(auc)),
        ),
        Figure(
            name="heart_mean_site_accuracy",
            value=float(np.mean(accuracy)),
            unit="mean over hospitals",
            reference=heart_disease.ACCURACY_TO_REACH,
            better="at least",
            spread=(min(accuracy), max(accuracy)),
        ),
    ]
