"""Whether what counts, with one more reservation, stays within the hospital's caps.

Three caps, looked at in this order; "a dataset" is together with those that share patients with it (ADR 12):

| cap | over | method |
|---|---|---|
| steps | one study | counting: no more than its noise was calibrated for |
| epsilon of a study | one study | privacy loss distributions: its parameters were fixed before it began |
| epsilon of a dataset | every study on it | with one study the same; from the second on a Renyi filter |

The filter, because what a hospital agrees to next may depend on what came out before: then parameters are no longer
fixed beforehand, and composing privacy loss distributions proves nothing (`privacy.dp.accountant.filter_epsilon`).

A cap must hold at every reservation, a hundred thousand times in a long study, and composing exactly takes a tenth of
a second. But epsilon only grows with steps: what is known to fit makes everything below it fit without a look.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import STEPS_MAX
from privacy.errors import BudgetExceeded
from site_agent.errors import StepsExceeded

Counted: TypeAlias = Mapping[DpEvent, int]
"""Mechanisms, each as an event of one step, and the steps of each that count."""

Studies: TypeAlias = Mapping[str, Counted]
"""By study digest: what counts of it on one dataset and on those that share patients with it."""

LOOKS_MAX = STEPS_MAX.bit_length() + 1

KNOWN_MAX = 1000
"""Compositions that are remembered; after so many it begins anew, which costs time and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The caps a reservation is held against."""

    study_epsilon: float  # the smaller of what the study asks for and what the hospital gives one study
    study_delta: float
    total_epsilon: float  # of the dataset, over all studies
    total_delta: float
    study_steps: int | None = None  # what the study's noise was calibrated for; None: epsilon alone decides


class Caps:
    """Holds reservations against caps. Mutable: remembers what fitted and what did not, for as long as it lives."""

    def __init__(self) -> None:
        self._known: dict[tuple[float, float, frozenset[DpEvent]], _Edge] = {}

    def require_room(self, dataset: str, before: Studies, study: str, event: DpEvent, limits: Limits) -> None:
        """Raise BudgetExceeded unless what counts is within every cap with one more event of a study."""
        after = {**before, study: added(before.get(study, {}), [event])}
        wanted, counted = after[study], before.get(study, {})
        # A calibrated study costs a little less than it may, so epsilon alone might let one step more pass.
        steps = wanted[event.with_steps(1)]
        if limits.study_steps is not None and steps > limits.study_steps:
            raise StepsExceeded(steps, steps - event.mechanism.steps, limits.study_steps, dataset)
        if not self._fits(wanted, delta=limits.study_delta, cap=limits.study_epsilon):
            raise _exceeded(dataset, epsilon(counted, limits.study_delta), epsilon(wanted, limits.study_delta),
                            limits.study_epsilon)  # fmt: skip
        if len(after) <= 1:
            if not self._fits(wanted, delta=limits.total_delta, cap=limits.total_epsilon):
                raise _exceeded(dataset, _total(before, limits), _total(after, limits), limits.total_epsilon)
        elif (total := _total(after, limits)) > limits.total_epsilon:
            raise _exceeded(dataset, _total(before, limits), total, limits.total_epsilon)

    def _fits(self, counted: Counted, *, delta: float, cap: float) -> bool:
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        edge = self._known.setdefault((delta, cap, frozenset(counted)), _Edge())
        return edge.below(counted, lambda candidate: epsilon(candidate, delta) <= cap)


class _Edge:
    """What is known of where a cap lies, for one set of mechanisms: a point below it and one beyond."""

    def __init__(self) -> None:
        self._fits: Counted | None = None
        self._exceeds: Counted | None = None

    def below(self, counted: Counted, fits: Callable[[Counted], bool]) -> bool:
        """Whether `counted` fits; asks `fits` as seldom as it can."""
        if self._fits is not None and _within(counted, self._fits):
            return True
        if self._exceeds is not None and _within(self._exceeds, counted):
            return False
        # Look ahead, first far and then ever nearer, so that the next many questions are answered by this one.
        for halvings in range(LOOKS_MAX):
            ahead = {event: min(steps + (steps >> halvings), STEPS_MAX) for event, steps in counted.items()}
            if self._exceeds is None or not _within(self._exceeds, ahead):
                if fits(ahead):
                    self._fits = ahead
                    return True
                self._exceeds = ahead
        return False  # the last look was at `counted` itself


def events_of(counted: Counted) -> list[DpEvent]:
    """The same as events, for the accountant."""
    return [event.with_steps(steps) for event, steps in counted.items() if steps]


def all_events(studies: Studies) -> list[DpEvent]:
    """The events of several studies."""
    return [event for counted in studies.values() for event in events_of(counted)]


def epsilon(counted: Counted, delta: float) -> float:
    """What a study cost, composed tightly."""
    return accountant.epsilon(events_of(counted), delta=delta)


def added(counted: Counted, events: Iterable[DpEvent]) -> Counted:
    """`counted` with further events."""
    total = dict(counted)
    for event in events:
        one = event.with_steps(1)
        total[one] = total.get(one, 0) + event.mechanism.steps
    return total


def _within(small: Counted, large: Counted) -> bool:
    return all(steps <= large.get(event, 0) for event, steps in small.items())


def _total(studies: Studies, limits: Limits) -> float:
    if len(studies) <= 1:
        return accountant.epsilon(all_events(studies), delta=limits.total_delta)
    return accountant.filter_epsilon(all_events(studies), delta=limits.total_delta, cap=limits.total_epsilon)


def _exceeded(dataset: str, spent: float, wanted: float, cap: float) -> BudgetExceeded:
    return BudgetExceeded(max(0.0, wanted - spent), spent, cap, dataset)
