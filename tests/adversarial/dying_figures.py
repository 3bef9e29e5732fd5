"""A hospital's agent that is killed just before its n-th write as it draws test figures: reserve, settle, sign, draw.

Run by test_d28 as a program of its own, in the way of `dying.py`.
"""

import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from audit import entries
from consortium.contract.names import Digest
from site_agent.figures_account import budget_digest
from site_agent.ledger import Ledger
from site_agent.preparation import Declined
from site_agent.private_figures import PrivateFigures
from site_agent.signed_events import SignedEvents
from site_agent.site_file import Policy
from site_agent.spend_entries import sign_figures
from site_agent.store import Store
from tests.adversarial.dying import NEXT, NOW, killed_at_every_write, opened
from tests.fakes.site_world import small_study

STUDY = small_study(
    training={"rounds": 5},
    evaluation={"privacy": {"epsilon": 1.0, "delta": 1e-3}, "score_bins": 20, "subgroup_bins": 10},
)
DIGEST = STUDY.digest()
LINE = budget_digest(DIGEST)


class Drawing(PrivateFigures):
    """A file stands for figures that were drawn, and so may have left."""

    def __init__(self, folder: Path, ledger: Ledger, events: SignedEvents) -> None:
        super().__init__(ledger, events, study=STUDY, digest=DIGEST, dataset="ward")
        self._folder = folder

    def _draw(self, plan: Any, scores: Any) -> dict[str, Any]:
        (self._folder / f"drawn-{(plan.round, plan.attempt)}").touch()
        return {}


def attempt(folder: Path, ledger: Ledger, events: SignedEvents, at: tuple[int, int]) -> None:
    plan = SimpleNamespace(round=at[0], attempt=at[1], model_digest=Digest(f"{at[0]}" * 64))
    with suppress(Declined):  # charged before
        Drawing(folder, ledger, events).lanes(plan, None, Policy())  # type: ignore[arg-type]


def look(folder: Path) -> dict[str, Any]:
    """What the next process finds, and what follows when it goes on with the next attempt."""
    store, ledger, events = opened(folder, STUDY)
    ledger.require_current()
    found: dict[str, Any] = {
        "counted": counted(ledger),
        "signed": [(e.round, e.attempt) for e in spent(store)],
        "drawn": (folder / f"drawn-{NOW}").exists(),
    }
    sign_figures(ledger, events, STUDY, DIGEST, "ward")  # as when a study is prepared
    (folder / f"drawn-{NOW}").unlink(missing_ok=True)
    attempt(folder, ledger, events, NOW)  # the coordinator asks for the same attempt again
    found["drawn_again"] = (folder / f"drawn-{NOW}").exists() and NOW in [tuple(at) for at in found["counted"]]
    attempt(folder, ledger, events, NEXT)
    found["at_the_end"] = {
        "counted": counted(ledger),
        "signed": [(e.round, e.attempt) for e in spent(store)],
        "totals": [e.steps_total for e in spent(store)],
        "epsilons": [e.epsilon for e in spent(store)],
        "epsilon": ledger.report()[0].epsilon,
    }
    return found


def counted(ledger: Ledger) -> list[tuple[int, int]]:
    return [(spend.round, spend.attempt) for spend in ledger.spends("ward", LINE, after=(0, 0))]


def spent(store: Store) -> list[entries.FiguresSpent]:
    parsed = [entries.parse_entry(data) for data in store.signed_entries()]
    return [entry for entry in parsed if isinstance(entry, entries.FiguresSpent)]


if __name__ == "__main__":
    killed_at_every_write(Path(sys.argv[1]), STUDY, attempt, look)
