"""A table of patients -> training and test records: the CSV or Parquet file of a hospital under a study's contract.

A file is read whole and checked before any of it is used; whatever is wrong with it is reported at once, with line
numbers of the local file and never with a patient's identifier or a value. Only the columns the study names are kept.

The study's public constants scale the features, so no statistic of the patients is needed and none is spent.
"""

import csv
import math
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from consortium.contract.study import StudyFile
from consortium.contract.study_data import CategoryFeature, NumberFeature, Split, TabularData
from consortium.contract.subgroups import Subgroup
from site_agent.cohort import TEST, TRAIN, VALIDATION, Cohort, CohortSummary
from site_agent.data_faults import Faults, counted, lines_of
from site_agent.datasets import ParquetDataset, TableDataset
from site_agent.parquet import check_header, parquet_columns
from site_agent.splits import (
    check_patients,
    check_sides,
    declared_sides,
    highest,
    random_sides,
    records_of,
    staying,
    without,
)
from site_agent.withdrawals import NOBODY, Withdrawn

DATA_BYTES_MAX = 2**30

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]
_Indices = npt.NDArray[np.int64]


def read_table(study: StudyFile, data: TabularData, dataset: TableDataset, withdrawn: Withdrawn = NOBODY) -> Cohort:
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
    noun = "row" if isinstance(dataset, ParquetDataset) else "line"
    faults = Faults(path=Path(dataset.path), found=[], noun=noun)
    every = _read(data, dataset, faults)
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
    patients, identifiers = _patients(table, dataset, faults)
    patient_count, stay = len(identifiers), staying(identifiers, withdrawn)
    if dataset.patient_id in table:
        check_patients(stay, study, dataset, faults)
    sides = _declared_sides(table, dataset, patients, patient_count, split=data.split, faults=faults)
    if faults.found:
        raise faults.error()
    if sides is None:
        sides = random_sides(highest(labels, patients, patient_count), data.split)
    sides = without(sides, identifiers, withdrawn)
    check_sides(sides, study, faults)
    if faults.found:
        raise faults.error()
    matrix = np.stack(inputs, axis=1).astype(np.float32)
    train, test, validation = (
        records_of(matrix, labels, patients, sides == side) for side in (TRAIN, TEST, VALIDATION)
    )
    summary = CohortSummary(
        records_read=len(every),
        records_left_out=len(every) - len(table),
        left_out_by_column={str(name): int(count) for name, count in empty.sum().items() if count},
        patients=stay,
        training_patients=train.patient_count,
        test_patients=test.patient_count,
        training_records=len(train),
        test_records=len(test),
        validation_patients=validation.patient_count,
        validation_records=len(validation),
        most_records_of_a_patient=int(np.bincount(patients)[sides != ""].max()),
        declared_patients=dataset.declared_patients,
    )
    return Cohort(
        train=train,
        test=test,
        test_groups=_groups(table, study, data, patients, sides == TEST),
        feature_names=data.input_names,
        summary=summary,
        validation=validation if study.has_validation else None,
        validation_groups=_groups(table, study, data, patients, sides == VALIDATION) if study.has_validation else None,
    )


# --- the file ------------------------------------------------------------------------------------------------------


def _read(data: TabularData, dataset: TableDataset, faults: Faults) -> pd.DataFrame:
    """The columns the study needs, as stripped text, indexed by line number. Columns that are missing are not in it."""
    features = data.features
    roles = {name: f"the study's feature {name}" for name in features}
    roles[data.label.name] = "the study's label"
    roles[dataset.patient_id] = "patient_id in site.yaml"
    if dataset.split_column is not None:
        roles[dataset.split_column] = "split_column in site.yaml"
    for role, column in (("patient_id", dataset.patient_id), ("split_column", dataset.split_column)):
        if column in features or column == data.label.name:
            faults.add(
                str(column), f"a column that is both {role} in site.yaml and in the study", "a column of its own"
            )
    kind = "Parquet" if isinstance(dataset, ParquetDataset) else "CSV"
    try:
        path = _opened(faults, kind)
        if isinstance(dataset, ParquetDataset):
            return parquet_columns(path, roles, faults)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _columns(csv.reader(file, strict=True), roles, faults)
    except UnicodeDecodeError:
        faults.add("", "bytes that are not UTF-8", "a CSV file in UTF-8")
    except csv.Error as error:
        faults.add("", f"text that is not CSV ({error})", "comma-separated values, with one line of column names")
    except OSError as error:
        faults.add("", f"a file that cannot be read ({error.strerror})", f"a {kind} file this user may read")
    raise faults.error()


