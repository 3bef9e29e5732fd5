"""G-02: the coordinator shows sites different commitments, to learn nonces before others are fixed.

Held by: a site reveals for one list only, the list is in the beacon, and the beacon is in every group's context
(protocol 10.1 to 10.3); keys of a site that drew other groups do not verify. Tried: rows g02 of `mutations.py`;
without `commitments_hash` in `beacon_of`, or without the beacon in `Context.digest`, sites that saw different lists go
on together.
"""

from dataclasses import replace

import pytest

from privacy.errors import BelowThreshold, OutOfOrder, PeerViolation
from privacy.secagg import coordinator, grouped_site
from privacy.secagg.messages import COORDINATOR, BeaconPhase, BeaconReveal, CommitmentList, KeyBundle, RevealList
from privacy.secagg.site import BundlesListed
from tests.fakes.grouped_round import GroupedRound, grouped, refusal

GROUP = grouped(12, group_size=4, threshold=7, minimum=8)
A, B, C = GROUP.context.sites[:3]
LAST = GROUP.context.sites[-1]


def awaiting_commitments():
    round_ = GroupedRound(GROUP)
    round_.run(until=CommitmentList)
    return round_.site_states[A], round_.queue[0][1]


def test_a_site_that_was_shown_another_list_reveals_nothing_the_coordinator_can_use():
    """A is shown a list without C; its nonce is for that list, and the honest machine in the middle says so."""

    def lie(name, message):
        if name == A and isinstance(message, CommitmentList):
            return replace(message, commitments=tuple(pair for pair in message.commitments if pair[0] != C))
        return message

    round_ = GroupedRound(GROUP, tamper_to_site=lie)
    round_.run()
    violation = round_.of(coordinator.Blame)[0].violation
    assert (violation.site, violation.rule) == (A, "a nonce is for the list of commitments that was sent")
    assert round_.dropouts() == {A: BeaconPhase.REVEAL}


ONE_GROUP = grouped(7, group_size=4, threshold=4, minimum=5)


@pytest.mark.parametrize("group", [GROUP, ONE_GROUP])
def test_sites_that_were_shown_different_lists_refuse_each_other_s_keys(group):
    """Everybody gets the same nonces; only what A saw as the commitment of C differs, and C's nonce is left out.

    Also when all that are left are one group, and so are the same sites either way.
    """
    round_ = GroupedRound(group)
    round_.run(until=CommitmentList)
    for name, listed in list(round_.queue):
        lie = tuple((site, b"c" * 32 if site == C else value) for site, value in listed.commitments)
        round_.tell_site(name, replace(listed, commitments=lie) if name == A else listed)
    revealed = {m.site: m.nonce for _, m in round_.queue if isinstance(m, BeaconReveal) and m.site != C}
    listed = RevealList(context=group.context.digest(), nonces=tuple(sorted(revealed.items())))
    bundles = {}
    for name in revealed:
        round_.tell_site(name, listed)
        bundles[name] = round_.queue[-1][1]
        assert isinstance(bundles[name], KeyBundle)
    one, others = round_.site_states[A], round_.site_states[B]
    assert not {drawn.digest for drawn in one.groups} & {drawn.digest for drawn in others.groups}
    own = sorted(one.own.sites)
    event = BundlesListed(context=listed.context, bundles=tuple(bundles[name] for name in own))
    reason = refusal(one, event)
    assert isinstance(reason, PeerViolation)
    assert (reason.site, reason.rule) == (COORDINATOR, "every message is bound to one attempt at one round")


@pytest.mark.parametrize(
    "lie",
    [
        lambda pairs: pairs[::-1],
        lambda pairs: (pairs[0], *pairs),
        lambda pairs: (*pairs, ("site-q", bytes(32))),
        lambda pairs: (*pairs[:-1], (LAST, bytes(31))),
    ],
)
def test_a_list_that_an_honest_coordinator_does_not_send(lie):
    state, listed = awaiting_commitments()
    assert refusal(state, replace(listed, commitments=lie(listed.commitments))).site == COORDINATOR


def test_a_list_without_this_site_s_commitment_or_with_another_one():
    state, listed = awaiting_commitments()
    for pairs in (listed.commitments[1:], ((A, bytes(32)), *listed.commitments[1:])):
        reason = refusal(state, replace(listed, commitments=pairs))
        assert (reason.site, reason.rule) == (COORDINATOR, "this site's commitment is listed unchanged")


def test_a_nonce_is_revealed_once():
    """A second list, with a commitment made after A's nonce was known, finds nobody to reveal for it."""
    state, listed = awaiting_commitments()
    revealing, _ = grouped_site.step(state, listed)
    with pytest.raises(OutOfOrder):
        grouped_site.step(revealing, replace(listed, commitments=listed.commitments[:-1]))


def test_a_list_so_short_that_colluding_sites_could_fill_the_groups():
    state, listed = awaiting_commitments()
    assert refusal(state, replace(listed, commitments=listed.commitments[:7])) == BelowThreshold(7, 8)
    enough, _ = grouped_site.step(state, replace(listed, commitments=listed.commitments[:8]))
    assert isinstance(enough, grouped_site.Revealing)
