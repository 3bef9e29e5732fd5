"""Local patients -> training and test records, one privacy unit per patient. Nothing here leaves the site.

A file is read whole and checked against the study's data contract before any of it is used; whatever is wrong with it
is reported at once, with line numbers of the local file and never with a patient's identifier or a value. Only the
columns the study names are kept.

The study's public constants scale the features, so no statistic of the patients is needed and none is spent. Patients,
not records, are split, so that no patient is on both sides.

Limit (docs/limitations.md): the study's random split depends on which patients there are. The guarantee of
differential privacy is about the training patients; a hospital that wants the split fixed beforehand names a
`split_column`.
"""

import csv
import math
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import train_test_split

from consortium.contract.study import CategoryFeature, Data, NumberFeature, Split, StudyFile
from consortium.contract.subgroups import Subgroup
from site_agent.errors import SiteError
from site_agent.site_file import Dataset

DATA_BYTES_MAX = 2**30
LINES_SHOWN_MAX = 5
TRAIN, TEST = "train", "test"

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]
_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataProblem:
    """One thing that is wrong with the data: where, what was found (counts and line numbers only), what is allowed."""

    column: str  # empty for the file as a whole
    found: str
    allowed: str

    def __str__(self) -> str:
        place = f"column {self.column}: " if self.column else ""
        return f"{place}found {self.found}; allowed: {self.allowed}"


