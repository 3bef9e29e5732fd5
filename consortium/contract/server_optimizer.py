"""Aggregate + weights -> next global model: the step that the coordinator and every site repeat (protocol 4.5).

Element by element in float64 and rounded once to float32, so that it gives the same bytes everywhere: only additions,
multiplications, divisions and square roots, which IEEE 754 rounds in one way, each in a call of its own, so that no two
are fused; powers are repeated multiplications, because the `pow` of one library is not that of another. A block of
elements at a time, so that it takes no more memory than the next model itself. It lives in the contract, not with the
coordinator, because a site that recomputes it refuses a model of the coordinator's making.

| mechanism | a site's update | the step |
|---|---|---|
| `local-dp-sgd`, `none` | model difference after its own steps | the study's algorithm, on the mean difference |
| `distributed-dp-sgd` | clipped gradient sum + its share of the noise | SGD or Adam on the mean gradient |

| algorithm | the step, where D is the mean model difference | after |
|---|---|---|
| fedavg, fedprox | model + rate * D | McMahan et al. 2017; Li et al. 2020 |
| fedavgm | velocity = momentum * velocity + D; model + rate * velocity | Hsu et al. 2019 |
| fedadam, fedyogi, fedadagrad | model + rate * first / (sqrt(second) + tau) | Reddi et al. 2021, algorithm 2 |
| scaffold | model + rate * D, and the control variate | Karimireddy et al. 2020, algorithm 1, option II |

All of it is post-processing of sums, so that it costs no privacy where they are private. What a step leaves for the
next one (momentum, moments, a control variate, the running average of the weights) travels with the model, see
`GlobalModel.state`, so that the model's digest covers it and a site that missed rounds has it. The first model has
none, and it counts as zeros. The last round's model has none either: what is released is parameters and nothing else.
With `training.averaging` the last round's parameters are the running average. With `evaluation.keep_best` the model
carries the best one so far (`best_model.py`), and what ends the study is that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

from consortium.contract.best_model import CHOSEN_LAYOUT, Choice, choice_before, choice_layout, in_words
from consortium.contract.catalogue import Adam, Sgd
from consortium.contract.errors import ContractError
from consortium.contract.global_model import STATE_MARK, GlobalModel, ParameterLayout, parameter_count
from consortium.contract.layout import LaneName, weight_max
from consortium.contract.noisy_metrics import metrics_for
from consortium.contract.plan import RoundKind, RoundPlan
from consortium.contract.schedules import power
from consortium.contract.study import StudyFile
from consortium.contract.study_training import rates_of
from privacy.encoding import Sums
from privacy.lazy_numpy import np

if TYPE_CHECKING:
    import numpy.typing as npt

Block: TypeAlias = "npt.NDArray[np.float64]"

_BLOCK = 1 << 15  # elements

MOMENTUM = "sgd/momentum"
FIRST_MOMENT = "adam/first"
SECOND_MOMENT = "adam/second"
VELOCITY = "server/velocity"
SERVER_FIRST = "server/first"
SERVER_SECOND = "server/second"
CONTROL = "scaffold/control"
AVERAGE = "average"
"""The parts of a model's state: each is named `~part/parameter` and has the parameters' shapes."""


class AggregateRefused(ContractError):
    """A sum from which no next global model follows."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "The round is not applied. If it repeats, ask the sites whether their cohorts are empty."


