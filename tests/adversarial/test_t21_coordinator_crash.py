"""Threat 21: the coordinator crashes anywhere, above all between 4.3 and 4.4, after shares have been released.

Its machine is a function of the journalled events, so the replayed state is the same and the attempt is finished, not
run again.
"""

import pytest

from privacy.secagg import coordinator
from privacy.secagg.messages import Phase
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
