"""How much of an upload need not be sent again after its line broke at 90 %: the wire, with a store as ours.

Bytes are counted by the line between the two, with TLS and HTTP/2 around them. What was on its way when the line was
reset is lost; the larger the update, the less that matters.
"""

import asyncio
import os
import statistics
import tempfile
from pathlib import Path

from consortium.contract.messages import VectorKind
from consortium.wire.errors import ConnectionLost
from tests.benchmarks.bench_consortium import BenchFailed
from tests.benchmarks.figures import Figure
from tests.fakes.keeping_service import NAME, Keeping
from tests.fakes.wire_world import coordinator, forwarder, vector_header

SIZE_BYTES = 40_000_000
"""An update of ten million parameters in the ring of 32 bits."""
CUT, REPEATS = 0.9, 5


def measure() -> list[Figure]:
    """One figure."""
    data = os.urandom(SIZE_BYTES)
    saved = [asyncio.run(_saved(data)) for _ in range(REPEATS)]
    return [
        Figure(
            name="resumed_upload_saved_fraction",
            value=statistics.median(saved),
            unit="of the bytes of the upload",
            reference=0.85,
            better="at least",
            spread=(min(saved), max(saved)),
            note=f"{SIZE_BYTES / 1e6:.0f} MB, the line reset at {CUT:.0%}; without going on it would be 0",
        )
    ]


async def _saved(data: bytes) -> float:
    """The part of the vector that the second connection did not carry."""
    header = vector_header(data, VectorKind.MASKED_UPDATE)
    with tempfile.TemporaryDirectory() as folder:
        async with coordinator(Keeping(Path(folder))) as world, forwarder(world.server.port) as line:
            async with world.connect(address=line.address) as client:
                line.cut_after(int(len(data) * CUT))
                try:
                    await client.upload_vector(header, data)
                except ConnectionLost:
                    pass
                else:
                    raise BenchFailed("the line was not cut")
            while not world.service.broken_uploads:  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0.01)
            before = line.carried_bytes
            async with world.connect(address=line.address) as client:
                await client.upload_vector(header, data, again=True)
            if world.service.store.path(NAME).read_bytes() != data:
                raise BenchFailed("another vector arrived")
            return 1 - (line.carried_bytes - before) / len(data)
