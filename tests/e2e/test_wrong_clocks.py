"""A clock that is an hour off, at one hospital or at the coordinator: what is said, what is not begun, what goes on.

The page for operators says that nothing breaks: phases end after durations and entries are ordered by counters. Real
processes, and a real study, under libfaketime.
"""

import json
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e import wrong_clocks
from tests.e2e.world import SITES
from tests.e2e.wrong_clocks import COORDINATOR, WrongClocks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(wrong_clocks.library() is None, reason="not installed here: libfaketime (Debian: faketime)"),
]

HOUR_S = 3600
BEHIND, AHEAD = "hungary", "va-long-beach"
ROUNDS = 3
WAIT_S = 600


def warnings(world: WrongClocks, name: str) -> list[str]:
    """What a program said about another clock."""
    said = [json.loads(line) for line in world.log(name).splitlines() if line.startswith("{")]
    found = [line for line in said if line["event"] == "clock.differs"]
    assert all(line["advice"].startswith("Keep the clock of both computers by NTP") for line in found)
    return [line["reason"] for line in found]


def completed_and_verified(world: WrongClocks) -> None:
    world.submit(rounds=ROUNDS, every_rounds=ROUNDS)
    study = world.wait_until(lambda study: study["state"] != "running", timeout_s=WAIT_S)
    assert study["state"] == "completed"
    assert [one["survivors"] for one in study["history"]] == [list(SITES)] * (ROUNDS + 1)  # nobody was late in a phase
    assert world.verified_evidence().rstrip().endswith("VERIFIED")
    for name in (COORDINATOR, *SITES):
        assert "Traceback" not in world.log(name)


def hours_ahead(world: WrongClocks) -> dict[str, set[int]]:
    """By who wrote entries of the study: how many hours they are ahead of the test's clock, which is right."""
    now = datetime.now().astimezone()
    found: dict[str, set[int]] = {}
    for entry in world.entries():
        ahead_s = (datetime.fromisoformat(entry["ts"]) - now).total_seconds()  # of something past: less than it was
        if entry["study"]:
            found.setdefault(entry["actor"].removeprefix("site:"), set()).add(int(ahead_s > 0))
    return found


def said_before_the_first_round(world: WrongClocks) -> bool:
    lines = world.log(COORDINATOR).splitlines()
    first_round = next(at for at, line in enumerate(lines) if '"round": 1' in line)
    return any('"clock.differs"' in line for line in lines[:first_round])


def test_at_a_hospital(tmp_path: Path) -> None:
    world = WrongClocks(tmp_path)
    world.create()
    try:
        world.start_coordinator()
        world.offsets_s = {BEHIND: -HOUR_S, AHEAD: HOUR_S}
        for site in SITES:
            if site != BEHIND:
                world.enrol(site)

        # Behind: the certificate in the kit is not valid yet by that clock. Nothing is made, sent or written down.
        with pytest.raises(AssertionError) as refused:
            world.enrol(BEHIND)
        assert "this side's certificate is not valid yet" in str(refused.value)
        assert "Set this computer's clock." in str(refused.value)
        assert not (tmp_path / BEHIND).exists()
        assert BEHIND not in {
            entry["body"].get("site") for entry in world.entries() if entry["type"] == "site.enrolled"
        }
        del world.offsets_s[BEHIND]  # it is set right; the kit was not used up
        kit = tmp_path / f"{BEHIND}.zip"
        kit.unlink()
        world.enrol(BEHIND)

        # Ahead: both sides say so as soon as they are connected, and the study runs.
        for site in SITES:
            world.start_agent(site)
        completed_and_verified(world)
        assert warnings(world, COORDINATOR) == [f"the clock of {AHEAD} is 60.0 minutes ahead of this computer's"]
        assert warnings(world, AHEAD) == ["the clock of the coordinator is 60.0 minutes behind this computer's"]
        assert [warnings(world, site) for site in SITES if site != AHEAD] == [[]] * (len(SITES) - 1)
        assert said_before_the_first_round(world)
        assert hours_ahead(world) == {COORDINATOR: {0}, **{site: {int(site == AHEAD)} for site in SITES}}

        checked = world.run("site-agent", "check", "--home", tmp_path / AHEAD, check=False)
        assert checked.returncode == 1
        assert "FAIL clock: the coordinator's is 3600." in checked.stdout
        assert "behind this one" in checked.stdout
    finally:
        world.stop()


def test_at_the_coordinator(tmp_path: Path) -> None:
    world = WrongClocks(tmp_path)
    world.create()
    try:
        world.start_coordinator()
        for site in SITES:
            world.enrol(site)
        world.kill(COORDINATOR)
        world.offsets_s = {COORDINATOR: HOUR_S}  # its machine comes back with it
        world.start_coordinator()
        for site in SITES:
            world.start_agent(site)
        completed_and_verified(world)
        # Each hospital says it once; here all of them are named, which is how one sees whose clock it is.
        for site in SITES:
            assert warnings(world, site) == ["the clock of the coordinator is 60.0 minutes ahead of this computer's"]
        assert sorted(warnings(world, COORDINATOR)) == [
            f"the clock of {site} is 60.0 minutes behind this computer's" for site in SITES
        ]
        assert said_before_the_first_round(world)
        assert hours_ahead(world) == {COORDINATOR: {1}, **{site: {0} for site in SITES}}
    finally:
        world.stop()
