"""Encoding is unbiased, inverts within its bound, and no admissible layout can wrap."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.encoding import Lane, Layout, decode, encode, lane_scale
from privacy.secret import Secret

BITS = st.sampled_from([16, 32, 64])
CLIP = st.floats(1e-3, 1e3)


@st.composite
def cohorts(draw):
    """A layout for n sites and values for each, a little beyond the clip."""
    n = draw(st.integers(1, 8))
    clip, bits = draw(CLIP), draw(BITS)
    length = draw(st.integers(1, 20))
    scale = lane_scale(n, clip, bits)
    lane = Lane(name="update", length=length, clip=clip, scale=scale / 2 if scale == 1 else scale)
    values = [
        np.array(draw(st.lists(st.floats(-1.2 * clip, 1.2 * clip), min_size=length, max_size=length))) for _ in range(n)
    ]
    return Layout(modulus_bits=bits, lanes=(lane,)), values


@settings(max_examples=150, deadline=None)
@given(cohorts(), st.binary(min_size=32, max_size=32))
def test_the_sum_decodes_to_within_one_step_per_site(cohort, dither):
    layout, values = cohort
    lane = layout.lanes[0]
    layout.check(len(values))
    total = np.zeros(layout.length, dtype=layout.dtype)
    for vector in values:
        total += encode({"update": vector}, layout, Secret(dither))
    exact = sum(np.clip(vector, -lane.clip, lane.clip) for vector in values)
    decoded = decode(total, layout, survivors=len(values))["update"]
    rounding = 1e-12 * lane.clip * len(values)
    assert np.abs(decoded - exact).max() <= len(values) / lane.scale + rounding


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=20), BITS, st.integers(1, 8), st.booleans())
def test_whole_numbers_are_exact(numbers, bits, n, as_integers):
    layout = Layout(modulus_bits=bits, lanes=(Lane(name="count", length=len(numbers), clip=1000.0, scale=1.0),))
    layout.check(n)
    values = np.array(numbers, dtype=np.int64 if as_integers else np.float64)
    total = np.zeros(layout.length, dtype=layout.dtype)
    for _ in range(n):
        total += encode({"count": values}, layout, Secret(b"d" * 32))
    assert decode(total, layout, survivors=n)["count"].tolist() == [float(n * number) for number in numbers]


@settings(max_examples=20, deadline=None)
@given(st.floats(-1, 1), st.binary(min_size=32, max_size=32))
def test_rounding_is_unbiased(value, seed):
    """The mean of 100,000 roundings of one value lies within 6 standard deviations of it."""
    count = 100_000
    layout = Layout(modulus_bits=16, lanes=(Lane(name="x", length=count, clip=1.0, scale=8.0),))
    decoded = decode(encode({"x": np.full(count, value)}, layout, Secret(seed)), layout)["x"]
    assert abs(decoded.mean() - value) <= 6 * 0.5 / 8 / np.sqrt(count)
    assert set(np.unique(decoded * 8)) <= {np.floor(value * 8), np.ceil(value * 8)}
