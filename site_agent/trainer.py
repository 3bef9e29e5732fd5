"""DP-SGD: global model + cohort -> an update that is already private, and the DP events it cost.

Opacus gives the gradient of every record and the shape of a private step; what the promise rests on is here:

- patients are sampled, not records, each by its own coin of probability q from a cryptographic generator;
- a patient counts once, with the mean gradient over at most k records, clipped as one vector;
- the number of steps, q and the divisor are constants of the study, whoever is in the cohort;
- an empty batch still takes a step of pure noise, and a broken record (NaN) is a zero, not a NaN;
- noise comes from the same generator, is added on a grid (`privacy.dp.mechanism`), and no seed of it is ever kept.

One `DpTrainer` serves all rounds of a study, with one Opacus accountant attached to its optimizer, so that the steps
executed are counted where they happen and compared with the plan. Nothing but that count is carried from round to
round: the optimizer's momentum starts at zero each time, since each round starts from another model.

Does not hide: the study's constants. Stays at the site: batch sizes, clipping counts, losses and timings, which would
undo the amplification by sampling.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer
from torch import nn

from consortium.contract.global_model import is_finite
from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import Grid, PoissonSampledGaussian, clip_to_grid, noisy
from privacy.dp.randomness import CryptographicGenerator, Entropy
from site_agent.cohort import Records
from site_agent.errors import TrainingFailed
from site_agent.networks import build_from
from site_agent.training_spec import TrainingSpec
from site_agent.update import load_vector, named_parameters, parameter_count, vector_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFigures:
    """What the hospital may look at and nobody else: these numbers carry no noise. They print as nothing."""

    sampled_patients: tuple[int, ...]  # of each step
    clipped_patients: int  # over all steps
    broken_patients: int  # over all steps: a record gave a gradient that is not finite

    @property
    def clipped_fraction(self) -> float:
        """Of the contributions made, how many were shortened; 0 if there were none."""
        return self.clipped_patients / max(1, sum(self.sampled_patients))

    def __repr__(self) -> str:
        return "LocalFigures()"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedUpdate:
    """The result of one round's training. It prints without its values."""

    update: NDArray[np.float32] = field(repr=False)  # model difference in the layout of `update.parameter_layout`
    events: tuple[DpEvent, ...]  # what was executed, to settle the ledger with
    local: LocalFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """One history, three accountants. The first is the one reported."""

    pld_epsilon: float
    renyi_epsilon: float
    opacus_epsilon: float  # Opacus' RDP accountant, from the steps its own hook saw


