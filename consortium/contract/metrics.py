"""Sums over hospitals -> the figures of the global model (protocol section 5, metric lanes).

Nobody sees a hospital's own score: the coordinator holds sums of counts and of score histograms, and everything here
follows from those. numpy only, because the coordinator computes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from consortium.contract.layout import LaneName


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalMetrics:
    """A global model over all patients that the hospitals set aside.

    None where a metric was not asked for or has no meaning, such as an AUC with patients of one class only.
    """

    sites: int  # hospitals that shared metrics
    patients: int
    auc: float | None
    accuracy: float | None  # over patients
    mean_site_accuracy: float | None  # over hospitals, each weighing the same
    loss: float | None  # mean over patients


def metrics_of(sums: Mapping[str, NDArray[np.float64]]) -> GlobalMetrics:
    """The figures that the decoded metric lanes of one aggregate hold; lanes that are missing give None."""
    sites, patients = _total(sums, LaneName.SITES_REPORTING), _total(sums, LaneName.TEST_PATIENTS)
    positives, negatives = sums.get(LaneName.SCORES_POSITIVE), sums.get(LaneName.SCORES_NEGATIVE)
    return GlobalMetrics(
        sites=round(sites or 0),
        patients=round(patients or 0),
        auc=None if positives is None or negatives is None else auc_from_histograms(positives, negatives),
        accuracy=_ratio(_total(sums, LaneName.CORRECT), patients),
        mean_site_accuracy=_ratio(_total(sums, LaneName.SITE_ACCURACY), sites),
        loss=_ratio(_total(sums, LaneName.LOSS_SUM), patients),
    )


def auc_from_histograms(positives: ArrayLike, negatives: ArrayLike) -> float | None:
    """Area under the ROC curve, by the trapezoid rule: two patients in one bin are a tie and count half.

    Args:
        positives: Patients with the label, by score bin from the lowest score to the highest; each at least 0.
        negatives: Patients without it, in the same bins.

    Returns:
        0 to 1, or None when one of the classes is empty. It differs from the exact area by at most half the share of
        pairs that fall into one bin.
    """
    with_label, without = np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)
    pairs = with_label.sum() * without.sum()
    if pairs <= 0:
        return None
    below = np.cumsum(without) - without
    return float((with_label * (below + without / 2)).sum() / pairs)


def _total(sums: Mapping[str, NDArray[np.float64]], lane: LaneName) -> float | None:
    values = sums.get(lane)
    return None if values is None else float(np.sum(values))


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None
