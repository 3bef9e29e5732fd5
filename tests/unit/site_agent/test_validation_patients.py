"""Patients set aside to choose a model by: who they are, and that nobody else is moved for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consortium.contract.study import StudyFile, load_study
from consortium.contract.study_data import Split
from site_agent.cohort import TEST, TRAIN, VALIDATION, Cohort, read_cohort
from site_agent.data_faults import DataInvalid
from site_agent.datasets import CsvDataset
from site_agent.splits import random_sides

HEART = load_study(Path(__file__).parents[3] / "configs/heart-disease/study.yaml")


def study() -> StudyFile:
    record = HEART.model_dump(mode="python", by_alias=True, exclude_none=True)
    record["data"] |= {
        "features": {"age": {"type": "number", "range": (0.0, 120.0), "scale": {"mean": 50.0, "std": 10.0}}},
        "label": {"name": "outcome", "type": "binary", "positive_above": 0.0},
        "minimum_patients": 10,
        "split": {"test_fraction": 0.2, "validation_fraction": 0.3, "seed": 7, "stratify": False},
    }
    record["evaluation"] |= {"keep_best": "auc", "subgroups": ({"column": "age", "bands": (45.0,)},)}
    return StudyFile.model_validate(record)


def cohort(folder: Path, sides: list[str], *, per_patient: int = 1, **settings: Any) -> Cohort:
    rows = [f"P{n // per_patient},{40 + n},{n % 2},{side}" for n, side in enumerate(sides)]
    (folder / "patients.csv").write_text("\n".join(["patient,age,outcome,side", *rows]) + "\n")
    dataset = CsvDataset(
        path=str(folder / "patients.csv"), format="csv", patient_id="patient", declared_patients=5, **settings
    )
    return read_cohort(study(), dataset)


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("patients", [10, 37, 200])
def test_validation_patients_are_taken_from_those_who_would_be_trained_on(patients: int, stratify: bool) -> None:
    labels = (np.arange(patients) % 4 == 0).astype(np.float32)
    fields: dict[str, Any] = {"test_fraction": 0.2, "seed": 3, "stratify": stratify}
    without = random_sides(labels, Split(**fields))
    sides = random_sides(labels, Split(**fields, validation_fraction=0.25))
    assert np.array_equal(sides == TEST, without == TEST)
    validates = sides == VALIDATION
    assert validates.sum() == np.ceil(0.25 * patients)
    assert set(sides) == {TRAIN, TEST, VALIDATION}
    if stratify and patients == 200:
        assert labels[validates].mean() == pytest.approx(0.25, abs=0.02)
    again = random_sides(labels, Split(**fields, validation_fraction=0.25))
    assert np.array_equal(sides, again)


def test_a_hospital_says_itself_who_is_on_which_side(tmp_path: Path) -> None:
    sides = ["train"] * 6 + ["validation"] * 4 + ["test"] * 2
    found = cohort(tmp_path, sides, split_column="side")
    assert found.summary.sides == "6 to train, 4 to choose by, 2 to test"
    assert found.summary.records == 12
    assert found.validation is not None
    assert found.validation_groups is not None
    assert (found.validation.features[:, 0] * 10 + 50).tolist() == [46, 47, 48, 49]
    chosen_by, cells = found.measured(chosen=False)
    assert chosen_by is found.validation
    assert cells.tolist() == [[1]] * 4  # 45 years and more
    tested, cells = found.measured(chosen=True)
    assert tested is found.test
    assert cells.shape == (2, 1)


@pytest.mark.parametrize(
    ("sides", "per_patient", "found"),
    [
        (["train"] * 20 + ["test"] * 4, 2, "0 patients for choosing the model"),
        (["train", "validation"] * 10 + ["test"] * 4, 2, "10 patients in more than one of train, validation, test"),
        (["train"] * 10 + ["validation"] * 10 + ["holdout"], 1, "on no side"),
    ],
)
def test_sides_that_do_not_fit_the_study_are_refused(
    tmp_path: Path, sides: list[str], per_patient: int, found: str
) -> None:
    with pytest.raises(DataInvalid, match=found):
        cohort(tmp_path, sides, per_patient=per_patient, split_column="side")


def test_without_a_column_the_studys_split_is_made_over_patients(tmp_path: Path) -> None:
    found = cohort(tmp_path, ["train"] * 40, per_patient=2)
    assert found.summary.sides == "10 to train, 6 to choose by, 4 to test"
    assert found.validation is not None
    assert len(found.validation) == 12
