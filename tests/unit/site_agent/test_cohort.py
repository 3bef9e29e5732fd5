"""Reading patients: what goes into the network, who is left out, and every way a file can be wrong."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consortium.contract.study import StudyFile, load_study
from site_agent.cohort import Cohort, read_cohort
from site_agent.data_faults import DataInvalid
from site_agent.datasets import CsvDataset
from site_agent.tables import DATA_BYTES_MAX

HEART = load_study(Path(__file__).parents[3] / "configs/heart-disease/study.yaml")
HEADER = "patient,age,bp,kind,outcome,side,comment"


def study(**data: Any) -> StudyFile:
    record = HEART.model_dump(mode="python", by_alias=True, exclude_none=True)
    record["data"] |= {
        "features": {
            "age": {"type": "number", "unit": "years", "range": (0.0, 120.0), "scale": {"mean": 50.0, "std": 10.0}},
            "bp": {"type": "number", "range": (60.0, 260.0), "scale": {"mean": 130.0, "std": 20.0}, "absent": 0.0},
            "kind": {"type": "category", "values": (1, 2, 3)},
        },
        "label": {"name": "outcome", "type": "binary", "positive_above": 0.0},
        "minimum_patients": 4,
    } | data
    groups = (
        {"column": "age", "bands": (45.0, 50.0)},
        {"column": "kind", "values": (1, 3)},
        {"column": "bp", "bands": (119.5,)},
    )
    known = all(group["column"] in record["data"]["features"] for group in groups)
    record["evaluation"]["subgroups"] = groups if known and "features" not in data else None
    return StudyFile.model_validate(record)


def rows(count: int = 12, *, per_patient: int = 1) -> list[list[str]]:
    return [
        [
            f"SECRET-{n // per_patient:03}",
            str(40 + n),
            "120",
            str(1 + n % 3),
            str(n % 2),
            "train" if n % 3 else "test",
            "x",
        ]
        for n in range(count)
    ]


def dataset(tmp_path: Path, lines: list[list[str]] | str, *, header: str = HEADER, **settings: Any) -> CsvDataset:
    file = tmp_path / "patients.csv"
    body = lines if isinstance(lines, str) else "".join(",".join(row) + "\n" for row in lines)
    file.write_text(f"{header}\n{body}", newline="")
    fields = {"path": str(file), "format": "csv", "patient_id": "patient", "declared_patients": 8}
    return CsvDataset.model_validate(fields | settings)


def read(tmp_path: Path, lines: list[list[str]] | str, *, contract: StudyFile | None = None, **settings: Any) -> Cohort:
    return read_cohort(contract or study(), dataset(tmp_path, lines, **settings))


def refusal(tmp_path: Path, lines: list[list[str]] | str, **settings: Any) -> DataInvalid:
    with pytest.raises(DataInvalid) as caught:
        read(tmp_path, lines, **settings)
    return caught.value


def found(error: DataInvalid) -> list[tuple[str, str]]:
    return [(problem.column, problem.found) for problem in error.problems]


# --- what goes in --------------------------------------------------------------------------------------------------


def test_features_are_scaled_by_the_studys_constants_and_categories_opened_up(tmp_path: Path) -> None:
    cohort = read(tmp_path, rows())
    assert cohort.feature_names == ("age", "bp", "kind=2", "kind=3")
    both = np.concatenate([cohort.train.features, cohort.test.features])
    by_age = both[np.argsort(both[:, 0])]
    assert by_age.dtype == np.float32
    third = np.sqrt(2 / 9)  # of three values each counts as one third: centred, and divided by its deviation
    expected = [
        [(40 + n - 50) / 10, -0.5, ((n % 3 == 1) - 1 / 3) / third, ((n % 3 == 2) - 1 / 3) / third] for n in range(12)
    ]
    np.testing.assert_allclose(by_age, expected, rtol=1e-6)
    assert cohort.train.labels.dtype == np.float32
    assert set(cohort.train.labels) == {0.0, 1.0}


def test_an_absent_value_becomes_the_mean_though_it_is_out_of_range(tmp_path: Path) -> None:
    lines = rows()
    for row in lines:
        row[2] = "0"
    cohort = read(tmp_path, lines)
    assert (cohort.train.features[:, 1] == 0).all()


def test_a_number_without_scale_goes_in_as_it_is(tmp_path: Path) -> None:
    contract = study(features={"age": {"type": "number", "range": (0.0, 120.0)}})
    cohort = read(tmp_path, rows(), contract=contract)
    assert cohort.feature_names == ("age",)
    assert sorted([*cohort.train.features[:, 0], *cohort.test.features[:, 0]]) == list(range(40, 52))


def test_text_categories_are_matched_as_they_are_spelled(tmp_path: Path) -> None:
    contract = study(features={"comment": {"type": "category", "values": ("x", "y")}})
    lines = rows()
    lines[3][6] = "y"
    cohort = read(tmp_path, lines, contract=contract)
    assert sorted([*cohort.train.features[:, 0], *cohort.test.features[:, 0]]) == [-1.0] * 11 + [1.0]
    lines[4][6] = "Y"
    assert found(refusal(tmp_path, lines, contract=contract)) == [
        ("comment", "1 record with an unknown category (line 6)")
    ]


@pytest.mark.parametrize("cell", ["2", "2.0", " 2 ", "2e0", "+2"])
def test_numbers_may_be_spelled_in_several_ways(tmp_path: Path, cell: str) -> None:
    lines = rows()
    for row in lines:
        row[3] = cell
    assert (read(tmp_path, lines).train.features[:, 2] > 0).all()


def test_records_with_something_missing_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = rows()
    lines[0][1] = ""
    lines[1][1] = lines[1][2] = " "
    lines[2][4] = ""
    lines[3][6] = ""  # a column the study does not name
    cohort = read(tmp_path, lines)
    assert cohort.summary.records_read == 12
    assert cohort.summary.records_left_out == 3
    assert cohort.summary.left_out_by_column == {"age": 2, "bp": 1, "outcome": 1}
    assert cohort.summary.patients == 9


def test_what_is_left_out_need_not_be_right_otherwise(tmp_path: Path) -> None:
    lines = rows()
    lines[0] = ["", "", "abc", "9", "?", "", ""]
    assert read(tmp_path, lines).summary.records_left_out == 1


def test_blank_lines_quotes_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    text = "".join(",".join(f'"{cell}"' for cell in row) + "\r\n\r\n" for row in rows())
    assert read(tmp_path, text).summary.patients == 12


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    assert read(tmp_path, rows(), header="\ufeff" + HEADER).summary.patients == 12


def test_the_label_is_positive_above_the_bound(tmp_path: Path) -> None:
    label = {"name": "outcome", "type": "binary", "positive_above": 1.0}
    lines = rows()
    for n, row in enumerate(lines):
        row[4] = str(n % 4)
    cohort = read(tmp_path, lines, contract=study(label=label))
    assert cohort.train.labels.sum() + cohort.test.labels.sum() == 6


def test_arrays_are_read_only_and_never_printed(tmp_path: Path) -> None:
    cohort = read(tmp_path, rows())
    with pytest.raises(ValueError, match="read-only"):
        cohort.train.features[0, 0] = 1
    assert repr(cohort.train) == "Records(7 records of 7 patients)"
    assert "SECRET" not in repr(cohort)


# --- patients and the split ----------------------------------------------------------------------------------------


def test_patients_are_split_not_records(tmp_path: Path) -> None:
    cohort = read(tmp_path, rows(36, per_patient=3))
    assert (cohort.summary.patients, cohort.summary.most_records_of_a_patient) == (12, 3)
    for side in (cohort.train, cohort.test):
        assert len(side) == 3 * side.patient_count
        assert (np.bincount(side.patients) == 3).all()
        # Ages run on from record to record: those of one patient are three in a row.
        for patient in range(side.patient_count):
            ages = side.features[side.patients == patient, 0]
            np.testing.assert_allclose(np.diff(ages), 0.1, atol=1e-6)


def test_the_split_is_that_of_the_study_and_of_nothing_else(tmp_path: Path) -> None:
    first, second = read(tmp_path, rows(60)), read(tmp_path, rows(60))
    np.testing.assert_array_equal(first.train.features, second.train.features)
    other = study(split={"test_fraction": 0.34, "seed": 44, "stratify": True})
    assert not np.array_equal(first.train.features, read(tmp_path, rows(60), contract=other).train.features)


def test_a_stratified_split_gives_both_sides_their_share(tmp_path: Path) -> None:
    lines = rows(60)
    for n, row in enumerate(lines):
        row[4] = str(int(n < 15))
    contract = study(split={"test_fraction": 0.2, "seed": 1, "stratify": True})
    cohort = read(tmp_path, lines, contract=contract)
    assert (len(cohort.test), cohort.test.labels.sum()) == (12, 3)


@pytest.mark.parametrize("positives", [0, 1, 2])
def test_too_few_of_one_label_are_split_without_stratifying(tmp_path: Path, positives: int) -> None:
    lines = rows()
    for n, row in enumerate(lines):
        row[4] = str(int(n < positives))
    assert len(read(tmp_path, lines).test) == 5


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_a_side_too_small_to_stratify_is_split_without_it(tmp_path: Path, fraction: float) -> None:
    contract = study(split={"test_fraction": fraction, "seed": 1, "stratify": True})
    if fraction == 0.01:
        assert len(read(tmp_path, rows(), contract=contract).test) == 1
    else:
        assert found(refusal(tmp_path, rows(), contract=contract)) == [("", "0 patients for training")]


def test_the_hospitals_own_split_is_taken(tmp_path: Path) -> None:
    cohort = read(tmp_path, rows(), split_column="side")
    assert (len(cohort.train), len(cohort.test)) == (8, 4)
    np.testing.assert_allclose(cohort.test.features[:, 0], [-1.0, -0.7, -0.4, -0.1], atol=1e-6)


def test_a_patient_on_both_sides_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, rows(24, per_patient=2), split_column="side")
    ((column, text),) = found(error)
    assert column == "side"
    assert text.startswith("8 patients both in train and in test (lines 2, 3, 4, 5, 8 and 11 more)")


@pytest.mark.parametrize("word", ["", "Train", "validation"])
def test_a_patient_on_no_side_is_refused(tmp_path: Path, word: str) -> None:
    lines = rows()
    lines[4][5] = word
    assert found(refusal(tmp_path, lines, split_column="side")) == [("side", "1 record on neither side (line 6)")]


# --- what is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "cell", "problem"),
    [
        (1, "abc", ("age", "1 record without a number (line 4)")),
        (1, "nan", ("age", "1 record without a number (line 4)")),
        (1, "inf", ("age", "1 record without a number (line 4)")),
        (1, "1e999", ("age", "1 record without a number (line 4)")),
        (1, "1_0", ("age", "1 record without a number (line 4)")),
        (1, "True", ("age", "1 record without a number (line 4)")),
        (1, "121", ("age", "1 record outside the range (line 4)")),
        (1, "-0.01", ("age", "1 record outside the range (line 4)")),
        (2, "1", ("bp", "1 record outside the range (line 4)")),
        (3, "4", ("kind", "1 record with an unknown category (line 4)")),
        (3, "two", ("kind", "1 record with an unknown category (line 4)")),
        (4, "yes", ("outcome", "1 record without a number (line 4)")),
        (0, "", ("patient", "1 record without a patient (line 4)")),
    ],
)
def test_one_wrong_cell(tmp_path: Path, column: int, cell: str, problem: tuple[str, str]) -> None:
    lines = rows()
    lines[2][column] = cell
    assert found(refusal(tmp_path, lines)) == [problem]


def test_the_range_says_its_unit(tmp_path: Path) -> None:
    lines = rows()
    lines[0][1] = "999"
    (problem,) = refusal(tmp_path, lines).problems
    assert problem.allowed == "0 to 120 (years)"


def test_missing_columns_are_all_named_with_what_they_are_for(tmp_path: Path) -> None:
    error = refusal(tmp_path, rows(), header="a,age,b,c,d,e,f", split_column="side")
    assert [(p.column, p.found, p.allowed) for p in error.problems] == [
        ("bp", "no such column", "a column with this name: it is the study's feature bp"),
        ("kind", "no such column", "a column with this name: it is the study's feature kind"),
        ("outcome", "no such column", "a column with this name: it is the study's label"),
        ("patient", "no such column", "a column with this name: it is patient_id in site.yaml"),
        ("side", "no such column", "a column with this name: it is split_column in site.yaml"),
    ]


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, rows(), header="patient,age,bp,kind,outcome,age,comment")
    assert found(error) == [("age", "2 columns of that name")]


@pytest.mark.parametrize("role", ["patient_id", "split_column"])
def test_a_column_cannot_be_a_feature_as_well(tmp_path: Path, role: str) -> None:
    error = refusal(tmp_path, rows(), **{role: "kind"})
    assert ("kind", f"a column that is both {role} in site.yaml and in the study") in found(error)


def test_too_few_patients_after_leaving_out(tmp_path: Path) -> None:
    lines = rows(5)
    lines[0][1] = lines[1][1] = ""
    error = refusal(tmp_path, lines)
    assert found(error) == [("", "3 patients with complete records")]
    assert error.problems[0].allowed == "at least 4, the study's data.minimum_patients"


def test_many_records_of_few_patients_are_still_few_patients(tmp_path: Path) -> None:
    assert found(refusal(tmp_path, rows(30, per_patient=10))) == [("", "3 patients with complete records")]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_records(tmp_path: Path, text: str) -> None:
    assert found(refusal(tmp_path, text)) == [("", "0 patients with complete records")]


def test_an_empty_file(tmp_path: Path) -> None:
    data = dataset(tmp_path, "")
    Path(data.path).write_bytes(b"")
    with pytest.raises(DataInvalid) as caught:
        read_cohort(study(), data)
    assert {problem.found for problem in caught.value.problems} == {"no such column"}


def test_more_patients_than_the_ring_was_made_for(tmp_path: Path) -> None:
    record = study().model_dump(mode="python", by_alias=True, exclude_none=True)
    record["aggregation"]["max_patients_per_site"] = 6
    contract = StudyFile.model_validate(record)
    assert found(refusal(tmp_path, rows(), contract=contract)) == [("", "declared_patients 8 in site.yaml")]
    assert found(refusal(tmp_path, rows(), contract=contract, declared_patients=6)) == [("", "7 patients for training")]


def test_everything_wrong_comes_at_once(tmp_path: Path) -> None:
    lines = rows(20)
    for row in lines[:8]:
        row[1] = "999"
    lines[9][2] = "high"
    lines[10][3] = "7"
    lines[11] = [*lines[11], "one too many"]
    lines[12] = lines[12][:3]
    error = refusal(tmp_path, lines, header=HEADER.replace("outcome", "result"))
    assert found(error) == [
        ("outcome", "no such column"),
        ("", "2 records with too few or too many cells (lines 13, 14)"),
        ("age", "8 records outside the range (lines 2, 3, 4, 5, 6 and 3 more)"),
        ("bp", "1 record without a number (line 11)"),
        ("kind", "1 record with an unknown category (line 12)"),
    ]


def test_messages_carry_neither_patients_nor_values(tmp_path: Path) -> None:
    lines = rows(24, per_patient=2)
    for row in lines:
        row[1] = "777"
        row[3] = "888"
        row[4] = "PRIVATE"
    error = refusal(tmp_path, lines, split_column="side")
    text = f"{error} {error.advice()} {error!r} {error.problems}"
    for secret in ("SECRET", "777", "888", "PRIVATE"):
        assert secret not in text
    assert error.__cause__ is None
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems) == (str(error), error.problems)


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"patient,age\n\xff\xfe,1\n", "bytes that are not UTF-8"),
        (b'patient,age\n"a"b,1\n', "text that is not CSV"),
        (b"patient,age\n" + b"x" * 200_000 + b",1\n", "text that is not CSV"),
    ],
)
def test_files_that_are_not_csv(tmp_path: Path, raw: bytes, what: str) -> None:
    data = dataset(tmp_path, "")
    Path(data.path).write_bytes(raw)
    with pytest.raises(DataInvalid) as caught:
        read_cohort(study(), data)
    assert what in caught.value.problems[-1].found


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "huge"])
def test_what_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(DATA_BYTES_MAX + 1)  # sparse: no such file is written
    data = CsvDataset(path=str(path), format="csv", patient_id="patient", declared_patients=8)
    with pytest.raises(DataInvalid) as caught:
        read_cohort(study(), data)
    assert len(caught.value.problems) == 1
    assert "site.yaml" in caught.value.advice()


# --- groups of test patients ---------------------------------------------------------------------------------------


def test_test_patients_are_in_cells_by_the_columns_own_unit(tmp_path: Path) -> None:
    found = read(tmp_path, rows(12), split_column="side")
    # Every third is a test patient: ages 40, 43, 46 and 49, all of kind 1 and with the same pressure.
    assert found.test_groups.tolist() == [[0, 0, 1], [0, 0, 1], [1, 0, 1], [1, 0, 1]]
    assert not found.test_groups.flags.writeable


def test_an_edge_belongs_to_the_band_above_it_and_other_values_to_no_cell(tmp_path: Path) -> None:
    lines = rows(12)
    for line, age, pressure, kind in ((0, "45", "0", "2"), (3, "50.0", "120", "3.0"), (6, "44.9", "119", "1")):
        lines[line][1:4] = [age, pressure, kind]
    found = read(tmp_path, lines, split_column="side").test_groups.tolist()
    assert found[:3] == [[1, -1, -1], [2, 1, 1], [0, 0, 0]]  # a pressure of 0 was not measured


def test_a_patient_of_several_records_is_where_the_first_one_is(tmp_path: Path) -> None:
    lines = rows(12, per_patient=2)
    for number, line in enumerate(lines):
        line[5] = "test" if number // 2 % 2 == 0 else "train"
    found = read(tmp_path, lines, split_column="side")
    assert found.test.patient_count == len(found.test_groups) == 3
    assert found.test_groups[:, 0].tolist() == [0, 0, 1]  # ages 40, 44 and 48


def test_without_subgroups_there_is_nothing_to_say_about_groups(tmp_path: Path) -> None:
    plain = study()
    plain = plain.model_copy(update={"evaluation": plain.evaluation.model_copy(update={"subgroups": None})})
    assert read(tmp_path, rows(12), contract=plain, split_column="side").test_groups.shape == (4, 0)
