"""What counts in the ledger -> a signed entry for each attempt, in order, once each, whatever died in between.

`dp.spent` for training, `figures.spent` for test figures with a budget of their own: two lines of the ledger, each with
its own totals. After every training, and before every draw of figures leaves, all of its line that counts and was not
signed for is signed: as a rule one attempt. More, if a process died between reserving and signing, or training failed:
what was reserved is spent, so the log has to know, and the running total of steps in the entries is the ledger's again.
The entry and the note that it was made are one transaction of the agent's memory (`told.py`), so an attempt is never
signed twice, also not by two threads at once.
"""

from dataclasses import dataclass
from typing import TypeAlias

from audit import entries
from consortium.contract.figures_budget import figures_privacy, measured_rounds
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from privacy.dp import accountant
from site_agent.figures_account import budget_digest, budget_of, ledger_name
from site_agent.ledger import Ledger
from site_agent.ledger_caps import Counted, added, events_of
from site_agent.logged_event import logged_event
from site_agent.signed_events import SignedEvents
from site_agent.told import NOTHING, Told

SpendEntry: TypeAlias = entries.DpSpent | entries.FiguresSpent


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One line of the ledger, and how it is told to the log."""

    kind: type[SpendEntry]
    study: str  # in entries
    digest: Digest  # in the ledger
    name: str  # in the ledger
    delta: float
    ends: tuple[int, ...]  # steps of the whole study, without its spare rounds and with them


def sign_spends(ledger: Ledger, events: SignedEvents, study: StudyFile, digest: Digest, dataset: str) -> None:
    """Sign for every attempt at training for a study that counts on a dataset and has no entry yet."""
    line = _Line(
        kind=entries.DpSpent,
        study=study.id,
        digest=digest,
        name=study.id,
        delta=study.privacy.delta,
        ends=(study.rounds_of_a_site * study.training.local_steps, study.steps_of_a_site),
    )
    _sign(ledger, events, line, dataset)


def sign_figures(ledger: Ledger, events: SignedEvents, study: StudyFile, digest: Digest, dataset: str) -> None:
    """Sign for every draw of test figures that counts and has no entry yet; nothing if they have no budget."""
    if figures_privacy(study) is None:
        return
    planned = measured_rounds(study)
    line = _Line(
        kind=entries.FiguresSpent,
        study=study.id,
        digest=budget_digest(digest),
        name=ledger_name(study.study_id),
        delta=budget_of(study).delta,
        ends=(planned - study.training.spare_rounds, planned),
    )
    _sign(ledger, events, line, dataset)


def _sign(ledger: Ledger, events: SignedEvents, line: _Line, dataset: str) -> None:
    told = next((t for t in events.told() if (t.study_digest, t.dataset) == (line.digest, dataset)), None)
    signed, unsigned = ledger.since(
        dataset, line.digest, after=(told.round, told.attempt) if told is not None else NOTHING
    )
    for spend in unsigned:
        signed = added(signed, [spend.event])
        steps = sum(signed.values())
        events.add_spend(
            line.kind,
            spent=Told(
                study_digest=line.digest,
                study=line.name,
                dataset=dataset,
                round=spend.round,
                attempt=spend.attempt,
                steps=steps,
            ),
            study=line.study,
            round=spend.round,
            attempt=spend.attempt,
            dataset=dataset,
            event=logged_event(spend.event),
            epsilon=epsilon_so_far(signed, delta=line.delta, ends=line.ends),
            delta=line.delta,
            steps_total=steps,
        )


ALWAYS_EXACT_STEPS = 100
"""A study of no more steps is composed exactly for each of its entries."""


def epsilon_so_far(counted: Counted, *, delta: float, ends: tuple[int, ...]) -> float:
    """What has been spent, at most: exact in a short study; else after 1, 2, 4, 8, ... steps and at its end.

    Composing exactly takes a tenth of a second, which in a study of distributed DP-SGD is a whole round. Epsilon only
    grows with steps, so the figure of the next of these numbers holds already; the Renyi bound, which costs nothing,
    holds too, and the smaller of the two is said. Both grow with steps, so what is said never falls.

    Args:
        counted: Events and their steps.
        delta: The study's.
        ends: Steps of the whole study, without its spare rounds and with them.
    """
    short = max(ends) <= ALWAYS_EXACT_STEPS
    ahead = {event: steps if short else _next_exact(steps, ends) for event, steps in counted.items()}
    exact = accountant.epsilon(events_of(ahead), delta=delta)
    return exact if ahead == dict(counted) else min(exact, accountant.renyi_epsilon(events_of(counted), delta=delta))


def _next_exact(steps: int, ends: tuple[int, ...]) -> int:
    """The least number, no less than `steps`, after which epsilon is composed exactly."""
    return min(end for end in (1 << (steps - 1).bit_length(), *ends) if end >= steps)
