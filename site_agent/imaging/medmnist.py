"""MedMNIST files: all images of a collection as arrays in one `.npz`, with nothing unpickled and every size checked."""

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from consortium.contract.study_data import ImagingData
from site_agent.data_faults import Faults
from site_agent.datasets import MedmnistDataset
from site_agent.imaging.records import ArrayImage, ImageRecord, Listing
from site_agent.imaging.tables_of_records import RECORDS_MAX, read_rows

PARTS = ("train", "val", "test")
FILE_BYTES_MAX = 16 * 2**30
_ALLOWED = "a .npz of MedMNIST: train_images, train_labels and the same for val and test"


def list_medmnist(data: ImagingData, dataset: MedmnistDataset, faults: Faults) -> Listing:
    """The images of the file, or those of the index, in its order; raises DataInvalid."""
    path = Path(dataset.path)
    parts = _parts(path, faults)
    listing = Listing()
    for number, (part, place, patient) in enumerate(_chosen(parts, dataset, faults), start=1):
        images, labels = parts.get(part, (None, None))
        if images is None or labels is None or place is None or not place < len(images):
            listing.left_out.append((number, "no such image in the file"))
            continue
        values = images[place]
        if len(data.shape) + (data.channels > 1) != values.ndim:
            listing.left_out.append((number, "an image with other axes or channels than the study's"))
            continue
        if data.channels == 1:
            values = values[..., None]
        own = patient if patient is not None else _self_of(values)
        if own == "":
            listing.left_out.append((number, "no patient is named"))
            continue
        label = str(labels[place].reshape(-1)[0]) if labels[place].size == 1 else ""
        if label == "":
            listing.left_out.append((number, "other than one label"))
            continue
        listing.records.append(ImageRecord(number=number, patient=own, image=ArrayImage(values=values), label=label))
    return listing


def patients_in(dataset: MedmnistDataset, faults: Faults) -> Iterator[str]:
    """Who is in a dataset, image by image; raises DataInvalid."""
    parts = _parts(Path(dataset.path), faults)
    for part, place, patient in _chosen(parts, dataset, faults):
        if patient is not None:
            yield patient
        elif part in parts and place is not None and place < len(parts[part][0]):
            yield _self_of(parts[part][0][place])


def _self_of(values: Any) -> str:
    """Without a patient the image itself stands for one: the same image in another file is the same patient."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _chosen(
    parts: dict[str, tuple[Any, Any]], dataset: MedmnistDataset, faults: Faults
) -> list[tuple[str, int | None, str | None]]:
    """Part, number and patient of every image that is this hospital's."""
    if dataset.index is None:
        return [(part, place, None) for part, (images, _) in parts.items() for place in range(len(images))]
    path = Path(dataset.index)
    columns = {"part": "train, val or test", "image": "the image's number within its part, from 0"}
    if _names_patients(path):
        columns["patient"] = "the patient"
    found: list[tuple[str, int | None, str | None]] = []
    for row in read_rows(path, columns, faults):
        text = row["image"]
        place = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
        found.append((row["part"], place, row.get("patient")))
    return found


def _names_patients(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "patient" in [name.strip() for name in file.readline(65_536).split(",")]
    except OSError:
        return False  # said when the index is read


def _parts(path: Path, faults: Faults) -> dict[str, tuple[Any, Any]]:
    """Images and labels of each part that the file has."""
    try:
        if not path.is_file():
            faults.add("", "no such file", _ALLOWED)
            raise faults.error()
        _check_sizes(path, faults)
        with np.load(path, allow_pickle=False) as file:
            found = {
                part: (file[f"{part}_images"], file[f"{part}_labels"]) for part in PARTS if f"{part}_images" in file
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MemoryError, NotImplementedError, SyntaxError):
        faults.add("", "a file that is damaged, or holds something else", _ALLOWED)
        raise faults.error() from None
    plain = all(images.dtype.kind in "uif" and labels.dtype.kind in "uif" for images, labels in found.values())
    if not found or not plain or any(len(images) != len(labels) for images, labels in found.values()):
        faults.add("", "arrays that do not belong together", _ALLOWED)
        raise faults.error()
    return found


def _check_sizes(path: Path, faults: Faults) -> None:
    """Compare what every array's header announces with the bytes that are there, before memory is taken for it."""
    total = 0
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            total += info.file_size
            if total > FILE_BYTES_MAX:
                faults.add("", f"arrays of more than {FILE_BYTES_MAX >> 30} GiB", "at most that")
                raise faults.error()
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, kind = read(member)
                announced = int(np.prod([float(one) for one in shape])) * kind.itemsize + member.tell()
                if kind.hasobject or announced != info.file_size or (shape and shape[0] > RECORDS_MAX):
                    raise ValueError
