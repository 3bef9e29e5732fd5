"""DP events -> epsilon at a delta, for a patient, under adding or removing one.

Three answers, for three questions:

| function | question | method |
|---|---|---|
| `epsilon` | what did this cost? | privacy loss distributions (Google dp-accounting), rounded against us |
| `renyi_epsilon` | is that plausible? | Renyi DP, an independent and looser bound |
| `filter_epsilon` | may one more be added, chosen by what came before? | a Renyi filter at one order |

Whoever reports uses the first; the second is a cross-check; the third is for caps over several studies. Not used:
the Gaussian-DP approximation, which under-reports by up to a sixth at hospital sizes.

Everything is a pure function of its arguments, cached; the heavy library is loaded at the first question, so that
an agent that waits stays small.
"""

import importlib.metadata
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeAlias

from privacy.dp.events import KNOWN, DpEvent, PrivacySpend, Relation, Unit
from privacy.errors import LocalProtocolError, UnknownEvent

DELTA_MIN = 1e-10
"""Below this the rounding errors of the convolutions are no longer small against delta."""

EPSILON_EXACT_MAX = 500.0
"""Where the Renyi bound is above this it is the answer: no guarantee is left, and an exact figure costs minutes."""

_Runs: TypeAlias = tuple[tuple[float, float, int], ...]  # (noise multiplier, sampling rate, steps), sorted
_ORDERS = (*range(2, 33), 36, 40, 48, 56, 64, 80, 96, 128, 192, 256)


def epsilon(events: Iterable[DpEvent], *, delta: float) -> float:
    """The epsilon that all events together cost at `delta`; 0 for none, infinity if there is none that small.

    Events that differ only in their steps are added first, so a long history costs no more than a short one.

    Raises:
        UnknownEvent: An event of a kind, unit or relation without a rule.
        LocalProtocolError: `delta` is not between DELTA_MIN and 1.
    """
    return _pld_epsilon(_runs(events), _checked(delta))


def spend(events: Iterable[DpEvent], *, delta: float) -> PrivacySpend:
    """`epsilon` with what it is for."""
    return PrivacySpend(epsilon=epsilon(events, delta=delta), delta=delta)


def renyi_epsilon(events: Iterable[DpEvent], *, delta: float) -> float:
    """An upper bound on `epsilon` by another route: Renyi DP at integer orders 2 to 256."""
    return _renyi_epsilon(_runs(events), _checked(delta))


def filter_epsilon(events: Iterable[DpEvent], *, delta: float, cap: float) -> float:
    """What a Renyi filter for a total of (`cap`, `delta`) says is spent; stay at or below `cap`.

    When results decide what is run next (a second study because of the first one's), parameters are no longer fixed
    beforehand and composing privacy loss distributions proves nothing. Renyi DP at one order that was fixed
    beforehand still adds up (Feldman and Zrnic, NeurIPS 2021). The order is the one that leaves the most room for
    Gaussian noise, so it depends on `cap` and `delta` alone.

    | events | result |
    |---|---|
    | none | 0 |
    | within the filter | at most `cap` |
    | beyond it | more than `cap` |
    """
    runs = _runs(events)
    _checked(delta)
    if not (math.isfinite(cap) and cap > 0):
        raise LocalProtocolError("a cap on epsilon is a number greater than 0", str(cap))
    if not runs:
        return 0.0
    order = max(_ORDERS, key=lambda a: (cap - _conversion(a, delta)) / a)
    return max(0.0, _renyi_divergence(runs, order) + _conversion(order, delta))


def versions() -> dict[str, str]:
    """What computed the figures, for certificates and reports."""
    return {name: importlib.metadata.version(name) for name in ("dp-accounting", "numpy", "scipy")}


