"""A bundle's loss as one that a study may name, or the place that keeps it from being one. Pure.

| bundle | `training.loss` | with |
|---|---|---|
| `CrossEntropyLoss` | `cross-entropy` | no `label_smoothing` |
| `BCEWithLogitsLoss` | `binary-cross-entropy` | |
| `DiceCELoss` | `dice-cross-entropy` | `to_onehot_y`, `softmax`, no background, weights of 1, plain sums |

Every one is taken record by record, whatever `reduction` the bundle has, and `dice-cross-entropy` has its own
smoothing: 1 pixel in both parts of a ratio (`gradients/losses.py`), where MONAI has 1e-5. With that a class that a
record lacks would have slopes of 1e5, and clipping would leave nothing of the others'.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from consortium.contract.catalogue import LossName
from consortium.contract.errors import shown
from site_agent.bundles.checking import Component
from site_agent.bundles.documents import Value
from site_agent.bundles.refusals import Finding

_NAMED: Mapping[str, LossName] = {
    "CrossEntropyLoss": "cross-entropy",
    "BCEWithLogitsLoss": "binary-cross-entropy",
    "DiceCELoss": "dice-cross-entropy",
}
_WANTED: Mapping[str, Mapping[str, tuple[Value, Value]]] = {
    "CrossEntropyLoss": {"label_smoothing": (0.0, 0.0)},
    "DiceCELoss": {
        "to_onehot_y": (False, True),
        "softmax": (False, True),
        "sigmoid": (False, False),
        "include_background": (True, False),
        "squared_pred": (False, False),
        "jaccard": (False, False),
        "batch": (False, False),
        "lambda_dice": (1.0, 1.0),
        "lambda_ce": (1.0, 1.0),
    },
}
"""Arguments that decide what is computed: their default, and what they must be."""

_SMOOTHING = ("smooth_nr", "smooth_dr")
_SMOOTHING_OF_MONAI = 1e-5
_SMOOTHING_HERE = 1.0
_ADVICE = "The study names its own loss: docs/reference/networks.md lists them."


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyLoss:
    """What a study may name in the place of a bundle's loss."""

    name: LossName
    changes: tuple[str, ...]  # what is computed otherwise than the bundle says


def study_loss_of(loss: Component) -> StudyLoss | Finding:
    """The study's name of a bundle's loss, or the first place in it that no loss of a study honours."""
    kind = loss.target.name
    name = _NAMED.get(kind)
    if name is None:
        return loss.finding("_target_", kind, ", ".join(_NAMED), _ADVICE)
    for argument, (default, wanted) in _WANTED.get(kind, {}).items():
        given = loss.arguments.get(argument, default)
        if given != wanted:
            return loss.finding(argument, shown(given), shown(wanted), _ADVICE)
    smoothing = [loss.arguments.get(argument, _SMOOTHING_OF_MONAI) for argument in _SMOOTHING]
    changes: tuple[str, ...] = ()
    if kind == "DiceCELoss" and smoothing != [_SMOOTHING_HERE] * 2:
        changes = (f"{loss.id}: its ratios are smoothed by 1 pixel, not by {' and '.join(map(shown, smoothing))}",)
    return StudyLoss(name=name, changes=changes)
