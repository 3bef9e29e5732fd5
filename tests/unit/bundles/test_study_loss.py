"""A bundle's loss under a study's name: the same numbers as MONAI's and torch's, or the place that keeps it from it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.losses.dice import DiceCELoss

from site_agent.bundles.checking import Component
from site_agent.bundles.refusals import Finding
from site_agent.bundles.report import look_at
from site_agent.bundles.study_loss import StudyLoss, study_loss_of
from site_agent.bundles.targets import TARGETS
from site_agent.gradients import losses
from site_agent.gradients.losses import record_loss
from tests.fakes.bundle_folder import write_bundle

DICE_CE: dict[str, Any] = {
    "to_onehot_y": True, "softmax": True, "include_background": False, "smooth_nr": 1, "smooth_dr": 1,
}  # fmt: skip


def component(kind: str, **arguments: Any) -> Component:
    return Component(file="configs/train.json", id="loss", target=TARGETS[kind], arguments=arguments)


def test_dice_cross_entropy_is_monais_with_these_arguments() -> None:
    found = study_loss_of(component("DiceCELoss", **DICE_CE))
    assert isinstance(found, StudyLoss)
    assert (found.name, found.changes) == ("dice-cross-entropy", ())
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(4, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 3, (4, 1, 8, 8), generator=generator)
    theirs = record_loss(DiceCELoss(**DICE_CE))(outputs, labels)
    ours = losses._NAMED[found.name]()(outputs, labels[:, 0])
    assert torch.allclose(theirs, ours, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "arguments", "name"),
    [
        ("CrossEntropyLoss", {}, "cross-entropy"),
        ("BCEWithLogitsLoss", {"reduction": "sum"}, "binary-cross-entropy"),
        ("DiceCELoss", {**DICE_CE, "smooth_nr": 1e-5}, "dice-cross-entropy"),
    ],
)
def test_losses_with_a_name(kind: str, arguments: dict[str, Any], name: str) -> None:
    found = study_loss_of(component(kind, **arguments))
    assert isinstance(found, StudyLoss)
    assert found.name == name
    assert len(found.changes) == (arguments.get("smooth_nr") == 1e-5)


@pytest.mark.parametrize(
    ("kind", "arguments", "place"),
    [
        ("DiceLoss", {"softmax": True}, "loss#_target_"),
        ("CrossEntropyLoss", {"label_smoothing": 0.1}, "loss#label_smoothing"),
        ("DiceCELoss", {}, "loss#to_onehot_y"),
        ("DiceCELoss", {**DICE_CE, "include_background": True}, "loss#include_background"),
        ("DiceCELoss", {**DICE_CE, "squared_pred": True}, "loss#squared_pred"),
        ("DiceCELoss", {**DICE_CE, "lambda_ce": 0.5}, "loss#lambda_ce"),
    ],
)
def test_the_first_place_that_no_loss_honours(kind: str, arguments: dict[str, Any], place: str) -> None:
    found = study_loss_of(component(kind, **arguments))
    assert isinstance(found, Finding)
    assert place in found.place


def test_the_report_says_which(tmp_path: Path) -> None:
    found = look_at(write_bundle(tmp_path / "bundle"))
    assert isinstance(found.loss, Finding)  # squared_pred, and the background in its ratios
    assert found.to_json()["training_loss"] is None
