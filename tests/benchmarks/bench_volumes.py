"""Studies on volumes to measure with, and NIfTI files for them: noise with a bright ball in it, which is its mask.

No image of any patient is used. Nothing is promised to made-up patients, so that these studies have no differential
privacy: what a hospital's agent does besides training is then all that is left to measure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from consortium.contract.study import StudyFile
from tests.benchmarks.bench_study import MILLION, bench_study

LIST, PART = "volumes.json", "part"
TEST_FRACTION = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """What is made, and what the study wants of it."""

    patients: int  # a volume each, with its mask; those of training and of testing together
    shape: tuple[int, int, int]  # of the study
    stored_shape: tuple[int, int, int]  # of the files
    stored_spacing: float = 1.0  # of the files, in mm along every axis; the study's is 1 mm
    compressed: bool = True  # .nii.gz

    @property
    def training_patients(self) -> int:
        """Those the study does not set aside."""
        return self.patients - round(TEST_FRACTION * self.patients)


def write_volumes(folder: Path, volumes: Volumes, *, seed: int = 1) -> Path:
    """NIfTI files as scanners' software writes them, whole numbers of 16 bits; returns the list, as MONAI has it."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    grid = np.diag([volumes.stored_spacing] * 3 + [1.0])
    places = np.indices(volumes.stored_shape)
    ending = "nii.gz" if volumes.compressed else "nii"
    entries = []
    for number in range(volumes.patients):
        radius = random.uniform(0.15, 0.3) * min(volumes.stored_shape)
        middle = np.array([random.uniform(0.35, 0.65) * side for side in volumes.stored_shape]).reshape(3, 1, 1, 1)
        mask = ((places - middle) ** 2).sum(axis=0) <= radius**2
        image = random.normal(200.0, 40.0, volumes.stored_shape) + 150.0 * mask
        names = {"image": f"{number:03}.{ending}", "label": f"{number:03}-mask.{ending}"}
        nib.save(nib.Nifti1Image(np.clip(image, 0, 1000).astype(np.int16), grid), folder / names["image"])
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), grid), folder / names["label"])
        part = "train" if number < volumes.training_patients else "test"
        entries.append({"patient": f"P{number:03}", PART: part, **names})
    path = folder / LIST
    path.write_text(json.dumps({"training": entries}))
    return path


def volume_study(
    name: str, sites: Sequence[str], volumes: Volumes, *, model: Mapping[str, Any], **training: Any
) -> StudyFile:
    """A study on such volumes without differential privacy; `training` overrides its fields."""
    record = bench_study(name, sites, parameters=MILLION, rounds=1).model_dump(
        mode="python", by_alias=True, exclude_none=True
    )
    record["data"] = {
        "kind": "imaging",
        "task": "segmentation",
        "modality": "MR",
        "channels": 1,
        "shape": volumes.shape,
        "spacing": (1.0, 1.0, 1.0),
        "intensity": {"range": (0.0, 1000.0), "standardise": "each-image"},
        "label": {"type": "mask", "values": (0, 1)},
        "minimum_patients": 2,
        "split": {"test_fraction": TEST_FRACTION, "seed": 1, "stratify": False},
    }
    record["model"] = dict(model)
    record["training"] |= {"loss": "dice-cross-entropy", "spare_rounds": 0, **training}
    record["privacy"] = {
        "mechanism": "none", "unit": "patient", "justification": "Made-up patients.", "max_records_per_patient": 1,
    }  # fmt: skip
    record["evaluation"] = {"split": "site-held-out", "metrics": ("dice",), "every_rounds": 1}
    return StudyFile.model_validate(record)


def volume_site_file(site: str, study: StudyFile, volumes: Volumes, *, path: str) -> str:
    """A site.yaml that lets the study run on the list at `path`."""
    return json.dumps(  # JSON is YAML
        {
            "schema": "consortium/site/v1",
            "site": site,
            "datasets": {
                "volumes": {
                    "path": path,
                    "format": "datalist",
                    "declared_patients": volumes.training_patients,
                    "split_column": PART,
                }
            },
            "studies": {study.id: "volumes"},
            "policy": {
                "minimum_patients": 2,
                "allowed_networks": [study.model.network],
                "allow_no_privacy": True,
                "max_epsilon_per_study": 8.0,
                "max_epsilon_total": 8.0,
                "max_egress_bytes_per_round": 2**30,
            },
        }
    )
