"""Overlaps of predicted and true masks of one hospital's test patients -> its metric lanes (numpy only, pure).

Dice of a class in one record is 2 |P and T| / (|P| + |T|), P and T being the places where the class is predicted and
where it is true. Where both are empty nothing was to be found and nothing was: it is undefined, and left out. A
patient's Dice is the mean over the records that have one, and the mean over the foreground is that over the classes the
patient has one for, the first class, which is the background, never among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consortium.contract.layout import DICE_BINS, LOSS_PER_PATIENT_MAX, LaneName
from consortium.contract.study import Evaluation as Wanted
from privacy.lazy_numpy import np
from site_agent.tally import bins_of, lanes_of_everybody, spread_lanes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlaps:
    """One model's masks beside the true ones, of one hospital's test patients. It prints without its values."""

    dice: NDArray[np.float64]  # [patients, classes], 0 to 1 or NaN; the first is the mean over the foreground
    losses: NDArray[np.float64]  # [patients]: mean cross-entropy of a place in nats, 0 to LOSS_PER_PATIENT_MAX

    def __len__(self) -> int:
        return len(self.losses)

    def lanes(self, wanted: Wanted) -> dict[LaneName, NDArray[np.float64]]:
        """What goes into the metric lanes of a round (`consortium.contract.layout`); a layout may not have them all."""
        defined = ~np.isnan(self.dice)
        values = np.where(defined, self.dice, 0.0)
        classes = self.dice.shape[1]
        places = (bins_of(values, DICE_BINS) + DICE_BINS * np.arange(classes))[defined]
        own = {
            "dice": _mean(self.dice[:, 0]),
            "loss": float(self.losses.mean()) / LOSS_PER_PATIENT_MAX if len(self) else None,
        }
        return {
            **lanes_of_everybody(self.losses),
            LaneName.DICE_PATIENTS: defined.sum(axis=0).astype(np.float64),
            LaneName.DICE_SUMS: np.concatenate([values.sum(axis=0), np.square(values).sum(axis=0)]),
            LaneName.DICE_HISTOGRAM: np.bincount(places, minlength=classes * DICE_BINS).astype(np.float64),
            **spread_lanes(own, wanted),
        }

    def own_figures(self) -> dict[str, Any]:
        """For the hospital's own eyes: exact, with every class however small; null for one that nobody has."""
        return {
            "patients": len(self),
            "dice": _mean(self.dice[:, 0]),
            "dice_of_classes": [_mean(column) for column in self.dice[:, 1:].T],
            "loss": float(self.losses.sum()) / max(1, len(self)),
        }

    def __repr__(self) -> str:
        return "Overlaps()"


def overlaps(
    common: NDArray[np.int64],
    predicted: NDArray[np.int64],
    true: NDArray[np.int64],
    losses: NDArray[np.float64],
    owner: NDArray[np.int64],
) -> Overlaps:
    """The patients' figures from those of their records.

    Args:
        common: [records, classes]: places where a class is both predicted and true.
        predicted: [records, classes]: places where it is predicted.
        true: [records, classes]: places where it is true.
        losses: [records]: mean cross-entropy of a place, in nats.
        owner: [records], 0 to patients - 1: whose record it is; every patient has one.
    """
    patients = int(owner.max()) + 1 if len(owner) else 0
    either = predicted + true
    found = either > 0
    of_records = np.where(found, 2 * common / np.maximum(either, 1), 0.0)
    sums, counts = (np.zeros((patients, common.shape[1])) for _ in range(2))
    np.add.at(sums, owner, of_records)
    np.add.at(counts, owner, found)
    dice = _ratio(sums, counts)
    foreground, has = np.nan_to_num(dice[:, 1:], nan=0.0), ~np.isnan(dice[:, 1:])
    dice[:, 0] = _ratio(foreground.sum(axis=1), has.sum(axis=1).astype(np.float64))
    records = np.bincount(owner, minlength=patients)
    loss = np.bincount(owner, weights=np.minimum(losses, LOSS_PER_PATIENT_MAX), minlength=patients)
    return Overlaps(dice=dice, losses=loss / np.maximum(records, 1))


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means; NaN of nothing."""
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
