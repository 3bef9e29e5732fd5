"""Public data, read in place: the hippocampus volumes of the Medical Segmentation Decathlon and a MedMNIST file.

They are not part of the repository. `CONSORTIUM_TEST_DATA` names a folder with `hippocampus/{imagesTr,labelsTr}` and
`medmnist/pneumoniamnist.npz`; without it these tests are skipped and say so.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from site_agent.cohort import read_cohort
from site_agent.image_cache import ImageCache
from tests.fakes.imaging_study import PICTURES, VOLUMES, dataset, imaging_study

DATA = os.environ.get("CONSORTIUM_TEST_DATA", "")
pytestmark = pytest.mark.skipif(not DATA, reason="CONSORTIUM_TEST_DATA names no folder of public images")


def test_hippocampus_volumes_and_masks(tmp_path):
    root = Path(DATA) / "hippocampus"
    names = sorted(path.name for path in (root / "imagesTr").glob("*.nii.gz"))
    pairs = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": pairs}))
    study = imaging_study(
        VOLUMES, shape=(40, 56, 40), spacing=(1.0, 1.0, 1.0),
        intensity={"range": (-1.0, 1e6), "standardise": "each-image"},
    )  # fmt: skip
    data = dataset(tmp_path / "dataset.json", "datalist", folder=str(root), patient_id=None)
    cache = ImageCache(folder=tmp_path / "images", quota_bytes=2**30)
    cohort = read_cohort(study, data, cache)
    assert cohort.summary.records_left_out == 0
    assert cohort.summary.patients == len(names)
    assert cohort.train.features.shape[1:] == (1, 40, 56, 40)
    assert set(np.unique(cohort.train.labels)) == {0, 1, 2}
    foreground = (cohort.train.labels > 0).mean(axis=(1, 2, 3))
    assert 0.01 < foreground.min() <= foreground.max() < 0.2
    again = read_cohort(study, data, cache)
    assert (again.train.features == cohort.train.features).all()
    assert (again.train.labels == cohort.train.labels).all()


def test_pneumonia_mnist():
    study = imaging_study(PICTURES, shape=(28, 28), split={"test_fraction": 0.2, "seed": 1, "stratify": True})
    large = study.model_copy(
        update={"aggregation": study.aggregation.model_copy(update={"max_patients_per_site": 10_000})}
    )
    cohort = read_cohort(large, dataset(Path(DATA) / "medmnist" / "pneumoniamnist.npz", "medmnist"))
    assert cohort.summary.records_read == 5856
    assert cohort.summary.patients < 5856  # the same picture twice is one patient
    assert abs(cohort.train.labels.mean() - cohort.test.labels.mean()) < 0.02
