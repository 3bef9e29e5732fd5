"""CPU time to read ten stored uploads once, over the CPU time to add them up.

The uploads are files in the page cache, as the coordinator has them when it adds them; both sides read them through
`VectorStore.chunks`, so what is compared is adding against looking (the largest element). In memory, without files, the
same two are in the note.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np

from consortium.contract.names import Digest
from consortium.vectors import VectorStore
from privacy.encoding import Lane, Layout, RingVector
from privacy.secagg.masks import RunningSum
from tests.benchmarks.figures import Figure, cpu_s, in_turns, ratio

LENGTH = 10_000_000
UPLOADS = 10
REPEATS = 5


def measure(*, length: int = LENGTH, uploads: int = UPLOADS, repeats: int = REPEATS) -> list[Figure]:
    """One figure."""
    layout = Layout(modulus_bits=32, lanes=(Lane(name="update", length=length, clip=1.0, scale=2.0**20),))
    random = np.random.default_rng(1)
    vectors: list[RingVector] = [random.integers(0, 2**32, length, dtype=np.uint32) for _ in range(uploads)]
    with tempfile.TemporaryDirectory(prefix="consortium-bench-") as folder:
        store = VectorStore(Path(folder))
        digests = [store.put(vector.tobytes()) for vector in vectors]
        stored = in_turns(
            lambda: cpu_s(lambda: _look(store, digests)), lambda: cpu_s(lambda: _add(layout, store, digests)), repeats
        )
    total = RunningSum(layout)
    held = in_turns(
        lambda: cpu_s(lambda: [int(vector.max()) for vector in vectors]),
        lambda: cpu_s(lambda: _add_all(total, vectors)),
        repeats,
    )
    value, spread = ratio(*stored)
    in_memory, _ = ratio(*held)
    gigabytes = uploads * layout.size_bytes / 1e9
    note = (
        f"adding stored uploads {gigabytes / statistics.median(stored[1]):.1f} GB/s, reading them "
        f"{gigabytes / statistics.median(stored[0]):.1f} GB/s; vectors in memory: {in_memory:.2f} "
        f"({gigabytes / statistics.median(held[1]):.1f} of {gigabytes / statistics.median(held[0]):.1f} GB/s); "
        f"{uploads} x {length:.0e} uint32"
    )
    return [
        Figure(
            name="coordinator_sum_vs_read",
            value=value,
            unit="CPU time of a read-only pass over that of the sum",
            reference=0.4,
            better="at least",
            spread=spread,
            note=note,
        )
    ]


def _add(layout: Layout, store: VectorStore, digests: list[Digest]) -> None:
    total = RunningSum(layout)
    for digest in digests:
        total.add(store.chunks(digest))


def _add_all(total: RunningSum, vectors: list[RingVector]) -> None:
    for vector in vectors:
        total.add(vector)


def _look(store: VectorStore, digests: list[Digest]) -> int:
    return max(int(np.frombuffer(chunk, dtype="<u4").max()) for digest in digests for chunk in store.chunks(digest))
