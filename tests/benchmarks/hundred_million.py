"""One round with a hundred million parameters: three hospitals, real processes, real TLS. How much memory, how long.

    python -m tests.benchmarks.hundred_million [--parameters 1000000 10000000 100000000]

Prints, for the coordinator and each agent, the most memory it had at any time of the round, beyond what it had before
the study began: altogether, and without files that are only mapped (those the system may drop at any moment). One copy
of the update is 4 bytes a parameter. Training takes no time here; everything else is the real program.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from consortium.contract.study import StudyFile  # noqa: E402 - the path is set above
from tests.benchmarks.bench_consortium import Field, consortium  # noqa: E402
from tests.benchmarks.bench_study import MILLION, bench_study  # noqa: E402

SITES = ("site-01", "site-02", "site-03")
WIDTHS: Mapping[int, tuple[int, ...]] = {
    1_000_000: (1385, 707),
    10_000_000: (2343, 2193, 2199),
    100_000_000: (4096,) * 6 + (3900,),
}
"""Widths of the hidden layers that give about so many parameters with thirteen inputs."""
SAMPLE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a process had in memory, in bytes."""

    all_bytes: int
    anonymous_bytes: int  # without files that are mapped

    def __sub__(self, other: "Memory") -> "Memory":
        return Memory(
            all_bytes=self.all_bytes - other.all_bytes, anonymous_bytes=self.anonymous_bytes - other.anonymous_bytes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One study with one round."""

    parameters: int
    seconds: float  # from its start to the end of the round
    peaks: Mapping[str, Memory]  # by process, above what it had before

    def copies(self, name: str) -> float:
        """A process' peak in copies of the update."""
        return self.peaks[name].all_bytes / (4 * self.parameters)


def study_of(parameters: int) -> StudyFile:
    """A study with one round, over three sites."""
    record = bench_study(f"large-{parameters}", SITES, parameters=MILLION, rounds=1).model_dump(
        mode="python", by_alias=True, exclude_none=True
    )
    record["model"] = {"network": "mlp", "args": {"hidden": WIDTHS[parameters], "activation": "relu"}}
    record["aggregation"] |= {"round_deadline_s": 1800.0, "upload_deadline_s": 1200.0}
    return StudyFile.model_validate(record)


def parameters_of(widths: tuple[int, ...], inputs: int = 13) -> int:
    """How many parameters a network of these widths has."""
    layers = (inputs, *widths, 1)
    return sum(below * above + above for below, above in pairwise(layers))


async def measure(*sizes: int) -> list[Measured]:
    """A round of each size, one after the other, in the same processes."""
    studies = {size: study_of(size) for size in sizes}
    found = []
    async with consortium(*studies.values(), agents=SITES) as field:
        for size, study in studies.items():
            found.append(await measure_one(field, study, parameters=parameters_of(WIDTHS[size])))
    return found


async def measure_one(field: Field, study: StudyFile, *, parameters: int) -> Measured:
    """Run a study to its end, looking at every process' memory all the time."""
    before = {name: _memory(process.pid) for name, process in field.processes.items()}
    for process in field.processes.values():
        _forget_peak(process.pid)
    most = dict.fromkeys(before, 0)
    begun = time.monotonic()
    await field.start(study.id)
    while not _completed(field, study):
        for name, process in field.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended:\n{field.said(name)}")
            most[name] = max(most[name], _memory(process.pid).anonymous_bytes)
        await asyncio.sleep(SAMPLE_S)
    seconds = time.monotonic() - begun
    peaks = {
        name: Memory(all_bytes=_status(process.pid)["VmHWM"], anonymous_bytes=most[name]) - before[name]
        for name, process in field.processes.items()
    }
    return Measured(parameters=parameters, seconds=seconds, peaks=peaks)


def _completed(field: Field, study: StudyFile) -> bool:
    """Whether the coordinator's log has the end of the study."""
    lines = (field.folder / "coordinator.log").read_text().splitlines()
    facts = (json.loads(line) for line in lines if '"study.completed"' in line)
    return any(fact["study"] == study.id for fact in facts)


def _forget_peak(pid: int) -> None:
    """Have the system count a process' peak from here."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _memory(pid: int) -> Memory:
    status = _status(pid)
    return Memory(all_bytes=status["VmRSS"], anonymous_bytes=status["RssAnon"])


def _status(pid: int) -> dict[str, int]:
    """Sizes in /proc/PID/status, in bytes."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines if words[-1] == "kB"}


def lines_of(measured: Measured) -> list[str]:
    """As it is printed: seconds, then a line for each process."""
    copy = 4 * measured.parameters
    head = f"d = {measured.parameters:,}: {measured.seconds:.1f} s; one copy of the update is {copy / 1e6:.0f} MB"
    each = [
        f"  {name:<12} peak {peak.all_bytes / 1e6:7.0f} MB = {peak.all_bytes / copy:5.2f} copies,"
        f" of which not mapped files {peak.anonymous_bytes / 1e6:7.0f} MB = {peak.anonymous_bytes / copy:5.2f}"
        for name, peak in measured.peaks.items()
    ]
    return [head, *each]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parameters", type=int, nargs="+", default=[100_000_000], choices=list(WIDTHS))
    options = parser.parse_args()
    for measured in asyncio.run(measure(*options.parameters)):
        print("\n".join(lines_of(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
