"""The coordinator's peak memory with 32 sites, over that with 4: whole rounds, a million parameters.

The coordinator is a process of its own, exactly `python -m consortium serve`. The sites are scripted, in this process,
over real TLS. Read from the kernel: VmHWM of /proc/PID/status, after the same number of rounds.
"""

import asyncio
import time
from pathlib import Path

from consortium.contract.messages import RoundResult
from tests.benchmarks.bench_consortium import BenchFailed, consortium
from tests.benchmarks.bench_study import MILLION, bench_study
from tests.benchmarks.figures import Figure
from tests.benchmarks.scripted_hospitals import any_model, taking_part

FEW, MANY = 4, 32
ROUNDS = 3
ROUND_WAIT_S = 120.0


def measure(*, parameters: int = MILLION, few: int = FEW, many: int = MANY, rounds: int = ROUNDS) -> list[Figure]:
    """One figure."""
    small, idle = asyncio.run(_peak_bytes(parameters, few, rounds))
    large, _ = asyncio.run(_peak_bytes(parameters, many, rounds))
    note = (
        f"{few} sites {small / 1e6:.0f} MB, {many} sites {large / 1e6:.0f} MB, before the first round "
        f"{idle / 1e6:.0f} MB; one copy of the update is {4 * parameters / 1e6:.0f} MB; {rounds} rounds each"
    )
    return [
        Figure(
            name="coordinator_memory_32_vs_4",
            value=large / small,
            unit="peak memory over peak memory",
            reference=1.25,
            better="at most",
            note=note,
        )
    ]


async def _peak_bytes(parameters: int, sites: int, rounds: int) -> tuple[int, int]:
    """The coordinator's peak after `rounds` rounds with so many sites, and before the first."""
    names = [f"site-{number:02}" for number in range(1, sites + 1)]
    study = bench_study("memory", names, parameters=parameters, rounds=rounds)
    async with (
        consortium(study, scripted=names, marked=False) as field,
        taking_part(field, study, any_model(parameters)) as hospitals,
    ):
        coordinator = field.processes["coordinator"]
        idle = peak_bytes(coordinator.pid)
        await field.start(study.id)
        deadline = time.monotonic() + ROUND_WAIT_S
        while not all(len(site.told(RoundResult)) >= rounds for site in hospitals.values()):
            if time.monotonic() > deadline or coordinator.poll() is not None:
                raise BenchFailed(f"{sites} sites did not get through {rounds} rounds:\n{field.said('coordinator')}")
            await asyncio.sleep(0.1)
        return peak_bytes(coordinator.pid), idle


def peak_bytes(pid: int) -> int:
    """The most memory a process has had resident so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise BenchFailed("the kernel does not say how much memory a process had at most")
