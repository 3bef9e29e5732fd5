"""Section 5: float updates <-> integers mod 2^b, and the proof that the sum over all sites cannot wrap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias

from privacy.errors import EncodingOverflow, EncodingRefused
from privacy.keystream import Keystream
from privacy.lazy_numpy import np
from privacy.secret import Secret

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Lanes: TypeAlias = Mapping[str, NDArray[np.float64]]
else:
    _Lanes = Mapping

RingVector: TypeAlias = "NDArray[np.unsignedinteger[Any]]"
"""Integers mod 2^b: uint16, uint32 or uint64, little-endian, one dimension."""

LENGTH_MAX = 2**33
"""No layout of more ring elements than this is accepted, whatever a plan says."""
LANES_MAX = 4096

_BLOCK = 1 << 15  # elements encoded at a time: what is computed on the way stays in a core's own cache
_FIXED_POINT_BOUND_MAX = 2**30  # integers of more bits leave no room for 32 binary places and the sign in 64
_RINGS = {16: "<u2", 32: "<u4", 64: "<u8"}
"""The numbers of bits a ring may have, and numpy's name for its integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A stretch of the masked vector whose values share one clip bound and one scale.

    A value v travels as the integer round(clip(v) * scale) mod 2^b. Counts use scale 1 and are exact: in a lane of
    scale 1 a value that is not whole, or is beyond the clip, is refused instead of being changed.
    """

    name: str
    length: int
    clip: float  # largest absolute value a site may contribute, in the value's own unit
    scale: float  # integers per unit

    @property
    def is_count(self) -> bool:
        """Whether the lane carries whole numbers, exactly."""
        return self.scale == 1

    @property
    def bound(self) -> int:
        """The largest absolute integer one site can contribute: C*S rounded up, so below C*S + 1."""
        return math.ceil(Fraction(self.clip) * Fraction(self.scale))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The lanes of one masked vector, in order, and the ring they live in."""

    modulus_bits: int  # 16, 32 or 64
    lanes: tuple[Lane, ...]

    @property
    def length(self) -> int:
        """How many ring elements a site uploads."""
        return sum(lane.length for lane in self.lanes)

    @property
    def size_bytes(self) -> int:
        """How many bytes a site uploads."""
        return self.length * self.modulus_bits // 8

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The little-endian unsigned dtype of the ring. Raises EncodingRefused for a ring that does not exist."""
        self._require_ring()
        return np.dtype(_RINGS[self.modulus_bits])

    def _require_ring(self) -> None:
        if self.modulus_bits not in _RINGS:
            raise EncodingRefused("(all)", f"modulus_bits {self.modulus_bits}", "16, 32 or 64")

    def canonical(self) -> dict[str, object]:
        """The record that digests and plans carry. Numbers are floats, so that 4 and 4.0 are one layout."""
        return {
            "modulus_bits": self.modulus_bits,
            "lanes": [[lane.name, lane.length, float(lane.clip), float(lane.scale)] for lane in self.lanes],
        }

    def check(self, participants: int) -> None:
        """Prove that the sum over `participants` sites cannot wrap, and that the layout makes sense.

        For every lane n * (C*S + 1) <= 2^(b-1) - 1, in exact arithmetic (the 1 is what stochastic rounding may add).

        Raises:
            EncodingRefused: an unknown ring, no lanes, a doubled name, a length, clip or scale that is not usable.
            EncodingOverflow: the inequality does not hold.
        """
        self._require_ring()
        room = 2 ** (self.modulus_bits - 1) - 1
        if participants < 1:
            raise EncodingRefused("(all)", f"{participants} participants", "1 or more")
        names = [lane.name for lane in self.lanes]
        if not 1 <= len(names) <= LANES_MAX or len(set(names)) != len(names):
            raise EncodingRefused("(all)", f"{len(names)} lanes", f"1 to {LANES_MAX} lanes with different names")
        for lane in self.lanes:
            if lane.length < 1:
                raise EncodingRefused(lane.name, f"length {lane.length}", "1 or more values")
            for value, what in ((lane.clip, "clip"), (lane.scale, "scale")):
                if not math.isfinite(value) or value <= 0:
                    raise EncodingRefused(lane.name, f"{what} {value}", "a finite number above 0")
            most = participants * (Fraction(lane.clip) * Fraction(lane.scale) + 1)
            if most > room:
                raise EncodingOverflow(lane.name, participants, f"{float(most):.6g}", f"{room} at most")
        if self.length > LENGTH_MAX:
            raise EncodingRefused("(all)", f"{self.length} values", f"{LENGTH_MAX} values at most")

    def stretches(self) -> Iterator[tuple[Lane, slice]]:
        """Every lane with its place in the vector, in order."""
        start = 0
        for lane in self.lanes:
            yield lane, slice(start, start + lane.length)
            start += lane.length


def lane_scale(participants: int, clip: float, bits: int) -> float:
    """The largest power of two S for which the sum of `participants` values within +-clip fits the ring.

    A power of two, so that multiplying and dividing by it are exact. At clip 1 and 32 bits it is 2^23 for 255 sites
    and 2^21 for 1000.

    Raises:
        EncodingOverflow: not even +clip, 0 and -clip could be told from each other.
    """
    if participants < 1 or not math.isfinite(clip) or clip <= 0 or bits not in _RINGS:
        raise EncodingRefused(
            "(scale)", f"{participants} participants, clip {clip}, {bits} bits", "n >= 1, clip > 0, 16, 32 or 64 bits"
        )
    largest = (Fraction(2 ** (bits - 1) - 1, participants) - 1) / Fraction(clip)
    too_many = EncodingOverflow("(scale)", participants, f"{participants} * (clip * scale + 1)", f"{bits} bits")
    if largest <= 0:
        raise too_many
    exponent = largest.numerator.bit_length() - largest.denominator.bit_length()  # 2^exponent is within a factor of 2
    scale = Fraction(2) ** exponent
    while scale > largest:
        scale /= 2
    if scale * Fraction(clip) < 1:
        raise too_many
    return float(scale)


def encode(values: Mapping[str, NDArray[Any]], layout: Layout, dither: Secret[bytes]) -> RingVector:
    """One site's values -> its encoded update, uint{16,32,64}[layout.length].

    Each value is clipped to +-clip, multiplied by the scale and rounded up with probability equal to its fraction (to
    within 2^-32), so that the expected encoded update is the clipped update. Integers stay exact.

    Args:
        values: one 1-D array of floats or integers per lane, by lane name, with the lane's length.
        layout: where each lane goes; it must have passed `Layout.check`.
        dither: the seed of the rounding; a fresh one for each attempt at a round, never revealed.

    Raises:
        EncodingRefused: a lane is missing, unknown, of the wrong length or kind, holds NaN or an infinity, or is a
            count lane and holds a fraction or a count beyond its clip. Nothing has been sent by then.
    """
    known = {lane.name for lane in layout.lanes}
    for name in values:
        if name not in known:
            raise EncodingRefused(name, "a lane that the layout does not have", ", ".join(sorted(known)))
    for lane in layout.lanes:
        if lane.name not in values:
            raise EncodingRefused(lane.name, "no values", f"{lane.length} numbers")
    vector = np.empty(layout.length, dtype=layout.dtype)
    rounding = _Rounding(dither, min(_BLOCK, max(lane.length for lane in layout.lanes)), layout.dtype)
    for lane, stretch in layout.stretches():
        _encode_lane(np.asarray(values[lane.name]), lane, vector[stretch], rounding)
    return vector


def _signed(ring: np.dtype[np.unsignedinteger[Any]]) -> np.dtype[np.signedinteger[Any]]:
    """Integers of the same size with a sign."""
    return np.dtype(f"<i{ring.itemsize}")


def _encode_lane(values: NDArray[Any], lane: Lane, out: RingVector, rounding: _Rounding) -> None:
    """Encode one lane in blocks, so that a 400 MB update needs no second copy in double precision."""
    if values.dtype.kind not in "fiu":
        raise EncodingRefused(lane.name, f"values of type {values.dtype}", "floats or integers")
    if values.shape != (lane.length,):
        raise EncodingRefused(lane.name, f"an array of shape {values.shape}", f"shape ({lane.length},)")
    signed = _signed(out.dtype)
    for start in range(0, lane.length, _BLOCK):
        block, into = values[start : start + _BLOCK], out[start : start + _BLOCK]
        if lane.is_count:
            into[:] = _counts(block, lane).astype(signed).view(out.dtype)
        else:
            rounding.into(into, block, lane)


class _Rounding:
    """Values -> ring elements by stochastic rounding, a block at a time.

    Mutable: the stream of the dither moves on by 4 bytes a value, and the buffers are used again for every block.
    """

    def __init__(self, dither: Secret[bytes], block: int, dtype: np.dtype[np.unsignedinteger[Any]]) -> None:
        self._signed = _signed(dtype)
        self._stream = Keystream(dither)
        self._scaled = np.empty(block, dtype=np.float64)
        self._fixed = np.empty(block, dtype="<i8")
        self._words = np.empty(block, dtype="<u4")

    def into(self, out: RingVector, block: NDArray[Any], lane: Lane) -> None:
        """Clip, scale, and round each value up with probability equal to its fraction.

        With w the next 32 random bits of the dither, the value x = clip(v) * scale is rounded up if w < 2^32 *
        (x - floor(x)). An integer has no fraction and stays; NaN and infinities are refused.
        """
        _check_finite(block, lane)
        words = self._words[: len(block)]
        self._stream.fill(words.view(np.uint8))
        factor = -lane.scale * 2.0**32
        if lane.bound > _FIXED_POINT_BOUND_MAX or not math.isfinite(factor):
            out[:] = _rounded_wide(block, lane, words).astype(self._signed).view(out.dtype)
            return
        # The same in fixed point with 32 binary places, where rounding up is a carry: for the integers
        # t = ceil(x * 2^32) and w, ceil((t - w) / 2^32) is floor(x) + 1 if w < t mod 2^32, else floor(x). Everything
        # is negated, because it is the floor of a quotient that the upper halves of 64-bit integers are.
        scaled, fixed = self._scaled[: len(block)], self._fixed[: len(block)]
        with np.errstate(over="ignore"):  # what is too large for a double is clipped all the same
            np.multiply(block, factor, out=scaled, dtype=np.float64)
        largest = lane.clip * -factor
        np.clip(scaled, -largest, largest, out=scaled)
        np.floor(scaled, out=scaled)
        np.copyto(fixed, scaled, casting="unsafe")  # whole numbers of at most 2^62: exact
        np.add(fixed, words, out=fixed)
        if out.dtype.itemsize == 8:
            fixed >>= 32
            np.negative(fixed.view(out.dtype), out=out)
        else:  # the ring's bits begin at bit 32
            narrow = fixed.view(out.dtype)
            np.negative(narrow[4 // out.dtype.itemsize :: 8 // out.dtype.itemsize], out=out)


def _check_finite(block: NDArray[Any], lane: Lane) -> None:
    """Raise EncodingRefused for NaN and infinities. A sum is finite only if every term is, and quicker to come by."""
    if block.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(block.sum()):
            return
    if not np.isfinite(block).all():
        raise EncodingRefused(lane.name, "NaN or an infinity", "finite numbers")


def _rounded_wide(block: NDArray[Any], lane: Lane, words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The rounding for lanes whose integers leave no room for 32 binary places in 64 bits."""
    scaled = block.astype(np.float64)
    np.clip(scaled, -lane.clip, lane.clip, out=scaled)
    scaled *= lane.scale
    lower = np.floor(scaled)
    fraction = scaled - lower  # exact; adding a uniform to a large value instead would round
    up = words < fraction * 2.0**32
    # The product above may round to just beyond C*S when it passes 2^53: the bound that `check` proved must hold.
    rounded: NDArray[np.int64] = np.clip(lower.astype(np.int64) + up, -lane.bound, lane.bound)
    return rounded


