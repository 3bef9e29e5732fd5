"""The benchmark of utility: who gets which records, what a table row says, and that it keeps runs apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from consortium.contract.study import load_study
from consortium.demo_images import joined
from site_agent.cohort import Records
from tests.benchmarks import utility, utility_data, utility_runs
from tests.benchmarks.heart_disease import HEART
from tests.benchmarks.utility import Summary
from tests.benchmarks.utility_data import divided
from tests.benchmarks.utility_runs import Run, figures, study_of
from tests.benchmarks.utility_settings import SETTINGS, Setting


def setting(name: str) -> Setting:
    return next(one for one in SETTINGS if one.name == name)


def runs(*aucs: float) -> tuple[Run, ...]:
    return tuple(Run(auc=auc, accuracy=0.8, accuracy_at_half=0.8, epsilon=0.97) for auc in aucs)


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((count, 28, 28), 255, dtype=np.uint8), np.ones((count, 1), dtype=np.uint8)


def test_classes_are_divided_among_the_sites_without_loss_and_the_same_way_every_time() -> None:
    labels = np.repeat([0, 1], [1214, 3494])  # as in PneumoniaMNIST's training part
    parts = divided(labels, sites=4, concentration=0.5, seed=0)
    assert [len(part) for part in parts] == [3167, 930, 124, 487]
    assert sorted(np.concatenate(parts)) == list(range(4708))
    again = divided(labels, sites=4, concentration=0.5, seed=0)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))
    assert [round(float(labels[part].mean()), 2) for part in parts] == [0.99, 0.31, 0.06, 0.16]


def test_pneumonia_gives_every_training_image_to_one_site_and_the_test_part_to_all(tmp_path: Path) -> None:
    (train, train_labels), (test, test_labels) = images(40), images(7)
    train_labels[:20] = 0
    path = tmp_path / "images.npz"
    np.savez(path, train_images=train, train_labels=train_labels, test_images=test, test_labels=test_labels)
    hospitals = utility_data.pneumonia(path)
    assert sum(len(hospital.train) for hospital in hospitals) == 40
    assert [len(hospital.test) for hospital in hospitals] == [7, 0, 0, 0]
    assert hospitals[0].train.features.shape[1:] == (1, 28, 28)
    assert hospitals[0].test.features.max() == pytest.approx(2.0)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    big, labels = np.zeros((4, 64, 64), dtype=np.uint8), np.zeros((4, 1), dtype=np.uint8)
    path = tmp_path / "images.npz"
    np.savez(path, train_images=big, train_labels=labels, test_images=big, test_labels=labels)
    with pytest.raises(ValueError, match="28 x 28"):
        utility_data.pneumonia(path)


def test_patients_of_two_sites_stay_different_patients() -> None:
    part = Records(
        features=np.zeros((3, 2), dtype=np.float32),
        labels=np.zeros(3, dtype=np.float32),
        patients=np.array([0, 0, 1]),
        patient_count=2,
    )
    assert joined([part, part]).patients.tolist() == [0, 0, 1, 2, 2, 3]
    assert joined([part, part]).patient_count == 4


def test_local_at_epsilon_1_is_the_study_file_of_the_demonstration() -> None:
    there = load_study(HEART / "study.yaml")
    here = study_of(setting("heart-local-1"))
    for section in ("data", "model", "training", "privacy", "aggregation"):
        assert getattr(here, section) == getattr(there, section)


@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: one.name)
def test_every_setting_is_a_study_that_the_contract_allows(one: Setting) -> None:
    study = study_of(one)
    assert study.privacy.mechanism == one.mechanism
    assert study.privacy.epsilon == one.epsilon
    assert study.is_distributed is ("distributed" in one.name)


def test_radiographs_are_called_ill_above_the_share_of_the_ill_and_measured_at_one_half_too() -> None:
    assert study_of(setting("pneumonia-local-3")).evaluation.decision_threshold == 0.74
    scores, positive = np.array([0.9, 0.6, 0.55, 0.1]), np.array([True, False, False, False])
    assert figures(scores, positive, 0.74) == {"auc": 1.0, "accuracy": 1.0, "accuracy_at_half": 0.5}
    with pytest.raises(ValueError, match="one class"):
        figures(scores, np.ones(4, dtype=np.bool_), 0.5)


def test_means_are_held_against_the_reference_as_they_are_printed() -> None:
    one = setting("heart-local-1")
    assert Summary(data="heart", setting=one, runs=runs(0.868, 0.8692)).reached  # 0.8686 is printed as 0.869
    assert not Summary(data="heart", setting=one, runs=runs(0.868, 0.8686)).reached
    wanted = setting("pneumonia-local-3").reference
    assert wanted.accuracy is not None
    assert wanted.accuracy > 0.8
    high = Summary(data="pneumonia", setting=setting("pneumonia-local-3"), runs=runs(0.99))
    assert not high.reached, "accuracy counts too"


def test_a_row_has_mean_and_deviation_and_says_how_many_runs() -> None:
    row = Summary(data="heart", setting=setting("heart-local-1"), runs=runs(0.87, 0.88)).row()
    assert len(row) == len(utility.HEADER)
    assert row[:5] == ("heart disease", "local", "1 (0.97)", "0.875 (sd 0.007)", "0.869")
    assert row[-1] == "2"


def test_what_was_skipped_is_said_with_its_reason() -> None:
    assert "PneumoniaMNIST: skipped, no file here." in utility.table([], {"pneumonia": "no file here"})


def test_runs_are_kept_go_on_and_are_not_mixed_with_those_of_other_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def train(one: Setting, hospitals: object) -> Run:
        done.append(one.name)
        return runs(0.88)[0]

    monkeypatch.setattr(utility_runs, "train", train)
    one, kept = setting("heart-local-3"), tmp_path / "runs.json"
    utility.measure([one], 2, None, kept)
    summaries, skipped = utility.measure([one], 3, None, kept)
    assert len(done) == 3
    assert not skipped
    assert [len(summary.runs) for summary in summaries] == [1, 3]  # pooled, then the study
    utility.measure([replace(one, learning_rate=0.5)], 1, None, kept)
    assert len(done) == 4
    held, _ = utility.measure([one, setting("heart-local-1")], 0, None, kept)
    assert [len(summary.runs) for summary in held] == [1, 3]
    assert len(done) == 4


def test_without_the_file_radiographs_are_skipped_and_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utility_runs, "train", lambda *_: pytest.fail("there is nothing to train on"))
    summaries, skipped = utility.measure([setting("pneumonia-local-3")], 1, Path("no-such-file.npz"), None)
    assert not summaries
    assert skipped == {"pneumonia": "no file no-such-file.npz"}


def test_the_page_is_written_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{utility.TABLE_BEGINS}\nold\n{utility.TABLE_ENDS}\nafter\n")
    utility.write(page, "new\n")
    assert page.read_text() == f"before\n{utility.TABLE_BEGINS}\nnew\n{utility.TABLE_ENDS}\nafter\n"
