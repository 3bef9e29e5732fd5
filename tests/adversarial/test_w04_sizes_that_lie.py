"""W-04: nothing a peer announces or sends makes the other side take memory it did not mean to take.

Tried: rows w04 of `mutations.py`.
"""

import gc
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from consortium.contract.certificates import PeerIdentity
from consortium.contract.messages import VectorHeader, VectorKind
from consortium.contract.names import Digest
from consortium.wire import codec, limits
from consortium.wire import consortium_pb2 as pb
from consortium.wire.client import CoordinatorClient, _answered
from consortium.wire.errors import CallRefused, ConnectionLost, RefusalCode, WireViolation
from consortium.wire.transfer import BrokenOff
from tests.fakes.wire_world import HELLO, RecordingService, coordinator, pki, vector_header

_GZIP = 2  # grpc.Compression.Gzip
COORDINATOR = "/consortium.wire.v1.Coordinator/"


async def test_a_message_above_the_channels_limit() -> None:
    async with coordinator() as world, world.connect() as client:
        call = _raw(client).unary_unary(COORDINATOR + "SubmitEvents")
        with pytest.raises(CallRefused, match="larger than max"):
            await _answered(call(b"\x00" * (limits.MESSAGE_BYTES_MAX + 1)))
    assert world.service.peers == []


async def test_a_message_above_its_methods_limit() -> None:
    async with coordinator() as world, world.connect() as client:
        for method in ("SubmitEvents", "ListStudies", "DownloadVector"):
            call = _raw(client).unary_unary(COORDINATOR + method)
            with pytest.raises(CallRefused, match=r"at most|0 to") as caught:
                await _answered(call(b"\x00" * (limits.REQUEST_BYTES_MAX[method] + 1)))
            assert caught.value.code is RefusalCode.INVALID


@pytest.mark.parametrize("method", ["Enrol", "EnrolAccount"])
async def test_who_was_invited_may_send_very_little(method: str) -> None:
    async with coordinator() as world, world.connect(credentials=pki().invitation()) as client:
        call = _raw(client).unary_unary(f"/consortium.wire.v1.Enrolment/{method}")
        with pytest.raises(CallRefused, match="at most"):
            await _answered(call(b"\x00" * (limits.REQUEST_BYTES_MAX[method] + 1)))
    assert world.service.enrolled == []


async def test_compression_is_not_spoken() -> None:
    """A few KiB of gzip would unfold to the channel's limit: a thousandfold."""
    async with coordinator() as world, world.connect() as client:
        call = _raw(client).unary_unary(COORDINATOR + "SubmitEvents")
        events = pb.Events(events=[b"\x00" * 60_000] * 10).SerializeToString()
        with pytest.raises(CallRefused, match="disabled"):
            await _answered(call(events, compression=_GZIP))
        await _answered(call(events))
    assert len(world.service.events) == 10


@pytest.mark.parametrize("announced", [0, limits.VECTOR_BYTES_MAX + 1, 2**63])
async def test_a_header_announcing_the_impossible(announced: int) -> None:
    async with coordinator() as world, world.connect() as client:
        with pytest.raises(CallRefused, match="size_bytes"):
            await client.upload_vector(vector_header(b"x", size_bytes=announced), [b"x"])
    assert world.service.headers == []


async def test_a_header_announcing_more_than_the_coordinator_expects() -> None:
    async with coordinator(RecordingService(upload_bytes_max=1000)) as world, world.connect() as client:
        with pytest.raises(CallRefused, match="at most 1000 bytes"):
            await client.upload_vector(vector_header(b"x" * 1001), [b"x" * 1001])
        await client.upload_vector(vector_header(b"x" * 1000), [b"x" * 1000])
    assert len(world.service.vectors) == 1


async def test_more_bytes_than_announced() -> None:
    data = b"x" * 3_000_000
    async with coordinator() as world, world.connect() as client:
        # Whoever goes on sending beyond what was announced may be cut off before it can hear why.
        with pytest.raises((CallRefused, ConnectionLost), match=r"exactly 1000 bytes|broke"):
            await client.upload_vector(vector_header(data, size_bytes=1000), [data])
        with pytest.raises(CallRefused, match="exactly 3000001 bytes"):
            await client.upload_vector(vector_header(data, size_bytes=len(data) + 1), [data])
    assert world.service.vectors == {}
    assert [type(error) for error in world.service.broken_uploads] == [WireViolation, BrokenOff]