def _counts(block: NDArray[Any], lane: Lane) -> NDArray[np.int64]:
    """Whole numbers within the clip, unchanged; anything else is refused."""
    if block.dtype.kind == "f":
        if not np.isfinite(block).all():
            raise EncodingRefused(lane.name, "NaN or an infinity", "finite numbers")
        if (block != np.floor(block)).any():
            raise EncodingRefused(lane.name, "a fraction", "whole numbers (the lane's scale is 1)")
    largest = math.floor(lane.clip)
    if block.size and (int(block.max()) > largest or int(block.min()) < -largest):
        found = max(abs(int(block.max())), abs(int(block.min())))
        raise EncodingRefused(lane.name, f"a count of {found}", f"{largest} at most")
    return block.astype(np.int64)


class Sums(_Lanes):
    """The sum over the survivors, lane by lane in each lane's own unit. A lane is decoded when it is asked for.

    A mapping from lane names to float64[lane.length]. Of a large lane, ask for a `stretch` at a time: nothing is kept
    in double precision. The aggregate is not copied, and whoever made this must not change it any more.
    """

    __slots__ = ("_integers", "_places")

    def __init__(self, integers: NDArray[np.signedinteger[Any]], layout: Layout) -> None:
        self._integers = integers
        self._places = {lane.name: (lane, stretch) for lane, stretch in layout.stretches()}

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """A whole lane, float64[lane.length]."""
        lane, _ = self._places[name]
        return self.stretch(name, 0, lane.length)

    def __iter__(self) -> Iterator[str]:
        """The names of the lanes, in the layout's order."""
        return iter(self._places)

    def __len__(self) -> int:
        """How many lanes there are."""
        return len(self._places)

    def length(self, name: str) -> int:
        """How many elements a lane has."""
        return self._places[name][0].length

    def stretch(self, name: str, start: int, stop: int) -> NDArray[np.float64]:
        """Elements `start` to `stop` (not included) of a lane, as an array of their own."""
        lane, place = self._places[name]
        sums: NDArray[np.float64] = self._integers[place][start:stop].astype(np.float64)
        sums /= lane.scale
        return sums


