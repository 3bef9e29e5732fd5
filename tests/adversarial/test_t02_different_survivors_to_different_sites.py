"""Threat 2: the coordinator proposes one survivor set to some sites and another to the rest.

Shares of b for {A,B,C,D} from some and shares of r for A from others would unmask A alone.

Held by: `check_confirmation` and `check_header` (privacy/secagg/checks.py): t signatures on one T3, which covers U2,
U3 and every upload. Over the wire: tests/integration/test_lying_coordinator.py.
Tried: rows 2 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.errors import OutOfOrder
from privacy.secagg import site
from privacy.secagg.messages import COORDINATOR, Phase, UnmaskRequest
from tests.fakes.liar import blamed
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUP = consortium(4)
A, B, C, D = (site_name(i) for i in range(4))


def split_view():
    """A and B signed {A,B,C,D}; C and D signed {B,C,D}. Returns the round and all confirmations."""
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.CONFIRM)
    whole = round_.request_for(A)
    without_a = replace(whole, survivors=whole.survivors[1:], headers=whole.headers[1:])
    confirmations = []
    for name, proposal in ((A, whole), (B, whole), (C, without_a), (D, without_a)):
        round_.site_states[name], effects = site.step(round_.site_states[name], proposal)
        confirmations.append(effects[0].message)
    return round_, confirmations


@pytest.mark.parametrize("name", [A, B, C, D])
def test_confirmations_of_two_survivor_sets_do_not_add_up(name):
    round_, confirmations = split_view()
    chosen = [c for c in confirmations if name in (A, B) or c.site != A]
    request = UnmaskRequest(context=GROUP.context.digest(), confirmations=tuple(chosen))
    violation = blamed(round_.site_states[name], request)
    assert (violation.site, violation.rule) == (COORDINATOR, "all survivors confirm one survivor set")


@pytest.mark.parametrize("name", [A, C])
def test_nor_is_one_side_enough(name):
    round_, confirmations = split_view()
    same = round_.site_states[name].transcript
    request = UnmaskRequest(
        context=GROUP.context.digest(), confirmations=tuple(c for c in confirmations if c.transcript == same)
    )
    assert blamed(round_.site_states[name], request).rule == "3 confirmations"


def test_a_site_signs_one_survivor_set_only():
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.CONFIRM)
    whole = round_.request_for(D)
    state, _ = site.step(round_.site_states[D], whole)
    with pytest.raises(OutOfOrder):
        site.step(state, replace(whole, survivors=whole.survivors[1:], headers=whole.headers[1:]))


def test_different_members_are_noticed_in_the_upload_headers():
    """The lie one phase earlier: another U2 for A than for the rest gives another key schedule."""
    group = consortium(5, threshold=3)
    round_ = MemoryRound(group)
    round_.run(until=Phase.MASK)
    delivered = round_.request_for(A)
    fewer = replace(delivered, members=delivered.members[:4], deliveries=delivered.deliveries[:3])
    round_.queue = type(round_.queue)((n, fewer if n == A else m) for n, m in round_.queue)
    round_.run()
    assert round_.blamed() == [A]
    assert round_.survivors == (B, C, D, site_name(4))
    assert round_.sums() == round_.plain_sums()


def test_a_site_refuses_headers_of_another_key_schedule():
    group = consortium(5, threshold=3)
    round_ = MemoryRound(group)
    round_.run(until=Phase.MASK)
    delivered = round_.request_for(A)
    fewer = replace(delivered, members=delivered.members[:4], deliveries=delivered.deliveries[:3])
    masking, _ = site.step(round_.site_states[A], fewer)
    confirming, effects = site.step(masking, site.UploadFinished(masked_update_hash=bytes(32)))
    round_.run(until=Phase.CONFIRM)
    proposal = round_.request_for(B)
    lie = replace(proposal, survivors=proposal.survivors[:4], headers=(effects[0].message, *proposal.headers[1:4]))
    assert blamed(confirming, lie).rule == "masks come from the agreed keys"
