"""Made-up pictures and volumes of lesions for demonstrations: a body, structures in it, and lesions with their masks.

Structures and lesions are MONAI's test images (`create_test_image_2d` and `_3d`): round things of whole-numbered radii,
each with a brightness of its own, and their mask. Around them is a body, and over all of it a scanner, because
hospitals differ in theirs: in contrast, noise and resolution, and on one of them lesions are dark where on the others
they are bright. So a network trained on one hospital's images is lost on another's. Nobody's data are in here;
everything follows from the seed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data.synthetic import create_test_image_2d, create_test_image_3d
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve

LESIONS_MAX, STRUCTURES = 3, 4
_OUTSIDE, _BODY = 0.1, 0.45
_STRUCTURE = 0.06
"""How much brighter or darker a structure is at the most: fainter than any lesion."""
_INNER = 0.75
"""Of each side, the middle part that lesions and structures are in, so that they are in the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """What a hospital's images look like. Brightness is 0 to 1 before the scanner cuts it off."""

    contrast: float  # brightness of a lesion above the body's; negative: lesions are dark
    noise: float  # standard deviation of what is added at every place
    blur: int  # how often neighbouring places are averaged


SCANNERS: Mapping[str, Scanner] = {
    "north": Scanner(contrast=0.35, noise=0.03, blur=0),
    "east": Scanner(contrast=-0.25, noise=0.05, blur=0),
    "south": Scanner(contrast=0.18, noise=0.10, blur=1),
    "west": Scanner(contrast=0.30, noise=0.05, blur=4),
}
"""By hospital."""


def phantom(
    scanner: Scanner, shape: tuple[int, ...], random: np.random.RandomState
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image of two or three axes, uint8[shape], and where its lesions are: 1, elsewhere 0."""
    least = min(shape)
    image = np.full(shape, _OUTSIDE)
    body = _ellipsoid(shape, random)
    image[body] = _BODY
    structures, _ = _round_things(shape, STRUCTURES, (least // 12, least // 6), random)
    image += body * structures * _STRUCTURE * random.choice([-1.0, 1.0])
    lesions, mask = _round_things(
        shape, random.randint(1, LESIONS_MAX + 1), (max(2, least // 16), least // 7 + 1), random
    )  # fmt: skip
    image += scanner.contrast * mask * (0.5 + 0.5 * lesions)
    for _ in range(scanner.blur):
        image = _averaged(image)
    image += random.normal(0.0, scanner.noise, shape)
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8), mask


def write_phantoms(folder: Path, scanner: Scanner, shape: tuple[int, ...], *, patients: int, seed: int) -> Path:
    """An image and a mask for every patient; returns the list of them.

    | axes | files | list |
    |---|---|---|
    | two | PNG | a CSV, as datasets of format `image-folder` have it |
    | three | NIfTI | JSON, as datasets of format `datalist` have it |
    """
    folder.mkdir(parents=True)
    random = np.random.RandomState(seed)  # MONAI's generators take no other
    ending = ".png" if len(shape) == 2 else ".nii"
    names = [(f"{number:04d}{ending}", f"{number:04d}-mask{ending}") for number in range(1, patients + 1)]
    for pair in names:
        for name, values in zip(pair, phantom(scanner, shape, random), strict=True):
            if len(shape) == 2:
                Image.fromarray(values).save(folder / name)
            else:
                nib.save(nib.Nifti1Image(values, np.eye(4)), folder / name)  # type: ignore[no-untyped-call]
    if len(shape) == 2:
        table = folder / "list.csv"
        rows = [f"{image},P{image[:4]},{mask}" for image, mask in names]
        table.write_text("\n".join(["file,patient,label", *rows]) + "\n")
        return table
    listed = folder / "dataset.json"
    listed.write_text(json.dumps({"training": [{"image": image, "label": mask} for image, mask in names]}, indent=1))
    return listed


def _round_things(
    shape: tuple[int, ...], number: int, radii: tuple[int, int], random: np.random.RandomState
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """MONAI's test image in the middle of `shape`: values of 0.5 to 1 where its things are, else 0, and their mask."""
    inner = [int(_INNER * side) for side in shape]
    asked: dict[str, Any] = {
        "num_objs": number, "rad_min": radii[0], "rad_max": radii[1], "num_seg_classes": 1, "random_state": random
    }  # fmt: skip
    if len(shape) == 2:
        values, labels = create_test_image_2d(inner[0], inner[1], **asked)
    else:
        values, labels = create_test_image_3d(inner[0], inner[1], inner[2], **asked)
    margins = [((side - part) // 2, side - part - (side - part) // 2) for side, part in zip(shape, inner, strict=True)]
    return np.pad(values.astype(np.float64), margins), np.pad(labels > 0, margins).astype(np.uint8)


def _ellipsoid(shape: tuple[int, ...], random: np.random.RandomState) -> NDArray[np.bool_]:
    """A body in the middle, a little larger or smaller along each axis."""
    sides = np.array(shape).reshape(-1, *(1,) * len(shape))
    radii = sides * 0.43 * random.uniform(0.9, 1.05, sides.shape)
    inside: NDArray[np.bool_] = (((np.indices(shape) - (sides - 1) / 2) / radii) ** 2).sum(0) <= 1
    return inside


def _averaged(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every place as the mean of itself and its neighbours along each axis."""
    axes = image.ndim
    cross = (np.abs(np.indices((3,) * axes) - 1).sum(0) <= 1).astype(np.float64)
    mean: NDArray[np.float64] = convolve(image, cross / cross.sum(), mode="nearest")
    return mean
