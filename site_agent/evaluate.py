"""The global model on the patients this hospital set aside.

Everything here is exact and stays at the site, except what is put into the masked lanes: those are summed over
hospitals before anyone sees them. Unless the study has a budget for its test figures, they carry no noise and are
outside the (epsilon, delta) guarantee; reports say so.

Records go through the network a few at a time and nothing but numbers of a patient is kept of them: of a mask, how
many places of each class were found. So it takes no more memory with a thousand volumes than with four.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from consortium.contract.record_views import Patch
from consortium.contract.study import Evaluation as Wanted
from site_agent.class_tally import ClassScores
from site_agent.cohort import Records
from site_agent.device import PROCESSOR, device_of
from site_agent.dice_tally import Overlaps, overlaps
from site_agent.evaluation import Evaluation
from site_agent.imaging.patches import whole_answers
from site_agent.tally import Scores
from site_agent.update import load_vector

_RECORDS_AT_ONCE, _VALUES_AT_ONCE = 4096, 2**20
"""The most records, and the most numbers of the records and of the network's answers, that are held at once."""


def evaluate(
    module: nn.Module,
    model: NDArray[np.float32],
    test: Records,
    wanted: Wanted,
    groups: NDArray[np.int64] | None = None,
    *,
    outputs: int = 1,
    patch: Patch | None = None,
) -> Evaluation:
    """Measure a global model on every held-out patient.

    Args:
        module: The study's network, from `networks.build_from`, on any device; its parameters are overwritten.
        model: float32[d], the global model.
        test: The cohort's test part.
        wanted: The study's section on evaluation.
        groups: int64[patients, subgroups], `Cohort.test_groups`; None puts every patient in no cell. Of binary labels.
        outputs: Of the network for each label (`data.outputs` of the study): 1 of a binary label, else the classes.
        patch: `data.patch` of the study: the network is led over a record in windows. Of masks.

    Raises:
        TrainingFailed: The model does not fit the network.
    """
    if test.labels.ndim > 1:
        return Evaluation(scores=segment_patients(module, model, test, outputs, patch), wanted=wanted)
    if outputs > 1:
        return Evaluation(scores=classify_patients(module, model, test, outputs), wanted=wanted)
    scores, positive = score_patients(module, model, test)
    if groups is None:
        groups = np.full((len(scores), len(wanted.subgroups or ())), -1, dtype=np.int64)
    return Evaluation(scores=Scores(scores=scores, positive=positive, groups=groups), wanted=wanted)


def score_patients(
    module: nn.Module, model: NDArray[np.float32], test: Records
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Score and label of every patient, by the patients' numbers: float64[patients] in [0, 1] and bool[patients].

    A patient's score is the mean probability over the patient's records, and the patient has the label if one of the
    records has it. A record the network cannot score (NaN) counts as 0.5.
    """
    load_vector(module, model)
    found = [torch.sigmoid(logits.squeeze(1).double()).numpy() for logits, _ in _answers(module, test, 1)]
    probabilities = np.nan_to_num(np.concatenate([np.zeros(0), *found]), nan=0.5)
    owner, counts = _owners(test)
    scores = np.bincount(owner, weights=probabilities, minlength=len(counts)) / np.maximum(counts, 1)
    labelled = np.bincount(owner, weights=test.labels > 0, minlength=len(counts))
    return np.clip(scores, 0.0, 1.0), labelled > 0


def classify_patients(module: nn.Module, model: NDArray[np.float32], test: Records, classes: int) -> ClassScores:
    """Probabilities and class of every patient, by the patients' numbers.

    A patient's probabilities are the mean over the patient's records. Records of several classes make a patient of the
    last of them in the study's order, as a binary label does. A record the network cannot score (NaN) gives every class
    the same probability.
    """
    load_vector(module, model)
    found = [torch.softmax(logits.double(), dim=1).numpy() for logits, _ in _answers(module, test, classes)]
    of_records = np.concatenate([np.zeros((0, classes)), *found])
    of_records = np.where(np.isnan(of_records).any(axis=1, keepdims=True), 1 / classes, of_records)
    owner, counts = _owners(test)
    sums, labels = np.zeros((len(counts), classes)), np.zeros(len(counts), dtype=np.int64)
    np.add.at(sums, owner, of_records)
    np.maximum.at(labels, owner, test.labels.astype(np.int64))
    return ClassScores(probabilities=np.clip(sums / np.maximum(counts, 1)[:, None], 0.0, 1.0), labels=labels)


def segment_patients(
    module: nn.Module, model: NDArray[np.float32], test: Records, classes: int, patch: Patch | None = None
) -> Overlaps:
    """Dice and loss of every patient, by the patients' numbers; what a mean over records is says `dice_tally`.

    The class predicted at a place is the one with the highest logit, the first of several. A logit that is not a number
    counts as 0.
    """
    load_vector(module, model)
    empty = [np.zeros((0, classes), dtype=np.int64)]
    counts: list[list[NDArray[np.int64]]] = [list(empty), list(empty), list(empty)]
    losses = [np.zeros(0)]
    for answers, labels in _answers(module, test, classes, patch):
        logits, true = torch.nan_to_num(answers), labels.long().flatten(1)
        predicted = logits.argmax(dim=1).flatten(1)
        for found, places in zip(counts, (predicted.where(predicted == true, -1), predicted, true), strict=True):
            found.append(torch.stack([(places == one).sum(dim=1) for one in range(classes)], dim=1).numpy())
        of_places = nn.functional.cross_entropy(logits.flatten(2), true, reduction="none")
        losses.append(of_places.mean(dim=1).double().numpy())
    common, predictions, truths = (np.concatenate(found) for found in counts)
    return overlaps(common, predictions, truths, np.concatenate(losses), _owners(test)[0])


def _answers(
    module: nn.Module, test: Records, outputs: int, patch: Patch | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The network's answers and the labels of a few records at a time, in their order.

    With a patch the network sees as many windows at a time as have the numbers of so many records; of the answers, no
    more is held than one record's, where a record is large.
    """
    module.eval()
    shape = test.features.shape[1:]
    answers = outputs * int(np.prod(test.labels.shape[1:], dtype=np.int64))
    values = max(1, int(np.prod(shape, dtype=np.int64)), answers)
    at_once = max(1, min(_RECORDS_AT_ONCE, _VALUES_AT_ONCE // values))
    windows = 1 if patch is None else windows_at_once(patch, channels=shape[0], outputs=outputs)
    for start in range(0, len(test), at_once):
        rows = slice(start, start + at_once)
        with torch.inference_mode():
            records = torch.tensor(test.features[rows], dtype=torch.float32, device=device_of(module))
            found = whole_answers(module, records, patch, windows_at_once=windows).cpu()
        yield found, torch.tensor(test.labels[rows], device=PROCESSOR)


def windows_at_once(patch: Patch, *, channels: int, outputs: int) -> int:
    """Windows that go through the network together: with what it says to them, at most `_VALUES_AT_ONCE` numbers."""
    return max(1, _VALUES_AT_ONCE // (max(channels, outputs) * math.prod(patch.shape)))


def _owners(test: Records) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Whose each record is, numbered from 0 without a gap, and how many records everybody has."""
    _, owner, counts = np.unique(test.patients, return_inverse=True, return_counts=True)
    return owner.astype(np.int64), counts
