"""The losses a study may name: each record's alone, and what MONAI and torch give for one record."""

import math

import pytest
import torch
from monai.losses import DiceCELoss
from torch import nn

from consortium.contract.catalogue import LABELS_OF_LOSS, LOSSES
from site_agent.gradients.losses import DICE_SMOOTHING, dice_cross_entropy, loss_of
from site_agent.training_spec import NetworkSpec


def of_study(name):
    return loss_of(NetworkSpec(network="logistic", input_shape=(1,), loss=name, seed=1))


def masks(sides, classes=3, records=4):
    random = torch.Generator().manual_seed(5)
    outputs = torch.randn(records, classes, *sides, generator=random)
    return outputs, torch.randint(0, classes, (records, *sides), generator=random).float()


def test_the_catalogue_has_labels_for_every_loss():
    assert tuple(LABELS_OF_LOSS) == LOSSES
    assert {label for labels in LABELS_OF_LOSS.values() for label in labels} == {"binary", "classes", "mask"}


@pytest.mark.parametrize("sides", [(6, 5), (4, 3, 2)])
def test_dice_cross_entropy_is_monais_record_by_record(sides):
    outputs, labels = masks(sides)
    labels[1] = 0  # a record without any foreground
    reference = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, smooth_nr=DICE_SMOOTHING, smooth_dr=DICE_SMOOTHING
    )
    found = of_study("dice-cross-entropy")(outputs, labels)
    expected = [float(reference(outputs[r : r + 1], labels[r : r + 1].unsqueeze(1))) for r in range(len(outputs))]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_records_loss_and_slope_depend_on_no_other_record(name):
    if name == "binary-cross-entropy":
        outputs, labels = torch.linspace(-2, 2, 4).reshape(4, 1), torch.tensor([0.0, 1.0, 1.0, 0.0])
    else:
        outputs, labels = masks((4, 4))
    loss = of_study(name)
    outputs.requires_grad_()
    (together,) = torch.autograd.grad(loss(outputs, labels).sum(), outputs)
    for record in range(4):
        alone = outputs[record : record + 1].detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(alone, labels[record : record + 1]).sum(), alone)
        assert torch.allclose(together[record], slope[0], atol=1e-7)


def test_cross_entropy_of_labels_and_of_masks():
    loss = of_study("cross-entropy")
    outputs, labels = masks((4, 4))
    whole = nn.functional.cross_entropy(outputs, labels.long())
    assert float(loss(outputs, labels).mean()) == pytest.approx(float(whole), rel=1e-6)
    assert loss(outputs[..., 0, 0], labels[..., 0, 0]).shape == (4,)


def test_a_perfect_mask_costs_nothing_and_an_empty_one_has_a_gentle_slope():
    labels = torch.zeros(1, 4, 4)
    sure = torch.stack([torch.full((1, 4, 4), 50.0), torch.full((1, 4, 4), -50.0)], dim=1)
    assert float(dice_cross_entropy(sure, labels)) == pytest.approx(0.0, abs=1e-6)
    unsure = torch.zeros(1, 2, 4, 4, requires_grad=True)
    dice_cross_entropy(unsure, labels).sum().backward()
    assert unsure.grad.abs().max() < 1
    assert math.isfinite(float(unsure.grad.sum()))


def test_a_broken_record_breaks_its_own_loss_alone():
    outputs, labels = masks((4, 4))
    outputs[2, 0, 0, 0] = math.nan
    assert torch.isnan(of_study("dice-cross-entropy")(outputs, labels)).tolist() == [False, False, True, False]
