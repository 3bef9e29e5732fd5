"""`data.augmentation` and `data.patch`: what is allowed, what is said, and what the network then sees."""

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from consortium.contract import schema
from consortium.contract.record_views import Transform
from consortium.contract.study import StudyFile
from consortium.contract.study_data import ImagingData, StudyData
from site_agent.data_words import sentence_of
from site_agent.imaging.loader import key_of
from site_agent.imaging.records import ImageRecord, NiftiFiles
from tests.fakes.imaging_study import PICTURES, VOLUMES, imaging_study, write_nifti
from tests.fakes.small_study import small_study
from tests.fakes.viewed_study import EVERY

ROOT = Path(__file__).parents[3]
CUBES = {**VOLUMES, "shape": (16, 12, 12)}
PATCH = {"shape": (8, 8, 8), "per_record": 2, "foreground": 0.5}


def data_of(fields: dict[str, Any], **changes: Any) -> ImagingData:
    found = TypeAdapter(StudyData).validate_python({**fields, **changes})
    assert isinstance(found, ImagingData)
    return found


def test_every_transform_of_the_allow_list() -> None:
    found = data_of(CUBES, augmentation=EVERY).augmentation
    assert found is not None
    assert {type(one) for one in found} == set(get_args(Transform))
    assert [one.probability for one in found] == [0.5] * 10 + [1.0]


