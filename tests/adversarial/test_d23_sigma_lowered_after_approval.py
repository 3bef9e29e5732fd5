"""D-23: the noise is lowered after the steward approved: in the study, in the plan, or in what was approved here.

Held by: the digest a steward approves covers the epsilon that sigma follows from (`preparation.approved_study`), no
plan carries a sigma, and every hospital calibrates for itself (`training_spec.spec_of`). Tried: rows d23 of
`mutations.py` (approval of whatever was approved, noise for the rounds alone); the last test pins down what a plan has.
"""

import dataclasses

import pytest

from consortium.contract.plan import RoundPlan
from privacy.dp.calibrate import calibrate
from site_agent.preparation import Declined, prepare
from site_agent.room_in_process import RoomInProcess
from tests.fakes.site_world import make_world, small_study

STUDY = small_study()


@pytest.mark.parametrize(
    "section",
    [
        {"privacy": {"epsilon": 1.01}},
        {"privacy": {"delta": 2e-3}},
        {"training": {"sampling_rate": 0.19}},
        {"training": {"rounds": 1}},
        {"training": {"spare_rounds": 1}},
        {"privacy": {"clip_norm_l2": 0.5}},
    ],
    ids=str,
)
def test_whatever_moves_sigma_is_another_study_that_nobody_approved(tmp_path, section):
    world = make_world(tmp_path, STUDY)
    altered = small_study(**section)
    assert altered.digest() != STUDY.digest()
    with pytest.raises(Declined) as caught:
        prepare(world.home, world.store, world.ledger, altered.digest(), RoomInProcess)
    assert caught.value.refusal.rule == "require_approval"


def test_sigma_follows_from_what_was_approved_and_nothing_else(tmp_path):
    study = small_study(training={"rounds": 2, "spare_rounds": 1, "local_steps": 2})
    world = make_world(tmp_path, study)
    mechanism = prepare(world.home, world.store, world.ledger, study.digest(), RoomInProcess).spec.privacy.mechanism
    assert mechanism == calibrate(epsilon_target=1.0, delta=1e-3, sampling_rate=0.2, steps=6, clip_norm_l2=1.0)


def test_no_round_plan_carries_a_noise(tmp_path):
    named = {field.name for field in dataclasses.fields(RoundPlan)}
    assert not {name for name in named if "noise" in name or "sigma" in name or "epsilon" in name}
