"""A hospital's agent that is killed just before its n-th write in a round: reserve, train, settle, sign, leave.

Run by test_d27 as a program of its own, in the way of `dying.py`.
"""

import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from audit import entries
from site_agent.ledger import Ledger
from site_agent.preparation import Declined
from site_agent.round_values import RoundValues
from site_agent.signed_events import SignedEvents
from site_agent.site_file import Policy
from site_agent.store import Store
from tests.adversarial.dying import NEXT, NOW, killed_at_every_write, opened
from tests.fakes.site_world import small_study
from tests.fakes.training import spec

STUDY = small_study(training={"rounds": 5})
DIGEST = STUDY.digest()
SPEC = spec(noise_multiplier=3.0, sampling_rate=0.2, rounds=5, local_steps=1)
EVENT = SPEC.privacy.round_event()
POLICY = Policy()


def attempt(folder: Path, ledger: Ledger, events: SignedEvents, at: tuple[int, int]) -> None:
    """One attempt of a round; a file stands for the training and another for the update that leaves."""

    def train(*_: object) -> SimpleNamespace:
        (folder / f"trained-{at}").touch()
        return SimpleNamespace(update=None, noisy_steps=EVENT.mechanism.steps, local=None)

    prepared = SimpleNamespace(
        study=STUDY,
        digest=DIGEST,
        dataset="ward",
        spec=SPEC,
        room=SimpleNamespace(train=train),
    )
    values = RoundValues(prepared, ledger, events)  # type: ignore[arg-type]
    plan, model = SimpleNamespace(round=at[0], attempt=at[1]), SimpleNamespace(vector=None)
    with suppress(Declined):  # charged before
        values._train(plan, model, POLICY)  # type: ignore[arg-type]
        (folder / f"left-{at}").touch()


def look(folder: Path) -> dict[str, Any]:
    """What the next process finds, and what follows when it goes on with the next attempt."""
    store, ledger, events = opened(folder, STUDY)
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


if __name__ == "__main__":
    killed_at_every_write(Path(sys.argv[1]), STUDY, attempt, look)
