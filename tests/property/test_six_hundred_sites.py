"""Section 10: six hundred sites in groups of 65 and 66, each with its own machine and all of its checks.

Every site checks the signature of every other's commitment and of its nonce, and it is 600 times the same arithmetic:
two thirds of this test's time would go into it. Here its result is kept, for the same key, bytes and signature.
"""

import random
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from privacy.secagg import coordinator, grouped_coordinator, suites
from privacy.secagg.messages import BeaconPhase, Phase
from tests.fakes.grouped_round import PHASES, GroupedRound, grouped


@pytest.fixture(autouse=True)
def signatures_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every site still asks; a refusal is never kept, as nothing is kept of a function that raises."""
    for name, suite in suites.SUITES.items():
        kept = replace(suite, verify=cache(suite.verify), parse_public_key=cache(suite.parse_public_key))
        monkeypatch.setitem(suites.SUITES, name, kept)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_six_hundred_sites_with_dropouts_in_every_phase():
    group = grouped(600, group_size=64, minimum=500)
    shuffled = list(group.context.sites)
    random.Random("who drops out").shuffle(shuffled)
    # Two may be missing among the nonces; of the others five in every phase, some of them unnoticed till the deadline.
    counts = {phase: 2 if phase is BeaconPhase.REVEAL else 5 for phase in PHASES}
    losses = {shuffled.pop(): phase for phase, count in counts.items() for _ in range(count)}
    silent = frozenset(list(losses)[::4])

    round_ = GroupedRound(group, losses=losses, silent=silent)
    round_.run()

    sizes = [len(drawn) for drawn in round_.groups()]
    assert sum(sizes) == 600 - 5 - 2
    assert Counter(sizes) == {66: 8, 65: 1}
    in_the_sum = set(group.context.sites) - {
        name for name, phase in losses.items() if phase not in (Phase.CONFIRM, Phase.UNMASK)
    }
    assert set(round_.survivors) == in_the_sum
    assert len(in_the_sum) == 600 - 5 - 2 - 3 * 5
    assert (round_.aggregate() == round_.plain_aggregate()).all()
    assert round_.running_sum.count == len(in_the_sum)
    assert round_.dropouts() == losses
    assert round_.blamed() == []
    assert len(round_.of(coordinator.Unmasked)) == 1
    assert len(round_.of(grouped_coordinator.SendGroupedUnmaskRequest)) == 1


def test_fifty_sites_with_dropouts_in_every_phase():
    """The same in small, with messages out of order."""
    group = grouped(50, group_size=10, minimum=40)
    losses = dict(zip(group.context.sites[::7], PHASES, strict=False))
    round_ = GroupedRound(group, losses=losses, silent=frozenset(list(losses)[::2]), reorder=True)
    round_.run()
    assert sorted(len(drawn) for drawn in round_.groups()) == [12, 12, 12, 12]
    assert len(round_.survivors) == 50 - 5
    assert (round_.aggregate() == round_.plain_aggregate()).all()
    assert round_.dropouts() == losses
