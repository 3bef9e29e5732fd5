"""Vectors in chunks: exactly what was announced, or nothing."""

import hashlib
from collections.abc import AsyncIterator

import pytest

from consortium.contract.messages import VectorHeader, VectorKind
from consortium.contract.names import Digest
from consortium.wire.errors import WireViolation
from consortium.wire.limits import CHUNK_BYTES_MAX
from consortium.wire.transfer import CheckedChunks, pieces, sliced

DATA = bytes(range(200))
HEADER = VectorHeader(
    kind=VectorKind.AGGREGATE,
    sha256=hashlib.sha256(DATA).digest(),
    size_bytes=len(DATA),
    study_digest=Digest("00" * 32),
)


async def _source(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("cut", [1, 50, 199, 200])
async def test_the_whole_vector(cut: int) -> None:
    chunks = CheckedChunks(HEADER, _source(DATA[:cut], *([DATA[cut:]] if cut < 200 else [])))
    assert not chunks.complete
    assert b"".join([chunk async for chunk in chunks]) == DATA
    assert chunks.complete


@pytest.mark.parametrize(
    ("chunks", "found"),
    [
        ((), "the end after 0 bytes"),
        ((DATA[:-1],), "the end after 199 bytes"),
        ((DATA, b"x"), "at least 201 bytes"),
        ((DATA[:-1] + b"\x00",), "another SHA-256"),
        ((DATA[100:], DATA[:100]), "another SHA-256"),
    ],
)
async def test_anything_else(chunks: tuple[bytes, ...], found: str) -> None:
    checked = CheckedChunks(HEADER, _source(*chunks))
    with pytest.raises(WireViolation, match=found):
        _ = [chunk async for chunk in checked]
    assert not checked.complete


async def test_chunks_of_any_size_are_cut_to_fit() -> None:
    large = b"x" * (2 * CHUNK_BYTES_MAX + 5)
    assert [len(piece) for piece in sliced(large)] == [CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 5]
    assert list(sliced(b"")) == []
    assert [len(piece) async for piece in pieces([large, b"", b"y"])] == [CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 5, 1]
    assert [len(piece) async for piece in pieces(_source(b"ab", large))] == [2, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 5]
