"""Studies that hospitals train with classes of their own: what may stand beside `training.client_algo`."""

import pytest

from consortium.contract.schema import problems_of
from consortium.contract.study import StudyFile
from tests.fakes.client_algos import study_with_client_algo
from tests.fakes.site_world import small_study


def found_in(**sections):
    record = study_with_client_algo().model_dump(mode="python", by_alias=True, exclude_none=True)
    for name, changes in sections.items():
        record[name] = {**record.get(name, {}), **changes}
    return {problem.path: problem.allowed for problem in problems_of(StudyFile, record)}


def test_the_steps_are_the_hospitals_own_and_no_epsilon_is_promised_beside_them():
    assert found_in() == {}
    private = small_study().model_dump(mode="python", by_alias=True, exclude_none=True)["privacy"]
    record = study_with_client_algo().model_dump(mode="python", by_alias=True, exclude_none=True) | {"privacy": private}
    (problem,) = problems_of(StudyFile, record)
    assert problem.path == "training.client_algo"
    assert "no patient's part in it can be bounded" in problem.allowed


@pytest.mark.parametrize(
    ("at", "training"),
    [
        ("training.algorithm", {"algorithm": "fedprox", "proximal_mu": 0.1}),
        ("training.algorithm", {"algorithm": "scaffold"}),
        ("training.trainable", {"trainable": ("0.*",)}),
        ("training.site_kept", {"site_kept": ("0.bias",)}),
    ],
)
def test_what_such_a_class_cannot_be_held_to_is_refused(at, training):
    found = found_in(training=training)
    assert list(found) == [at]


def test_the_coordinators_own_step_is_not_the_hospitals():
    assert found_in(training={"algorithm": "fedavgm", "server_optimizer": {"momentum": 0.9}}) == {}


def test_a_study_names_a_word_and_no_path():
    assert list(found_in(training={"client_algo": "os:system"})) == ["training.client_algo"]


def test_a_study_without_one_has_the_document_it_had():
    assert b"client_algo" not in small_study().document()
