"""The sampler draws the discrete Gaussian, to the last bit where floating point alone would not tell.

Every stream is fixed, so a test passes or fails for good; with a stream drawn anew each of the statistical ones would
fail by chance at most once in a million runs.
"""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy import stats

from privacy.dp import discrete_gaussian as module
from privacy.dp.discrete_gaussian import discrete_gaussian, draws_of, exact_draw
from privacy.dp.randomness import CryptographicGenerator
from privacy.errors import LocalProtocolError
from tests.fakes.training import entropy_of

FALSE_ALARM = 1e-6


def generator(label="a"):
    return CryptographicGenerator(entropy_of(label))


def no_more(count):
    pytest.fail(f"{count} further words were asked for")


@pytest.mark.parametrize("std", [0.25, 0.7, 1.0, 3.3, 15.9, 16.0, 40.0, 300.0])
def test_is_the_exact_distribution(std):
    count = 200_000
    drawn = discrete_gaussian(generator(f"pmf {std}"), count, std)
    support = np.arange(-math.ceil(40 * std), math.ceil(40 * std) + 1)
    weight = np.exp(-(support**2) / (2 * std**2))
    expected = count * weight / weight.sum()
    # Cells of at least 50 expected draws; what is left on either side is one cell each.
    inner = np.flatnonzero(expected >= 50)
    first, last = support[inner[0]], support[inner[-1]]
    cells = np.clip(drawn, first - 1, last + 1)
    observed = np.array([(cells == x).sum() for x in range(first - 1, last + 2)])
    wanted = np.concatenate([[expected[: inner[0]].sum()], expected[inner], [expected[inner[-1] + 1 :].sum()]])
    kept = wanted > 1e-9
    assert observed[~kept].sum() == 0
    assert stats.chisquare(observed[kept], wanted[kept]).pvalue > FALSE_ALARM


@pytest.mark.parametrize("std", [2.0**8, 1234567.8, 2.0**24 - 1, 2.0**40])
def test_wide_ones_are_normal_up_to_their_steps(std):
    count = 300_000
    drawn = discrete_gaussian(generator(f"wide {std}"), count, std)
    scaled = drawn / std
    # Four-figure moments of the sample: 4.9 of their own standard deviations are passed once in a million runs.
    assert abs(scaled.mean()) < 4.9 / math.sqrt(count)
    assert abs((scaled**2).mean() - 1) < 4.9 * math.sqrt(2 / count)
    assert abs((scaled**3).mean()) < 4.9 * math.sqrt(15 / count)
    assert abs((scaled**4).mean() - 3) < 4.9 * math.sqrt(96 / count)
    blurred = (drawn + generator("blur").uniform(count) - 0.5) / std  # continuous, so that the test applies
    assert stats.kstest(blurred, "norm").pvalue > FALSE_ALARM
    for far in (3.0, 4.0):
        assert stats.binomtest(int((np.abs(scaled) > far).sum()), count, 2 * stats.norm.sf(far)).pvalue > FALSE_ALARM


def test_low_bits_and_signs_are_fair():
    drawn = discrete_gaussian(generator("bits"), 100_000, 2.0**20)
    for bit in range(16):
        assert stats.binomtest(int((drawn >> bit & 1).sum()), 100_000, 0.5).pvalue > FALSE_ALARM
    assert stats.binomtest(int((drawn > 0).sum()), 100_000, 0.5).pvalue > FALSE_ALARM


@pytest.mark.parametrize("count", [0, 1, 21, module._BLOCK - 1, module._BLOCK + 1, 3 * module._BLOCK])
def test_gives_as_many_as_asked_and_never_the_same_twice(count):
    one = generator()
    first, second = discrete_gaussian(one, count, 2.0**30), discrete_gaussian(one, count, 2.0**30)
    assert first.shape == (count,)
    assert first.dtype == np.int64
    assert len(np.intersect1d(first, second)) <= count / 100


@pytest.mark.parametrize("std", [0.0, 0.2, 2.0**41 + 1, math.inf, math.nan, -1.0])
def test_a_standard_deviation_is_in_range(std):
    with pytest.raises(LocalProtocolError, match="std"):
        discrete_gaussian(generator(), 1, std)


def test_a_count_is_not_negative():
    with pytest.raises(LocalProtocolError, match="count"):
        discrete_gaussian(generator(), -1, 2.0)


