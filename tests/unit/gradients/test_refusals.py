"""What breaks the unit of privacy is refused by name, with what to use instead."""

import pytest
import torch
from torch import nn

from site_agent.errors import LossRefused, NetworkRefused
from site_agent.gradients.losses import record_loss, require_loss_per_record
from site_agent.gradients.refusals import require_private


class DiceLoss(nn.Module):
    """As MONAI's, as far as it is looked at."""

    def __init__(self, *, batch=False, weight=None, class_weight=None):
        super().__init__()
        self.batch, self.weight, self.class_weight = batch, weight, class_weight

    def forward(self, outputs, labels):
        chances = torch.sigmoid(outputs)
        return 1 - (2 * (chances * labels).sum() + 1) / (chances.sum() + labels.sum() + 1)


class DiceCELoss(DiceLoss):
    def __init__(self, *, weight=None, **changes):
        super().__init__(**changes)
        self.cross_entropy = nn.CrossEntropyLoss(weight=weight)


class CoxPHLoss(nn.Module):
    pass


class ContrastiveLoss(nn.Module):
    pass


class SomeLoss(nn.Module):
    pass


WEIGHTS = torch.tensor([1.0, 3.0])


@pytest.mark.parametrize(
    ("loss", "named", "instead"),
    [
        (DiceLoss(batch=True), "DiceLoss with batch=True", "batch=False"),
        (DiceCELoss(batch=True), "DiceCELoss with batch=True", "batch=False"),
        (DiceLoss(class_weight=WEIGHTS), "DiceLoss with class weights", "without weights"),
        (DiceCELoss(weight=WEIGHTS), "DiceCELoss.cross_entropy with class weights", "without weights"),
        (nn.CrossEntropyLoss(weight=WEIGHTS), "CrossEntropyLoss with class weights", "without weights"),
        (nn.BCEWithLogitsLoss(weight=WEIGHTS), "BCEWithLogitsLoss with class weights", "without weights"),
        (nn.CrossEntropyLoss(ignore_index=0), "CrossEntropyLoss with ignore_index=0", "leave such records out"),
        (CoxPHLoss(), "CoxPHLoss", "BCEWithLogitsLoss on survival"),
        (ContrastiveLoss(), "ContrastiveLoss", "CrossEntropyLoss"),
        (nn.TripletMarginLoss(), "TripletMarginLoss", "CrossEntropyLoss"),
        (SomeLoss(), "SomeLoss", "allow-list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_loss_that_couples_patients_is_refused(loss, named, instead):
    with pytest.raises(LossRefused) as caught:
        record_loss(loss)
    assert caught.value.loss == named
    assert instead in caught.value.why
    assert "mean over records" in caught.value.advice()


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), nn.MSELoss(), nn.HuberLoss(), DiceLoss(), nn.SmoothL1Loss()])
def test_an_allowed_loss_is_one_number_for_each_record(loss):
    outputs, labels = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1)), torch.ones(3, 1, 4, 4)
    each = record_loss(loss)(outputs, labels)
    assert each.shape == (3,)
    for record in range(3):
        alone = loss(outputs[record : record + 1], labels[record : record + 1])
        assert float(each[record]) == pytest.approx(float(alone), rel=1e-6)


def test_cross_entropy_takes_class_numbers():
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    each = record_loss(loss)(outputs, torch.tensor([0.0, 0.0]))
    assert each.tolist() == pytest.approx(
        [float(loss(outputs[:1], torch.tensor([0]))), float(loss(outputs[1:], torch.tensor([0])))]
    )
    require_loss_per_record(loss)


def _frozen():
    norm = nn.BatchNorm2d(4)
    for parameter in norm.parameters():
        parameter.requires_grad_(False)
    return norm.eval()


@pytest.mark.parametrize(
    ("layer", "named", "instead"),
    [
        (nn.BatchNorm2d(4), "BatchNorm2d", "GroupNorm"),
        (_frozen(), "BatchNorm2d", "GroupNorm"),
        (nn.BatchNorm1d(4, affine=False, track_running_stats=False), "BatchNorm1d", "GroupNorm"),
        (nn.SyncBatchNorm(4), "SyncBatchNorm", "GroupNorm"),
        (nn.InstanceNorm2d(4, track_running_stats=True), "InstanceNorm2d", "without track_running_stats"),
    ],
)
def test_a_layer_that_keeps_statistics_is_refused(layer, named, instead):
    with pytest.raises(NetworkRefused, match=f"{named} at '1'") as caught:
        require_private(nn.Sequential(nn.Linear(4, 4), layer))
    assert instead in caught.value.allowed
