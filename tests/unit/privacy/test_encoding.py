"""Section 5: what is encoded, how exactly, and what is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from privacy.encoding import Lane, Layout, decode, encode, lane_scale
from privacy.errors import EncodingOverflow, EncodingRefused
from privacy.secret import Secret

DITHER = Secret(b"d" * 32)
UPDATE = Lane(name="update", length=3, clip=1.0, scale=2.0**20)
COUNT = Lane(name="patients", length=2, clip=1000.0, scale=1.0)
LAYOUT = Layout(modulus_bits=32, lanes=(UPDATE, COUNT))
VALUES = {"update": np.array([0.5, -0.25, 1.0]), "patients": np.array([0.0, 1000.0])}


def refused(values, layout=LAYOUT):
    with pytest.raises(EncodingRefused) as caught:
        encode(values, layout, DITHER)
    return caught.value


@pytest.mark.parametrize(("bits", "dtype"), [(16, "<u2"), (32, "<u4"), (64, "<u8")])
def test_one_site_comes_back_as_it_was(bits, dtype):
    lane = replace(UPDATE, scale=2.0**10)
    layout = Layout(modulus_bits=bits, lanes=(lane, COUNT))
    vector = encode(VALUES, layout, DITHER)
    assert vector.dtype == np.dtype(dtype)
    assert vector.nbytes == layout.size_bytes
    decoded = decode(vector, layout, survivors=1)
    assert {name: values.tolist() for name, values in decoded.items()} == {
        "update": [0.5, -0.25, 1.0],
        "patients": [0.0, 1000.0],
    }


def test_values_beyond_the_clip_count_as_the_clip():
    vector = encode({**VALUES, "update": np.array([7.0, -7.0, 1e300])}, LAYOUT, DITHER)
    assert decode(vector, LAYOUT)["update"].tolist() == [1.0, -1.0, 1.0]


def test_rounding_depends_on_the_dither_and_on_nothing_else():
    values = {"update": np.array([0.1, 0.2, 0.3]), "patients": np.zeros(2)}
    first = encode(values, LAYOUT, DITHER)
    assert (encode(values, LAYOUT, DITHER) == first).all()
    assert any((encode(values, LAYOUT, Secret(bytes([i]) * 32)) != first).any() for i in range(8))


def test_an_update_longer_than_one_block_is_encoded_like_a_short_one():
    length = 200_001
    lane = Lane(name="update", length=length, clip=1.0, scale=2.0**20)
    values = np.linspace(-1, 1, length)
    error = decode(
        encode({"update": values}, Layout(modulus_bits=32, lanes=(lane,)), DITHER),
        Layout(modulus_bits=32, lanes=(lane,)),
    )
    assert np.abs(error["update"] - values).max() <= 2.0**-20
    again = encode({"update": values.astype(np.float32)}, Layout(modulus_bits=32, lanes=(lane,)), DITHER)
    assert again.shape == (length,)


def test_integers_of_64_bits_are_exact():
    lane = Lane(name="count", length=2, clip=2.0**60, scale=1.0)
    layout = Layout(modulus_bits=64, lanes=(lane,))
    layout.check(3)
    vector = encode({"count": np.array([2**60 - 1, -(2**59) - 1], dtype=np.int64)}, layout, DITHER)
    assert vector.tolist() == [2**60 - 1, 2**64 - 2**59 - 1]


def test_a_product_that_rounds_up_stays_within_the_proved_bound():
    lane = Lane(name="update", length=1, clip=1.0 / 3.0, scale=2.0**60 + 2.0**10)
    layout = Layout(modulus_bits=64, lanes=(lane,))
    assert int(encode({"update": np.array([1.0])}, layout, DITHER)[0]) <= lane.bound


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("lane", ["update", "patients"])
def test_nan_and_infinities_are_refused(bad, lane):
    values = {name: array.copy() for name, array in VALUES.items()}
    values[lane][1] = bad
    error = refused(values)
    assert (error.lane, error.allowed) == (lane, "finite numbers")


def test_wrong_lengths_shapes_and_kinds_are_refused():
    assert "shape (2,)" in refused({**VALUES, "update": np.zeros(2)}).found
    assert "shape (3, 1)" in refused({**VALUES, "update": np.zeros((3, 1))}).found
    assert "complex" in refused({**VALUES, "update": np.zeros(3, dtype=complex)}).found
    assert "object" in refused({**VALUES, "update": np.array([None] * 3)}).found


def test_missing_and_unknown_lanes_are_refused_by_name():
    assert refused({"update": VALUES["update"]}).lane == "patients"
    assert refused({**VALUES, "weights": np.zeros(1)}).lane == "weights"


def test_counts_must_be_whole_and_within_the_clip():
    assert "fraction" in refused({**VALUES, "patients": np.array([0.5, 1.0])}).found
    assert "1001" in refused({**VALUES, "patients": np.array([0, 1001])}).found
    assert "2000" in refused({**VALUES, "patients": np.array([-2000.0, 1.0])}).found


def test_sums_wrap_back_to_signed_integers():
    three = encode({"update": np.array([-1.0, 1.0, 0.0]), "patients": np.array([7, 0])}, LAYOUT, DITHER)
    total = three + three + three
    decoded = decode(total, LAYOUT, survivors=3)
    assert decoded["update"].tolist() == [-3.0, 3.0, 0.0]
    assert decoded["patients"].tolist() == [21.0, 0.0]


@pytest.mark.parametrize("sum_", [2001, -2001])
def test_a_sum_that_so_few_sites_cannot_have_made_is_refused(sum_):
    vector = encode(VALUES, LAYOUT, DITHER)
    vector[3] = sum_ % 2**32
    decode(vector, LAYOUT, survivors=3)
    with pytest.raises(EncodingRefused, match="cannot be"):
        decode(vector, LAYOUT, survivors=2)


@pytest.mark.parametrize("vector", [np.zeros(5, dtype=np.uint64), np.zeros(5, np.int32), np.zeros(4, np.uint32)])
def test_a_vector_of_another_ring_or_length_is_not_decoded(vector):
    with pytest.raises(EncodingRefused):
        decode(vector, LAYOUT)


# --- layouts -------------------------------------------------------------------------------------------------------


def test_the_design_figures_for_32_bits():
    assert lane_scale(255, 1.0, 32) == 2.0**23
    assert lane_scale(1000, 1.0, 32) == 2.0**21


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("participants", [3, 4, 7, 100])
@pytest.mark.parametrize("clip", [0.01, 1.0, 3.7])
def test_the_scale_fits_and_twice_the_scale_does_not(bits, participants, clip):
    scale = lane_scale(participants, clip, bits)
    assert scale == 2.0 ** round(np.log2(scale))

    def layout(s):
        return Layout(modulus_bits=bits, lanes=(Lane(name="x", length=1, clip=clip, scale=s),))

    layout(scale).check(participants)
    with pytest.raises(EncodingOverflow):
        layout(2 * scale).check(participants)


def test_a_scale_too_coarse_to_mean_anything_is_refused():
    for participants in (20_000, 32_767, 40_000):
        with pytest.raises(EncodingOverflow):
            lane_scale(participants, 1.0, 16)
    assert lane_scale(128, 1e9, 16) == 2.0**-22


@pytest.mark.parametrize(("participants", "clip", "bits"), [(0, 1.0, 32), (3, 0.0, 32), (3, np.inf, 32), (3, 1.0, 31)])
def test_a_scale_for_nonsense_is_refused(participants, clip, bits):
    with pytest.raises(EncodingRefused):
        lane_scale(participants, clip, bits)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(modulus_bits=31, lanes=(UPDATE,)),
        Layout(modulus_bits=32, lanes=()),
        Layout(modulus_bits=32, lanes=(UPDATE, UPDATE)),
        Layout(modulus_bits=32, lanes=(replace(UPDATE, length=0),)),
        Layout(modulus_bits=32, lanes=(replace(UPDATE, clip=0.0),)),
        Layout(modulus_bits=32, lanes=(replace(UPDATE, clip=float("nan")),)),
        Layout(modulus_bits=32, lanes=(replace(UPDATE, scale=-1.0),)),
        Layout(modulus_bits=32, lanes=(replace(UPDATE, scale=float("inf")),)),
        Layout(modulus_bits=32, lanes=(replace(UPDATE, length=2**34),)),
    ],
)
def test_impossible_layouts_are_refused(layout):
    with pytest.raises(EncodingRefused):
        layout.check(3)


def test_a_layout_for_nobody_is_refused():
    with pytest.raises(EncodingRefused):
        LAYOUT.check(0)


def test_4_and_4_point_0_are_one_layout():
    whole = Layout(modulus_bits=32, lanes=(replace(UPDATE, clip=4, scale=1),))
    point = Layout(modulus_bits=32, lanes=(replace(UPDATE, clip=4.0, scale=1.0),))
    assert repr(whole.canonical()) == repr(point.canonical())


# --- sums ----------------------------------------------------------------------------------------------------------


def test_sums_are_decoded_when_they_are_asked_for_and_a_stretch_at_a_time():
    sums = decode(encode(VALUES, LAYOUT, DITHER), LAYOUT, survivors=1)
    assert list(sums) == ["update", "patients"]
    assert (len(sums), sums.length("update")) == (2, 3)
    assert sums.stretch("update", 1, 3).tolist() == [-0.25, 1.0]
    assert sums.stretch("update", 2, 99).tolist() == [1.0]
    mine = sums["update"]
    mine[:] = 7.0
    assert sums["update"].tolist() == [0.5, -0.25, 1.0]
    assert sums.get("nothing") is None


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_stretches_are_the_lane(bits):
    lane = Lane(name="x", length=1000, clip=1.0, scale=2.0**10)
    layout = Layout(modulus_bits=bits, lanes=(COUNT, lane))
    vector = np.random.default_rng(1).integers(0, 2**bits, 1002, dtype=layout.dtype)
    sums = decode(vector, layout)
    parts = [sums.stretch("x", start, start + 77) for start in range(0, 1000, 77)]
    signed = vector[2:].view(f"<i{bits // 8}").astype(np.float64)
    assert (np.concatenate(parts) == sums["x"]).all()
    assert (sums["x"] == signed / 2.0**10).all()
