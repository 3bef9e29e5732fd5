"""What training sees of records in a step: whole, or changed at random and cut into patches (torch).

A view is made of one record, after the cache and before any gradient, so that the patient stays the unit of privacy:
each sampled record gives one view in a step, its patches are records of the same patient, and their gradients are
averaged and clipped as one.

Where draws come from
---------------------
Every record has a generator of its own in every step, Philox in counter mode, whose key is a SHA-256 over

    the study's seed, the site, the round, the step, what is drawn, and the record's own content

and nothing else. So the same study repeats itself; two sites, rounds, steps or different records draw differently;
and it does not matter in which order records are taken, or which process computes their gradients. No draw depends on
another patient: with a record's place in the cohort in the key, one patient more would change everybody's views, and
the sum of a step would move by more than one clipped gradient. For the same reason no count over records is in it.

These draws protect nobody and are no secret: who knows a record knows its views. They have nothing to do with the
generator that samples patients and makes noise (`privacy.dp.randomness`), which is never asked for them and gives them
no seed; nor is a global generator read.

A record whose view cannot be made is not a number throughout. With differential privacy it then counts as zero, like
every broken record; without, training stops, because nothing would make a zero of it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from site_agent.cohort import Records
from site_agent.gradients.engine import Batch
from site_agent.imaging.augmentation import Augmentation
from site_agent.imaging.patches import patches_of
from site_agent.local_steps import tensors_of
from site_agent.training_spec import NetworkSpec, ViewSpec

_LABEL = "consortium/record-view/v1"
_AUGMENTATION, _PATCHES = "augmentation", "patches"


class RecordViews:
    """The training records of one site, and the views of them. Mutable: it counts the steps of a round.

    Args:
        network: What the views are for.
        spec: What the study asks for; None where the network sees records as they are.
        train: The cohort's training part.

    Raises:
        TrainingFailed: The records do not fit.
    """

    def __init__(self, network: NetworkSpec, spec: ViewSpec | None, train: Records) -> None:
        self.features, self._labels = tensors_of(train, network.input_shape if spec is None else spec.record_shape)
        self._network, self._spec = network, spec
        self._augmentation: Augmentation | None = None
        if spec is not None and spec.augmentation:
            axes = len(spec.record_shape) - 1
            self._augmentation = Augmentation(spec.augmentation, axes=axes, masks=bool(network.label_shape))
        self._contents: dict[int, str] = {}
        self._round, self._steps = 0, 0

    def begin(self, round_number: int) -> None:
        """A round's training begins: its next step is the first."""
        self._round, self._steps = round_number, 0

    def next_step(self, chosen: Sequence[NDArray[np.int64]]) -> Batch:
        """The batch of the round's next step.

        Args:
            chosen: The rows of each patient that was sampled, at least one each.
        """
        step, self._steps = self._steps, self._steps + 1
        rows = np.concatenate([np.zeros(0, dtype=np.int64), *chosen])
        spec = self._spec
        if spec is None:
            places = torch.from_numpy(rows)
            return Batch(
                features=self.features[places], labels=self._labels[places], sizes=tuple(len(own) for own in chosen)
            )
        each = 1 if spec.patch is None else spec.patch.per_record
        features = torch.empty(len(rows) * each, *self._network.input_shape)
        labels = torch.empty(len(rows) * each, *self._network.label_shape)
        for place, row in enumerate(rows):
            for number, (image, label) in enumerate(self._seen(int(row), step, spec)):
                features[place * each + number], labels[place * each + number] = image, label
        return Batch(features=features, labels=labels, sizes=tuple(len(own) * each for own in chosen))

    def _seen(self, row: int, step: int, spec: ViewSpec) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The view of one record, in patches or whole."""
        image, label = self.features[row], self._labels[row]
        if self._augmentation is not None:
            image, label = self._augmented(image, label, self._generator(row, step, _AUGMENTATION, spec))
        if spec.patch is None:
            yield image, label
        else:
            yield from patches_of(image, label, spec.patch, self._generator(row, step, _PATCHES, spec))

    def _augmented(
        self, image: torch.Tensor, label: torch.Tensor, random: np.random.RandomState
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._augmentation is not None  # asked for by `_seen`
        masks = label.dim() > 0
        try:
            seen, mask = self._augmentation(image, label if masks else None, random)
        except Exception:  # noqa: BLE001 - what one record does to a library must not end the step of all others
            return torch.full_like(image, torch.nan), label
        return seen, label if mask is None else mask

    def _generator(self, row: int, step: int, drawn: str, spec: ViewSpec) -> np.random.RandomState:
        """The record's own; see the head of this file."""
        if row not in self._contents:
            content = hashlib.sha256(self.features[row].numpy().data)
            content.update(self._labels[row].numpy().data)
            self._contents[row] = content.hexdigest()
        named = [_LABEL, spec.seed, spec.site, self._round, step, drawn, self._contents[row]]
        key = hashlib.sha256(json.dumps(named).encode()).digest()
        return np.random.RandomState(np.random.Philox(key=int.from_bytes(key[:16], "big")))
