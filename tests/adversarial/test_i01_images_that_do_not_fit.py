"""I-01: damaged, mislabelled or malicious image files: each costs its own record and nothing else.

A hospital's archive holds what scanners, exports and strangers left in it. Held by: every record is opened behind the
checks of `imaging/safety.py` and of its reader, and falls out for a reason in plain words that is counted; what remains
is enough or the hospital takes no part. Tried: rows i01 of `mutations.py` (with the last `except` of `or_unusable`
narrowed the library's own errors come through; without the range and label checks of `loader.py` those records count as
good); and by hand, since it takes the machine's memory: without `check_count` in `_announced` or in `_pixels` a bomb is
unpacked, and the second test fails.
"""

import gzip
import json
import resource
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom.uid import DeflatedExplicitVRLittleEndian

from site_agent.cohort import read_cohort
from site_agent.data_faults import DataInvalid
from site_agent.imaging.nifti import read_nifti
from site_agent.imaging.raster import read_raster
from site_agent.imaging.records import Unusable
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

SECRET = "SECRET-4711"
"""Stands in every name and identifier of these files, and may stand in nothing that is said about them."""


def reasons(cohort):
    assert SECRET not in repr(cohort.summary)
    return {one.reason: one.records for one in cohort.summary.left_out}


def good_pair(folder, name, **volume):
    write_nifti(folder / f"{name}.nii.gz", **volume)
    shape = volume.get("shape", (12, 10, 8))
    write_nifti(folder / f"{name}-mask.nii.gz", values=np.ones(shape), spacing=volume.get("spacing", (1.0, 1.0, 1.0)))
    return {"image": f"{name}.nii.gz", "label": f"{name}-mask.nii.gz", "patient": f"{SECRET}-{name}"}


