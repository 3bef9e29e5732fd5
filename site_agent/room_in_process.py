"""A training room in this very process (torch, pandas): what the training child runs, and tests and measurements use.

Nothing is charged, signed or sent here; the agent does that before it asks and after it was answered.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from consortium.contract.global_model import GlobalModel
from consortium.contract.server_optimizer import awaits_test
from site_agent import admission_audit
from site_agent.carried import Carried
from site_agent.client_algo_file import made_client_algo
from site_agent.cohort import Cohort, read_cohort
from site_agent.computing import compute_of, engine_for, log
from site_agent.device import ON_PROCESSOR, Compute, Precision
from site_agent.errors import TrainingFailed
from site_agent.evaluate import evaluate
from site_agent.exact_trainer import ExactTrainer
from site_agent.local_steps import LocalStart
from site_agent.mechanism_findings import MechanismAudit
from site_agent.networks import build_from
from site_agent.patient_marks import identifiers_in
from site_agent.plain_trainer import PlainTrainer
from site_agent.progress import StepDone
from site_agent.trainer import DpTrainer
from site_agent.training_room import Equipped, Order, RoomLost, RoundJob, Seen, Tally, Trained
from site_agent.training_spec import NetworkSpec, PlainSpec, TrainingSpec, network_spec_of
from site_agent.update import global_model_of, load_kept


class RoomInProcess:
    """`training_room.TrainingRoom`. Mutable: it holds the cohort and the trainer."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._compute: Compute = ON_PROCESSOR
        self._network: NetworkSpec = network_spec_of(order.study, order.weights)
        self._cohort: Cohort | None = None
        self._first_model: GlobalModel | None = None
        self._trainer: DpTrainer | ExactTrainer | None = None
        self._carried: Carried | None = None
        self._released: frozenset[int] = frozenset()
        self._trained = 0  # times, in this room
        self._training = False

    @property
    def lost(self) -> RoomLost | None:
        """It is there as long as this process is."""
        return None

    def look(self) -> Seen:
        """See `TrainingRoom`."""
        order = self._order
        precision: Precision = "bfloat16" if order.precision == "bfloat16" else "float32"
        self._compute = compute_of(order.device, precision)
        cohort = self._cohort = read_cohort(order.study, order.dataset, order.images, order.withdrawn)
        model = self._first_model = global_model_of(build_from(self._network))
        return Seen(
            patients=cohort.summary.patients,
            test_patients=cohort.test.patient_count,
            validation_patients=0 if cohort.validation is None else cohort.validation.patient_count,
            parameters=model.parameters,
            device=self._compute.words,
        )

    def identifiers(self) -> Iterator[str]:
        """See `TrainingRoom`."""
        return identifiers_in(self._order.dataset)

    def equip(self, spec: TrainingSpec | PlainSpec) -> Equipped:
        """See `TrainingRoom`."""
        assert self._cohort is not None  # `look` comes first
        assert self._first_model is not None  # the same
        audit: MechanismAudit | None = None  # a study without differential privacy has no mechanism to measure
        if isinstance(spec, PlainSpec):
            self._trainer = self._exact_trainer(spec, self._cohort)
        else:
            engine = engine_for(spec, self._order.engine, self._compute)
            self._trainer = DpTrainer(spec, self._cohort.train, engine=engine)
            audit = admission_audit.audited_at_admission(spec, engine, parameters=self._first_model.vector.size)
        self._network = spec.network
        self._carried = Carried(
            self._order.study,
            self._order.carried,
            model=self._first_model,
            was_released=lambda number: number in self._released,
        )
        equipped = Equipped(engine=self._trainer.engine_name, audit=audit, first_model=self._first_model)
        self._first_model = None  # whoever asked has it; here it would take memory for as long as the study
        return equipped

    def train(self, job: RoundJob, step_done: StepDone) -> Trained:
        """See `TrainingRoom`."""
        trainer, carried = self._ready()
        self._released = job.released
        start: LocalStart = carried.start(job.round, job.model)
        self._training = True
        try:
            trained = trainer.train_round(job.model.vector, start, step_done)
        finally:
            self._training = False
        self._trained += 1
        # As often as takes no part of the time: after 1, 2, 4, 8, ...
        if isinstance(trainer, DpTrainer) and self._trained & (self._trained - 1) == 0:
            trainer.cross_check()  # three accountants over what this room executed; none may contradict
        carried.after(job.round, job.model, trained)
        steps = sum(event.mechanism.steps for event in trained.events)
        return Trained(update=trained.update, noisy_steps=steps, local=trained.local)

    def measure(self, round_number: int, model: GlobalModel) -> Tally:
        """See `TrainingRoom`."""
        _, carried = self._ready()
        assert self._cohort is not None  # with the trainer
        # A network of its own, also for an evaluation nobody waits for any more; kept no longer than it takes.
        module = build_from(self._network).to(self._compute.device)
        kept = carried.kept(round_number)
        if kept is not None:
            load_kept(module, kept)
        study = self._order.study
        patients, groups = self._cohort.measured(chosen=awaits_test(study, model.state))
        found = evaluate(
            module,
            model.vector,
            patients,
            study.evaluation,
            groups,
            outputs=study.data.outputs,
            patch=study.data.patch,
        )
        return found.scores

    def abort(self) -> None:
        """Nobody waits for the training under way any more: a hospital's own class is told."""
        if self._training and isinstance(self._trainer, ExactTrainer):
            with contextlib.suppress(TrainingFailed):
                self._trainer.abort()

    def finish(self) -> None:
        """See `TrainingRoom`. What a hospital's own class says to it is that class's own matter."""
        if isinstance(self._trainer, ExactTrainer):
            self.abort()
            with contextlib.suppress(TrainingFailed):
                self._trainer.finalize()

    def stop(self) -> None:
        """A thread cannot be ended from outside: what was begun goes on to its end, and nobody looks at it."""

    def _ready(self) -> tuple[DpTrainer | ExactTrainer, Carried]:
        if self._trainer is None or self._carried is None:
            raise TrainingFailed("a round was to be computed before the study was prepared")
        return self._trainer, self._carried

    def _exact_trainer(self, spec: PlainSpec, cohort: Cohort) -> ExactTrainer:
        """Who takes the steps without differential privacy: this program, or the hospital's own class."""
        registered = self._order.client_algo
        if registered is None:
            return PlainTrainer(spec, cohort.train, compute=self._compute)
        from site_agent.client_algo import ClientAlgoTrainer  # noqa: PLC0415 - MONAI

        algo = made_client_algo(registered)
        log.info("client_algo.made", code=registered.sha256)
        file = registered.file or str(sys.modules[type(algo).__module__].__file__)
        return ClientAlgoTrainer(
            algo,
            spec,
            cohort.train,
            site=self._order.site,
            folder=Path(file).parent,
            compute=self._compute,
        )
