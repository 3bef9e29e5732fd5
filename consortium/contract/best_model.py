"""Which global model a study keeps, and when it stops for want of a better one: what every site computes again.

`evaluation.keep_best` names a metric. A measured round holds the figure of the model it starts from; the best of them
so far travels with the next model, as two more parts of its state, so that the digest covers it, every hospital that
recomputes the next model (protocol 4.5) decides for itself, and one that missed rounds has it:

| part of the state | values |
|---|---|
| `~~best/<parameter>` | the best model's parameters, float32 |
| `~~tally` | whether there is one, its figure in millionths, the round it came out of, measured rounds since |

A figure is rounded to millionths before it is compared, so that the last bit of no machine decides. It is better if it
is better by more than `evaluation.stop_early.min_delta`, or at all without that section. After `patience` measured
rounds without a better one, training is over: the round's sum is not applied, and what follows from it is the best
model and nothing else. If that never happens, the evaluation after the last round ends the study in the same way. A
model without state in a later round than the first says so: there is nothing to go on from.

A round that has no figure, because hospitals shared none or its metrics would have singled one out, decides nothing.

The figure of the model that is kept is the best of many, so it is optimistic. With `data.split.validation_fraction` all
of these figures are of validation patients, and the choice does not end the study: the model that follows from it is
the best one and the tally alone. That model is measured once, on the test patients, whom nothing was chosen by; the
best model and nothing else follows from that round. Whoever sees a model with such a state knows what it is for.

Does not hide: the choice. Exact figures carry no noise, and a model chosen by them says a little about the patients
they were measured on, which no epsilon counts; figures with a budget (`evaluation.privacy`) pay for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, get_args

from annotated_types import Ge, Le, Lt

from consortium.contract.global_model import STATE_MARK, Float32Vector, GlobalModel, ParameterLayout
from consortium.contract.schema import Finding, Section
from consortium.contract.study_data import Split
from privacy.lazy_numpy import np

ChoiceMetric: TypeAlias = Literal["auc", "accuracy", "sensitivity", "dice", "loss", "brier"]
CHOICE_METRICS: tuple[str, ...] = get_args(ChoiceMetric)
SMALLER_IS_BETTER = frozenset({"loss", "brier"})

MILLIONTHS = 1_000_000
BEST = "~best"
_TALLY_NAME = f"{STATE_MARK}~tally"
_TALLY_VALUES = 4
_FIGURE_MOST = 16.0
"""The most a figure can be: a patient's loss is cut there. In millionths it is a whole number that float32 holds."""


class StopEarly(Section):
    """When training ends before its last round."""

    patience: Annotated[int, Ge(1), Le(1_000)]  # measured rounds in a row without a better model
    min_delta: Annotated[float, Ge(0), Lt(1)] = 0.0  # a figure has to be better by more than this, in millionths


def choice_fits_metrics(
    metrics: tuple[str, ...], keep_best: str | None, stop_early: StopEarly | None
) -> Iterator[Finding]:
    """A rule of `evaluation`."""
    if keep_best is not None and keep_best not in metrics:
        yield Finding("keep_best", keep_best, f"one of evaluation.metrics: {', '.join(metrics)}")
    if stop_early is not None and keep_best is None:
        yield Finding("stop_early", "a section", "nothing without keep_best, which names the metric")


def validation_fits(
    keep_best: str | None, split: Split, *, patients: int, sites: int, smallest_cell: int
) -> Iterator[Finding]:
    """A rule of studies: validation patients have a use, are enough to choose by, and leave somebody to train on.

    Args:
        keep_best: The study's.
        split: The study's.
        patients: Fewest of a hospital.
        sites: Fewest in a sum.
        smallest_cell: Fewest patients of whom a report gives figures.
    """
    fraction = split.validation_fraction
    if fraction is None:
        return
    at = "data.split.validation_fraction"
    if keep_best is None:
        yield Finding(at, f"{fraction:g}", "nothing without evaluation.keep_best: nothing is chosen by them")
        return
    tests, validates = split.sizes(patients)
    if tests + validates >= patients:
        found = f"{fraction:g}, with which a hospital of {patients} patients trains on nobody"
        yield Finding(at, found, "less, or a larger data.minimum_patients")
    elif sites * validates < smallest_cell:
        found = f"{fraction:g}, which may be {sites * validates} patients of {sites} hospitals"
        allowed = f"at least {smallest_cell} (evaluation.minimum_cell): fewer are too few to choose a model by"
        yield Finding(at, found, allowed)


