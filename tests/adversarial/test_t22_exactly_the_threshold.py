"""Threat 22: exactly t sites are left in a phase, and then one fewer.

Held by: `coordinator._settle` and `coordinator._needed` (privacy/secagg/coordinator.py).
Tried: rows 22 of `mutations.py`.
"""

import pytest

from privacy.errors import BelowThreshold
from privacy.secagg import coordinator
from privacy.secagg.messages import Phase
from tests.fakes.memory_round import Link, MemoryRound, consortium, site_name


@pytest.mark.parametrize("side", ["lose_request", "lose_reply"])
@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize(("n", "t"), [(3, 3), (4, 3), (5, 3), (5, 4)])
def test_t_are_enough_and_one_fewer_is_not(n, t, phase, silent, side):
    group = consortium(n, threshold=t)
    for left in (t, t - 1):
        links = {site_name(i): Link(**{side: phase}, silent=silent) for i in range(n - left)}
        round_ = MemoryRound(group, links=links)
        round_.run()
        if left == t:
            assert (round_.aggregate() == round_.plain_aggregate()).all()
        else:
            assert round_.coordinator_state == coordinator.Aborted(reason=BelowThreshold(t - 1, t))
            assert not any(isinstance(effect, coordinator.Unmasked) for effect in round_.effects)
