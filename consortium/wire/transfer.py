"""A vector in chunks: what both sides count and hash while it passes.

The receiver knows from the header how many bytes will come and what their SHA-256 must be. It never holds more than a
chunk; a stream that is longer, shorter or different is a WireViolation, and half an upload counts as none. What came of
one that was broken off may be kept, for the rest to be added: it counts when all of it has the SHA-256.
"""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from consortium.contract.messages import VectorHeader
from consortium.wire.errors import WireViolation
from consortium.wire.limits import CHUNK_BYTES_MAX


class BrokenOff(WireViolation):
    """A vector that ended before its end; what came of it is right as far as anybody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What a receiver has of a vector from before."""

    size_bytes: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)  # a hash object that has taken these bytes


class CheckedChunks(AsyncIterator[bytes]):
    """The chunks of one vector, as they come, from its beginning or from where it was broken off. For one reader.

    It ends normally only after exactly `size_bytes` bytes with the header's SHA-256, and then `complete` is true;
    whoever stores the bytes keeps them only if it was read to that end.

    Raises:
        BrokenOff: from the iteration; the rest may come another time.
        WireViolation: from the iteration; the bytes given so far are worth nothing.
    """

    def __init__(self, header: VectorHeader, source: AsyncIterator[bytes], begun: Begun | None = None) -> None:
        begun = begun or Begun()
        self._header = header
        self._source = source
        self._hash = begun.sha256
        self._received_bytes = begun.size_bytes
        self.complete = False

    async def __anext__(self) -> bytes:
        """The next chunk."""
        allowed = f"exactly {self._header.size_bytes} bytes, as announced"
        try:
            chunk = await anext(self._source)
        except StopAsyncIteration:
            if self._received_bytes != self._header.size_bytes:
                found = f"the end after {self._received_bytes} bytes"
                raise BrokenOff("vector", found=found, allowed=allowed) from None
            if self._hash.digest() != self._header.sha256:
                raise WireViolation("vector", found="another SHA-256", allowed="the one in the header") from None
            self.complete = True
            raise
        self._received_bytes += len(chunk)
        if self._received_bytes > self._header.size_bytes:
            raise WireViolation("vector", found=f"at least {self._received_bytes} bytes", allowed=allowed)
        self._hash.update(chunk)
        return chunk


def sliced(data: bytes | memoryview) -> Iterator[bytes]:
    """`data` in pieces that fit one message; a copy of one piece at a time."""
    if isinstance(data, bytes) and 0 < len(data) <= CHUNK_BYTES_MAX:
        yield data
        return
    view = memoryview(data).cast("B")
    for start in range(0, len(view), CHUNK_BYTES_MAX):
        yield bytes(view[start : start + CHUNK_BYTES_MAX])


async def pieces(
    chunks: Iterable[bytes | memoryview] | AsyncIterable[bytes | memoryview],
) -> AsyncIterator[bytes]:
    """Chunks of any size, from either kind of iterable, in pieces that fit one message."""
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            for piece in sliced(chunk):
                yield piece
    else:
        for chunk in chunks:
            for piece in sliced(chunk):
                yield piece
