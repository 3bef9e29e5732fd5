"""G-03: the coordinator has all nonces, tries which of them to leave out, and takes the groups it likes best.

Held by: no more than `WITHHELD_MAX` of those who committed may be missing among the nonces (protocol 10.2); what is
left to choose from is part of the risk that `group_risk.py` states. Tried: rows g03 of `mutations.py`; without that
comparison in `check_reveal_list` five nonces can be missing here, and 1 + 12 + ... + 495 outcomes can be tried instead
of 79.
"""

from dataclasses import replace

import pytest

from privacy.errors import BelowThreshold
from privacy.secagg import grouped_site
from privacy.secagg.beacon import WITHHELD_MAX, needed_reveals
from privacy.secagg.group_risk import choices
from privacy.secagg.messages import COORDINATOR, RevealList
from tests.fakes.grouped_round import GroupedRound, grouped, refusal

GROUP = grouped(12, group_size=4, threshold=7, minimum=7)
A = GROUP.context.sites[0]


@pytest.fixture(scope="module")
def awaiting():
    round_ = GroupedRound(GROUP)
    round_.run(until=RevealList)
    return round_.site_states[A], round_.queue[0][1]


@pytest.mark.parametrize("missing", [3, 4, 5])
def test_more_than_two_nonces_missing(awaiting, missing):
    state, listed = awaiting
    kept = listed.nonces[: 12 - missing]
    assert refusal(state, replace(listed, nonces=kept)) == BelowThreshold(12 - missing, 10)


def test_what_may_be_missing_changes_the_groups_and_can_be_counted(awaiting):
    """Every subset gives other groups: that is why so few may be left out."""
    state, listed = awaiting
    outcomes = set()
    for left_out in range(1, 12):
        nonces = tuple(pair for index, pair in enumerate(listed.nonces) if index != left_out)
        grouped_state, _ = grouped_site.step(state, replace(listed, nonces=nonces))
        outcomes.add(tuple(group.digest for group in grouped_state.groups))
    assert len(outcomes) == 11
    assert choices(12) == 1 + 12 + 66
    assert WITHHELD_MAX == 2


def test_nor_may_it_go_below_what_the_attempt_needs():
    context = grouped(12, group_size=4, threshold=7, minimum=11).context
    assert needed_reveals(context, 12) == 11
    assert needed_reveals(context, 11) == 11


@pytest.mark.parametrize(
    "lie",
    [
        lambda pairs: pairs[::-1],
        lambda pairs: (pairs[0], *pairs),
        lambda pairs: (*pairs, ("site-q", bytes(32))),
    ],
)
def test_nonces_that_nobody_committed_to(awaiting, lie):
    state, listed = awaiting
    assert refusal(state, replace(listed, nonces=lie(listed.nonces))).site == COORDINATOR
