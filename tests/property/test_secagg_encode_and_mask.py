"""Rounding in fixed point is exact rounding; encoding and masking together is one after the other."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.encoding import Lane, Layout, encode, lane_scale
from privacy.errors import EncodingRefused
from privacy.keystream import Keystream
from privacy.secagg.masks import MaskSeeds, apply_masks, encode_and_mask, vector_hash
from privacy.secret import Secret

SEEDS = st.binary(min_size=32, max_size=32).map(Secret)
BITS = st.sampled_from([16, 32, 64])


@st.composite
def contributions(draw):
    """A layout of a few lanes, some of them longer than what is encoded at a time, and values a little too large."""
    bits = draw(BITS)
    lanes, values = [], {}
    for index in range(draw(st.integers(1, 4))):
        length = draw(st.sampled_from([1, 2, 7, 1000, 32_768, 40_001]))
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        if draw(st.booleans()):
            lane = Lane(name=f"lane{index}", length=length, clip=100.0, scale=1.0)
            values[lane.name] = random.integers(-100, 101, length)
        else:
            clip = draw(st.floats(1e-3, 1e3))
            scale = lane_scale(draw(st.integers(1, 8)), clip, bits)
            lane = Lane(name=f"lane{index}", length=length, clip=clip, scale=0.5 if scale == 1 else scale)
            dtype = draw(st.sampled_from([np.float32, np.float64]))
            values[lane.name] = (1.2 * clip * random.uniform(-1, 1, length)).astype(dtype)
        lanes.append(lane)
    return Layout(modulus_bits=bits, lanes=tuple(lanes)), values


@settings(max_examples=40, deadline=None)
@given(contributions(), SEEDS, st.lists(SEEDS, max_size=3), st.lists(SEEDS, max_size=3))
def test_together_is_one_after_the_other(contribution, dither, add, subtract):
    layout, values = contribution
    seeds = MaskSeeds(add=tuple(add), subtract=tuple(subtract))
    expected = encode(values, layout, dither)
    apply_masks(expected, seeds)
    vector, sha256 = encode_and_mask(values, layout, dither, seeds)
    assert (vector == expected).all()
    assert sha256 == vector_hash(expected)


@settings(max_examples=300, deadline=None)
@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e5),
    st.integers(-6, 40).map(lambda exponent: 2.0**exponent) | st.floats(0.01, 1e6),
    BITS,
    SEEDS,
)
def test_a_value_is_rounded_up_exactly_when_the_dither_is_below_its_fraction(value, clip, scale, bits, dither):
    """Against exact arithmetic, on either side of where 32 binary places no longer fit."""
    lane = Lane(name="x", length=1, clip=clip, scale=0.75 if scale == 1 else scale)
    if lane.bound > 2 ** (bits - 1) - 1:
        lane = replace(lane, clip=clip * (2 ** (bits - 1) - 2) / (lane.bound + 1))
    layout = Layout(modulus_bits=bits, lanes=(lane,))
    (found,) = encode({"x": np.array([value])}, layout, dither).view(f"<i{bits // 8}").tolist()
    scaled = float(min(max(value, -lane.clip), lane.clip)) * lane.scale  # one rounding, as in the encoder
    (word,) = Keystream(dither).words(1, np.dtype("<u4")).tolist()
    lower = math.floor(scaled)
    expected = lower + (word < (Fraction(scaled) - lower) * 2**32)
    assert found == max(-lane.bound, min(lane.bound, expected))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 32_767, 32_768, 99_999])
def test_one_value_that_is_not_finite_is_found_anywhere(dtype, bad, place):
    layout = Layout(modulus_bits=32, lanes=(Lane(name="update", length=100_000, clip=1.0, scale=2.0**20),))
    values = np.ones(100_000, dtype=dtype)
    values[place] = bad
    with pytest.raises(EncodingRefused, match="finite"):
        encode_and_mask({"update": values}, layout, Secret(b"d" * 32), MaskSeeds(add=(), subtract=()))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_whose_sum_is_beyond_every_float_are_finite_all_the_same(dtype):
    layout = Layout(modulus_bits=32, lanes=(Lane(name="update", length=1000, clip=1.0, scale=2.0**20),))
    values = np.full(1000, np.finfo(dtype).max)
    assert (encode({"update": values}, layout, Secret(b"d" * 32)) == 2**20).all()
