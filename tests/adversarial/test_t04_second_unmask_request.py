"""Threat 4: the coordinator asks for shares a second time, also after the agent crashed and restarted.

It gets the very bytes that were released, if it asks for the very same sum (it may have lost them in a crash), and
nothing at all if it asks for any other. Held by: `site._repeat` and `site.repeats`, the state `Done` that holds the
released message and no other share, and machines that live in memory only.
Tried: rows 4 of `mutations.py`.
"""

import pickle
from dataclasses import replace

import pytest

from privacy.errors import OutOfOrder
from privacy.secagg import site
from privacy.secagg.messages import Phase
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUP = consortium(4)
A = site_name(0)


def requested():
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.UNMASK)
    return round_, round_.request_for(A)


def test_a_second_request_for_the_same_sum_gets_the_same_bytes_and_no_second_release():
    round_, request = requested()
    state, (released, sent) = site.step(round_.site_states[A], request)
    after, again = site.step(state, request)
    assert after == state
    assert again == (sent,)
    assert released.shares == sent.message
    assert "Secret" not in repr(state)


@pytest.mark.parametrize("which", ["context", "every transcript", "one transcript", "no confirmation"])
def test_a_second_request_for_another_sum_finds_nothing(which):
    round_, request = requested()
    state, _ = site.step(round_.site_states[A], request)
    first, *others = request.confirmations
    other = replace(first, transcript=bytes(32))
    second = {
        "context": replace(request, context=bytes(32)),
        "every transcript": replace(
            request, confirmations=tuple(replace(c, transcript=bytes(32)) for c in request.confirmations)
        ),
        "one transcript": replace(request, confirmations=(other, *others)),
        "no confirmation": replace(request, confirmations=()),
    }[which]
    with pytest.raises(OutOfOrder):
        site.step(state, second)


def test_what_is_kept_after_the_release_is_what_was_released_and_nothing_more():
    """Of every site one kind of share; the shares of the other kind are out of reach."""
    round_, request = requested()
    held = {shares.owner: shares for shares in round_.site_states[A].keyed.held}
    state, _ = site.step(round_.site_states[A], request)
    kept = [*state.shares.self_mask_shares, *state.shares.root_shares]
    assert sorted(share.owner for share in kept) == sorted(held)
    for share in state.shares.self_mask_shares:
        assert share.share == held[share.owner].self_mask.expose()
        assert held[share.owner].root.expose() not in [share.share for share in kept]


def test_the_release_is_recorded_before_the_shares_are_sent():
    round_, request = requested()
    _, effects = site.step(round_.site_states[A], request)
    assert [type(effect) for effect in effects] == [site.PersistReleased, site.Send]


@pytest.mark.parametrize("until", [Phase.SHARE, Phase.MASK, Phase.CONFIRM, Phase.UNMASK])
def test_no_state_survives_a_crash(until):
    """A restarted agent cannot have its old state: it is a dropout of this attempt."""
    round_ = MemoryRound(GROUP)
    round_.run(until=until)
    with pytest.raises(TypeError):
        pickle.dumps(round_.site_states[A])


def test_a_machine_begun_again_answers_no_later_phase():
    round_, request = requested()
    member = GROUP.member(A)
    again, bundle = site.begin(GROUP.context, A, member.signing_key, bytes, member.long_term_secret)
    with pytest.raises(OutOfOrder):
        site.step(again, request)
    assert bundle != round_.coordinator_state.schedule.bundle(A)
