"""Which model a study keeps and when it stops: by hand, over whole studies, and as a function of the figures alone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consortium.contract.best_model import CHOSEN_LAYOUT, StopEarly, Tally, choice_before
from consortium.contract.digest import canonical_bytes
from consortium.contract.errors import DocumentInvalid
from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import round_layout
from consortium.contract.names import RoundNumber
from consortium.contract.plan import RoundKind, RoundPlan
from consortium.contract.server_optimizer import (
    AggregateRefused,
    awaits_test,
    choice_after,
    has_ended,
    next_global_model,
    state_layout,
)
from consortium.contract.study import StudyFile
from tests.fakes.attempt_play import Play
from tests.fakes.small_study import DOCUMENT, first_model

PATIENTS = 40


def document(rounds: int = 6, algorithm: str = "fedavg", **evaluation: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    record["training"] |= {"rounds": rounds, "algorithm": algorithm}
    if algorithm == "fedavgm":
        record["training"]["server_optimizer"] = {"momentum": 0.5}
    record["evaluation"] |= {"keep_best": "accuracy", **evaluation}
    return record


def study_with(**changes: Any) -> StudyFile:
    return StudyFile.model_validate_json(json.dumps(document(**changes)))


def plan_of(study: StudyFile, number: int, *, measured: bool = True) -> RoundPlan:
    kind = RoundKind.TRAIN if number <= study.training.rounds else RoundKind.EVALUATE
    layout = round_layout(study, parameters=first_model().parameters, kind=kind, measured=measured)
    return replace(Play().plan, round=RoundNumber(number), kind=kind, layout=layout)


def sums_of(correct: float | None, number: int) -> dict[str, np.ndarray]:
    sums = {"update": np.array([1.0, 2.0, 3.0]) * 4 * number, "weight": np.array([4.0])}
    if correct is None:
        return sums
    counts = {"sites_reporting": 4.0, "test_patients": PATIENTS, "correct": correct, "site_accuracy": 2.0}
    return sums | {name: np.array([float(value)]) for name, value in counts.items()}


def run(study: StudyFile, correct: Sequence[float | None]) -> list[GlobalModel]:
    """The models after each round until the study ends, the first one in front."""
    models = [first_model(fill=0.5)]
    for number, found in enumerate(correct, start=1):
        plan = plan_of(study, number, measured=found is not None)
        models.append(next_global_model(study, plan, models[-1], sums_of(found, number), survivors=4))
        if has_ended(study, models[-1]):
            break
    return models


@pytest.mark.parametrize("algorithm", ["fedavg", "fedavgm"])
def test_the_best_of_all_is_what_the_evaluation_ends_on(algorithm: str) -> None:
    study = study_with(rounds=4, algorithm=algorithm)
    plain = StudyFile.model_validate_json(
        json.dumps({**document(rounds=4, algorithm=algorithm), "evaluation": DOCUMENT["evaluation"]})
    )
    models = run(study, [10, 20, 30, 25, 28])
    assert len(models) == 6
    assert [has_ended(study, model) for model in models[1:]] == [False] * 4 + [True]
    last = models[-1]
    assert (last.vector.tolist(), last.state) == (models[2].vector.tolist(), ())  # round 3 measured what round 2 made
    # The choice does not change how the models are trained.
    trained = [first_model(fill=0.5)]
    for number in range(1, 5):
        sums = sums_of(None, number)
        trained.append(next_global_model(plain, plan_of(plain, number, measured=False), trained[-1], sums, survivors=4))
    assert [model.vector.tolist() for model in models[:5]] == [model.vector.tolist() for model in trained]
    assert models[1].state == state_layout(study, last.parameters)


def test_training_stops_when_patience_is_at_its_end() -> None:
    study = study_with(stop_early={"patience": 2, "min_delta": 0.1})
    # 20 -> 24 of 40 is no more than 0.1 better; a round without figures decides nothing.
    models = run(study, [20, 24, None, 23, 40, 40])
    assert len(models) == 5
    assert (models[-1].vector.tolist(), models[-1].state) == (models[0].vector.tolist(), ())
    choice = choice_after(study, plan_of(study, 4), models[3], sums_of(23, 4))
    assert choice is not None
    assert (choice.tally, choice.ends) == (Tally(best=500_000, origin=0, since=2), True)
    assert len(run(study, [20, 25, 25, 30, 29, 28, 27])) == 7  # never two in a row but at the last round of training
    with pytest.raises(AggregateRefused, match="the model that the study ended with"):
        next_global_model(study, plan_of(study, 5), models[-1], sums_of(40, 5), survivors=4)


def with_validation(**changes: Any) -> StudyFile:
    record = document(**changes)
    record["data"]["split"]["validation_fraction"] = 0.4
    return StudyFile.model_validate_json(json.dumps(record))


@pytest.mark.parametrize("correct", [[10, 30, 20, 25], [10, 30, 20]])
def test_a_model_chosen_by_validation_patients_ends_the_study_when_others_have_tested_it(correct: list[int]) -> None:
    rule = {"stop_early": {"patience": 1}} if len(correct) == 3 else {}
    study = with_validation(rounds=3, **rule)
    models = run(study, correct)
    chosen = models[-1]
    assert (chosen.vector.tolist(), chosen.state) == (models[1].vector.tolist(), CHOSEN_LAYOUT)
    assert awaits_test(study, chosen.state)
    assert not has_ended(study, chosen)
    number = len(models)
    layout = round_layout(study, parameters=chosen.parameters, kind=RoundKind.EVALUATE, measured=True)
    plan = replace(Play().plan, round=RoundNumber(number), kind=RoundKind.EVALUATE, layout=layout)
    choice = choice_after(study, plan, chosen, sums_of(40, number))
    assert choice is not None
    assert (choice.tally, choice.ends) == (Tally(best=750_000, origin=1, since=number - 3), True)
    last = next_global_model(study, plan, chosen, sums_of(40, number), survivors=4)
    assert (last.vector.tolist(), last.state) == (chosen.vector.tolist(), ())
    with pytest.raises(AggregateRefused, match="of another kind"):
        next_global_model(study, plan_of(study, 1), chosen, sums_of(40, 1), survivors=4)
    # A model in training that looks chosen is none of a study without validation patients.
    with pytest.raises(AggregateRefused, match="another state"):
        choice_after(study_with(rounds=3), plan, chosen, sums_of(40, number))


@pytest.mark.parametrize(
    ("split", "evaluation", "found"),
    [
        ({"validation_fraction": 0.25}, {"keep_best": None}, "nothing is chosen by them"),
        ({"validation_fraction": 0.01}, {}, "too few to choose a model by"),
        ({"validation_fraction": 0.3, "test_fraction": 0.7}, {}, "somebody left to train on"),
    ],
)
def test_validation_patients_nobody_needs_or_too_few_are_refused(
    split: dict[str, Any], evaluation: dict[str, Any], found: str
) -> None:
    record = document(**evaluation)
    record["evaluation"] = {name: value for name, value in record["evaluation"].items() if value is not None}
    record["data"]["split"] |= split
    record["data"]["minimum_patients"] = 10
    with pytest.raises(DocumentInvalid, match=found) as caught:
        StudyFile.from_document(canonical_bytes(record))
    assert caught.value.problems[0].path == "data.split.validation_fraction"


def test_a_study_without_validation_patients_has_the_document_it_had() -> None:
    assert b"validation_fraction" not in study_with().document()


def test_a_study_that_hospitals_share_no_figures_with_keeps_its_last_model() -> None:
    study = study_with(rounds=2, stop_early={"patience": 1})
    nobody = {name: np.zeros(1) for name in ("sites_reporting", "test_patients", "correct", "site_accuracy")}
    models = [first_model()]
    for number in (1, 2, 3):
        sums = sums_of(None, number) | nobody
        models.append(next_global_model(study, plan_of(study, number), models[-1], sums, survivors=4))
    assert models[-1].vector.tolist() == models[2].vector.tolist()
    assert choice_before(models[2])[0] == Tally()


@given(st.lists(st.none() | st.integers(0, 1000), max_size=30), st.integers(1, 4), st.integers(0, 100), st.booleans())
def test_the_rule_is_what_a_reader_would_compute(
    figures: list[int | None], patience: int, least: int, smaller: bool
) -> None:
    rule, metric = StopEarly(patience=patience, min_delta=least / 1000), "loss" if smaller else "auc"
    tally, best, origin, since = Tally(), None, 0, 0
    for made_by, figure in enumerate(figures):
        tally = tally.after(None if figure is None else figure / 1000, made_by=made_by, metric=metric, rule=rule)
        if figure is not None:
            gain = None if best is None else (best - figure) * (1 if smaller else -1)
            better = gain is None or gain > least
            best, origin, since = (figure, made_by, 0) if better else (best, origin, since + 1)
        assert (tally.figure, tally.origin, tally.since) == (
            None if best is None else pytest.approx(best / 1000), origin, since,
        )  # fmt: skip
        assert tally.stops(rule) == (since >= patience)
        assert not tally.stops(None)


def test_the_last_bit_of_a_figure_decides_nothing() -> None:
    tally = Tally().after(0.7, made_by=0, metric="auc", rule=None)
    assert tally.after(np.nextafter(0.7, 1), made_by=1, metric="auc", rule=None) == replace(tally, since=1)


@pytest.mark.parametrize(
    ("section", "changes", "where"),
    [
        ("evaluation", {"keep_best": "auc"}, "evaluation.keep_best"),
        ("evaluation", {"keep_best": None, "stop_early": {"patience": 1}}, "evaluation.stop_early"),
        ("training", {"averaging": {"decay": 0.5}}, "evaluation.keep_best"),
        ("training", {"site_kept": ["layer.bias"]}, "evaluation.keep_best"),
    ],
)
def test_what_cannot_be_chosen_is_refused(section: str, changes: dict[str, Any], where: str) -> None:
    record = document()
    record[section] |= changes
    record = {**record, section: {name: value for name, value in record[section].items() if value is not None}}
    with pytest.raises(DocumentInvalid, match=where):
        StudyFile.from_document(canonical_bytes(record))


def test_a_study_without_a_choice_has_the_digest_it_had() -> None:
    text = StudyFile.model_validate_json(json.dumps(DOCUMENT)).document()
    assert not any(word in text for word in (b"keep_best", b"stop_early", b"schedule", b"optimizer_state"))