class Step(Protocol):
    """One rule of moving parameters."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the state it reads and writes, sorted."""

    def move(self, update: Block, values: Block, state: Mapping[str, Block]) -> None:
        """Change `values`, the parameters, and `state` in place; `update` may be written over. All float64[block]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg:
    """model + rate * (sum of weighted updates / divisor): McMahan et al. 2017."""

    divisor: float
    rate: float

    @property
    def parts(self) -> tuple[str, ...]:
        """None."""
        return ()

    def move(self, update: Block, values: Block, state: Mapping[str, Block]) -> None:  # noqa: ARG002 - has none
        """See Step."""
        np.divide(update, self.divisor, out=update)
        np.multiply(update, self.rate, out=update)
        np.add(update, values, out=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvgM:
    """model + rate * velocity, where velocity = momentum * velocity + D, without damping: Hsu et al. 2019."""

    divisor: float
    rate: float
    momentum: float

    @property
    def parts(self) -> tuple[str, ...]:
        """The velocity."""
        return (VELOCITY,)

    def move(self, update: Block, values: Block, state: Mapping[str, Block]) -> None:
        """See Step; the update is a sum of model differences."""
        velocity = state[VELOCITY]
        np.divide(update, self.divisor, out=update)
        np.multiply(velocity, self.momentum, out=velocity)
        np.add(velocity, update, out=velocity)
        np.multiply(velocity, self.rate, out=update)
        np.add(values, update, out=values)


class Adaptivity(StrEnum):
    """How the second moment v follows D^2 (Reddi et al. 2021, algorithm 2)."""

    ADAGRAD = "fedadagrad"  # v + D^2
    ADAM = "fedadam"  # beta2 v + (1 - beta2) D^2
    YOGI = "fedyogi"  # v - (1 - beta2) D^2 sign(v - D^2)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveStep:
    """FedAdagrad, FedAdam and FedYogi: model + rate * m / (sqrt(v) + tau) (Reddi et al. 2021, algorithm 2).

    m = beta1 m + (1 - beta1) D, with D the mean model difference. As in the paper, and unlike `AdamStep`: no moment is
    corrected for its start; m starts at 0 and v at tau^2, the least the paper allows; tau stands outside the root, and
    is the smallest step of the second moment worth telling from none, not a guard against a division by zero.
    """

    divisor: float
    rate: float
    kind: Adaptivity
    beta1: float
    beta2: float  # not looked at by FedAdagrad
    tau: float
    is_first: bool  # whether there is no state yet

    @property
    def parts(self) -> tuple[str, ...]:
        """Both moments."""
        return (SERVER_FIRST, SERVER_SECOND)

    def move(self, update: Block, values: Block, state: Mapping[str, Block]) -> None:
        """See Step; the update is a sum of model differences."""
        first, second = state[SERVER_FIRST], state[SERVER_SECOND]
        if self.is_first:
            second[:] = self.tau * self.tau
        np.divide(update, self.divisor, out=update)
        np.multiply(first, self.beta1, out=first)
        np.add(first, update * (1 - self.beta1), out=first)
        np.multiply(update, update, out=update)
        match self.kind:
            case Adaptivity.ADAGRAD:
                np.add(second, update, out=second)
            case Adaptivity.ADAM:
                np.multiply(second, self.beta2, out=second)
                np.multiply(update, 1 - self.beta2, out=update)
                np.add(second, update, out=second)
            case Adaptivity.YOGI:
                sign = np.sign(second - update)
                np.multiply(update, 1 - self.beta2, out=update)
                np.multiply(update, sign, out=update)
                np.subtract(second, update, out=second)
        scale = np.sqrt(second)
        np.add(scale, self.tau, out=scale)
        moved = first / scale
        np.multiply(moved, self.rate, out=moved)
        np.add(values, moved, out=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """FedAvg, and the control variate c that sites correct their steps with (Karimireddy et al. 2020, option II).

    With K steps of rate r from the model x to y_i, a site's own variate becomes c_i + dc_i, where

        dc_i = -c + (x - y_i) / (K r) = -c - D_i / (K r)

    so that over the S sites of a sum, of N in the study, c + (sum of dc_i) / N = (1 - S/N) c - (sum of D_i) / (N K r).
    The sum of the differences says it all: a lane of control variates would repeat the update's, number for number.
    """

    divisor: float
    rate: float
    survivors: float  # S
    sites: int  # N
    travel: float  # K r

    @property
    def parts(self) -> tuple[str, ...]:
        """The control variate."""
        return (CONTROL,)

    def move(self, update: Block, values: Block, state: Mapping[str, Block]) -> None:
        """See Step; the update is a sum of model differences."""
        control = state[CONTROL]
        np.multiply(control, 1 - self.survivors / self.sites, out=control)
        np.subtract(control, update / (self.sites * self.travel), out=control)
        np.divide(update, self.divisor, out=update)
        np.multiply(update, self.rate, out=update)
        np.add(update, values, out=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class SgdStep:
    """model - rate * velocity, where velocity = momentum * velocity + gradient (as torch has it, without damping)."""

    divisor: float
    rate: float
    momentum: float

    @property
    def parts(self) -> tuple[str, ...]:
        """The velocity, if there is momentum."""
        return (MOMENTUM,) if self.momentum else ()

    def move(self, update: Block, values: Block, state: Mapping[str, Block]) -> None:
        """See Step; the update is a sum of gradients."""
        np.divide(update, self.divisor, out=update)
        if self.momentum:
            velocity = state[MOMENTUM]
            np.multiply(velocity, self.momentum, out=velocity)
            np.add(velocity, update, out=velocity)
            update[:] = velocity
        np.multiply(update, self.rate, out=update)
        np.subtract(values, update, out=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamStep:
    """Adam with bias correction (Kingma and Ba 2015, algorithm 1)."""

    divisor: float
    rate: float
    beta1: float
    beta2: float
    eps: float
    step: int  # 1 for the first

    @property
    def parts(self) -> tuple[str, ...]:
        """Both moments."""
        return (FIRST_MOMENT, SECOND_MOMENT)

    def move(self, update: Block, values: Block, state: Mapping[str, Block]) -> None:
        """See Step; the update is a sum of gradients."""
        np.divide(update, self.divisor, out=update)
        first, second = state[FIRST_MOMENT], state[SECOND_MOMENT]
        np.multiply(first, self.beta1, out=first)
        np.add(first, update * (1 - self.beta1), out=first)
        np.multiply(update, update, out=update)
        np.multiply(update, 1 - self.beta2, out=update)
        np.multiply(second, self.beta2, out=second)
        np.add(second, update, out=second)
        scale = np.sqrt(second / (1 - power(self.beta2, self.step)))
        np.add(scale, self.eps, out=scale)
        moved = first / (1 - power(self.beta1, self.step))
        np.divide(moved, scale, out=moved)
        np.multiply(moved, self.rate, out=moved)
        np.subtract(values, moved, out=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Averaged:
    """Another rule, and the running average of the weights it makes; the last step ends on that average.

    average = decay * average + (1 - decay) * values, from zero; divided by 1 - decay^steps it is a weighted mean.
    """

    inner: Step
    decay: float
    step: int  # 1 for the first
    is_last: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of the inner rule, and the average."""
        return tuple(sorted((*self.inner.parts, AVERAGE)))

    def move(self, update: Block, values: Block, state: Mapping[str, Block]) -> None:
        """See Step."""
        self.inner.move(update, values, state)
        average = state[AVERAGE]
        np.multiply(average, self.decay, out=average)
        np.add(average, values * (1 - self.decay), out=average)
        if self.is_last:
            np.divide(average, 1 - power(self.decay, self.step), out=values)


