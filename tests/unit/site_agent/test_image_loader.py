"""From a decoded image to what the network sees: resampling, scaling, cutting, labels."""

import math

import nibabel as nib
import numpy as np
import pytest

from consortium.contract.study_data import BinaryLabel, ClassesLabel
from site_agent.imaging.loader import _fitted, load, value_of
from site_agent.imaging.records import ArrayImage, ImageRecord, NiftiFiles, Unusable
from tests.fakes.imaging_study import PICTURES, VOLUMES, imaging_study, write_nifti


def record(image, label="1"):
    return ImageRecord(number=1, patient="P", image=image, label=label)


def test_a_ramp_is_resampled_in_millimetres(tmp_path):
    ramp = np.broadcast_to(100.0 * np.arange(12)[:, None, None], (12, 10, 8))
    path = write_nifti(tmp_path / "ramp.nii.gz", values=ramp, spacing=(1.0, 1.0, 2.0))
    study = imaging_study(
        VOLUMES, task="classification", label={"type": "binary", "positive_above": 0.0},
        shape=(8, 19, 16), spacing=(1.5, 0.5, 1.0), intensity={"range": (0.0, 5000.0)},
    )  # fmt: skip
    image = load(record(NiftiFiles(paths=(path,))), study.data, None).prepared.image
    # Every step along the first axis is now 1.5 mm, so 150 in the ramp's unit; the others are constant, and the last
    # of the 16 places along the third axis is background.
    assert image.shape == (1, 8, 19, 16)
    assert np.allclose(image[0, :, :, :15], 150.0 * np.arange(8)[:, None, None], atol=1e-3)
    assert (image[0, :, :, 15] == 0).all()


def test_resampling_agrees_with_monai(tmp_path):
    from monai.data.meta_tensor import MetaTensor  # noqa: PLC0415 - seconds, and for this test alone
    from monai.transforms import Spacing  # noqa: PLC0415

    path = write_nifti(tmp_path / "noise.nii.gz", shape=(13, 11, 9), spacing=(1.0, 1.5, 2.0))
    study = imaging_study(
        VOLUMES, task="classification", label={"type": "binary", "positive_above": 0.0},
        shape=(9, 13, 9), spacing=(1.5, 1.25, 2.0), intensity={"range": (0.0, 5000.0)},
    )  # fmt: skip
    ours = load(record(NiftiFiles(paths=(path,))), study.data, None).prepared.image
    volume = nib.load(path)
    theirs = Spacing(pixdim=(1.5, 1.25, 2.0), padding_mode="border")(
        MetaTensor(volume.get_fdata()[None].astype(np.float32), affine=volume.affine)
    ).numpy()
    assert theirs.shape == ours.shape
    assert np.allclose(ours, theirs, atol=0.5)  # of values up to 1000


def test_constants_or_each_image_by_itself():
    values = np.linspace(0, 250, 256).reshape(16, 16, 1)
    by_constants = load(record(ArrayImage(values=values)), imaging_study(PICTURES).data, None).prepared.image
    assert np.allclose(by_constants[0], (values[..., 0] - 127.5) / 127.5, atol=1e-6)
    each = imaging_study(PICTURES, intensity={"range": (0.0, 255.0), "standardise": "each-image"}).data
    own = load(record(ArrayImage(values=values)), each, None).prepared.image
    assert math.isclose(own.mean(), 0, abs_tol=1e-6)
    assert math.isclose(own.std(), 1, abs_tol=1e-6)
    assert (load(record(ArrayImage(values=np.full((16, 16, 1), 7.0))), each, None).prepared.image == 0).all()
    plain = imaging_study(PICTURES, intensity={"range": (0.0, 255.0)}).data
    assert np.allclose(load(record(ArrayImage(values=values)), plain, None).prepared.image[0], values[..., 0])


@pytest.mark.parametrize(("text", "index"), [("no", 0), ("yes", 1), ("maybe", 2)])
def test_classes_of_text(text, index):
    label = ClassesLabel(type="classes", values=("no", "yes", "maybe"))
    assert value_of(text, label) == index
    with pytest.raises(Unusable, match="not one of the study's values"):
        value_of(text.upper(), label)


def test_classes_of_numbers_and_bounds():
    classes, binary = ClassesLabel(type="classes", values=(2, 5)), BinaryLabel(type="binary", positive_above=1.5)
    assert [value_of(text, classes) for text in ("2", "2.0", "5")] == [0, 0, 1]
    assert [value_of(text, binary) for text in ("1.5", "1.51", "-3")] == [0, 1, 0]
    for text in ("3", "nan", "", "inf"):
        with pytest.raises(Unusable):
            value_of(text, classes)
    for text in ("nan", "inf", "ill", ""):
        with pytest.raises(Unusable, match="no number"):
            value_of(text, binary)


@pytest.mark.parametrize(
    ("have", "want", "expected"),
    [
        ([1, 2, 3], 5, [0, 1, 2, 3, 0]),
        ([1, 2, 3], 4, [1, 2, 3, 0]),
        ([1, 2, 3, 4, 5], 3, [2, 3, 4]),
        ([1, 2, 3, 4], 3, [1, 2, 3]),
        ([1, 2], 2, [1, 2]),
    ],
)
def test_cut_or_padded_around_the_centre(have, want, expected):
    assert _fitted(np.array(have, dtype=np.float32), (want,), 0.0).tolist() == expected
