"""Section 5, measured: rounding moves the mean by at most sqrt(n) / (2 S sum(w / W_max)), and nowhere on average."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consortium.contract.precision import precision_of
from privacy.encoding import Lane, Layout, decode, encode, lane_scale
from privacy.errors import EncodingRefused
from privacy.secret import Secret

D = 40_000


def layout_of(sites, clip, bits, length=D, weight_max=1.0):
    update = Lane(name="update", length=length, clip=clip, scale=lane_scale(sites, clip, bits))
    layout = Layout(modulus_bits=bits, lanes=(update, Lane(name="weight", length=1, clip=weight_max, scale=1.0)))
    layout.check(sites)
    return layout


def summed(layout, updates, weights):
    """The aggregate of these sites, each with a dither of its own, and what each of them encoded."""
    encoded = [
        encode({"update": update, "weight": np.array([weight])}, layout, Secret(bytes([site]) * 32))
        for site, (update, weight) in enumerate(zip(updates, weights, strict=True))
    ]
    total = np.zeros_like(encoded[0])
    for vector in encoded:
        total += vector
    return total, encoded


def error_of_mean(layout, values, weights, weight_max):
    updates = [value * (weight / weight_max) for value, weight in zip(values, weights, strict=True)]
    total, _ = summed(layout, updates, weights)
    sums = decode(total, layout, survivors=len(values))
    mean = sums["update"] / (sums["weight"][0] / weight_max)
    exact = sum(updates) / (sum(weights) / weight_max)
    return mean - exact


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize(("sites", "clip"), [(3, 1.0), (10, 1.0), (10, 0.05), (50, 4.0)])
def test_the_error_of_a_uniform_mean_is_within_its_bound_and_has_no_bias(bits, sites, clip):
    generator = np.random.default_rng(sites)
    values = generator.uniform(-clip, clip, (sites, D))
    error = error_of_mean(layout_of(sites, clip, bits), values, np.ones(sites), 1.0)
    bound = precision_of(sites=sites, clip=clip, modulus_bits=bits).error_of_mean(sites)
    # Of fractions anywhere between two steps the rms is sqrt(2/3) of the bound, that of fractions of one half.
    assert np.sqrt((error**2).mean()) == pytest.approx(np.sqrt(2 / 3) * bound, rel=0.03)
    assert abs(error.mean()) <= 5 * bound / np.sqrt(D)


@pytest.mark.parametrize("bits", [16, 32])
def test_the_bound_is_reached_halfway_between_two_steps(bits):
    sites, clip = 7, 1.0
    layout = layout_of(sites, clip, bits)
    step = 1 / layout.lanes[0].scale
    generator = np.random.default_rng(7)
    values = (generator.integers(-100, 100, (sites, D)) + 0.5) * step
    error = error_of_mean(layout, values, np.ones(sites), 1.0)
    bound = precision_of(sites=sites, clip=clip, modulus_bits=bits).error_of_mean(sites)
    assert np.sqrt((error**2).mean()) == pytest.approx(bound, rel=0.03)
    assert abs(error.mean()) <= 5 * bound / np.sqrt(D)


@pytest.mark.parametrize("bits", [16, 32])
def test_the_error_of_a_weighted_mean_is_within_its_bound_and_has_no_bias(bits):
    sites, clip, weight_max = 6, 1.0, 2000.0
    weights = np.array([30.0, 97.0, 200.0, 830.0, 1999.0, 2000.0])
    generator = np.random.default_rng(3)
    values = generator.uniform(-clip, clip, (sites, D))
    error = error_of_mean(layout_of(sites, clip, bits, weight_max=weight_max), values, weights, weight_max)
    precision = precision_of(sites=sites, clip=clip, modulus_bits=bits)
    bound = precision.error_of_mean(sites, weights.sum() / weight_max)
    assert 0.7 * bound <= np.sqrt((error**2).mean()) <= 1.03 * bound
    assert abs(error.mean()) <= 5 * bound / np.sqrt(D)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([16, 32, 64]),
    st.lists(st.integers(1, 500), min_size=3, max_size=8),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.05, 1.0, 3.0]),
)
def test_the_decoded_mean_is_the_exact_mean_of_what_was_quantised(bits, weights, seed, clip):
    """Sums of integers, weights that are integers, and one division: nothing else happens between site and mean."""
    weight_max, sites, length = 500.0, len(weights), 9
    layout = layout_of(sites, clip, bits, length, weight_max)
    values = np.random.default_rng(seed).uniform(-1.5 * clip, 1.5 * clip, (sites, length)).astype(np.float32)
    updates = [value * np.float32(weight / weight_max) for value, weight in zip(values, weights, strict=True)]
    total, encoded = summed(layout, updates, [float(weight) for weight in weights])
    sums = decode(total, layout, survivors=sites)
    assert sums["weight"].tolist() == [float(sum(weights))]
    signed = [vector.view(f"<i{bits // 8}")[:length] for vector in encoded]
    for position in range(length):
        quantised = sum(int(vector[position]) for vector in signed)
        exact = Fraction(quantised) / Fraction(layout.lanes[0].scale)
        found = sums["update"][position]
        if bits == 64:  # integers beyond 2^53 are rounded once, to the nearest double
            assert found == float(exact)
        else:
            assert Fraction(found) == exact
        mean = exact / (Fraction(sum(weights)) / Fraction(weight_max))
        assert found / (sums["weight"][0] / weight_max) == pytest.approx(float(mean), rel=1e-15, abs=0)


@given(st.integers(1, 500), st.integers(1, 500))
def test_a_weight_beyond_what_the_study_allows_is_refused(weight, weight_max):
    layout = layout_of(3, 1.0, 32, 1, float(weight_max))
    values = {"update": np.zeros(1), "weight": np.array([float(weight)])}
    if weight <= weight_max:
        assert decode(encode(values, layout, Secret(bytes(32))), layout)["weight"].tolist() == [float(weight)]
    else:
        with pytest.raises(EncodingRefused, match="count"):
            encode(values, layout, Secret(bytes(32)))