def test_each_bad_volume_is_left_out_for_its_reason(tmp_path):
    folder = tmp_path / SECRET
    folder.mkdir()
    entries = [good_pair(folder, f"{SECRET}-good-{number}", seed=number) for number in range(4)]

    def bad(name, spoil, **volume):
        entry = good_pair(folder, f"{SECRET}-{name}", **volume)
        spoil(folder / entry["image"], folder / entry["label"], entry)
        entries.append(entry)

    bad("truncated", lambda image, _, __: image.write_bytes(image.read_bytes()[:-200]))
    bad("text", lambda image, _, __: image.write_text("no volume at all"))
    bad("empty", lambda image, _, __: image.write_bytes(b""))
    bad("brighter", lambda image, *_: write_nifti(image, values=np.full((12, 10, 8), 9000)))
    bad("nan", lambda image, *_: nib.save(nib.Nifti1Image(np.full((12, 10, 8), np.nan, np.float32), np.eye(4)), image))
    bad("colours", lambda image, *_: write_nifti(image, shape=(12, 10, 8, 3)))
    bad("labels", lambda _, mask, __: write_nifti(mask, values=np.full((12, 10, 8), 3)))
    bad("other-grid", lambda _, mask, __: write_nifti(mask, values=np.ones((12, 10, 8)), spacing=(1.0, 1.0, 2.0)))
    bad("gone", lambda image, *_: image.unlink())
    bad("nobody", lambda *given: given[2].pop("patient"))
    entries.append(f"{SECRET}: not an object")
    (folder / "list.json").write_text(json.dumps({"training": entries}))

    cohort = read_cohort(imaging_study(VOLUMES), dataset(folder / "list.json", "datalist"))
    assert cohort.summary.patients == 4
    assert reasons(cohort) == {
        "cannot be read as NIfTI: truncated or damaged": (5, 6, 7),
        "values outside the study's range": (8, 9),
        "3 channels instead of 1": (10,),
        "a mask with values that are not the study's": (11,),
        "a mask of another shape, place or direction than its image": (12,),
        "the file is not there, or cannot be read": (13,),
        "no patient is named": (14,),
        "an entry that names no image": (15,),
    }


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb_png(path, *, side=50_000, channels=1):
    """A grey picture of 2.5 billion pixels in a few kilobytes; or one in colour that the library would still open."""
    packer = zlib.compressobj(9)
    row = b"\0" * (channels * side + 1)
    body = b"".join(packer.compress(row) for _ in range(200)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0 if channels == 1 else 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def bomb_nifti(path, *, shape=(20_000, 20_000, 50), offset=352.0, extension=b"\0" * 4):
    """A header that claims 40 GB, or a long extension, before 128 MiB of zeros in a hundredth of that."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header["vox_offset"] = offset
    header["magic"] = b"n+1"
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.write(header.binaryblock + extension)
        for _ in range(128):
            file.write(b"\0" * 2**20)


def test_a_header_is_not_believed_before_memory_is_taken(tmp_path):
    bomb_png(tmp_path / "bomb.png")
    bomb_png(tmp_path / "colour.png", side=12_000, channels=3)
    bomb_nifti(tmp_path / "bomb.nii.gz")
    bomb_nifti(
        tmp_path / "far.nii.gz", shape=(4, 4, 4), offset=2e9, extension=b"\1\0\0\0" + struct.pack("<ii", 10**9, 4)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("bomb.png", "colour.png"):
        with pytest.raises(Unusable, match="more than 268435456 numbers"):
            read_raster(tmp_path / name)
    with pytest.raises(Unusable, match="more than 268435456 numbers"):
        read_nifti((tmp_path / "bomb.nii.gz",))
    with pytest.raises(Unusable, match="truncated or damaged"):
        read_nifti((tmp_path / "far.nii.gz",))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10  # kilobytes


def test_each_bad_picture_is_left_out_for_its_reason(tmp_path):
    folder = tmp_path / SECRET
    table = write_folder(folder, [f"{SECRET}-{n}" for n in range(10)], labels=["1"] * 8 + ["", "ill"])
    corrupt = (folder / "4.png").read_bytes()
    (folder / "4.png").write_bytes(corrupt[:60] + b"\0" * 20 + corrupt[80:])
    write_png(folder / "5.png", mode="RGB")
    write_png(folder / "6.png", mode="RGBA")
    frames = [Pillow.fromarray(np.full((8, 8), n, dtype=np.uint8)) for n in range(2)]
    frames[0].save(folder / "7.png", save_all=True, append_images=frames[1:])
    cohort = read_cohort(imaging_study(PICTURES), dataset(folder, "image-folder", table=str(table)))
    assert reasons(cohort) == {
        "cannot be read as PNG or JPEG: truncated or damaged": (5,),
        "3 channels instead of 1": (6,),
        "neither grey nor red, green and blue, or with transparency": (7,),
        "an image of several frames": (8,),
        "no label": (9,),
        "a label that is no number": (10,),
    }


def test_each_bad_series_is_left_out_for_its_reason(tmp_path):
    root, rows = tmp_path / "scans", ["PatientID,StudyInstanceUID,label"]

    def series(name, *, patient=None, study=None, places=range(4), label="1", **attributes):
        who, uid = patient or f"{SECRET}-{name}", study or f"1.2.{len(rows)}"
        rows.append(f"{who},{uid},{label}")
        for place in places:
            write_dicom(
                root / name / f"{SECRET}-{place}.dcm", patient=who, study=uid, series=f"{uid}.{len(rows)}",
                pixels=np.full((10, 12), 7), position=(0.0, 0.0, float(place)), **attributes,
            )  # fmt: skip
        return sorted((root / name).iterdir())

    for number in range(4):
        series(f"a{number}")
    series("b-gap", places=(0, 1, 2, 5))
    series("c-no-pixels", PixelData=None, Rows=None, Columns=None)
    series("d-no-data", PixelData=None)
    series("e-no-place", ImagePositionPatient=None)
    series("f-one", places=[0])
    series("g-one", patient=f"{SECRET}-x", study="1.2.900")
    series("h-same-study", patient=f"{SECRET}-y", study="1.2.900")
    cut = series("i-cut")
    cut[1].write_bytes(cut[1].read_bytes()[:-50])
    deflated = series("j-deflated")
    raw = deflated[2].read_bytes().replace(b"1.2.840.10008.1.2.1\0", DeflatedExplicitVRLittleEndian.encode()[:20])
    deflated[2].write_bytes(raw)
    series("k-frames", NumberOfFrames=40)
    series("l-unlabelled", label="")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    study = imaging_study(
        VOLUMES, task="classification", modality="CT", label={"type": "binary", "positive_above": 0.0}
    )
    cohort = read_cohort(study, dataset(root, "dicom", labels=str(tmp_path / "labels.csv")))
    assert cohort.summary.patients == 4
    assert reasons(cohort) == {
        "slices that are not evenly spaced, or not of one shape, spacing and direction": (5, 13),
        "a DICOM file without pixel data": (6, 7),
        "slices without orientation, position or spacing": (8,),
        "a series of one slice, in a study of volumes": (9,),
        "a DICOM study under the names of several patients": (10, 11),
        "cannot be read as DICOM: truncated or damaged": (12,),
        "a DICOM file compressed in a way that is not read here": (14,),
        "a DICOM file of several frames": (15,),
        "no label": (16,),
    }


def test_mixed_spacings_long_volumes_and_patients_of_many_records_are_allowed_and_said(tmp_path):
    entries = [good_pair(tmp_path, str(n), seed=n, spacing=(1.0, 1.0, 1.0 + n % 2)) for n in range(4)]
    entries.append(good_pair(tmp_path, "long", shape=(12, 10, 500), spacing=(1.0, 1.0, 1.0)))
    entries += [{**entries[0], "patient": entries[0]["patient"]} for _ in range(2)]
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    cohort = read_cohort(imaging_study(VOLUMES), dataset(tmp_path / "list.json", "datalist"))
    assert cohort.summary.notes == (
        "1 record larger than the study's shape and cut around their centre",
        "2 different spacings, taken as they are: the study names no spacing",
        "1 patient with more than 1 record: so many, drawn at random, are in a step",
    )
    assert cohort.train.features.shape[1:] == (1, 12, 10, 8)


def test_too_few_are_left_and_every_reason_is_said_at_once(tmp_path):
    folder = tmp_path / SECRET
    table = write_folder(folder, [f"{SECRET}-{n}" for n in range(5)])
    for number in (1, 3):
        (folder / f"{number}.png").write_text("no picture")
    with pytest.raises(DataInvalid) as caught:
        read_cohort(imaging_study(PICTURES), dataset(tmp_path / SECRET, "image-folder", table=str(table)))
    few, why = caught.value.problems
    assert str(few) == "found 3 patients with complete records; allowed: at least 4, the study's data.minimum_patients"
    assert why.found == "2 records left out: cannot be read as PNG or JPEG: truncated or damaged (records 2, 4)"
    assert SECRET not in str(few) + str(why)


@pytest.mark.parametrize(
    ("form", "fields", "what", "found"),
    [
        ("image-folder", {"table": "list.csv"}, PICTURES, "no images at all"),
        ("bids", {"label_column": "ill"}, {**VOLUMES, "task": "classification", "label": PICTURES["label"]}, "a list"),
        ("bids", {"masks": "masks"}, VOLUMES, "no images at all"),
        ("dicom", {"labels": "labels.csv"}, {**PICTURES, "modality": "CT"}, "no images at all"),
        ("dicom", {"labels": "labels.csv"}, VOLUMES, "which has no masks"),
        ("datalist", {}, VOLUMES, "a list that cannot be read"),
        ("image-folder", {"table": "list.csv"}, {**VOLUMES, "shape": (8, 8, 8)}, "a folder of PNG and JPEG files"),
    ],
)
def test_an_empty_folder_or_a_format_that_cannot_fit_is_one_problem(tmp_path, form, fields, what, found):
    folder = tmp_path / "nothing"
    folder.mkdir()
    (tmp_path / "list.csv").write_text("file,patient,label\n")
    (tmp_path / "labels.csv").write_text("PatientID,StudyInstanceUID,label\n")
    path = tmp_path / "list.json" if form == "datalist" else folder
    data = dataset(path, form, **{k: str(tmp_path / v) if k != "label_column" else v for k, v in fields.items()})
    with pytest.raises(DataInvalid) as caught:
        read_cohort(imaging_study(what), data)
    (problem,) = caught.value.problems
    assert found in problem.found
