"""D-22: a hospital runs more steps than the study planned, or the hospital's caps are passed, by whatever road.

Held by: `ledger_caps.py` (steps, the study's epsilon, the dataset's epsilon), `trainer.py` (executed against planned)
and the log's reader `audit/verify.py`. Tried: rows d22 of `mutations.py`, each of the caps and the look at
what was executed.
"""

import dataclasses

import pytest

from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.errors import BudgetExceeded
from site_agent.errors import LedgerRefused, StepsExceeded
from site_agent.policy import limits_of
from site_agent.preparation import prepare
from site_agent.room_in_process import RoomInProcess
from tests.fakes.site_world import make_world, small_study, write_site_file

STUDY = small_study(training={"rounds": 20, "spare_rounds": 2, "local_steps": 2})


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path, STUDY, max_epsilon_per_study=5.0)


def reserve(world, number, event, **changed):
    limits = dataclasses.replace(limits_of(world.home.config.policy, STUDY), **changed)
    return world.ledger.reserve(
        dataset="ward",
        study=STUDY.study_id,
        study_digest=STUDY.digest(),
        round_number=number,
        attempt=1,
        event=event,
        limits=limits,
    )


def test_not_a_step_more_than_the_noise_was_calibrated_for(world):
    """Calibration rounds the noise up, so the study's epsilon alone would let some studies run on."""
    event = prepare(world.home, world.store, world.ledger, STUDY.digest(), RoomInProcess).spec.privacy.round_event()
    for number in range(1, 23):
        reserve(world, number, event, study_epsilon=5.0)
    with pytest.raises(StepsExceeded):
        reserve(world, 23, event, study_epsilon=5.0)
    with pytest.raises(StepsExceeded):
        reserve(world, 23, event.with_steps(1), study_epsilon=5.0)
    assert world.ledger.report()[0].steps == 44


def test_epsilon_above_the_studys_own(world):
    event = prepare(world.home, world.store, world.ledger, STUDY.digest(), RoomInProcess).spec.privacy.round_event()

    def for_ever():
        for number in range(1, 100):
            reserve(world, number, event, study_steps=None)

    with pytest.raises(BudgetExceeded) as caught:
        for_ever()
    assert world.ledger.report()[0].rounds >= 22
    assert caught.value.cap == STUDY.privacy.epsilon
    assert accountant.epsilon(world.ledger.study("ward", STUDY.digest()), delta=1e-3) <= STUDY.privacy.epsilon


def test_epsilon_above_the_datasets_cap_at_admission_and_in_a_round(world, tmp_path):
    event = prepare(world.home, world.store, world.ledger, STUDY.digest(), RoomInProcess).spec.privacy.round_event()
    write_site_file(tmp_path, STUDY, max_epsilon_total=0.5, max_epsilon_per_study=0.5)
    with pytest.raises(BudgetExceeded):
        reserve(world, 1, event.with_steps(44), study_epsilon=1.0)

    def all_rounds():
        for number in range(1, 23):
            reserve(world, number, event, study_epsilon=1.0)  # the study's own cap would let it

    with pytest.raises(BudgetExceeded) as caught:
        all_rounds()
    assert caught.value.cap == 0.5
    assert 1 <= world.ledger.report()[0].rounds < 22
    assert world.ledger.spent("ward", delta=1e-3).epsilon <= 0.5


def test_steps_beyond_the_reservation_are_counted_and_refused(world):
    event = prepare(world.home, world.store, world.ledger, STUDY.digest(), RoomInProcess).spec.privacy.round_event()
    with pytest.raises(LedgerRefused, match="more than was reserved"):
        world.ledger.settle(reserve(world, 1, event), event.with_steps(5))
    assert world.ledger.report()[0].steps == 5


def test_less_noise_than_was_reserved_is_counted_as_it_was_and_refused(world):
    event = prepare(world.home, world.store, world.ledger, STUDY.digest(), RoomInProcess).spec.privacy.round_event()
    weaker = DpEvent(
        mechanism=type(event.mechanism)(noise_multiplier=1.0, sampling_rate=0.2, steps=2, clip_norm_l2=1.0)
    )
    with pytest.raises(LedgerRefused, match="more than was reserved"):
        world.ledger.settle(reserve(world, 1, event), weaker)
    assert world.ledger.study("ward", STUDY.digest()) == (weaker,)
