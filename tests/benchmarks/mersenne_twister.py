"""Masking as the common Python platforms do it, to compare with. It protects nothing: do not use it.

Stochastic quantisation, then one mask for each peer from numpy's Mersenne Twister: the 32-byte seed is folded into 32
bits, `randint` draws int64 below the modulus, the mask is added to the int64 update or subtracted from it, and the
modulus is taken at the end. Written from what those platforms publish, as whole-array numpy code: where they loop over
layers and lists this does not, so it is the faster form of their way.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MODULUS = 2**32
TARGET_RANGE = 2**22
CLIP = 8.0


def quantise(update: NDArray[np.float32]) -> NDArray[np.int32]:
    """Clip, shift to 0 .. 2 * CLIP, scale to 0 .. TARGET_RANGE, round up or down at random."""
    scaled = (np.clip(update, -CLIP, CLIP) + CLIP) * (TARGET_RANGE / (2 * CLIP))
    rounded: NDArray[np.int32] = np.ceil(scaled).astype(np.int32)
    rounded[np.random.rand(*rounded.shape) < rounded - scaled] -= 1  # noqa: NPY002 - as it is done there
    return rounded


def mask_of(seed: bytes, length: int) -> NDArray[np.int64]:
    """int64[length] below the modulus, from a seed whose 32-bit words are XORed into one."""
    folded = 0
    for start in range(0, len(seed), 4):
        folded ^= int.from_bytes(seed[start : start + 4], "little")
    generator = np.random.RandomState(folded)
    return generator.randint(0, MODULUS - 1, length, dtype=np.int64)


def masked(update: NDArray[np.float32], add: Sequence[bytes], subtract: Sequence[bytes]) -> NDArray[np.int64]:
    """The whole client: quantise, put every mask on, take the modulus."""
    vector: NDArray[np.int64] = quantise(update).astype(np.int64)
    for seed in add:
        vector = vector + mask_of(seed, len(vector))
    for seed in subtract:
        vector = vector - mask_of(seed, len(vector))
    return vector % MODULUS
