"""Section 4.2: masks are what the formula says, in every ring, and cancel."""

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privacy.encoding import Lane, Layout
from privacy.errors import EncodingRefused, LocalProtocolError
from privacy.secagg.masks import MaskSeeds, RunningSum, apply_masks, vector_hash
from privacy.secret import Secret

A, B, C = (Secret(bytes([i]) * 32) for i in (1, 2, 3))
SEEDS = MaskSeeds(add=(A, B), subtract=(C,))
RINGS = ["<u2", "<u4", "<u8"]


def stream(seed, count, dtype):
    width = np.dtype(dtype).itemsize
    raw = Cipher(algorithms.AES(seed.expose()), modes.CTR(bytes(16))).encryptor().update(bytes(count * width))
    return np.frombuffer(raw, dtype=dtype)


def layout(length, bits=32):
    return Layout(modulus_bits=bits, lanes=(Lane(name="x", length=length, clip=1.0, scale=2.0),))


@pytest.mark.parametrize("dtype", RINGS)
def test_the_formula(dtype):
    vector = np.arange(1000, dtype=dtype)
    apply_masks(vector, SEEDS)
    expected = np.arange(1000, dtype=dtype) + stream(A, 1000, dtype) + stream(B, 1000, dtype) - stream(C, 1000, dtype)
    assert (vector == expected).all()
    apply_masks(vector, SEEDS.inverse())
    assert (vector == np.arange(1000, dtype=dtype)).all()


def test_no_masks_and_no_elements():
    vector = np.arange(3, dtype="<u4")
    apply_masks(vector, MaskSeeds(add=(), subtract=()))
    assert vector.tolist() == [0, 1, 2]
    apply_masks(np.empty(0, dtype="<u4"), SEEDS)


@pytest.mark.parametrize(
    "vector", [np.zeros(4, np.int32), np.zeros((2, 2), np.uint32), np.zeros(8, np.uint32)[::2], np.zeros(4)]
)
def test_what_cannot_be_masked(vector):
    with pytest.raises(LocalProtocolError):
        apply_masks(vector, SEEDS)


def test_the_hash_is_that_of_the_bytes_sent():
    vector = np.arange(5, dtype="<u4")
    assert vector_hash(vector) == hashlib.sha256(vector.tobytes()).digest()


# --- the running sum -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_vectors_and_chunks_of_any_size_add_up(bits):
    total = RunningSum(layout(100, bits))
    vector = np.arange(100, dtype=f"<u{bits // 8}") * 641
    total.add(vector)
    raw = vector.tobytes()
    for size in (1, 3, 7, 64, 10_000):
        total.add(raw[i : i + size] for i in range(0, len(raw), size))
    total.add([memoryview(raw), b""])
    assert total.count == 7
    assert (total.result == vector * 7).all()
    total.remove(SEEDS)
    total.remove(SEEDS.inverse())
    assert (total.result == vector * 7).all()


def test_the_result_cannot_be_written_to():
    total = RunningSum(layout(3))
    with pytest.raises(ValueError, match="read-only"):
        total.result[0] = 1


@pytest.mark.parametrize("vector", [np.zeros(9, np.uint32), np.zeros(11, np.uint32), np.zeros(10, np.uint64)])
def test_a_vector_of_another_ring_or_length_changes_nothing(vector):
    total = RunningSum(layout(10))
    with pytest.raises(EncodingRefused):
        total.add(vector)
    assert total.count == 0
    assert not total.result.any()


@pytest.mark.parametrize("size", [0, 39, 41, 44])
def test_chunks_of_another_length_spoil_the_sum_for_good(size):
    total = RunningSum(layout(10))
    with pytest.raises(LocalProtocolError):
        total.add(iter([bytes(size)]))
    for use in (lambda: total.result, lambda: total.remove(SEEDS), lambda: total.add(np.zeros(10, np.uint32))):
        with pytest.raises(LocalProtocolError, match="half an upload"):
            use()


def test_chunks_that_cannot_be_read_spoil_the_sum():
    def chunks():
        yield bytes(20)
        raise OSError("disk")

    total = RunningSum(layout(10))
    with pytest.raises(OSError, match="disk"):
        total.add(chunks())
    with pytest.raises(LocalProtocolError):
        _ = total.result
