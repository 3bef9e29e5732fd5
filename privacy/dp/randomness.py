"""Randomness that an adversary cannot search: AES-256 in counter mode under a key nobody writes down.

torch's CPU generator keeps 32 bits of its seed, so all of its noise can be tried in hours, and a seed that two sites
share gives them the same noise. Here every generator draws its own 32-byte key from `entropy` (the operating system's
in production), never tells it, and cannot be copied, pickled or carried into a forked process, because two owners of
one stream would add the same noise twice.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, NoReturn, TypeAlias, final

from privacy.keystream import SEED_BYTES, Keystream
from privacy.lazy_numpy import np
from privacy.secret import Secret

if TYPE_CHECKING:
    from numpy.typing import NDArray

Entropy: TypeAlias = Callable[[int], bytes]
"""`os.urandom` or its equal: called with a number of bytes, returns that many unpredictable ones."""

GENERATOR = "AES-256-CTR; Gaussian by Box-Muller in float64, rounded to a grid of 2^-32 standard deviations or finer"
"""How a certificate names what is below (with `mechanism.noisy`)."""

_PAIRS = 1 << 13  # made at a time by `gaussian`: one full piece of the keystream
_DIRECTION_BITS = 14


@cache
def _directions() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosine and sine of 2^14 angles, evenly around the circle."""
    angles = np.arange(2**_DIRECTION_BITS) * (2 * np.pi / 2**_DIRECTION_BITS)
    return np.cos(angles), np.sin(angles)


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
        return self._stream.words(count, np.dtype(np.uint64)).astype(np.uint64, copy=False)

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
        deviations; what lies beyond has probability 6e-21 and is far below any delta in use. The angle has 64 bits
        too: the first 14 choose one of 2^14 directions from a table, the others turn it by at most d = 1.92e-4 either
        way, for which sin d = d - d^3/6 and cos d = 1 - d^2/2 are right to 6e-17, less than float64 rounds. The
        lattice of float64 results is coarser than a real Gaussian's, therefore the caller rounds to a much coarser
        grid.

        Works in blocks that stay in the processor's cache: 7 million deviates cost about a tenth of a second.
        """
        cosines, sines = _directions()
        half = (count + 1) // 2
        out = np.empty(2 * half)
        for start in range(0, half, _PAIRS):
            stop = min(start + _PAIRS, half)
            words = self.words(2 * (stop - start))
            radius, turn = words[: stop - start].astype(np.float64), words[stop - start :]
            radius += 0.5
            radius *= 2.0**-64
            np.log(radius, out=radius)
            radius *= -2.0
            np.sqrt(radius, out=radius)
            radius *= std
            direction = (turn >> np.uint64(64 - _DIRECTION_BITS)).view(np.int64)
            small = (turn << np.uint64(_DIRECTION_BITS)).view(np.int64) * (2 * math.pi / 2.0 ** (64 + _DIRECTION_BITS))
            square = small * small
            sine = square * (-1 / 6)
            sine += 1.0
            sine *= small
            cosine = square
            cosine *= -0.5
            cosine += 1.0
            across, up = cosines.take(direction), sines.take(direction)
            first, second = out[start:stop], out[half + start : half + stop]
            np.multiply(across, cosine, out=first)
            first -= up * sine
            first *= radius
            np.multiply(up, cosine, out=second)
            across *= sine
            second += across
            second *= radius
        return out[:count]

    def __repr__(self) -> str:
        return "CryptographicGenerator()"

    def __copy__(self) -> NoReturn:
        raise TypeError("two copies of a generator would give the same noise")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("two copies of a generator would give the same noise")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a generator's key never leaves its process")
