"""Training where the study promises patients no differential privacy: global model + cohort -> an exact update (torch).

`privacy.mechanism: none`, with a written justification and this hospital's own `allow_no_privacy`. Nothing is clipped,
no noise is added and nothing is charged to the ledger; what leaves is protected by secure aggregation alone, as part of
a sum over hospitals.

A step is one batch of whole patients: of a patient at most k records, drawn at random, and the loss is the mean over
the batch's patients of the mean over each one's records, as in DP-SGD before its clip. Patients are put in a new random
order for every round and every pass, and each pass goes through all of them once; a batch is the study's
`sampling_rate` of them, rounded up. With rate 1 every step sees everybody, and is a step of gradient descent.
"""

import math
import os
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from consortium.contract.global_model import is_finite
from privacy.dp.randomness import CryptographicGenerator, Entropy
from site_agent.cohort import Records
from site_agent.corrections import Correction
from site_agent.device import ON_PROCESSOR, Compute
from site_agent.errors import TrainingFailed
from site_agent.exact_trainer import ExactTrainer
from site_agent.gradients.engine import Batch
from site_agent.gradients.losses import loss_of
from site_agent.local_steps import (
    FRESH,
    LocalStart,
    TrainedUpdate,
    local_optimizer,
    rows_of_patients,
    set_rate,
)
from site_agent.networks import build_from
from site_agent.optimizer_state import load_state, read_state
from site_agent.progress import StepDone, unheard
from site_agent.training_room import LocalFigures
from site_agent.training_spec import PlainSpec
from site_agent.update import kept_vector_of, load_kept, load_vector, named_parameters, vector_of
from site_agent.views import RecordViews

VALUES_AT_ONCE = 2**22
"""Numbers of the records of a step that go through the network at once; a larger batch adds its gradients up."""


class PlainTrainer(ExactTrainer):
    """All rounds of one study at one site. It holds nothing from round to round but the random generator.

    Args:
        spec: From the study.
        train: The cohort's training part.
        compute: Where the network goes forward and backward, and in what precision.
        entropy: Where the generator's key comes from; the operating system unless a test says otherwise.

    Raises:
        NetworkRefused: The study's network cannot be built.
        TrainingFailed: The records do not fit the network, there are none, or one holds a value that is not a number.
    """

    engine_name = "plain"

    def __init__(
        self, spec: PlainSpec, train: Records, *, compute: Compute = ON_PROCESSOR, entropy: Entropy = os.urandom
    ) -> None:
        torch.set_num_threads(1)  # hospitals share machines
        self._spec = spec
        self.compute = compute
        self._generator = CryptographicGenerator(entropy)
        self._views = RecordViews(spec.network, spec.views, train)
        self._records_of_patient = rows_of_patients(train.patients)
        if not self._records_of_patient:
            raise TrainingFailed("there is no patient to train on")
        # No clip makes a zero of a broken patient here: one of them would make the whole sum no number.
        _require_numbers(self._views.features, "records hold a value that is not a number")
        self._module = build_from(spec.network).to(compute.device)
        self._first_kept = kept_vector_of(self._module)
        self._loss = loss_of(spec.network)
        self._optimizer = local_optimizer(spec.optimizer, [p for _, p in named_parameters(self._module)])

    def train_round(
        self, model: NDArray[np.float32], start: LocalStart = FRESH, step_done: StepDone = unheard
    ) -> TrainedUpdate:
        """Take the round's steps from a global model, with an optimizer that starts anew or as `start` says.

        Args:
            model: float32[d], the global model in this network's layout.
            start: What this hospital brings to the round besides.
            step_done: Told after each step how many are done.

        Raises:
            TrainingFailed: The model does not fit, or training left the finite numbers.
        """
        load_vector(self._module, model)
        load_kept(self._module, self._first_kept if start.kept is None else start.kept)
        self._module.train()
        spec, named = self._spec.optimizer, named_parameters(self._module)
        load_state(self._optimizer, named, spec, start.optimizer)
        correction = Correction(self._module, mu=spec.proximal_mu, shift=start.shift)
        self._views.begin(start.round)
        batches = self._batches()
        sampled: list[int] = []
        while len(sampled) < self._spec.local_steps:
            set_rate(self._optimizer, spec, start.round, len(sampled))
            sampled.append(self._step(next(batches), correction))
            step_done(len(sampled))
        update, kept = vector_of(self._module), kept_vector_of(self._module)
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes no number, and is refused
            np.subtract(update, model, out=update)
        if not is_finite(update) or not is_finite(kept):
            raise TrainingFailed("training left the finite numbers; the study's learning rate is too large")
        local = LocalFigures(sampled_patients=tuple(sampled), clipped_patients=0, broken_patients=0)
        return TrainedUpdate(
            update=update,
            events=(),
            local=local,
            kept=kept if kept.size else None,
            optimizer=read_state(self._optimizer, named, spec) if spec.carries_state else None,
        )

    def _step(self, batch: Batch, correction: Correction) -> int:
        """One step of the optimizer on a batch; how many patients were in it."""
        self._optimizer.zero_grad(set_to_none=True)
        records_max = max(1, VALUES_AT_ONCE // max(1, math.prod(self._spec.network.input_shape)))
        try:
            for part in batch.parts(records_max):
                self._add_gradients(part.on(self.compute.device), len(batch.sizes))
        except torch.OutOfMemoryError as error:
            raise TrainingFailed(
                f"{self.compute.device} has not enough memory for {records_max} records at a time; "
                "`device: cpu` in site.yaml uses the processor's memory"
            ) from error
        correction.add_to_gradients()
        self._optimizer.step()
        return len(batch.sizes)

    def _add_gradients(self, part: Batch, patients: int) -> None:
        """Those of a part of a batch of so many patients."""
        sizes = torch.tensor(part.sizes, device=self.compute.device)
        weights = torch.repeat_interleave(1.0 / (sizes * patients), sizes)
        outputs = self.compute.outputs_of(self._module, part.features)
        (self._loss(outputs, part.labels) * weights).sum().backward()  # type: ignore[no-untyped-call]

    def _batches(self) -> Iterator[Batch]:
        """Passes over all patients without end, each in an order of its own."""
        patients = len(self._records_of_patient)
        size = math.ceil(self._spec.batch_part * patients)
        while True:
            order = np.argsort(self._generator.words(patients), kind="stable")
            for first in range(0, patients, size):
                chosen = [self._at_most(self._records_of_patient[patient]) for patient in order[first : first + size]]
                batch = self._views.next_step(chosen)
                if self._spec.views is not None:
                    _require_numbers(
                        batch.features, "views hold a value that is not a number after `data.augmentation`"
                    )
                yield batch

    def _at_most(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        most = self._spec.max_records_per_patient
        return rows if len(rows) <= most else rows[self._generator.choose(len(rows), most)]


def _require_numbers(features: torch.Tensor, what: str) -> None:
    broken = int((~torch.isfinite(features.flatten(1)).all(1)).sum())
    if broken:
        raise TrainingFailed(f"{broken} {what}")
