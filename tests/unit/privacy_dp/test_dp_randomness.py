"""The generator gives the distributions it promises, to nobody twice. Every test's randomness is fixed."""

import copy
import math
import multiprocessing
import os
import pickle

import numpy as np
import pytest
from scipy import stats

from privacy.dp.randomness import CryptographicGenerator
from tests.fakes.training import entropy_of


def generator(label="a"):
    return CryptographicGenerator(entropy_of(label))


def test_the_key_is_32_bytes_of_the_entropy_it_was_given():
    asked = []

    def entropy(size):
        asked.append(size)
        return bytes(size)

    CryptographicGenerator(entropy)
    assert asked == [32]


def test_one_key_gives_one_stream_and_another_key_another():
    assert (generator("a").words(100) == generator("a").words(100)).all()
    assert not (generator("a").words(100) == generator("b").words(100)).any()


def test_a_stream_never_repeats_itself():
    one = generator()
    assert len(np.unique(np.concatenate([one.words(1000) for _ in range(10)]))) == 10_000


def test_real_generators_are_unrelated():
    first, second = (CryptographicGenerator(os.urandom).gaussian(20_000, 1.0) for _ in range(2))
    # 7 standard deviations of a correlation of nothing with nothing: a false alarm once in 10^11 runs.
    assert abs(np.corrcoef(first, second)[0, 1]) < 7 / math.sqrt(20_000)


def test_uniform_numbers_are_uniform():
    values = generator().uniform(200_000)
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.0, 1e-3, 0.2, 0.5, 0.999, 1.0])
def test_coins_fall_as_often_as_told(probability):
    heads = int(generator().bernoulli(200_000, probability).sum())
    assert stats.binomtest(heads, 200_000, probability).pvalue > 1e-3


def test_a_coin_costs_one_word_whatever_it_shows():
    for probability in (0.0, 0.5, 1.0):
        one, other = generator(), generator()
        one.bernoulli(10, probability)
        other.words(10)
        assert (one.words(5) == other.words(5)).all()


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_probability_is_a_probability(probability):
    with pytest.raises(ValueError, match="probability"):
        generator().bernoulli(3, probability)


def test_every_subset_is_as_likely():
    one = generator()
    counts = np.zeros((5, 5), dtype=int)
    for _ in range(5000):
        first, second = one.choose(5, 2)
        assert first < second
        counts[first, second] += 1
    assert stats.chisquare(counts[np.triu_indices(5, 1)]).pvalue > 1e-3


def test_choosing_all_or_none():
    assert generator().choose(3, 3).tolist() == [0, 1, 2]
    assert generator().choose(3, 0).tolist() == []
    with pytest.raises(ValueError, match="choose"):
        generator().choose(2, 3)


def test_normal_deviates_are_normal():
    values = generator().gaussian(500_001, 3.0)
    assert len(values) == 500_001
    assert stats.kstest(values / 3.0, "norm").pvalue > 1e-3
    # The tails too, where a poor generator is cut off.
    assert abs(int((np.abs(values) > 4 * 3.0).sum()) - 500_001 * 2 * stats.norm.sf(4)) < 30
    assert np.isfinite(values).all()


def test_both_halves_of_a_pair_are_independent():
    values = generator().gaussian(200_000, 1.0)
    first, second = values[:100_000], values[100_000:]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.015
    assert abs(np.corrcoef(first**2, second**2)[0, 1]) < 0.015


def test_a_generator_cannot_be_copied_or_pickled():
    one = generator()
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            act(one)
    assert repr(one) == "CryptographicGenerator()"


def _draw(one, results):
    try:
        one.words(1)
        results.put("drew")
    except RuntimeError as error:
        results.put(str(error))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_may_not_use_its_parents_stream():
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_draw, args=(generator(), results))
    child.start()
    child.join(10)
    assert "another process" in results.get()
