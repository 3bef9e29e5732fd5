"""Threat 14: a round is run again on the same global model without one site; the difference is that site's update.

Held by: `CohortRule.check` (privacy/secagg/cohort.py), fed from the durable records of releases. Over the wire:
tests/integration/test_lying_coordinator.py.
Tried: rows 14 of `mutations.py`.
"""

from dataclasses import replace

from privacy.secagg import site
from privacy.secagg.cohort import CohortRule
from privacy.secagg.messages import Phase
from tests.fakes.liar import blamed
from tests.fakes.memory_round import Link, MemoryRound, consortium, reattempt, site_name

GROUP = consortium(6, threshold=4)
A, F = site_name(0), site_name(5)


def first_attempt(**links):
    round_ = MemoryRound(GROUP, **links)
    round_.run()
    return round_


def released_by(round_, name):
    """What the site's shell wrote to disk, as the rule for the next attempt on the same model."""
    records = [e for e in round_.site_effects[name] if isinstance(e, site.PersistReleased)]
    return tuple(frozenset(record.survivors) for record in records if record.model_hash == GROUP.context.model_hash)


def second_attempt(rule, survivors=None):
    round_ = MemoryRound(reattempt(GROUP, attempt=2), cohorts={A: rule})
    round_.run(until=Phase.CONFIRM)
    proposal = round_.request_for(A)
    keep = [header for header in proposal.headers if survivors is None or header.site in survivors]
    event = replace(proposal, survivors=tuple(h.site for h in keep), headers=tuple(keep))
    return round_.site_states[A], event


def test_another_survivor_set_on_the_same_model_is_refused():
    first = first_attempt()
    rule = CohortRule(released_on_model=released_by(first, A))
    without_the_victim = set(GROUP.context.sites) - {F}
    assert "one survivor set only" in blamed(*second_attempt(rule, without_the_victim)).rule


def test_the_same_survivor_set_again_reveals_nothing_new():
    rule = CohortRule(released_on_model=released_by(first_attempt(), A))
    state, event = second_attempt(rule)
    assert isinstance(site.step(state, event)[0], site.Unmasking)


def test_an_attempt_in_which_nothing_was_released_does_not_count():
    failed = first_attempt(links={site_name(i): Link(lose_reply=Phase.CONFIRM) for i in (1, 2, 3)})
    assert released_by(failed, A) == ()
    state, event = second_attempt(CohortRule(released_on_model=released_by(failed, A)), set(GROUP.context.sites) - {F})
    assert isinstance(site.step(state, event)[0], site.Unmasking)


def test_with_differential_privacy_the_attempt_is_paid_for_again():
    rule = CohortRule(released_on_model=released_by(first_attempt(), A), update_is_private=True, least_difference=1)
    state, event = second_attempt(rule, set(GROUP.context.sites) - {F})
    assert isinstance(site.step(state, event)[0], site.Unmasking)
