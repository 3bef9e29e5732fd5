"""The `training` and `privacy` sections of a study: what hospitals compute in a round, and what a patient is promised.

Which algorithm goes with which mechanism is `ALGORITHM_REFUSALS`; `docs/reference/algorithms.md` is the same table in
words. All algorithms work on masked sums only: the coordinator learns the sum of the updates and whatever follows from
it, never one update.
"""

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, TypeAlias, get_args

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import Field

from consortium.contract.catalogue import Averaging, LossName, MechanismName, OptimizerChoice
from consortium.contract.errors import shown
from consortium.contract.fields import ClientAlgoName, Prose
from consortium.contract.parameter_parts import PARTS_MAX, ParameterPattern
from consortium.contract.schedules import Rates, Schedule, schedule_fits_rounds
from consortium.contract.schema import Finding, Rule, Section

DISTRIBUTED = "distributed-dp-sgd"
NONE = "none"
SITES_MOST = 1024
"""As many hospitals as a study may have; `study.SITES_MAX` is the same number, and a test compares them."""

AlgorithmName: TypeAlias = Literal["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold"]
ALGORITHMS: tuple[str, ...] = get_args(AlgorithmName)

SERVER_ARGUMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fedavgm": ("momentum",),
        "fedadam": ("beta1", "beta2", "tau"),
        "fedyogi": ("beta1", "beta2", "tau"),
        "fedadagrad": ("beta1", "tau"),
    }
)
"""What `training.server_optimizer` must say for each algorithm that has one."""

_SUM_OF_GRADIENTS = "the sum is a gradient there, and training.optimizer is already the coordinator's"
ALGORITHM_REFUSALS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        (DISTRIBUTED, "fedprox"): "a round is one step from the global model, where the proximal term is zero",
        (DISTRIBUTED, "fedavgm"): f"{_SUM_OF_GRADIENTS}: sgd with momentum",
        (DISTRIBUTED, "fedadam"): f"{_SUM_OF_GRADIENTS}: adam",
        (DISTRIBUTED, "fedyogi"): f"{_SUM_OF_GRADIENTS}: adam",
        (DISTRIBUTED, "fedadagrad"): f"{_SUM_OF_GRADIENTS}: adam",
        (DISTRIBUTED, "scaffold"): "a round is one step, in which no hospital can drift",
    }
)
"""Mechanism and algorithm that do not go together, and why; every other pair does."""


class ServerOptimizer(Section):
    """How the coordinator, and every hospital after it, moves the global model by the mean update.

    The rules, and where their conventions differ from those of local optimizers, are in `server_optimizer.py`.
    """

    momentum: Annotated[float, Gt(0), Lt(1)] | None = None  # fedavgm: how much of the velocity a round keeps
    beta1: Annotated[float, Ge(0), Lt(1)] | None = None  # the same of the first moment
    beta2: Annotated[float, Gt(0), Lt(1)] | None = None  # and of the second
    tau: Annotated[float, Ge(1e-9), Le(1)] | None = None  # adaptivity: added to the root of the second moment


def _arguments_fit_algorithm(
    algorithm: str, server_optimizer: ServerOptimizer | None, proximal_mu: float | None, local_steps: int
) -> Iterator[Finding]:
    wanted = SERVER_ARGUMENTS.get(algorithm, ())
    if server_optimizer is None and wanted:
        yield Finding("server_optimizer", "nothing", f"with {algorithm}: {', '.join(wanted)}")
    elif server_optimizer is not None and not wanted:
        others = ", ".join(SERVER_ARGUMENTS)
        yield Finding("server_optimizer", "a section", f"nothing with {algorithm}: it belongs to {others}")
    elif server_optimizer is not None:
        for name in ServerOptimizer.model_fields:
            value = getattr(server_optimizer, name)
            if (value is None) == (name in wanted):
                found = "nothing" if value is None else shown(value)
                yield Finding(f"server_optimizer.{name}", found, f"with {algorithm}: {', '.join(wanted)}")
    if (proximal_mu is not None) != (algorithm == "fedprox"):
        found = "nothing" if proximal_mu is None else shown(proximal_mu)
        allowed = "a number greater than 0" if proximal_mu is None else f"nothing with {algorithm}"
        yield Finding("proximal_mu", found, f"{allowed}; it belongs to fedprox")
    if algorithm == "fedprox" and local_steps == 1:
        yield Finding("local_steps", "1", "at least 2 with fedprox: in the first step the proximal term is zero")


def _scaffold_can_be_derived(
    algorithm: str, weighting: str, optimizer: OptimizerChoice, schedule: Schedule | None
) -> Iterator[Finding]:
    """`site_agent/control_variates.py`: a control variate is read off the update only if steps are plain and alike."""
    if algorithm != "scaffold":
        return
    if weighting != "uniform":
        yield Finding("weighting", weighting, "uniform with scaffold: its control variate is the plain mean over sites")
    if optimizer.name != "sgd":
        yield Finding("optimizer.name", optimizer.name, "sgd with scaffold: an update must be the sum of its gradients")
    elif optimizer.momentum:
        yield Finding(
            "optimizer.momentum",
            shown(optimizer.momentum),
            "0 with scaffold: an update must be the sum of its gradients",
        )
    if schedule is not None:
        yield Finding(
            "schedule", schedule.name, "nothing with scaffold: its control variate is read off steps of one rate"
        )


