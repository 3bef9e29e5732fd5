"""Threat 1: the coordinator has one site listed both as survivor and as dropout, to get both kinds of its shares.

Section 4.4 asks for no lists: what is released follows from the one survivor set that was signed. What is left to try
is a survivor set that names a site twice, or shares that a site releases for overlapping lists.

Held by: `site._check_proposal` and `site._release` (privacy/secagg/site.py), which take both lists from one set and
its complement; `checks._check_owners` for what the coordinator takes. Over the wire:
tests/integration/test_lying_coordinator.py.
Tried: rows 1 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.secagg import coordinator
from privacy.secagg.messages import Phase, RevealedShare
from tests.fakes.liar import blamed, signed_unmask_shares
from tests.fakes.memory_round import Link, MemoryRound, consortium, site_name

GROUP = consortium(5, threshold=3)
A, B, C, D, E = (site_name(i) for i in range(5))


@pytest.mark.parametrize("doubled", [B, C])
def test_a_survivor_named_twice_is_refused(doubled):
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.CONFIRM)
    proposal = round_.request_for(A)
    headers = sorted([*proposal.headers, *(h for h in proposal.headers if h.site == doubled)], key=lambda h: h.site)
    lie = replace(proposal, survivors=tuple(h.site for h in headers), headers=tuple(headers))
    assert "U3 is sorted" in blamed(round_.site_states[A], lie).rule


def test_a_site_that_was_never_a_member_is_not_a_survivor():
    round_ = MemoryRound(GROUP, links={E: Link(lose_reply=Phase.SHARE)})
    round_.run(until=Phase.CONFIRM)
    proposal = round_.request_for(A)
    lie = replace(
        proposal,
        survivors=(*proposal.survivors, E),
        headers=(*proposal.headers, replace(proposal.headers[0], site=E)),
    )
    assert "within U2" in blamed(round_.site_states[A], lie).rule


def test_released_lists_never_overlap():
    round_ = MemoryRound(GROUP, links={D: Link(lose_request=Phase.MASK)})
    round_.run()
    for name in (A, B, C, E):
        shares = round_.site_effects[name][-1].message
        alive = [share.owner for share in shares.self_mask_shares]
        dropped = [share.owner for share in shares.root_shares]
        assert (alive, dropped) == ([A, B, C, E], [D])


def test_the_coordinator_takes_no_shares_beyond_the_two_lists():
    """A colluding site that offers a dropout's share for a survivor is blamed, not listened to."""
    round_ = MemoryRound(GROUP, links={D: Link(lose_request=Phase.MASK)})
    extra = RevealedShare(owner=A, share=bytes(33))

    def add_a_share(name, message):
        if name != B or coordinator._PHASE[type(message)] is not Phase.UNMASK:
            return message
        both = replace(message, root_shares=(extra, *message.root_shares))
        return signed_unmask_shares(GROUP.member(B), round_.coordinator_state.transcript, both)

    round_.tamper_to_coordinator = add_a_share
    round_.run()
    assert round_.blamed() == [B]
    assert round_.sums() == round_.plain_sums()
