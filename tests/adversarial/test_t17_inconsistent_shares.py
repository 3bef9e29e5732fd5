"""Threat 17: a site deals shares that do not lie on one polynomial. Nobody sees it until they are needed.

Held by: `unmasking._acceptance` and `unmasking._recover` (privacy/secagg/unmasking.py).
Tried: rows 17 of `mutations.py`.
"""

import hashlib
from dataclasses import replace

import pytest

from privacy.errors import PeerViolation, Unrecoverable
from privacy.secagg import coordinator, site
from privacy.secagg.messages import Phase, SealedShares
from tests.fakes.liar import resealed, signed_boxes
from tests.fakes.memory_round import Link, MemoryRound, consortium, site_name

GROUP = consortium(5, threshold=3)
A, B, C, D, E = (site_name(i) for i in range(5))


def dealt_by_a(victims, links=None):
    """A round in which A seals rubbish shares for some recipients, well formed and well signed."""
    round_ = MemoryRound(GROUP, links=links or {})
    rubbish = {v: b"".join(b"\0" + hashlib.sha256(f"{v}{i}".encode()).digest() for i in (1, 2)) for v in victims}

    def lie(name, message):
        if name != A or not isinstance(message, SealedShares):
            return message
        return resealed(GROUP.member(A), round_.site_states[A], message, rubbish)

    round_.tamper_to_coordinator = lie
    round_.run()
    return round_


@pytest.mark.parametrize("links", [{}, {A: Link(lose_reply=Phase.MASK)}], ids=["alive", "dropped out"])
def test_the_secret_cannot_be_recovered_and_the_dealer_is_named(links):
    round_ = dealt_by_a([B, C, D, E], links)
    reason = round_.coordinator_state.reason
    assert isinstance(reason, Unrecoverable)
    assert (reason.owner, reason.threshold) == (A, 3)
    assert A in reason.advice()
    assert not any(isinstance(effect, coordinator.Unmasked) for effect in round_.effects)


@pytest.mark.parametrize("victim", [B, E])
def test_one_bad_share_among_enough_good_ones_does_no_harm(victim):
    round_ = dealt_by_a([victim])
    assert round_.sums() == round_.plain_sums()
    blame = [effect.violation for effect in round_.effects if isinstance(effect, coordinator.Blame)]
    # Who lied, dealer or holder, cannot be told from the middle; the evidence names both.
    assert [(violation.site, A in violation.evidence) for violation in blame] == [(victim, True)]


def test_a_pairwise_seed_that_does_not_open_is_its_senders_fault():
    """B cannot open A's box and leaves; its mask with A can then not be taken off, and both sides name A."""
    round_ = MemoryRound(GROUP)

    def lie(name, message):
        if name != A or not isinstance(message, SealedShares):
            return message
        boxes = tuple(replace(box, pair_seed=bytes(1168)) if box.recipient == B else box for box in message.boxes)
        return signed_boxes(GROUP.member(A), round_.site_states[A].key_transcript, replace(message, boxes=boxes))

    round_.tamper_to_coordinator = lie
    round_.run()
    assert isinstance(round_.site_states[B], site.Aborted)
    for reason in (round_.site_states[B].reason, round_.coordinator_state.reason):
        assert isinstance(reason, PeerViolation)
        assert reason.site == A
    assert round_.blamed() == [A]
    assert not any(isinstance(effect, coordinator.Unmasked) for effect in round_.effects)
