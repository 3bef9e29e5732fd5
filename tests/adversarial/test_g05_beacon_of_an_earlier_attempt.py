"""G-05: commitments, nonces or groups of an earlier attempt, whose outcome is known, are used again.

Held by: the context of the attempt is in every commitment, every list and every signature (protocol 10.1, 10.2), and
the group's context covers it. Tried: rows g05 of `mutations.py`; without the context in `commitment_of` the copied
commitment and nonce below fit the later attempt; without the comparison of `check_context` the old lists are read as
new ones.
"""

from dataclasses import replace

import pytest

from privacy.secagg import coordinator
from privacy.secagg.beacon import commitment_of
from privacy.secagg.messages import COORDINATOR, BeaconReveal, CommitmentList, KeyBundle, RevealList
from privacy.secagg.site import BundlesListed
from tests.fakes.grouped_round import GroupedRound, grouped, refusal

OLD = grouped(12, group_size=4, threshold=7, minimum=8)
NEW = replace(OLD, context=replace(OLD.context, attempt=2))
A, B = OLD.context.sites[:2]


def stopped(group, until):
    round_ = GroupedRound(group)
    round_.run(until=until)
    return round_


@pytest.mark.parametrize("kind", [CommitmentList, RevealList])
def test_lists_of_the_old_attempt(kind):
    old, new = stopped(OLD, kind), stopped(NEW, kind)
    reason = refusal(new.site_states[A], old.queue[0][1])
    assert (reason.site, reason.rule) == (COORDINATOR, "every message is bound to one attempt at one round")


@pytest.mark.parametrize("kind", [CommitmentList, RevealList])
def test_nor_does_it_help_to_rewrite_their_context(kind):
    old, new = stopped(OLD, kind), stopped(NEW, kind)
    lie = replace(old.queue[0][1], context=NEW.context.digest())
    assert refusal(new.site_states[A], lie).site == COORDINATOR


def test_a_nonce_that_fits_its_old_commitment_fits_no_commitment_of_this_attempt():
    old = stopped(OLD, BeaconReveal)
    commitments = dict(old.coordinator_state.commitments)
    nonce = next(message.nonce for name, message in old.queue if name == B)
    assert commitment_of(OLD.context.digest(), B, nonce) == commitments[B]
    assert commitment_of(NEW.context.digest(), B, nonce) != commitments[B]
    # The coordinator lists B's old commitment and, when A has revealed for it, B's old nonce.
    new = stopped(NEW, CommitmentList)
    listed = new.queue[0][1]
    pairs = tuple((site, commitments[B] if site == B else value) for site, value in listed.commitments)
    new.tell_site(A, replace(listed, commitments=pairs))
    state = new.site_states[A]
    fresh = {m.site: m.nonce for _, m in stopped(NEW, BeaconReveal).queue}
    nonces = tuple(sorted({**fresh, A: state.reveal.nonce, B: nonce}.items()))
    reason = refusal(state, RevealList(context=NEW.context.digest(), nonces=nonces))
    assert (reason.site, reason.rule) == (COORDINATOR, "a nonce is the one that was committed to")


def test_messages_of_the_old_attempt_are_nobody_s_fault():
    new = GroupedRound(NEW)
    old = GroupedRound(OLD)
    new.tell_coordinator(old.queue[0][1])
    assert [effect.reason for effect in new.of(coordinator.Ignored)] == ["of another attempt"]
    assert new.blamed() == []


def test_a_group_of_the_old_attempt():
    """Its bundles are under contexts that cover the old attempt and its beacon."""
    old, new = stopped(OLD, KeyBundle), stopped(NEW, KeyBundle)
    bundles = {message.site: message for _, message in old.queue}
    state = new.site_states[A]
    event = BundlesListed(
        context=NEW.context.digest(), bundles=tuple(bundles[name] for name in sorted(state.own.sites))
    )
    reason = refusal(state, event)
    assert (reason.site, reason.rule) == (COORDINATOR, "every message is bound to one attempt at one round")
