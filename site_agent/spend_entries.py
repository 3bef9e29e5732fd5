"""What counts in the ledger -> a signed `dp.spent` for each attempt, in order, once each, whatever died in between.

After every training all that counts and was not signed for is signed: as a rule one attempt. More, if a process died
between reserving and signing, or training failed: what was reserved is spent, so the log has to know, and the running
total of steps in the entries is the ledger's again. The entry and the note that it was made are one transaction of the
agent's memory (`told.py`), so an attempt is never signed twice.
"""

from audit import entries
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from privacy.dp import accountant
from privacy.dp.events import DpEvent
from site_agent.ledger import Ledger
from site_agent.ledger_caps import Counted, added, events_of
from site_agent.logged_event import logged_event
from site_agent.signed_events import SignedEvents
from site_agent.told import NOTHING, Told


def sign_spends(ledger: Ledger, events: SignedEvents, study: StudyFile, digest: Digest, dataset: str) -> None:
    """Sign for every attempt at a study that counts on a dataset and has no entry yet."""
    told = next((t for t in events.told() if (t.study_digest, t.dataset) == (digest, dataset)), None)
    unsigned = ledger.spends(dataset, digest, after=(told.round, told.attempt) if told is not None else NOTHING)
    rounds, steps_each = study.training.rounds, study.training.local_steps
    ends = (rounds * steps_each, (rounds + study.training.spare_rounds) * steps_each)
    signed = _without(ledger.study(dataset, digest), [spend.event for spend in unsigned])
    for spend in unsigned:
        signed = added(signed, [spend.event])
        steps = sum(signed.values())
        events.add(
            entries.DpSpent,
            spent=Told(
                study_digest=digest,
                study=study.id,
                dataset=dataset,
                round=spend.round,
                attempt=spend.attempt,
                steps=steps,
            ),
            study=study.id,
            round=spend.round,
            attempt=spend.attempt,
            dataset=dataset,
            event=logged_event(spend.event),
            epsilon=epsilon_so_far(signed, delta=study.privacy.delta, ends=ends),
            delta=study.privacy.delta,
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


def _without(whole: tuple[DpEvent, ...], parts: list[DpEvent]) -> Counted:
    left = {event.with_steps(1): event.mechanism.steps for event in whole}
    for event in parts:
        left[event.with_steps(1)] -= event.mechanism.steps
    return {event: steps for event, steps in left.items() if steps}
