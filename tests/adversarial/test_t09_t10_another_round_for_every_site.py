"""Threats 9 and 10: each site is shown another model, threshold, minimum, clip, scale, roster or plan.

Everything that is signed or derived depends on the digest of the context, so a site that was shown another one is
not understood by the others: its bundle is refused, and no share ever leaves.
"""

from dataclasses import replace

import pytest

from privacy.secagg import coordinator, site
from privacy.secagg.messages import COORDINATOR, Phase
from tests.fakes.liar import blamed
from tests.fakes.memory_round import Consortium, MemoryRound, consortium, deterministic_entropy, site_name

GROUP = consortium(4)
A, B = site_name(0), site_name(1)
UPDATE, WEIGHT = GROUP.context.layout.lanes


def layout(**changes):
    return replace(GROUP.context.layout, lanes=(replace(UPDATE, **changes), WEIGHT))


LIES = {
    "model": {"model_hash": b"m" * 32},
    "threshold": {"threshold": 4},
    "minimum": {"minimum": 4},
    "clip": {"layout": layout(clip=0.5)},
    "scale": {"layout": layout(scale=UPDATE.scale / 2)},
    "length": {"layout": layout(length=6)},
    "plan": {"plan_hash": b"p" * 32},
    "history": {"previous_transcript": b"h" * 32},
    "roster": {"roster": GROUP.context.roster[:3]},
}


def begun(context, name):
    member = GROUP.member(name)
    return site.begin(
        context, name, member.signing_key, deterministic_entropy("a round of " + name), member.long_term_secret
    )


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_site_that_was_shown_something_else_is_not_understood(lie):
    bundles = [begun(GROUP.context, site_name(i)) for i in range(4)]
    _, other = begun(replace(GROUP.context, **lie), B)
    for disguised in (other, replace(other, context=GROUP.context.digest())):
        mixed = (bundles[0][1], disguised, bundles[2][1], bundles[3][1])
        event = site.BundlesListed(context=GROUP.context.digest(), bundles=mixed)
        assert blamed(bundles[0][0], event).site == COORDINATOR


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_nor_do_its_boxes_or_masks_fit_the_others(lie):
    one = MemoryRound(Consortium(members=GROUP.members, context=GROUP.context))
    context = replace(GROUP.context, **lie)
    members = tuple(member for member in GROUP.members if context.entry(member.site))
    two = MemoryRound(Consortium(members=members, context=context))
    for round_ in (one, two):
        round_.run(until=Phase.MASK)
    disguised = replace(two.request_for(A), context=GROUP.context.digest())
    assert blamed(one.site_states[A], disguised).site == COORDINATOR
    seeds = [site.step(round_.site_states[A], round_.request_for(A))[0].masks.add[1].expose() for round_ in (one, two)]
    assert seeds[0] != seeds[1]


def test_the_coordinator_itself_hears_only_one_context():
    state, _ = coordinator.begin(GROUP.context)
    _, other = begun(replace(GROUP.context, threshold=4), B)
    after, _ = coordinator.step(state, replace(other, context=GROUP.context.digest()))
    assert B in after.attempt.lost
