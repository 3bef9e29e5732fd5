"""DP events -> epsilon at a delta, for a patient, under adding or removing one.

Three answers, for three questions:

| function | question | method |
|---|---|---|
| `epsilon` | what did this cost? | privacy loss distributions (Google dp-accounting), rounded against us |
| `renyi_epsilon` | is that plausible? | Renyi DP, an independent and looser bound |
| `filter_epsilon` | may one more be added, chosen by what came before? | a Renyi filter at one order |

Whoever reports uses the first; the second is a cross-check; the third is for caps over several studies. Not used:
the Gaussian-DP approximation, which under-reports by up to a sixth at hospital sizes.

**Shares of discrete Gaussian noise** (`PoissonSampledDiscreteGaussian`). Let S be the standard deviation of the sum of
the shares in grid spacings. Contributions are whole grid steps, so shifts are integers.

- *Renyi*: for integer shifts v and integer orders k, E_Q[(P/Q)^k] = exp(k (k-1) v^2 / (2 S^2)) exactly as for the
  continuous Gaussian, because the terms are those of a discrete Gaussian shifted by k v, which has the same sum. The
  sampled Gaussian's formula follows term by term (Mironov, Talwar, Zhang 2019, 3.3), its other direction from the
  reflection x -> v - x, so nothing is added.
- *Loss distribution*: let T^2 = S^2 - 1/12. A Gaussian of standard deviation T, rounded to integers, has the
  discrete Gaussian's first three moments; by Taylor's formula the two differ in total variation by at most

      1/2 * 1/24 * (1/48 + 1/80) * (sqrt(24) / T^4 + sqrt(120) / T^5)  <=  1 / (288 T^4)        (T >= 2^8)

  a coordinate: 1/48 and 1/80 are the fourth moments of N(0, 1/12) and of the rounding error, the roots bound
  E|He_4| and E|He_5|, and the last term is the price of a sum over integers instead of an integral. Rounding after an
  integer shift is post-processing, so the rounded Gaussian costs what a Gaussian of T costs: its loss distribution is
  evaluated at delta - (1 + e^epsilon) * slack.
- *slack*, over all steps: dimension / (288 T^4) as above; the sampler's `ERROR_PER_DRAW` for every draw of every
  share; `TAIL_PROBABILITY` for a share that is clamped. That a sum of h shares is not quite a discrete Gaussian (log
  ratio at most tau = 10 sum_k exp(-2 pi^2 (S^2/h) k/(k+1)); Kairouz, Liu, Steinke 2021, theorem 9) is below
  10^-280000 at the narrowest share that is allowed, and is covered by what was rounded up above.

Where the slack is more than a hundredth of delta (a coarse grid for a very long vector, or an epsilon so large that it
promises nothing), the Renyi bound is reported instead; calibration refuses such a grid. Above epsilon
EPSILON_SLACK_MAX, e^epsilon in the slack is taken at that value: the figure is that of the noise as designed.

Everything is a pure function of its arguments, cached; the heavy library is loaded at the first question, so that
an agent that waits stays small.
"""

import importlib.metadata
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from privacy.dp.discrete_gaussian import ERROR_PER_DRAW
from privacy.dp.events import KNOWN, DpEvent, PrivacySpend, Relation, Unit
from privacy.dp.mechanism import TAIL_PROBABILITY, PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from privacy.errors import LocalProtocolError, UnknownEvent

DELTA_MIN = 1e-10
"""Below this the rounding errors of the convolutions are no longer small against delta."""

EPSILON_EXACT_MAX = 500.0
"""Where the Renyi bound is above this it is the answer: no guarantee is left, and an exact figure costs minutes."""

EPSILON_SLACK_MAX = 40.0
"""From here on what a slack is multiplied with stays the same; nobody is protected by such an epsilon."""

SLACK_SHARE_MAX = 0.01
"""Of delta: as much may go to what is not exactly a Gaussian."""

RUNS_MAX = 32
"""So many different mechanisms are composed one by one; more are first brought together, against us."""

