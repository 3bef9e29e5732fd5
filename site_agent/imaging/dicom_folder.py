"""A folder of DICOM files -> records: grouped by patient, study and series, with labels from a CSV.

Identifiers are compared in here and go no further than the records' patients, which the ledger hashes.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from consortium.contract.study_data import ImagingData
from site_agent.data_faults import Faults, counted
from site_agent.datasets import DicomDataset
from site_agent.imaging.dicom import NO_PIXELS, Header, read_header
from site_agent.imaging.records import DicomFiles, ImageRecord, Listing, Unusable
from site_agent.imaging.safety import within
from site_agent.imaging.tables_of_records import RECORDS_MAX, read_rows

SEVERAL_PATIENTS = "a DICOM study under the names of several patients"
_SLICES_MAX = 4096


def list_dicom(data: ImagingData, dataset: DicomDataset, faults: Faults) -> Listing:
    """One record for every series of a study of volumes, for every file of a study of images; raises DataInvalid."""
    root = Path(dataset.path)
    if not root.is_dir():
        faults.add("", "no such folder", "a folder of DICOM files this user may read")
        raise faults.error()
    labels = _labels(dataset, faults)
    series: dict[tuple[str, str, str], list[Header]] = defaultdict(list)
    broken: list[tuple[Path, str]] = []
    strangers = 0
    for name in _files(root, faults):
        try:
            header = read_header(within(root, name))
        except Unusable as unusable:
            broken.append((root / name, str(unusable)))
            continue
        if header is None:
            strangers += 1
        else:
            series[header.patient, header.study, header.series].append(header)
    listing = Listing()
    if strangers:
        listing.notes.append(f"not DICOM, and not looked at: {counted(strangers, 'file')}")
    patients_of: dict[str, set[str]] = defaultdict(set)
    for patient, study, _ in series:
        patients_of[study].add(patient)
    groups: list[tuple[tuple[Path, ...], Header | None, str]] = [((path,), None, reason) for path, reason in broken]
    for headers in series.values():
        paths = tuple(sorted(header.path for header in headers))
        if len(data.shape) == 3:
            # A part of a series without pixels would leave a gap: the series is left out as a whole.
            whole = next((header for header in headers if not header.has_rows), headers[0])
            groups.append((paths, whole, ""))
        else:
            groups += [((header.path,), header, "") for header in headers]
    for number, (paths, group, reason) in enumerate(sorted(groups, key=lambda one: one[0]), start=1):
        if group is None:
            listing.left_out.append((number, reason))
            continue
        try:
            _check_group(group, len(paths), data.modality, patients_of[group.study])
            label, side = _label_of(group, dataset, labels)
            record = ImageRecord(
                number=number, patient=group.patient, image=DicomFiles(paths=paths), label=label, side=side
            )
            listing.records.append(record)
        except Unusable as unusable:
            listing.left_out.append((number, str(unusable)))
    return listing


def _check_group(header: Header, files: int, modality: str, names: set[str]) -> None:
    """Raise Unusable for what no label can mend; `names` are the patients of the DICOM study."""
    if header.modality != modality:
        raise Unusable(f"another modality than {modality}")
    if len(names) > 1:
        raise Unusable(SEVERAL_PATIENTS)
    if not header.has_rows:
        raise Unusable(NO_PIXELS)
    if files > _SLICES_MAX:
        raise Unusable(f"a series of more than {_SLICES_MAX} files")


def _label_of(
    header: Header, dataset: DicomDataset, labels: dict[tuple[str, str], tuple[str, str | None]]
) -> tuple[str, str | None]:
    key = (header.patient, header.study if dataset.study_column is not None else "")
    if key not in labels or labels[key][0] == "":
        raise Unusable("no label")
    return labels[key]


def _labels(dataset: DicomDataset, faults: Faults) -> dict[tuple[str, str], tuple[str, str | None]]:
    """(patient, study or "") -> label and side."""
    columns = {dataset.patient_id: "patient_id in site.yaml", dataset.label_column: "the label"}
    if dataset.study_column is not None:
        columns[dataset.study_column] = "study_column in site.yaml"
    if dataset.split_column is not None:
        columns[dataset.split_column] = "split_column in site.yaml"
    found: dict[tuple[str, str], tuple[str, str | None]] = {}
    twice: list[int] = []
    for number, row in enumerate(read_rows(Path(dataset.labels), columns, faults), start=1):
        key = (row[dataset.patient_id], row[dataset.study_column] if dataset.study_column is not None else "")
        value = (row[dataset.label_column], row[dataset.split_column] if dataset.split_column is not None else None)
        if found.setdefault(key, value) != value:
            twice.append(number)
    if twice:
        faults.records_at(twice, "with another label or side than before", "one label for each")
        raise faults.error()
    return found


def _files(root: Path, faults: Faults) -> Iterator[str]:
    """Every file below a folder, as a path below it; links to folders are not followed."""
    seen = 0
    for folder, folders, names in os.walk(root, followlinks=False):
        folders.sort()
        for name in sorted(names):
            seen += 1
            if seen > RECORDS_MAX:
                faults.add("", f"more than {RECORDS_MAX} files", "at most that")
                raise faults.error()
            yield str((Path(folder) / name).relative_to(root))
