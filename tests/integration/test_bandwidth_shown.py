"""Both ends count what passes between them, chunk by chunk, and operators' own questions do not count."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

from consortium.contract.messages import VectorKind
from consortium.wire.client import CoordinatorClient
from consortium.wire.traffic import Traffic
from tests.fakes.scripted_site import serving
from tests.fakes.wire_world import HELLO, coordinator, vector_header


async def test_an_upload_is_counted_at_both_ends_as_it_goes() -> None:
    here, there = Traffic(), Traffic()
    data = b"z" * 3_000_000
    seen: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1_000_000):
            seen.append(here.passed().sent_bytes)
            yield data[start : start + 1_000_000]

    async with coordinator(traffic=there) as world, world.connect(traffic=here) as client:
        async with client.session(HELLO) as session:
            await anext(session)
            await client.upload_vector(vector_header(data, VectorKind.MASKED_UPDATE), pieces())
        sent, received = here.passed(), there.passed()
        assert sent.sent_bytes == received.received_bytes > len(data)
        assert sent.received_bytes == received.sent_bytes > 0
        assert seen[0] < 1_000_000 < seen[2]  # not all at its beginning, nor at its end

        async with world.connect_operator() as operator:
            await operator.execute("status", b"{}")
        assert there.total_bytes == received.sent_bytes + received.received_bytes


async def test_who_watches_sees_it_move_though_nothing_else_changes(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        home = world.home.coordinator.home
        key_pem, certificate_pem = home.operator_pem
        async with await CoordinatorClient.connect(world.address, home.ca_pem, certificate_pem, key_pem) as client:
            watching = client.watch()
            before = json.loads(await anext(watching))["traffic"]
            world.home.coordinator.traffic.received(1000)
            after = json.loads(await asyncio.wait_for(anext(watching), 60))["traffic"]
            assert after["received_bytes"] == before["received_bytes"] + 1000