def _opened(faults: Faults, kind: str) -> Path:
    """The path, after a look at what is there; a device or a pipe is never read."""
    status = faults.path.stat()
    if not stat.S_ISREG(status.st_mode):
        faults.add("", "something that is not a file", f"a {kind} file")
        raise faults.error()
    if status.st_size > DATA_BYTES_MAX:
        faults.add("", f"{status.st_size} bytes", f"at most {DATA_BYTES_MAX} bytes")
        raise faults.error()
    return faults.path


def _columns(rows: Any, roles: Mapping[str, str], faults: Faults) -> pd.DataFrame:
    header = [name.strip() for name in next(rows, [])]
    check_header(header, roles, faults)
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
            f"{counted(len(ragged), 'record')} with too few or too many cells ({lines_of(ragged, faults.noun)})",
            f"{len(header)} cells, as many as there are column names",
        )
    return pd.DataFrame(cells, index=pd.Index(lines, dtype=np.int64), dtype=object)


# --- columns -------------------------------------------------------------------------------------------------------


def _numbers(cells: "pd.Series[Any]", faults: Faults) -> tuple[_Floats, _Bools]:
    """The cells as float64, and which of them are finite numbers; the others are reported."""
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    valid = np.isfinite(values)
    faults.records(cells, ~valid, "without a number", "a number in every record, or an empty cell")
    return values, valid


def _inputs(cells: "pd.Series[Any]", feature: NumberFeature | CategoryFeature, faults: Faults) -> Iterator[_Floats]:
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


def _categories(cells: "pd.Series[Any]", feature: CategoryFeature, faults: Faults) -> Iterator[_Floats]:
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


def _labels(table: pd.DataFrame, data: TabularData, faults: Faults) -> npt.NDArray[np.float32]:
    """float32[records]: 1 where the label's column lies above `positive_above`, else 0."""
    if data.label.name not in table:
        return np.zeros(len(table), dtype=np.float32)
    values, _ = _numbers(table[data.label.name], faults)
    return (values > data.label.positive_above).astype(np.float32)


def _patients(table: pd.DataFrame, dataset: TableDataset, faults: Faults) -> tuple[_Indices, tuple[str, ...]]:
    """Which patient each record belongs to, 0, 1, 2 in order of first appearance, and who they are."""
    if dataset.patient_id not in table:
        return np.zeros(len(table), dtype=np.int64), ()
    cells = table[dataset.patient_id]
    faults.records(cells, (cells == "").to_numpy(dtype=np.bool_), "without a patient", "a patient in every record")
    patients, identifiers = pd.factorize(cells)
    return patients.astype(np.int64), tuple(identifiers)


# --- sides ---------------------------------------------------------------------------------------------------------


def _declared_sides(
    table: pd.DataFrame,
    dataset: TableDataset,
    patients: _Indices,
    patient_count: int,
    *,
    split: Split,
    faults: Faults,
) -> npt.NDArray[np.str_] | None:
    """The side of each patient by the hospital's own column; None if it has none, or if it cannot be used."""
    column = dataset.split_column
    if column is None or column not in table or patient_count == 0:
        return None
    lines = [int(line) for line in table.index]
    cells = table[column].to_numpy(dtype=np.str_)
    return declared_sides(
        cells, lines, patients, patient_count=patient_count, split=split, column=column, faults=faults
    )


# --- subgroups -----------------------------------------------------------------------------------------------------


def _groups(table: pd.DataFrame, study: StudyFile, data: TabularData, patients: _Indices, chosen: _Bools) -> _Indices:
    """int64[chosen, subgroups]: a chosen patient's cell in each subgroup, by the patient's first record; -1 for none.

    `chosen` is bool[patients]; the order is that of `records_of`.
    """
    first = np.unique(patients, return_index=True)[1][chosen]  # patients are numbered by first appearance
    columns = [_cells(table[one.column].iloc[first], data, one) for one in study.evaluation.subgroups or ()]
    cells = np.stack(columns, axis=1) if columns else np.zeros((len(first), 0), dtype=np.int64)
    cells.setflags(write=False)
    return cells


def _cells(cells: "pd.Series[Any]", data: TabularData, subgroup: Subgroup) -> _Indices:
    """int64[patients]: in which cell each value lies, in the column's own unit, before anything is scaled."""
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    feature = data.features[subgroup.column]
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
