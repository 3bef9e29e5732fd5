"""How fast each peer's mask goes onto a vector, on one core, against openssl's own figure for the same cipher.

The mask of one peer is AES-256-CTR output added to the vector, so the cipher alone is the bound. It is measured per
peer in a round of ten sites, as masks are put on in practice: nine streams pass over each stretch of the vector while
it is in the cache. One stream alone waits for the main memory as well; its speed stands in the note. `openssl speed`
takes turns with ours, in blocks of 8 KiB, and counts CPU time as we do.
"""

import os
import statistics
import subprocess

import numpy as np

from privacy.encoding import RingVector
from privacy.secagg.masks import MaskSeeds, apply_masks
from privacy.secret import Secret
from tests.benchmarks.figures import Figure, cpu_s, in_turns, ratio

LENGTH = 10_000_000
PEERS = 9
REPEATS = 7
PASSES = 7
OPENSSL = ("openssl", "speed", "-mr", "-seconds", "1", "-bytes", "8192", "-evp", "aes-256-ctr")
_OPENSSL_WAIT_S = 30


class OpensslUnusable(Exception):
    """The program is not on this machine, or does not say what it should."""


def measure(*, length: int = LENGTH, repeats: int = REPEATS, passes: int = PASSES) -> list[Figure]:
    """One figure, with the speed for one peer alone in its note."""
    vector = np.zeros(length, dtype="<u4")

    def ours_bytes_per_s() -> float:
        seeds = _seeds(PEERS)
        return vector.nbytes * PEERS * passes / cpu_s(lambda: _mask(vector, seeds, passes))

    one = _seeds(1)
    alone = vector.nbytes / statistics.median(cpu_s(lambda: apply_masks(vector, one)) for _ in range(15))
    try:
        ours, theirs = in_turns(ours_bytes_per_s, openssl_bytes_per_s, repeats)
    except OpensslUnusable as error:
        return [_figure(None, None, f"{error}; one peer alone: {alone / 1e9:.2f} GB/s")]
    value, spread = ratio(ours, theirs)
    note = (
        f"{PEERS} peers {statistics.median(ours) / 1e9:.2f} GB/s of mask, openssl "
        f"{statistics.median(theirs) / 1e9:.2f} GB/s; one peer alone {alone / 1e9:.2f} GB/s, "
        f"{alone / statistics.median(theirs):.2f} of openssl; d = {length:.0e} uint32"
    )
    return [_figure(value, spread, note)]


def openssl_bytes_per_s() -> float:
    """What `openssl speed` measures in a second; raises OpensslUnusable."""
    try:
        done = subprocess.run(OPENSSL, capture_output=True, text=True, timeout=_OPENSSL_WAIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OpensslUnusable(f"no usable `openssl` program on this machine ({type(error).__name__})") from error
    return parse_speed(done.stdout)


def parse_speed(output: str) -> float:
    """The last figure of the line `+F:number:cipher:bytes per second`; raises OpensslUnusable."""
    for line in output.splitlines():
        if line.startswith("+F:"):
            return float(line.rsplit(":", 1)[1])
    raise OpensslUnusable(f"`{' '.join(OPENSSL)}` printed no result")


def _mask(vector: RingVector, seeds: MaskSeeds, passes: int) -> None:
    for _ in range(passes):
        apply_masks(vector, seeds)


def _seeds(peers: int) -> MaskSeeds:
    return MaskSeeds(add=tuple(Secret(os.urandom(32)) for _ in range(peers)), subtract=())


def _figure(value: float | None, spread: tuple[float, float] | None, note: str) -> Figure:
    return Figure(
        name="mask_stream_vs_openssl",
        value=value,
        unit="mask bytes/s over openssl's AES-256-CTR bytes/s",
        reference=0.60,
        better="at least",
        spread=spread,
        note=note,
    )