def state_layout(study: StudyFile, parameters: ParameterLayout) -> ParameterLayout:
    """Names and shapes of what the study's models carry besides the parameters, from the first round to the last."""
    layout = _layout(_step_of(study, 1, 1.0).parts, parameters)
    return layout if study.evaluation.keep_best is None else (*layout, *choice_layout(parameters))


def state_layouts(study: StudyFile, parameters: ParameterLayout) -> tuple[ParameterLayout, ...]:
    """Every layout that the state of a model of the study may have, from the first to the one it ends with."""
    chosen = (CHOSEN_LAYOUT,) if study.has_validation else ()
    return ((), state_layout(study, parameters), *chosen)


def _layout(parts: tuple[str, ...], parameters: ParameterLayout) -> ParameterLayout:
    return tuple((f"{STATE_MARK}{part}/{name}", shape) for part in parts for name, shape in parameters)


def federated_average(
    model: GlobalModel,
    sums: Mapping[str, npt.NDArray[np.float64]],
    *,
    weight_max: float,
    server_learning_rate: float,
    weight_sum: float | None = None,
) -> GlobalModel:
    """FedAvg (McMahan et al. 2017): model + rate * (sum of weighted updates / sum of weights).

    Args:
        model: The global model of this round, float32[d].
        sums: Decoded lanes of the aggregate, in the order of the layout; needs the lanes of the update, together
            float64[d] (`update`, or `update/0`, `update/1` and so on), and `weight`, float64[1].
        weight_max: W_max of the study: updates travel multiplied by weight / W_max (protocol section 5).
        server_learning_rate: Greater than 0; 1 is plain averaging.
        weight_sum: What the weights must sum to, where that is known.

    Raises:
        AggregateRefused: The lanes do not fit the model, the weights sum to nothing or to another number than they
            must, or the result is not finite.
    """
    weight = _weight(sums, weight_sum)
    return _moved(model, sums, FedAvg(divisor=weight / weight_max, rate=server_learning_rate), keep_state=True)


def _weight(sums: Mapping[str, npt.NDArray[np.float64]], weight_sum: float | None) -> float:
    """The sum of the weights; raises AggregateRefused if nothing can be divided by it."""
    weight = float(sums[LaneName.WEIGHT][0])
    if weight <= 0:
        raise AggregateRefused(f"the weights sum to {weight}; they must sum to more than 0")
    if weight_sum is not None and weight != weight_sum:
        # One site with another weight than the others, below 0 for instance, could make everybody's mean larger.
        raise AggregateRefused(f"the weights sum to {weight:g}; those of these sites sum to {weight_sum:g}")
    return weight


