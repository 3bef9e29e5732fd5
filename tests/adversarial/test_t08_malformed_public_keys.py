"""Threat 8: a colluding site advertises a key with which the shared secret is known to everyone, or no key at all."""

from dataclasses import replace

import pytest

from privacy.secagg import coordinator, keys
from privacy.secagg.messages import Phase
from tests.fakes.liar import blamed, signed_bundle
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUP = consortium(4)
A, D = site_name(0), site_name(3)
P = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
]
NOT_CANONICAL = [P, P + 1, 2**255 + 9, 2**256 - 1]

HONEST = next(message for name, message in MemoryRound(GROUP).queue if name == D)


def curve(value):
    return HONEST.pair_key[:1184] + value.to_bytes(32, "little")


BAD = {
    **{f"low order {i}": curve(value) for i, value in enumerate(LOW_ORDER)},
    **{f"not canonical {i}": curve(value) for i, value in enumerate(NOT_CANONICAL)},
    "a second spelling": HONEST.pair_key[:-1] + bytes([HONEST.pair_key[-1] | 0x80]),
    "not reduced mod q": b"\xff" * 1152 + HONEST.pair_key[1152:],
    "one coefficient of q": (3329).to_bytes(2, "little") + HONEST.pair_key[2:],
    "short": HONEST.pair_key[:-1],
    "long": HONEST.pair_key + b"\0",
    "empty": b"",
}


@pytest.mark.parametrize("public", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("field", ["pair_key", "box_key"])
def test_sites_and_coordinator_refuse_it_and_name_the_signer(field, public):
    lie = signed_bundle(GROUP.member(D), replace(HONEST, **{field: public}))
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.SHARE)
    request = round_.request_for(A)
    violation = blamed(round_.site_states[A], replace(request, bundles=(*request.bundles[:3], lie)))
    assert (violation.site, violation.rule) == (D, "public keys are well formed")
    state, effects = coordinator.step(coordinator.begin(GROUP.context)[0], lie)
    assert [effect.violation.site for effect in effects if isinstance(effect, coordinator.Blame)] == [D]
    assert state.answers == ()


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_commitment_of_another_length_is_refused(size):
    lie = signed_bundle(GROUP.member(D), replace(HONEST, self_mask_commitment=bytes(size)))
    _, effects = coordinator.step(coordinator.begin(GROUP.context)[0], lie)
    assert isinstance(effects[0], coordinator.Blame)


def test_the_honest_key_is_accepted():
    keys.parse_public_key(HONEST.pair_key)
    keys.parse_public_key(HONEST.box_key)
