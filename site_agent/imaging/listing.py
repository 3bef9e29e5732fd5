"""Which records a dataset of images has: one reader for each format that lists files, none of which opens an image.

DICOM is grouped by headers and so has a file of its own (`dicom_folder.py`), and so has MedMNIST, whose one file holds
all images (`medmnist.py`). Numbers of records are places in the hospital's list, from 1; a folder without a list is
read in the order of its paths.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

from consortium.contract.study_data import ImagingData, MaskLabel
from site_agent.data_faults import Faults
from site_agent.datasets import (
    BidsDataset,
    DatalistDataset,
    DicomDataset,
    ImageDataset,
    ImageFolderDataset,
    MedmnistDataset,
)
from site_agent.imaging import medmnist
from site_agent.imaging.dicom_folder import list_dicom
from site_agent.imaging.records import ImageRecord, LabelSource, Listing, NiftiFiles, RasterFile, Unusable
from site_agent.imaging.safety import within
from site_agent.imaging.tables_of_records import read_list, read_rows

NO_PATIENT = "no patient is named"
NO_LABEL = "no label"
NO_IMAGE = "an entry that names no image"
_PARTICIPANT = re.compile(r"sub-[A-Za-z0-9]+")


def list_records(data: ImagingData, dataset: ImageDataset, faults: Faults) -> Listing:
    """The records of a dataset; raises DataInvalid where its list or folder cannot be used at all."""
    _check_task(data, dataset, faults)
    match dataset:
        case MedmnistDataset():
            return medmnist.list_medmnist(data, dataset, faults)
        case ImageFolderDataset():
            return _image_folder(data, dataset, faults)
        case DatalistDataset():
            return _datalist(data, dataset, faults)
        case BidsDataset():
            return _bids(data, dataset, faults)
        case DicomDataset():
            return list_dicom(data, dataset, faults)
        case _:
            assert_never(dataset)


def patients_in(dataset: ImageDataset, faults: Faults) -> Iterator[str]:
    """Who is in a dataset, record by record, whatever study it is for; no image is opened. Raises DataInvalid."""
    match dataset:
        case MedmnistDataset():
            yield from medmnist.patients_in(dataset, faults)
        case ImageFolderDataset(table=table, patient_id=column) | DicomDataset(labels=table, patient_id=column):
            yield from (row[column] for row in read_rows(Path(table), {column: "the patient"}, faults))
        case DatalistDataset(patient_id=key):
            root = _root_of(dataset)
            for entry in read_list(Path(dataset.path), dataset.section, faults):
                with contextlib.suppress(Unusable):
                    fields = _entry(entry)
                    own = fields.get(key) if key is not None else str(within(root, _names(fields.get("image"))[0]))
                    yield _plain(own)
        case BidsDataset():
            yield from (name.parts[0] for name in _bids_images(Path(dataset.path), dataset.suffix))
        case _:
            assert_never(dataset)


def _root_of(dataset: DatalistDataset) -> Path:
    return Path(dataset.folder) if dataset.folder is not None else Path(dataset.path).parent


def _check_task(data: ImagingData, dataset: ImageDataset, faults: Faults) -> None:
    """Report what a format never holds, in words, rather than leave out every record of it."""
    volumes, masks = len(data.shape) == 3, isinstance(data.label, MaskLabel)
    match dataset:
        case ImageFolderDataset() if volumes:
            faults.add("", "a folder of PNG and JPEG files", "volumes: datalist, bids, dicom or medmnist")
        case DatalistDataset() | BidsDataset() if not volumes:
            faults.add("", "NIfTI files", "images of two axes: image-folder, dicom or medmnist")
        case DicomDataset() | MedmnistDataset() if masks:
            faults.add("", f"the format {dataset.format}, which has no masks", "masks: datalist, bids or image-folder")
        case BidsDataset(masks=None) if masks:
            faults.add("", "no folder of masks", "`masks` in site.yaml: the study is about masks")
        case BidsDataset(label_column=None) if not masks:
            faults.add("", "no column of labels", "`label_column` in site.yaml: a column of participants.tsv")
        case MedmnistDataset() | ImageFolderDataset() | DatalistDataset() | BidsDataset() | DicomDataset():
            pass
    if data.spacing is not None and isinstance(dataset, ImageFolderDataset | MedmnistDataset):
        faults.add("", f"the format {dataset.format}, whose pixels have no size", "datalist, bids or dicom")
    if faults.found:
        raise faults.error()


def _image_folder(data: ImagingData, dataset: ImageFolderDataset, faults: Faults) -> Listing:
    root = Path(dataset.path)
    _folder(root, faults)
    columns = {
        dataset.file_column: "the image's file",
        dataset.patient_id: "patient_id in site.yaml",
        dataset.label_column: "the label",
    }
    if dataset.split_column is not None:
        columns[dataset.split_column] = "split_column in site.yaml"
    listing = Listing()
    for number, row in enumerate(read_rows(Path(dataset.table), columns, faults), start=1):
        try:
            text = row[dataset.label_column]
            label: LabelSource = RasterFile(path=within(root, text)) if isinstance(data.label, MaskLabel) else text
            image = RasterFile(path=within(root, row[dataset.file_column]))
            side = row[dataset.split_column] if dataset.split_column is not None else None
            patient = row[dataset.patient_id]
            listing.records.append(_record(number, patient=patient, image=image, label=label, side=side))
        except Unusable as unusable:
            listing.left_out.append((number, str(unusable)))
    return listing


def _datalist(data: ImagingData, dataset: DatalistDataset, faults: Faults) -> Listing:
    root = _root_of(dataset)
    _folder(root, faults)
    listing = Listing()
    for number, entry in enumerate(read_list(Path(dataset.path), dataset.section, faults), start=1):
        try:
            entry = _entry(entry)  # noqa: PLW2901 - the same, known to be an object
            image = NiftiFiles(paths=tuple(within(root, name) for name in _names(entry.get("image"))))
            side = _plain(entry.get(dataset.split_column)) if dataset.split_column is not None else None
            patient = _plain(entry.get(dataset.patient_id)) if dataset.patient_id is not None else str(image.paths[0])
            label: LabelSource
            if isinstance(data.label, MaskLabel):
                label = NiftiFiles(paths=(within(root, _plain(entry.get("label"))),))
            else:
                label = _plain(entry.get("label"))
            listing.records.append(_record(number, patient=patient, image=image, label=label, side=side))
        except Unusable as unusable:
            listing.left_out.append((number, str(unusable)))
    return listing


def _entry(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Unusable(NO_IMAGE)
    return value


def _names(value: object) -> list[str]:
    given = value if isinstance(value, list) else [value]
    names = [name for name in given if isinstance(name, str) and name]
    if not 1 <= len(names) <= 16 or len(names) != len(given):
        raise Unusable(NO_IMAGE)
    return names


def _plain(value: object) -> str:
    """Text, or a number as text; a list, an object or nothing is no value."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value).strip()


