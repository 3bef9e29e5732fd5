"""Threat 9: each site is shown another global model, so that their updates differ by the coordinator's design.

Held by: `Context.digest` (privacy/secagg/context.py), on which every signature and every mask depends: a site that was
shown another model is not understood by the others, and its masks would not cancel. A real site notices before that,
because it computed the model of the round itself: `plan_check._check_model` (site_agent).
Tried: rows 9 of `mutations.py`.
"""

from dataclasses import replace

import pytest

from consortium.contract.names import Digest
from privacy.secagg import coordinator, site
from privacy.secagg.messages import COORDINATOR, Phase
from tests.fakes.invited_hospital import invited_hospital
from tests.fakes.liar import begun, blamed
from tests.fakes.memory_round import Consortium, MemoryRound, consortium, site_name
from tests.fakes.site_world import ME, SITES, endorsement, keys

GROUP = consortium(4)
A, B = site_name(0), site_name(1)
LIES = {
    "model": {"model_hash": b"m" * 32},
    "history": {"previous_transcript": b"h" * 32},
    "plan": {"plan_hash": b"p" * 32},
    "study": {"study_hash": b"s" * 32},
}


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
    one = MemoryRound(GROUP)
    two = MemoryRound(Consortium(members=GROUP.members, context=replace(GROUP.context, **lie)))
    for round_ in (one, two):
        round_.run(until=Phase.MASK)
    disguised = replace(two.request_for(A), context=GROUP.context.digest())
    assert blamed(one.site_states[A], disguised).site == COORDINATOR
    seeds = [site.step(round_.site_states[A], round_.request_for(A))[0].masks.add[1].expose() for round_ in (one, two)]
    assert seeds[0] != seeds[1]


def test_the_coordinator_itself_hears_only_one_model():
    state, _ = coordinator.begin(GROUP.context)
    _, other = begun(GROUP, B, replace(GROUP.context, model_hash=b"m" * 32))
    after, _ = coordinator.step(state, replace(other, context=GROUP.context.digest()))
    assert B in after.attempt.lost


def test_a_hospital_joins_for_the_model_it_computed_itself_and_no_other(tmp_path):
    invited = invited_hospital(tmp_path)
    other = Digest("ab" * 32)
    assert invited.refuses(invited.plan(model_digest=other)) == "model"
    assert invited.refuses(invited.plan(previous_transcript=other)) == "previous transcript"
    invited.joins(invited.plan())


def test_nor_for_another_one_after_it_missed_rounds_unless_enough_others_signed_it(tmp_path):
    """Endorsements of fewer than t hospitals, of another model or another round, are none."""
    invited = invited_hospital(tmp_path)
    plan = invited.plan(round=2)
    honest = [endorsement(keys().members[name], invited.plan(), plan.model_digest) for name in SITES if name != ME]
    invited.joins(plan, endorsements=tuple(honest))
    elsewhere = endorsement(keys().members[SITES[0]], invited.plan(), Digest("ab" * 32))
    later = endorsement(keys().members[SITES[0]], plan, plan.model_digest)
    for endorsements in (honest[:2], [*honest[:2], honest[0]], [*honest[1:], elsewhere], [*honest[1:], later]):
        assert invited.refuses(plan, endorsements=tuple(endorsements)) == "model"
