"""Resident memory of both programs while nothing happens: connected, a study approved and waiting for its start.

The processes are exactly `python -m consortium serve` and `python -m site_agent run`, over real TLS, with everything
that a consortium of four hospitals has set up by then. Read from the kernel: VmRSS of /proc/PID/status, the files of
shared libraries included. What training needs is not in it: an agent loads that when a study begins.
"""

import asyncio
import statistics
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.bench_consortium import BenchFailed, consortium
from tests.benchmarks.bench_study import LOGISTIC, bench_study
from tests.benchmarks.figures import Figure

SITES = ("site-01", "site-02", "site-03", "site-04")
ROUNDS = 8  # of a study that is not begun
CONNECTED_WAIT_S = 120.0
SETTLE_S = 5.0
"""After the last hospital is connected: its copy of the log, its heartbeat, its first cosignature."""


def measure() -> list[Figure]:
    """Two figures."""
    sizes = asyncio.run(_sizes())
    coordinator, agents = sizes["coordinator"], [sizes[name].resident for name in SITES]
    own = statistics.median(sizes[name].own for name in SITES)
    return [
        Figure(
            name="coordinator_idle_mb",
            value=coordinator.resident / 1e6,
            unit="MB resident, four hospitals connected",
            reference=100.0,
            better="at most",
            note=f"of it {coordinator.own / 1e6:.0f} MB of its own, the rest pages of shared libraries",
        ),
        Figure(
            name="agent_idle_mb",
            value=statistics.median(agents) / 1e6,
            unit="MB resident, connected, a study approved",
            reference=120.0,
            better="at most",
            spread=(min(agents) / 1e6, max(agents) / 1e6),
            note=f"of it {own / 1e6:.0f} MB of its own, the rest pages of shared libraries",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Bytes of a process that are in memory, and those among them that no file has."""

    resident: int
    own: int


async def _sizes() -> dict[str, Size]:
    """Of every process of the consortium, by its name."""
    study = bench_study("idle", SITES, parameters=LOGISTIC, rounds=ROUNDS)
    async with consortium(study, agents=SITES, marked=False) as field:
        await field.until_connected(CONNECTED_WAIT_S)
        await asyncio.sleep(SETTLE_S)
        return {name: size_of(process.pid) for name, process in field.processes.items()}


def size_of(pid: int) -> Size:
    """What a process has resident now."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    if "VmRSS" not in lines:
        raise BenchFailed("the kernel does not say how much memory a process has")
    return Size(resident=1024 * int(lines["VmRSS"].split()[0]), own=1024 * int(lines["RssAnon"].split()[0]))
