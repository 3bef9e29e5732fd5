"""Images, for any patients and any split: nobody on both sides, nothing lost, and the order of a list means nothing."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from site_agent.cohort import read_cohort
from site_agent.data_faults import DataInvalid
from tests.fakes.imaging_study import PICTURES, dataset, imaging_study

PIXELS = np.random.default_rng(5).integers(0, 256, size=(30, 16, 16), dtype=np.uint8)


@settings(max_examples=25, deadline=None)
@given(
    owners=st.lists(st.integers(0, 8), min_size=12, max_size=30),
    fraction=st.floats(0.1, 0.6),
    seed=st.integers(0, 2**32 - 1),
    stratify=st.booleans(),
)
def test_patients_are_divided_and_never_records(tmp_path_factory, owners, fraction, seed, stratify):
    folder: Path = tmp_path_factory.mktemp("set")
    labels = np.array([[owner % 3] for owner in owners], dtype=np.uint8)
    np.savez(folder / "set.npz", train_images=PIXELS[: len(owners)], train_labels=labels)
    rows = [f"train,{place},P{owner}" for place, owner in enumerate(owners)]
    (folder / "mine.csv").write_text("\n".join(["part,image,patient", *rows]))
    study = imaging_study(
        PICTURES,
        label={"type": "classes", "values": (0, 1, 2)},
        minimum_patients=1,
        split={"test_fraction": fraction, "seed": seed, "stratify": stratify},
    )
    data = dataset(folder / "set.npz", "medmnist", index=str(folder / "mine.csv"))
    patients = len(set(owners))
    if math.ceil(fraction * patients) >= patients:  # with so few that everybody would be on one side
        with pytest.raises(DataInvalid, match="0 patients for training"):
            read_cohort(study, data)
        return
    cohort = read_cohort(study, data)
    sides = (cohort.train, cohort.test)
    assert sum(side.patient_count for side in sides) == patients
    assert sum(len(side) for side in sides) == len(owners)
    found = []
    for side in sides:
        assert sorted(set(side.patients)) == list(range(side.patient_count))
        where = [int(np.argmin(np.abs(PIXELS / 127.5 - 1 - image[0]).sum(axis=(1, 2)))) for image in side.features]
        mine = [owners[place] for place in where]
        assert [labels[place][0] for place in where] == side.labels.astype(int).tolist()
        assert len(set(zip(mine, side.patients.tolist(), strict=True))) == side.patient_count
        found.append(set(mine))
    assert found[0] & found[1] == set()