@pytest.mark.parametrize("std", [0.25, 1.0, 3.3, 1e6, 2.0**41])
def test_the_table_gives_every_strip_its_weight(std):
    strips = module._strips(std)
    width = 1 << strips.place_bits
    total = 1 << (module._COARSE + module._FINE + module._STRIPS_BITS)
    gets = [0] * 1024
    for column in range(1024):
        threshold = (int(strips.threshold[column]) << module._FINE) | strips.fine[column]
        assert 0 <= threshold <= total // 1024
        gets[column] += threshold
        gets[int(strips.alias[column])] += total // 1024 - threshold
    assert sum(gets) == total
    with localcontext(prec=100, Emin=-(10**12)):
        weights = [(-(Decimal(strip * width) ** 2) / (2 * Decimal(std) ** 2)).exp() for strip in range(1024)]
        whole = sum(weights)
        off = sum(abs(Decimal(got) / total - weight / whole) for got, weight in zip(gets, weights, strict=True)) / 2
    assert off < Decimal(2) ** -240


def test_fast_and_exact_decisions_agree():
    strips = module._strips(1000.3)
    words = generator("agree").words(4000)
    first, second = words[:2000], words[2000:]
    by_one = [exact_draw(int(a), int(b), strips, generator("more").words) for a, b in zip(first, second, strict=True)]
    kept = [value for value in by_one if value is not None]
    assert draws_of(first, second, strips, no_more).tolist() == kept
    assert 1900 < len(kept) < 2000


def boundary_words(strips, strip, place, sign):
    """Words whose acceptance bits are those of the exact probability: 64 bits cannot decide."""
    beyond = place + sign
    start = strip << strips.place_bits
    with localcontext(prec=100):
        exponent = -Decimal(beyond * (2 * start + beyond)) / (2 * Decimal(strips.std) ** 2)
        scaled = exponent.exp() * 2 ** (strips.accept_bits + 128)
    bits, rest = divmod(int(scaled), 2**128)
    low = int(strips.threshold[strip]) - 1  # below its threshold: the column's own strip
    first = strip << module._COARSE | low
    second = bits << (64 - strips.accept_bits) | sign << strips.place_bits | place
    return first, second, rest


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize(("shift", "stands"), [(-1, True), (0, True), (1, False)])
def test_further_words_decide_on_the_boundary(sign, shift, stands):
    strips = module._strips(1000.3)
    strip = int(np.flatnonzero(strips.threshold > 0)[3])
    first, second, rest = boundary_words(strips, strip, 5, sign)
    wanted = rest + shift
    asked = []

    def more(count):
        asked.append(count)
        return np.array([wanted >> 64, wanted & (2**64 - 1)], dtype=np.uint64)

    found = draws_of(np.array([first], dtype=np.uint64), np.array([second], dtype=np.uint64), strips, more)
    value = (strip << strips.place_bits) + 5 + sign
    assert asked == [2]
    assert found.tolist() == ([-value if sign else value] if stands else [])


@pytest.mark.parametrize(("shift", "own"), [(-1, True), (0, False)])
def test_further_words_decide_between_a_strip_and_its_alias(shift, own):
    strips = module._strips(1000.3)
    column = next(j for j in range(1024) if int(strips.alias[j]) != j and strips.fine[j] > 0)
    first = column << module._COARSE | int(strips.threshold[column])
    wanted = strips.fine[column] + shift
    answers = [[wanted >> 128, wanted >> 64 & (2**64 - 1), wanted & (2**64 - 1)], [0, 0]]

    def more(count):
        words = answers.pop(0)
        assert len(words) == count
        return np.array(words, dtype=np.uint64)

    # Place 0 and sign 0: exponent 0, accepted whatever the bits.
    found = draws_of(np.array([first], dtype=np.uint64), np.array([0], dtype=np.uint64), strips, more)
    strip = column if own else int(strips.alias[column])
    assert found.tolist() == [strip << strips.place_bits]
    assert answers == []


def test_zero_is_drawn_once():
    # Were both signs of zero kept, zero would come twice as often as it should.
    drawn = discrete_gaussian(generator("zero"), 100_000, 1.0)
    probability = 1 / (1 + 2 * sum(math.exp(-(x**2) / 2) for x in range(1, 20)))
    assert stats.binomtest(int((drawn == 0).sum()), 100_000, probability).pvalue > FALSE_ALARM