def _state_to_carry(algorithm: str, optimizer: OptimizerChoice, optimizer_state: str | None) -> Iterator[Finding]:
    if optimizer_state is None:
        return
    if algorithm == "scaffold":
        allowed = "nothing with scaffold: its optimizer is sgd without momentum, which has no state"
        yield Finding("optimizer_state", optimizer_state, allowed)
    elif optimizer.name == "sgd" and not optimizer.momentum:
        yield Finding("optimizer_state", optimizer_state, "nothing with sgd without momentum, which has no state")


class Training(Section):
    """What a hospital computes in each round."""

    rounds: Annotated[int, Ge(1), Le(100_000)]
    local_steps: Annotated[int, Ge(1), Le(100_000)]
    # A round that breaks off after shares were released is trained and charged afresh: so many are budgeted for.
    spare_rounds: Annotated[int, Ge(0), Le(1_000)] = 0
    # Hospitals of one training round, by turns (`participation_schedule.py`); without it all of them are in every one.
    participants_per_round: Annotated[int, Ge(3), Le(SITES_MOST)] | None = None
    sampling_rate: Annotated[float, Gt(0), Le(1)]  # chance of a patient to be in a step; with none, part of a batch
    optimizer: OptimizerChoice  # the hospital's own, in each round; with distributed-dp-sgd the coordinator's
    schedule: Schedule | None = None  # of the optimizer's learning rate, over rounds; without it the rate stays
    optimizer_state: Literal["carried"] | None = None  # of the hospital's own optimizer, from round to round
    algorithm: AlgorithmName
    server_optimizer: ServerOptimizer | None = None
    proximal_mu: Annotated[float, Gt(0), Le(1000)] | None = None  # of fedprox
    server_learning_rate: Annotated[float, Gt(0), Le(10)]
    weighting: Literal["uniform", "patients"]
    averaging: Averaging | None = None  # of the global models, for the one that is released
    # Parameters that are trained, by name or pattern; without it all of them. The others stay as they are built.
    trainable: Annotated[tuple[ParameterPattern, ...], Len(1, PARTS_MAX)] | None = None
    # Trained parameters that every hospital keeps to itself.
    site_kept: Annotated[tuple[ParameterPattern, ...], Len(1, PARTS_MAX)] | None = None
    # A class of monai.fl that takes the local steps, by the name under which each hospital's own site.yaml has one.
    client_algo: ClientAlgoName | None = None
    loss: LossName
    seed: Annotated[int, Ge(0), Le(2**32 - 1)]  # of the first model's weights, and of nothing secret

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("algorithm", "server_optimizer", "proximal_mu", "local_steps"), check=_arguments_fit_algorithm),
        Rule(reads=("algorithm", "weighting", "optimizer", "schedule"), check=_scaffold_can_be_derived),
        Rule(reads=("algorithm", "optimizer", "optimizer_state"), check=_state_to_carry),
        Rule(reads=("rounds", "schedule"), check=schedule_fits_rounds),
    )


def rates_of(training: Training) -> Rates:
    """The learning rate of every step of `training.optimizer`, whoever takes it."""
    return Rates(
        learning_rate=training.optimizer.learning_rate,
        schedule=training.schedule,
        rounds=training.rounds,
        local_steps=training.local_steps,
    )


class Privacy(Section):
    """What a patient is promised: the whole study is (epsilon, delta)-differentially private for one patient."""

    mechanism: MechanismName
    unit: Literal["patient"]
    epsilon: Annotated[float, Gt(0)]
    delta: Annotated[float, Gt(0), Lt(1)]
    clip_norm_l2: Annotated[float, Gt(0)]
    max_records_per_patient: Annotated[int, Ge(1), Le(10_000)]
    # How many hospitals of a sum may leave out their share of the noise, or tell it to others: for distributed-dp-sgd.
    colluding: Annotated[int, Ge(0), Le(SITES_MOST)] | None = None


class NoPrivacy(Section):
    """Patients are promised no differential privacy: sums are exact. Every hospital must allow that by itself.

    Whoever asks for a figure gets the truth: epsilon is infinite and delta is 1, so that no cap can be met by mistake.
    """

    mechanism: Literal["none"]
    unit: Literal["patient"]  # of sampling and of splits
    justification: Prose  # why the study cannot be done with differential privacy, for stewards and patients to read
    max_records_per_patient: Annotated[int, Ge(1), Le(10_000)]

    @property
    def epsilon(self) -> float:
        """Infinite."""
        return math.inf

    @property
    def delta(self) -> float:
        """One: the chance that nothing holds."""
        return 1.0

    @property
    def clip_norm_l2(self) -> float:
        """Infinite: no patient's part is shortened."""
        return math.inf

    @property
    def colluding(self) -> int | None:
        """No noise is shared."""
        return None


