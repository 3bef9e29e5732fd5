"""The heart-disease study reads exactly the cohort of the field's benchmark (FLamby, Fed-Heart-Disease).

The committed files were compared row by row with the four original UCI files; their digests are frozen here. What the
benchmark does with them is written out below, independently of `site_agent.cohort`.
"""

import hashlib
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from consortium.contract.names import StudyId
from consortium.contract.study import load_study
from site_agent.cohort import Cohort, read_cohort
from site_agent.site_file import load_site_file

HEART = Path(__file__).parents[2] / "configs/heart-disease"
STUDY = load_study(HEART / "study.yaml")

SHA256 = {
    "cleveland": "f7a559877b18faa3c136e0da412d6ba410028a072924c24b58c3d9da78402a84",
    "hungary": "2858265c52e9a99b890253c4e11c1345b01530f2a55ae58ad08959c794120e6f",
    "switzerland": "7ce30afcbd86f95369d71fa8c0bb6cb877695e39ba1c1d8a9e31dbf8e6b986be",
    "va-long-beach": "4ad54c703890ee4ffc4eedb1af926201e8933effb0cd88578ce3cf7142c72606",
}
# site: records, complete records, train, test, positive in train, positive in test
COUNTS = {
    "cleveland": (303, 303, 199, 104, 91, 48),
    "hungary": (294, 261, 172, 89, 65, 33),
    "switzerland": (123, 46, 30, 16, 30, 15),
    "va-long-beach": (200, 130, 85, 45, 66, 35),
}
SITES = sorted(COUNTS)


def cohort_of(site: str) -> Cohort:
    file = load_site_file(HEART / f"sites/{site}/site.yaml")
    dataset = file.dataset_for(StudyId("heart-disease"))
    assert file.site == site
    assert dataset is not None
    return read_cohort(STUDY, dataset)


def benchmark(site: str) -> tuple[pd.DataFrame, list[int], list[int]]:
    """The benchmark's recipe: drop incomplete rows, split 66/34 with its seed, stratified where it can be."""
    table = pd.read_csv(HEART / f"data/{site}.csv").dropna().reset_index(drop=True)
    positive = (table["num"] > 0).astype(int)
    levels = positive.value_counts()
    stratify = positive if len(levels) > 1 and levels.min() > 2 else None
    train, test = train_test_split(
        np.arange(len(table)), test_size=1.0 - 0.66, train_size=0.66, random_state=43, shuffle=True, stratify=stratify
    )
    return table, sorted(train), sorted(test)


def inputs(table: pd.DataFrame) -> Any:
    """The benchmark's thirteen inputs, scaled by the study's constants, in the study's order."""
    scale = {
        "age": (55, 10), "trestbps": (130, 20), "chol": (240, 50), "thalach": (150, 25), "oldpeak": (1, 1),
        "sex": (0.5, 0.5), "fbs": (0.5, 0.5), "exang": (0.5, 0.5),
    }  # fmt: skip
    table = table.astype({"cp": int, "restecg": int})
    made = pd.DataFrame()
    for name in ("age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak"):
        values = table[name].astype(float)
        if name in ("trestbps", "chol"):
            values = values.replace(0, scale[name][0])
        mean, std = scale[name]
        made[name] = (values - mean) / std
    for name, values in (("cp", (1, 2, 3, 4)), ("restecg", (0, 1, 2))):
        for value in values[1:]:
            share = 1 / len(values)
            made[f"{name}={value}"] = ((table[name] == value) - share) / np.sqrt(share * (1 - share))
    return made[sorted(made.columns)].to_numpy(np.float32)


@pytest.mark.parametrize("site", SITES)
def test_the_files_are_the_ones_compared_with_the_originals(site: str) -> None:
    assert hashlib.sha256((HEART / f"data/{site}.csv").read_bytes()).hexdigest() == SHA256[site]


@pytest.mark.parametrize("site", SITES)
def test_counts_are_those_of_the_benchmark(site: str) -> None:
    cohort = cohort_of(site)
    counts = (
        cohort.summary.records_read, cohort.summary.patients, len(cohort.train), len(cohort.test),
        int(cohort.train.labels.sum()), int(cohort.test.labels.sum()),
    )  # fmt: skip
    assert counts == COUNTS[site]
    assert cohort.summary.most_records_of_a_patient == 1
    assert cohort.summary.declared_patients == len(cohort.train)


@pytest.mark.parametrize("site", SITES)
def test_every_patient_is_on_the_benchmarks_side_with_the_benchmarks_inputs(site: str) -> None:
    cohort = cohort_of(site)
    table, train, test = benchmark(site)
    for side, rows in ((cohort.train, train), (cohort.test, test)):
        np.testing.assert_allclose(side.features, inputs(table)[rows], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(side.labels, (table["num"] > 0).to_numpy(np.float32)[rows])
        assert side.patients.tolist() == list(range(len(rows)))


def test_thirteen_inputs_in_the_order_of_their_names() -> None:
    assert STUDY.data.input_names == (
        "age", "chol", "cp=2", "cp=3", "cp=4", "exang", "fbs", "oldpeak", "restecg=1", "restecg=2", "sex", "thalach",
        "trestbps",
    )  # fmt: skip
    assert cohort_of("cleveland").feature_names == STUDY.data.input_names


@pytest.mark.parametrize("site", SITES)
def test_public_constants_bring_every_input_to_a_common_size(site: str) -> None:
    features = cohort_of(site).train.features
    assert np.abs(features.mean(axis=0)).max() < 1.5
    assert np.abs(features).max() < 8


@pytest.mark.parametrize("path", ["heart-disease/study.yaml", "studies/heart-disease-distributed.yaml"])
def test_every_site_of_the_roster_has_a_file_that_allows_the_study(path: str) -> None:
    study = load_study(HEART.parent / path)
    assert set(study.sites.required) == set(SITES)
    for site in SITES:
        file = load_site_file(HEART / f"sites/{site}/site.yaml")
        policy = file.policy
        assert file.dataset_for(study.study_id) is not None
        assert study.privacy.epsilon <= policy.max_epsilon_per_study
        assert study.privacy.delta <= policy.max_delta
        assert study.aggregation.threshold >= policy.minimum_threshold
        assert study.sites.minimum >= policy.minimum_sites
        assert study.model.network in policy.allowed_networks
        assert study.privacy.mechanism in policy.allowed_mechanisms


def test_the_derivation_script_moves_the_mislabelled_patient_and_restores_the_codes(tmp_path: Path) -> None:
    script = runpy.run_path(str(HEART / "derive.py"))
    row = {
        "id": "304", "age": "28", "sex": "Male", "dataset": "Cleveland", "cp": "atypical angina", "trestbps": "130",
        "chol": "132", "fbs": "FALSE", "restecg": "lv hypertrophy", "thalch": "185", "exang": "FALSE", "oldpeak": "0",
        "slope": "", "ca": "", "thal": "", "num": "0",
    }  # fmt: skip
    assert script["site_of"](row) == "hungary"
    assert script["site_of"](row | {"chol": "133"}) == "cleveland"
    made = script["record_of"](row, "hungary-001")
    assert ",".join(made) == (HEART / "data/hungary.csv").read_text().splitlines()[1]
    assert script["record_of"](row | {"fbs": ""}, "x")[6] == ""
    (tmp_path / "other.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(SystemExit, match="not the table this script knows"):
        script["main"](tmp_path / "other.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()
