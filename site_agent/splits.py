"""Which patients are set aside for testing. Patients are divided, never records."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from consortium.contract.study import StudyFile
from consortium.contract.study_data import Split
from site_agent.cohort import TEST, TRAIN, Records
from site_agent.data_faults import Faults, counted, lines_of
from site_agent.datasets import Dataset

_Bools = npt.NDArray[np.bool_]
_Indices = npt.NDArray[np.int64]


def declared_sides(
    cells: npt.NDArray[np.str_],
    places: Sequence[int],
    patients: _Indices,
    *,
    patient_count: int,
    column: str,
    faults: Faults,
) -> npt.NDArray[np.str_]:
    """The side of each patient by what the hospital says of each record; what cannot be used is reported.

    Args:
        cells: str[records].
        places: Of the records in the hospital's list.
        patients: int64[records], 0 to patient_count - 1.
        patient_count: How many there are.
        column: What the hospital calls it.
        faults: Where problems go.
    """
    neither = ~np.isin(cells, [TRAIN, TEST])
    if neither.any():
        faults.records_at(np.array(places)[neither].tolist(), "on neither side", f"{TRAIN} or {TEST}", column=column)
    trains = np.zeros(patient_count, dtype=np.bool_)
    tests = np.zeros(patient_count, dtype=np.bool_)
    trains[patients[cells == TRAIN]] = True
    tests[patients[cells == TEST]] = True
    both = (trains & tests)[patients]
    if both.any():
        faults.add(
            column,
            f"{counted(int((trains & tests).sum()), 'patient')} both in {TRAIN} and in {TEST} "
            f"({lines_of(np.array(places)[both].tolist(), faults.noun)})",
            "each patient on one side: a test on patients trained on shows nothing",
        )
    return np.where(trains, TRAIN, TEST)


def highest(labels: npt.NDArray[np.float32], patients: _Indices, patient_count: int) -> npt.NDArray[np.float32]:
    """float32[patients]: the highest label among each patient's records."""
    found = np.zeros(patient_count, dtype=np.float32)
    np.maximum.at(found, patients, labels)
    return found


def random_sides(labels: npt.NDArray[np.float32], split: Split) -> npt.NDArray[np.str_]:
    """The study's split of patients, as the field's benchmark makes it; the seed is public and the same everywhere."""
    sides = np.full(len(labels), TRAIN)
    tests = math.ceil(split.test_fraction * len(labels))
    if not 0 < tests < len(labels):
        return np.full(len(labels), TEST if tests else TRAIN)  # refused by `check_sides`
    counts = np.bincount(labels.astype(np.int64), minlength=2)
    enough = counts.min() > 2 and min(tests, len(labels) - tests) >= len(counts)
    stratify = labels if split.stratify and enough else None
    _, chosen = train_test_split(
        np.arange(len(labels)), test_size=split.test_fraction, random_state=split.seed, shuffle=True, stratify=stratify
    )
    sides[chosen] = TEST
    return sides


def check_patients(patients: int, study: StudyFile, dataset: Dataset, faults: Faults) -> None:
    """Report too few patients with complete records, and a declared number that the study has no room for."""
    if patients < study.data.minimum_patients:
        faults.add(
            "",
            f"{counted(patients, 'patient')} with complete records",
            f"at least {study.data.minimum_patients}, the study's data.minimum_patients",
        )
    if dataset.declared_patients > study.aggregation.max_patients_per_site:
        faults.add(
            "",
            f"declared_patients {dataset.declared_patients} in site.yaml",
            f"at most {study.aggregation.max_patients_per_site}, the study's aggregation.max_patients_per_site",
        )


def check_sides(sides: npt.NDArray[np.str_], study: StudyFile, faults: Faults) -> None:
    """Report a side without patients, or with more than the study has room for."""
    most = study.aggregation.max_patients_per_site
    for side, purpose in ((TRAIN, "training"), (TEST, "testing")):
        patients = int((sides == side).sum())
        if not 1 <= patients <= most:
            faults.add("", f"{counted(patients, 'patient')} for {purpose}", f"1 to {most}")


def records_of(
    matrix: npt.NDArray[np.float32], labels: npt.NDArray[np.float32], patients: _Indices, chosen: _Bools
) -> Records:
    """The records of the chosen patients (bool[patients]), with patients numbered anew from 0."""
    rows = chosen[patients]
    renumbered = np.cumsum(chosen) - 1
    parts = matrix[rows], labels[rows], renumbered[patients[rows]].astype(np.int64)
    for part in parts:
        part.setflags(write=False)
    return Records(features=parts[0], labels=parts[1], patients=parts[2], patient_count=int(chosen.sum()))
