"""Local patients -> training, validation and test records, one privacy unit per patient. Nothing here leaves the site.

Tables are read by `tables.py`, images by `imaging/`; what training and testing get is the same. Patients, not records,
are split, so that no patient is on two sides. Validation patients are there if the study chooses its model by them.

Limit (docs/limitations.md): the study's random split depends on which patients there are. The guarantee of
differential privacy is about the training patients; a hospital that wants the split fixed beforehand names a
`split_column`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from consortium.contract.study import StudyFile
from consortium.contract.study_data import ImagingData, TabularData
from privacy.lazy_numpy import np
from site_agent.data_faults import Faults
from site_agent.datasets import (
    IMAGE_FORMATS,
    TABLE_FORMATS,
    CsvDataset,
    Dataset,
    ParquetDataset,
)
from site_agent.image_cache import ImageCache
from site_agent.withdrawals import NOBODY, Withdrawn

if TYPE_CHECKING:
    import numpy.typing as npt

TRAIN, TEST, VALIDATION = "train", "test", "validation"

_Indices: TypeAlias = "npt.NDArray[np.int64]"


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
    validation_patients: int = 0  # of a study that chooses its model by them
    validation_records: int = 0
    most_records_of_a_patient: int
    declared_patients: int  # site.yaml's constant for training_patients

    @property
    def sides(self) -> str:
        """How many patients are on each side, in words."""
        validated = f"{self.validation_patients} to choose by, " if self.validation_patients else ""
        return f"{self.training_patients} to train, {validated}{self.test_patients} to test"

    @property
    def records(self) -> int:
        """Records on all sides together."""
        return self.training_records + self.validation_records + self.test_records


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cohort:
    """A hospital's patients as one study needs them."""

    train: Records
    test: Records
    test_groups: _Indices  # [test patients, subgroups]: the cell in each of `evaluation.subgroups`, -1 for none
    feature_names: tuple[str, ...]  # the columns of `features`; none of images
    summary: CohortSummary
    validation: Records | None = None  # of a study that chooses its model by them
    validation_groups: _Indices | None = None  # as `test_groups`

    def measured(self, *, chosen: bool) -> tuple[Records, _Indices]:
        """On whom a round measures its model, and their cells.

        Args:
            chosen: Whether validation patients have chosen that model.
        """
        if chosen or self.validation is None or self.validation_groups is None:
            return self.test, self.test_groups
        return self.validation, self.validation_groups


def read_cohort(
    study: StudyFile, dataset: Dataset, cache: ImageCache | None = None, withdrawn: Withdrawn = NOBODY
) -> Cohort:
    """The patients of `dataset` under the contract of `study`, but for those who withdrew.

    Images that are ready in `cache` are taken from there. Sides are drawn with everybody, so that the others stay on
    theirs; who withdrew is then on none.

    Raises:
        DataInvalid: With every problem of the file or folder.
    """
    data = study.data
    if isinstance(data, TabularData) and isinstance(dataset, CsvDataset | ParquetDataset):
        from site_agent.tables import read_table  # noqa: PLC0415 - pandas

        return read_table(study, data, dataset, withdrawn)
    if isinstance(data, ImagingData) and not isinstance(dataset, CsvDataset | ParquetDataset):
        from site_agent.imaging.cohort import read_images  # noqa: PLC0415 - imaging libraries

        return read_images(study, data, dataset, cache, withdrawn)
    faults = Faults(path=Path(dataset.path), found=[])
    formats = TABLE_FORMATS if isinstance(data, TabularData) else IMAGE_FORMATS
    allowed = f"one of {', '.join(formats)}: the study's data are {data.kind}"
    faults.add("", f"a dataset of the format {dataset.format}", allowed)
    raise faults.error()
