"""DP-SGD: global model + cohort -> an update that is already private, and the DP events it cost.

An engine gives the clipped sum (`site_agent.gradients`) and Opacus the shape of a private step; what the promise rests
on is here:

- patients are sampled, not records, each by its own coin of probability q from a cryptographic generator;
- a patient counts once, with the mean gradient over at most k records, clipped as one vector;
- the number of steps, q and the divisor are constants of the study, whoever is in the cohort;
- an empty batch still takes a step of pure noise, and a broken record (NaN) is a zero, not a NaN;
- a step has the whole sum of its sample or none: what does not fit in memory is cut inside the engine, in one call;
- noise comes from the same generator, is added on a grid (`privacy.dp.mechanism`), and no seed of it is ever kept.

One `DpTrainer` serves all rounds of a study, with one Opacus accountant attached to its optimizer, so that the steps
executed are counted where they happen and compared with the plan. Nothing but that count is carried from round to
round: the optimizer's momentum starts at zero each time, since each round starts from another model, or with the state
that the hospital brings from its disk (`optimizer_state.py`). Parameters that the hospital keeps (`training.site_kept`)
are clipped and noised with all others, in one vector: what is sent later depends on them.

Does not hide: the study's constants. Stays at the site: batch sizes, clipping counts, losses and timings, which would
undo the amplification by sampling.
"""

import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer

from consortium.contract.global_model import is_finite
from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import Grid, PoissonSampledDiscreteGaussian, PoissonSampledGaussian, noisy
from privacy.dp.randomness import CryptographicGenerator, Entropy
from site_agent.cohort import Records
from site_agent.corrections import Correction
from site_agent.errors import TrainingFailed
from site_agent.gradients.admission import EngineChoice, first_suited
from site_agent.gradients.ddp import spread
from site_agent.gradients.engine import FLOAT_MARGIN, Batch, PatientSum
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
from site_agent.shared_step import SharedStep
from site_agent.training_room import LocalFigures
from site_agent.training_spec import OptimizerSpec, TrainingSpec
from site_agent.update import (
    kept_vector_of,
    load_kept,
    load_vector,
    named_parameters,
    parameter_count,
    vector_of,
)
from site_agent.views import RecordViews


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
        engine: From `gradients.admission.choose`; without it the first engine that can do the network.
        entropy: Where the generator's key comes from; the operating system unless a test says otherwise.

    Raises:
        NetworkRefused: The study's network cannot be built or trained privately.
        TrainingFailed: The records do not fit the network.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        train: Records,
        *,
        engine: EngineChoice | None = None,
        entropy: Entropy = os.urandom,
    ) -> None:
        torch.set_num_threads(1)  # hospitals share machines, and these networks gain nothing from more
        self._spec = spec
        self._generator = CryptographicGenerator(entropy)
        self._views = RecordViews(spec.network, spec.views, train)
        self._records_of_patient = rows_of_patients(train.patients)
        self._module = build_from(spec.network)
        self._first_kept = kept_vector_of(self._module)
        loss = loss_of(spec.network)
        choice = first_suited(self._module, loss) if engine is None else engine
        self.engine = spread(choice.build(self._module, loss), spec.network, choice)
        self.compute = choice.compute
        self._accountant = RDPAccountant()
        # How a step ends: with an optimizer of this hospital's own, or with its share of a noise that many add.
        self._ending = self._shared_step() if spec.optimizer is None else self._own_optimizer(spec.optimizer)
        self._events: tuple[DpEvent, ...] = ()

    def _own_optimizer(self, optimizer: OptimizerSpec) -> "PatientOptimizer":
        """The optimizer, with the accountant hooked to its steps."""
        privacy = self._spec.privacy
        assert isinstance(privacy.mechanism, PoissonSampledGaussian)  # `training_spec.spec_of`
        parameters = [p for _, p in named_parameters(self._module)]
        made = PatientOptimizer(
            local_optimizer(optimizer, parameters),
            mechanism=privacy.mechanism,
            dimension=parameter_count(self._module),
            denominator=privacy.denominator,
            generator=self._generator,
        )
        made.attach_step_hook(self._accountant.get_optimizer_hook_fn(sample_rate=privacy.mechanism.sampling_rate))
        return made

    def _shared_step(self) -> SharedStep:
        privacy = self._spec.privacy
        assert isinstance(privacy.mechanism, PoissonSampledDiscreteGaussian)  # `training_spec.spec_of`
        assert privacy.sum_bound is not None  # the same
        return SharedStep(privacy.mechanism, privacy.sum_bound, self._generator, self._accountant)

    @property
    def events(self) -> tuple[DpEvent, ...]:
        """What every round so far has cost, in order."""
        return self._events

    @property
    def engine_name(self) -> str:
        """How gradients are computed here."""
        return self.engine.name

    def train_round(
        self, model: NDArray[np.float32], start: LocalStart = FRESH, step_done: StepDone = unheard
    ) -> TrainedUpdate:
        """Take the round's steps from a global model.

        Args:
            model: float32[d], the global model in this network's layout.
            start: What this hospital brings to the round besides; nothing with shared noise.
            step_done: Told after each of several steps how many are done.

        Raises:
            TrainingFailed: The model does not fit, training left the finite numbers, or the steps that Opacus'
                accountant saw are not the ones planned. What was executed is in `events` all the same.
        """
        load_vector(self._module, model)
        load_kept(self._module, self._first_kept if start.kept is None else start.kept)
        self._module.train()
        self._views.begin(start.round)
        before = self._steps_seen()
        try:
            update, steps = (
                self._moved(self._ending, model, start, step_done)
                if isinstance(self._ending, PatientOptimizer)
                else self._noisy_sum(self._ending)
            )
        finally:
            # Whatever happened, the steps that were taken are counted.
            executed = self._steps_seen() - before
            if executed:
                self._events = (*self._events, self._spec.privacy.study_event().with_steps(executed))
        self._check_plan(executed)
        kept = kept_vector_of(self._module)
        if not is_finite(kept):
            raise TrainingFailed("training left the finite numbers; the study's learning rate is too large")
        return TrainedUpdate(
            update=update,
            events=self._events[-1:],
            local=LocalFigures(
                sampled_patients=tuple(step.sampled for step in steps),
                clipped_patients=sum(step.clipped for step in steps),
                broken_patients=sum(step.broken for step in steps),
            ),
            kept=kept if kept.size else None,
            optimizer=self._state_after(),
        )

    def _moved(
        self, optimizer: "PatientOptimizer", model: NDArray[np.float32], start: LocalStart, step_done: StepDone
    ) -> tuple[NDArray[np.float32], list["_Step"]]:
        """The model difference after the round's own steps."""
        spec = self._spec.optimizer
        assert spec is not None  # it made this optimizer
        load_state(optimizer.original_optimizer, named_parameters(self._module), spec, start.optimizer)
        optimizer.correction = Correction(self._module, mu=spec.proximal_mu, shift=start.shift)
        steps: list[_Step] = []
        while len(steps) < self._spec.privacy.local_steps:
            set_rate(optimizer.original_optimizer, spec, start.round, len(steps))
            steps.append(self._step())
            step_done(len(steps))
        update = vector_of(self._module)
        with np.errstate(over="ignore"):  # what does not fit becomes an infinity, and is refused
            np.subtract(update, model, out=update)  # in place: of a large model's update there is one copy
        if not is_finite(update):
            raise TrainingFailed("training left the finite numbers; the study's learning rate is too large")
        return update, steps

    def _state_after(self) -> NDArray[np.float32] | None:
        """What the optimizer carries into the next round, in a study that says so: a function of noisy gradients."""
        spec = self._spec.optimizer
        if spec is None or not spec.carries_state:
            return None
        assert isinstance(self._ending, PatientOptimizer)  # with a spec of its own
        return read_state(self._ending.original_optimizer, named_parameters(self._module), spec)

    def _noisy_sum(self, ending: SharedStep) -> tuple[NDArray[np.float64], list["_Step"]]:
        """One step's sum of gradients at the model's weights, with this hospital's share of the noise."""
        clean = self.clean_sum(ending.grid)
        step = _Step(sampled=clean.patients, clipped=clean.clipped, broken=clean.broken)
        return ending.noisy_sum(clean), [step]

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

    def clean_sum(self, grid: Grid) -> PatientSum:
        """Sample patients and sum their gradients at the module's present weights, clipped for `grid`: no noise yet.

        Every call draws a new sample. `PatientSum.on_grid` gives the sum in whole grid spacings.
        """
        return self.engine.clipped_sum(self._sample(), grid.clip_norm_l2)

    def _step(self) -> "_Step":
        """One step of this hospital's own: sample patients, sum their clipped gradients, add noise, move."""
        optimizer = self._ending
        assert isinstance(optimizer, PatientOptimizer)  # with shared noise the coordinator moves
        optimizer.zero_grad(set_to_none=True)
        optimizer.take(self.clean_sum(optimizer.grid))
        optimizer.step()
        return optimizer.last

    def _sample(self) -> Batch:
        """The patients of one step, each by a coin of its own, with at most k of their records."""
        coins = self._generator.bernoulli(len(self._records_of_patient), self._spec.privacy.mechanism.sampling_rate)
        chosen = [self._at_most(self._records_of_patient[patient]) for patient in np.flatnonzero(coins)]
        return self._views.next_step(chosen)

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
        self.grid = Grid.of(mechanism, dimension, margin=FLOAT_MARGIN)
        self._random = generator
        self.correction: Correction | None = None  # of the round under way
        self._taken: PatientSum | None = None  # from `take`, used once
        self._sum: NDArray[np.int64] | None = None  # from `clip_and_accumulate`, used once
        self.last = _Step(sampled=0, clipped=0, broken=0)

    def take(self, clean: PatientSum) -> None:
        """Hand over the clipped sum of the step that comes next.

        Raises:
            TrainingFailed: The one handed over before has not been used.
        """
        if self._taken is not None or self._sum is not None:
            raise TrainingFailed("a sum of gradients was left without its step")
        self._taken = clean

    @property
    def grad_samples(self) -> tuple[PatientSum | None]:
        """What Opacus looks at before a step; per-record gradients never come here."""
        return (self._taken,)

    @property
    def accumulated_iterations(self) -> int:
        """Always one: a step is one logical batch, however the engine cuts it."""
        return 1

    def clip_and_accumulate(self) -> None:
        """The engine's sum, rounded to the grid."""
        clean, self._taken = self._taken, None
        if clean is None:
            raise TrainingFailed("a step would be taken without a sum of its own")
        self._sum = clean.on_grid(self.grid)
        self.last = _Step(sampled=clean.patients, clipped=clean.clipped, broken=clean.broken)

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
        total = noisy(clean, self._mechanism.noise_std, self.grid, self._random)
        start = 0
        for parameter in self.params:
            stop = start + parameter.numel()
            noised = torch.from_numpy(total[start:stop].reshape(parameter.shape))
            parameter.grad = noised.to(device=parameter.device, dtype=parameter.dtype)
            start = stop

    def scale_grad(self) -> None:
        """The mean gradient, and then the round's correction: it is no patient's and needs no noise."""
        super().scale_grad()
        if self.correction is not None:
            self.correction.add_to_gradients()

    def signal_skip_step(self, do_skip: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 - Opacus' signature
        """Refused: a skipped step would drop a sum that was sampled, or change the number of steps."""
        raise TrainingFailed("no step may be skipped")
