"""G-06: the coordinator unmasks the group it is curious about, ends the attempt, and divides the sites anew.

Held by: a site releases shares only when t sites of every group have confirmed (protocol 10.4), in one request.
Tried: rows g06 of `mutations.py`; without `check_confirmed_groups` each request below is answered with shares. By hand:
with a move for `UnmaskRequest` in the table the first one is.
"""

from dataclasses import replace

import pytest

from privacy.errors import BelowThreshold, OutOfOrder
from privacy.secagg import grouped_site, site
from privacy.secagg.messages import COORDINATOR, GroupedUnmaskRequest, UnmaskRequest
from privacy.secagg.transcript import confirmation_payload
from tests.fakes.grouped_round import GroupedRound, grouped, refusal

GROUP = grouped(12, group_size=4, threshold=7, minimum=8)
A = GROUP.context.sites[0]


@pytest.fixture(scope="module")
def asked():
    """A site that has confirmed its group's survivors, and the request for all groups."""
    round_ = GroupedRound(GROUP)
    round_.run(until=GroupedUnmaskRequest)
    state, request = round_.site_states[A], round_.queue[0][1]
    assert isinstance(grouped_site.step(state, request)[0], site.Done)
    return state, request


def with_group(request, number, group):
    groups = list(request.groups)
    groups[number - 1] = group
    return replace(request, groups=tuple(groups))


def another(state):
    """The number of a group that the site is not in."""
    return state.number % 3 + 1


def test_a_request_for_its_own_group_alone(asked):
    state, request = asked
    own = request.groups[state.number - 1]
    for context in (state.own.digest, GROUP.context.digest()):
        with pytest.raises(OutOfOrder):
            grouped_site.step(state, UnmaskRequest(context=context, confirmations=own.confirmations))


def test_a_group_left_out(asked):
    state, request = asked
    reason = refusal(state, replace(request, groups=request.groups[: state.number]))
    assert reason.site == COORDINATOR
    assert refusal(state, replace(request, groups=())).rule == "all 3 groups are ready"
    assert refusal(state, replace(request, groups=(*request.groups, request.groups[0]))).site == COORDINATOR


def test_a_group_without_its_quorum(asked):
    state, request = asked
    number = another(state)
    group = request.groups[number - 1]
    short = replace(group, confirmations=group.confirmations[:2])
    doubled = replace(group, confirmations=(group.confirmations[0], *group.confirmations[:2]))
    assert refusal(state, with_group(request, number, short)).rule == f"3 confirmations of group {number}"
    assert refusal(state, with_group(request, number, doubled)).site == COORDINATOR


def test_a_group_with_too_few_survivors_or_foreign_ones(asked):
    state, request = asked
    number = another(state)
    group = request.groups[number - 1]
    few = replace(group, survivors=group.survivors[:2])
    assert refusal(state, with_group(request, number, few)) == BelowThreshold(2, 3)
    foreign = replace(group, survivors=tuple(sorted((*group.survivors[1:], A))))
    assert refusal(state, with_group(request, number, foreign)).rule == "a group's survivors are among its sites"
    unsorted = replace(group, survivors=group.survivors[::-1])
    assert refusal(state, with_group(request, number, unsorted)).site == COORDINATOR


def test_confirmations_of_another_group_or_of_another_sum(asked):
    state, request = asked
    number = another(state)
    group = request.groups[number - 1]
    own = request.groups[state.number - 1]
    assert refusal(state, with_group(request, number, own)).site == COORDINATOR
    other_sum = replace(group, transcript=bytes(32))
    assert refusal(state, with_group(request, number, other_sum)).rule == "all survivors confirm one survivor set"
    forged = replace(group.confirmations[0], signature=bytes(64))
    lie = replace(group, confirmations=(forged, *group.confirmations[1:]))
    assert refusal(state, with_group(request, number, lie)).rule == "every message carries its sender's signature"


def test_another_sum_for_this_site_s_own_group(asked):
    """Signed by all of its sites, who would have to collude: this site still releases for what it signed only."""
    state, request = asked
    own = request.groups[state.number - 1]

    def signed(confirmation):
        lie = replace(confirmation, transcript=b"t" * 32)
        return replace(lie, signature=GROUP.member(lie.site).signer.sign(confirmation_payload(lie)))

    lie = replace(own, transcript=b"t" * 32, confirmations=tuple(signed(c) for c in own.confirmations))
    assert refusal(state, with_group(request, state.number, lie)).rule == (
        "all survivors of a group confirm one survivor set"
    )
    fewer = replace(own, survivors=own.survivors[:3], confirmations=own.confirmations[:3])
    if {c.site for c in fewer.confirmations} <= set(fewer.survivors):
        assert refusal(state, with_group(request, state.number, fewer)).site == COORDINATOR


def test_a_request_of_another_attempt(asked):
    state, request = asked
    reason = refusal(state, replace(request, context=bytes(32)))
    assert (reason.site, reason.rule) == (COORDINATOR, "every message is bound to one attempt at one round")


def test_a_request_before_this_site_has_confirmed():
    round_ = GroupedRound(GROUP)
    round_.run(until=site.SharesDelivered)
    state = round_.site_states[A]
    with pytest.raises(OutOfOrder):
        grouped_site.step(state, GroupedUnmaskRequest(context=GROUP.context.digest(), groups=()))
