"""Learning rates over rounds: against the formulas, the same whoever asks, and in the step that everybody repeats."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from consortium.contract.digest import canonical_bytes
from consortium.contract.errors import DocumentInvalid
from consortium.contract.names import RoundNumber
from consortium.contract.schedules import Rates, Schedule, cosine
from consortium.contract.server_optimizer import next_global_model
from consortium.contract.study import StudyFile
from tests.fakes.attempt_play import Play
from tests.fakes.small_study import DOCUMENT, first_model

ROUNDS, STEPS = 10, 4


def rates(**schedule: Any) -> Rates:
    return Rates(learning_rate=0.5, schedule=Schedule(**schedule), rounds=ROUNDS, local_steps=STEPS)


def test_each_schedule_is_its_formula() -> None:
    wave = rates(name="cosine", final=0.1)
    for number, step in ((1, 0), (3, 2), (10, 3)):
        progress = ((number - 1) * STEPS + step) / (ROUNDS * STEPS)
        expected = 0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)
        assert wave.at(number, step) == pytest.approx(expected, rel=1e-14)
    stairs = rates(name="step", every_rounds=3, factor=0.5)
    assert [stairs.at(number) for number in (1, 3, 4, 7, 10)] == [0.5, 0.5, 0.25, 0.125, 0.0625]
    rising = rates(name="constant", warmup_rounds=2)
    assert [rising.at(1, 0), rising.at(1, 3), rising.at(2, 3), rising.at(3)] == [0.0625, 0.25, 0.5, 0.5]
    assert rates(name="cosine", final=0.0, warmup_rounds=2).at(3) == 0.5
    assert Rates(learning_rate=0.5, schedule=None, rounds=ROUNDS, local_steps=STEPS).at(7, 3) == 0.5


def test_the_cosine_is_ours_and_right() -> None:
    assert all(abs(cosine(turn) - math.cos(math.pi * turn)) < 1e-15 for turn in np.linspace(0, 1, 1001))
    # To the bit, on every machine; and a later polynomial would move studies that are under way.
    assert (cosine(0.3).hex(), cosine(1 / 3).hex()) == ("0x1.2cf2304755a5ep-1", "0x1.0000000000001p-1")


def distributed(**training: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    record["privacy"] |= {"mechanism": "distributed-dp-sgd"}
    record["training"] |= {"rounds": 4, "local_steps": 1, "weighting": "uniform", "server_learning_rate": 1.0}
    record["training"] |= training
    return record


def test_the_step_that_every_hospital_repeats_takes_the_rate_of_its_round() -> None:
    plain = StudyFile.model_validate_json(json.dumps(distributed()))
    scheduled = StudyFile.model_validate_json(
        json.dumps(distributed(schedule={"name": "step", "every_rounds": 1, "factor": 0.5}))
    )
    sums = {"update": np.array([1.0, -2.0, 3.0]), "weight": np.array([4.0])}
    for number in (1, 2, 3):
        plan = replace(Play().plan, round=RoundNumber(number))
        model = first_model()
        moved = [
            next_global_model(study, plan, model, sums, survivors=4).vector.astype(np.float64)
            for study in (plain, scheduled)
        ]
        assert moved[1] == pytest.approx(moved[0] * 0.5 ** (number - 1), rel=1e-6)
        assert np.abs(moved[0]).min() > 0


@pytest.mark.parametrize(
    ("schedule", "where"),
    [
        ({"name": "cosine"}, "training.schedule.final"),
        ({"name": "step", "every_rounds": 2}, "training.schedule.factor"),
        ({"name": "constant", "final": 0.5}, "training.schedule.final"),
        ({"name": "constant", "warmup_rounds": 4}, "training.schedule.warmup_rounds"),
    ],
)
def test_what_makes_no_schedule_is_refused(schedule: dict[str, Any], where: str) -> None:
    record = json.loads(json.dumps(DOCUMENT))
    record["training"] |= {"rounds": 4, "schedule": schedule}
    with pytest.raises(DocumentInvalid, match=where):
        StudyFile.from_document(canonical_bytes(record))