PrivacyChoice: TypeAlias = Annotated[Privacy | NoPrivacy, Field(discriminator="mechanism")]
"""The `privacy` section of a study; its members are told apart by `mechanism`."""


def algorithm_fits_mechanism(
    mechanism: str, algorithm: str, site_kept: tuple[str, ...] | None, optimizer_state: str | None = None
) -> Iterator[Finding]:
    """A rule of studies: one clear sentence for each pair that does not go together."""
    why = ALGORITHM_REFUSALS.get((mechanism, algorithm))
    if why is not None:
        yield Finding("training.algorithm", algorithm, f"fedavg with {mechanism}: {why}")
    if mechanism == DISTRIBUTED and site_kept is not None:
        yield Finding(
            "training.site_kept",
            "parameters that hospitals keep",
            f"nothing with {mechanism}: a hospital takes no step of its own that could train what it keeps",
        )
    if mechanism == DISTRIBUTED and optimizer_state is not None:
        yield Finding(
            "training.optimizer_state",
            optimizer_state,
            f"nothing with {mechanism}: the optimizer is the coordinator's, and its state travels with the model",
        )


def turns_fit_algorithm(per_round: int | None, algorithm: str, weighting: str) -> Iterator[Finding]:
    """A rule of studies: what must not, or cannot, be summed over other hospitals in every round."""
    if per_round is None:
        return
    if algorithm == "scaffold":
        allowed = "another with training.participants_per_round: its control variates are of hospitals in every round"
        yield Finding("training.algorithm", algorithm, allowed)
    if weighting != "uniform":
        # Exact numbers that stay the same, summed over sets that change: each could be solved for.
        allowed = "uniform with training.participants_per_round: the numbers of patients would show in the sums"
        yield Finding("training.weighting", weighting, allowed)


def turns_fit_mechanism(per_round: int | None, mechanism: str, group_size: int | None) -> Iterator[Finding]:
    """A rule of studies: only an update that is private by itself may be summed over any hospitals (S-18, S-23)."""
    if per_round is None:
        return
    at = "training.participants_per_round"
    if mechanism == NONE:
        allowed = f"nothing with {NONE}: exact sums over sets that differ could be subtracted"
        yield Finding(at, shown(per_round), allowed)
    if mechanism == DISTRIBUTED:
        allowed = f"nothing with {DISTRIBUTED}: shares of the noise are sized for all hospitals in every round"
        yield Finding(at, shown(per_round), allowed)
    if group_size is not None:
        allowed = "nothing with aggregation.group_size: a round of few needs no groups, and one in groups has everybody"
        yield Finding(at, shown(per_round), allowed)


def turns_fit_figures(
    per_round: int | None, rounds: int, every_rounds: int, keep_best: str | None, stop_early: object | None
) -> Iterator[Finding]:
    """A rule of studies: figures are summed once, at the end, over everybody; no round in which some train has any."""
    if per_round is None:
        return
    why = "with training.participants_per_round only the last model is measured, by everybody"
    if every_rounds != rounds:
        yield Finding("evaluation.every_rounds", shown(every_rounds), f"training.rounds, {rounds}: {why}")
    if keep_best is not None:
        yield Finding("evaluation.keep_best", keep_best, f"nothing: {why}")
    if stop_early is not None:
        yield Finding("evaluation.stop_early", "a rule for when training ends", f"nothing: {why}")


def turns_fit_sites(
    required: tuple[str, ...], minimum: int, threshold: int, per_round: int | None
) -> Iterator[Finding]:
    """A rule of studies: fewer hospitals than all of them, and as many as a round needs."""
    least, sites = max(minimum, threshold), len(required)
    if per_round is not None and not least <= per_round < sites:
        allowed = f"a whole number from {least} to {sites - 1}" if least < sites else "nothing"
        yield Finding(
            "training.participants_per_round",
            f"{per_round} of {sites} hospitals",
            f"{allowed}: as many as sites.minimum and aggregation.threshold, and fewer than all",
        )


def no_privacy_stays_in_sums(mechanism: str, group_size: int | None) -> Iterator[Finding]:
    """A rule of studies: what has no noise is only seen as the sum over all hospitals of a round."""
    if mechanism == NONE and group_size is not None:
        yield Finding(
            "aggregation.group_size",
            shown(group_size),
            f"nothing with {NONE}: groups change from round to round, and their exact sums could be subtracted",
        )


def no_budget_without_privacy(mechanism: str, budget: object | None) -> Iterator[Finding]:
    """A rule of studies: noise on the test figures protects nobody whose training is exact."""
    if mechanism == NONE and budget is not None:
        yield Finding(
            "evaluation.privacy",
            "a budget for test figures",
            f"nothing with {NONE}: the same patients' hospitals send exact updates, so a budget would promise nothing",
        )
