"""From right guesses to a lower bound on epsilon: closed forms, brute force, and mechanisms whose epsilon is known."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from privacy.dp.empirical_audit import delta_max, epsilon_lower, epsilon_reach, p_value
from privacy.errors import LocalProtocolError


@pytest.mark.parametrize("canaries", [1, 10, 100, 1000])
def test_all_guesses_right_without_delta_is_a_closed_form(canaries):
    """P[all right] = (e^eps / (1 + e^eps))^m, so the bound is the logit of 0.05^(1/m)."""
    chance = 0.05 ** (1 / canaries)
    expected = max(0.0, math.log(chance / (1 - chance)))
    found = epsilon_reach(canaries=canaries, delta=0.0)
    assert found == pytest.approx(expected, abs=1e-9)
    assert found <= expected


@pytest.mark.parametrize(("guesses", "right"), [(100, 75), (40, 31), (500, 300)])
def test_without_delta_it_is_the_exact_binomial_test(guesses, right):
    """The bound is Clopper and Pearson's for the chance to be right, as a logit."""
    chance = 1 / (1 + math.exp(-epsilon_lower(canaries=guesses, guesses=guesses, right=right, delta=0.0)))
    assert binom.sf(right - 1, guesses, chance) == pytest.approx(0.05, abs=1e-6)


def reference(m, r, v, eps, delta):
    """The published program of appendix D, line by line."""
    q = 1 / (1 + math.exp(-eps))
    beta = binom.sf(v - 1, r, q)
    alpha = total = 0.0
    for i in range(1, v + 1):
        total += binom.pmf(v - i, r, q)
        if total > i * alpha:
            alpha = total / i
    return min(beta + alpha * delta * 2 * m, 1.0)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize(("canaries", "guesses", "right"), [(50, 50, 48), (100, 30, 30), (1000, 400, 250), (20, 20, 0)])
def test_the_published_program_gives_the_same(canaries, guesses, right, epsilon):
    delta = delta_max(canaries)
    found = p_value(canaries=canaries, guesses=guesses, right=right, epsilon=epsilon, delta=delta)
    assert found == pytest.approx(reference(canaries, guesses, right, epsilon, delta), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_no_guess_beats_the_bound_on_randomised_response(epsilon):
    """Brute force over all 2^m coins and outputs of the mechanism the theorem is tight for."""
    canaries = 6
    chance = 1 / (1 + math.exp(-epsilon))
    right = [
        (sum(a == b for a, b in zip(coins, said, strict=True)), math.prod(
            chance if a == b else 1 - chance for a, b in zip(coins, said, strict=True)) / 2**canaries)
        for coins in itertools.product((0, 1), repeat=canaries)
        for said in itertools.product((0, 1), repeat=canaries)
    ]  # fmt: skip
    for least in range(canaries + 1):
        exact = sum(weight for hits, weight in right if hits >= least)
        bound = p_value(canaries=canaries, guesses=canaries, right=least, epsilon=epsilon, delta=0.0)
        assert exact == pytest.approx(bound, rel=1e-9)


def test_a_mechanism_that_gives_everything_away_with_probability_delta_stays_within():
    """(0, delta)-DP: all coins are shown with probability delta; P[all right] may not pass the bound."""
    canaries = 10
    delta = delta_max(canaries)
    exact = delta + (1 - delta) * 0.5**canaries
    assert exact <= p_value(canaries=canaries, guesses=canaries, right=canaries, epsilon=0.0, delta=delta)


def test_the_bound_holds_with_its_confidence_on_a_mechanism_of_known_epsilon():
    """Randomised response at epsilon 1, 4,000 audits: the bound passes 1 in at most 5 % of them, but for chance."""
    random, chance, canaries = np.random.default_rng(3), 1 / (1 + math.exp(-1.0)), 80
    hits = random.binomial(canaries, chance, size=4_000)
    above = {v: epsilon_lower(canaries=canaries, guesses=canaries, right=int(v), delta=0.0) > 1.0 for v in set(hits)}
    share = np.mean([above[v] for v in hits])
    assert share <= 0.05 + 5 * math.sqrt(0.05 * 0.95 / 4_000)


def test_it_is_silent_on_a_coin():
    assert epsilon_lower(canaries=100, guesses=100, right=50, delta=1e-4) == 0.0


@pytest.mark.parametrize(
    ("numbers", "epsilon", "delta"),
    [
        ((10, 11, 5), 1.0, 0.0),
        ((10, 5, 6), 1.0, 0.0),
        ((10, 0, 0), 1.0, 0.0),
        ((10, 5, 5), -1.0, 0.0),
        ((10, 5, 5), 1.0, 0.0011),
        ((10, 5, 5), math.inf, 0.0),
        ((10**6, 5, 5), 1.0, 0.0),
    ],
)
def test_numbers_that_do_not_fit(numbers, epsilon, delta):
    canaries, guesses, right = numbers
    with pytest.raises(LocalProtocolError):
        p_value(canaries=canaries, guesses=guesses, right=right, epsilon=epsilon, delta=delta)


def test_a_confidence_is_between_0_and_1():
    with pytest.raises(LocalProtocolError, match="confidence"):
        epsilon_lower(canaries=10, guesses=10, right=10, delta=0.0, confidence=1.0)
