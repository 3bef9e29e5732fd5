"""Randomness that an adversary cannot search: AES-256 in counter mode under a key nobody writes down.

torch's CPU generator keeps 32 bits of its seed, so all of its noise can be tried in hours, and a seed that two sites
share gives them the same noise. Here every generator draws its own 32-byte key from `entropy` (the operating system's
in production), never tells it, and cannot be copied, pickled or carried into a forked process, because two owners of
one stream would add the same noise twice.
"""

import math
import os
from collections.abc import Callable
from typing import NoReturn, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from privacy.keystream import SEED_BYTES, Keystream
from privacy.secret import Secret

Entropy: TypeAlias = Callable[[int], bytes]
"""`os.urandom` or its equal: called with a number of bytes, returns that many unpredictable ones."""

GENERATOR = "AES-256-CTR; Gaussian by Box-Muller in float64, rounded to a grid of 2^-32 standard deviations or finer"
"""How a certificate names what is below (with `mechanism.noisy`)."""

_WORD = np.dtype(np.uint64)


@final
class CryptographicGenerator:
    """One stream of random bytes and the distributions made of it. Mutable: every draw moves it on."""

    __slots__ = ("_process", "_stream")

    def __init__(self, entropy: Entropy) -> None:
        self._stream = Keystream(Secret(entropy(SEED_BYTES)))
        self._process = os.getpid()

    def words(self, count: int) -> NDArray[np.uint64]:
        """`count` independent uniform 64-bit integers."""
        if os.getpid() != self._process:
            raise RuntimeError("a generator was carried into another process; make a new one there")
        return self._stream.words(count, _WORD).astype(np.uint64, copy=False)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """`count` floats in [0, 1): the 2^53 multiples of 2^-53, each as likely."""
        return (self.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def bernoulli(self, count: int, probability: float) -> NDArray[np.bool_]:
        """`count` independent coins that fall True with `probability`, exact to 2^-64.

        Every coin costs one word, whatever it shows, so the stream's position tells nothing about the outcome.
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability is between 0 and 1, not {probability}")
        words = self.words(count)
        if probability == 1:
            return np.ones(count, dtype=np.bool_)
        return words < np.uint64(math.floor(math.ldexp(probability, 64)))

    def choose(self, population: int, count: int) -> NDArray[np.int64]:
        """`count` of the indices 0 to population-1, every subset as likely, in increasing order.

        Indices are sorted by independent 64-bit keys; two keys collide with probability below population^2 / 2^65.
        """
        if not 0 <= count <= population:
            raise ValueError(f"cannot choose {count} of {population}")
        return np.sort(np.argsort(self.words(population), kind="stable")[:count])

    def gaussian(self, count: int, std: float) -> NDArray[np.float64]:
        """`count` independent normal deviates of mean 0 and standard deviation `std`.

        Box and Muller (1958) in float64. The radius comes from a full 64-bit word, so deviates reach 9.4 standard
        deviations; what lies beyond has probability 6e-21 and is far below any delta in use. The lattice of float64
        results is coarser than a real Gaussian's, therefore the caller rounds to a much coarser grid.
        """
        half = (count + 1) // 2
        words = self.words(2 * half)
        radius = np.sqrt(-2.0 * np.log((words[:half].astype(np.float64) + 0.5) * 2.0**-64))
        angle = (2 * math.pi * 2.0**-53) * (words[half:] >> np.uint64(11)).astype(np.float64)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count] * std

    def __repr__(self) -> str:
        return "CryptographicGenerator()"

    def __copy__(self) -> NoReturn:
        raise TypeError("two copies of a generator would give the same noise")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("two copies of a generator would give the same noise")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a generator's key never leaves its process")
