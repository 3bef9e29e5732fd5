"""Threat 3: the coordinator makes up the t confirmations from duplicates, forgeries, other rounds or non-survivors.

Held by: `site._check_quorum` (privacy/secagg/site.py) and `check_confirmation` (privacy/secagg/checks.py).
Tried: rows 3 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.secagg import site
from privacy.secagg.messages import COORDINATOR, Phase
from tests.fakes.liar import blamed, signed_confirmation
from tests.fakes.memory_round import Link, MemoryRound, consortium, site_name

GROUP = consortium(4)
A, B, C, D = (site_name(i) for i in range(4))


def unmasking():
    round_ = MemoryRound(GROUP, links={D: Link(lose_reply=Phase.SHARE)})
    round_.run(until=Phase.UNMASK)
    return round_.site_states[A], round_.request_for(A)


def test_the_honest_request_is_answered():
    state, request = unmasking()
    assert [c.site for c in request.confirmations] == [A, B, C]
    assert isinstance(site.step(state, request)[0], site.Done)


def test_too_few():
    state, request = unmasking()
    assert blamed(state, replace(request, confirmations=request.confirmations[:2])).rule == "3 confirmations"
    assert blamed(state, replace(request, confirmations=())).rule == "3 confirmations"


def test_one_confirmation_twice():
    state, request = unmasking()
    a, b, _ = request.confirmations
    assert "one per survivor" in blamed(state, replace(request, confirmations=(a, b, b))).rule


def test_one_confirmation_under_another_name():
    state, request = unmasking()
    a, b, _ = request.confirmations
    violation = blamed(state, replace(request, confirmations=(a, b, replace(b, site=C))))
    assert (violation.site, violation.evidence) == (COORDINATOR, f"not signed by {C}")


@pytest.mark.parametrize("signature", [bytes(64), b"", b"x" * 63])
def test_a_forged_signature(signature):
    state, request = unmasking()
    a, b, c = request.confirmations
    assert "signature" in blamed(state, replace(request, confirmations=(a, b, replace(c, signature=signature)))).rule


def test_a_confirmation_of_an_earlier_attempt():
    earlier = MemoryRound(consortium(4, attempt=2), links={D: Link(lose_reply=Phase.SHARE)})
    earlier.run(until=Phase.UNMASK)
    old = earlier.request_for(A).confirmations[2]
    state, request = unmasking()
    lie = replace(request, confirmations=(*request.confirmations[:2], old))
    assert "one attempt" in blamed(state, lie).rule
    relabelled = replace(old, context=GROUP.context.digest())
    lie = replace(request, confirmations=(*request.confirmations[:2], relabelled))
    assert "signature" in blamed(state, lie).rule


def test_the_whole_request_of_another_attempt():
    earlier = MemoryRound(consortium(4, attempt=2))
    earlier.run(until=Phase.UNMASK)
    state, _ = unmasking()
    assert "one attempt" in blamed(state, earlier.request_for(A)).rule


def test_a_colluding_site_that_is_no_survivor_has_no_vote():
    state, request = unmasking()
    vote = signed_confirmation(GROUP.member(D), GROUP.context.digest(), state.transcript)
    lie = replace(request, confirmations=(*request.confirmations[:2], vote))
    assert "one per survivor" in blamed(state, lie).rule