def decode(aggregate: RingVector, layout: Layout, *, survivors: int | None = None) -> Sums:
    """The unmasked sum -> float64 sums by lane name, in each lane's own unit, not yet computed (see `Sums`).

    A ring element x stands for the integer of least absolute value that is x mod 2^b. Sums of counts are exact up to
    2^53.

    Args:
        aggregate: uint{16,32,64}[layout.length], after every mask was removed.
        layout: the layout it was encoded with.
        survivors: how many sites are in the sum; given, a sum that so many sites cannot have made is refused: the
            masks did not cancel.

    Raises:
        EncodingRefused: wrong ring, wrong length, or an impossible sum.
    """
    check_ring(aggregate, layout)
    integers = np.ascontiguousarray(aggregate).view(_signed(layout.dtype))
    if survivors is not None:
        for lane, place in layout.stretches():
            lane_sum, most = integers[place], survivors * lane.bound
            if int(lane_sum.max()) > most or int(lane_sum.min()) < -most:
                raise EncodingRefused(lane.name, "a sum that cannot be", f"{most} at most for {survivors} survivors")
    return Sums(integers, layout)


def check_ring(vector: RingVector, layout: Layout) -> None:
    """Raise EncodingRefused unless `vector` has the layout's dtype and length and one dimension."""
    if vector.dtype != layout.dtype:
        raise EncodingRefused("(all)", f"a vector of {vector.dtype}", f"{layout.dtype}")
    if vector.shape != (layout.length,):
        raise EncodingRefused("(all)", f"a vector of shape {vector.shape}", f"shape ({layout.length},)")
