"""A dataset of images -> training and test records, one privacy unit per patient.

A record that does not fit the study's contract is left out, for a reason that is counted; a patient without any record
takes no part. What concerns the list as a whole, such as two patients who share one file, keeps the hospital out: then
nobody can say whose image it is, and the unit of privacy is gone.
"""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from consortium.contract.study import StudyFile
from consortium.contract.study_data import ImagingData, Split
from site_agent.cohort import TEST, TRAIN, VALIDATION, Cohort, CohortSummary, LeftOut
from site_agent.data_faults import Faults, counted, lines_of
from site_agent.datasets import ImageDataset
from site_agent.image_cache import ImageCache
from site_agent.imaging.listing import list_records
from site_agent.imaging.loader import Loaded, load
from site_agent.imaging.records import ImageRecord, Listing, Unusable
from site_agent.splits import (
    check_patients,
    check_sides,
    declared_sides,
    highest,
    random_sides,
    records_of,
    staying,
    without,
)
from site_agent.withdrawals import NOBODY, Withdrawn

_MEMORY_PART = 0.5
"""Of the machine's memory that the records of a cohort may take."""

_COPIES = 3
"""So often records are held at once: one by one, together, and on their side of the split."""


def read_images(
    study: StudyFile,
    data: ImagingData,
    dataset: ImageDataset,
    cache: ImageCache | None,
    withdrawn: Withdrawn = NOBODY,
) -> Cohort:
    """The patients of `dataset` under the contract of `study`, but for those who withdrew; raises DataInvalid."""
    faults = Faults(path=Path(dataset.path), found=[], noun="record")
    listing = list_records(data, dataset, faults)
    if not len(listing):
        faults.add("", "no images at all", f"the format {dataset.format}, with images in it")
        raise faults.error()
    _check_files_have_one_patient(listing, faults)
    _check_memory(len(listing.records), data, faults)
    if faults.found:
        raise faults.error()
    kept: list[ImageRecord] = []
    loaded: list[Loaded] = []
    reasons: dict[str, list[int]] = defaultdict(list)
    for number, reason in listing.left_out:
        reasons[reason].append(number)
    for record in listing.records:
        try:
            # Of who withdrew nothing is kept: the record is looked at for the sides of the others alone.
            loaded.append(load(record, data, None if withdrawn.has(record.patient) else cache))
            kept.append(record)
        except Unusable as unusable:
            reasons[str(unusable)].append(record.number)
    left_out = tuple(
        LeftOut(reason=reason, records=tuple(sorted(numbers))) for reason, numbers in sorted(reasons.items())
    )
    read = _Read(listing=listing, kept=kept, loaded=loaded, left_out=left_out, withdrawn=withdrawn)
    return _divided(study, data, dataset, read, faults)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Read:
    """What came of a listing."""

    listing: Listing
    kept: list[ImageRecord]
    loaded: list[Loaded]  # of each that is kept
    left_out: tuple[LeftOut, ...]
    withdrawn: Withdrawn


def _divided(study: StudyFile, data: ImagingData, dataset: ImageDataset, read: _Read, faults: Faults) -> Cohort:
    listing, kept, loaded, left_out = read.listing, read.kept, read.loaded, read.left_out
    names: dict[str, int] = {}
    patients = np.array([names.setdefault(record.patient, len(names)) for record in kept], dtype=np.int64)
    check_patients(staying(tuple(names), read.withdrawn), study, dataset, faults)
    sides = _declared(kept, patients, len(names), data.split, faults)
    if faults.found:
        for one in left_out:
            faults.records_at(one.records, f"left out: {one.reason}", "records within the study's contract")
        raise faults.error()
    labels = np.stack([one.label for one in loaded])
    if sides is None:
        strata = labels if labels.ndim == 1 else np.zeros(len(labels), dtype=np.float32)
        sides = random_sides(highest(strata, patients, len(names)), data.split)
    sides = without(sides, tuple(names), read.withdrawn)
    check_sides(sides, study, faults)
    if faults.found:
        raise faults.error()
    images = np.stack([one.prepared.image for one in loaded])
    train, test, validation = (
        records_of(images, labels, patients, sides == side) for side in (TRAIN, TEST, VALIDATION)
    )
    most = int(np.bincount(patients)[sides != ""].max())
    groups = np.zeros((patients.size, 0), dtype=np.int64)
    groups.setflags(write=False)
    summary = CohortSummary(
        records_read=len(listing),
        records_left_out=len(listing) - len(kept),
        left_out_by_column={},
        left_out=left_out,
        notes=(*listing.notes, *_notes(study, data, loaded, patients)),
        patients=staying(tuple(names), read.withdrawn),
        training_patients=train.patient_count,
        test_patients=test.patient_count,
        training_records=len(train),
        test_records=len(test),
        validation_patients=validation.patient_count,
        validation_records=len(validation),
        most_records_of_a_patient=most,
        declared_patients=dataset.declared_patients,
    )
    return Cohort(
        train=train,
        test=test,
        test_groups=groups[: test.patient_count],
        feature_names=(),
        summary=summary,
        validation=validation if study.has_validation else None,
        validation_groups=groups[: validation.patient_count] if study.has_validation else None,
    )


