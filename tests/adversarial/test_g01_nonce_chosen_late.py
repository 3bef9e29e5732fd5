"""G-01: somebody chooses a nonce after the others are known, to choose the groups.

Held by: a nonce counts only if it was committed to (protocol 10.2), at the coordinator against a site, and at every
site against the coordinator. Tried, as g01 of `mutations.py`: without the comparison in `check_reveal` a site picks its
nonce and is not blamed; without the one in `check_reveal_list`, or without the check of a site's own nonce, the
coordinator picks for all; without the site's name in a commitment it can be copied.
"""

from dataclasses import replace

from privacy.secagg.beacon import commitment_payload
from privacy.secagg.messages import COORDINATOR, BeaconPhase, BeaconReveal, RevealList
from tests.fakes.grouped_round import GroupedRound, grouped, refusal, resealed

GROUP = grouped(12, group_size=4, threshold=7, minimum=8)
A, B = GROUP.context.sites[:2]
OTHER = b"n" * 32


def awaiting_nonces():
    """A site that has revealed its nonce, and the list it would be sent."""
    round_ = GroupedRound(GROUP)
    round_.run(until=RevealList)
    return round_.site_states[A], next(message for name, message in round_.queue if name == A)


def test_a_site_that_reveals_another_nonce_is_blamed_and_the_others_go_on():
    def lie(name, message):
        if name == B and isinstance(message, BeaconReveal):
            return resealed(GROUP, replace(message, nonce=OTHER))
        return message

    round_ = GroupedRound(GROUP, tamper_to_coordinator=lie)
    round_.run()
    assert round_.blamed() == [B]
    assert round_.dropouts() == {B: BeaconPhase.REVEAL}
    assert B not in round_.survivors
    assert (round_.aggregate() == round_.plain_aggregate()).all()


def test_a_coordinator_that_relays_another_nonce_of_a_site_is_refused():
    state, listed = awaiting_nonces()
    nonces = tuple((site, OTHER if site == B else nonce) for site, nonce in listed.nonces)
    reason = refusal(state, replace(listed, nonces=nonces))
    assert (reason.site, reason.rule) == (COORDINATOR, "a nonce is the one that was committed to")


def test_a_coordinator_that_replaces_or_leaves_out_this_site_s_nonce_is_refused():
    state, listed = awaiting_nonces()
    replaced = tuple((site, OTHER if site == A else nonce) for site, nonce in listed.nonces)
    without = tuple((site, nonce) for site, nonce in listed.nonces if site != A)
    for nonces in (replaced, without):
        reason = refusal(state, replace(listed, nonces=nonces))
        assert (reason.site, reason.rule) == (COORDINATOR, "this site's nonce is listed unchanged")


def test_a_commitment_cannot_be_copied_to_reveal_the_same_nonce():
    """B commits to what A committed to and reveals what A reveals: the name is in the hash."""
    copied = {}

    def copy(name, message):
        kind = type(message)
        if name == A:
            copied[kind] = message
        if name == B and kind in copied and kind is not BeaconReveal:
            member = GROUP.member(B)
            lie = replace(message, commitment=copied[kind].commitment)
            return replace(lie, signature=member.signer.sign(commitment_payload(lie)))
        if name == B and kind is BeaconReveal:
            return resealed(GROUP, replace(message, nonce=copied[kind].nonce))
        return message

    round_ = GroupedRound(GROUP)
    # The copy is made on the way: both commitments are still in the queue.
    round_.queue = type(round_.queue)((name, copy(name, message)) for name, message in round_.queue)
    round_.tamper_to_coordinator = copy
    round_.site_states.pop(B)
    round_.broken.add(B)
    round_.run(until=BeaconReveal)
    assert dict(round_.coordinator_state.commitments)[A] == dict(round_.coordinator_state.commitments)[B]
    reveal = next(message for name, message in round_.queue if name == A)
    round_.tell_coordinator(resealed(GROUP, replace(reveal, site=B)))
    assert round_.blamed() == [B]
