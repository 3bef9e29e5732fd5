"""The log: durable appends and inclusion proofs against pymerkle's, and a million entries checked by `verify.py`.

pymerkle is the Merkle tree library that a Python programmer finds first. Its SqliteTree appends one entry with one
durable commit; ours makes everybody who waits durable together, with tiles, a root that is computed again from the disk
and a signature. So the ratio compares what either offers to many who want their entries to be safe before they go on.
"""

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pymerkle import InmemoryTree, SqliteTree

from audit import merkle, verify
from audit.log import Log
from audit.note import NoteSigner
from tests.benchmarks.figures import WARM_UPS, Figure, cpu_s, in_turns, ratio
from tests.benchmarks.large_evidence import write_evidence

BATCH, APPENDS, THEIR_APPENDS, REPEATS = 4096, 4, 32, 9
ALONE = 200
PROVED_OF, PROOFS = 50_000, 2_000
VERIFIED = 1_000_000
ENTRY_BYTES = 300
SIGNER = NoteSigner("log.example/benchmark", Ed25519PrivateKey.from_private_bytes(bytes(32)))


@contextmanager
def folder() -> Iterator[Path]:
    """On the disk of the working copy, because /tmp may be memory."""
    with tempfile.TemporaryDirectory(dir=Path("build") if Path("build").is_dir() else None) as name:
        yield Path(name)


def entries(first: int, count: int) -> list[bytes]:
    """Different ones of a usual length."""
    return [b"%-*d" % (ENTRY_BYTES, number) for number in range(first, first + count)]


def measure_appends() -> list[Figure]:
    """Durable appends per second, batched as callers that wait together are, and over pymerkle's.

    All of ours come first and pymerkle's directly after them: each of its appends deletes a file, and where many were
    just deleted ext4 takes several times as long to make one, which ours would pay for.
    """
    with folder() as place:
        log = Log.create(place / "log", SIGNER)
        theirs = SqliteTree(str(place / "pymerkle.db"))

        def ours_once() -> float:
            batches = [entries(log.size + at * BATCH, BATCH) for at in range(APPENDS)]
            begun = time.perf_counter()
            for batch in batches:
                log.append(batch)
            return APPENDS * BATCH / (time.perf_counter() - begun)

        def theirs_once() -> float:
            begun = time.perf_counter()
            for entry in entries(0, THEIR_APPENDS):
                theirs.append_entry(entry)
            return THEIR_APPENDS / (time.perf_counter() - begun)

        ours = [ours_once() for _ in range(WARM_UPS + REPEATS)][WARM_UPS:]
        peer = [theirs_once() for _ in range(WARM_UPS + REPEATS)][WARM_UPS:]
        alone = sorted(_append_alone(log) for _ in range(ALONE))
        log.close()
    value, spread = ratio(ours, peer)
    middle = statistics.median(ours)
    note = (
        f"{BATCH} entries of {ENTRY_BYTES} bytes in each commit; one entry alone takes {1e3 * alone[ALONE // 2]:.1f} ms"
    )
    return [
        Figure(
            name="append_durable_batched_vs_pymerkle",
            value=value,
            unit="times pymerkle's SqliteTree",
            reference=100.0,
            better="at least",
            spread=spread,
            note=f"ours {middle:.0f} entries/s, pymerkle {statistics.median(peer):.0f}; {BATCH} entries in each commit",
        ),
        Figure(
            name="append_durable_per_s",
            value=middle,
            unit="entries per second",
            reference=10_000.0,
            better="at least",
            spread=(min(ours), max(ours)),
            note=f"{note} (p99 {1e3 * alone[ALONE * 99 // 100]:.1f} ms)",
            binding=False,
        ),
    ]


def _append_alone(log: Log) -> float:
    (entry,) = entries(log.size, 1)
    begun = time.perf_counter()
    log.append([entry])
    return time.perf_counter() - begun


def measure_proofs() -> list[Figure]:
    """Inclusion proofs per CPU second over pymerkle's, both in memory; each pair gives the same hashes."""
    lines = entries(0, PROVED_OF)
    tree = merkle.Tree(map(merkle.leaf_hash, lines))
    theirs = InmemoryTree.init_from_entries(lines)
    if theirs.get_state() != tree.root():
        raise RuntimeError("pymerkle computes another root")
    indices = [(number * 7919) % PROVED_OF for number in range(PROOFS)]

    def prove() -> float:
        return PROOFS / cpu_s(lambda: [tree.inclusion_proof(index, PROVED_OF) for index in indices])

    def they_prove() -> float:
        return PROOFS / cpu_s(lambda: [theirs.prove_inclusion(index + 1, PROVED_OF) for index in indices])

    ours, peer = in_turns(prove, they_prove, REPEATS)
    value, spread = ratio(ours, peer)
    return [
        Figure(
            name="inclusion_proofs_vs_pymerkle",
            value=value,
            unit="times pymerkle's",
            reference=2.0,
            better="at least",
            spread=spread,
            note=f"ours {statistics.median(ours):.0f} proofs per CPU second, pymerkle {statistics.median(peer):.0f}; "
            f"{PROVED_OF} entries in memory",
        )
    ]


def measure_verification() -> list[Figure]:
    """CPU seconds that a bare Python takes for all of `verify.py` on evidence from a log of a million entries."""
    with folder() as place:
        evidence, policy = write_evidence(place, VERIFIED)
        command = [sys.executable, "-I", "-S", verify.__file__, str(evidence), "--policy", str(policy)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        shutil.rmtree(evidence)
    if ended.returncode != 0:
        raise RuntimeError(f"verify.py refused the evidence:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [
        Figure(
            name="verify_1M_entries_s",
            value=cpu,
            unit="CPU seconds",
            reference=15.0,
            better="at most",
            note=f"every step, without the package `cryptography`, in one process; {seconds:.1f} s by the clock",
        )
    ]