async def test_an_endless_upload_is_not_read_to_its_end() -> None:
    given_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given_bytes
        while given_bytes < 500_000_000:
            given_bytes += 1 << 20
            yield b"x" * (1 << 20)

    async with coordinator() as world, world.connect() as client:
        with pytest.raises((CallRefused, ConnectionLost), match=r"exactly|broke"):
            await client.upload_vector(vector_header(b"x", size_bytes=2 << 20), endless())
    assert given_bytes < 100_000_000
    assert world.service.vectors == {}


async def test_a_chunk_too_large_or_empty() -> None:
    for chunk, found in ((b"x" * (limits.CHUNK_BYTES_MAX + 1), "262145 bytes"), (b"", "0 bytes")):
        with pytest.raises(WireViolation, match=found):
            codec.decode_chunk(pb.VectorPart(chunk=chunk).SerializeToString())


class Liar(RecordingService):
    """A coordinator whose downloads are not what they say."""

    header: VectorHeader
    data: bytes

    async def open_vector(
        self, peer: PeerIdentity, kind: VectorKind, digest: Digest
    ) -> tuple[VectorHeader, AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            yield self.data

        return self.header, chunks()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"size_bytes": 1 << 32}, "at most 2000000 bytes"),
        ({"size_bytes": 999_999}, "exactly 999999 bytes"),
        ({"size_bytes": 1_000_001}, "exactly 1000001 bytes"),
        ({"sha256": b"\x11" * 32}, "another vector"),
        ({"kind": VectorKind.GLOBAL_MODEL}, "another vector"),
    ],
)
async def test_a_coordinator_that_lies_about_a_download(changes: dict[str, Any], found: str) -> None:
    true = vector_header(b"m" * 1_000_000, VectorKind.AGGREGATE)
    service = Liar()
    service.data = b"m" * 1_000_000
    service.header = vector_header(service.data, **{"kind": VectorKind.AGGREGATE, **changes})
    received = bytearray()
    async with coordinator(service) as world, world.connect() as client:
        with pytest.raises(WireViolation, match=found):
            await client.download_vector(VectorKind.AGGREGATE, Digest(true.sha256.hex()), 2_000_000, received.extend)
    assert len(received) <= 1_000_000


async def test_a_coordinator_that_swaps_the_bytes_of_a_download() -> None:
    service = Liar()
    service.header = vector_header(b"m" * 1_000_000, VectorKind.GLOBAL_MODEL)
    service.data = b"M" + b"m" * 999_999
    async with coordinator(service) as world, world.connect() as client:
        with pytest.raises(WireViolation, match="another SHA-256"):
            await client.download_vector(
                VectorKind.GLOBAL_MODEL, Digest(service.header.sha256.hex()), 2_000_000, bytearray().extend
            )


async def test_an_upload_takes_a_chunk_of_memory_and_not_its_size() -> None:
    class Sink(RecordingService):
        async def receive_vector(self, peer: PeerIdentity, header: VectorHeader, chunks: AsyncIterator[bytes]) -> None:
            async for _ in chunks:
                pass

    size = 64 << 20
    piece = b"\x00" * (1 << 20)
    header = vector_header(piece * 64)
    gc.collect()
    async with coordinator(Sink()) as world, world.connect() as client:
        tracemalloc.start()
        try:
            await client.upload_vector(header, (piece for _ in range(64)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert header.size_bytes == size
    assert peak < 24 << 20


async def test_a_session_message_above_its_limit_ends_the_session() -> None:
    async with coordinator() as world, world.connect() as client:

        async def oversized() -> None:
            async with client.session(HELLO) as session:
                await anext(session)
                await session._call.write(b"\x00" * (limits.SITE_MESSAGE_BYTES_MAX + 1))
                await anext(session)

        with pytest.raises(CallRefused, match="at most 1048576 bytes"):
            await oversized()
    assert isinstance(world.service.session_error, WireViolation)


def _raw(client: CoordinatorClient) -> Any:
    """gRPC's own channel, past everything our client checks."""
    return client._line
