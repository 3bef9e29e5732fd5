"""A coordinator killed with -9 in the middle of a round: how long until a round is closed by its successor.

Real processes, mutual TLS, SQLite on this machine's disk. The successor is started the moment the first is dead, as a
service manager does after its own pause, which is not counted (`RestartSec` in configs/deploy/consortium.service).
Counted is everything else: starting Python, opening the log, asking half of the hospitals what they remember of it,
agents that dial again after their own pauses (three of the four are enough for a round), and the whole round.
"""

import json
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests.benchmarks.figures import Figure
from tests.e2e.world import SITES, World

NAME = "recovery_after_kill_s"
KILLS = 5
ROUNDS = 400
CLOSED_BEFORE = 4
"""Rounds that each process closes before it is killed."""
INTO_A_ROUND_S = 0.1
"""After a round is closed the next one begins at once; the heart study's takes a few tenths of a second."""
WAIT_S = 60.0


def measure(*, kills: int = KILLS) -> list[Figure]:
    """One figure: seconds, the median of so many kills."""
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder:
        world = World(Path(folder))
        try:
            taken = _recoveries(world, kills)
        finally:
            world.stop()
    return [
        Figure(
            name=NAME,
            value=statistics.median(taken),
            unit="s, four agents, heart study",
            reference=5.0,
            better="at most",
            spread=(min(taken), max(taken)),
            note=f"{kills} kills; from the signal to the end of the first round under the new process",
        )
    ]


def _recoveries(world: World, kills: int) -> list[float]:
    world.create()
    world.start_coordinator()
    for site in SITES:
        world.enrol(site)
        world.start_agent(site)
    world.submit(rounds=ROUNDS, every_rounds=ROUNDS)
    taken = []
    for _ in range(kills):
        seen = len(_closed(world))
        _until(world, seen + CLOSED_BEFORE)
        time.sleep(INTO_A_ROUND_S)
        before = len(_closed(world))
        killed_s = time.time()
        world.kill("coordinator")
        before = max(before, len(_closed(world)))  # what it closed at the very end is not its successor's
        world.start_coordinator()
        taken.append(_until(world, before + 1) - killed_s)
    return taken


def _closed(world: World) -> list[float]:
    """When rounds were closed, by the coordinators' own words: Unix seconds."""
    lines = [json.loads(line) for line in world.log("coordinator").splitlines() if line.startswith("{")]
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines if line["event"] == "round.closed"]


def _until(world: World, count: int) -> float:
    """Wait until so many rounds are closed; when the last of them was."""
    deadline = time.monotonic() + WAIT_S
    while len(closed := _closed(world)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count - len(closed)} rounds more did not close:\n{world.log('coordinator')[-3000:]}")
        time.sleep(0.02)
    return closed[count - 1]
