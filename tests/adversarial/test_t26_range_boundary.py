"""Threat 26: n * (C * S + 1) at the largest integer of the ring, and one beyond: the sum must not wrap unnoticed.

Held by: `Layout.check` (privacy/encoding.py), in exact arithmetic.
Tried: rows 26 of `mutations.py`.
"""

from fractions import Fraction

import numpy as np
import pytest

from privacy.encoding import Lane, Layout, decode, encode
from privacy.errors import EncodingOverflow
from privacy.secret import Secret

RINGS = {16: 2**15 - 1, 32: 2**31 - 1, 64: 2**63 - 1}


def layout(bits, bound):
    """A lane with C*S exactly `bound`, a whole number that a float holds."""
    assert float(bound) == bound
    return Layout(modulus_bits=bits, lanes=(Lane(name="x", length=2, clip=float(bound), scale=1.0),))


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("n", [3, 7, 31, 128])
def test_the_largest_bound_is_accepted_and_one_more_is_not(bits, n):
    largest = RINGS[bits] // n - 1
    layout(bits, largest).check(n)
    with pytest.raises(EncodingOverflow) as caught:
        layout(bits, largest + 1).check(n)
    assert (caught.value.lane, caught.value.participants) == ("x", n)


@pytest.mark.parametrize("n", [3, 7, 128])
def test_in_64_bits_the_comparison_is_exact_where_floats_are_not(n):
    """Floats near 2^63 / n are 1024 apart; the check still decides between neighbours."""
    largest = RINGS[64] // n - 1
    below = float(largest)
    while Fraction(below) > largest:
        below = np.nextafter(below, 0)
    above = np.nextafter(below, np.inf)
    Layout(modulus_bits=64, lanes=(Lane(name="x", length=1, clip=below, scale=1.0),)).check(n)
    with pytest.raises(EncodingOverflow):
        Layout(modulus_bits=64, lanes=(Lane(name="x", length=1, clip=above, scale=1.0),)).check(n)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("n", [3, 7, 31])
def test_at_the_boundary_the_extreme_sums_come_out_right(bits, n):
    bound = RINGS[bits] // n - 1
    chosen = layout(bits, bound)
    one = encode({"x": np.array([bound, -bound])}, chosen, Secret(b"d" * 32))
    total = np.zeros_like(one)
    for _ in range(n):
        total += one
    assert decode(total, chosen, survivors=n)["x"].tolist() == [n * bound, -n * bound]


def test_one_beyond_would_have_wrapped():
    """Without the check: three sites with 2^15 / 3 each give a sum of the other sign."""
    bound = 2**15 // 3 + 1
    chosen = layout(16, bound)
    one = encode({"x": np.array([bound, -bound])}, chosen, Secret(b"d" * 32))
    assert decode(one + one + one, chosen)["x"][0] < 0
    with pytest.raises(EncodingOverflow):
        chosen.check(3)
