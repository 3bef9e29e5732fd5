"""Threat 21: the coordinator crashes anywhere, above all between 4.3 and 4.4, after shares have been released.

Its machine is a function of the journalled events, so the replayed state is the same and the attempt is finished, not
run again.

Held by: `coordinator.step`, which draws nothing and reads no clock, and `coordinator._return`, which asks again for
shares that were lost. Over the wire: tests/integration/test_lying_coordinator.py.
Tried: rows 21 of `mutations.py`.
"""

import pytest

from privacy.secagg import coordinator, site
from privacy.secagg.messages import Phase, UnmaskShares
from tests.fakes.memory_round import Link, MemoryRound, consortium, site_name

GROUP = consortium(5, threshold=3)


class JournallingRound(MemoryRound):
    """A round whose coordinator writes down every event before it acts on it."""

    def tell_coordinator(self, event):
        JOURNAL.append(event)
        super().tell_coordinator(event)


JOURNAL = []
ROUND = JournallingRound(GROUP, links={site_name(4): Link(lose_reply=Phase.MASK)})
ROUND.run()


@pytest.mark.parametrize("crash_after", range(len(JOURNAL) + 1))
def test_a_replay_from_any_line_of_the_journal_ends_in_the_same_place(crash_after):
    effects = []
    for events in (JOURNAL[:crash_after], JOURNAL):  # the first process is gone; the second replays all
        state, made = coordinator.begin(GROUP.context)
        effects = list(made)
        for event in events:
            state, more = coordinator.step(state, event)
            effects += more
    assert state == ROUND.coordinator_state
    assert effects == ROUND.effects


def unmasking_after_a_crash():
    """The state that a restarted coordinator finds, and what every site had to say: none of the shares arrived."""
    state, _ = coordinator.begin(GROUP.context)
    for event in JOURNAL:
        if not isinstance(event, UnmaskShares):
            state, _ = coordinator.step(state, event)
    assert isinstance(state, coordinator.Unmasking)
    return state


def test_shares_lost_in_the_crash_are_asked_for_again_and_the_sum_is_opened():
    """The sites have released, and answer the same request with the same bytes: nothing is run again."""
    state = unmasking_after_a_crash()
    asked = []
    for name in sorted(state.asked):
        state, effects = coordinator.step(state, coordinator.SiteLost(site=name, may_return=True))
        state, effects = coordinator.step(state, coordinator.SiteReturned(site=name))
        asked += effects
    assert [effect.to for effect in asked] == [(name,) for name in sorted(state.asked)]
    for effect in asked:
        (name,) = effect.to
        assert effect.request == state.request
        done, (again,) = site.step(ROUND.site_states[name], effect.request)
        assert done == ROUND.site_states[name]
        assert again.message in JOURNAL  # what it sent before the crash, byte for byte
        state, effects = coordinator.step(state, again.message)
    (unmasked,) = [effect for effect in effects if isinstance(effect, coordinator.Unmasked)]
    assert unmasked in ROUND.effects
    assert state == ROUND.coordinator_state


def test_another_survivor_set_is_not_asked_for_after_the_crash():
    """Uploads that are in the journal twice, or late, change nothing: U3 is what the signatures are over."""
    state = unmasking_after_a_crash()
    for event in JOURNAL:
        if not isinstance(event, UnmaskShares):
            after, effects = coordinator.step(state, event)
            assert after == state
            assert not any(isinstance(effect, coordinator.SendProposal | coordinator.Unmasked) for effect in effects)
