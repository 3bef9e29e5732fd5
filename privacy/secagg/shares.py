"""Shamir's t-of-n secret sharing of 32-byte secrets, and recovery when some of the shares are wrong.

Protocol section 4.1. The field is GF(p) with p = 2^256 + 297, a prime, so that every 32-byte string is one element and
a share takes 33 bytes. The share of participant number x (counted from 1 in the sorted roster) is f(x), where f is a
polynomial of degree t - 1 with f(0) the secret and all other coefficients uniform: t - 1 shares are consistent with
every secret.

The functions on integers take the prime as an argument, so that the last sentence can be tested exhaustively.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from privacy.errors import LocalProtocolError, PrivacyError
from privacy.keystream import Keystream
from privacy.lazy_numpy import np
from privacy.secret import Secret

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33

SUBSETS_MAX = 4096
"""How many t-subsets are tried, at most, when more shares are wrong than decoding can correct."""


class SharesDisagree(PrivacyError):
    """The shares at hand do not determine a secret that passes its check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A secret, and the numbers of the shares that certainly do not belong to it, sorted."""

    secret: Secret[bytes]
    wrong: tuple[int, ...]


# --- integers mod a prime ------------------------------------------------------------------------------------------


def evaluate(coefficients: Sequence[int], x: int, prime: int = PRIME) -> int:
    """The polynomial's value at x, lowest coefficient first."""
    total = 0
    for coefficient in reversed(coefficients):
        total = (total * x + coefficient) % prime
    return total


def interpolate(points: Sequence[tuple[int, int]], at: int = 0, prime: int = PRIME) -> int:
    """The value at `at` of the polynomial of least degree through `points`, whose x must all differ."""
    xs = tuple(x for x, _ in points)
    if len(set(xs)) != len(xs):
        raise SharesDisagree(f"two shares with one number among {sorted(xs)}")
    return sum(weight * y for weight, (_, y) in zip(_weights(xs, at, prime), points, strict=True)) % prime


@lru_cache(maxsize=1024)
def _weights(xs: tuple[int, ...], at: int, prime: int) -> tuple[int, ...]:
    """Lagrange's weights. Cached: in one round the same survivors give shares of every secret."""
    weights = []
    for x in xs:
        above = below = 1
        for other in xs:
            if other != x:
                above = above * (at - other) % prime
                below = below * (x - other) % prime
        weights.append(above * pow(below, -1, prime) % prime)
    return tuple(weights)


# --- secrets and shares as bytes -----------------------------------------------------------------------------------


def split(secret: Secret[bytes], *, threshold: int, count: int, seed: Secret[bytes]) -> tuple[Secret[bytes], ...]:
    """32 secret bytes -> `count` shares of 33 bytes, of which any `threshold` give the secret back.

    Args:
        secret: what is shared.
        threshold: how many shares are needed, 1 to count.
        count: how many shares are made; share number x is element x - 1 of the result.
        seed: 32 bytes that determine the random coefficients. Used for this secret only, and never revealed.

    Raises:
        LocalProtocolError: a secret of another length or an impossible threshold.
    """
    size_bytes = len(secret.expose())
    if size_bytes != SECRET_BYTES:
        raise LocalProtocolError(f"a shared secret has {SECRET_BYTES} bytes", f"{size_bytes} bytes")
    if not 1 <= threshold <= count:
        raise LocalProtocolError("a threshold lies between 1 and the number of shares", f"{threshold} of {count}")
    coefficients = Secret([int.from_bytes(secret.expose(), "big"), *_uniform_elements(seed, threshold - 1)])
    return tuple(Secret(evaluate(coefficients.expose(), x).to_bytes(SHARE_BYTES, "big")) for x in range(1, count + 1))


def recover(
    shares: Sequence[tuple[int, bytes]], *, threshold: int, accepts: Callable[[Secret[bytes]], bool]
) -> Recovered:
    """The secret that `accepts` (a comparison with its commitment), though some shares may be wrong.

    With m shares it always succeeds if at most (m - t) / 2 are wrong (decoding as a Reed-Solomon code); beyond that
    it tries t-subsets, `SUBSETS_MAX` of them at most, which is all of them for up to 14 participants.

    Shares are called wrong only if at most (m - t + 1) / 2 are: then no other polynomial through the accepted secret
    fits as many. More liars than that could choose their shares so that honest ones look wrong, so nobody is named.

    Args:
        shares: (number, share) pairs, in the order in which they are trusted.
        threshold: t.
        accepts: whether a candidate is the secret that its owner committed to.

    Raises:
        SharesDisagree: no candidate was accepted, or a share is malformed, or a number appears twice.
    """
    points = [(x, share_value(share)) for x, share in shares]
    if len({x for x, _ in points}) != len(points):
        raise SharesDisagree(f"two shares with one number among {sorted(x for x, _ in points)}")
    if len(points) < threshold:
        raise SharesDisagree(f"{len(points)} shares where {threshold} are needed")
    for basis in _bases(points, threshold):
        value = interpolate(basis)
        if value >> (8 * SECRET_BYTES):
            continue
        secret = Secret(value.to_bytes(SECRET_BYTES, "big"))
        if accepts(secret):
            return Recovered(secret=secret, wrong=_wrong_for_certain(points, basis, value, threshold))
    raise SharesDisagree(f"no {threshold} of {len(points)} shares give the secret that was committed to")


