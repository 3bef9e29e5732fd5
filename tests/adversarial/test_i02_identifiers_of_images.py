"""I-02: an identifier in a DICOM header, a file's name or a list turns up in a log, an error or a warning.

Libraries that read images quote what they stumble over: a malformed UID, a date, a path. Held by: `quiet()` around
every call into them, `from None` behind every one that fails, texts that name reasons and numbers of records only.
Tried: row i02 of `mutations.py`, with which `quiet` lets warnings through: the first test finds the identifier in one;
by hand, with `str(error)` in a reason of `dicom.py`, in the summary.
"""

import logging
import traceback
import warnings

import numpy as np
import pytest
import structlog
from pydicom import config

from site_agent.cohort import read_cohort
from site_agent.data_faults import DataInvalid
from site_agent.image_cache import ImageCache
from site_agent.imaging.cohort import report_lines
from site_agent.imaging.safety import LOUD
from site_agent.patient_marks import identifiers_in
from tests.fakes.imaging_study import (
    PICTURES,
    VOLUMES,
    dataset,
    imaging_study,
    write_dicom,
    write_folder,
    write_nifti,
    write_png,
)

SECRET = "KENNEDY-4711"


def scans(folder, rows):
    """Series whose every attribute is somebody's, and hardly one of which is as the standard wants it."""
    for number in range(4):
        uid = f"{SECRET}-uid-{number}-{'9' * 80}"  # neither digits nor short enough
        for place in range(3):
            written = write_dicom(
                folder / f"{SECRET}-{number}" / f"{SECRET}-{place}.dcm", patient=f"{SECRET}-{number}", study=uid,
                series=f"{uid}.1", pixels=np.full((10, 12), 9), position=(0.0, 0.0, float(place)),
                PatientBirthDate=f"{SECRET}", StudyDate=f"{SECRET}", AccessionNumber=f"{SECRET}{'x' * 99}",
                PatientAge=f"{SECRET}", RescaleSlope="1", SpecificCharacterSet="ISO 2022 IR 100",
            )  # fmt: skip
            # A character set that nobody knows: the library says its name.
            written.write_bytes(written.read_bytes().replace(b"ISO 2022 IR 100", f"{SECRET}-XX".encode()))
        rows.append(f"{SECRET}-{number},{uid},{number % 2}")
    first = folder / f"{SECRET}-0" / f"{SECRET}-0.dcm"
    first.with_name(f"{SECRET}-cut.dcm").write_bytes(first.read_bytes()[:300])
    (folder / f"{SECRET}.txt").write_text(SECRET)


@pytest.fixture
def said(caplog, capfd):
    """Everything that was said anywhere, once the test has read the data."""
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def told():
            found = [caplog.text, *capfd.readouterr(), *(str(one.message) for one in caught)]
            caplog.clear()
            caught.clear()
            return found

        for name in LOUD:  # as they are in a process that has read nothing yet
            logging.getLogger(name).setLevel(logging.NOTSET)
        config.settings.reading_validation_mode = config.WARN
        yield told
    structlog.reset_defaults()


def test_dicom_headers_stay_where_they_are(tmp_path, said):
    rows = ["PatientID,StudyInstanceUID,label"]
    scans(tmp_path / "scans", rows)
    assert SECRET in "".join(said())  # what the library says while these files are written
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    study = imaging_study(
        VOLUMES, task="classification", modality="CT", label={"type": "binary", "positive_above": 0.0}
    )
    data = dataset(tmp_path / "scans", "dicom", labels=str(tmp_path / "labels.csv"))
    cohort = read_cohort(study, data, ImageCache(folder=tmp_path / "cache", quota_bytes=2**20))
    assert cohort.summary.patients == 4
    assert cohort.summary.records_left_out == 1
    assert len(list(identifiers_in(data))) == 4
    told = [*said(), repr(cohort), repr(cohort.train), *report_lines(cohort.summary)]
    assert any("left out: 1 record" in text for text in told)
    assert [text for text in told if SECRET in text] == []
    assert [path for path in (tmp_path / "cache").iterdir() if SECRET in path.name] == []


def test_errors_name_no_file_and_nobody(tmp_path, said):
    folder = tmp_path / "films"
    table = write_folder(folder, [f"{SECRET}-{n}" for n in range(5)], labels=[SECRET] * 5)
    (folder / "1.png").rename(folder / f"{SECRET}.png")
    text = table.read_text().replace("1.png", f"{SECRET}.png").replace("3.png", f"../{SECRET}/3.png")
    table.write_text(text)
    (folder / f"{SECRET}.png").write_text("no picture")
    write_nifti(tmp_path / f"{SECRET}.nii")
    (tmp_path / "list.json").write_text(f'{{"training": [{{"image": "{SECRET}.nii", "label": "{SECRET}.nii"}}]}}')
    (tmp_path / "broken.json").write_text(f'{{"training": [{SECRET}]}}')
    told = []
    for data, what in (
        (dataset(folder, "image-folder", table=str(table)), PICTURES),
        (dataset(tmp_path / "list.json", "datalist", patient_id=None), VOLUMES),
        (dataset(tmp_path / "broken.json", "datalist"), VOLUMES),
    ):
        with pytest.raises(DataInvalid) as caught:
            read_cohort(imaging_study(what), data)
        told += [str(caught.value), caught.value.advice(), repr(caught.value)]
        told += traceback.format_exception(caught.value)
    assert [text for text in [*told, *said()] if SECRET in text] == []


def test_a_study_or_file_of_two_patients_is_nobodys(tmp_path):
    """Whose image it is decides whose budget it costs: two patients on one file are refused, under any spelling."""
    folder = tmp_path / "films"
    table = write_folder(folder, [f"{SECRET}-{n}" for n in range(6)])
    data = dataset(folder, "image-folder", table=str(table))
    (folder / "0.png").unlink()
    (folder / "0.png").symlink_to(folder / "5.png")
    with pytest.raises(DataInvalid) as caught:
        read_cohort(imaging_study(PICTURES), data)
    assert "1 record with a file that another patient has too (record 6)" in str(caught.value)
    (folder / "0.png").unlink()
    (folder / "0.png").hardlink_to(folder / "5.png")
    with pytest.raises(DataInvalid, match="a file that another patient has too"):
        read_cohort(imaging_study(PICTURES), data)
    table.write_text(table.read_text().replace(f"0.png,{SECRET}-0,", f"0.png,{SECRET}-5,"))
    assert read_cohort(imaging_study(PICTURES), data).summary.patients == 5


def test_nothing_outside_the_folder_is_read(tmp_path):
    folder, outside = tmp_path / "films", tmp_path / "elsewhere"
    table = write_folder(folder, [f"P{n}" for n in range(9)])
    outside.mkdir()
    write_png(outside / "0.png")
    (folder / "inner").mkdir()
    for number, name in enumerate(["../elsewhere/0.png", str(outside / "0.png"), "leads-out.png", "way/0.png", ".."]):
        table.write_text(table.read_text().replace(f"\n{number}.png,", f"\n{name},"))
    (folder / "leads-out.png").symlink_to(outside / "0.png")
    (folder / "way").symlink_to(outside)
    summary = read_cohort(imaging_study(PICTURES), dataset(folder, "image-folder", table=str(table))).summary
    assert summary.patients == 4
    assert [(one.reason, one.records) for one in summary.left_out] == [
        ("no file is named, or one outside the dataset's folder", (1, 2, 3, 4, 5))
    ]
