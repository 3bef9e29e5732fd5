"""A study that is never left alone: hundreds of rounds while its processes are killed and stopped by chance.

    make soak                                       200 rounds
    make soak ROUNDS=50 SEED=7 MINUTES=10
    python -m tests.e2e.soak --rounds 50 --seed 7 --minutes 10 [--folder DIR] [--out FILE.json]

A coordinator and four agents, each a process of its own, run the heart study. After every few rounds something happens
to one of them or to two: kill -9 and another start a little later, or SIGSTOP for a while. The seed decides what and to
whom; when is decided by rounds that were closed, never by time. In the end

- the study is completed and a stranger's check of the evidence passes;
- what each hospital's ledger counts is what its entries in the log say, attempt by attempt, and none is there twice;
- the log is sound on its disk (`consortium audit fsck`);
- no program has written a traceback;
- the agent that was never killed, and the coordinator over its last stretch, hold about as much memory and as many file
  descriptors as they did when they had warmed up.

The coordinator is left alone for the last third, so that there is a long life to look at.
"""

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.faulty_world import FaultyWorld, Nursery, until
from tests.e2e.world import SITES, World

NEVER_KILLED, *KILLED = SITES
RSS_GROWTH_MAX, RSS_SLACK_BYTES = 0.15, 12 * 2**20
FILES_GROWTH_MAX = 6
"""By how much a process may have grown between its early samples and its late ones. A leak of a kilobyte in a round
does not show in 200 rounds; one of a descriptor in a round does after ten."""
WARM_UP_ROUNDS = 5
ROUND_WAIT_S = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A process as the kernel sees it."""

    process: int
    round: int
    rss_bytes: int
    files: int


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of it. Mutable: it is filled while the study runs."""

    rounds: int = 0
    seconds: float = 0.0
    deeds: dict[str, int] = field(default_factory=dict)  # what happened, and how often
    resumed: int = 0  # times that the study had paused itself and was resumed
    problems: list[str] = field(default_factory=list)
    growth: dict[str, dict[str, float]] = field(default_factory=dict)


