"""Where a hospital's records are and how they are told apart: the `datasets` of site.yaml, one section for each format.

Paths are the hospital's own. Below a folder, nothing outside it is ever read: no `..` and no link that leads out.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from annotated_types import Ge, Le
from pydantic import Field

from consortium.contract.fields import ColumnName, FilePath
from consortium.contract.schema import Section

DeclaredPatients: TypeAlias = Annotated[int, Ge(1), Le(10_000_000)]


class _Located(Section):
    """Something on this hospital's disk."""

    located: ClassVar[tuple[str, ...]] = ("path",)  # the keys that are paths

    def below(self, folder: Path) -> Self:
        """The same with absolute paths; relative ones start from `folder`."""
        given = {key: getattr(self, key) for key in self.located}
        return self.model_copy(update={key: str(folder / path) for key, path in given.items() if path is not None})


class CsvDataset(_Located):
    """A table as a file of comma-separated values."""

    path: FilePath
    format: Literal["csv"]
    patient_id: ColumnName  # the column that tells patients apart; it never leaves the site
    declared_patients: DeclaredPatients  # size of the training cohort, as a constant
    split_column: ColumnName | None = None  # a column that says train or test; without it the study's split is made


class ParquetDataset(_Located):
    """A table as a Parquet file."""

    path: FilePath
    format: Literal["parquet"]
    patient_id: ColumnName
    declared_patients: DeclaredPatients
    split_column: ColumnName | None = None


class MedmnistDataset(_Located):
    """A file of the MedMNIST collection; every image is another patient unless an index says otherwise."""

    path: FilePath
    format: Literal["medmnist"]
    declared_patients: DeclaredPatients
    index: FilePath | None = None  # a CSV of this hospital's images: part, image and perhaps patient

    located: ClassVar[tuple[str, ...]] = ("path", "index")


class ImageFolderDataset(_Located):
    """PNG and JPEG files below one folder, listed in a CSV."""

    path: FilePath
    format: Literal["image-folder"]
    table: FilePath
    declared_patients: DeclaredPatients
    file_column: ColumnName = "file"
    patient_id: ColumnName = "patient"
    label_column: ColumnName = "label"  # a value, or the mask's file
    split_column: ColumnName | None = None

    located: ClassVar[tuple[str, ...]] = ("path", "table")


class DatalistDataset(_Located):
    """NIfTI files listed in a JSON file as MONAI and the Medical Segmentation Decathlon write it."""

    path: FilePath
    format: Literal["datalist"]
    declared_patients: DeclaredPatients
    folder: FilePath | None = None  # of the images; without it the folder the list lies in
    section: ColumnName = "training"  # the list that is read
    patient_id: ColumnName | None = "patient"  # null: this hospital vouches that every entry is another patient
    split_column: ColumnName | None = None

    located: ClassVar[tuple[str, ...]] = ("path", "folder")


class BidsDataset(_Located):
    """NIfTI files in a folder laid out by the Brain Imaging Data Structure; a participant is a patient."""

    path: FilePath
    format: Literal["bids"]
    declared_patients: DeclaredPatients
    suffix: ColumnName = "T1w"  # of the images
    label_column: ColumnName | None = None  # of participants.tsv, for labels that are values
    masks: FilePath | None = None  # a folder with the same layout, such as derivatives/manual, for masks
    mask_suffix: ColumnName = "dseg"

    located: ClassVar[tuple[str, ...]] = ("path", "masks")


class DicomDataset(_Located):
    """DICOM files anywhere below a folder, grouped by PatientID, StudyInstanceUID and SeriesInstanceUID."""

    path: FilePath
    format: Literal["dicom"]
    labels: FilePath  # a CSV with a label for every study, or for every patient
    declared_patients: DeclaredPatients
    patient_id: ColumnName = "PatientID"  # the CSV's columns
    study_column: ColumnName | None = "StudyInstanceUID"  # null: a patient's label is that of all the patient's studies
    label_column: ColumnName = "label"
    split_column: ColumnName | None = None

    located: ClassVar[tuple[str, ...]] = ("path", "labels")


TableDataset: TypeAlias = CsvDataset | ParquetDataset
ImageDataset: TypeAlias = MedmnistDataset | ImageFolderDataset | DatalistDataset | BidsDataset | DicomDataset
Dataset: TypeAlias = Annotated[TableDataset | ImageDataset, Field(discriminator="format")]
"""What stands under a name in `datasets`; its members are told apart by `format`."""

FOLDERS = (ImageFolderDataset, BidsDataset, DicomDataset)
"""Those whose path is a folder."""

TABLE_FORMATS = ("csv", "parquet")
IMAGE_FORMATS = ("medmnist", "image-folder", "datalist", "bids", "dicom")
