"""D-25: one patient's records are split over training and test, so that the test measures what was memorised.

The promise is to the training patients; a patient tested on too would be told apart by exact test figures. Held by:
`splits.py` divides patients, and refuses a split of the hospital's own that divides one. Tried: rows d25 of
`mutations.py` (a column that divides a patient is taken; records are split instead of patients).
"""

import numpy as np
import pytest

from site_agent.cohort import read_cohort
from site_agent.data_faults import DataInvalid
from site_agent.datasets import CsvDataset
from tests.fakes.site_world import small_study

STUDY = small_study()


def written(tmp_path, sides=None, each=3):
    side = sides or (lambda *_: "")
    rows = [
        f"P{patient},{30 + patient + 0.1 * record},{1 + patient % 3},{patient % 2},{side(patient, record)}"
        for patient in range(40)
        for record in range(each)
    ]
    path = tmp_path / "patients.csv"
    path.write_text("\n".join(["patient,age,kind,outcome,side", *rows]) + "\n")
    return CsvDataset(
        path=str(path),
        format="csv",
        patient_id="patient",
        declared_patients=40,
        split_column="side" if sides else None,
    )


def test_all_records_of_a_patient_are_on_one_side(tmp_path):
    cohort = read_cohort(STUDY, written(tmp_path))
    ages = [np.unique(np.rint((side.features[:, 0] * 10 + 50) // 1)) for side in (cohort.train, cohort.test)]
    assert set(ages[0]) & set(ages[1]) == set()
    assert len(cohort.train) == 3 * cohort.train.patient_count
    assert len(cohort.test) == 3 * cohort.test.patient_count
    assert cohort.train.patient_count + cohort.test.patient_count == 40


def test_a_split_of_the_hospitals_own_may_not_divide_a_patient(tmp_path):
    whole = written(tmp_path, lambda patient, _: "test" if patient < 10 else "train")
    assert read_cohort(STUDY, whole).test.patient_count == 10
    divided = written(
        tmp_path, lambda patient, record: "test" if patient < 10 or (patient, record) == (20, 2) else "train"
    )
    with pytest.raises(DataInvalid, match="1 patient both in train and in test"):
        read_cohort(STUDY, divided)
