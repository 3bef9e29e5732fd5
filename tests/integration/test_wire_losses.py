"""Lines that break, go silent, or are never there: noticed in seconds, on both sides, and nothing half-done is kept."""

# ruff: noqa: ASYNC110, PT012, SIM117 - a line is a block in a block, and breaks in the middle of the inner one

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from consortium.contract.certificates import PeerIdentity
from consortium.contract.messages import (
    CoordinatorMessage,
    EventReceipt,
    PrepareStudy,
    StudyPrepared,
    VectorHeader,
    VectorKind,
)
from consortium.contract.names import Digest
from consortium.wire import tls
from consortium.wire.errors import ConnectionLost, CoordinatorUnreachable, WireError, WireViolation
from tests.e2e.world import free_port
from tests.fakes.wire_world import (
    HELLO,
    STUDY_DIGEST,
    RecordingService,
    coordinator,
    forwarder,
    listening,
    vector_header,
)

PREPARE = PrepareStudy(study_digest=STUDY_DIGEST)
PREPARED = StudyPrepared(study_digest=STUDY_DIGEST, model_digest=STUDY_DIGEST, parameter_count=14)
KEEPALIVE_S = 120.0
WAIT_S = 60.0


async def test_a_killed_site_ends_its_session_at_once() -> None:
    async with coordinator(keepalive_s=KEEPALIVE_S) as world, forwarder(world.server.port) as line:
        async with world.connect(address=line.address, keepalive_s=KEEPALIVE_S) as client:
            with pytest.raises(ConnectionLost):
                async with client.session(HELLO) as session:
                    await anext(session)
                    line.cut()
                    await asyncio.wait_for(world.service.ended.wait(), KEEPALIVE_S / 2)  # not by the keepalive
                    await anext(session)
        assert world.service.session_error is None  # the site left: an end, not an error


async def test_a_silent_network_is_noticed_by_both_sides() -> None:
    async with coordinator(keepalive_s=0.5) as world, forwarder(world.server.port) as line:
        async with world.connect(address=line.address, keepalive_s=0.5) as client:
            with pytest.raises(ConnectionLost):
                async with client.session(HELLO) as session:
                    await anext(session)
                    line.silence()
                    await asyncio.wait_for(anext(session), WAIT_S)
            await asyncio.wait_for(world.service.ended.wait(), WAIT_S)


async def test_a_quiet_session_is_kept_alive() -> None:
    service = RecordingService(echo=lambda _: PREPARE)
    async with coordinator(service, keepalive_s=0.2) as world, world.connect(keepalive_s=0.2) as client:
        async with client.session(HELLO) as session:
            await anext(session)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(session), 1.5)
            assert not world.service.ended.is_set()
            await session.send(PREPARED)
            assert await asyncio.wait_for(anext(session), WAIT_S) == PREPARE  # giving up waiting lost nothing


async def test_half_an_upload_counts_as_none() -> None:
    data = b"z" * 6_000_000
    async with coordinator() as world, forwarder(world.server.port) as line:
        async with world.connect(address=line.address) as client:

            async def broken_off() -> AsyncIterator[bytes]:
                yield data[:3_000_000]
                while not world.service.headers:
                    await asyncio.sleep(0.01)
                line.cut()
                yield data[3_000_000:]

            with pytest.raises(ConnectionLost):
                await client.upload_vector(vector_header(data, VectorKind.MASKED_UPDATE), broken_off())
        while not world.service.broken_uploads:
            await asyncio.sleep(0.01)
    assert isinstance(world.service.broken_uploads[0], WireViolation)
    assert world.service.vectors == {}


async def test_a_caller_who_hangs_up_does_not_cancel_the_service_half_way() -> None:
    class Slow(RecordingService):
        async def submit_events(self, peer: PeerIdentity, events: tuple[bytes, ...]) -> EventReceipt:
            self.ended.set()
            await asyncio.sleep(0.3)
            return await super().submit_events(peer, events)

    service = Slow()
    async with coordinator(service) as world, world.connect() as client:
        call = asyncio.create_task(client.submit_events((b"one",)))
        await service.ended.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(WAIT_S):
            while not service.events:
                await asyncio.sleep(0.01)
    assert service.events == [b"one"]


