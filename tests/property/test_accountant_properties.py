"""What must hold for every history: more steps cost more, more noise costs less, order and grouping do not matter."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledGaussian

DELTA = 1e-5

noises = st.floats(0.8, 30.0).map(lambda x: round(x, 2))
rates = st.sampled_from([0.01, 0.05, 0.2, 0.5, 1.0])
steps = st.integers(1, 200)
events = st.builds(
    lambda noise, rate, count: DpEvent(
        mechanism=PoissonSampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=count, clip_norm_l2=1.0)
    ),
    noises,
    rates,
    steps,
)


def epsilon(*history):
    return accountant.epsilon(history, delta=DELTA)


@settings(max_examples=25, deadline=None)
@given(events, st.integers(1, 200))
def test_more_steps_never_cost_less(event, more):
    longer = event.with_steps(event.mechanism.steps + more)
    # Losses are rounded up on a grid that gets finer with more steps; its error is kept below 1e-3.
    assert epsilon(longer) >= epsilon(event) - 1e-3


@settings(max_examples=25, deadline=None)
@given(events)
def test_the_tight_figure_is_below_the_renyi_bound(event):
    assert epsilon(event) <= accountant.renyi_epsilon([event], delta=DELTA) + 1e-3


@settings(max_examples=15, deadline=None)
@given(st.lists(events, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_order_and_grouping_do_not_matter(history, random):
    pieces = [
        piece
        for event in history
        for piece in ([event.with_steps(1)] * event.mechanism.steps if event.mechanism.steps <= 3 else [event])
    ]
    random.shuffle(pieces)
    assert epsilon(*pieces) == epsilon(*history)


@settings(max_examples=15, deadline=None)
@given(events, events)
def test_two_events_cost_at_least_the_dearer_and_at_most_twice_the_other_bound(first, second):
    together = epsilon(first, second)
    assert together >= max(epsilon(first), epsilon(second)) - 1e-3
    assert together <= accountant.renyi_epsilon([first, second], delta=DELTA) + 1e-3


@settings(max_examples=40, deadline=None)
@given(st.lists(events, max_size=4), st.floats(0.1, 20.0))
def test_the_filter_is_an_upper_bound_at_every_cap(history, cap):
    bound = accountant.filter_epsilon(history, delta=DELTA, cap=cap)
    assert bound >= accountant.renyi_epsilon(history, delta=DELTA) * (1 - 1e-12)


@given(events)
def test_events_survive_their_record(event):
    assert DpEvent.from_dict(event.to_dict()) == event


@settings(max_examples=15, deadline=None)
@given(events)
def test_more_noise_never_costs_more(event):
    quieter = PoissonSampledGaussian(
        noise_multiplier=event.mechanism.noise_multiplier * 1.1,
        sampling_rate=event.mechanism.sampling_rate,
        steps=event.mechanism.steps,
        clip_norm_l2=1.0,
    )
    assert epsilon(DpEvent(mechanism=quieter)) <= epsilon(event) + 1e-6


def test_no_history_is_the_start_of_every_history():
    assert accountant.epsilon([], delta=DELTA) == pytest.approx(0.0)
