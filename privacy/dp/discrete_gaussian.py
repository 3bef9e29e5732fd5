"""Discrete Gaussian integers: each site's share of the noise in distributed DP, and exact in the sense below.

Pr[x] is proportional to exp(-x^2 / (2 std^2)) over all integers (Canonne, Kamath, Steinke 2020). Shares are wide, 2^8
to 2^40 grid spacings, so a table of outcomes is out of the question; drawn is a strip, then a place in it, as in
Ducas, Durmus, Lepoint, Lyubashevsky (CRYPTO 2013, section 6):

1. With t a power of two, the magnitudes are cut into 1024 strips [t V, t V + t). V is drawn with probability
   proportional to exp(-(t V)^2 / (2 std^2)), the most that any magnitude in the strip weighs, by Walker's alias method.
2. A place U in the strip is log2(t) random bits, and a sign is one bit. Negative magnitudes are moved by one, so
   that zero is drawn once: a = U + sign.
3. The draw stands with probability exp(-a (2 t V + a) / (2 std^2)), 0.98 on average, otherwise all three begin again.

Both comparisons with a probability are made first in 64-bit arithmetic, which decides unless the random bits fall
within its rounding error of the boundary; then (less than once in 10^7 draws) further random words and 80 decimal
digits decide. So floating point never shapes the distribution. What is left: strip probabilities are whole multiples
of 2^-256, an acceptance is compared to at least 155 bits, and magnitudes beyond 32 standard deviations are not drawn
(probability below 2^-730): in total variation at most `ERROR_PER_DRAW`.

Does not hide: how long it takes, which depends on how many draws were begun again, not on their values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from privacy.dp.randomness import CryptographicGenerator
from privacy.errors import LocalProtocolError
from privacy.lazy_numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

GENERATOR = "AES-256-CTR; discrete Gaussian by rejection from strips, total variation below 2^-140 a draw"
"""How a certificate names what is below."""

ERROR_PER_DRAW = 2.0**-140
"""Upper bound on the total variation distance between one draw and the discrete Gaussian."""

STD_MIN, STD_MAX = 0.25, 2.0**41

_STRIPS_BITS = 10
_STRIPS = 1 << _STRIPS_BITS
_COARSE = 64 - _STRIPS_BITS  # bits of a word that are compared with a column's threshold
_FINE = 192  # further bits of the threshold, looked at when those are equal
_PLACE_BITS = 4  # strips are std / 32 to std / 16 wide
_BLOCK = 1 << 14  # draws at a time: what a block needs stays in the core's own cache
_DIGITS = Context(prec=80, Emin=-(10**15), Emax=10**15)

_More: TypeAlias = "Callable[[int], NDArray[np.uint64]]"


def discrete_gaussian(generator: CryptographicGenerator, count: int, std: float) -> NDArray[np.int64]:
    """`count` independent discrete Gaussians of mean 0.

    Args:
        generator: Where every random bit comes from; two words a draw and a few more.
        count: 0 or more.
        std: STD_MIN to STD_MAX, in grid spacings: the parameter of the distribution, which from 2 on is its standard
            deviation to 17 digits.

    Returns:
        int64[count].

    Raises:
        LocalProtocolError: A standard deviation or a count out of range.
    """
    if not STD_MIN <= std <= STD_MAX:
        raise LocalProtocolError(f"std must be {STD_MIN:g} to {STD_MAX:g} grid spacings", str(std))
    if count < 0:
        raise LocalProtocolError("a count of draws is 0 or more", str(count))
    strips = _strips(float(std))
    result = np.empty(count, dtype=np.int64)
    filled = 0
    while filled < count:
        # A little more than is missing, because some draws begin again.
        wanted = min(_BLOCK, count - filled + (count - filled) // strips.spare + 4)
        words = generator.words(2 * wanted)
        drawn = draws_of(words[:wanted], words[wanted:], strips, generator.words)[: count - filled]
        result[filled : filled + len(drawn)] = drawn
        filled += len(drawn)
    return result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Strips:
    """What one standard deviation needs, computed once."""

    std: float
    place_bits: int  # t = 2^place_bits
    accept_bits: int  # of a word's upper bits, compared with the acceptance probability
    spare: int  # one draw in so many, or fewer, begins again
    threshold: NDArray[np.int64]  # [1024]: upper 54 bits
    fine: tuple[int, ...]  # [1024]: the 192 bits below them
    alias: NDArray[np.int64]  # [1024]


def draws_of(first: NDArray[np.uint64], second: NDArray[np.uint64], strips: Strips, more: _More) -> NDArray[np.int64]:
    """Two words a draw -> the draws that stand, in order.

    Args:
        first: uint64[n]: 10 bits of column, 54 bits to compare with the column's threshold.
        second: uint64[n]: from below, the place, the sign, bits that are not used, and `accept_bits` of acceptance.
        strips: For the standard deviation.
        more: Further random words, for draws that 64 bits do not decide.
    """
    column = (first >> np.uint64(_COARSE)).view(np.int64)
    low = (first & np.uint64((1 << _COARSE) - 1)).view(np.int64)
    threshold = strips.threshold[column]
    start = np.where(low < threshold, column, strips.alias[column])
    start <<= strips.place_bits
    sign = (second >> np.uint64(strips.place_bits)).view(np.int64) & 1
    beyond = (second & np.uint64((1 << strips.place_bits) - 1)).view(np.int64) + sign
    bits = (second >> np.uint64(64 - strips.accept_bits)).view(np.int64)

    magnitude = start + beyond
    start += magnitude  # 2 t V + a
    exponent = np.multiply(beyond, start, dtype=np.float64)
    exponent *= -0.5 / strips.std**2
    # The bits stand for a number between bits and bits+1, the exact probability lies within `margin` of this one.
    gap = np.ldexp(np.exp(exponent), strips.accept_bits) - bits
    margin = 2.0**-4
    stands = gap >= 1 + margin
    unsure = np.flatnonzero((low == threshold) | ((gap > -margin) & ~stands))
    np.negative(magnitude, out=magnitude, where=sign.astype(np.bool_))
    for index in unsure:
        exact = exact_draw(int(first[index]), int(second[index]), strips, more)
        stands[index] = exact is not None
        magnitude[index] = exact or 0
    kept: NDArray[np.int64] = magnitude[stands]
    return kept


def exact_draw(first: int, second: int, strips: Strips, more: _More) -> int | None:
    """One draw decided with further random words and integer arithmetic; None if it begins again."""
    column, low = first >> _COARSE, first & ((1 << _COARSE) - 1)
    threshold = int(strips.threshold[column])
    below = low < threshold or (low == threshold and _join(more(_FINE // 64)) < strips.fine[column])
    start = (column if below else int(strips.alias[column])) << strips.place_bits
    sign = second >> strips.place_bits & 1
    beyond = (second & ((1 << strips.place_bits) - 1)) + sign
    bits = second >> (64 - strips.accept_bits) << 128 | _join(more(2))
    twice_variance = _DIGITS.multiply(Decimal(2), _DIGITS.multiply(Decimal(strips.std), Decimal(strips.std)))
    exponent = _DIGITS.divide(Decimal(-beyond * (2 * start + beyond)), twice_variance)
    probability = _DIGITS.exp(exponent)
    if Decimal(bits) >= _DIGITS.multiply(probability, Decimal(2 ** (strips.accept_bits + 128))):
        return None
    return -(start + beyond) if sign else start + beyond


@lru_cache(maxsize=64)
def _strips(std: float) -> Strips:
    """Weights of the strips and their alias table, in integers of 256 bits."""
    place_bits = max(0, int(np.frexp(std)[1]) - 1 - _PLACE_BITS)
    weights = _weights(std, place_bits)
    capacity = 1 << (_COARSE + _FINE)  # of a column
    columns = _shares_of(weights, capacity * _STRIPS)
    threshold, alias = _alias_table(columns, capacity)
    area = float(np.sum([float(weight) for weight in weights])) * 2.0**place_bits * 2
    accepted = std * float(np.sqrt(2 * np.pi)) / area
    return Strips(
        std=std,
        place_bits=place_bits,
        accept_bits=min(63 - place_bits, 40),
        spare=max(1, int(0.8 / max(1e-3, 1 - accepted))),
        threshold=np.array([value >> _FINE for value in threshold], dtype=np.int64),
        fine=tuple(value & ((1 << _FINE) - 1) for value in threshold),
        alias=np.array(alias, dtype=np.int64),
    )


def _weights(std: float, place_bits: int) -> list[Decimal]:
    """exp(-(t V)^2 / (2 std^2)) for every strip, each from the one before it."""
    variance = _DIGITS.multiply(Decimal(std), Decimal(std))
    unit = _DIGITS.divide(Decimal(-(1 << 2 * place_bits)), _DIGITS.multiply(Decimal(2), variance))
    factor, ratio = _DIGITS.exp(unit), _DIGITS.exp(_DIGITS.multiply(Decimal(2), unit))
    weights = [Decimal(1)]
    for _ in range(_STRIPS - 1):
        weights.append(_DIGITS.multiply(weights[-1], factor))
        factor = _DIGITS.multiply(factor, ratio)
    return weights


def _shares_of(weights: list[Decimal], total: int) -> list[int]:
    """Whole numbers that sum to `total`, proportional to the weights; what rounding leaves goes to the largest."""
    whole = sum(int(_DIGITS.multiply(weight, Decimal(total))) for weight in weights)
    shares = [int(_DIGITS.multiply(weight, Decimal(total))) * total // whole for weight in weights]
    shares[0] += total - sum(shares)
    return shares


def _alias_table(shares: list[int], capacity: int) -> tuple[list[int], list[int]]:
    """Walker's table: column j keeps strip j below its threshold and gives strip alias[j] above it.

    Whole numbers throughout, so every strip gets exactly its share of capacity * len(shares).
    """
    left = list(shares)
    threshold, alias = [capacity] * len(shares), list(range(len(shares)))
    small = [j for j, share in enumerate(left) if share < capacity]
    large = [j for j, share in enumerate(left) if share >= capacity]
    while small:
        poor, rich = small.pop(), large[-1]
        threshold[poor], alias[poor] = left[poor], rich
        left[rich] -= capacity - left[poor]
        if left[rich] < capacity:
            small.append(large.pop())
    return threshold, alias


def _join(words: NDArray[np.uint64]) -> int:
    """Words -> one integer, the first uppermost."""
    return int.from_bytes(words.astype(">u8").tobytes(), "big")
