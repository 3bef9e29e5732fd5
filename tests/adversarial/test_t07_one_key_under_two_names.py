"""Threat 7: a colluding site advertises another site's public key, or reflects the victim's own, under its own name.

Its bundle is well signed, so only the rule that no key appears twice stands in the way.

Held by: `check_no_key_twice` (privacy/secagg/checks.py), at every site and at the coordinator.
Tried: rows 7 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.secagg import coordinator
from privacy.secagg.messages import Phase
from privacy.secagg.suites import SuiteName
from tests.fakes.liar import blamed, signed_bundle
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUPS = {suite: consortium(4, suite=suite) for suite in SuiteName}
A, B, D = site_name(0), site_name(1), site_name(3)


def lies(suite, bundles):
    """D's bundle with keys that are not D's own: B's, or A's own reflected to A; whole, crossed over, or in part."""
    own = bundles[3]
    for victim in (bundles[0], bundles[1]):
        yield replace(own, pair_key=victim.pair_key)
        yield replace(own, box_key=victim.box_key)
        yield replace(own, pair_key=victim.box_key)
        if suite is SuiteName.HYBRID_PQ:
            yield replace(own, pair_key=victim.pair_key[:1184] + own.pair_key[1184:])
            yield replace(own, box_key=own.box_key[:1184] + victim.pair_key[1184:])
        else:
            yield replace(own, pair_key=mirrored(victim.pair_key))
            yield replace(own, box_key=mirrored(victim.pair_key))
        yield replace(own, self_mask_commitment=victim.self_mask_commitment)
    yield replace(own, box_key=own.pair_key)


def mirrored(point):
    """The point with the same x: its owner's secret gives the same shared secrets under it."""
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    return point[:33] + (prime - int.from_bytes(point[33:], "big")).to_bytes(32, "big")


@pytest.mark.parametrize("suite", SuiteName)
@pytest.mark.parametrize("number", range(13))
def test_a_site_refuses_it_and_names_the_signer(suite, number):
    round_ = MemoryRound(GROUPS[suite])
    round_.run(until=Phase.SHARE)
    request = round_.request_for(A)
    lie = signed_bundle(GROUPS[suite].member(D), list(lies(suite, request.bundles))[number])
    violation = blamed(round_.site_states[A], replace(request, bundles=(*request.bundles[:3], lie)))
    assert (violation.site, violation.rule) == (D, "no key appears twice")


@pytest.mark.parametrize("suite", SuiteName)
@pytest.mark.parametrize("number", range(13))
def test_an_honest_coordinator_refuses_it_first(suite, number):
    round_ = MemoryRound(GROUPS[suite])
    bundles = [message for _, message in sorted(round_.queue, key=lambda pair: pair[0])]
    lie = signed_bundle(GROUPS[suite].member(D), list(lies(suite, bundles))[number])
    state = round_.coordinator_state
    for bundle in (*bundles[:3], lie):
        state, effects = coordinator.step(state, bundle)
        round_.effects.extend(effects)
    assert round_.blamed() == [D]
    assert [bundle.site for bundle in state.bundles] == [A, B, site_name(2)]
