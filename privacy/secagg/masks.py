"""Phase "mask": seed -> mask vector, and the sign rule that makes pairwise masks cancel.

Protocol section 4.2; Bonawitz et al., CCS 2017, figure 4 (masked input collection). A masked update is

    y_i = q_i + PRG(self_i) + sum over j > i of PRG(s_ij) - sum over j < i of PRG(s_ij)      mod 2^b

so over the sites of a pair the two PRG(s_ij) cancel, and what is left is removed in phase "unmask". The generator is
AES-256 in counter mode: 16-byte blocks read as little-endian ring elements, one seed for one vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from privacy.encoding import Layout, RingVector, check_ring, encode
from privacy.errors import LocalProtocolError
from privacy.keystream import CHUNK_BYTES, Keystream
from privacy.lazy_numpy import np
from privacy.secret import Secret

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSeeds:
    """The masks to put on a vector, or to take off a sum: 32-byte seeds whose streams are added or subtracted."""

    add: tuple[Secret[bytes], ...]
    subtract: tuple[Secret[bytes], ...]

    def inverse(self) -> MaskSeeds:
        """The seeds that undo these."""
        return MaskSeeds(add=self.subtract, subtract=self.add)


class MaskStreams:
    """Every mask of one vector, put on from its first element (or a later one) to its last, a stretch at a time.

    Mutable: the streams move on with each call. Any split of the vector into stretches gives the same masks.
    Memory: one chunk, whatever the number of seeds. A chunk of the vector stays in the cache while every seed passes
    over it.
    """

    __slots__ = ("_added", "_mask", "_raw", "_subtracted")

    def __init__(
        self,
        seeds: MaskSeeds,
        dtype: np.dtype[np.unsignedinteger[Any]],
        *,
        first_element: int = 0,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        offset_bytes = first_element * dtype.itemsize
        self._added = [Keystream(seed, offset_bytes=offset_bytes) for seed in seeds.add]
        self._subtracted = [Keystream(seed, offset_bytes=offset_bytes) for seed in seeds.subtract]
        self._mask: RingVector = np.empty(max(1, chunk_bytes // dtype.itemsize), dtype=dtype)
        self._raw: NDArray[np.uint8] = self._mask.view(np.uint8)

    def apply(self, stretch: RingVector) -> None:
        """Add and subtract every mask, in place, on the next len(stretch) elements."""
        step, width = len(self._mask), self._mask.dtype.itemsize
        for start in range(0, len(stretch), step):
            part = stretch[start : start + step]
            mask, raw = self._mask[: len(part)], self._raw[: len(part) * width]
            for stream in self._added:
                stream.fill(raw)
                np.add(part, mask, out=part)
            for stream in self._subtracted:
                stream.fill(raw)
                np.subtract(part, mask, out=part)


def apply_masks(
    vector: RingVector, seeds: MaskSeeds, *, first_element: int = 0, chunk_bytes: int = CHUNK_BYTES
) -> None:
    """Add and subtract every mask, in place.

    Args:
        vector: uint16, uint32 or uint64, little-endian, one dimension, contiguous and writable.
        seeds: the masks.
        first_element: where in the whole vector `vector` begins, so that slices of one vector can be masked apart
            (by several threads, or as they are read): the slices get what the whole would have got.
        chunk_bytes: how much is masked at a time. It changes the speed, never the mask.
    """
    if vector.ndim != 1 or not vector.flags.c_contiguous or vector.dtype.kind != "u":
        raise LocalProtocolError(
            "a vector to mask is contiguous, one-dimensional and unsigned", f"{vector.dtype}{vector.shape}"
        )
    MaskStreams(seeds, vector.dtype, first_element=first_element, chunk_bytes=chunk_bytes).apply(vector)


def encode_and_mask(
    values: Mapping[str, NDArray[Any]], layout: Layout, dither: Secret[bytes], seeds: MaskSeeds
) -> tuple[RingVector, bytes]:
    """One site's values -> its masked update, and that update's SHA-256.

    The only memory taken beside the values is the vector's own. The lock of the interpreter is released in every long
    step, so that a thread may do this beside an event loop.

    Raises:
        EncodingRefused: as `encode`.
    """
    vector = encode(values, layout, dither)
    apply_masks(vector, seeds)
    return vector, vector_hash(vector)


def vector_hash(vector: RingVector) -> bytes:
    """SHA-256 of the little-endian bytes of a vector: what upload headers and results carry."""
    return hashlib.sha256(np.ascontiguousarray(vector).data).digest()


class RunningSum:
    """The sum mod 2^b of the masked updates received so far.

    The one mutable thing of a round, because it is large: whoever makes it owns it, and nobody else writes to it. It
    takes layout.size_bytes of memory, however many sites upload. If an upload given in chunks turns out too short,
    too long, or cannot be read to its end, part of it is already in the sum; the sum is then spoilt, every later call
    raises LocalProtocolError, and the owner makes a new one from the uploads it kept.
    """

    __slots__ = ("_count", "_layout", "_spoilt", "_total")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._total: RingVector = np.zeros(layout.length, dtype=layout.dtype)
        self._count = 0
        self._spoilt = False

    @property
    def count(self) -> int:
        """How many vectors were added."""
        return self._count

    @property
    def result(self) -> RingVector:
        """The sum as it stands, read-only and not copied."""
        self._usable()
        view = self._total.view()
        view.flags.writeable = False
        return view

    def add(self, source: RingVector | Iterable[bytes]) -> None:
        """Add one masked update: a vector, or its little-endian bytes in chunks of any size.

        The caller has compared the SHA-256 of the bytes with the signed upload header before.

        Raises:
            EncodingRefused: a vector of the wrong ring or length; the sum is unchanged.
            LocalProtocolError: chunks of the wrong total length; the sum is spoilt.
        """
        self._usable()
        if isinstance(source, np.ndarray):
            check_ring(source, self._layout)
            np.add(self._total, source, out=self._total)
        else:
            self._spoilt = True  # until the last chunk has been added
            self._add_chunks(source)
            self._spoilt = False
        self._count += 1

    def remove(self, seeds: MaskSeeds) -> None:
        """Put the streams of `seeds` on the sum; `Unmasked.removal` has the signs that take its masks off."""
        self._usable()
        apply_masks(self._total, seeds)

    def _usable(self) -> None:
        if self._spoilt:
            raise LocalProtocolError(
                "a sum into which half an upload went is not used", "an upload ended early or late"
            )

    def _add_chunks(self, chunks: Iterable[bytes]) -> None:
        width = self._total.dtype.itemsize
        place = 0
        rest = b""
        for chunk in chunks:
            data = rest + bytes(chunk) if rest else chunk
            count, left = divmod(len(data), width)
            rest = bytes(data[len(data) - left :]) if left else b""
            part = self._total[place : place + count]
            if len(part) != count:
                break
            np.add(part, np.frombuffer(data, dtype=self._total.dtype, count=count), out=part)
            place += count
        else:
            if place == len(self._total) and not rest:
                return
        raise LocalProtocolError(f"an upload has {self._layout.size_bytes} bytes", "an upload of another length")
