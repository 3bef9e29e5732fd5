"""D-07: a restart, a crash, a retry or a new study makes the hospital forget what its patients have already spent.

Tried: rows d07 of `mutations.py`.
"""

import pytest

from consortium.contract.names import Digest, StudyId
from privacy.errors import BudgetExceeded
from site_agent.ledger import Ledger, Limits
from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import vector_of
from tests.fakes.training import entropy_of, patients, spec

TRAINING = spec(noise_multiplier=3.4484, rounds=20, local_steps=2)
LIMITS = Limits(study_epsilon=1.0, study_delta=1e-3, total_epsilon=1.5, total_delta=1e-3)


def _reserve(path, study, number, attempt=1):
    """A process that lives for one round."""
    return Ledger(path).reserve(
        dataset="heart",
        study=StudyId("some-study"),
        study_digest=Digest(study * 64),
        round_number=number,
        attempt=attempt,
        event=TRAINING.privacy.round_event(),
        limits=LIMITS,
    )


def test_a_process_per_round_spends_no_more_than_one_process(tmp_path):
    path = tmp_path / "ledger.sqlite"
    for number in range(1, 21):
        reservation = _reserve(path, "a", number)
        one = DpTrainer(TRAINING, patients(20), entropy=entropy_of(str(number)))
        update = one.train_round(vector_of(build_from(TRAINING.network)))
        Ledger(path).settle(reservation, update.events[0])
    with pytest.raises(BudgetExceeded):
        _reserve(path, "a", 21)


def test_dying_in_every_round_spends_every_round(tmp_path):
    path = tmp_path / "ledger.sqlite"
    for number in range(1, 21):
        _reserve(path, "a", number)
    with pytest.raises(BudgetExceeded):
        _reserve(path, "a", 21)


def test_retrying_attempts_is_not_free(tmp_path):
    path = tmp_path / "ledger.sqlite"

    def retry():
        for attempt in range(1, 100):
            _reserve(path, "a", 1, attempt)

    with pytest.raises(BudgetExceeded):
        retry()
    assert Ledger(path).spent("heart", delta=1e-3).epsilon <= 1.0


def test_a_second_study_finds_what_the_first_one_left(tmp_path):
    path = tmp_path / "ledger.sqlite"

    def whole(study):
        for number in range(1, 21):
            _reserve(path, study, number)

    whole("a")
    with pytest.raises(BudgetExceeded) as caught:
        whole("b")
    assert caught.value.cap == LIMITS.total_epsilon
    assert Ledger(path).spent("heart", delta=1e-3).epsilon <= LIMITS.total_epsilon