def _moved(
    model: GlobalModel, sums: Mapping[str, npt.NDArray[np.float64]], step: Step, *, keep_state: bool
) -> GlobalModel:
    """The model after one step, with its state unless that is not wanted any more."""
    count, layout = model.vector.size, _layout(step.parts, model.parameters)
    if model.state not in ((), layout):
        raise AggregateRefused("the model carries the state of another optimizer than the study's")
    before = {part: model.state_vector[i * count : (i + 1) * count] for i, part in enumerate(step.parts)}
    after = np.empty(count, dtype=np.float32)
    state_after = np.empty(count * len(step.parts) if keep_state else 0, dtype=np.float32)
    done = 0
    for update in _update_blocks(sums):
        stop = done + len(update)
        if stop <= count:
            values = model.vector[done:stop].astype(np.float64)
            state = {
                part: held[done:stop].astype(np.float64) if model.state else np.zeros(len(update))
                for part, held in before.items()
            }
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
                step.move(update, values, state)
                after[done:stop] = values
                _require_finite(after[done:stop])
                for index, part in enumerate(step.parts if keep_state else ()):
                    into = state_after[index * count + done : index * count + stop]
                    into[:] = state[part]
                    _require_finite(into)
        done = stop
    if done != count:
        raise AggregateRefused(f"the aggregate has {done} values, the model {count}")
    return GlobalModel(model.parameters, after, layout if keep_state else (), state_after)


def _require_finite(values: npt.NDArray[np.float32]) -> None:
    if not bool(np.isfinite(values).all()):
        raise AggregateRefused("the next global model would hold a value that is not finite")


def _update_blocks(sums: Mapping[str, npt.NDArray[np.float64]]) -> Iterator[Block]:
    """The lanes of the update one after the other, a block at a time; the blocks may be written to."""
    for name in sums:
        if name.partition("/")[0] != LaneName.UPDATE:
            continue
        if isinstance(sums, Sums):  # decoded block by block, and never as a whole
            length = sums.length(name)
            yield from (sums.stretch(name, start, start + _BLOCK) for start in range(0, length, _BLOCK))
        else:
            lane = sums[name]
            yield from (lane[start : start + _BLOCK].copy() for start in range(0, len(lane), _BLOCK))


def next_global_model(
    study: StudyFile,
    plan: RoundPlan,
    model: GlobalModel,
    sums: Mapping[str, npt.NDArray[np.float64]],
    *,
    survivors: int,
) -> GlobalModel:
    """The model after a round, from the decoded lanes of its aggregate; the same one after an evaluation.

    With `evaluation.keep_best`, the best model where the round or the evaluation ends the study.

    Args:
        study: The study.
        plan: Of the round. Its number counts the steps taken: a round closes once.
        model: The one the round started from.
        sums: Decoded lanes of the aggregate.
        survivors: How many sites are in the sum.

    Raises:
        AggregateRefused: See `federated_average`. With uniform weighting the weights sum to the number of sites. Or
            the model is the one that the study ended with.
    """
    if plan.round > 1 and has_ended(study, model):
        raise AggregateRefused(f"round {plan.round} would go on from the model that the study ended with")
    if study.has_validation and plan.kind is not kind_of(study, plan.round, model):
        raise AggregateRefused(f"round {plan.round} is of another kind than the study asks for with this model")
    choice = choice_after(study, plan, model, sums)
    if plan.kind is RoundKind.EVALUATE:
        return model if choice is None else choice.model(model.parameters)
    weight = _weight(sums, survivors if study.training.weighting == "uniform" else None)
    step = _step_of(study, plan.round, weight)
    if choice is None:
        return _moved(model, sums, step, keep_state=plan.round < study.training.rounds)
    if choice.made:
        return choice.model(model.parameters)
    added = choice_layout(model.parameters)
    own = model.state[: len(model.state) - len(added)] if model.state else ()
    inner = GlobalModel(model.parameters, model.vector, own, model.state_vector[: parameter_count(own)])
    moved = _moved(inner, sums, step, keep_state=True)
    return GlobalModel(
        moved.parameters,
        moved.vector,
        (*moved.state, *added),
        np.concatenate([moved.state_vector, choice.as_state()]),
    )