class DataInvalid(SiteError):
    """The hospital's data do not meet the study's contract. Whose fault: the file's, or the study does not fit it.

    Safe to log and to show: neither identifiers nor values are in it. It is for this hospital alone all the same; a
    coordinator is told no more than that the data do not fit.
    """

    def __init__(self, path: Path, problems: Sequence[DataProblem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{path} cannot take part:", *(f"  {problem}" for problem in problems)]))

    def __reduce__(self) -> tuple[type[Self], tuple[Path, tuple[DataProblem, ...]]]:
        return type(self), (self.path, self.problems)

    def advice(self) -> str:
        """What to do next."""
        return (
            f"Put right what is listed in {self.path}, or point `datasets` in site.yaml to the right file and columns, "
            "then run `site-agent check`. Nothing was read into the study."
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Records:
    """Records of the patients on one side of the split, read-only."""

    features: npt.NDArray[np.float32]  # [records, inputs], in the order of `Data.input_names`
    labels: npt.NDArray[np.float32]  # [records], 0 or 1
    patients: _Indices  # [records], 0 to patient_count - 1: which patient a record belongs to, the unit of privacy
    patient_count: int

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:  # a patient's values must not reach a log by way of a traceback
        return f"Records({len(self)} records of {self.patient_count} patients)"


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortSummary:
    """What was read and what was left out, and why: for the hospital's own eyes (`site-agent check`)."""

    records_read: int
    records_left_out: int
    left_out_by_column: Mapping[str, int]  # records with nothing in that column; one record may count in several
    patients: int
    training_patients: int
    test_patients: int
    training_records: int
    test_records: int
    most_records_of_a_patient: int
    declared_patients: int  # site.yaml's constant for training_patients


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cohort:
    """A hospital's patients as one study needs them."""

    train: Records
    test: Records
    test_groups: _Indices  # [test patients, subgroups]: the cell in each of `evaluation.subgroups`, -1 for none
    feature_names: tuple[str, ...]
    summary: CohortSummary


def read_cohort(study: StudyFile, dataset: Dataset) -> Cohort:
    """The patients of `dataset` under the contract of `study`.

    Raises:
        DataInvalid: With every problem of the file. What cannot be judged because of another problem is not guessed
            at: without the column of patients there is no word on whether there are enough of them.

    | case | result |
    |---|---|
    | a record with an empty feature or label | left out, counted in the summary |
    | the feature's `absent` value | replaced by `scale.mean`, whatever the range says |
    | several records of a patient | all kept; the patient's label for stratifying is the highest |
    | two patients or fewer with one of the labels | split without stratifying |
    | several records of a test patient in different cells of a subgroup | the cell of the patient's first record |
    """
    data = study.data
    faults = _Faults(path=Path(dataset.path), found=[])
    every = _read(study, dataset, faults)
    needed = [name for name in (*data.features, data.label.name) if name in every]
    empty = every[needed] == ""
    table = every[~empty.any(axis=1)]
    inputs = [
        column
        for name, feature in data.features.items()
        if name in table
        for column in _inputs(table[name], feature, faults)
    ]
    labels = _labels(table, data, faults)
    patients, patient_count = _patients(table, study, dataset, faults)
    sides = _declared_sides(table, dataset, patients, patient_count, faults)
    if faults.found:
        raise faults.error()
    if sides is None:
        sides = _random_sides(_highest(labels, patients, patient_count), data.split)
    _check_sides(sides, study, faults)
    if faults.found:
        raise faults.error()
    matrix = np.stack(inputs, axis=1).astype(np.float32)
    train, test = (_records(matrix, labels, patients, sides == side) for side in (TRAIN, TEST))
    summary = CohortSummary(
        records_read=len(every),
        records_left_out=len(every) - len(table),
        left_out_by_column={str(name): int(count) for name, count in empty.sum().items() if count},
        patients=patient_count,
        training_patients=train.patient_count,
        test_patients=test.patient_count,
        training_records=len(train),
        test_records=len(test),
        most_records_of_a_patient=int(np.bincount(patients).max()),
        declared_patients=dataset.declared_patients,
    )
    return Cohort(
        train=train,
        test=test,
        test_groups=_groups(table, study, patients, sides == TEST),
        feature_names=data.input_names,
        summary=summary,
    )


# --- problems ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Faults:
    """Collects what is wrong with one file."""

    path: Path
    found: list[DataProblem]

    def add(self, column: str, found: str, allowed: str) -> None:
        self.found.append(DataProblem(column=column, found=found, allowed=allowed))

    def records(self, cells: "pd.Series[Any]", wrong: _Bools, what: str, allowed: str) -> None:
        """Report the records at which `wrong` is true, if any: how many and on which lines, but not what they hold."""
        if wrong.any():
            lines = [int(line) for line in cells.index[wrong]]
            self.add(str(cells.name), f"{_counted(len(lines), 'record')} {what} ({_lines(lines)})", allowed)

    def error(self) -> DataInvalid:
        return DataInvalid(self.path, self.found)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _lines(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:LINES_SHOWN_MAX]))
    more = f" and {len(lines) - LINES_SHOWN_MAX} more" if len(lines) > LINES_SHOWN_MAX else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {shown}{more}"


# --- the file ------------------------------------------------------------------------------------------------------


def _read(study: StudyFile, dataset: Dataset, faults: _Faults) -> pd.DataFrame:
    """The columns the study needs, as stripped text, indexed by line number. Columns that are missing are not in it."""
    features = study.data.features
    roles = {name: f"the study's feature {name}" for name in features}
    roles[study.data.label.name] = "the study's label"
    roles[dataset.patient_id] = "patient_id in site.yaml"
    if dataset.split_column is not None:
        roles[dataset.split_column] = "split_column in site.yaml"
    for role, column in (("patient_id", dataset.patient_id), ("split_column", dataset.split_column)):
        if column in features or column == study.data.label.name:
            faults.add(
                str(column), f"a column that is both {role} in site.yaml and in the study", "a column of its own"
            )
    try:
        with _opened(faults).open(encoding="utf-8-sig", newline="") as file:
            return _columns(csv.reader(file, strict=True), roles, faults)
    except UnicodeDecodeError:
        faults.add("", "bytes that are not UTF-8", "a CSV file in UTF-8")
    except csv.Error as error:
        faults.add("", f"text that is not CSV ({error})", "comma-separated values, with one line of column names")
    except OSError as error:
        faults.add("", f"a file that cannot be read ({error.strerror})", "a CSV file this user may read")
    raise faults.error()


def _opened(faults: _Faults) -> Path:
    """The path, after a look at what is there; a device or a pipe is never read."""
    status = faults.path.stat()
    if not stat.S_ISREG(status.st_mode):
        faults.add("", "something that is not a file", "a CSV file")
        raise faults.error()
    if status.st_size > DATA_BYTES_MAX:
        faults.add("", f"{status.st_size} bytes", f"at most {DATA_BYTES_MAX} bytes")
        raise faults.error()
    return faults.path


def _columns(rows: Any, roles: Mapping[str, str], faults: _Faults) -> pd.DataFrame:
    header = [name.strip() for name in next(rows, [])]
    for name, times in Counter(header).items():
        if times > 1 and name in roles:
            faults.add(name, f"{times} columns of that name", "one")
    for name, role in roles.items():
        if name not in header:
            faults.add(name, "no such column", f"a column with this name: it is {role}")
    places = {name: header.index(name) for name in roles if name in header}
    cells: dict[str, list[str]] = {name: [] for name in places}
    lines: list[int] = []
    ragged: list[int] = []
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            ragged.append(rows.line_num)
            continue
        lines.append(rows.line_num)
        for name, place in places.items():
            cells[name].append(row[place].strip())
    if ragged:
        faults.add(
            "",
            f"{_counted(len(ragged), 'record')} with too few or too many cells ({_lines(ragged)})",
            f"{len(header)} cells, as many as there are column names",
        )
    return pd.DataFrame(cells, index=pd.Index(lines, dtype=np.int64), dtype=object)


# --- columns -------------------------------------------------------------------------------------------------------


def _numbers(cells: "pd.Series[Any]", faults: _Faults) -> tuple[_Floats, _Bools]:
    """The cells as float64, and which of them are finite numbers; the others are reported."""
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    valid = np.isfinite(values)
    faults.records(cells, ~valid, "without a number", "a number in every record, or an empty cell")
    return values, valid


def _inputs(cells: "pd.Series[Any]", feature: NumberFeature | CategoryFeature, faults: _Faults) -> Iterator[_Floats]:
    """The network's inputs for one feature, each float64[records]."""
    if isinstance(feature, CategoryFeature):
        yield from _categories(cells, feature, faults)
        return
    values, valid = _numbers(cells, faults)
    absent = values == feature.absent if feature.absent is not None else np.zeros(len(values), dtype=np.bool_)
    low, high = feature.range
    outside = valid & ~absent & ((values < low) | (values > high))
    faults.records(cells, outside, "outside the range", f"{low:g} to {high:g}{_unit(feature)}")
    if feature.scale is not None:
        values = (np.where(absent, feature.scale.mean, values) - feature.scale.mean) / feature.scale.std
    yield values


def _unit(feature: NumberFeature) -> str:
    return f" ({feature.unit})" if feature.unit else ""


def _categories(cells: "pd.Series[Any]", feature: CategoryFeature, faults: _Faults) -> Iterator[_Floats]:
    """One column for each value but the first, centred and scaled as if every value were equally likely.

    The constants follow from the study's list of values alone. Columns of 0 and 1 would make the bias fight the mean
    of each of them, and under noise that fight is lost: it costs the heart study a point of AUC.
    """
    known = np.zeros(len(cells), dtype=np.bool_)
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    columns = []
    for value in feature.values:  # noqa: PD011 - the study's categories, not a Series
        # Files write the category 2 as 2 or 2.0; a category that is text must be spelled as in the study.
        matches = (cells == value).to_numpy(dtype=np.bool_) if isinstance(value, str) else numbers == value
        known |= matches
        columns.append(matches.astype(np.float64))
    allowed = "one of " + ", ".join(map(str, feature.values))
    faults.records(cells, ~known, "with an unknown category", allowed)
    share = 1 / len(columns)
    for column in columns[1:]:
        yield (column - share) / math.sqrt(share * (1 - share))


def _labels(table: pd.DataFrame, data: Data, faults: _Faults) -> npt.NDArray[np.float32]:
    """float32[records]: 1 where the label's column lies above `positive_above`, else 0."""
    if data.label.name not in table:
        return np.zeros(len(table), dtype=np.float32)
    values, _ = _numbers(table[data.label.name], faults)
    return (values > data.label.positive_above).astype(np.float32)


def _patients(table: pd.DataFrame, study: StudyFile, dataset: Dataset, faults: _Faults) -> tuple[_Indices, int]:
    """Which patient each record belongs to, 0, 1, 2 in order of first appearance, and how many there are."""
    if dataset.patient_id not in table:
        return np.zeros(len(table), dtype=np.int64), 0
    cells = table[dataset.patient_id]
    faults.records(cells, (cells == "").to_numpy(dtype=np.bool_), "without a patient", "a patient in every record")
    patients, identifiers = pd.factorize(cells)
    if len(identifiers) < study.data.minimum_patients:
        faults.add(
            "",
            f"{_counted(len(identifiers), 'patient')} with complete records",
            f"at least {study.data.minimum_patients}, the study's data.minimum_patients",
        )
    if dataset.declared_patients > study.aggregation.max_patients_per_site:
        faults.add(
            "",
            f"declared_patients {dataset.declared_patients} in site.yaml",
            f"at most {study.aggregation.max_patients_per_site}, the study's aggregation.max_patients_per_site",
        )
    return patients.astype(np.int64), len(identifiers)


# --- subgroups -----------------------------------------------------------------------------------------------------


def _groups(table: pd.DataFrame, study: StudyFile, patients: _Indices, chosen: _Bools) -> _Indices:
    """int64[chosen, subgroups]: a chosen patient's cell in each subgroup, by the patient's first record; -1 for none.

    `chosen` is bool[patients]; the order is that of `_records`.
    """
    first = np.unique(patients, return_index=True)[1][chosen]  # patients are numbered by first appearance
    columns = [_cells(table[one.column].iloc[first], study, one) for one in study.evaluation.subgroups or ()]
    cells = np.stack(columns, axis=1) if columns else np.zeros((len(first), 0), dtype=np.int64)
    cells.setflags(write=False)
    return cells


def _cells(cells: "pd.Series[Any]", study: StudyFile, subgroup: Subgroup) -> _Indices:
    """int64[patients]: in which cell each value lies, in the column's own unit, before anything is scaled."""
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    feature = study.data.features[subgroup.column]
    found: _Indices
    if subgroup.bands is not None:
        found = np.searchsorted(np.array(subgroup.bands), numbers, side="right").astype(np.int64)
    else:
        found = np.full(len(cells), -1, dtype=np.int64)
        for number, value in enumerate(subgroup.values or ()):  # noqa: PD011 - the study's categories, not a Series
            matches = (cells == value).to_numpy(dtype=np.bool_) if isinstance(value, str) else numbers == value
            found[matches] = number
    if isinstance(feature, NumberFeature) and feature.absent is not None:
        found[numbers == feature.absent] = -1  # not measured
    return found


# --- the split -----------------------------------------------------------------------------------------------------


def _declared_sides(
    table: pd.DataFrame, dataset: Dataset, patients: _Indices, patient_count: int, faults: _Faults
) -> npt.NDArray[np.str_] | None:
    """The side of each patient by the hospital's own column; None if it has none, or if it cannot be used."""
    column = dataset.split_column
    if column is None or column not in table or patient_count == 0:
        return None
    cells = table[column]
    faults.records(cells, ~cells.isin([TRAIN, TEST]).to_numpy(dtype=np.bool_), "on neither side", f"{TRAIN} or {TEST}")
    trains = np.zeros(patient_count, dtype=np.bool_)
    tests = np.zeros(patient_count, dtype=np.bool_)
    trains[patients[(cells == TRAIN).to_numpy(dtype=np.bool_)]] = True
    tests[patients[(cells == TEST).to_numpy(dtype=np.bool_)]] = True
    both = (trains & tests)[patients]
    if both.any():
        lines = [int(line) for line in cells.index[both]]
        faults.add(
            column,
            f"{_counted(int((trains & tests).sum()), 'patient')} both in {TRAIN} and in {TEST} ({_lines(lines)})",
            "each patient on one side: a test on patients trained on shows nothing",
        )
    return np.where(trains, TRAIN, TEST)


def _highest(labels: npt.NDArray[np.float32], patients: _Indices, patient_count: int) -> npt.NDArray[np.float32]:
    """float32[patients]: the highest label among each patient's records."""
    highest = np.zeros(patient_count, dtype=np.float32)
    np.maximum.at(highest, patients, labels)
    return highest


def _random_sides(labels: npt.NDArray[np.float32], split: Split) -> npt.NDArray[np.str_]:
    """The study's split of patients, as the field's benchmark makes it; the seed is public and the same everywhere."""
    sides = np.full(len(labels), TRAIN)
    tests = math.ceil(split.test_fraction * len(labels))
    if not 0 < tests < len(labels):
        return np.full(len(labels), TEST if tests else TRAIN)  # refused by _check_sides
    counts = np.bincount(labels.astype(np.int64), minlength=2)
    stratify = labels if split.stratify and counts.min() > 2 and min(tests, len(labels) - tests) >= 2 else None
    _, chosen = train_test_split(
        np.arange(len(labels)), test_size=split.test_fraction, random_state=split.seed, shuffle=True, stratify=stratify
    )
    sides[chosen] = TEST
    return sides


def _check_sides(sides: npt.NDArray[np.str_], study: StudyFile, faults: _Faults) -> None:
    most = study.aggregation.max_patients_per_site
    for side, purpose in ((TRAIN, "training"), (TEST, "testing")):
        patients = int((sides == side).sum())
        if not 1 <= patients <= most:
            faults.add("", f"{_counted(patients, 'patient')} for {purpose}", f"1 to {most}")


def _records(
    matrix: npt.NDArray[np.float32], labels: npt.NDArray[np.float32], patients: _Indices, chosen: _Bools
) -> Records:
    """The records of the chosen patients (bool[patients]), with patients numbered anew from 0."""
    rows = chosen[patients]
    renumbered = np.cumsum(chosen) - 1
    parts = matrix[rows], labels[rows], renumbered[patients[rows]].astype(np.int64)
    for part in parts:
        part.setflags(write=False)
    return Records(features=parts[0], labels=parts[1], patients=parts[2], patient_count=int(chosen.sum()))
