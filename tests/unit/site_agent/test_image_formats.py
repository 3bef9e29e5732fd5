"""Every format of images: which records and patients a folder or list comes to, and what their numbers mean."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pillow

from site_agent.cohort import read_cohort
from site_agent.data_faults import DataInvalid
from site_agent.imaging.cohort import report_lines
from site_agent.imaging.dicom import read_dicom_volume
from site_agent.imaging.nifti import read_nifti
from site_agent.imaging.raster import read_raster
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

PATIENTS = ["P0", "P1", "P1", "P2", "P3", "P4"]


def both_sides(cohort):
    """All records, training first."""
    return (
        np.concatenate([cohort.train.features, cohort.test.features]),
        np.concatenate([cohort.train.labels, cohort.test.labels]),
    )


# --- PNG and JPEG --------------------------------------------------------------------------------------------------


def test_a_folder_of_pictures_and_its_list(tmp_path):
    data = dataset(tmp_path / "films", "image-folder", table=str(write_folder(tmp_path / "films", PATIENTS)))
    cohort = read_cohort(imaging_study(PICTURES), data)
    summary = cohort.summary
    assert (summary.patients, summary.records_read, summary.records_left_out) == (5, 6, 0)
    assert (summary.training_patients, summary.test_patients, summary.most_records_of_a_patient) == (3, 2, 2)
    images, labels = both_sides(cohort)
    assert images.shape == (6, 1, 16, 16)
    assert images.dtype == labels.dtype == np.float32
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]
    assert not images.flags.writeable or not cohort.train.features.flags.writeable
    assert list(identifiers_in(data)) == PATIENTS
    # 20 rows are cut to 16, 14 columns padded to 16, around the centre; 0..255 becomes -1..1.
    pixels = np.asarray(Pillow.open(tmp_path / "films" / "0.png"), dtype=np.float32)
    expected = np.full((16, 16), (pixels[2:18].min() - 127.5) / 127.5, dtype=np.float32)
    expected[:, 1:15] = (pixels[2:18] - 127.5) / 127.5
    lowest = (pixels.min() - 127.5) / 127.5
    expected[:, [0, 15]] = lowest
    assert any(np.allclose(image[0], expected) for image in images)
    assert cohort.summary.notes == (
        "6 records larger than the study's shape and cut around their centre",
        "1 patient with more than 1 record: so many, drawn at random, are in a step",
    )


def test_the_hospitals_own_split_and_columns(tmp_path):
    write_folder(tmp_path / "films", PATIENTS)
    table = tmp_path / "own.csv"
    rows = [f"{n}.png,{p},{n % 2},{'test' if p == 'P1' else 'train'}" for n, p in enumerate(PATIENTS)]
    table.write_text("\n".join(["picture,who,ill,side", *rows]))
    data = dataset(
        tmp_path / "films", "image-folder", table=str(table),
        file_column="picture", patient_id="who", label_column="ill", split_column="side",
    )  # fmt: skip
    cohort = read_cohort(imaging_study(PICTURES), data)
    assert (cohort.test.patient_count, len(cohort.test)) == (1, 2)
    table.write_text(table.read_text().replace("2.png,P1,0,test", "2.png,P1,0,train"))
    with pytest.raises(DataInvalid, match="1 patient both in train and in test"):
        read_cohort(imaging_study(PICTURES), data)


def test_colour_palettes_depth_and_turned_pictures(tmp_path):
    colour = write_png(tmp_path / "colour.png", mode="RGB")
    assert read_raster(colour).values.shape == (3, 20, 14)
    Pillow.open(colour).convert("P").save(tmp_path / "palette.png")
    assert read_raster(tmp_path / "palette.png").values.shape == (3, 20, 14)
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Pillow.fromarray(deep).save(tmp_path / "deep.png")
    assert (read_raster(tmp_path / "deep.png").values[0] == deep).all()
    turned = Pillow.fromarray(np.zeros((8, 12), dtype=np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held on its side
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert read_raster(tmp_path / "turned.jpg").values.shape == (1, 12, 8)


def test_pictures_with_masks(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    lines = ["file,patient,label"]
    for number in range(5):
        write_png(folder / f"{number}.png", seed=number, size=(16, 16))
        mask = np.zeros((16, 16), dtype=np.uint8)
        mask[4:8, 2:6] = 7
        Pillow.fromarray(mask).save(folder / f"{number}-mask.png")
        lines.append(f"{number}.png,P{number},{number}-mask.png")
    table = tmp_path / "list.csv"
    table.write_text("\n".join(lines))
    study = imaging_study(PICTURES, task="segmentation", label={"type": "mask", "values": (0, 7)})
    cohort = read_cohort(study, dataset(folder, "image-folder", table=str(table)))
    assert cohort.train.labels.shape == (3, 16, 16)
    assert (cohort.train.labels[:, 4:8, 2:6] == 1).all()
    assert cohort.train.labels.sum() == 3 * 16


# --- MedMNIST ------------------------------------------------------------------------------------------------------


def test_a_medmnist_file_and_an_index_of_it(tmp_path):
    random = np.random.default_rng(1)
    arrays = {}
    for part, count in (("train", 8), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = random.integers(0, 256, size=(count, 16, 16), dtype=np.uint8)
        arrays[f"{part}_labels"] = random.integers(0, 3, size=(count, 1), dtype=np.uint8)
    arrays["val_images"][1] = arrays["train_images"][0]  # the same picture twice is the same patient
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    study = imaging_study(PICTURES, label={"type": "classes", "values": (0, 1, 2)})
    everybody = dataset(tmp_path / "set.npz", "medmnist")
    cohort = read_cohort(study, everybody)
    assert (cohort.summary.patients, cohort.summary.records_read) == (12, 13)
    _, labels = both_sides(cohort)
    assert sorted(labels) == sorted(np.concatenate([arrays[f"{p}_labels"][:, 0] for p in ("train", "val", "test")]))
    assert len(list(identifiers_in(everybody))) == 13
    assert len(set(identifiers_in(everybody))) == 12

    index = tmp_path / "mine.csv"
    index.write_text("part,image,patient\ntrain,0,A\ntrain,3,A\nval,0,B\ntest,2,C\ntest,1,D\ntest,9,E\nelse,0,F\n")
    mine = dataset(tmp_path / "set.npz", "medmnist", index=str(index))
    summary = read_cohort(study, mine).summary
    assert (summary.patients, summary.records_read, summary.most_records_of_a_patient) == (4, 7, 2)
    assert [(one.reason, one.records) for one in summary.left_out] == [("no such image in the file", (6, 7))]


# --- NIfTI ---------------------------------------------------------------------------------------------------------


def test_volumes_are_turned_to_the_right_front_and_top(tmp_path):
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    path = write_nifti(tmp_path / "flipped.nii.gz", values=values, affine=np.diag([-1.0, -2.0, 3.0, 1.0]))
    image = read_nifti((path,))
    assert (image.values[0] == values[::-1, ::-1]).all()
    assert np.allclose(np.abs(np.diag(image.affine)[:3]), (1, 2, 3))
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_channels_on_a_fourth_axis_or_in_files_of_their_own(tmp_path):
    four = write_nifti(tmp_path / "four.nii", shape=(4, 5, 6, 2))
    one, two = (write_nifti(tmp_path / f"{n}.nii.gz", shape=(4, 5, 6), seed=n) for n in (1, 2))
    assert read_nifti((four,)).values.shape == (2, 4, 5, 6)
    both = read_nifti((one, two)).values
    assert both.shape == (2, 4, 5, 6)
    assert (both[1] == read_nifti((two,)).values[0]).all()


def decathlon(folder, count=6, **volume):
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    entries = []
    for number in range(count):
        name = f"case_{number}.nii.gz"
        write_nifti(folder / "imagesTr" / name, seed=number, **volume)
        shape = volume.get("shape", (12, 10, 8))
        mask = np.random.default_rng(number).integers(0, 3, size=shape)
        write_nifti(folder / "labelsTr" / name, values=mask, spacing=volume.get("spacing", (1.0, 1.0, 1.0)))
        entries.append(
            {
                "image": f"./imagesTr/{name}",
                "label": f"./labelsTr/{name}",
                "patient": number // 2 if number < 4 else number,
            }
        )
    (folder / "dataset.json").write_text(json.dumps({"name": "A task", "training": entries}))
    return folder / "dataset.json"


def test_a_datalist_of_volumes_and_masks(tmp_path):
    path = decathlon(tmp_path / "task")
    data = dataset(path, "datalist")
    cohort = read_cohort(imaging_study(VOLUMES), data)
    assert (cohort.summary.patients, cohort.summary.records_read) == (4, 6)
    images, labels = both_sides(cohort)
    assert images.shape == (6, 1, 12, 10, 8)
    assert labels.shape == (6, 12, 10, 8)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert np.allclose(images.mean(axis=(1, 2, 3, 4)), 0, atol=1e-5)
    assert np.allclose(images.std(axis=(1, 2, 3, 4)), 1, atol=1e-4)
    assert list(identifiers_in(data)) == ["0", "0", "1", "1", "4", "5"]
    each = dataset(path, "datalist", patient_id=None)
    assert read_cohort(imaging_study(VOLUMES), each).summary.patients == 6
    assert len(set(identifiers_in(each))) == 6


def test_volumes_are_resampled_and_masks_keep_their_values(tmp_path):
    path = decathlon(tmp_path / "task", count=4, shape=(12, 10, 8), spacing=(1.0, 1.0, 2.0))
    study = imaging_study(VOLUMES, spacing=(2.0, 2.0, 2.0), shape=(8, 8, 8), minimum_patients=2)
    cohort = read_cohort(study, dataset(path, "datalist"))
    assert cohort.train.features.shape[1:] == (1, 8, 8, 8)
    assert set(np.unique(cohort.train.labels)) == {0, 1, 2}
    inside = cohort.train.labels[:, 1:7, 1:6, :]
    assert inside.any()
    assert not cohort.train.labels[:, 7].any()  # 6 of 8 places along the first axis have something in them


def test_a_bids_folder_with_values_and_with_masks(tmp_path):
    root, masks = tmp_path / "bids", tmp_path / "bids" / "derivatives" / "manual"
    rows = ["participant_id\tage\till"]
    for number in range(5):
        for session in ("ses-1", "ses-2") if number == 0 else ("",):
            folder = root / f"sub-{number:02}" / session / "anat"
            mirror = masks / f"sub-{number:02}" / session / "anat"
            folder.mkdir(parents=True)
            mirror.mkdir(parents=True)
            entities = f"sub-{number:02}" + (f"_{session}" if session else "")
            write_nifti(folder / f"{entities}_T1w.nii.gz", seed=number)
            write_nifti(folder / f"{entities}_T2w.nii.gz", seed=number)
            mask = np.zeros((12, 10, 8))
            mask[3] = 2
            write_nifti(mirror / f"{entities}_label-x_dseg.nii.gz", values=mask)
        rows.append(f"sub-{number:02}\t50\t{number % 2}")
    (root / "participants.tsv").write_text("\n".join(rows))

    plain = imaging_study(VOLUMES, task="classification", label={"type": "binary", "positive_above": 0.0})
    data = dataset(root, "bids", label_column="ill")
    cohort = read_cohort(plain, data)
    assert (cohort.summary.patients, cohort.summary.records_read) == (5, 6)
    assert sorted(both_sides(cohort)[1]) == [0, 0, 0, 0, 1, 1]
    assert set(identifiers_in(data)) == {f"sub-{n:02}" for n in range(5)}
    segmented = read_cohort(imaging_study(VOLUMES), dataset(root, "bids", masks=str(masks)))
    assert (both_sides(segmented)[1][:, 3] == 2).all()


# --- DICOM ---------------------------------------------------------------------------------------------------------


def ct_series(folder, patient, *, slices=8, study="1.2.3", series="1.2.3.4", step=2.5, **attributes):
    """Slices written in a mixed order; the value of a pixel is 100 times its slice plus its row."""
    rows = np.tile(np.arange(12)[:, None], (1, 10))
    for place in (*range(1, slices, 2), *range(0, slices, 2)):
        write_dicom(
            folder / f"{place * 7 % slices}.dcm", patient=patient, study=study, series=series,
            pixels=rows + 100 * place, position=(5.0, -3.0, step * place), spacing=(1.5, 0.5), **attributes,
        )  # fmt: skip
    return sorted(folder.iterdir())


def test_slices_become_a_volume_whatever_their_order(tmp_path):
    volume = read_dicom_volume(tuple(ct_series(tmp_path, "P1", RescaleSlope=2, RescaleIntercept=-1024)))
    assert volume.values.shape == (1, 10, 12, 8)  # right, front, top: columns, rows, slices
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert np.allclose(np.sqrt((volume.affine[:3, :3] ** 2).sum(axis=0)), (0.5, 1.5, 2.5))
    rows_from_the_front = np.arange(12)[::-1]  # DICOM's rows run to the back
    expected = 2 * (100 * np.arange(8)[None, None, :] + rows_from_the_front[None, :, None]) - 1024
    assert (volume.values[0] == np.broadcast_to(expected, (10, 12, 8))).all()
    corner = volume.affine @ np.array([0, 0, 0, 1])  # the place of the first number, in mm from the left back bottom
    assert np.allclose(corner[:3], (-5.0 - 9 * 0.5, 3.0 - 11 * 1.5, 0.0))


def test_a_folder_of_series_is_grouped_by_patient_and_study(tmp_path):
    root = tmp_path / "scans"
    rows = ["PatientID,StudyInstanceUID,label"]
    for number in range(5):
        study = f"1.2.{number}"
        ct_series(root / f"x{number}" / "deep", f"P{number}", study=study, series=f"{study}.1")
        rows.append(f"P{number},{study},{number % 2}")
    ct_series(root / "second", "P0", study="1.2.77", series="1.2.77.1")
    ct_series(root / "another", "P1", study="1.2.78", series="1.2.78.1", modality="MR")
    rows.append("P0,1.2.77,1")
    (root / "README.txt").write_text("not DICOM")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(rows))
    study = imaging_study(
        VOLUMES, task="classification", modality="CT", label={"type": "binary", "positive_above": 0.0}
    )
    data = dataset(root, "dicom", labels=str(labels))
    cohort = read_cohort(study, data)
    assert (cohort.summary.patients, cohort.summary.records_read, cohort.summary.records_left_out) == (5, 7, 1)
    assert report_lines(cohort.summary)[1:] == [
        "left out: 1 record, another modality than CT (record 1)",
        "note: not DICOM, and not looked at: 1 file",
        "note: 6 records larger than the study's shape and cut around their centre",
        "note: 1 patient with more than 1 record: so many, drawn at random, are in a step",
    ]
    assert sorted(both_sides(cohort)[1]) == [0, 0, 0, 1, 1, 1]
    assert set(identifiers_in(data)) == {f"P{n}" for n in range(5)}


def test_single_films_of_a_study_of_pictures(tmp_path):
    rows = ["PatientID,label"]
    for number in range(5):
        pixels = np.full((16, 16), 10 * number)
        write_dicom(
            tmp_path / "films" / f"{number}.dcm", patient=f"P{number}", study=f"1.{number}", series=f"1.{number}.1",
            pixels=pixels, modality="DX", PhotometricInterpretation="MONOCHROME1", BitsStored=8, HighBit=7,
        )  # fmt: skip
        rows.append(f"P{number},{number % 2}")
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(rows))
    data = dataset(tmp_path / "films", "dicom", labels=str(labels), study_column=None)
    images, _ = both_sides(read_cohort(imaging_study(PICTURES), data))
    # Where white is 0 the numbers are turned round: 8 bits give 255, 245, ...
    assert sorted(np.rint(images[:, 0, 0, 0] * 127.5 + 127.5)) == [215, 225, 235, 245, 255]
