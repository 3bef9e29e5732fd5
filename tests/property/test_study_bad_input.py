"""Whatever a file holds, the answer is a value or one error that lists what is wrong; never anything else."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consortium.contract.errors import DocumentInvalid, FileInvalid
from consortium.contract.plan import RoundPlan
from consortium.contract.study import load_study
from site_agent.cohort import read_cohort
from site_agent.data_faults import DataInvalid
from site_agent.datasets import CsvDataset
from site_agent.site_file import load_site_file

CONFIGS = Path(__file__).parents[2] / "configs"
STUDY = (CONFIGS / "heart-disease/study.yaml").read_text().splitlines()
SITE = (CONFIGS / "heart-disease/sites/cleveland/site.yaml").read_text().splitlines()
HEART = load_study(CONFIGS / "heart-disease/study.yaml")
PATIENTS = (CONFIGS / "heart-disease/data/cleveland.csv").read_text().splitlines()

VALUES = st.sampled_from(
    ["", "~", "-1", "0", "1e999", "true", "[]", "{}", "[[]]", "{a: {b: 1}}", '"x"', "2027-12-31", "&a 1", "*a",
     "!!set {}", "|\n  x", "- 1", ": :", '"\\e[2J"', "'", "9" * 60, "1.5", "[1, 2, 3]", "?", "%", "@", "\t"]
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("input")


@st.composite
def mangled(draw: st.DrawFn, lines: list[str]) -> str:
    """A good file with a few lines dropped, doubled, indented otherwise, or with another value."""
    result = list(lines)
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(result) - 1))
        line = result[place]
        match draw(st.sampled_from(["drop", "double", "indent", "value", "cut"])):
            case "drop":
                result[place] = ""
            case "double":
                result.insert(place, line)
            case "indent":
                result[place] = "  " + line
            case "value":
                result[place] = line.partition(":")[0] + ": " + draw(VALUES)
            case _:
                result[place] = line[: draw(st.integers(0, len(line)))]
    return "\n".join(result)


def check(error: FileInvalid, text: str) -> None:
    assert error.problems
    assert list(error.problems) == sorted(error.problems, key=lambda problem: (problem.line or 0, problem.path))
    for problem in error.problems:
        assert str(problem).isprintable()
        assert problem.found
        assert problem.allowed
        assert problem.line is None or 1 <= problem.line <= text.count("\n") + 2


@settings(max_examples=150, deadline=None)
@given(text=mangled(STUDY))
def test_mangled_studies(folder: Path, text: str) -> None:
    file = folder / "study.yaml"
    file.write_text(text)
    try:
        load_study(file)
    except FileInvalid as error:
        check(error, text)


@settings(max_examples=80, deadline=None)
@given(text=mangled(SITE))
def test_mangled_site_files(folder: Path, text: str) -> None:
    file = folder / "site.yaml"
    file.write_text(text)
    try:
        load_site_file(file)
    except FileInvalid as error:
        check(error, text)


@settings(max_examples=150, deadline=None)
@given(raw=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_as_a_study_or_a_plan(folder: Path, raw: bytes) -> None:
    file = folder / "any.yaml"
    file.write_bytes(raw)
    with pytest.raises(FileInvalid):
        load_study(file)
    with pytest.raises(DocumentInvalid):
        RoundPlan.from_bytes(raw)


@settings(max_examples=100, deadline=None)
@given(
    text=mangled(PATIENTS[:60]) | st.text(max_size=100).map(lambda text: PATIENTS[0] + "\n" + text),
    split=st.sampled_from([None, "patient", "sex", "num", "cp", "absent"]),
)
def test_any_data_file(folder: Path, text: str, split: str | None) -> None:
    file = folder / "patients.csv"
    file.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    data = CsvDataset(path=str(file), format="csv", patient_id="patient", declared_patients=30, split_column=split)
    error, cohort = None, None
    try:
        cohort = read_cohort(HEART, data)
    except DataInvalid as caught:
        error = caught
    if error is not None:
        assert error.problems
        assert "cleveland-0" not in str(error)
    else:
        assert cohort is not None
        assert cohort.train.features.shape == (len(cohort.train), 13)