def _wrong_for_certain(
    points: Sequence[tuple[int, int]], basis: Sequence[tuple[int, int]], value: int, threshold: int
) -> tuple[int, ...]:
    """The shares off the polynomial through f(0) = value that fits most shares, if there is only one such."""
    most = (len(points) - threshold + 1) // 2
    off = [x for x, y in points if interpolate(basis, x) != y]
    if len(off) > most:
        polynomial = correct_errors([(0, value), *points], threshold)
        if polynomial is None or evaluate(polynomial, 0) != value:
            return ()
        off = [x for x, y in points if evaluate(polynomial, x) != y]
    return tuple(sorted(off)) if len(off) <= most else ()


def share_value(share: bytes) -> int:
    """33 big-endian bytes -> a field element; raises SharesDisagree for anything else."""
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise SharesDisagree(f"a share is {SHARE_BYTES} bytes below the prime of the field, not {len(share)} bytes")
    return value


def _uniform_elements(seed: Secret[bytes], count: int) -> list[int]:
    """`count` field elements from 64 bytes of keystream each: 2^-255 away from uniform."""
    if not count:
        return []
    raw = np.empty(64 * count, dtype=np.uint8)
    Keystream(seed).fill(raw)
    data = raw.tobytes()
    return [int.from_bytes(data[i : i + 64], "big") % PRIME for i in range(0, len(data), 64)]


def _bases(points: Sequence[tuple[int, int]], threshold: int) -> Iterable[Sequence[tuple[int, int]]]:
    """Sets of t points to interpolate from, the most promising first."""
    yield points[:threshold]
    corrected = correct_errors(points, threshold)
    if corrected is not None:
        yield [(x, evaluate(corrected, x)) for x, _ in points[:threshold]]
    if math.comb(len(points), threshold) <= SUBSETS_MAX:
        yield from combinations(points, threshold)


# --- Reed-Solomon decoding after Gao (2003) ------------------------------------------------------------------------


def correct_errors(points: Sequence[tuple[int, int]], threshold: int, prime: int = PRIME) -> list[int] | None:
    """The polynomial of degree below t that passes through all but (m - t) / 2 of the m points, or None.

    Gao's algorithm: run Euclid's algorithm on prod(x - x_i) and the interpolant of all points until the remainder's
    degree falls below (m + t) / 2; the quotient of remainder and cofactor is the polynomial.
    """
    product, interpolant = _product_and_interpolant(points, prime)
    before, now = product, interpolant
    cofactor_before: list[int] = []
    cofactor: list[int] = [1]
    while 2 * (len(now) - 1) >= len(points) + threshold:
        quotient, remainder = _divide(before, now, prime)
        before, now = now, remainder
        cofactor_before, cofactor = cofactor, _subtract(cofactor_before, _multiply(quotient, cofactor, prime), prime)
    polynomial, rest = _divide(now, cofactor, prime)
    return polynomial if not rest and len(polynomial) <= threshold else None


def _product_and_interpolant(points: Sequence[tuple[int, int]], prime: int) -> tuple[list[int], list[int]]:
    """prod(x - x_i), and the polynomial through all points, built up point by point (Newton)."""
    product, interpolant = [1], list[int]()
    for x, y in points:
        step = (y - evaluate(interpolant, x, prime)) * pow(evaluate(product, x, prime), -1, prime) % prime
        interpolant = _subtract(interpolant, [-step * c % prime for c in product], prime)
        product = _multiply(product, [-x % prime, 1], prime)
    return product, interpolant


def _trim(polynomial: list[int]) -> list[int]:
    while polynomial and not polynomial[-1]:
        polynomial.pop()
    return polynomial


def _subtract(left: Sequence[int], right: Sequence[int], prime: int) -> list[int]:
    size = max(len(left), len(right))
    a = [*left, *([0] * (size - len(left)))]
    b = [*right, *([0] * (size - len(right)))]
    return _trim([(u - v) % prime for u, v in zip(a, b, strict=True)])


def _multiply(left: Sequence[int], right: Sequence[int], prime: int) -> list[int]:
    if not left or not right:
        return []
    out = [0] * (len(left) + len(right) - 1)
    for i, u in enumerate(left):
        for j, v in enumerate(right):
            out[i + j] = (out[i + j] + u * v) % prime
    return _trim(out)


def _divide(dividend: Sequence[int], divisor: Sequence[int], prime: int) -> tuple[list[int], list[int]]:
    """Quotient and remainder of polynomials; the divisor is not zero."""
    rest = list(dividend)
    inverse = pow(divisor[-1], -1, prime)
    quotient = [0] * max(0, len(rest) - len(divisor) + 1)
    for place in reversed(range(len(quotient))):
        factor = rest[place + len(divisor) - 1] * inverse % prime
        quotient[place] = factor
        for i, coefficient in enumerate(divisor):
            rest[place + i] = (rest[place + i] - factor * coefficient) % prime
    return _trim(quotient), _trim(rest)
