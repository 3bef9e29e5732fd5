"""AES-256-CTR as a generator: any split, any offset, the same bytes."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privacy.keystream import CHUNK_BYTES, Keystream
from privacy.secret import Secret

SEED = Secret(bytes(range(32)))


def reference(size):
    return Cipher(algorithms.AES(SEED.expose()), modes.CTR(bytes(16))).encryptor().update(bytes(size))


def draw(size, offset=0):
    out = np.empty(size, dtype=np.uint8)
    Keystream(SEED, offset_bytes=offset).fill(out)
    return out.tobytes()


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 5])
def test_it_is_the_counter_mode_keystream(size):
    assert draw(size) == reference(size)


@pytest.mark.parametrize("offset", [0, 1, 15, 16, 31, 1000, CHUNK_BYTES + 3])
def test_it_can_start_anywhere(offset):
    assert draw(100, offset) == reference(offset + 100)[offset:]


def test_words_are_little_endian():
    words = Keystream(SEED).words(4, np.dtype("<u4"))
    assert [int(w) for w in words] == [int.from_bytes(reference(16)[i : i + 4], "little") for i in range(0, 16, 4)]


@pytest.mark.parametrize("seed", [b"", b"k" * 16, b"k" * 31, b"k" * 33])
def test_a_seed_of_another_length_is_refused(seed):
    with pytest.raises(ValueError, match="32 bytes"):
        Keystream(Secret(seed))


def test_a_negative_offset_is_refused():
    with pytest.raises(ValueError, match="offset"):
        Keystream(SEED, offset_bytes=-1)
