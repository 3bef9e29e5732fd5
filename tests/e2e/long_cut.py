"""A line that is silent for minutes: does a study go on by itself, and how long after the line is back?

    make long-cut                                   10 minutes
    make long-cut CUT_MINUTES=1
    python -m tests.e2e.long_cut --minutes 10 [--folder DIR] [--out FILE.json]

The world is that of `wide_area.py`: namespaces, firewalls, 100 ms there and back, losses. In one of the first rounds
of a study the packets of two of four hospitals stop: no reset, no word. The other two are fewer than the threshold, so
the study has to wait. Nobody touches anything until the line is whole again, and then

- the study has never been anything but `running`, and nobody was asked for anything;
- the same processes, never started again, close its remaining rounds;
- a stranger's check of the evidence passes, and what each hospital's ledger counts is what its entries in the log say;
- no program has written a traceback.

It needs root, iproute2 and nftables; where they are missing it says so and ends with 75.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e import wide_area
from tests.e2e.soak import ledger_and_log_differ
from tests.e2e.test_behind_firewalls import CUT_OFF, PACKETS_LEFT, ROUNDS, enrol
from tests.e2e.wide_area import WideAreaWorld
from tests.e2e.world import SITES

WAIT_S = 600.0
"""For one thing to happen, such as a hospital's coming back: the pause between two dials is at most 30 s."""
LOOK_S = 2.0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of it; times in seconds. Mutable: it is filled while the study runs."""

    minutes: float
    rounds_before: int = 0  # closed when the line was cut
    noticed_s: float = 0.0  # from the cut until the coordinator's table shows both hospitals as away
    states: list[str] = field(default_factory=list)  # of the study, all that were seen during the cut
    connected_s: dict[str, float] = field(default_factory=dict)  # from the line's being back, by hospital
    next_round_s: float = 0.0  # from the line's being back until a round of training is closed
    completed_s: float = 0.0
    packets_lost: int = 0
    problems: list[str] = field(default_factory=list)


def long_cut(folder: Path, *, minutes: float, say: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run the study through one cut; everything that is wrong in the end is in the outcome's problems.

    Args:
        folder: An empty one.
        minutes: How long the line is silent, counted from its last packet.
        say: Told what happens.

    Raises:
        AssertionError: It came to a stop: a hospital did not come back, or no round was closed, within `WAIT_S`.
    """
    outcome = Outcome(minutes=minutes)
    with wide_area.wide_area(folder) as world:
        world.create()
        world.start_coordinator()
        with ThreadPoolExecutor() as together:
            list(together.map(lambda site: enrol(world, site), SITES))
        for site in SITES:
            world.start_agent(site)
        world.submit(rounds=ROUNDS, every_rounds=ROUNDS)
        for site in CUT_OFF:
            world.line.packets_left[site] = PACKETS_LEFT
        _until(lambda: world.line.cut == {*CUT_OFF}, "the line to be cut")

        begun = time.monotonic()
        outcome.rounds_before = _trained(world.status())
        say(f"cut after {outcome.rounds_before} rounds: {', '.join(CUT_OFF)}")
        while (gone_s := time.monotonic() - begun) < 60 * minutes:
            study = world.status()
            if study["state"] not in outcome.states:
                outcome.states.append(study["state"])
                say(f"after {gone_s:.0f} s the study is {study['state']}")
            if not outcome.noticed_s and _away(study) == [*CUT_OFF]:
                outcome.noticed_s = round(time.monotonic() - begun, 1)
                say(f"after {outcome.noticed_s:g} s both count as away")
            time.sleep(min(LOOK_S, max(0.0, 60 * minutes - (time.monotonic() - begun))))

        dialled = {site: _connections(world, site) for site in CUT_OFF}
        closed = _trained(world.status())
        world.line.cut.clear()
        _watch_it_come_back(world, outcome, dialled=dialled, closed=closed, say=say)
        outcome.packets_lost = world.line.lost
        _judge(world, outcome)
    return outcome


def _watch_it_come_back(
    world: WideAreaWorld, outcome: Outcome, *, dialled: dict[str, int], closed: int, say: Callable[[str], None]
) -> None:
    back = time.monotonic()
    say(f"the line is whole again after {outcome.minutes:g} minutes")
    waited_s = 0.0
    while not outcome.completed_s:
        waited_s = round(time.monotonic() - back, 1)
        for site in CUT_OFF:
            if site not in outcome.connected_s and _connections(world, site) > dialled[site]:
                outcome.connected_s[site] = waited_s
                say(f"{waited_s:g} s later {site} is connected")
        study = world.status()
        if not outcome.next_round_s and _trained(study) > closed:
            outcome.next_round_s = waited_s
            say(f"{waited_s:g} s later a round is closed")
        if study["state"] == "completed":
            outcome.completed_s = waited_s
            say(f"{waited_s:g} s later the study is completed")
        elif study["state"] != "running" or waited_s > WAIT_S:
            raise AssertionError(f"after {waited_s:g} s: {study}\n{world.log('coordinator')[-3000:]}")
        time.sleep(0.2)


def _judge(world: WideAreaWorld, outcome: Outcome) -> None:
    if outcome.states != ["running"]:
        outcome.problems.append(f"during the cut the study was {outcome.states}")
    if missing := {*CUT_OFF} - {*outcome.connected_s}:
        outcome.problems.append(f"these never said that they were connected again: {sorted(missing)}")
    if (trained := _trained(world.status())) != ROUNDS:
        outcome.problems.append(f"{trained} rounds of {ROUNDS} were closed")
    if not world.verified_evidence().rstrip().endswith("VERIFIED"):
        outcome.problems.append("the evidence does not verify")
    outcome.problems += ledger_and_log_differ(world)
    for name in ("coordinator", *SITES):
        if world.processes[name].poll() is not None:
            outcome.problems.append(f"{name} has ended")
        if "Traceback" in world.log(name):
            outcome.problems.append(f"{name} wrote a traceback")


def _trained(study: dict[str, Any]) -> int:
    return len([one for one in study["history"] if one["kind"] == "train"])


def _away(study: dict[str, Any]) -> list[str]:
    return [one["site"] for one in study["sites"] if one["state"] == "away"]


def _connections(world: WideAreaWorld, site: str) -> int:
    return world.log(site).count("coordinator.connected")


def _until(what: Callable[[], bool], description: str) -> None:
    end = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < end, f"waited {WAIT_S:g} s for {description}"
        time.sleep(0.02)


def main() -> int:
    """Run it, print what came of it; 1 if something is wrong, 75 if this machine cannot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the line is silent")
    parser.add_argument("--folder", type=Path, help="an empty folder that is kept; otherwise one that is removed")
    parser.add_argument("--out", type=Path, help="write what came of it here, as JSON")
    options = parser.parse_args()
    if (reason := wide_area.why_not()) is not None:
        print(reason, file=sys.stderr)
        return 75
    with tempfile.TemporaryDirectory(prefix="long-cut-") as scratch:
        outcome = long_cut(
            options.folder or Path(scratch), minutes=options.minutes, say=lambda words: print(words, flush=True)
        )
    found = json.dumps(asdict(outcome), indent=2)
    print(found)
    if options.out is not None:
        options.out.write_text(found + "\n")
    print("THE STUDY WENT ON" if not outcome.problems else "SOMETHING IS WRONG")
    return int(bool(outcome.problems))


if __name__ == "__main__":
    sys.exit(main())
