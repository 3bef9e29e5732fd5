"""Threat 12: a survivor set, or a phase before it, with fewer sites than the threshold or the minimum.

Held by: `site._check_enough` (privacy/secagg/site.py), in every phase, and `Context.required`.
Tried: rows 12 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.errors import BelowThreshold
from privacy.secagg.messages import Phase
from tests.fakes.liar import refused
from tests.fakes.memory_round import MemoryRound, consortium, site_name

A = site_name(0)


def asked(group, until):
    round_ = MemoryRound(group)
    round_.run(until=until)
    return round_.site_states[A], round_.request_for(A)


@pytest.mark.parametrize(("threshold", "minimum", "needed"), [(4, 3, 4), (3, 4, 4), (3, 3, 3), (4, 5, 5)])
def test_one_site_too_few_is_refused_in_every_phase(threshold, minimum, needed):
    group = consortium(5, threshold=threshold, minimum=minimum)
    few = needed - 1
    state, listed = asked(group, Phase.SHARE)
    assert refused(state, replace(listed, bundles=listed.bundles[:few])) == BelowThreshold(few, needed)
    state, delivered = asked(group, Phase.MASK)
    fewer = replace(delivered, members=delivered.members[:few], deliveries=delivered.deliveries[: few - 1])
    assert refused(state, fewer) == BelowThreshold(few, needed)
    state, proposed = asked(group, Phase.CONFIRM)
    fewer = replace(proposed, survivors=proposed.survivors[:few], headers=proposed.headers[:few])
    assert refused(state, fewer) == BelowThreshold(few, needed)