def choice_after(
    study: StudyFile, plan: RoundPlan, model: GlobalModel, sums: Mapping[str, npt.NDArray[np.float64]]
) -> Choice | None:
    """What a round's figure says about the best model, and whether it ends the study; None without a choice.

    Raises:
        AggregateRefused: The model carries another state than the study's.
    """
    metric, rule = study.evaluation.keep_best, study.evaluation.stop_early
    if metric is None:
        return None
    if model.state not in state_layouts(study, model.parameters):
        raise AggregateRefused("the model carries another state than the study's")
    if awaits_test(study, model.state):  # nothing that test patients show changes what was chosen
        return Choice(metric=metric, tally=choice_before(model)[0], vector=model.vector, made=True, ends=True)
    figure = None
    if any(lane.name == LaneName.TEST_PATIENTS for lane in plan.layout.lanes):
        figure = metrics_for(study, sums).named().get(metric)
    before, best = choice_before(model)
    tally = before.after(figure, made_by=plan.round - 1, metric=metric, rule=rule)
    is_new = tally.best is None or (tally != before and tally.since == 0)
    made = plan.kind is RoundKind.EVALUATE or tally.stops(rule)
    return Choice(
        metric=metric,
        tally=tally,
        vector=model.vector if is_new else best,
        made=made,
        ends=made and not study.has_validation,
    )


def awaits_test(study: StudyFile, state: ParameterLayout) -> bool:
    """Whether a model was chosen by validation patients, and is to be measured once on the test patients.

    Args:
        study: The study.
        state: Names and shapes of the model's.
    """
    return study.has_validation and state == CHOSEN_LAYOUT


def kind_of(study: StudyFile, number: int, model: GlobalModel) -> RoundKind:
    """What round `number` is for, if it starts from this model: training ends where the choice is made."""
    trains = number <= study.training.rounds and not awaits_test(study, model.state)
    return RoundKind.TRAIN if trains else RoundKind.EVALUATE


def why_ended(study: StudyFile, plan: RoundPlan, choice: Choice) -> str:
    """In one line, why a study ended with the round of this plan, and with which model."""
    # Where test patients came after the choice, the round before was the one that made it.
    made_in = plan.round - study.has_validation
    return in_words(
        choice,
        study.evaluation.stop_early,
        after_round=made_in,
        early=made_in <= study.training.rounds,
        has_validation=study.has_validation,
    )


def has_ended(study: StudyFile, after: GlobalModel) -> bool:
    """Whether the study's choice was made by the round that closed with this model; no round follows it then.

    A first model carries no state either, and is not to be asked about.
    """
    return study.evaluation.keep_best is not None and not after.state


def _step_of(study: StudyFile, number: int, weight: float) -> Step:
    """The rule of a study's step `number`, over a sum whose weights sum to `weight`."""
    training, optimizer = study.training, study.training.optimizer
    step: Step
    if not study.is_distributed:
        step = _algorithm_of(study, number, weight)
    else:
        # Constants of the plan but for the survivors, each of weight 1, whom everybody knows.
        divisor = training.sampling_rate * study.data.minimum_patients * weight
        rate = rates_of(training).at(number)
        match optimizer:
            case Sgd():
                step = SgdStep(divisor=divisor, rate=rate, momentum=optimizer.momentum)
            case Adam():
                beta1, beta2 = optimizer.betas
                step = AdamStep(divisor=divisor, rate=rate, beta1=beta1, beta2=beta2, eps=optimizer.eps, step=number)
    if training.averaging is None:
        return step
    decay, is_last = training.averaging.decay, number == training.rounds
    return Averaged(inner=step, decay=decay, step=number, is_last=is_last)


def _algorithm_of(study: StudyFile, number: int, weight: float) -> Step:
    """The rule of a study whose updates are model differences."""
    training, divisor = study.training, weight / weight_max(study)
    rate, given = training.server_learning_rate, training.server_optimizer
    match training.algorithm:
        case "fedavg" | "fedprox":
            return FedAvg(divisor=divisor, rate=rate)
        case "fedavgm":
            assert given is not None  # rules of the study file, here and below
            assert given.momentum is not None
            return FedAvgM(divisor=divisor, rate=rate, momentum=given.momentum)
        case "scaffold":
            travel = training.local_steps * training.optimizer.learning_rate
            sites = len(study.sites.required)
            return Scaffold(divisor=divisor, rate=rate, survivors=weight, sites=sites, travel=travel)
        case "fedadam" | "fedyogi" | "fedadagrad" as name:
            assert given is not None
            assert given.beta1 is not None
            assert given.tau is not None
            kind, beta2 = Adaptivity(name), given.beta2 or 0.0
            return AdaptiveStep(
                divisor=divisor, rate=rate, kind=kind, beta1=given.beta1, beta2=beta2, tau=given.tau,
                is_first=number == 1,
            )  # fmt: skip
