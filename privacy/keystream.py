"""A 32-byte seed -> as many unpredictable bytes as needed, from any offset: AES-256 in counter mode.

Every seed is derived for one purpose under one label and used as a key once, so the counter starts at zero. The full
256 bits of the seed are the key: a generator that folds its seed to 32 bits can be searched in minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from privacy.lazy_numpy import np
from privacy.secret import Secret

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED_BYTES = 32
CHUNK_BYTES = 128 * 1024
"""How much is produced at a time. Three such pieces (zeros, keystream, the vector it goes onto) fit the cache that a
core has to itself, and what a call costs is a few percent of the cipher's own time."""

_BLOCK_BYTES = 16
_ZEROS = memoryview(bytes(CHUNK_BYTES))


class Keystream:
    """The bytes of one seed, in order, from `offset_bytes` on. Any split into calls gives the same bytes."""

    __slots__ = ("_encryptor",)

    def __init__(self, seed: Secret[bytes], *, offset_bytes: int = 0) -> None:
        if len(seed.expose()) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed.expose())}")
        if offset_bytes < 0:
            raise ValueError("a keystream starts at offset 0")
        block, within = divmod(offset_bytes, _BLOCK_BYTES)
        self._encryptor = Cipher(AES256(seed.expose()), CTR(block.to_bytes(_BLOCK_BYTES, "big"))).encryptor()
        self._encryptor.update(_ZEROS[:within])

    def fill(self, out: NDArray[np.uint8]) -> None:
        """Overwrite `out` (uint8, contiguous, writable) with the next len(out) bytes.

        The lock of the interpreter is released while the cipher runs.
        """
        if len(out) == CHUNK_BYTES:  # the case that is timed: nothing is sliced
            self._encryptor.update_into(_ZEROS, out.data)
            return
        target = out.data
        for start in range(0, len(target), CHUNK_BYTES):
            part = target[start : start + CHUNK_BYTES]
            self._encryptor.update_into(_ZEROS[: len(part)], part)

    def words(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The next `count` numbers of an unsigned dtype, read little-endian."""
        raw = np.empty(count * dtype.itemsize, dtype=np.uint8)
        self.fill(raw)
        return raw.view(dtype.newbyteorder("<"))