_Runs: TypeAlias = tuple[tuple[float, float, int], ...]  # (noise multiplier, sampling rate, steps), sorted
_ORDERS = (*range(2, 33), 36, 40, 48, 56, 64, 80, 96, 128, 192, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class _History:
    """Events added up; equal histories share cached results."""

    exact: _Runs  # noise multipliers as they are, for Renyi
    rounded: _Runs  # of the Gaussians that stand in for discrete ones, a millionth lower
    coupling: float  # total variation between the two, over all steps and coordinates
    sampling: float  # total variation between noise as drawn and as designed, the same


def epsilon(events: Iterable[DpEvent], *, delta: float) -> float:
    """The epsilon that all events together cost at `delta`; 0 for none, infinity if there is none that small.

    Events that differ only in their steps are added first, so a long history costs no more than a short one.

    Raises:
        UnknownEvent: An event of a kind, unit or relation without a rule.
        LocalProtocolError: `delta` is not between DELTA_MIN and 1.
    """
    return _reported(_history(events), _checked(delta))


def spend(events: Iterable[DpEvent], *, delta: float) -> PrivacySpend:
    """`epsilon` with what it is for."""
    return PrivacySpend(epsilon=epsilon(events, delta=delta), delta=delta)


def renyi_epsilon(events: Iterable[DpEvent], *, delta: float) -> float:
    """An upper bound on `epsilon` by another route: Renyi DP at integer orders 2 to 256."""
    history = _history(events)
    return _renyi_with_slack(history, _checked(delta))


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
    history = _history(events)
    _checked(delta)
    if not (math.isfinite(cap) and cap > 0):
        raise LocalProtocolError("a cap on epsilon is a number greater than 0", str(cap))
    if not history.exact:
        return 0.0
    order = max(_ORDERS, key=lambda a: (cap - _conversion(a, delta)) / a)
    left = delta - min(_factor(cap) * history.sampling, SLACK_SHARE_MAX * delta)
    return max(0.0, _renyi_divergence(history.exact, order) + _conversion(order, left))


def slack(events: Iterable[DpEvent], *, epsilon: float) -> float:
    """What of delta goes to noise that is drawn in whole grid steps, if all events together cost `epsilon`.

    0 for events with Gaussian noise. Calibration refuses more than SLACK_SHARE_MAX of delta.
    """
    history = _history(events)
    return _factor(epsilon) * (history.coupling + history.sampling)


def versions() -> dict[str, str]:
    """What computed the figures, for certificates and reports."""
    return {name: importlib.metadata.version(name) for name in ("dp-accounting", "numpy", "scipy")}


def _history(events: Iterable[DpEvent]) -> _History:
    exact: dict[tuple[float, float], int] = {}
    rounded: dict[tuple[float, float], int] = {}
    coupling = sampling = 0.0
    for event in events:
        if event.unit is not Unit.PATIENT or event.relation is not Relation.ADD_OR_REMOVE_ONE:
            raise UnknownEvent(f"{event.unit} under {event.relation}", KNOWN)
        mechanism = event.mechanism
        # The clip norm is not here: noise is in multiples of it, so it cancels.
        noise, rate, steps = mechanism.noise_multiplier, mechanism.sampling_rate, mechanism.steps
        exact[noise, rate] = exact.get((noise, rate), 0) + steps
        match mechanism:
            case PoissonSampledGaussian():
                stand_in = noise
            case PoissonSampledDiscreteGaussian():
                std = mechanism.noise_std / mechanism.grid_spacing
                variance = std**2 - 1 / 12
                stand_in = noise * math.sqrt(variance) / std
                draws = steps * mechanism.dimension
                coupling += draws / (288 * variance**2)
                sampling += mechanism.shares * (draws * ERROR_PER_DRAW + steps * TAIL_PROBABILITY)
            case _:
                raise UnknownEvent(type(mechanism).__name__, KNOWN)
        rounded[stand_in, rate] = rounded.get((stand_in, rate), 0) + steps
    return _History(exact=_sorted(exact), rounded=_sorted(rounded), coupling=coupling, sampling=sampling)


def _sorted(totals: dict[tuple[float, float], int]) -> _Runs:
    return tuple(sorted((*key, steps) for key, steps in totals.items()))


def _factor(epsilon: float) -> float:
    """Two distributions within total variation s of others that are (epsilon, delta) are (epsilon, delta + this s)."""
    return 1 + math.exp(min(epsilon, EPSILON_SLACK_MAX))


def _reported(history: _History, delta: float) -> float:
    """The tight figure, or the Renyi bound where there is none."""
    if not history.coupling:
        return _pld_epsilon(history.rounded, delta)
    # Epsilon is at most this, so the slack at this epsilon is enough for it.
    most = _renyi_with_slack(history, delta / 2)
    needed = _factor(most) * (history.coupling + history.sampling)
    bound = _renyi_with_slack(history, delta)
    if needed > SLACK_SHARE_MAX * delta:
        return bound
    return min(bound, _pld_epsilon(history.rounded, delta - needed))


def _renyi_with_slack(history: _History, delta: float) -> float:
    """The Renyi bound, with what the sampler is off taken from delta."""
    if not history.sampling:
        return _renyi_epsilon(history.exact, delta)
    needed = _factor(EPSILON_SLACK_MAX) * history.sampling
    return _renyi_epsilon(history.exact, delta - min(needed, SLACK_SHARE_MAX * delta))


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
    interval = min(1e-3, max(wanted, widest / 3e5, 1e-5))
    # One of few values, so that a study's step is looked at once and not again after every round.
    return 1e-3 * math.exp2(math.floor(2 * math.log2(interval / 1e-3)) / 2)


def _merged(runs: _Runs) -> _Runs:
    """At most RUNS_MAX different mechanisms, each with no more noise and no lower rate than those it stands for.

    A loss distribution takes 30 to 300 ms; of mechanisms that differ by a percent, one is enough for a bound.
    """
    width = 0.01
    merged = {(noise, rate): steps for noise, rate, steps in runs}
    while len(merged) > RUNS_MAX:
        merged = {}
        for noise, rate, steps in runs:
            quieter = math.exp(math.floor(math.log(noise) / width) * width)
            oftener = min(1.0, math.exp(math.ceil(math.log(rate) / width) * width))
            key = (min(quieter, noise), max(oftener, rate))
            merged[key] = merged.get(key, 0) + steps
        width *= 2
    return _sorted(merged)


@lru_cache(maxsize=4096)
def _pld_epsilon(runs: _Runs, delta: float) -> float:
    if not runs:
        return 0.0
    bound = _renyi_epsilon(runs, delta)
    if bound > EPSILON_EXACT_MAX:
        return bound
    runs = _merged(runs)
    interval = _interval(runs)
    total: Any = None
    for noise, rate, steps in runs:
        run = _repeated(_one_step(noise, rate, interval), steps)
        total = run if total is None else total.compose(run)
    return float(total.get_epsilon_for_delta(delta))


@lru_cache(maxsize=8)
def _one_step(noise: float, rate: float, interval: float) -> Any:
    """The loss distribution of one step, its losses rounded up to multiples of `interval`."""
    from dp_accounting.pld import privacy_loss_distribution as pld  # noqa: PLC0415 - 90 MB; see the module docstring

    return pld.from_gaussian_mechanism(
        noise,
        pessimistic_estimate=True,
        value_discretization_interval=interval,
        sampling_prob=rate,
        use_connect_dots=True,
    )


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