def _declared(
    kept: list[ImageRecord], patients: npt.NDArray[np.int64], patient_count: int, split: Split, faults: Faults
) -> npt.NDArray[np.str_] | None:
    if not kept or kept[0].side is None:
        return None
    cells = np.array([record.side for record in kept])
    places = [record.number for record in kept]
    return declared_sides(
        cells, places, patients, patient_count=patient_count, split=split, column="the side", faults=faults
    )


def _check_files_have_one_patient(listing: Listing, faults: Faults) -> None:
    """By the disk's own names for files, so that neither a link nor another spelling hides a second patient."""
    owners: dict[tuple[int, int], str] = {}
    shared: list[int] = []
    for record in listing.records:
        for path in record.image_paths:
            try:
                status = path.stat()
            except OSError:
                continue  # said when it is opened
            if owners.setdefault((status.st_dev, status.st_ino), record.patient) != record.patient:
                shared.append(record.number)
    if shared:
        faults.records_at(
            sorted(set(shared)), "with a file that another patient has too", "every file under one patient"
        )


def _check_memory(records: int, data: ImagingData, faults: Faults) -> None:
    values = int(np.prod(data.record_shape)) + int(np.prod(data.record_label_shape))
    wanted = _COPIES * 4 * values * records
    limit = int(_MEMORY_PART * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if wanted > limit:
        faults.add(
            "",
            f"{counted(records, 'record')} that need {wanted / 2**30:.1f} GiB of memory",
            f"at most {limit / 2**30:.1f} GiB, half of what this machine has; fewer records, or a smaller shape",
        )


def _notes(
    study: StudyFile, data: ImagingData, loaded: list[Loaded], patients: npt.NDArray[np.int64]
) -> tuple[str, ...]:
    """What is unusual and allowed, in counts."""
    found = []
    cut = sum(one.prepared.cut for one in loaded)
    if cut:
        found.append(f"{counted(cut, 'record')} larger than the study's shape and cut around their centre")
    spacings = {one.prepared.spacing for one in loaded} - {None}
    if len(spacings) > 1:
        done = (
            "resampled to the study's" if data.spacing is not None else "taken as they are: the study names no spacing"
        )
        found.append(f"{len(spacings)} different spacings, {done}")
    most = study.privacy.max_records_per_patient
    many = int((np.bincount(patients) > most).sum())
    if many:
        words = f"{counted(many, 'patient')} with more than {counted(most, 'record')}"
        found.append(f"{words}: so many, drawn at random, are in a step")
    return tuple(found)


def report_lines(summary: CohortSummary) -> list[str]:
    """What fits, what does not and why, one line each, for `site-agent check`."""
    head = (
        f"{counted(summary.patients, 'patient')} ({summary.sides}) with {counted(summary.records, 'record')}; "
        f"{summary.records_left_out} of {summary.records_read} records left out"
    )
    reasons = [
        f"left out: {counted(len(one.records), 'record')}, {one.reason} ({lines_of(one.records, 'record')})"
        for one in summary.left_out
    ]
    return [head, *reasons, *(f"note: {note}" for note in summary.notes)]
