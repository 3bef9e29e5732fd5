"""Round plans against what the site expects; the lies of a whole coordinator are in tests/adversarial/test_s01."""

import dataclasses
from datetime import UTC, datetime

import numpy as np
import pytest

from consortium.contract.global_model import GlobalModel
from consortium.contract.names import Digest, SiteId
from consortium.contract.plan import context_of
from site_agent.plan_check import Expectation, PlanRefused, check_plan, check_signature
from site_agent.store import ChainLink
from tests.fakes.site_world import ME, ZEROS, endorsement, keys, make_world, small_study

STUDY = small_study()
MODEL = GlobalModel((("w", (4,)),), np.zeros(4, dtype=np.float32))
COORDINATOR = keys().coordinator.public_key().public_bytes_raw()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("home"), STUDY)
    world.model = MODEL
    return world


def expected(**changes):
    fields = {
        "consortium": "alpine-heart",
        "study": STUDY,
        "site": ME,
        "spki_sha256": keys().members[ME].spki_sha256,
        "parameter_count": 4,
        "first_model": MODEL.digest(),
        "chain": None,
        "joined": (0, 0),
        "released": frozenset(),
        "peers": {},
        "minimum_sites": 3,
        "minimum_threshold": 3,
    }
    return Expectation(**{**fields, **changes})


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


def test_fewer_hospitals_than_the_study_wants(world):
    assert (
        refused(world, world.plan(sites=("alder", "birch", "cedar"), minimum=3), expected(minimum_sites=4)) == "minimum"
    )


def test_turns_only_go_forward(world):
    for joined, rule in (((1, 1), "attempt"), ((1, 2), "attempt"), ((2, 1), "attempt")):
        assert refused(world, world.plan(), expected(joined=joined)) == rule
    check(world, world.plan(attempt=3), expected(joined=(1, 2)))
    plan = world.plan()
    assert refused(world, plan, expected(released=frozenset({context_of(plan).digest()}))) == "attempt"


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
