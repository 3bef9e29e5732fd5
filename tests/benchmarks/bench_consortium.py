"""A consortium of real processes in a temporary folder, to measure: a coordinator, agents, real TLS on the loopback.

    async with consortium(bench_study(...), agents=("site-01", "site-02", "site-03", "site-04")) as field:
        await field.start("study")
        await field.until_round("study", 8)

Everything is what a deployment has: keys and certificates, a database and a log on disk. Agents are
`bench_process.py` (training takes no time); the coordinator is that too, or exactly `consortium serve`.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consortium.app import opened
from consortium.contract.study import StudyFile
from consortium.home import create_home
from consortium.operator import run_command
from site_agent.deciding import decide_study
from site_agent.enrolment import enrol
from site_agent.home import open_home
from site_agent.stewards import enrol_steward
from site_agent.store import Store
from tests.benchmarks.bench_study import made_up_records, site_file
from tests.fakes.coordinator_home import Home, Hospital

ROOT = Path(__file__).resolve().parents[2]
NAME = "alpine-heart"
READY_WAIT_S, STOP_WAIT_S, POLL_S = 60.0, 10.0, 0.2


class BenchFailed(Exception):
    """A benchmark could not be carried out; the message has what the processes said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A line of a process' marks.jsonl."""

    round: int
    phase: str
    clock_s: float
    cpu_s: float
    left_out: int


@dataclass
class Field:
    """The running consortium. Mutable: it owns its processes and its folder."""

    folder: Path
    port: int
    agents: tuple[str, ...]
    hospitals: Mapping[str, Hospital]  # enrolled, for scripts in the benchmark's own process
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "coordinator"

    @property
    def address(self) -> str:
        """Where the coordinator listens."""
        return f"127.0.0.1:{self.port}"

    async def start(self, study: str) -> None:
        """`consortium study start`."""
        await run_command(self.home, "study.start", {"study": study})

    def marks(self, name: str) -> list[Mark]:
        """What a process has written down so far; whole lines only."""
        path = self.folder / name / "marks.jsonl"
        text = path.read_text() if path.exists() else ""
        return [Mark(**json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    async def until_connected(self, timeout_s: float) -> None:
        """Wait until every agent has a session."""
        deadline = time.monotonic() + timeout_s
        while set((await run_command(self.home, "status", {}))["connected"]) != set(self.agents):
            await self._pause(deadline)

    async def until_round(self, number: int, timeout_s: float) -> None:
        """Wait until the coordinator begins a round."""
        deadline = time.monotonic() + timeout_s
        while not any(mark.round >= number for mark in self.marks("coordinator")):
            await self._pause(deadline)

    async def until_ended(self, study: str, timeout_s: float) -> None:
        """Wait until a study is complete."""
        deadline = time.monotonic() + timeout_s
        while (await run_command(self.home, "study.show", {"study": study}))["state"] != "completed":
            await self._pause(deadline)

    async def _pause(self, deadline: float) -> None:
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise BenchFailed(f"{name} ended with {process.returncode}:\n{self.said(name)}")
        if time.monotonic() > deadline:
            raise BenchFailed(f"it took too long; the coordinator's last words:\n{self.said('coordinator')}")
        await asyncio.sleep(POLL_S)

    def said(self, name: str) -> str:
        """The end of a process' log."""
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def run(self, name: str, *arguments: object) -> "subprocess.Popen[bytes]":
        """Start a process of Python whose log is a file of its own."""
        command = [sys.executable, "-m", *map(str, arguments)]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=_environment())
        self.processes[name] = process
        return process

    def stop(self) -> None:
        """End every process this started."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_WAIT_S
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.processes.clear()


@asynccontextmanager
async def consortium(
    *studies: StudyFile,
    agents: Sequence[str] = (),
    scripted: Sequence[str] = (),
    plain_even_rounds: bool = False,
    count_sent: bool = False,
    train: bool = False,
    keep_update: bool = False,
    furnish: Callable[[Path, str], None] | None = None,
    marked: bool = True,
    light: bool = False,
) -> AsyncIterator[Field]:
    """Set everything up, to the point where `start` begins a study; stop and remove it all at the end.

    Args:
        studies: Submitted, and approved by everybody.
        agents: Sites that run as processes of their own.
        scripted: Sites that are only enrolled; `hospitals` has their keys.
        plain_even_rounds: Whether masks are left out in rounds 2, 4, 6 and so on, in all processes.
        count_sent: Whether agents write down the size of every message they send.
        train: Whether agents train, on whatever records they are given.
        keep_update: Whether agents that train write their update down before it is masked.
        furnish: Writes the records and the site.yaml of an agent, given folder and name; made-up by default.
        marked: Whether the processes write marks and training takes no time; without, they are exactly
            `python -m consortium serve` and `python -m site_agent run`.
        light: Whether agents compute nothing and load no torch (`light_hospital.py`).
    """
    folder = Path(tempfile.mkdtemp(prefix="consortium-bench-"))
    port = _free_port()
    create_home(folder / "coordinator", name=NAME, address=f"127.0.0.1:{port}")
    found = Field(
        folder=folder, port=port, agents=tuple(agents), hospitals=_enrolled(folder, studies, agents, scripted)
    )
    switch = ("--plain-even-rounds",) if plain_even_rounds else ()
    options = {"--count-sent": count_sent, "--train": train, "--keep-update": keep_update}
    agents_too = tuple(name for name, wanted in options.items() if wanted)
    try:
        if marked:
            serving = found.run("coordinator", "tests.benchmarks.bench_process", "coordinator", found.home, *switch)
        else:
            serving = found.run("coordinator", "consortium", "serve", "--home", found.home)
        await _ready(found, serving)
        for name in agents:
            await enrol(folder / f"{name}.zip", folder / name)
            if furnish is not None:
                furnish(folder / name, name)
            else:
                (folder / name / "records.csv").write_text(made_up_records())
                (folder / name / "site.yaml").write_text(site_file(name, [study.id for study in studies]))
            home = open_home(folder / name)
            key = Ed25519PrivateKey.generate()
            enrol_steward(home, Store(home.folder / "agent.db"), "Dr Bench", key)
            for study in studies:
                await decide_study(folder / name, study.id, "approved", steward="Dr Bench", statement="yes", key=key)
            if light:
                found.run(name, "tests.benchmarks.light_hospital", folder / name)
            elif marked:
                found.run(name, "tests.benchmarks.bench_process", "hospital", folder / name, *switch, *agents_too)
            else:
                found.run(name, "site_agent", "run", "--home", folder / name)
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _enrolled(
    folder: Path, studies: Sequence[StudyFile], agents: Sequence[str], scripted: Sequence[str]
) -> dict[str, Hospital]:
    """Submit the studies, write kits for the agents, enrol the scripted sites with their approvals."""
    with opened(folder / "coordinator") as coordinator:
        home = Home(folder / "coordinator", coordinator)
        for study in studies:
            home.submit(study)
        for name in agents:
            kit, _ = home.sites.invite(name)
            (folder / f"{name}.zip").write_bytes(kit)
        hospitals = {name: home.enrol(name) for name in scripted}
        for hospital in hospitals.values():
            home.sites.submit_events(hospital.site, [hospital.approves(study) for study in studies])
    return hospitals


async def _ready(found: Field, process: "subprocess.Popen[bytes]") -> None:
    assert process.stdout is not None  # asked for a pipe
    line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), READY_WAIT_S)
    if not line.startswith(b"Serving"):
        raise BenchFailed(f"the coordinator did not start:\n{found.said('coordinator')}")


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