def soak(
    folder: Path,
    nursery: Nursery,
    *,
    rounds: int,
    seed: int,
    deeds: int | None = None,
    minutes: float = 60.0,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run the study to its end; everything that is wrong then is in the outcome's problems.

    Args:
        folder: An empty one.
        nursery: Where processes come from.
        rounds: Of the study.
        seed: Of what happens to whom.
        deeds: How often something happens; None: after one to five rounds, again and again.
        minutes: Then nothing happens any more, and the study is aborted.
        say: Told what happens.
    """
    chance, outcome, begun = random.Random(seed), Outcome(rounds=rounds), time.monotonic()
    world = FaultyWorld(folder, nursery, redial_s=0.5)
    samples: dict[str, list[Sample]] = {"coordinator": [], NEVER_KILLED: []}
    world.create()
    try:
        world.start_coordinator()
        world.follow()
        for site in SITES:
            world.enrol(site)
            world.start_agent(site)
        # A round that dies with its agent stays counted: there must be some to spare.
        world.submit(rounds=rounds, every_rounds=rounds, spare_rounds=max(4, rounds // 4))
        last = 0
        while (study := world.study())["state"] != "completed":
            if time.monotonic() - begun > 60 * minutes:
                outcome.problems.append(f"after {minutes:g} minutes {len(study['history'])} rounds were closed")
                break
            if study["state"] == "paused":
                outcome.resumed += 1
                say(f"resumed: {study['reason']}")
                world.run("consortium", "study", "resume", world.study_id, "--home", world.home)
                world.wait_for(lambda s: s["state"] != "paused", "the study to be resumed")
            _all_back(world)
            if deeds is None or sum(outcome.deeds.values()) < deeds:
                deed = _something_happens(world, chance, coordinator=last < 2 * rounds / 3)
                outcome.deeds[deed] = outcome.deeds.get(deed, 0) + 1
                say(f"after round {last}: {deed}")
            wanted = last + chance.randint(1, 5 if deeds is None else 2)
            last = _closed_or_over(world, wanted)
            _take(world, samples, last)
        outcome.seconds = round(time.monotonic() - begun, 1)
        if not outcome.problems:
            _all_back(world)
            _judge(world, outcome)
        for name, taken in samples.items():
            _judge_growth(name, taken, outcome)
    finally:
        world.stop()
    return outcome


# --- what happens --------------------------------------------------------------------------------------------------


def _something_happens(world: FaultyWorld, chance: random.Random, *, coordinator: bool) -> str:
    """One deed by chance. When this returns everybody runs again, but for an agent that was killed alone."""
    deeds = ["kill agent", "kill agent", "kill two agents", "stop agent", "stop agent"]
    if coordinator:
        deeds += ["kill coordinator", "kill coordinator", "kill all", "stop coordinator"]
    deed = chance.choice(deeds)
    victims = {
        "kill agent": [chance.choice(KILLED)],
        "kill two agents": chance.sample(KILLED, 2),
        "stop agent": [chance.choice(SITES)],
        "kill coordinator": ["coordinator"],
        "stop coordinator": ["coordinator"],
        "kill all": ["coordinator", *KILLED],
    }[deed]
    time.sleep(chance.uniform(0, 0.5))  # anywhere in a round
    if deed.startswith("stop"):
        world.freeze(victims[0])
        time.sleep(chance.uniform(0.2, 2.0))
        world.thaw(victims[0])
    else:
        for name in victims:
            child = world.child(name)
            child.kill()
            child.wait()
            del world.processes[name]
        if deed != "kill agent":  # without one agent the study goes on; it comes back some rounds later
            time.sleep(chance.uniform(0, 1))
            _all_back(world)
    return deed


def _all_back(world: FaultyWorld) -> None:
    """Start whoever is dead."""
    if "coordinator" not in world.processes:
        world.start_coordinator()
    for site in SITES:
        if site not in world.processes or world.child(site).state in ("", "Z"):
            world.start_agent(site)


def _closed_or_over(world: FaultyWorld, wanted: int) -> int:
    """Wait until this round is closed, or the study runs no more; the last round that is closed.

    If the others need whoever is dead, it comes back: one that died before it signed the last model, for those who
    missed that round take it on the word of enough hospitals only.
    """

    def reached() -> bool:
        study = world.study()
        if study.get("phase") == "waiting for hospitals":
            _all_back(world)
        return study["state"] in ("completed", "paused") or any(r["round"] >= wanted for r in study["history"])

    until(reached, f"round {wanted} to be closed: {world.study()}", ROUND_WAIT_S)
    return max((r["round"] for r in world.study()["history"]), default=0)


# --- what is looked at ---------------------------------------------------------------------------------------------


def _take(world: FaultyWorld, samples: dict[str, list[Sample]], last: int) -> None:
    for name, taken in samples.items():
        if name not in world.processes:
            continue
        process = world.child(name).pid
        try:
            status = Path(f"/proc/{process}/status").read_text()
            rss_kib = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
            files = len(list(Path(f"/proc/{process}/fd").iterdir()))
        except (FileNotFoundError, ProcessLookupError, StopIteration):  # it is dying
            continue
        taken.append(Sample(process=process, round=last, rss_bytes=1024 * rss_kib, files=files))


def _judge_growth(name: str, taken: list[Sample], outcome: Outcome) -> None:
    """The longest life of a process: its early samples against its late ones, by their medians."""
    lives = Counter(one.process for one in taken)
    if not lives:
        return
    life = [one for one in taken if one.process == lives.most_common(1)[0][0]]
    warm = [one for one in life if one.round >= life[0].round + WARM_UP_ROUNDS]
    if len(warm) < 8:
        return  # too short a life to tell growth from chance
    third = len(warm) // 3
    early, late = warm[:third], warm[-third:]
    figures = {
        "from_round": warm[0].round,
        "to_round": warm[-1].round,
        "rss_early_mib": _median([one.rss_bytes for one in early]) / 2**20,
        "rss_late_mib": _median([one.rss_bytes for one in late]) / 2**20,
        "files_early": _median([one.files for one in early]),
        "files_late": _median([one.files for one in late]),
    }
    outcome.growth[name] = {key: round(value, 1) for key, value in figures.items()}
    allowed_mib = figures["rss_early_mib"] * (1 + RSS_GROWTH_MAX) + RSS_SLACK_BYTES / 2**20
    if figures["rss_late_mib"] > allowed_mib:
        outcome.problems.append(f"{name} grew from {figures['rss_early_mib']:.0f} to {figures['rss_late_mib']:.0f} MiB")
    if figures["files_late"] > figures["files_early"] + FILES_GROWTH_MAX:
        outcome.problems.append(
            f"{name} has {figures['files_late']:.0f} open files and had {figures['files_early']:.0f}"
        )


def _median(values: list[int]) -> float:
    ordered = sorted(values)
    return float(ordered[len(ordered) // 2])


def _judge(world: FaultyWorld, outcome: Outcome) -> None:
    """The study in the log, in the ledgers and in its evidence."""
    log = world.entries()
    closed = [int(entry["round"]) for entry in log if entry["type"] == "round.closed"]
    if closed != list(range(1, outcome.rounds + 2)):  # and one more that measures the last model
        outcome.problems.append(f"rounds closed: {closed}")
    if not world.verified_evidence().rstrip().endswith("VERIFIED"):
        outcome.problems.append("the evidence does not verify")
    fsck = world.run("consortium", "audit", "fsck", "--home", world.home, check=False)
    if fsck.returncode != 0:
        outcome.problems.append(f"audit fsck: {fsck.stdout}{fsck.stderr}")
    outcome.problems += ledger_and_log_differ(world)
    for name in ("coordinator", *SITES):
        if "Traceback" in world.log(name):
            outcome.problems.append(f"{name} wrote a traceback")
    if left := [path.name for path in (world.home / "uploads").iterdir()]:
        outcome.problems.append(f"uploads were left behind: {left}")


def ledger_and_log_differ(world: World) -> list[str]:
    """Every hospital whose ledger counts other attempts than its entries in the log, or one twice."""
    log, problems = world.entries(), []
    for site in SITES:
        counted, said = _in_ledger(world.folder / site), _in_log(log, site)
        if counted != said:
            only = f"only in the ledger: {counted - said}; only in the log: {said - counted}"
            problems.append(f"the ledger of {site} and its entries differ: {only}")
        if twice := [attempt for attempt, times in said.items() if times > 1]:
            problems.append(f"{site} signed twice for {twice}")
    return problems


def _in_ledger(home: Path) -> Counter[tuple[int, int]]:
    """Attempts that count in a hospital's ledger, by round and attempt."""
    with sqlite3.connect(f"{(home / 'ledger.db').as_uri()}?mode=ro", uri=True) as ledger:
        rows = ledger.execute("SELECT round, attempt FROM spends WHERE state != 'released'").fetchall()
    return Counter((int(number), int(attempt)) for number, attempt in rows)


def _in_log(log: list[dict[str, Any]], site: str) -> Counter[tuple[int, int]]:
    """Attempts that it signed for."""
    mine = [entry for entry in log if (entry["type"], entry["actor"]) == ("dp.spent", f"site:{site}")]
    return Counter((int(entry["round"]), int(entry["attempt"])) for entry in mine)


# --- the command ---------------------------------------------------------------------------------------------------


def main() -> int:
    """Run it, print what came of it; 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, help="an empty folder that is kept; otherwise one that is removed")
    parser.add_argument("--out", type=Path, help="write what came of it here, as JSON")
    options = parser.parse_args()
    nursery = Nursery()
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
            outcome = soak(
                options.folder or Path(scratch),
                nursery,
                rounds=options.rounds,
                seed=options.seed,
                minutes=options.minutes,
                say=lambda words: print(words, flush=True),
            )
    finally:
        nursery.close()
    found = json.dumps(asdict(outcome), indent=2)
    print(found)
    if options.out is not None:
        options.out.write_text(found + "\n")
    print("SOAK PASSED" if not outcome.problems else "SOAK FAILED")
    return int(bool(outcome.problems))


if __name__ == "__main__":
    sys.exit(main())