def _runs(events: Iterable[DpEvent]) -> _Runs:
    totals: dict[tuple[float, float], int] = {}
    for event in events:
        if event.unit is not Unit.PATIENT or event.relation is not Relation.ADD_OR_REMOVE_ONE:
            raise UnknownEvent(f"{event.unit} under {event.relation}", KNOWN)
        # The clip norm is not here: noise is in multiples of it, so it cancels.
        key = (event.mechanism.noise_multiplier, event.mechanism.sampling_rate)
        totals[key] = totals.get(key, 0) + event.mechanism.steps
    return tuple(sorted((*key, steps) for key, steps in totals.items()))


def _checked(delta: float) -> float:
    if not DELTA_MIN <= delta < 1:
        raise LocalProtocolError(f"delta must be at least {DELTA_MIN:g} and less than 1", str(delta))
    return delta


def _interval(runs: _Runs) -> float:
    """How finely privacy losses are rounded up.

    One step is too high by about the square of the interval, so the whole by steps * interval^2: kept near 1e-4, as
    far as the number of grid points (millions at most) allows.
    """
    wanted = math.sqrt(1e-4 / sum(steps for _, _, steps in runs))
    widest = max(0.5 / noise**2 + 10 / noise for noise, _, _ in runs)
    return min(1e-3, max(wanted, widest / 3e5, 1e-5))


@lru_cache(maxsize=4096)
def _pld_epsilon(runs: _Runs, delta: float) -> float:
    if not runs:
        return 0.0
    from dp_accounting.pld import privacy_loss_distribution as pld  # noqa: PLC0415 - 90 MB; see the module docstring

    bound = _renyi_epsilon(runs, delta)
    if bound > EPSILON_EXACT_MAX:
        return bound
    interval = _interval(runs)
    total: Any = None
    for noise, rate, steps in runs:
        one = pld.from_gaussian_mechanism(
            noise,
            pessimistic_estimate=True,
            value_discretization_interval=interval,
            sampling_prob=rate,
            use_connect_dots=True,
        )
        run = _repeated(one, steps)
        total = run if total is None else total.compose(run)
    return float(total.get_epsilon_for_delta(delta))


def _repeated(one: Any, steps: int) -> Any:
    """`steps` times the same loss distribution; in two stages when there are many.

    The library first computes (number of points) ** steps as an exact integer, which for a narrow distribution and
    millions of steps never ends.
    """
    stage = math.isqrt(steps)
    if stage < 1000:
        return one.self_compose(steps)
    run = one.self_compose(stage).self_compose(steps // stage)
    return run.compose(one.self_compose(steps % stage)) if steps % stage else run


@lru_cache(maxsize=4096)
def _renyi_epsilon(runs: _Runs, delta: float) -> float:
    if not runs:
        return 0.0
    return max(0.0, min(_renyi_divergence(runs, order) + _conversion(order, delta) for order in _ORDERS))


@lru_cache(maxsize=65536)
def _renyi_divergence(runs: _Runs, order: int) -> float:
    return sum(steps * _renyi_step(noise, rate, order) for noise, rate, steps in runs)


@lru_cache(maxsize=65536)
def _renyi_step(noise: float, rate: float, order: int) -> float:
    """Renyi divergence of an integer order of one Poisson-sampled Gaussian step (Mironov, Talwar, Zhang 2019, 3.3).

    1/(a-1) log sum_k C(a,k) (1-q)^(a-k) q^k exp(k (k-1) / (2 sigma^2)), in logarithms.
    """
    if rate == 1:
        return order / (2 * noise**2)
    terms = [
        math.lgamma(order + 1)
        - math.lgamma(k + 1)
        - math.lgamma(order - k + 1)
        + (order - k) * math.log1p(-rate)
        + k * math.log(rate)
        + k * (k - 1) / (2 * noise**2)
        for k in range(order + 1)
    ]
    largest = max(terms)
    # The sum is at least 1 in exact arithmetic; rounding must not turn the divergence negative.
    return max(0.0, largest + math.log(math.fsum(math.exp(t - largest) for t in terms))) / (order - 1)


def _conversion(order: int, delta: float) -> float:
    """What is added to a Renyi divergence to get epsilon (Canonne, Kamath, Steinke 2020, proposition 12)."""
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
