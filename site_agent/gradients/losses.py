"""Losses that are a mean over records, and the refusal by name of those that are not.

A patient's gradient must depend on that patient's records alone. A loss that divides by something counted over the
batch, or compares records with each other, couples patients: clipping one of them then bounds nothing.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from consortium.contract.catalogue import LossName
from site_agent.errors import LossRefused
from site_agent.training_spec import NetworkSpec

RecordLoss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Outputs [records, ...] and labels [records, ...] -> the loss of each record, [records]."""

_ELEMENTWISE = (nn.BCEWithLogitsLoss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
_WHOLE = ("DiceLoss", "DiceCELoss", "FocalLoss", "DiceFocalLoss")  # of MONAI, record by record
_COUPLING = {
    "cox": "its partial likelihood compares each patient with all who are still at risk; use a loss per record, such "
    "as BCEWithLogitsLoss on survival past a fixed time",
    "contrastive": "it compares records with each other; use a supervised loss per record, such as CrossEntropyLoss",
    "triplet": "it compares records with each other; use a supervised loss per record, such as CrossEntropyLoss",
    "ntxent": "it compares records with each other; use a supervised loss per record, such as CrossEntropyLoss",
    "infonce": "it compares records with each other; use a supervised loss per record, such as CrossEntropyLoss",
    "barlow": "it correlates over the batch; use a supervised loss per record, such as CrossEntropyLoss",
    "deepsupervision": "it wraps another loss; name that loss itself",
}


def record_loss(loss: nn.Module) -> RecordLoss:
    """The loss of each record, from a loss module as MONAI and torch have them; its `reduction` is not looked at.

    Raises:
        LossRefused: It couples patients, or is not on the allow-list.
    """
    require_loss_per_record(loss)
    if isinstance(loss, nn.CrossEntropyLoss):
        return _cross_entropy(loss)
    if isinstance(loss, _ELEMENTWISE):
        return ElementwiseLoss(loss)
    return _one_by_one(loss)


def require_loss_per_record(loss: nn.Module) -> None:
    """Refuse a loss whose value for one record depends on the others.

    | found | why | instead |
    |---|---|---|
    | Dice with `batch=True` | one ratio over all records of the batch | `batch=False` |
    | class weights in (Dice)CE | their mean divides by the weights of the labels in the batch | no weights |
    | `ignore_index` in CE | the mean divides by the number of labels kept in the batch | no `ignore_index` |
    | `pos_weight` as data | a constant of the study is allowed: it multiplies, and nothing is divided by it | |
    | Cox, contrastive, triplet | records are compared with each other | a loss per record |

    Raises:
        LossRefused: With the loss's name and what to use.
    """
    name = type(loss).__name__
    for word, why in _COUPLING.items():
        if word in name.lower().replace("_", ""):
            raise LossRefused(name, why)
    if not isinstance(loss, (nn.CrossEntropyLoss, *_ELEMENTWISE)) and name not in _WHOLE:
        allowed = ", ".join(["CrossEntropyLoss", *(kind.__name__ for kind in _ELEMENTWISE), *_WHOLE])
        raise LossRefused(name, f"it is not on the allow-list: {allowed}")
    for label, part in [("", loss), *loss.named_modules()][1:]:
        where = f"{name}{'.' + label if label else ''}"
        if getattr(part, "batch", False) is True:
            raise LossRefused(f"{where} with batch=True", "one ratio over the batch couples patients; use batch=False")
        weight = getattr(part, "weight", None)
        class_weight = getattr(part, "class_weight", None)
        if isinstance(weight, torch.Tensor) or isinstance(class_weight, torch.Tensor):
            raise LossRefused(
                f"{where} with class weights",
                "its mean divides by the weights of the labels in the batch; use it without weights",
            )
        if isinstance(part, nn.CrossEntropyLoss) and part.ignore_index >= 0:
            raise LossRefused(
                f"{where} with ignore_index={part.ignore_index}",
                "its mean divides by the number of labels kept; leave such records out of the data instead",
            )


class ElementwiseLoss:
    """The mean of an elementwise loss over each record's outputs."""

    def __init__(self, loss: nn.Module) -> None:
        self._each = _unreduced(loss)
        self.is_cross_entropy_of_logits = isinstance(loss, nn.BCEWithLogitsLoss) and loss.pos_weight is None

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """See `RecordLoss`."""
        values = self._each(outputs, labels.reshape(outputs.shape).to(outputs.dtype))
        return _mean_of_each(values, len(outputs))


def _cross_entropy(loss: nn.CrossEntropyLoss) -> RecordLoss:
    each = _unreduced(loss)

    def losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        values = each(outputs, labels if labels.dim() == outputs.dim() else labels.long())
        return _mean_of_each(values, len(outputs))

    return losses


def _mean_of_each(values: torch.Tensor, records: int) -> torch.Tensor:
    return values.reshape(records, -1).mean(1)


def _one_by_one(loss: nn.Module) -> RecordLoss:
    def losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        each = [loss(outputs[row : row + 1], labels[row : row + 1]) for row in range(len(outputs))]
        return torch.stack(each).reshape(len(outputs))

    return losses


DICE_SMOOTHING = 1.0
"""Added to both parts of a Dice ratio, in pixels: a class that a record lacks has a slope of at most 1, not 1e5."""


def dice_cross_entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy averaged over a record's places, plus 1 - soft Dice averaged over its classes but the first.

    Both are taken record by record: one Dice ratio over a batch would couple its patients. The first class is the
    background; it dominates a Dice ratio and says least.

    Args:
        outputs: Logits, float[records, classes, *sides].
        labels: Numbers of classes, [records, *sides].

    Returns:
        float[records].
    """
    target = labels.long()
    classes = torch.arange(outputs.shape[1], device=outputs.device)
    wanted = target.unsqueeze(1) == classes.reshape(1, -1, *(1,) * (labels.dim() - 1))
    shares = outputs.softmax(1).flatten(2)[:, 1:]
    wanted = wanted.to(outputs.dtype).flatten(2)[:, 1:]
    both = 2 * (shares * wanted).sum(2) + DICE_SMOOTHING
    dice = both / (shares.sum(2) + wanted.sum(2) + DICE_SMOOTHING)
    entropy = F.cross_entropy(outputs, target, reduction="none").flatten(1).mean(1)
    return entropy + 1 - dice.mean(1)


_NAMED: Mapping[LossName, Callable[[], RecordLoss]] = {
    "binary-cross-entropy": lambda: record_loss(nn.BCEWithLogitsLoss()),
    "cross-entropy": lambda: record_loss(nn.CrossEntropyLoss()),
    "dice-cross-entropy": lambda: dice_cross_entropy,
}


def loss_of(network: NetworkSpec) -> RecordLoss:
    """The loss that a study trains its network with."""
    return _NAMED[network.loss]()


def _unreduced(loss: nn.Module) -> nn.Module:
    """The same loss without its mean."""
    if isinstance(loss, nn.CrossEntropyLoss):
        return nn.CrossEntropyLoss(reduction="none", label_smoothing=loss.label_smoothing)
    if isinstance(loss, nn.BCEWithLogitsLoss):
        return nn.BCEWithLogitsLoss(reduction="none", pos_weight=loss.pos_weight)
    if isinstance(loss, nn.SmoothL1Loss):
        return nn.SmoothL1Loss(reduction="none", beta=loss.beta)
    if isinstance(loss, nn.HuberLoss):
        return nn.HuberLoss(reduction="none", delta=loss.delta)
    return type(loss)(reduction="none")
