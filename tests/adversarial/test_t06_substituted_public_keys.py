"""Threat 6: the coordinator puts its own public keys in a site's bundle, to open what is sealed for that site."""

from dataclasses import replace

import pytest

from privacy.secagg import keys
from privacy.secagg.messages import COORDINATOR, Phase
from privacy.secret import Secret
from tests.fakes.liar import blamed, signed_bundle
from tests.fakes.memory_round import Member, MemoryRound, consortium, site_name

GROUP = consortium(4)
A, B, D = site_name(0), site_name(1), site_name(3)
COORDINATORS_KEY = keys.pair_key(Secret(b"c" * 32), bytes(32), B).public


def listed():
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.SHARE)
    return round_.site_states[A], round_.request_for(A)


def with_bundle(request, bundle):
    return replace(request, bundles=tuple(bundle if b.site == bundle.site else b for b in request.bundles))


@pytest.mark.parametrize("field", ["pair_key", "box_key"])
def test_a_substituted_key_breaks_the_signature(field):
    state, request = listed()
    lie = replace(request.bundles[1], **{field: COORDINATORS_KEY})
    violation = blamed(state, with_bundle(request, lie))
    assert (violation.site, violation.evidence) == (COORDINATOR, f"not signed by {B}")


def test_a_key_signed_by_somebody_else_is_not_the_sites():
    state, request = listed()
    colluding = GROUP.member(D)
    lie = replace(request.bundles[1], box_key=COORDINATORS_KEY)
    forged = signed_bundle(Member(site=B, signing_key=colluding.signing_key, long_term_secret=Secret(b"")), lie)
    assert blamed(state, with_bundle(request, forged)).evidence == f"not signed by {B}"


def test_a_sites_own_bundle_cannot_be_changed_or_left_out():
    state, request = listed()
    assert blamed(state, replace(request, bundles=request.bundles[1:])).rule.startswith("this site's bundle")
    older = signed_bundle(GROUP.member(A), replace(request.bundles[0], box_key=COORDINATORS_KEY))
    assert blamed(state, with_bundle(request, older)).rule.startswith("this site's bundle")


def test_a_stranger_among_the_bundles_is_refused():
    state, request = listed()
    stranger = replace(request.bundles[3], site=site_name(9))
    lie = replace(request, bundles=(*request.bundles, stranger))
    assert blamed(state, lie).rule == "only participants are heard"


def test_a_site_listed_twice_is_refused():
    state, request = listed()
    lie = replace(request, bundles=(*request.bundles, request.bundles[3]))
    assert blamed(state, lie).rule == "bundles are sorted, one per site"
