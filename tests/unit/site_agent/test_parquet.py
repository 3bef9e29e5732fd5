"""Parquet files are judged as CSV files are: the same cells, the same rules, the same words."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from site_agent import parquet
from site_agent.cohort import read_cohort
from site_agent.data_faults import DataInvalid
from site_agent.patient_marks import identifiers_in
from tests.fakes.imaging_study import dataset
from tests.fakes.site_world import small_study

COUNT = 40
COLUMNS = {
    "patient": [f"P{n}" for n in range(COUNT)],
    "age": [30.5 + n for n in range(COUNT)],
    "kind": [1 + n % 3 for n in range(COUNT)],
    "outcome": [n % 2 == 1 for n in range(COUNT)],
    "elsewhere": [[n] for n in range(COUNT)],  # a type nobody asks for
}


def written(tmp_path, **changes):
    path = tmp_path / "patients.parquet"
    pq.write_table(pa.table({**COLUMNS, **changes}), path)
    return dataset(path, "parquet", patient_id="patient")


def as_csv(tmp_path, columns):
    rows = [
        ",".join(str(int(v) if isinstance(v, bool) else v) for v in row) for row in zip(*columns.values(), strict=True)
    ]
    (tmp_path / "patients.csv").write_text("\n".join([",".join(columns), *rows]))
    return dataset(tmp_path / "patients.csv", "csv", patient_id="patient")


def test_the_same_records_as_from_csv(tmp_path):
    study = small_study()
    data = written(tmp_path)
    cohort = read_cohort(study, data)
    plain = read_cohort(
        study, as_csv(tmp_path, {name: COLUMNS[name] for name in ("patient", "age", "kind", "outcome")})
    )
    assert (cohort.train.features == plain.train.features).all()
    assert (cohort.test.labels == plain.test.labels).all()
    assert cohort.summary == plain.summary
    assert list(identifiers_in(data)) == COLUMNS["patient"]
    assert list(identifiers_in(data.model_copy(update={"patient_id": "nobody"}))) == []


def test_nothing_recorded_is_null_or_nan(tmp_path):
    ages = [None, math.nan, *COLUMNS["age"][2:]]
    summary = read_cohort(small_study(), written(tmp_path, age=ages)).summary
    assert (summary.records_read, summary.records_left_out) == (COUNT, 2)
    assert summary.left_out_by_column == {"age": 2}


def test_what_is_wrong_is_said_with_rows_and_without_values(tmp_path):
    with pytest.raises(DataInvalid) as caught:
        read_cohort(small_study(), written(tmp_path, age=[7e9, *COLUMNS["age"][1:]], kind=COLUMNS["elsewhere"]))
    told = [str(problem) for problem in caught.value.problems]
    assert told[0].startswith("column kind: found the type list<")
    assert any("column age: found 1 record outside the range (row 1)" in text for text in told)
    assert "7000000000" not in "".join(told)


def test_no_parquet_and_too_many_rows(tmp_path, monkeypatch):
    data = written(tmp_path)
    monkeypatch.setattr(parquet, "ROWS_MAX", COUNT - 1)
    with pytest.raises(DataInvalid, match="found 40 rows; allowed: at most 39"):
        read_cohort(small_study(), data)
    (tmp_path / "patients.parquet").write_bytes((tmp_path / "patients.parquet").read_bytes()[:-30])
    with pytest.raises(DataInvalid, match="not Parquet, or is damaged"):
        read_cohort(small_study(), data)
    assert list(identifiers_in(data)) == []


def test_a_dataset_of_the_other_kind_is_refused(tmp_path):
    films = dataset(tmp_path, "image-folder", table=str(tmp_path / "list.csv"))
    with pytest.raises(DataInvalid, match="a dataset of the format image-folder; allowed: one of csv, parquet"):
        read_cohort(small_study(), films)