@pytest.mark.parametrize(
    ("changes", "path", "found", "allowed"),
    [
        ({"augmentation": ()}, "data.augmentation", "a list of 0", "1 to 12"),
        ({"augmentation": ({"transform": "invert"},)}, "data.augmentation[0].transform", '"invert"', "one of flip, "),
        ({"augmentation": ({"transform": "flip", "axes": (0, 0)},)}, "data.augmentation[0].axes[1]", "0 a sec", "once"),
        ({"augmentation": ({"transform": "flip", "axes": (3,)},)}, "data.augmentation[0].axes[0]", "3", "from 0 to 2"),
        (
            {**PICTURES, "augmentation": ({"transform": "flip", "axes": (2,)},)},
            "data.augmentation[0].axes[0]", "2", "an axis of shape: 0 to 1",
        ),
        (
            {"augmentation": ({"transform": "rotate90", "axes": (0, 1)},)},
            "data.augmentation[0].axes", "axes of 16 and 12", "the same length",
        ),
        (
            {"augmentation": ({"transform": "rotate", "max_degrees": 200.0},)},
            "data.augmentation[0].max_degrees", "200", "at most 180",
        ),
        (
            {"augmentation": ({"transform": "zoom", "range": (1.2, 0.8)},)},
            "data.augmentation[0].range", "1.2 to 0.8", "smaller bound first",
        ),
        ({"augmentation": ({"transform": "affine"},)}, "data.augmentation[0]", "moves nothing", "at least one of"),
        (
            {"augmentation": ({"transform": "affine", "degrees": (5.0,)},)},
            "data.augmentation[0].degrees", "a list of 1", "about each axis",
        ),
        (
            {"augmentation": ({"transform": "affine", "shift": (5.0, 5.0)},)},
            "data.augmentation[0].shift", "a list of 2", "each of 3 axes",
        ),
        (
            {"augmentation": ({"transform": "gaussian-smooth", "sigma": (2.0, 1.0)},)},
            "data.augmentation[0].sigma", "2 to 1", "smaller bound first",
        ),
        (
            {"augmentation": ({"transform": "contrast", "gamma": (2.0, 1.0)},)},
            "data.augmentation[0].gamma", "2 to 1", "smaller bound first",
        ),
        ({"patch": {"shape": (8, 8)}}, "data.patch.shape", "2 axes", "3, as many"),
        ({"patch": {"shape": (8, 8, 16)}}, "data.patch.shape[2]", "16", "at most the side of data.shape, 12"),
        ({"patch": {"shape": (16, 12, 12)}}, "data.patch.shape", "the whole", "or no patch"),
        ({"patch": {**PATCH, "overlap": 0.95}}, "data.patch.overlap", "0.95", "from 0 to 0.9"),
        ({"patch": {**PATCH, "foreground": 1.5}}, "data.patch.foreground", "1.5", "from 0 to 1"),
        (
            {"shape": (512, 512, 64), "patch": {"shape": (512, 512, 32), "per_record": 64}},
            "data.patch.per_record", "536870912 numbers", "at most 67108864",
        ),
        ({**PICTURES, "patch": {"shape": (8, 8)}}, "data.patch", "with classification", "in segmentation"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_words(changes: dict[str, Any], path: str, found: str, allowed: str) -> None:
    problems = schema.problems_of(StudyFile, {"data": {**CUBES, **changes}})
    told = {problem.path: problem for problem in problems}
    assert path in told, told
    assert found in told[path].found
    assert allowed in told[path].allowed


def test_tables_have_neither() -> None:
    record = small_study().model_dump(mode="python", by_alias=True, exclude_none=True)
    record["data"] |= {"augmentation": EVERY, "patch": PATCH}
    told = {problem.path: problem.found for problem in schema.problems_of(StudyFile, record)}
    assert told == {"data.augmentation": "an unknown key", "data.patch": "an unknown key"}


def test_the_network_sees_patches_and_readers_the_record() -> None:
    data = data_of({**CUBES, "channels": 2}, patch=PATCH)
    assert (data.input_shape, data.label_shape) == ((2, 8, 8, 8), (8, 8, 8))
    assert (data.record_shape, data.record_label_shape) == ((2, 16, 12, 12), (16, 12, 12))
    whole = data_of(CUBES)
    assert (whole.input_shape, whole.label_shape) == (whole.record_shape, whole.record_label_shape)


def test_a_network_must_take_the_patch() -> None:
    """Sides that are no multiple of what the network halves are said where they stand."""
    record = small_study().model_dump(mode="python", by_alias=True, exclude_none=True)
    record["data"] = {**VOLUMES, "shape": (20, 20, 20), "patch": {"shape": (16, 16, 10)}}
    record["model"] = {"network": "unet", "args": {"channels": (4, 8, 8)}}
    told = {problem.path: problem.found for problem in schema.problems_of(StudyFile, record)}
    assert told["data.patch.shape[2]"] == "10 with unet"
    assert "data.shape[0]" not in told


def test_the_cache_and_documents_know_nothing_of_views(tmp_path: Path) -> None:
    """What training does anew in every step is done after the cache; and a study without it is what it was."""
    path = write_nifti(tmp_path / "one.nii.gz")
    record = ImageRecord(number=1, patient="p", image=NiftiFiles(paths=(path,)), label=NiftiFiles(paths=(path,)))
    plain, seen = data_of(CUBES), data_of(CUBES, augmentation=EVERY, patch=PATCH)
    assert key_of(record, plain) == key_of(record, seen)
    assert b"augmentation" not in imaging_study(CUBES).document()
    assert b"patch" not in imaging_study(CUBES).document()
    assert imaging_study(CUBES, patch=PATCH).digest() != imaging_study(CUBES).digest()


def test_a_steward_is_told() -> None:
    words = sentence_of(data_of(CUBES, augmentation=EVERY[:2], patch=PATCH))
    assert words.endswith(
        "; nothing else of a file is used; in every training step a record is changed at random (flip, rotate90) and "
        "seen in 2 patches of 8 x 8 x 8"
    )


def test_the_reference_page_has_every_argument() -> None:
    page = (ROOT / "docs/reference/study-file.md").read_text()
    missing: list[str] = []
    for section in get_args(Transform):
        fields = schema.keys_of(section)
        (name,) = get_args(fields["transform"].annotation)
        line = next((line for line in page.splitlines() if line.startswith(f"| `{name}` |")), "")
        missing += [
            f"{name}.{key}" for key in fields if key not in ("transform", "probability") and f"`{key}" not in line
        ]
        missing += [] if line else [name]
    assert missing == []
