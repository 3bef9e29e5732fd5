"""Round plans against what the site expects; the lies of a whole coordinator are in tests/adversarial/test_s01."""

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest

from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import largest_layout, round_layout
from consortium.contract.names import Digest, SiteId
from consortium.contract.plan import RoundKind
from privacy.secagg.suites import SuiteName
from site_agent.plan_check import PlanRefused, check_plan, check_signature
from site_agent.store import ChainLink
from tests.fakes.invited_hospital import MODEL, expectation
from tests.fakes.site_world import ME, ZEROS, endorsement, keys, make_world, small_study

STUDY = small_study()
COORDINATOR = keys().coordinator.public_key().public_bytes_raw()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("home"), STUDY)
    world.model = MODEL
    return world


def expected(**changes):
    return expectation(**{"study": STUDY, **changes})


def check(world, plan, expectation=None, **changes):
    invitation = world.invitation(plan, **changes)
    check_signature(invitation, COORDINATOR)
    check_plan(
        plan, invitation, expectation or expected(), authority=keys().authority.certificate, now=datetime.now(UTC)
    )


def refused(world, plan, expectation=None, **changes):
    with pytest.raises(PlanRefused) as caught:
        check(world, plan, expectation, **changes)
    assert caught.value.advice()
    return caught.value.rule


def test_an_honest_plan(world):
    check(world, world.plan())
    check(world, world.plan(measured=False))
    check(world, world.plan(attempt=7))
    check(world, world.plan(sites=("alder", "birch", "cedar")))


def test_the_lanes_of_an_update_are_cut_where_the_studys_clips_say(tmp_path):
    """A coordinator that gives one parameter another one's clip could make its steps coarse, or cut it away."""
    parameters = (("0.bias", (1,)), ("0.weight", (1, 3)))
    study = small_study(aggregation={"tensor_clips": {"0.bias": 0.25}})
    world = make_world(tmp_path, study)
    world.model = GlobalModel(parameters, np.zeros(4, dtype=np.float32))
    knows = expected(study=study, parameters=parameters, first_model=world.model.digest())
    plan = world.plan()
    check(world, plan, knows)
    bias, weight, *others = plan.layout.lanes
    assert (bias.name, bias.length, weight.name, weight.length) == ("update/0", 1, "update/1", 3)
    for update in (
        (dataclasses.replace(bias, length=3), dataclasses.replace(weight, length=1)),
        (dataclasses.replace(bias, clip=weight.clip, scale=weight.scale), weight),
        (dataclasses.replace(weight, name="update", length=4),),
        (dataclasses.replace(weight, name="update/0"), dataclasses.replace(bias, name="update/1")),
    ):
        lie = dataclasses.replace(plan, layout=dataclasses.replace(plan.layout, lanes=(*update, *others)))
        assert refused(world, lie, knows) == "layout"


def test_the_suite_is_the_studys(world):
    assert refused(world, world.plan(suite=SuiteName.P256)) == "suite"
    study = small_study(aggregation={"suite": "p256"})
    plan = dataclasses.replace(world.plan(suite=SuiteName.P256), study_digest=study.digest())
    check(world, plan, expected(study=study))
    downgraded = dataclasses.replace(plan, suite=SuiteName.HYBRID_PQ)
    assert refused(world, downgraded, expected(study=study)) == "suite"


@pytest.mark.parametrize("field", ["signing_key", "ecdsa_key"])
def test_both_signing_keys_are_those_of_the_certificate(world, field):
    """Whichever suite the study has: the other key must be right for the next one."""
    plan = world.plan()
    first, second, *others = plan.participants
    swapped = dataclasses.replace(first, **{field: getattr(second, field)})
    lie = dataclasses.replace(plan, participants=(swapped, second, *others))
    assert refused(world, lie) == f"keys of {first.site}"


MANY = tuple(sorted((*(f"site-{number:02}" for number in range(96)), "alder", "birch", "cedar", "dogwood")))
GROUPED = small_study(
    sites={"required": MANY, "minimum": 64}, aggregation={"threshold": 67, "group_size": 64}, training={"rounds": 2}
)


def grouped_plan(world, **changes):
    """A plan of 64 hospitals in one group; their keys do not matter to what is looked at before them."""
    participants = tuple(
        dataclasses.replace(world.plan().participants[0], site=SiteId(name)) for name in sorted((*MANY[:63], ME))
    )
    fields = {
        "study_digest": GROUPED.digest(),
        "participants": participants,
        "threshold": 67,
        "minimum": 64,
        "group_size": 64,
        "layout": largest_layout(GROUPED, parameters=MODEL.parameters),
    }
    return dataclasses.replace(world.plan(), **{**fields, **changes})


def test_hospitals_are_divided_as_the_study_says_and_as_small_as_it_says(world):
    assert refused(world, world.plan(group_size=3)) == "group size"
    knows = expected(study=GROUPED)
    for group_size in (0, 3, 63, 65):
        assert refused(world, grouped_plan(world, group_size=group_size), knows) == "group size"
    # What follows in the order of the checks, with the right size, are the keys of the others.
    assert refused(world, grouped_plan(world), knows).startswith("keys of")


