"""A study's transforms, done by MONAI's dictionary transforms on one record at a time (torch).

MONAI's transforms draw from a `numpy.random.RandomState` that they are given; nothing here reads a global generator,
and none is seeded by, or shared with, the generator that samples patients and makes noise. A mask goes along with its
image by the nearest value, so that it has no values it did not have.

Angles and distances are those of the grid: where `data.spacing` differs between axes, so do millimetres.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, TypeAlias, assert_never

import numpy as np
import torch

from consortium.contract.record_views import (
    Affine,
    Contrast,
    Distort,
    Flip,
    GaussianNoise,
    GaussianSmooth,
    Rotate,
    Rotate90,
    ScaleIntensity,
    ShiftIntensity,
    Transform,
    Zoom,
)

_Monai: TypeAlias = Any  # MONAI's transforms: their types are not strict, and not all of them are exported

_IMAGE: Final = "image"
_BOTH: Final = ("image", "mask")
_EDGE: Final = "border"  # what lies beyond a record is as its border: no value comes in that was not there


class Augmentation:
    """Transforms in their order. It holds nothing of a record between calls.

    Args:
        transforms: From the study.
        axes: Of an image: 2 or 3.
        masks: Whether records come with masks.
    """

    def __init__(self, transforms: Sequence[Transform], *, axes: int, masks: bool) -> None:
        self._masks = masks
        keys = _BOTH if masks else (_IMAGE,)
        self._steps: tuple[_Monai, ...] = tuple(
            step for transform in transforms for step in _steps_of(transform, axes, keys)
        )

    def __call__(
        self, image: torch.Tensor, mask: torch.Tensor | None, random: np.random.RandomState
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """One view of a record, of the same shapes; what was given is left as it is.

        Args:
            image: float32[channels, *shape].
            mask: float32[*shape], or None of records without.
            random: Where every draw comes from, in a fixed order.
        """
        record: Mapping[str, Any] = {"image": image.clone()}
        if mask is not None:
            record = {**record, "mask": mask.unsqueeze(0).clone()}
        for step in self._steps:
            step.set_random_state(state=random)
            record = step(record)
        seen = _plain(record["image"])
        return seen, None if mask is None else _plain(record["mask"]).squeeze(0)


def _plain(value: torch.Tensor) -> torch.Tensor:
    """Without what MONAI remembers of how it came to be."""
    known = value.as_tensor() if hasattr(value, "as_tensor") else value
    return known.to(torch.float32).contiguous()


def _steps_of(transform: Transform, axes: int, keys: tuple[str, ...]) -> Iterator[_Monai]:
    monai: _Monai = import_module("monai.transforms")  # seconds, and only studies with augmentation need it
    chance = {"prob": transform.probability}
    modes = ("bilinear", "nearest")[: len(keys)]
    grid = {"keys": keys, "mode": modes, "padding_mode": _EDGE, **chance}
    match transform:
        case Flip(axes=flipped):
            for axis in flipped:  # by a coin for each
                yield monai.RandFlipd(keys, spatial_axis=axis, **chance)
        case Rotate90(axes=plane):
            yield monai.RandRotate90d(keys, spatial_axes=plane, **chance)
        case Rotate(max_degrees=degrees):
            others = {} if axes == 2 else dict.fromkeys(("range_y", "range_z"), math.radians(degrees))
            yield monai.RandRotated(range_x=math.radians(degrees), **others, **grid)
        case Zoom(range=(low, high)):
            linear = "bilinear" if axes == 2 else "trilinear"
            zoom_modes = (linear, "nearest-exact")[: len(keys)]  # plain nearest would be half a pixel off
            yield monai.RandZoomd(keys, min_zoom=low, max_zoom=high, mode=zoom_modes, padding_mode="edge", **chance)
        case Affine():
            yield monai.RandAffined(**_ranges_of(transform, axes), **grid)
        case Distort():
            yield monai.RandGridDistortiond(
                num_cells=transform.cells, distort_limit=transform.limit, device=torch.device("cpu"), **grid
            )
        case ShiftIntensity():
            yield monai.RandShiftIntensityd(_IMAGE, offsets=transform.limit, **chance)
        case ScaleIntensity():
            yield monai.RandScaleIntensityd(_IMAGE, factors=transform.limit, **chance)
        case GaussianNoise():
            yield monai.RandGaussianNoised(_IMAGE, std=transform.std, **chance)
        case GaussianSmooth(sigma=sigma):
            yield monai.RandGaussianSmoothd(_IMAGE, sigma_x=sigma, sigma_y=sigma, sigma_z=sigma, **chance)
        case Contrast():
            yield monai.RandAdjustContrastd(_IMAGE, gamma=transform.gamma, **chance)
        case _:
            assert_never(transform)


def _ranges_of(affine: Affine, axes: int) -> dict[str, Any]:
    """MONAI's ranges; its scale is how far apart the places are that are read, so the inverse of a zoom."""
    zoom = affine.zoom
    return {
        "rotate_range": None if affine.degrees is None else [math.radians(angle) for angle in affine.degrees],
        "translate_range": None if affine.shift is None else list(affine.shift),
        "shear_range": None if affine.shear is None else [affine.shear] * (axes * (axes - 1)),
        "scale_range": None if zoom is None else [(1 / zoom[1] - 1, 1 / zoom[0] - 1)] * axes,
    }