def _bids(data: ImagingData, dataset: BidsDataset, faults: Faults) -> Listing:
    root = Path(dataset.path)
    _folder(root, faults)
    values: dict[str, str] = {}
    if dataset.label_column is not None and not isinstance(data.label, MaskLabel):
        columns = {"participant_id": "the participant", dataset.label_column: "the label"}
        for row in read_rows(root / "participants.tsv", columns, faults, delimiter="\t"):
            values[row["participant_id"]] = row[dataset.label_column]
    masks = Path(dataset.masks) if dataset.masks is not None else None
    listing = Listing()
    for number, name in enumerate(_bids_images(root, dataset.suffix), start=1):
        participant = name.parts[0]
        try:
            image = NiftiFiles(paths=(within(root, str(name)),))
            if isinstance(data.label, MaskLabel):
                assert masks is not None  # else refused by `_check_task`
                label: LabelSource = NiftiFiles(paths=(_bids_mask(masks, name, dataset),))
            else:
                label = values.get(participant, "")
            listing.records.append(_record(number, patient=participant, image=image, label=label, side=None))
        except Unusable as unusable:
            listing.left_out.append((number, str(unusable)))
    return listing


def _bids_images(root: Path, suffix: str) -> Iterator[Path]:
    """Paths below the root, sorted: sub-X/[ses-Y/]kind/*_suffix.nii[.gz]."""
    found: list[Path] = []
    for depth in ("*", "ses-*/*"):
        for ending in (".nii", ".nii.gz"):
            found += root.glob(f"sub-*/{depth}/*_{suffix}{ending}")
    inside = (path.relative_to(root) for path in found)
    return iter(sorted(path for path in inside if _PARTICIPANT.fullmatch(path.parts[0])))


def _bids_mask(masks: Path, image: Path, dataset: BidsDataset) -> Path:
    """The one mask whose name starts with the image's entities; raises Unusable."""
    entities = image.name.rpartition(f"_{dataset.suffix}.nii")[0]
    folder = masks / image.parent
    found = [
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.name.startswith(f"{entities}_")
        and path.name.removesuffix(".gz").endswith(f"_{dataset.mask_suffix}.nii")
    ]
    if len(found) != 1:
        raise Unusable("no mask of that image" if not found else "several masks of one image")
    return within(masks, str(found[0].relative_to(masks)))


def _folder(root: Path, faults: Faults) -> None:
    if not root.is_dir():
        faults.add("", "no such folder", "a folder of images this user may read")
        raise faults.error()


def _record(
    number: int, *, patient: str, image: NiftiFiles | RasterFile, label: LabelSource, side: str | None
) -> ImageRecord:
    if not patient:
        raise Unusable(NO_PATIENT)
    if label == "":
        raise Unusable(NO_LABEL)
    return ImageRecord(number=number, patient=patient, image=image, label=label, side=side)
