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
from consortium.contract.study_data import ImagingData
from site_agent.cohort import TEST, TRAIN, Cohort, CohortSummary, LeftOut
from site_agent.data_faults import Faults, counted, lines_of
from site_agent.datasets import ImageDataset
from site_agent.image_cache import ImageCache
from site_agent.imaging.listing import list_records
from site_agent.imaging.loader import Loaded, load
from site_agent.imaging.records import ImageRecord, Listing, Unusable
from site_agent.splits import check_patients, check_sides, declared_sides, highest, random_sides, records_of

_MEMORY_PART = 0.5
"""Of the machine's memory that the records of a cohort may take."""

_COPIES = 3
"""So often records are held at once: one by one, together, and on their side of the split."""


def read_images(study: StudyFile, data: ImagingData, dataset: ImageDataset, cache: ImageCache | None) -> Cohort:
    """The patients of `dataset` under the contract of `study`; raises DataInvalid."""
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
            loaded.append(load(record, data, cache))
            kept.append(record)
        except Unusable as unusable:
            reasons[str(unusable)].append(record.number)
    left_out = tuple(
        LeftOut(reason=reason, records=tuple(sorted(numbers))) for reason, numbers in sorted(reasons.items())
    )
    return _divided(study, data, dataset, _Read(listing=listing, kept=kept, loaded=loaded, left_out=left_out), faults)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Read:
    """What came of a listing."""

    listing: Listing
    kept: list[ImageRecord]
    loaded: list[Loaded]  # of each that is kept
    left_out: tuple[LeftOut, ...]


def _divided(study: StudyFile, data: ImagingData, dataset: ImageDataset, read: _Read, faults: Faults) -> Cohort:
    listing, kept, loaded, left_out = read.listing, read.kept, read.loaded, read.left_out
    names: dict[str, int] = {}
    patients = np.array([names.setdefault(record.patient, len(names)) for record in kept], dtype=np.int64)
    check_patients(len(names), study, dataset, faults)
    sides = _declared(kept, patients, len(names), faults)
    if faults.found:
        for one in left_out:
            faults.records_at(one.records, f"left out: {one.reason}", "records within the study's contract")
        raise faults.error()
    labels = np.stack([one.label for one in loaded])
    if sides is None:
        strata = labels if labels.ndim == 1 else np.zeros(len(labels), dtype=np.float32)
        sides = random_sides(highest(strata, patients, len(names)), data.split)
    check_sides(sides, study, faults)
    if faults.found:
        raise faults.error()
    images = np.stack([one.prepared.image for one in loaded])
    train, test = (records_of(images, labels, patients, sides == side) for side in (TRAIN, TEST))
    most = int(np.bincount(patients).max())
    groups = np.zeros((test.patient_count, 0), dtype=np.int64)
    groups.setflags(write=False)
    summary = CohortSummary(
        records_read=len(listing),
        records_left_out=len(listing) - len(kept),
        left_out_by_column={},
        left_out=left_out,
        notes=(*listing.notes, *_notes(study, data, loaded, patients)),
        patients=len(names),
        training_patients=train.patient_count,
        test_patients=test.patient_count,
        training_records=len(train),
        test_records=len(test),
        most_records_of_a_patient=most,
        declared_patients=dataset.declared_patients,
    )
    return Cohort(train=train, test=test, test_groups=groups, feature_names=(), summary=summary)


def _declared(
    kept: list[ImageRecord], patients: npt.NDArray[np.int64], patient_count: int, faults: Faults
) -> npt.NDArray[np.str_] | None:
    if not kept or kept[0].side is None:
        return None
    cells = np.array([record.side for record in kept])
    places = [record.number for record in kept]
    return declared_sides(cells, places, patients, patient_count=patient_count, column="the side", faults=faults)


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
    used = summary.training_records + summary.test_records
    head = (
        f"{counted(summary.patients, 'patient')} ({summary.training_patients} to train, {summary.test_patients} to "
        f"test) with {counted(used, 'record')}; {summary.records_left_out} of {summary.records_read} records left out"
    )
    reasons = [
        f"left out: {counted(len(one.records), 'record')}, {one.reason} ({lines_of(one.records, 'record')})"
        for one in summary.left_out
    ]
    return [head, *reasons, *(f"note: {note}" for note in summary.notes)]