async def test_an_error_of_our_own_while_uploading_is_our_own() -> None:
    data = b"z" * 3_000_000

    async def unreadable() -> AsyncIterator[bytes]:
        yield data[:1000]
        raise OSError(5, "the disk of the hospital failed")

    async with coordinator() as world, world.connect() as client:
        with pytest.raises(OSError, match="hospital"):
            await client.upload_vector(vector_header(data), unreadable())
        assert (await client.submit_events((b"the line still works",))).last_sequence == 1
    assert world.service.vectors == {}


async def test_a_download_broken_off_is_lost() -> None:
    class Torn(RecordingService):
        async def open_vector(
            self, peer: PeerIdentity, kind: VectorKind, digest: Digest
        ) -> tuple[VectorHeader, AsyncIterator[bytes]]:
            return vector_header(b"m" * 4_000_000, kind), torn()

    async def torn() -> AsyncIterator[bytes]:
        yield b"m" * 1_000_000
        line.cut()

    header = vector_header(b"m" * 4_000_000, VectorKind.GLOBAL_MODEL)
    async with coordinator(Torn()) as world, forwarder(world.server.port) as line:
        async with world.connect(address=line.address) as client:
            with pytest.raises(ConnectionLost):
                await client.download_vector(
                    VectorKind.GLOBAL_MODEL, Digest(header.sha256.hex()), 5_000_000, bytearray().extend
                )


async def test_nobody_listening() -> None:
    async with coordinator() as world:
        with pytest.raises(CoordinatorUnreachable, match=r"[Rr]efused") as caught:
            async with world.connect(address=f"127.0.0.1:{free_port()}"):
                pass
    assert caught.value.retryable
    assert "firewall" in caught.value.advice()


async def test_a_coordinator_that_begins_to_listen_at_this_very_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, and then nothing wrong with it: that says nothing about our certificate, and must not end an agent."""
    diagnose = tls.diagnose
    async with AsyncExitStack() as starting, coordinator() as world:
        address = f"127.0.0.1:{free_port()}"

        async def start_then_diagnose(*arguments: Any, **options: Any) -> WireError | None:
            await starting.enter_async_context(coordinator(address=address))
            monkeypatch.setattr(tls, "diagnose", diagnose)
            return await diagnose(*arguments, **options)

        monkeypatch.setattr(tls, "diagnose", start_then_diagnose)
        async with world.connect(address=address) as client:
            assert len(await client.list_studies()) == 2


async def test_a_coordinator_that_stops_during_the_handshake_may_come_back() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with coordinator() as world, listening(hang_up) as port:
        with pytest.raises(CoordinatorUnreachable, match="closed during the handshake") as caught:
            async with world.connect(address=f"127.0.0.1:{port}"):
                pass
    assert caught.value.retryable


async def test_a_name_that_does_not_exist() -> None:
    async with coordinator() as world:
        with pytest.raises(CoordinatorUnreachable, match="cannot be reached"):
            async with world.connect(address="coordinator.invalid:443", timeout_s=3):
                pass


async def test_somebody_who_never_answers() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with coordinator() as world, listening(mute) as port:
        with pytest.raises(CoordinatorUnreachable, match="no answer within"):
            async with world.connect(address=f"127.0.0.1:{port}", timeout_s=0.4):
                pass


async def test_a_new_session_on_the_same_client_after_the_line_broke() -> None:
    async with coordinator() as world, forwarder(world.server.port) as line:
        async with world.connect(address=line.address) as client:
            with pytest.raises(ConnectionLost):
                async with client.session(HELLO) as session:
                    await anext(session)
                    line.cut()
                    await anext(session)
            for _ in range(600):
                try:
                    async with client.session(HELLO) as session:
                        await anext(session)
                    break
                except ConnectionLost:
                    await asyncio.sleep(0.1)
    assert len(world.service.sessions) == 2


async def test_reading_after_the_block_says_that_the_session_is_over() -> None:
    async with coordinator() as world, world.connect() as client, client.session(HELLO) as session:
        await anext(session)
        reader = asyncio.create_task(collect(session))
        await asyncio.sleep(0.05)
        session.close()
        with pytest.raises(ConnectionLost, match="this side"):
            await reader


async def collect(session: AsyncIterator[CoordinatorMessage]) -> None:
    async for _ in session:
        pass
