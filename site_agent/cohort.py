"""Local patients -> training and test records, one privacy unit per patient. Nothing here leaves the site.

Tables are read by `tables.py`, images by `imaging/`; what training and testing get is the same. Patients, not records,
are split, so that no patient is on both sides.

Limit (docs/limitations.md): the study's random split depends on which patients there are. The guarantee of
differential privacy is about the training patients; a hospital that wants the split fixed beforehand names a
`split_column`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from consortium.contract.study import StudyFile
from consortium.contract.study_data import ImagingData, TabularData
from site_agent.data_faults import Faults
from site_agent.datasets import (
    IMAGE_FORMATS,
    TABLE_FORMATS,
    CsvDataset,
    Dataset,
    ParquetDataset,
)
from site_agent.image_cache import ImageCache

TRAIN, TEST = "train", "test"

_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Records:
    """Records of the patients on one side of the split, read-only."""

    features: npt.NDArray[np.float32]  # [records, *record shape]; of a table in the order of `TabularData.input_names`
    labels: npt.NDArray[np.float32]  # [records, *its shape]: 0 or 1, or the index of one of the label's values
    patients: _Indices  # [records], 0 to patient_count - 1: which patient a record belongs to, the unit of privacy
    patient_count: int

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:  # a patient's values must not reach a log by way of a traceback
        return f"Records({len(self)} records of {self.patient_count} patients)"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Records that do not fit the study's contract, for one reason."""

    reason: str  # plain words; no identifier, no file name and no value
    records: tuple[int, ...]  # their numbers in the hospital's list


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortSummary:
    """What was read and what was left out, and why: for the hospital's own eyes (`site-agent check`)."""

    records_read: int
    records_left_out: int
    left_out_by_column: Mapping[str, int]  # records with nothing in that column; one record may count in several
    left_out: tuple[LeftOut, ...] = ()  # images: why, each record once
    notes: tuple[str, ...] = ()  # what is unusual and allowed
    patients: int
    training_patients: int
    test_patients: int
    training_records: int
    test_records: int
    most_records_of_a_patient: int
    declared_patients: int  # site.yaml's constant for training_patients


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cohort:
    """A hospital's patients as one study needs them."""

    train: Records
    test: Records
    test_groups: _Indices  # [test patients, subgroups]: the cell in each of `evaluation.subgroups`, -1 for none
    feature_names: tuple[str, ...]  # the columns of `features`; none of images
    summary: CohortSummary


def read_cohort(study: StudyFile, dataset: Dataset, cache: ImageCache | None = None) -> Cohort:
    """The patients of `dataset` under the contract of `study`; images that are ready in `cache` are taken from there.

    Raises:
        DataInvalid: With every problem of the file or folder.
    """
    data = study.data
    if isinstance(data, TabularData) and isinstance(dataset, CsvDataset | ParquetDataset):
        from site_agent.tables import read_table  # noqa: PLC0415 - pandas

        return read_table(study, data, dataset)
    if isinstance(data, ImagingData) and not isinstance(dataset, CsvDataset | ParquetDataset):
        from site_agent.imaging.cohort import read_images  # noqa: PLC0415 - imaging libraries

        return read_images(study, data, dataset, cache)
    faults = Faults(path=Path(dataset.path), found=[])
    formats = TABLE_FORMATS if isinstance(data, TabularData) else IMAGE_FORMATS
    allowed = f"one of {', '.join(formats)}: the study's data are {data.kind}"
    faults.add("", f"a dataset of the format {dataset.format}", allowed)
    raise faults.error()
