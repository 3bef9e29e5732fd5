"""CPU time of one site for one masked update: the common platforms' way over ours, ten sites, a million parameters."""

import os
import statistics
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.encoding import Lane, Layout, encode, lane_scale
from privacy.secagg.masks import MaskSeeds, apply_masks, encode_and_mask
from privacy.secret import Secret
from tests.benchmarks import mersenne_twister
from tests.benchmarks.figures import Figure, cpu_s, in_turns, ratio

LENGTH = 1_000_000
SITES = 10
CLIP = 4.0
REPEATS = 7


def measure(*, length: int = LENGTH, sites: int = SITES, repeats: int = REPEATS) -> list[Figure]:
    """One figure. Both sides start from float32[length] and end with a masked vector that is not hashed yet."""
    update = np.random.default_rng(1).uniform(-1, 1, length).astype(np.float32)
    layout = Layout(
        modulus_bits=32,
        lanes=(
            Lane(name="update", length=length, clip=CLIP, scale=lane_scale(sites, CLIP, 32)),
            Lane(name="weight", length=1, clip=1.0, scale=1.0),
        ),
    )
    layout.check(sites)
    values: dict[str, NDArray[Any]] = {"update": update, "weight": np.ones(1)}
    # A site in the middle of the roster: its own mask and half of the others' are added, the rest subtracted.
    add = [os.urandom(32) for _ in range(1 + sites // 2)]
    subtract = [os.urandom(32) for _ in range(sites - len(add))]
    seeds = MaskSeeds(add=tuple(map(Secret, add)), subtract=tuple(map(Secret, subtract)))

    def ours() -> float:
        return cpu_s(lambda: apply_masks(encode(values, layout, Secret(os.urandom(32))), seeds))

    def theirs() -> float:
        return cpu_s(lambda: mersenne_twister.masked(update, add, subtract))

    times = in_turns(ours, theirs, repeats)
    value, spread = ratio(times[1], times[0])
    hashed = statistics.median(
        cpu_s(lambda: encode_and_mask(values, layout, Secret(os.urandom(32)), seeds)) for _ in range(repeats)
    )
    note = (
        f"ours {1e3 * statistics.median(times[0]):.1f} ms ({1e3 * hashed:.1f} ms with the upload's SHA-256), "
        f"Mersenne Twister {1e3 * statistics.median(times[1]):.1f} ms; d = {length:.0e}, n = {sites}"
    )
    return [
        Figure(
            name="client_vs_mt19937",
            value=value,
            unit="CPU time of quantise + MT19937 int64 masks over ours",
            reference=5.0,
            better="at least",
            spread=spread,
            note=note,
        )
    ]
