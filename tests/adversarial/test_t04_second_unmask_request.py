"""Threat 4: the coordinator asks for shares a second time, also after the agent crashed and restarted."""

import pickle

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


def test_a_second_request_finds_nothing():
    round_, request = requested()
    state, first = site.step(round_.site_states[A], request)
    assert len(first) == 2
    with pytest.raises(OutOfOrder):
        site.step(state, request)
    assert "Secret" not in repr(state)


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