class DpTrainer:
    """All rounds of one study at one site. Mutable: it counts the steps it has executed.

    Args:
        spec: From the study.
        train: The cohort's training part, one privacy unit per patient.
        entropy: Where the generator's key comes from; the operating system unless a test says otherwise.

    Raises:
        NetworkRefused: The study's network cannot be built or trained privately.
        TrainingFailed: The records do not fit the network.
    """

    def __init__(self, spec: TrainingSpec, train: Records, *, entropy: Entropy = os.urandom) -> None:
        torch.set_num_threads(1)  # hospitals share machines, and these networks gain nothing from more
        if train.features.shape != (len(train.labels), spec.network.input_size):
            raise TrainingFailed(
                f"records of shape {train.features.shape} do not fit a network of {spec.network.input_size} inputs"
            )
        self._spec = spec
        self._generator = CryptographicGenerator(entropy)
        self._features = torch.tensor(train.features, dtype=torch.float32)
        self._labels = torch.tensor(train.labels, dtype=torch.float32)
        self._records_of_patient = _grouped(train.patients)
        self._module = build_from(spec.network)
        self._model = GradSampleModule(self._module, loss_reduction="sum")
        self._loss = nn.BCEWithLogitsLoss(reduction="sum")
        parameters = [p for _, p in named_parameters(self._module)]
        self._optimizer = PatientOptimizer(
            torch.optim.SGD(parameters, lr=spec.optimizer.learning_rate, momentum=spec.optimizer.momentum),
            mechanism=spec.privacy.mechanism,
            dimension=parameter_count(self._module),
            denominator=spec.privacy.denominator,
            generator=self._generator,
        )
        self._accountant = RDPAccountant()
        self._optimizer.attach_step_hook(
            self._accountant.get_optimizer_hook_fn(sample_rate=spec.privacy.mechanism.sampling_rate)
        )
        self._events: tuple[DpEvent, ...] = ()

    @property
    def events(self) -> tuple[DpEvent, ...]:
        """What every round so far has cost, in order."""
        return self._events

    def train_round(self, model: NDArray[np.float32]) -> TrainedUpdate:
        """Take the round's steps from a global model.

        Args:
            model: float32[d], the global model in this network's layout.

        Raises:
            TrainingFailed: The model does not fit, training left the finite numbers, or the steps that Opacus'
                accountant saw are not the ones planned. What was executed is in `events` all the same.
        """
        load_vector(self._module, model)
        self._optimizer.state.clear()
        self._model.train()
        before = self._steps_seen()
        try:
            steps = [self._step() for _ in range(self._spec.privacy.local_steps)]
        finally:
            # Whatever happened, the steps that were taken are counted.
            executed = self._steps_seen() - before
            if executed:
                self._events = (*self._events, self._spec.privacy.study_event().with_steps(executed))
        self._check_plan(executed)
        update = vector_of(self._module)
        with np.errstate(over="ignore"):  # what does not fit becomes an infinity, and is refused
            np.subtract(update, model, out=update)  # in place: of a large model's update there is one copy
        if not is_finite(update):
            raise TrainingFailed("training left the finite numbers; the study's learning rate is too large")
        return TrainedUpdate(
            update=update,
            events=self._events[-1:],
            local=LocalFigures(
                sampled_patients=tuple(step.sampled for step in steps),
                clipped_patients=sum(step.clipped for step in steps),
                broken_patients=sum(step.broken for step in steps),
            ),
        )

    def cross_check(self) -> CrossCheck:
        """Epsilon so far at the study's delta, by three accountants.

        Raises:
            TrainingFailed: The tight figure is above an upper bound, so one of them is wrong.
        """
        delta = self._spec.privacy.delta
        check = CrossCheck(
            pld_epsilon=accountant.epsilon(self._events, delta=delta),
            renyi_epsilon=accountant.renyi_epsilon(self._events, delta=delta),
            opacus_epsilon=float(self._accountant.get_epsilon(delta)) if self._events else 0.0,
        )
        if check.pld_epsilon > min(check.renyi_epsilon, check.opacus_epsilon) + 1e-3:
            raise TrainingFailed(f"the accountants contradict each other: {check}")
        return check

    def _step(self) -> "_Step":
        """One step: sample patients, sum their clipped gradients, add noise, move."""
        privacy = self._spec.privacy
        coins = self._generator.bernoulli(len(self._records_of_patient), privacy.mechanism.sampling_rate)
        chosen = [self._at_most(self._records_of_patient[patient]) for patient in np.flatnonzero(coins)]
        self._optimizer.zero_grad(set_to_none=True)
        if chosen:
            rows = torch.from_numpy(np.concatenate(chosen))
            # Opacus listens to full backward hooks, which torch fires reliably only if the inputs ask for gradients.
            logits = self._model(self._features[rows].requires_grad_()).squeeze(1)
            self._loss(logits, self._labels[rows]).backward()
        else:
            # No patient fell in: per-record gradients of length zero, so that the step is noise and nothing else.
            for _, parameter in named_parameters(self._module):
                parameter.grad_sample = torch.zeros((0, *parameter.shape))  # type: ignore[attr-defined]
        self._optimizer.group([len(rows) for rows in chosen])
        self._optimizer.step()
        return self._optimizer.last

    def _at_most(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """A sampled patient's records, at most k of them, drawn at random."""
        most = self._spec.privacy.max_records_per_patient
        return rows if len(rows) <= most else rows[self._generator.choose(len(rows), most)]

    def _steps_seen(self) -> int:
        return sum(int(steps) for _, _, steps in self._accountant.history)

    def _check_plan(self, executed: int) -> None:
        """The steps executed, as the optimizer's hook saw them, are the steps that were reserved."""
        planned = self._spec.privacy
        if executed != planned.local_steps:
            raise TrainingFailed(f"{executed} steps were executed where {planned.local_steps} were planned")
        for noise, rate, _ in self._accountant.history:
            if (noise, rate) != (planned.mechanism.noise_multiplier, planned.mechanism.sampling_rate):
                raise TrainingFailed("a step was executed with another noise or sampling rate than planned")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """What one step saw; local."""

    sampled: int
    clipped: int
    broken: int


class PatientOptimizer(DPOptimizer):  # type: ignore[misc] # Opacus has no types
    """Opacus' optimizer with the patient as the unit and the noise from a cryptographic generator.

    Clipping and noise are replaced; the order of a step, its hook and its refusals (gradients used twice, steps
    signalled to be skipped) are Opacus'. Its attributes `noise_multiplier` and `max_grad_norm`, which the accountant's
    hook reads and anybody can set, must be the mechanism's at every step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        mechanism: PoissonSampledGaussian,
        dimension: int,
        denominator: float,
        generator: CryptographicGenerator,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=mechanism.clip_norm_l2,
            expected_batch_size=denominator,
        )
        self._mechanism = mechanism
        self._grid = Grid.of(mechanism, dimension)
        self._random = generator
        self._sizes: tuple[int, ...] | None = None  # from `group`, used once
        self._sum: NDArray[np.int64] | None = None  # from `clip_and_accumulate`, used once
        self.last = _Step(sampled=0, clipped=0, broken=0)

    def group(self, sizes: Sequence[int]) -> None:
        """Say how many consecutive records of the batch belong to each sampled patient, in order."""
        self._sizes = tuple(sizes)

    def clip_and_accumulate(self) -> None:
        """Records -> patients -> the exact sum of their clipped gradients, on the grid."""
        sizes, self._sizes = self._sizes, None
        records = np.concatenate([_rows(sample) for sample in self.grad_samples], axis=1)
        if sizes is None or len(records) != sum(sizes):
            raise TrainingFailed("the per-record gradients of a step were not grouped by patient")
        patients = _means(records, sizes)
        self._sum, clipped = clip_to_grid(patients, self._grid)
        broken = len(patients) - int(np.isfinite(patients).all(axis=1).sum())
        self.last = _Step(sampled=len(patients), clipped=clipped, broken=broken)

    def add_noise(self) -> None:
        """The noisy sum becomes the gradient that the wrapped optimizer sees."""
        clean, self._sum = self._sum, None
        if clean is None:
            raise TrainingFailed("a step would use one sum of gradients twice")
        if (self.noise_multiplier, self.max_grad_norm) != (
            self._mechanism.noise_multiplier,
            self._mechanism.clip_norm_l2,
        ):
            raise TrainingFailed("a step would be executed with another noise or clip norm than planned")
        total = noisy(clean, self._mechanism.noise_std, self._grid, self._random)
        start = 0
        for parameter in self.params:
            stop = start + parameter.numel()
            parameter.grad = torch.from_numpy(total[start:stop].reshape(parameter.shape)).to(parameter.dtype)
            start = stop

    def signal_skip_step(self, do_skip: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 - Opacus' signature
        """Refused: a skipped step would drop a sum that was sampled, or change the number of steps."""
        raise TrainingFailed("no step may be skipped")


def _rows(sample: torch.Tensor) -> NDArray[np.float64]:
    """Per-record gradients of one parameter as float64[records, values]; there may be no records."""
    values: NDArray[np.float64] = sample.detach().double().numpy()
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _means(records: NDArray[np.float64], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Mean over each run of consecutive rows: float64[patients, d]."""
    if not sizes:
        return np.zeros((0, records.shape[1]))
    counts = np.asarray(sizes, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    with np.errstate(over="ignore", invalid="ignore"):  # a sum that overflows is a broken patient, and a zero
        means: NDArray[np.float64] = np.add.reduceat(records, starts, axis=0) / counts[:, None]
    return means


def _grouped(patients: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """The rows of each patient, in the order of the patients' numbers."""
    order = np.argsort(patients, kind="stable")
    _, starts = np.unique(patients[order], return_index=True)
    return tuple(np.split(order, starts[1:])) if len(order) else ()
