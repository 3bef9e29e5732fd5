"""Many sites upload and download at once: a few move, the others wait, and nobody can keep the others waiting."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from consortium.contract.certificates import PeerIdentity
from consortium.contract.messages import VectorHeader, VectorKind
from consortium.contract.names import Digest
from consortium.wire import limits
from consortium.wire.client import CoordinatorClient
from consortium.wire.errors import CallRefused, RefusalCode, ServiceRefusal
from tests.fakes.wire_world import RecordingService, coordinator, vector_header

SIZE = 3_000_000
SITES = [f"site-{number:02}" for number in range(12)]


@dataclass
class Counting(RecordingService):
    """It counts the vectors that are moving, and takes its time."""

    now: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)

    def _begin(self, way: str) -> None:
        self.now[way] += 1
        self.most[way] = max(self.most[way], self.now[way])

    async def receive_vector(self, peer: PeerIdentity, header: VectorHeader, chunks: AsyncIterator[bytes]) -> None:
        self._begin("up")
        try:
            await super().receive_vector(peer, header, self._slowly("", chunks))
        finally:
            self.now["up"] -= 1

    async def open_vector(
        self, peer: PeerIdentity, kind: VectorKind, digest: Digest
    ) -> tuple[VectorHeader, AsyncIterator[bytes]]:
        header, _ = await super().open_vector(peer, kind, digest)
        return header, self._slowly("down", _pieces(self.vectors[digest]))

    async def _slowly(self, way: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        if way:
            self._begin(way)
        async for chunk in chunks:
            await asyncio.sleep(0.005)
            yield chunk
        if way:
            self.now[way] -= 1


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


def data_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest() * (SIZE // 32)


async def upload(client: CoordinatorClient, name: str, chunks: Any = None) -> VectorHeader:
    data = data_of(name)
    header = vector_header(data, VectorKind.MASKED_UPDATE, site=name)
    await client.upload_vector(header, [data] if chunks is None else chunks)
    return header


async def clients(stack: AsyncExitStack, world: Any, names: list[str]) -> dict[str, CoordinatorClient]:
    return {name: await stack.enter_async_context(world.connect(name)) for name in names}


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(3000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within 30 s")


async def test_a_few_move_at_a_time_and_all_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PLACE_LOOK_S", 30.0)  # on a busy machine all are slow; here they keep their places
    service = Counting()
    async with coordinator(service) as world, AsyncExitStack() as stack:
        sites = await clients(stack, world, SITES)
        headers = await asyncio.gather(*(upload(client, name) for name, client in sites.items()))
        assert {header.sha256.hex() for header in headers} == set(service.vectors)
        assert service.most["up"] == limits.UPLOADS_MOVING_MAX

        wanted = Digest(headers[0].sha256.hex())
        received = {name: bytearray() for name in SITES}
        await asyncio.gather(
            *(
                client.download_vector(VectorKind.AGGREGATE, wanted, SIZE, received[name].extend)
                for name, client in sites.items()
            )
        )
        assert all(data == service.vectors[wanted] for data in received.values())
        assert service.most["down"] == limits.DOWNLOADS_MOVING_MAX


async def test_uploads_that_bring_nothing_do_not_keep_the_others_waiting() -> None:
    """All places are taken by sites that begin and stop; the next one is there within a moment, not a minute."""
    stuck = SITES[: limits.UPLOADS_MOVING_MAX + 2]
    release = asyncio.Event()

    async def beginning(name: str) -> AsyncIterator[bytes]:
        yield data_of(name)[:100]
        await release.wait()
        yield data_of(name)[100:]

    async with coordinator() as world, AsyncExitStack() as stack:
        sites = await clients(stack, world, [*stuck, "honest-site"])
        waiting = [asyncio.create_task(upload(sites[name], name, beginning(name))) for name in stuck]
        await until(lambda: len(world.service.headers) == len(stuck))  # they, too, got their turn one after the other
        async with asyncio.timeout(limits.CHUNK_WAIT_S / 4):
            await upload(sites["honest-site"], "honest-site")
        assert len(world.service.vectors) == 1
        release.set()  # slow is not refused
        await asyncio.gather(*waiting)
        assert len(world.service.vectors) == 1 + len(stuck)


async def test_one_site_cannot_take_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PLACE_LOOK_S", 30.0)  # it would keep whatever place it has

    async def never() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with coordinator() as world, AsyncExitStack() as stack:
        sites = await clients(stack, world, SITES[:2])
        greedy, honest = SITES[:2]
        tasks = [asyncio.create_task(upload(sites[greedy], greedy, never())) for _ in range(8)]
        await until(lambda: bool(world.service.headers))
        async with asyncio.timeout(limits.CHUNK_WAIT_S / 4):
            await upload(sites[honest], honest)
        assert [header.upload.site for header in world.service.headers if header.upload] == [greedy, honest]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_upload_whose_attempt_ended_while_it_waited_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PLACE_LOOK_S", 30.0)
    holding = SITES[: limits.UPLOADS_MOVING_MAX]
    release, asked_for = asyncio.Event(), []

    async def held(name: str) -> AsyncIterator[bytes]:
        yield data_of(name)[:100]
        await release.wait()
        yield data_of(name)[100:]

    async def wanted() -> AsyncIterator[bytes]:
        asked_for.append(1)
        yield data_of("late-site")

    async with coordinator() as world, AsyncExitStack() as stack:
        sites = await clients(stack, world, [*holding, "late-site"])
        tasks = [asyncio.create_task(upload(sites[name], name, held(name))) for name in holding]
        await until(lambda: len(world.service.headers) == len(holding))
        late = asyncio.create_task(upload(sites["late-site"], "late-site", wanted()))
        await asyncio.sleep(0.2)
        over = ServiceRefusal("this attempt is over", code=RefusalCode.CONFLICT, advice="Wait.")
        world.service.failing["upload_limit"] = over
        release.set()
        with pytest.raises(CallRefused, match="this attempt is over"):
            await late
        await asyncio.gather(*tasks)
        assert asked_for == []
        assert len(world.service.vectors) == len(holding)
