"""The demo of image studies: what its hospitals are given, and what its last lines say."""

import json
from pathlib import Path

import numpy as np
import pytest

from consortium import demo_data
from consortium.assets import study_file
from consortium.contract.study import StudyFile, load_study
from consortium.demo_data import DemoDataMissing, prepares, require_data, site_files
from consortium.demo_images import Figures, figure_of, verdict
from site_agent.cohort import read_cohort
from site_agent.phantoms import SCANNERS, phantom
from site_agent.site_file import load_site_file

NAMES = ("phantoms", "phantoms-3d", "chest-xray", "chest-xray-distributed", "hippocampus", "hippocampus-dp")


def shipped(name: str) -> StudyFile:
    return load_study(study_file(Path(name)))


@pytest.mark.parametrize("name", NAMES)
def test_every_study_of_images_that_ships_is_prepared_by_the_demo(name: str) -> None:
    study = shipped(name)
    assert study.id == name
    assert prepares(study)


@pytest.mark.parametrize("name", ["phantoms", "phantoms-3d"])
def test_each_hospital_gets_readable_images_of_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_data, "PHANTOM_PATIENTS", 10)
    monkeypatch.setattr(demo_data, "PHANTOM_VOLUME_PATIENTS", 10)
    study = shipped(name)
    study = study.model_copy(update={"data": study.data.model_copy(update={"minimum_patients": 8})})
    (tmp_path / "north").mkdir()
    texts = site_files(study, None, tmp_path / "data")
    assert set(texts) == set(SCANNERS)
    path = tmp_path / "north" / "site.yaml"
    path.write_text(texts["north"])
    dataset = load_site_file(path).dataset_for(study.study_id)
    assert dataset is not None
    cohort = read_cohort(study, dataset)
    assert (len(cohort.train), len(cohort.test)) == (8, 2)
    assert cohort.train.features.shape[1:] == (1, *study.data.shape)
    assert dataset.declared_patients == 8
    assert 0 < cohort.train.labels.mean() < 0.2  # lesions, and more of everything else


@pytest.mark.parametrize("shape", [(48, 48), (24, 24, 24)])
def test_scanners_differ_and_one_shows_lesions_dark(shape: tuple[int, ...]) -> None:
    for site, scanner in SCANNERS.items():
        image, mask = phantom(scanner, shape, np.random.RandomState(1))
        again, _ = phantom(scanner, shape, np.random.RandomState(1))
        assert image.shape == mask.shape == shape
        assert np.array_equal(image, again)
        brighter = image[mask == 1].mean() > np.median(image[(mask == 0) & (image > 80)])
        assert brighter == (site != "east")


def test_radiographs_are_divided_without_one_twice(tmp_path: Path) -> None:
    file = tmp_path / "small.npz"
    labels = (np.arange(400) % 4 > 0).astype(np.uint8)[:, None]
    np.savez(file, train_labels=labels, val_labels=labels, test_labels=labels)
    texts = site_files(shipped("chest-xray"), file, tmp_path / "data")
    rows = [
        line
        for site in texts
        for line in (tmp_path / "data" / site / "index.csv").read_text().splitlines()[1:]
    ]  # fmt: skip
    assert len(rows) == len(set(rows)) == 1200
    assert f"path: {json.dumps(str(file))}" in texts["west"]


@pytest.mark.parametrize("name", ["chest-xray", "hippocampus"])
def test_missing_data_is_one_clear_line(name: str, tmp_path: Path) -> None:
    for data in (None, tmp_path / "nowhere"):
        with pytest.raises(DemoDataMissing, match=r"--data: found (nothing|no such)"):
            require_data(shipped(name), data)
    other = tmp_path / "other"
    if name == "hippocampus":
        other.mkdir()
    else:
        other.write_bytes(b"no archive")
    with pytest.raises(DemoDataMissing, match=r"found (0 pairs|another file)"):
        site_files(shipped(name), other, tmp_path / "data")


def test_a_path_that_nobody_needs_is_refused(tmp_path: Path) -> None:
    for name in ("phantoms", "heart-disease"):
        with pytest.raises(DemoDataMissing, match="found a path; allowed: nothing"):
            require_data(shipped(name), tmp_path)


def test_the_verdict_is_what_the_figures_say() -> None:
    study = shipped("phantoms")
    assert (figure_of(study), figure_of(shipped("chest-xray"))) == ("dice", "auc")
    alone = {"north": Figures(here={}, everywhere=0.6), "west": Figures(here={}, everywhere=0.7)}
    assert "beats every hospital alone: 0.800, and 0.700 for the best of them, west" in verdict(
        Figures(here={}, everywhere=0.8), alone
    )
    assert "does NOT beat every hospital alone: 0.700" in verdict(Figures(here={}, everywhere=0.7), alone)
    assert "cannot be compared" in verdict(Figures(here={}, everywhere=None), alone)
