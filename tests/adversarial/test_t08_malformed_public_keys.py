"""Threat 8: a colluding site advertises a key with which the shared secret is known to everyone, or no key at all.

Held by: `check_bundle` (privacy/secagg/checks.py) and `parse_public_key` of the suite (privacy/secagg/suites.py,
privacy/p256.py).
Tried: rows 8 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.secagg import coordinator
from privacy.secagg.messages import Phase
from privacy.secagg.suites import SUITES, SuiteName
from tests.fakes.liar import blamed, signed_bundle
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUPS = {suite: consortium(4, suite=suite) for suite in SuiteName}
A, D = site_name(0), site_name(3)
P = 2**255 - 19
P256_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
P256_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
Y_OF_5 = pow(5**3 - 3 * 5 + P256_B, (P256_PRIME + 1) // 4, P256_PRIME)
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
]
NOT_CANONICAL = [P, P + 1, 2**255 + 9, 2**256 - 1]

HONESTS = {
    suite: next(message for name, message in MemoryRound(group).queue if name == D) for suite, group in GROUPS.items()
}
HONEST, POINT = HONESTS[SuiteName.HYBRID_PQ], HONESTS[SuiteName.P256].pair_key


def curve(value):
    return HONEST.pair_key[:1184] + value.to_bytes(32, "little")


HYBRID = {
    **{f"low order {i}": curve(value) for i, value in enumerate(LOW_ORDER)},
    **{f"not canonical {i}": curve(value) for i, value in enumerate(NOT_CANONICAL)},
    "a second spelling": HONEST.pair_key[:-1] + bytes([HONEST.pair_key[-1] | 0x80]),
    "not reduced mod q": b"\xff" * 1152 + HONEST.pair_key[1152:],
    "one coefficient of q": (3329).to_bytes(2, "little") + HONEST.pair_key[2:],
    "short": HONEST.pair_key[:-1],
    "long": HONEST.pair_key + b"\0",
    "empty": b"",
    "a point on P-256": POINT,
}
ON_P256 = {
    "the identity": b"\0",
    "the identity, padded": bytes(65),
    "not on the curve": POINT[:-1] + bytes([POINT[-1] ^ 1]),
    "x not reduced": b"\4" + (5 + P256_PRIME).to_bytes(32, "big") + Y_OF_5.to_bytes(32, "big"),
    "compressed": bytes([2 + POINT[-1] % 2]) + POINT[1:33],
    "hybrid form": bytes([6 + POINT[-1] % 2]) + POINT[1:],
    "short": POINT[:-1],
    "long": POINT + b"\0",
    "empty": b"",
    "a hybrid key": HONEST.pair_key,
}
BAD = [(SuiteName.HYBRID_PQ, name, public) for name, public in HYBRID.items()]
BAD += [(SuiteName.P256, name, public) for name, public in ON_P256.items()]


@pytest.mark.parametrize(("suite", "public"), [(s, p) for s, _, p in BAD], ids=[f"{s}: {name}" for s, name, _ in BAD])
@pytest.mark.parametrize("field", ["pair_key", "box_key"])
def test_sites_and_coordinator_refuse_it_and_name_the_signer(field, suite, public):
    group = GROUPS[suite]
    lie = signed_bundle(group.member(D), replace(HONESTS[suite], **{field: public}))
    round_ = MemoryRound(group)
    round_.run(until=Phase.SHARE)
    request = round_.request_for(A)
    violation = blamed(round_.site_states[A], replace(request, bundles=(*request.bundles[:3], lie)))
    assert (violation.site, violation.rule) == (D, "public keys are well formed")
    state, effects = coordinator.step(coordinator.begin(group.context)[0], lie)
    assert [effect.violation.site for effect in effects if isinstance(effect, coordinator.Blame)] == [D]
    assert state.answers == ()


@pytest.mark.parametrize("suite", SuiteName)
@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_commitment_of_another_length_is_refused(suite, size):
    lie = signed_bundle(GROUPS[suite].member(D), replace(HONESTS[suite], self_mask_commitment=bytes(size)))
    _, effects = coordinator.step(coordinator.begin(GROUPS[suite].context)[0], lie)
    assert isinstance(effects[0], coordinator.Blame)


@pytest.mark.parametrize("suite", SuiteName)
def test_the_honest_key_is_accepted(suite):
    for public in (HONESTS[suite].pair_key, HONESTS[suite].box_key):
        assert SUITES[suite].parse_public_key(public)


def test_the_point_whose_second_spelling_is_refused_is_good_itself():
    assert SUITES[SuiteName.P256].parse_public_key(b"\4" + (5).to_bytes(32, "big") + Y_OF_5.to_bytes(32, "big"))
