"""Studies on images for tests of the data alone, whatever network they name, and small real files for them.

The files are made by the formats' own libraries. A patient's identifier is easy to find in anything that was printed.
"""

import copy
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydantic import TypeAdapter
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from consortium.contract.study import StudyFile
from consortium.contract.study_data import ImagingData, StudyData
from site_agent.datasets import Dataset
from tests.fakes.small_study import DOCUMENT, small_study

PICTURES: dict[str, Any] = {
    "kind": "imaging",
    "task": "classification",
    "modality": "DX",
    "channels": 1,
    "shape": (16, 16),
    "intensity": {"range": (0.0, 255.0), "scale": {"mean": 127.5, "std": 127.5}},
    "label": {"type": "binary", "positive_above": 0.0},
    "minimum_patients": 4,
    "split": {"test_fraction": 0.25, "seed": 1, "stratify": False},
}
VOLUMES: dict[str, Any] = {
    **PICTURES,
    "task": "segmentation",
    "modality": "MR",
    "shape": (12, 10, 8),
    "intensity": {"range": (0.0, 5000.0), "standardise": "each-image"},
    "label": {"type": "mask", "values": (0, 1, 2)},
}


def imaging_study(fields: dict[str, Any], **changes: Any) -> StudyFile:
    """A study with these data; rules between the data and the rest, such as the network's, are not asked."""
    data = TypeAdapter(StudyData).validate_python({**fields, **changes})
    assert isinstance(data, ImagingData)
    return small_study().model_copy(update={"data": data})


def whole_study(**changes: Any) -> StudyFile:
    """A study of small pictures that a hospital could approve: read from its document, every rule asked."""
    document = copy.deepcopy(DOCUMENT)
    document["data"] = {**PICTURES, "shape": [28, 28], **changes}
    document["model"] = {"network": "cnn", "args": {}}
    return StudyFile.model_validate_json(json.dumps(document))


def dataset(path: Path, form: str, **fields: Any) -> Dataset:
    """A section of `datasets` in site.yaml."""
    whole = {"path": str(path), "format": form, "declared_patients": 4, **fields}
    found: Dataset = TypeAdapter(Dataset).validate_python(whole)
    return found


def write_png(path: Path, *, seed: int = 0, size: tuple[int, int] = (20, 14), mode: str = "L") -> Path:
    """A PNG of `size` rows and columns."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, size=(*size, *channels), dtype=np.uint8)
    Image.fromarray(pixels, mode=None).save(path)
    return path


def write_folder(folder: Path, patients: list[str], *, labels: list[str] | None = None) -> Path:
    """PNG files, one a record, and the CSV that lists them; returns the CSV."""
    folder.mkdir(exist_ok=True)
    lines = ["file,patient,label"]
    for number, patient in enumerate(patients):
        write_png(folder / f"{number}.png", seed=number)
        lines.append(f"{number}.png,{patient},{labels[number] if labels else number % 2}")
    table = folder.parent / "list.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def write_nifti(
    path: Path,
    *,
    seed: int = 0,
    shape: tuple[int, ...] = (12, 10, 8),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    values: Any = None,
    affine: Any = None,
) -> Path:
    """A NIfTI file of whole numbers below 1000, or of `values`."""
    numbers = np.random.default_rng(seed).integers(0, 1000, size=shape) if values is None else np.asarray(values)
    grid = np.diag([*spacing, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(numbers.astype(np.int16), grid), path)
    return path


def write_dicom(
    path: Path,
    *,
    patient: str,
    study: str,
    series: str,
    pixels: Any,
    position: tuple[float, float, float] = (0.0, 0.0, 0.0),
    spacing: tuple[float, float] = (1.0, 1.0),
    modality: str = "CT",
    **attributes: Any,
) -> Path:
    """One DICOM file, an axial slice unless told otherwise; an attribute that is None is left out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.PatientID, file.PatientName = patient, f"Name^{patient}"
    file.StudyInstanceUID, file.SeriesInstanceUID, file.Modality = study, series, modality
    file.SOPInstanceUID, file.SOPClassUID = meta.MediaStorageSOPInstanceUID, meta.MediaStorageSOPClassUID
    file.ImagePositionPatient, file.PixelSpacing = list(position), list(spacing)
    file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    numbers = np.asarray(pixels, dtype=np.uint16)
    file.Rows, file.Columns = numbers.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 0
    file.PixelData = numbers.tobytes()
    for name, value in attributes.items():
        if value is None:
            delattr(file, name)
        else:
            setattr(file, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path
