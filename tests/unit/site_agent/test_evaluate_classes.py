"""Held-out patients with labels of several classes and with masks: figures of a hospital, and what it shares."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice
from torch import nn

from consortium.contract.layout import LOSS_PER_PATIENT_MAX, LaneName
from consortium.contract.study import Evaluation as Wanted
from site_agent import evaluate as module_under_test
from site_agent.cohort import Records
from site_agent.evaluate import evaluate
from site_agent.update import vector_of

CLASSES = 3


def wanted(*metrics, **choices):
    return Wanted.model_validate({"split": "site-held-out", "metrics": metrics, "every_rounds": 1, **choices})


def records(features, labels, patients):
    patients = np.asarray(patients, dtype=np.int64)
    return Records(
        features=np.asarray(features, dtype=np.float32),
        labels=np.asarray(labels, dtype=np.float32),
        patients=patients,
        patient_count=int(patients.max()) + 1 if len(patients) else 0,
    )


def as_they_are():
    """A network whose logits are its inputs."""
    linear = nn.Linear(CLASSES, CLASSES)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def channels_as_they_are():
    """A network whose logits at every place are its channels."""
    convolution = nn.Conv2d(CLASSES, CLASSES, 1)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(CLASSES)[:, :, None, None])
        convolution.bias.zero_()
    return convolution


def run(network, test, *metrics, **choices):
    return evaluate(network, vector_of(network), test, wanted(*metrics, **choices), outputs=CLASSES)


def test_a_patient_has_the_mean_probabilities_of_the_records_and_the_last_of_their_classes():
    logits = np.log([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
    found = run(as_they_are(), records(logits, [0, 1, 1], [0, 0, 1]), "accuracy")
    assert found.scores.probabilities == pytest.approx(np.array([[0.4, 0.2, 0.4], [0.2, 0.5, 0.3]]), abs=1e-6)
    assert found.scores.labels.tolist() == [1, 1]
    assert found.scores.predicted.tolist() == [0, 1]
    assert found.own_figures()["confusion"] == [[0, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found.loss_sum == pytest.approx(-math.log(0.2) - math.log(0.5), rel=1e-6)


def test_a_record_that_cannot_be_scored_gives_every_class_the_same():
    found = run(as_they_are(), records([[math.nan, 1, 1]], [2], [0]), "accuracy", "loss")
    assert found.scores.probabilities.tolist() == [[pytest.approx(1 / 3)] * 3]
    assert found.loss_sum == pytest.approx(math.log(3))
    certain = run(as_they_are(), records([[1e6, 0, 0]], [2], [0]), "loss")
    assert certain.loss_sum == LOSS_PER_PATIENT_MAX


def test_histograms_of_classes_hold_every_patient_once():
    random = np.random.default_rng(1)
    test = records(random.normal(size=(60, 3)), random.integers(0, 3, 60), np.arange(60))
    lanes = run(as_they_are(), test, "auc", "confusion", score_bins=10).lanes()
    of_class, others = (lanes[name].reshape(3, 10) for name in (LaneName.CLASS_POSITIVE, LaneName.CLASS_NEGATIVE))
    counts = np.bincount(test.labels.astype(int), minlength=3)
    assert of_class.sum(axis=1).tolist() == counts.tolist()
    assert others.sum(axis=1).tolist() == (60 - counts).tolist()
    assert lanes[LaneName.CONFUSION].reshape(3, 3).sum(axis=1).tolist() == counts.tolist()


def masks(patients, records_each=1, size=12, seed=3):
    random = np.random.default_rng(seed)
    count = patients * records_each
    labels = random.integers(0, CLASSES, (count, size, size))
    logits = random.normal(size=(count, CLASSES, size, size)) + 2 * np.eye(CLASSES)[labels].transpose(0, 3, 1, 2)
    return records(logits, labels, np.repeat(np.arange(patients), records_each))


def test_dice_is_that_of_monai():
    test = masks(5)
    found = run(channels_as_they_are(), test, "dice")
    hard = nn.functional.one_hot(torch.tensor(test.features).argmax(dim=1), CLASSES).movedim(-1, 1)
    true = nn.functional.one_hot(torch.tensor(test.labels).long(), CLASSES).movedim(-1, 1)
    expected = compute_dice(hard, true, include_background=False).numpy()
    assert found.scores.dice[:, 1:] == pytest.approx(expected)
    assert found.scores.dice[:, 0] == pytest.approx(expected.mean(axis=1))
    loss = nn.functional.cross_entropy(torch.tensor(test.features), torch.tensor(test.labels).long())
    assert found.loss_sum / 5 == pytest.approx(float(loss), rel=1e-5)


def test_a_patients_dice_is_the_mean_over_the_records_that_have_one():
    labels = np.zeros((3, 8, 8))
    labels[0, :4] = 1  # found in full
    labels[1, :4] = 1  # missed
    logits = np.zeros((3, CLASSES, 8, 8))
    logits[0, 1, :4] = 9.0
    logits[:, 0] += 1.0
    logits[2, 2, 0, 0] = 9.0  # predicted where there is none
    found = run(channels_as_they_are(), records(logits, labels, [0, 0, 1]), "dice")
    assert found.scores.dice[0] == pytest.approx([0.5, 0.5, math.nan], nan_ok=True)
    assert found.scores.dice[1] == pytest.approx([0.0, math.nan, 0.0], nan_ok=True)
    lanes = found.lanes()
    assert lanes[LaneName.DICE_PATIENTS].tolist() == [2, 1, 1]
    assert lanes[LaneName.DICE_SUMS].tolist() == [0.5, 0.5, 0.0, 0.25, 0.25, 0.0]
    histogram = lanes[LaneName.DICE_HISTOGRAM].reshape(CLASSES, 20)
    assert [np.flatnonzero(row).tolist() for row in histogram] == [[0, 10], [10], [0]]
    assert found.own_figures()["dice_of_classes"] == [0.5, 0.0]


def test_nobody_has_a_class_and_nobody_is_set_aside():
    background = np.zeros((1, CLASSES, 8, 8))
    background[:, 0] = 1
    empty = run(channels_as_they_are(), records(background, np.zeros((1, 8, 8)), [0]), "dice", per_site="spread")
    assert empty.lanes()[LaneName.DICE_PATIENTS].tolist() == [0, 0, 0]
    assert empty.lanes()[LaneName.SITE_COUNTED].tolist() == [0]
    assert empty.own_figures()["dice"] is None
    nobody = run(channels_as_they_are(), records(np.zeros((0, 3, 8, 8)), np.zeros((0, 8, 8)), []), "dice", "loss")
    assert all(values.sum() == (name == LaneName.SITES_REPORTING) for name, values in nobody.lanes().items())
    nobody = run(as_they_are(), records(np.zeros((0, 3)), [], []), "accuracy", per_site="spread")
    assert nobody.lanes()[LaneName.SITE_COUNTED].tolist() == [0]


def test_a_logit_that_is_no_number_counts_as_zero():
    test = masks(1)
    test.features[0, :, 0] = math.nan
    found = run(channels_as_they_are(), test, "dice", "loss")
    assert np.isfinite(found.scores.dice).all()
    assert math.isfinite(found.loss_sum)


def test_figures_do_not_depend_on_how_many_records_are_held_at_once(monkeypatch):
    test, seen = masks(7, records_each=2), []
    network = channels_as_they_are()
    network.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    whole = run(network, test, "dice")
    monkeypatch.setattr(module_under_test, "_VALUES_AT_ONCE", 3 * CLASSES * 12 * 12)
    pieces = run(network, test, "dice")
    assert seen == [14, 3, 3, 3, 3, 2]
    assert pieces.scores.dice.tolist() == whole.scores.dice.tolist()
    assert pieces.scores.losses == pytest.approx(whole.scores.losses)


def test_they_print_without_their_numbers():
    assert repr(run(channels_as_they_are(), masks(1), "dice").scores) == "Overlaps()"
    assert repr(run(as_they_are(), records([[1, 2, 3]], [0], [0]), "loss").scores) == "ClassScores()"
