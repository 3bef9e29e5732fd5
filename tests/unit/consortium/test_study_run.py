"""What a study does next, from where it stands."""

from typing import Any

import pytest

from consortium.contract.names import Digest, RoundNumber, StudyId
from consortium.contract.plan import RoundKind
from consortium.database import StudyRow
from consortium.study_run import ATTEMPTS_MAX, Complete, Pause, Prepare, Run, decide
from tests.fakes.small_study import small_study

STUDY = small_study(rounds=3)


def row(**changes: Any) -> StudyRow:
    fields: dict[str, Any] = {
        "study": StudyId(STUDY.id),
        "digest": STUDY.digest(),
        "document": STUDY.document(),
        "state": "running",
        "next_round": RoundNumber(1),
        "next_attempt": 1,
        "last_attempt": ATTEMPTS_MAX,
        "model_digest": Digest("a1" * 32),
        "transcript": Digest("0" * 64),
        "measured": (),
        "reason": "",
    }
    return StudyRow(**{**fields, **changes})


def test_without_a_model_the_sites_are_asked_for_one() -> None:
    assert decide(STUDY, row(model_digest=Digest(""))) == Prepare()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_training_rounds(number: int) -> None:
    assert decide(STUDY, row(next_round=RoundNumber(number))) == Run(RoundKind.TRAIN, RoundNumber(number), 1)


def test_after_the_last_training_round_one_evaluation() -> None:
    assert decide(STUDY, row(next_round=RoundNumber(4))) == Run(RoundKind.EVALUATE, RoundNumber(4), 1)


def test_in_groups_there_is_no_evaluation() -> None:
    grouped = STUDY.model_copy(update={"aggregation": STUDY.aggregation.model_copy(update={"group_size": 64})})
    assert decide(grouped, row(next_round=RoundNumber(3))) == Run(RoundKind.TRAIN, RoundNumber(3), 1)
    assert decide(grouped, row(next_round=RoundNumber(4))) == Complete()


def test_after_the_evaluation_nothing() -> None:
    assert decide(STUDY, row(next_round=RoundNumber(5))) == Complete()


def test_after_the_round_that_chose_the_model_nothing() -> None:
    assert decide(STUDY, row(next_round=RoundNumber(2)), ended=True) == Complete()


def test_a_completed_study_is_not_paused_for_its_last_attempts() -> None:
    assert decide(STUDY, row(next_round=RoundNumber(5), next_attempt=ATTEMPTS_MAX + 1)) == Complete()


def test_the_last_attempt_is_run_and_the_one_after_it_is_not() -> None:
    assert decide(STUDY, row(next_attempt=ATTEMPTS_MAX)) == Run(RoundKind.TRAIN, RoundNumber(1), ATTEMPTS_MAX)
    decision = decide(STUDY, row(next_attempt=ATTEMPTS_MAX + 1))
    assert isinstance(decision, Pause)
    assert f"round 1 was attempted {ATTEMPTS_MAX} times" in decision.reason


def test_a_resumed_study_goes_on_counting() -> None:
    resumed = row(next_attempt=ATTEMPTS_MAX + 1, last_attempt=2 * ATTEMPTS_MAX)
    assert decide(STUDY, resumed) == Run(RoundKind.TRAIN, RoundNumber(1), ATTEMPTS_MAX + 1)
