"""A hospital's agent that is killed just before its n-th write: reserve, train, settle, sign, leave.

Run by test_d27 as a program of its own. It forks once for every n, so that what dies is a real process with real
files, by SIGKILL: no `finally`, no rollback, no destructor runs. What the next process finds is printed as JSON, a line
for each n.
"""

import json
import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from audit import entries
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledGaussian
from site_agent.ledger import Ledger, Limits
from site_agent.signed_events import SignedEvents
from site_agent.spend_entries import sign_spends
from site_agent.store import Store
from tests.fakes.site_world import make_home, small_study

STUDY = small_study(training={"rounds": 5})
DIGEST = STUDY.digest()
EVENT = DpEvent(mechanism=PoissonSampledGaussian(noise_multiplier=3.0, sampling_rate=0.2, steps=1, clip_norm_l2=1.0))
LIMITS = Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3)
BEFORE, NOW, NEXT = (1, 1), (2, 1), (2, 2)  # rounds and attempts


class Killer(sqlite3.Connection):
    """Kills its own process before the statement after `left` others, in whatever file it is."""

    left = -1

    def execute(self, *args: Any) -> sqlite3.Cursor:
        if Killer.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        Killer.left -= 1
        return super().execute(*args)


_connect = sqlite3.connect


def connect(*args: Any, **options: Any) -> sqlite3.Connection:
    return _connect(*args, factory=Killer, **options)


def opened(folder: Path) -> tuple[Store, Ledger, SignedEvents]:
    store = Store(folder / "agent.db")
    ledger = Ledger(folder / "ledger.db", connect=connect, told=store.told)
    return store, ledger, SignedEvents(make_home(folder, STUDY), store)


def attempt(folder: Path, ledger: Ledger, events: SignedEvents, at: tuple[int, int]) -> None:
    """As `round_values` does it; a file stands for the training and another for the update that leaves."""
    reservation = ledger.reserve(
        dataset="ward",
        study=STUDY.study_id,
        study_digest=DIGEST,
        round_number=at[0],
        attempt=at[1],
        event=EVENT,
        limits=LIMITS,
    )
    if not reservation.fresh:
        return
    (folder / f"trained-{at}").touch()
    ledger.settle(reservation, EVENT)
    sign_spends(ledger, events, STUDY, DIGEST, "ward")
    (folder / f"left-{at}").touch()


def look(folder: Path) -> dict[str, Any]:
    """What the next process finds, and what follows when it goes on with the next attempt."""
    store, ledger, events = opened(folder)
    ledger.require_current()
    found: dict[str, Any] = {
        "counted": [(s.round, s.attempt) for s in ledger.spends("ward", DIGEST, after=(0, 0))],
        "signed": [(e.round, e.attempt) for e in spent(store)],
        "trained": (folder / f"trained-{NOW}").exists(),
        "left": (folder / f"left-{NOW}").exists(),
    }
    attempt(folder, ledger, events, NOW)  # the coordinator asks for the same attempt again
    found["trained_twice"] = (folder / f"trained-{NOW}").exists() and not found["trained"] and found["counted"][1:]
    attempt(folder, ledger, events, NEXT)
    found["at_the_end"] = {
        "counted": [(s.round, s.attempt) for s in ledger.spends("ward", DIGEST, after=(0, 0))],
        "signed": [(e.round, e.attempt) for e in spent(store)],
        "totals": [e.steps_total for e in spent(store)],
        "epsilons": [e.epsilon for e in spent(store)],
        "steps": ledger.report()[0].steps,
        "epsilon": ledger.report()[0].epsilon,
    }
    return found


def spent(store: Store) -> list[entries.DpSpent]:
    parsed = [entries.parse_entry(data) for data in store.signed_entries()]
    return [entry for entry in parsed if isinstance(entry, entries.DpSpent)]


def main(work: Path) -> None:
    sqlite3.connect = connect  # type: ignore[assignment]  # the store asks for it by this name
    first = work / "first"
    first.mkdir()
    store, ledger, events = opened(first)
    attempt(first, ledger, events, BEFORE)
    ledger.close()
    store.close()
    for statements in range(1000):
        folder = work / str(statements)
        shutil.copytree(first, folder)
        child = os.fork()
        if child == 0:
            store, ledger, events = opened(folder)
            Killer.left = statements
            attempt(folder, ledger, events, NOW)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed and status != 0:
            sys.exit(f"the agent failed by itself: {status}")
        print(json.dumps({"killed": killed, **look(folder)}), flush=True)
        if not killed:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
