"""Threat 13: two rounds whose survivor sets differ by one site, so that the sums differ by about one update.

Held by: `CohortRule.check` (privacy/secagg/cohort.py).
Tried: rows 13 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.errors import LocalProtocolError
from privacy.secagg import site
from privacy.secagg.cohort import CohortRule
from privacy.secagg.messages import COORDINATOR, Phase
from tests.fakes.liar import blamed
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUP = consortium(6, threshold=4)
A, B, C, D, E, F = (site_name(i) for i in range(6))
ALL = frozenset({A, B, C, D, E, F})


def proposed(survivors, cohort):
    round_ = MemoryRound(GROUP, cohorts={A: cohort})
    round_.run(until=Phase.CONFIRM)
    proposal = round_.request_for(A)
    headers = tuple(header for header in proposal.headers if header.site in survivors)
    event = replace(proposal, survivors=tuple(header.site for header in headers), headers=headers)
    return round_.site_states[A], event


@pytest.mark.parametrize(("previous", "now"), [(ALL, ALL - {F}), (ALL - {F}, ALL)])
def test_one_site_more_or_less_is_refused(previous, now):
    violation = blamed(*proposed(now, CohortRule(previous_survivors=previous, least_difference=2)))
    assert violation.site == COORDINATOR
    assert "differ by 2 sites" in violation.rule
    assert violation.evidence == "they differ by 1"


@pytest.mark.parametrize(
    ("previous", "now", "least"),
    [
        (ALL, ALL, 2),  # the same sites
        (ALL, ALL - {E, F}, 2),  # two fewer
        (ALL - {E}, ALL - {F}, 2),  # one for another
        (ALL, ALL - {F}, 1),  # one fewer, and the update carries differential privacy
        (None, ALL - {F}, 2),  # the first round
    ],
)
def test_what_the_rule_allows(previous, now, least):
    state, event = proposed(now, CohortRule(previous_survivors=previous, least_difference=least))
    assert isinstance(site.step(state, event)[0], site.Unmasking)


def test_a_stricter_site_may_ask_for_more():
    rule = CohortRule(previous_survivors=ALL, least_difference=3)
    assert "differ by 3" in blamed(*proposed(ALL - {E, F}, rule)).rule


def test_a_rule_that_is_none_is_refused():
    with pytest.raises(LocalProtocolError):
        CohortRule(least_difference=0)
