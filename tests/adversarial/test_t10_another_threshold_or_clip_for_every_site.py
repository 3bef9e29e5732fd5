"""Threat 10: each site is shown another threshold, minimum, clip, scale, ring or roster.

A lower threshold for one site would let fewer sites open its update; a larger clip or scale would make its update count
for more, or wrap. Held by: `Context.digest` (privacy/secagg/context.py) and `Layout.canonical` (privacy/encoding.py),
which hold all of them: sites that were shown different ones do not understand each other. And by
`plan_check.check_plan` (site_agent): each of them follows from the study that the hospital approved.
Tried: rows 10 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from privacy.secagg import coordinator, site
from privacy.secagg.messages import COORDINATOR, Phase
from tests.fakes.invited_hospital import invited_hospital
from tests.fakes.liar import begun, blamed
from tests.fakes.memory_round import Consortium, MemoryRound, consortium, site_name

GROUP = consortium(4)
A, B = site_name(0), site_name(1)
UPDATE, WEIGHT = GROUP.context.layout.lanes


def layout(**changes):
    return replace(GROUP.context.layout, lanes=(replace(UPDATE, **changes), WEIGHT))


LIES = {
    "threshold": {"threshold": 4},
    "minimum": {"minimum": 4},
    "clip": {"layout": layout(clip=0.5)},
    "scale": {"layout": layout(scale=UPDATE.scale / 2)},
    "length": {"layout": layout(length=6)},
    "maximum weight": {"layout": replace(GROUP.context.layout, lanes=(UPDATE, replace(WEIGHT, clip=99.0)))},
    "ring": {"layout": replace(GROUP.context.layout, modulus_bits=64)},
    "lanes": {"layout": replace(GROUP.context.layout, lanes=(UPDATE, WEIGHT, replace(WEIGHT, name="extra")))},
    "roster": {"roster": GROUP.context.roster[:3]},
}


def members_of(context):
    return tuple(member for member in GROUP.members if context.entry(member.site))


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_site_that_was_shown_something_else_is_not_understood(lie):
    bundles = [begun(GROUP, site_name(i))[1] for i in range(4)]
    state, _ = begun(GROUP, A)
    _, other = begun(GROUP, B, replace(GROUP.context, **lie))
    for disguised in (other, replace(other, context=GROUP.context.digest())):
        mixed = (bundles[0], disguised, bundles[2], bundles[3])
        event = site.BundlesListed(context=GROUP.context.digest(), bundles=mixed)
        assert blamed(state, event).site == COORDINATOR


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_nor_do_its_boxes_or_masks_fit_the_others(lie):
    context = replace(GROUP.context, **lie)
    one = MemoryRound(GROUP)
    two = MemoryRound(Consortium(members=members_of(context), context=context))
    for round_ in (one, two):
        round_.run(until=Phase.MASK)
    disguised = replace(two.request_for(A), context=GROUP.context.digest())
    assert blamed(one.site_states[A], disguised).site == COORDINATOR
    seeds = [site.step(round_.site_states[A], round_.request_for(A))[0].masks.add[1].expose() for round_ in (one, two)]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_the_coordinator_itself_hears_only_one_context(lie):
    state, _ = coordinator.begin(GROUP.context)
    _, other = begun(GROUP, B, replace(GROUP.context, **lie))
    after, _ = coordinator.step(state, replace(other, context=GROUP.context.digest()))
    assert B in after.attempt.lost


def test_a_hospital_takes_them_from_the_study_it_approved(tmp_path):
    invited = invited_hospital(tmp_path)
    honest = invited.plan()
    update, *others = honest.layout.lanes

    def lanes(**changes):
        return replace(honest.layout, lanes=(replace(update, **changes), *others))

    assert invited.refuses(invited.plan(threshold=4)) == "threshold"
    assert invited.refuses(invited.plan(minimum=4)) == "minimum"
    for layout in (
        lanes(clip=update.clip / 2),
        lanes(scale=update.scale / 2),
        replace(honest.layout, modulus_bits=64),
        replace(honest.layout, lanes=(update,)),
    ):
        assert invited.refuses(invited.plan(layout=layout)) == "layout"
    invited.joins(honest)
