"""Threat 16: a site reveals wrong shares: they are noticed, it is named, and the sum comes out right all the same.

Held by: `unmasking._recover` (privacy/secagg/unmasking.py), which compares every secret with what its owner committed
to, and `check_unmask_shares` (privacy/secagg/checks.py).
Tried: rows 16 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.errors import Unrecoverable
from privacy.secagg import coordinator
from privacy.secagg.messages import Phase, UnmaskShares
from privacy.secagg.shares import PRIME
from privacy.secagg.suites import SuiteName
from tests.fakes.liar import signed_unmask_shares
from tests.fakes.memory_round import Link, MemoryRound, consortium, site_name

A, B, C, D, E, F, G = (site_name(i) for i in range(7))
every_suite = pytest.mark.parametrize("suite", SuiteName)


def other(share, number):
    value = (int.from_bytes(share.share, "big") + 7**number) % PRIME
    return replace(share, share=value.to_bytes(33, "big"))


def round_with_liars(group, liars, kinds, links):
    round_ = MemoryRound(group, links=links)

    def lie(name, message):
        if name not in liars or not isinstance(message, UnmaskShares):
            return message
        number = group.context.share_number(name)
        changed = {kind: tuple(other(share, number) for share in getattr(message, kind)) for kind in kinds}
        return signed_unmask_shares(
            group.member(name), round_.site_states[name].transcript, replace(message, **changed)
        )

    round_.tamper_to_coordinator = lie
    round_.run()
    return round_


@every_suite
@pytest.mark.parametrize("liars", [[A], [C], [A, B], [B, F]])
@pytest.mark.parametrize("kinds", [["self_mask_shares"], ["root_shares"], ["self_mask_shares", "root_shares"]])
def test_the_sum_is_right_and_the_liars_are_named(suite, liars, kinds):
    group = consortium(7, suite=suite, threshold=4)
    round_ = round_with_liars(group, liars, kinds, {G: Link(lose_reply=Phase.MASK)})
    assert round_.survivors == (A, B, C, D, E, F)
    assert round_.sums() == round_.plain_sums()
    # With six shares and t = 4 one liar can be told for certain; two could frame others, so nobody is named.
    assert round_.blamed() == (liars if len(liars) == 1 else [])


@every_suite
def test_two_liars_are_named_when_enough_others_answer(suite):
    round_ = round_with_liars(consortium(7, suite=suite, threshold=4), [B, F], ["self_mask_shares"], {})
    assert round_.sums() == round_.plain_sums()
    assert round_.blamed() == [B, F]


@every_suite
def test_without_a_share_to_spare_the_sum_stays_masked(suite):
    round_ = round_with_liars(
        consortium(4, suite=suite, threshold=3), [B], ["self_mask_shares"], {D: Link(lose_reply=Phase.CONFIRM)}
    )
    assert round_.coordinator_state == coordinator.Aborted(reason=Unrecoverable(A, 3, 3))
    assert not any(isinstance(effect, coordinator.Unmasked) for effect in round_.effects)


@every_suite
@pytest.mark.parametrize("share", [b"", bytes(32), PRIME.to_bytes(33, "big")])
def test_a_share_that_is_not_a_field_element_is_refused_on_arrival(suite, share):
    group = consortium(5, suite=suite, threshold=3)
    round_ = MemoryRound(group)

    def lie(name, message):
        if name != B or not isinstance(message, UnmaskShares):
            return message
        first = replace(message.self_mask_shares[0], share=share)
        changed = replace(message, self_mask_shares=(first, *message.self_mask_shares[1:]))
        return signed_unmask_shares(group.member(B), round_.site_states[B].transcript, changed)

    round_.tamper_to_coordinator = lie
    round_.run()
    assert round_.blamed() == [B]
    assert round_.sums() == round_.plain_sums()
