"""A bundle's random transforms and windows in a study: the same images as MONAI makes, or the place that differs."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import monai.transforms
import numpy as np
import pytest
import torch

from consortium.contract.digest import canonical_bytes
from consortium.contract.record_views import Flip, Patch
from consortium.contract.study import StudyFile, load_study
from consortium.contract.study_data import ImagingData
from site_agent.bundles.approval import NOT_FOLLOWED, objection_to_bundle
from site_agent.bundles.checking import Bundle, Component
from site_agent.bundles.report import look_at
from site_agent.bundles.study_views import StudyViews, views_of
from site_agent.bundles.targets import TARGETS
from site_agent.imaging.augmentation import Augmentation
from tests.fakes.bundle_folder import changed, write_bundle

BOTH = ["image", "label"]
CROP: dict[str, Any] = {
    "keys": BOTH,
    "label_key": "label",
    "spatial_size": [16, 16],
    "pos": 3,
    "neg": 1,
    "num_samples": 4,
}
LINEAR = {"mode": ["bilinear", "nearest"]}


def part(name: str, place: int = 0, **arguments: Any) -> Component:
    at = f"train#random_transforms#{place}"
    return Component(file="configs/train.json", id=at, target=TARGETS[name], arguments=arguments)


def bundle(*transforms: Component, inferer: Component | None = None, network: str = "UNet", dims: int = 2) -> Bundle:
    return SimpleNamespace(  # type: ignore[return-value]
        train_transforms=transforms, inferer=inferer, network=part(network, spatial_dims=dims)
    )


def only(found: StudyViews) -> tuple[str, str]:
    (left_out,) = found.left_out
    return left_out.place.removeprefix("configs/train.json: train#random_transforms#0"), left_out.why


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("RandFlipd", {"keys": BOTH, "prob": 0.7, "spatial_axis": [1]}),
        ("RandRotate90d", {"keys": BOTH, "prob": 0.9}),
        ("RandRotated", {"keys": BOTH, "prob": 0.9, "range_x": [-0.3, 0.3], "padding_mode": "border", **LINEAR}),
        ("RandZoomd", {"keys": BOTH, "prob": 0.9, "min_zoom": 0.8, "mode": ["bilinear", "nearest-exact"]}),
        (
            "RandAffined",
            {
                "keys": BOTH, "prob": 0.9, "rotate_range": 0.2, "translate_range": [3, 2], "shear_range": [0.1, 0.1],
                "scale_range": [[-0.2, 0.25], [-0.2, 0.25]], "padding_mode": "border", **LINEAR,
            },
        ),
        ("RandGaussianNoised", {"keys": "image", "prob": 0.9, "std": 0.2}),
        ("RandGaussianSmoothd", {"keys": ["image"], "prob": 0.9}),
        ("RandScaleIntensityd", {"keys": "image", "prob": 0.9, "factors": 0.3}),
        ("RandShiftIntensityd", {"keys": "image", "prob": 0.9, "offsets": [-0.4, 0.4]}),
        ("RandAdjustContrastd", {"keys": "image", "prob": 0.9, "gamma": 2.5}),
    ],
)  # fmt: skip
def test_the_study_makes_the_images_that_the_bundle_would(name: str, arguments: dict[str, Any]) -> None:
    found = views_of(bundle(part(name, **arguments)))
    assert (found.left_out, found.changes) == ((), ())
    ours = Augmentation(found.augmentation, axes=2, masks=True)
    theirs = getattr(monai.transforms, name)(**arguments)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 24, 24, generator=generator)
    mask = torch.randint(0, 3, (24, 24), generator=generator).float()
    moved = 0
    for seed in range(6):
        seen, seen_mask = ours(image, mask, np.random.RandomState(seed))
        theirs.set_random_state(state=np.random.RandomState(seed))
        record = theirs({"image": image.clone(), "label": mask.unsqueeze(0).clone()})
        assert seen_mask is not None
        assert torch.allclose(seen, torch.as_tensor(record["image"]).float(), atol=1e-4)
        # Where two values are equally near, the sixth decimal of an angle decides between them.
        assert (seen_mask == torch.as_tensor(record["label"]).squeeze(0)).float().mean() > 0.99
        moved += not torch.equal(seen, image)
    assert moved >= 2


@pytest.mark.parametrize(
    ("name", "arguments", "place", "words"),
    [
        ("RandFlipd", {"keys": BOTH}, "#spatial_axis", "one axis; a study mirrors along each by a coin of its own"),
        ("RandFlipd", {"keys": "image", "spatial_axis": 0}, "#keys", "image and label"),
        ("RandFlipd", {"keys": BOTH, "spatial_axis": 0, "prob": 0.0}, None, ""),
        ("RandRotate90d", {"keys": BOTH, "max_k": 1}, "#max_k", "found 1; a study can say: 3"),
        ("RandRotated", {"keys": BOTH, "range_x": [0.0, 0.3]}, "#range_x", "as far below 0 as above"),
        ("RandRotated", {"keys": BOTH, "range_x": 0.3, "padding_mode": "zeros"}, "#padding_mode", "border"),
        ("RandZoomd", {"keys": BOTH, "keep_size": False}, "#keep_size", "true"),
        ("RandZoomd", {"keys": BOTH, "min_zoom": [0.9, 0.8]}, "#min_zoom", "one number for all axes"),
        ("RandZoomd", {"keys": BOTH, "max_zoom": 9}, "", "0.25 to 4"),
        ("RandAffined", {"keys": BOTH, "rotate_range": 0.1}, "#padding_mode", "border"),
        ("RandAffined", {"keys": BOTH, "padding_mode": "border"}, "", "at least one of degrees, shift, shear and zoom"),
        (
            "RandAffined",
            {"keys": BOTH, "padding_mode": "border", "scale_range": 0.1},
            "#scale_range",
            "the same range for each of 2 axes",
        ),
        ("RandGaussianNoised", {"keys": "image", "mean": 1.0}, "#mean", "0"),
        ("RandGaussianSmoothd", {"keys": "image", "sigma_y": [1.0, 2.0]}, "#sigma_y", "the same for all axes"),
        ("RandScaleIntensityd", {"keys": "image", "factors": 0.1, "channel_wise": True}, "#channel_wise", "false"),
        ("RandShiftIntensityd", {"keys": BOTH, "offsets": 0.1}, "#keys", "a study can say: image"),
    ],
)
def test_what_no_study_says_so_is_left_out_with_its_place(
    name: str, arguments: dict[str, Any], place: str | None, words: str
) -> None:
    found = views_of(bundle(part(name, **arguments)))
    assert found.augmentation == ()
    if place is None:
        assert found.left_out == ()
        return
    at, why = only(found)
    assert at == place
    assert words in why


def test_preparing_is_the_studys_and_comes_before_chance() -> None:
    early = part("RandFlipd", 0, keys=BOTH, spatial_axis=0)
    scaling = part("NormalizeIntensityd", 1, keys="image")
    late = part("RandScaleIntensityd", 2, keys="image", factors=0.1)
    found = views_of(bundle(early, scaling, part("EnsureTyped", 3, keys=BOTH), late))
    assert [one.transform for one in found.augmentation] == ["scale-intensity"]
    reasons = {one.place[-1]: one.why for one in found.left_out}
    assert reasons["0"].startswith("RandFlipd: found RandFlipd before NormalizeIntensityd")
    assert reasons["1"] == reasons["3"]
    assert reasons["1"].startswith("preparing records")


def test_other_ways_between_pixels_are_said() -> None:
    found = views_of(bundle(part("RandZoomd", keys=BOTH)))
    assert len(found.augmentation) == 1
    (change,) = found.changes
    assert change.startswith(
        "train#random_transforms#0: between pixels an image is read linearly, masks by the nearest"
    )
    assert change.endswith("the bundle says area, area")


def window(**arguments: Any) -> Component:
    return part("SlidingWindowInferer", 9, **{"roi_size": [16, 16], **arguments})


def test_a_crop_and_its_windows_are_a_patch() -> None:
    found = views_of(bundle(part("RandCropByPosNegLabeld", **CROP), inferer=window(overlap=0.5, mode="gaussian")))
    assert found.patch == Patch(shape=(16, 16), per_record=4, foreground=0.75, overlap=0.5, blending="gaussian")
    assert found.left_out == ()
    anywhere = views_of(bundle(part("RandSpatialCropd", keys=BOTH, roi_size=[16, 16]), inferer=window()))
    assert anywhere.patch == Patch(shape=(16, 16), overlap=0.25, blending="constant")


@pytest.mark.parametrize(
    ("crop", "changes", "inferer", "network", "place", "words"),
    [
        ("RandCropByPosNegLabeld", {}, part("SimpleInferer"), "UNet", "0", "a SlidingWindowInferer too"),
        ("RandCropByPosNegLabeld", {}, window(), "DenseNet121", "0", "a patch has no label of its own"),
        ("RandCropByPosNegLabeld", {}, window(roi_size=[32, 32]), "UNet", "9#roi_size", "the crop's size"),
        ("RandCropByPosNegLabeld", {}, window(overlap=[0.5, 0.25]), "UNet", "9#overlap", "one number"),
        ("RandCropByPosNegLabeld", {"pos": 0, "neg": 0}, window(), "UNet", "0#pos", "one above 0"),
        ("RandCropByPosNegLabeld", {"label_key": "mask"}, window(), "UNet", "0#label_key", "label"),
        ("RandSpatialCropd", {"random_size": True}, window(), "UNet", "0#random_size", "false"),
        (None, {}, window(), "UNet", "9", "windows over records that are trained on as a whole"),
        ("RandCropByPosNegLabeld", {"spatial_size": [4, 4]}, window(roi_size=[4, 4]), "UNet", "9", "8 to 512"),
    ],
)
def test_crops_and_windows_that_are_no_patch(  # noqa: PLR0917 - a row of the table
    crop: str | None, changes: dict[str, Any], inferer: Component, network: str, place: str, words: str
) -> None:
    given: dict[str, Any] = CROP if crop != "RandSpatialCropd" else {"keys": BOTH, "roi_size": [16, 16]}
    crops = () if crop is None else (part(crop, **(given | changes)),)
    found = views_of(bundle(*crops, inferer=inferer, network=network))
    assert found.patch is None
    (left_out,) = found.left_out
    assert left_out.place == f"configs/train.json: train#random_transforms#{place}"
    assert words in left_out.why


# --- a whole bundle --------------------------------------------------------------------------------------------------


def test_a_study_follows_its_bundle_and_every_hospital_holds_it_to_that(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", changed("loss", {"_target_": "CrossEntropyLoss"}))
    report = look_at(folder)
    assert report.follows == ("loss", "augmentation", "patch")
    assert report.data == {
        "augmentation": [{"transform": "flip", "axes": [0], "probability": 0.5}],
        "patch": {
            "shape": [16, 16, 16], "per_record": 1, "foreground": 0.5, "overlap": 0.25, "blending": "constant",
        },
    }  # fmt: skip
    assert json.dumps(report.to_json())  # for programs
    study = following(report, report.data)
    bundles = {study.model.args.digest: str(folder)}  # type: ignore[union-attr]
    assert objection_to_bundle(study, bundles) is None
    assert isinstance(study.data, ImagingData)
    assert study.data.augmentation == (Flip(transform="flip", axes=(0,), probability=0.5),)
    for part_, other in (
        ("augmentation", {"augmentation": [{"transform": "flip", "axes": [1], "probability": 0.5}]}),
        ("augmentation", {"augmentation": None}),
        ("patch", {"patch": {**report.data["patch"], "overlap": 0.5}}),  # type: ignore[dict-item]
    ):
        assert objection_to_bundle(following(report, {**report.data, **other}), bundles) == NOT_FOLLOWED, part_
    assert objection_to_bundle(following(report, report.data, loss="dice-cross-entropy"), bundles) == NOT_FOLLOWED
    # Who does not say that it follows is free to do otherwise.
    assert objection_to_bundle(following(report, {}, follows=None), bundles) is None


def following(
    report: Any, data: dict[str, Any], *, loss: str = "cross-entropy", follows: tuple[str, ...] | None = ()
) -> StudyFile:
    """A study of volumes with the bundle's network, as its author writes it from what the check prints."""
    study = load_study(Path(__file__).parents[3] / "configs/studies/phantoms-3d.yaml")
    record = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    said = report.follows if follows == () else follows
    record["model"] = {**report.model, "args": {**report.model["args"], **({"follows": said} if said else {})}}
    record["data"] |= data
    record["data"] = {name: value for name, value in record["data"].items() if value is not None}
    record["training"]["loss"] = loss
    return StudyFile.from_document(canonical_bytes(record))