def test_a_hospitals_floors_are_held_against_the_sum_of_a_group(world):
    assert (GROUPED.sites_in_a_sum, GROUPED.sites_that_open) == (43, 43)
    for floor, rule in (("minimum_sites", "minimum"), ("minimum_threshold", "threshold")):
        assert refused(world, grouped_plan(world), expected(study=GROUPED, **{floor: 44})) == rule
        assert refused(world, grouped_plan(world), expected(study=GROUPED, **{floor: 43})).startswith("keys of")


def test_no_metrics_and_no_evaluation_in_groups(world):
    measured = round_layout(GROUPED, parameters=MODEL.parameters, kind=RoundKind.TRAIN, measured=True)
    assert refused(world, grouped_plan(world, layout=measured), expected(study=GROUPED)) == "layout"
    link = ChainLink(round=2, model_digest=MODEL.digest(), transcript=ZEROS)
    last = grouped_plan(world, round=3, kind=RoundKind.EVALUATE)
    assert refused(world, last, expected(study=GROUPED, chain=link)) == "round"


def test_fewer_hospitals_than_the_study_wants(world):
    assert (
        refused(world, world.plan(sites=("alder", "birch", "cedar"), minimum=3), expected(minimum_sites=4)) == "minimum"
    )


def test_turns_only_go_forward(world):
    for joined, rule in (((1, 1), "attempt"), ((1, 2), "attempt"), ((2, 1), "attempt")):
        assert refused(world, world.plan(), expected(joined=joined)) == rule
    check(world, world.plan(attempt=3), expected(joined=(1, 2)))
    plan = world.plan()
    assert refused(world, plan, expected(released=True)) == "attempt"


def test_the_next_round_continues_the_chain(world):
    link = ChainLink(round=1, model_digest=MODEL.digest(), transcript=Digest("a" * 64))
    follows = world.plan(round=2, previous_transcript=link.transcript)
    check(world, follows, expected(chain=link))
    assert refused(world, world.plan(round=2), expected(chain=link)) == "previous transcript"
    other = dataclasses.replace(link, model_digest=Digest("b" * 64))
    assert refused(world, follows, expected(chain=other)) == "model"
    assert refused(world, world.plan(round=1), expected(chain=link)) == "round"


def test_rounds_that_were_missed_need_endorsements(world):
    before = world.plan(round=1)
    model = Digest("c" * 64)
    plan = world.plan(round=2, model_digest=model, previous_transcript=Digest("d" * 64))
    signed = [endorsement(member, before, model) for member in keys().members.values()]
    assert refused(world, plan, endorsements=tuple(signed[:2])) == "model"
    check(world, plan, endorsements=tuple(signed[1:]))
    check(world, plan, endorsements=tuple(signed))
    # A hospital that sits this round out still counts, by the key this site has known it by; a stranger does not.
    fewer = world.plan(
        sites=("alder", "birch", "cedar"), round=2, model_digest=model, previous_transcript=Digest("d" * 64)
    )
    absent = endorsement(keys().members["dogwood"], before, model)
    shown = (*(endorsement(keys().members[name], before, model) for name in ("alder", "cedar")), absent)
    assert refused(world, fewer, endorsements=shown) == "model"
    known = {
        SiteId(name): member.signing_key.public_key().public_bytes_raw().hex()
        for name, member in keys().members.items()
    }
    check(world, fewer, expected(peers=known), endorsements=shown)
    stranger = {SiteId("elm"): known[SiteId("dogwood")]}
    assert refused(world, fewer, expected(peers=stranger), endorsements=shown) == "model"


def test_the_evaluation_is_the_last_round_and_measures(world):
    link = ChainLink(round=2, model_digest=MODEL.digest(), transcript=ZEROS)
    check(world, world.plan(round=3), expected(chain=link))
    assert refused(world, world.plan(round=4), expected(chain=dataclasses.replace(link, round=3))) == "round"


def test_metrics_only_in_the_rounds_that_have_them(world):
    study = small_study(evaluation={"every_rounds": 2})
    link = ChainLink(round=1, model_digest=MODEL.digest(), transcript=ZEROS)
    asked = expected(study=study, chain=link)
    plan = dataclasses.replace(world.plan(round=2, measured=True), study_digest=study.digest())
    assert refused(world, plan, asked) == "layout"
    check(world, dataclasses.replace(world.plan(round=2, measured=False), study_digest=study.digest()), asked)


def test_a_refusal_does_not_tell_the_hospitals_floor(world):
    for rule in ("minimum_sites", "minimum_threshold"):
        with pytest.raises(PlanRefused) as caught:
            check(world, world.plan(), expected(**{rule: 97}))
        assert "97" not in str(caught.value)
        assert rule in str(caught.value)
