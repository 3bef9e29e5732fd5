"""Threat 6: the coordinator puts its own public keys in a site's bundle, to open what is sealed for that site.

Held by: `check_bundle` (privacy/secagg/checks.py), which verifies every bundle against the roster, and
`site._check_bundles`: a site knows its own.
Tried: rows 6 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy import p256
from privacy.secagg import keys
from privacy.secagg.messages import COORDINATOR, Phase
from privacy.secagg.suites import SuiteName
from privacy.secret import Secret
from tests.fakes.liar import blamed, signed_bundle
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUPS = {suite: consortium(4, suite=suite) for suite in SuiteName}
A, B, D = site_name(0), site_name(1), site_name(3)


@pytest.fixture(params=GROUPS.values(), ids=GROUPS.keys())
def group(request):
    return request.param


def coordinators_key(group):
    return keys.pair_key(group.context.algorithms, Secret(b"c" * 32), bytes(32), B).public


def listed(group):
    round_ = MemoryRound(group)
    round_.run(until=Phase.SHARE)
    return round_.site_states[A], round_.request_for(A)


def with_bundle(request, bundle):
    return replace(request, bundles=tuple(bundle if b.site == bundle.site else b for b in request.bundles))


@pytest.mark.parametrize("field", ["pair_key", "box_key"])
def test_a_substituted_key_breaks_the_signature(group, field):
    state, request = listed(group)
    lie = replace(request.bundles[1], **{field: coordinators_key(group)})
    violation = blamed(state, with_bundle(request, lie))
    assert (violation.site, violation.evidence) == (COORDINATOR, f"not signed by {B}")


def test_a_key_signed_by_somebody_else_is_not_the_sites(group):
    state, request = listed(group)
    lie = replace(request.bundles[1], box_key=coordinators_key(group))
    forged = signed_bundle(group.member(D), lie)
    assert blamed(state, with_bundle(request, forged)).evidence == f"not signed by {B}"


def test_a_sites_own_bundle_cannot_be_changed_or_left_out(group):
    state, request = listed(group)
    assert blamed(state, replace(request, bundles=request.bundles[1:])).rule.startswith("this site's bundle")
    older = signed_bundle(group.member(A), replace(request.bundles[0], box_key=coordinators_key(group)))
    assert blamed(state, with_bundle(request, older)).rule.startswith("this site's bundle")


def test_a_stranger_among_the_bundles_is_refused(group):
    state, request = listed(group)
    stranger = replace(request.bundles[3], site=site_name(9))
    lie = replace(request, bundles=(*request.bundles, stranger))
    assert blamed(state, lie).rule == "only participants are heard"


def test_a_site_listed_twice_is_refused(group):
    state, request = listed(group)
    lie = replace(request, bundles=(*request.bundles, request.bundles[3]))
    assert blamed(state, lie).rule == "bundles are sorted, one per site"


def test_a_signature_cannot_be_turned_into_another():
    """ECDSA accepts two signatures, (r, s) and (r, n - s), and the coordinator can compute either from the other.

    Shown to different sites they would give different T1s, and it could say that a site signed twice. Fails when
    `p256.verify` takes any s below n.
    """
    group = GROUPS[SuiteName.P256]
    state, request = listed(group)
    signature = request.bundles[1].signature
    other = signature[:32] + (p256.ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    lie = with_bundle(request, replace(request.bundles[1], signature=other))
    violation = blamed(state, lie)
    assert (violation.site, violation.evidence) == (COORDINATOR, f"not signed by {B}")


def test_a_key_of_the_other_suite_is_refused_though_it_is_signed(group):
    """A colluding site cannot weaken an attempt to the other suite for itself: sizes and forms are the attempt's."""
    other = next(g for g in GROUPS.values() if g is not group)
    state, request = listed(group)
    lie = signed_bundle(group.member(D), replace(request.bundles[3], box_key=coordinators_key(other)))
    violation = blamed(state, with_bundle(request, lie))
    assert (violation.site, violation.rule) == (D, "public keys are well formed")