def choice_fits_study(
    keep_best: str | None, group_size: int | None, averaging: object | None, site_kept: tuple[str, ...] | None
) -> Iterator[Finding]:
    """A rule of studies: what is chosen is a model that was measured, and is the whole of it."""
    if keep_best is None:
        return
    if group_size is not None:
        yield Finding("evaluation.keep_best", keep_best, "nothing with aggregation.group_size: no round is measured")
    if averaging is not None:
        allowed = "nothing with training.averaging: an average that was never measured is released there"
        yield Finding("evaluation.keep_best", keep_best, allowed)
    if site_kept is not None:
        allowed = "nothing with training.site_kept: figures are those of each hospital's own model"
        yield Finding("evaluation.keep_best", keep_best, allowed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the measured rounds so far have shown."""

    best: int | None = None  # figure in millionths; None before the first
    origin: int = 0  # the round that made the best model; 0 for the first model
    since: int = 0  # measured rounds after it

    @property
    def figure(self) -> float | None:
        """The best figure."""
        return None if self.best is None else self.best / MILLIONTHS

    def after(self, figure: float | None, *, made_by: int, metric: str, rule: StopEarly | None) -> Tally:
        """One more measured round.

        Args:
            figure: Of the model it starts from; None decides nothing.
            made_by: The round that made that model.
            metric: Which figure it is.
            rule: For how much better counts.
        """
        if figure is None:
            return self
        found = round(min(max(figure, 0.0), _FIGURE_MOST) * MILLIONTHS)
        least = 0 if rule is None else round(rule.min_delta * MILLIONTHS)
        gain = None if self.best is None else (self.best - found if metric in SMALLER_IS_BETTER else found - self.best)
        if gain is None or gain > least:
            return Tally(best=found, origin=made_by, since=0)
        return Tally(best=self.best, origin=self.origin, since=self.since + 1)

    def stops(self, rule: StopEarly | None) -> bool:
        """Whether patience is at its end."""
        return rule is not None and self.since >= rule.patience


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """After one round: what was found, and whether it ends the study."""

    metric: str
    tally: Tally
    vector: Float32Vector  # of the best model so far; float32[d]
    made: bool  # there will be no other
    ends: bool  # the study has its model, and nothing is left to be measured

    def as_state(self) -> Float32Vector:
        """What travels with the next model, in the order of `choice_layout`."""
        held = [self.tally.best is not None, self.tally.best or 0, self.tally.origin, self.tally.since]
        return np.concatenate([self.vector, np.array(held, dtype=np.float32)])

    def model(self, parameters: ParameterLayout) -> GlobalModel:
        """The model that is kept: parameters and nothing else, or with the tally where test patients wait for it."""
        vector = np.array(self.vector, dtype=np.float32)
        if self.ends:
            return GlobalModel(parameters, vector)
        return GlobalModel(parameters, vector, CHOSEN_LAYOUT, self.as_state()[-_TALLY_VALUES:])


CHOSEN_LAYOUT: ParameterLayout = ((_TALLY_NAME, (_TALLY_VALUES,)),)
"""The state of a model that was chosen by validation patients, and that test patients wait for."""


def choice_layout(parameters: ParameterLayout) -> ParameterLayout:
    """Names and shapes of what the choice adds to a model's state; they stand after every optimizer's."""
    best = tuple((f"{STATE_MARK}{BEST}/{name}", shape) for name, shape in parameters)
    return (*best, *CHOSEN_LAYOUT)


def choice_before(model: GlobalModel) -> tuple[Tally, Float32Vector]:
    """The tally and the best parameters that a model carries; those of nothing measured for a first model."""
    if not model.state:
        return Tally(), model.vector
    count = model.vector.size
    held = model.state_vector[-_TALLY_VALUES:]
    has_best = bool(held[0])
    tally = Tally(best=int(held[1]) if has_best else None, origin=int(held[2]), since=int(held[3]))
    if model.state == CHOSEN_LAYOUT or not has_best:
        return tally, model.vector
    return tally, model.state_vector[-_TALLY_VALUES - count : -_TALLY_VALUES]


def choice_costs(*, has_budget: bool, is_private: bool, has_validation: bool) -> str:
    """What choosing by figures of patients set aside gives away, in a sentence or two for stewards and authors."""
    optimistic = "The figure it is chosen by is the best of many, and so optimistic"
    optimistic += "; its test figures are of other patients, and are not." if has_validation else "."
    if has_budget:
        return f"{optimistic} The figures have noise and a budget, so that choosing by them costs no more privacy."
    if not is_private:
        return optimistic
    return (
        f"{optimistic} The figures are exact, and what the choice gives away about the patients set aside is in no "
        "epsilon."
    )


def in_words(
    choice: Choice, rule: StopEarly | None, *, after_round: int, early: bool, has_validation: bool = False
) -> str:
    """Why a study ended with this model, in one line.

    Args:
        choice: It.
        rule: When training ends before its last round.
        after_round: The round that made it.
        early: Whether that was by the rule.
        has_validation: Whether patients were set aside to choose by.
    """
    tally = choice.tally
    measured = "the best measured on validation patients" if has_validation else "the best measured"
    figure = "no round had a figure" if tally.figure is None else f"{choice.metric} {tally.figure:g}, {measured}"
    made = "the first model" if tally.origin == 0 else f"the model of round {tally.origin}"
    if not early:
        return f"kept {made}: {figure}"
    assert rule is not None  # only such a study ends early
    return (
        f"stopped early after round {after_round}: {tally.since} measured rounds without {choice.metric} better by "
        f"more than {rule.min_delta:g}; kept {made}: {figure}"
    )
