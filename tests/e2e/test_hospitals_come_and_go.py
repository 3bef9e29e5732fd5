"""Real processes over real mutual TLS: a hospital and the coordinator die and return, and all of it verifies.

Coordinator and agents are started as a person starts them; only commands that end come from a nursery.
`test_dropouts_in_every_phase.py` and `test_coordinator_dies_in_every_phase.py` have the moments one by one, with
processes that start faster.
"""

from pathlib import Path

import pytest

from tests.e2e.faulty_world import FaultyWorld, Nursery, until
from tests.e2e.world import SITES, World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


ROUNDS = 60
"""Enough for processes to be killed in the middle: a round takes a fifth of a second. A last one only measures.

Without a coordinator there are no rounds: that is when the dead hospital's agent takes its seconds to start.
"""


class Started(FaultyWorld):
    """Its coordinator and agents are fresh interpreters."""

    start_coordinator = World.start_coordinator
    _start = World._start


def test_a_study_outlives_a_dead_agent_and_a_dead_coordinator(tmp_path: Path, nursery: Nursery) -> None:
    world = Started(tmp_path, nursery)
    world.create()
    try:
        world.start_coordinator()
        for site in SITES:
            world.enrol(site)
            world.start_agent(site)
        world.submit(rounds=ROUNDS)
        world.wait_until(lambda s: len(s["history"]) >= 2)
        assert world.status()["history"][0]["survivors"] == list(SITES)

        world.kill("switzerland")
        without = world.wait_until(
            lambda s: any(r["survivors"] == [x for x in SITES if x != "switzerland"] for r in s["history"])
        )
        # Three hospitals are enough for the sum. Their exact metrics next to those of four would be the fourth's.
        three = next(r for r in without["history"] if len(r["survivors"]) == 3)
        assert three["metrics"] == {}

        world.kill("coordinator")
        world.start_agent("switzerland")
        away = world.log("switzerland").count("coordinator.away")
        until(lambda: world.log("switzerland").count("coordinator.away") > away, "the agent to find nobody", 120)
        world.start_coordinator()
        done = world.wait_until(lambda s: s["state"] == "completed", timeout_s=180)

        assert [r["round"] for r in done["history"]] == list(range(1, ROUNDS + 2))
        assert done["history"][-1]["survivors"] == list(SITES)
        assert done["history"][-1]["metrics"]["patients"] == 254
        assert max(site["epsilon"] for site in done["sites"]) <= 1.0

        # Every round was closed once, whatever was under way when the processes died.
        closed = [entry["round"] for entry in world.entries() if entry["type"] == "round.closed"]
        assert closed == [str(number) for number in range(1, ROUNDS + 2)]
        printed = world.verified_evidence()
        assert printed.rstrip().endswith("VERIFIED"), printed
        # What was spent at the dead hospital stays counted.
        assert world.run("site-agent", "budget", "--home", tmp_path / "switzerland").returncode == 0
    finally:
        world.stop()
