"""Which patients are set aside for testing, and for choosing the model. Patients are divided, never records."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from consortium.contract.study import StudyFile
from consortium.contract.study_data import Split
from site_agent.cohort import TEST, TRAIN, VALIDATION, Records
from site_agent.data_faults import Faults, counted, lines_of
from site_agent.datasets import Dataset
from site_agent.withdrawals import Withdrawn

_Bools = npt.NDArray[np.bool_]
_Indices = npt.NDArray[np.int64]


def declared_sides(
    cells: npt.NDArray[np.str_],
    places: Sequence[int],
    patients: _Indices,
    *,
    patient_count: int,
    split: Split,
    column: str,
    faults: Faults,
) -> npt.NDArray[np.str_]:
    """The side of each patient by what the hospital says of each record; what cannot be used is reported.

    Args:
        cells: str[records].
        places: Of the records in the hospital's list.
        patients: int64[records], 0 to patient_count - 1.
        patient_count: How many there are.
        split: The study's, which says whether there is validation.
        column: What the hospital calls it.
        faults: Where problems go.
    """
    names = [side for side, _ in _sides_of(split)]
    neither = ~np.isin(cells, names)
    if neither.any():
        allowed = f"{', '.join(names[:-1])} or {names[-1]}"
        found = "on neither side" if len(names) == 2 else "on no side"
        faults.records_at(np.array(places)[neither].tolist(), found, allowed, column=column)
    on = np.zeros((len(names), patient_count), dtype=np.bool_)
    for number, side in enumerate(names):
        on[number, patients[cells == side]] = True
    both = on.sum(axis=0) > 1
    if both.any():
        where = f"both in {TRAIN} and in {TEST}" if len(names) == 2 else f"in more than one of {', '.join(names)}"
        faults.add(
            column,
            f"{counted(int(both.sum()), 'patient')} {where} "
            f"({lines_of(np.array(places)[both[patients]].tolist(), faults.noun)})",
            "each patient on one side: a test on patients trained on shows nothing",
        )
    found_on: npt.NDArray[np.str_] = np.array(names)[on.argmax(axis=0)]
    return found_on


def _sides_of(split: Split) -> tuple[tuple[str, str], ...]:
    """The sides of a study's split, and what each is for."""
    validation = () if split.validation_fraction is None else ((VALIDATION, "choosing the model"),)
    return ((TRAIN, "training"), *validation, (TEST, "testing"))


def highest(labels: npt.NDArray[np.float32], patients: _Indices, patient_count: int) -> npt.NDArray[np.float32]:
    """float32[patients]: the highest label among each patient's records."""
    found = np.zeros(patient_count, dtype=np.float32)
    np.maximum.at(found, patients, labels)
    return found


def random_sides(labels: npt.NDArray[np.float32], split: Split) -> npt.NDArray[np.str_]:
    """The study's split of patients, as the field's benchmark makes it; the seed is public and the same everywhere.

    The test patients are the same with validation patients as without: those are taken out of the others.
    """
    sides = np.full(len(labels), TRAIN, dtype=f"<U{len(VALIDATION)}")
    tests, validates = split.sizes(len(labels))
    if not 0 < tests < len(labels) - validates:
        return np.full(len(labels), TEST if tests else TRAIN)  # refused by `check_sides`
    everybody = np.arange(len(labels), dtype=np.int64)
    left, tested = _drawn(everybody, labels, split, size=split.test_fraction, count=tests)
    sides[tested] = TEST
    if validates:
        sides[_drawn(left, labels[left], split, size=validates, count=validates)[1]] = VALIDATION
    return sides


def _drawn(
    places: _Indices, labels: npt.NDArray[np.float32], split: Split, *, size: float, count: int
) -> tuple[_Indices, _Indices]:
    """Of these patients those who are left, and `count` who are drawn; by label if there are enough with each.

    Args:
        places: int64[patients].
        labels: float32[patients].
        split: Seed, and whether by label.
        size: Of the draw as the library is told it, which rounds a fraction up.
        count: What comes of that.
    """
    counts = np.bincount(labels.astype(np.int64), minlength=2)
    enough = counts.min() > 2 and min(count, len(labels) - count) >= len(counts)
    stratify = labels if split.stratify and enough else None
    left, drawn = train_test_split(places, test_size=size, random_state=split.seed, shuffle=True, stratify=stratify)
    return left, drawn


def without(sides: npt.NDArray[np.str_], identifiers: Sequence[str], withdrawn: Withdrawn) -> npt.NDArray[np.str_]:
    """The sides of patients, with those who withdrew on none; `identifiers` in the order of `sides`."""
    gone = np.array([withdrawn.has(one) for one in identifiers], dtype=np.bool_)
    return np.where(gone, "", sides)


def staying(identifiers: Sequence[str], withdrawn: Withdrawn) -> int:
    """How many of these patients did not withdraw."""
    return sum(not withdrawn.has(one) for one in identifiers)


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
    for side, purpose in _sides_of(study.data.split):
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
