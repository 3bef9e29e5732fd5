"""How training sees an image: changed at random, and cut into patches (`data.augmentation` and `data.patch`).

A view is made of one record alone, with draws that depend on that record and on constants of the study, so a patient's
gradient stays a function of that patient's records, as differential privacy needs. Evaluation sees records as they are.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, TypeAlias

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import Field

from consortium.contract.errors import shown
from consortium.contract.schema import Finding, Rule, Section

TRANSFORMS_MAX = 12
"""The most transforms of one study; each is a pass over every record of every step."""

PATCH_VALUES_MAX = 2**26
"""The most numbers of one record's patches together, all channels: 256 MiB as float32."""

_Probability: TypeAlias = Annotated[float, Gt(0), Le(1)]
_Axis: TypeAlias = Annotated[int, Ge(0), Le(2)]
_Degrees: TypeAlias = Annotated[float, Ge(0), Le(180)]
_Factor: TypeAlias = Annotated[float, Ge(0.25), Le(4)]


def _rises(bounds: tuple[float, float] | None, key: str) -> Iterator[Finding]:
    if bounds is not None and bounds[0] > bounds[1]:
        yield Finding(key, f"{shown(bounds[0])} to {shown(bounds[1])}", "the smaller bound first, then the larger")


def _range_rises(bounds: tuple[float, float]) -> Iterator[Finding]:
    yield from _rises(bounds, "range")


def _zoom_rises(bounds: tuple[float, float] | None) -> Iterator[Finding]:
    yield from _rises(bounds, "zoom")


def _axes_differ(axes: tuple[int, ...]) -> Iterator[Finding]:
    for place, axis in enumerate(axes):
        if axis in axes[:place]:
            yield Finding(f"axes[{place}]", f"{axis} a second time", "every axis once")


# --- where things are: image and mask together ---------------------------------------------------------------------


class Flip(Section):
    """Mirrored along each of the axes, by a coin for each."""

    transform: Literal["flip"]
    axes: Annotated[tuple[_Axis, ...], Len(1, 3)]  # of data.shape, from 0
    probability: _Probability = 0.5

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("axes",), check=_axes_differ),)


class Rotate90(Section):
    """Turned by 90, 180 or 270 degrees in the plane of two axes."""

    transform: Literal["rotate90"]
    axes: tuple[_Axis, _Axis]  # of data.shape, from 0; sides of the same length
    probability: _Probability = 0.5

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("axes",), check=_axes_differ),)


class Rotate(Section):
    """Turned by an angle, of volumes about each axis."""

    transform: Literal["rotate"]
    max_degrees: Annotated[float, Gt(0), Le(180)]  # to either side
    probability: _Probability = 0.5


class Zoom(Section):
    """Made larger or smaller about the centre, and cut or padded to the old shape."""

    transform: Literal["zoom"]
    range: tuple[_Factor, _Factor]
    probability: _Probability = 0.5

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("range",), check=_range_rises),)


def _moves(
    degrees: tuple[float, ...] | None, shift: tuple[float, ...] | None, shear: float | None,
    zoom: tuple[float, float] | None,
) -> Iterator[Finding]:  # fmt: skip
    if (degrees, shift, shear, zoom) == (None, None, None, None):
        yield Finding("", "an affine that moves nothing", "at least one of degrees, shift, shear and zoom")


class Affine(Section):
    """Turned, moved, sheared and zoomed in one resampling."""

    transform: Literal["affine"]
    degrees: Annotated[tuple[_Degrees, ...], Len(1, 3)] | None = None  # one of pictures, one for each axis of volumes
    shift: Annotated[tuple[Annotated[float, Ge(0), Le(512)], ...], Len(2, 3)] | None = None  # pixels along each axis
    shear: Annotated[float, Gt(0), Le(1)] | None = None
    zoom: tuple[_Factor, _Factor] | None = None
    probability: _Probability = 0.5

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("degrees", "shift", "shear", "zoom"), check=_moves),
        Rule(reads=("zoom",), check=_zoom_rises),
    )


class Distort(Section):
    """Bent along a grid whose cells are stretched and squeezed at random."""

    transform: Literal["distort"]
    cells: Annotated[int, Ge(2), Le(16)] = 5  # along each axis
    limit: Annotated[float, Gt(0), Lt(0.5)] = 0.1  # part of a cell by which it is stretched or squeezed
    probability: _Probability = 0.5


# --- how bright things are: the image alone ------------------------------------------------------------------------


class ShiftIntensity(Section):
    """A number added to the whole image."""

    transform: Literal["shift-intensity"]
    limit: Annotated[float, Gt(0), Le(1e6)]  # to either side, in the unit that the network sees
    probability: _Probability = 0.5


class ScaleIntensity(Section):
    """The whole image times a number about 1."""

    transform: Literal["scale-intensity"]
    limit: Annotated[float, Gt(0), Lt(1)]  # times 1 - limit to 1 + limit
    probability: _Probability = 0.5


class GaussianNoise(Section):
    """Noise at every place, which has nothing to do with the noise of differential privacy."""

    transform: Literal["gaussian-noise"]
    std: Annotated[float, Gt(0), Le(1e6)]  # at most; in the unit that the network sees
    probability: _Probability = 0.5


class GaussianSmooth(Section):
    """Blurred."""

    transform: Literal["gaussian-smooth"]
    sigma: tuple[Annotated[float, Gt(0), Le(8)], Annotated[float, Gt(0), Le(8)]]  # pixels
    probability: _Probability = 0.5

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("sigma",), check=lambda bounds: _rises(bounds, "sigma")),)


class Contrast(Section):
    """Between the image's own lowest and highest value, raised to a power (gamma)."""

    transform: Literal["contrast"]
    gamma: tuple[Annotated[float, Ge(0.1), Le(10)], Annotated[float, Ge(0.1), Le(10)]]
    probability: _Probability = 0.5

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("gamma",), check=lambda bounds: _rises(bounds, "gamma")),)


Transform: TypeAlias = (
    Flip
    | Rotate90
    | Rotate
    | Zoom
    | Affine
    | Distort
    | ShiftIntensity
    | ScaleIntensity
    | GaussianNoise
    | GaussianSmooth
    | Contrast
)
Augmentation: TypeAlias = Annotated[
    tuple[Annotated[Transform, Field(discriminator="transform")], ...], Len(1, TRANSFORMS_MAX)
]
"""The `data.augmentation` of a study, in the order in which transforms are done; told apart by `transform`."""


def misfits_of_transforms(shape: tuple[int, ...], augmentation: Augmentation | None) -> Iterator[Finding]:
    """What keeps transforms from records of this shape; paths begin at the `data` section."""
    axes = len(shape)
    for place, one in enumerate(augmentation or ()):
        at = f"augmentation[{place}]"
        if isinstance(one, Flip | Rotate90):
            beyond = [index for index, axis in enumerate(one.axes) if axis >= axes]
            for index in beyond:
                yield Finding(f"{at}.axes[{index}]", shown(one.axes[index]), f"an axis of shape: 0 to {axes - 1}")
            if isinstance(one, Rotate90) and not beyond and shape[one.axes[0]] != shape[one.axes[1]]:
                sides = f"axes of {shape[one.axes[0]]} and {shape[one.axes[1]]}"
                yield Finding(f"{at}.axes", sides, "two axes of the same length: the record keeps its shape")
        if isinstance(one, Affine):
            angles = 1 if axes == 2 else 3
            if one.degrees is not None and len(one.degrees) != angles:
                allowed = f"{angles}: one angle for pictures, one about each axis for volumes"
                yield Finding(f"{at}.degrees", f"a list of {len(one.degrees)}", allowed)
            if one.shift is not None and len(one.shift) != axes:
                yield Finding(f"{at}.shift", f"a list of {len(one.shift)}", f"a number for each of {axes} axes")


# --- patches -------------------------------------------------------------------------------------------------------


class Patch(Section):
    """Pieces of a record that the network is trained on, and how it is led over a whole record when it is measured."""

    shape: Annotated[tuple[Annotated[int, Ge(8), Le(512)], ...], Len(2, 3)]
    per_record: Annotated[int, Ge(1), Le(64)] = 1  # patches of a record in a step; the record's loss is their mean
    # Chance that a patch is centred on a place of that record's mask that is not background; else anywhere.
    foreground: Annotated[float, Ge(0), Le(1)] | None = None
    overlap: Annotated[float, Ge(0), Le(0.9)] = 0.25  # of neighbouring windows, part of a side
    blending: Literal["constant", "gaussian"] = "gaussian"  # how much a window's answer counts towards its edges


def misfits_of_patch(task: str, channels: int, shape: tuple[int, ...], patch: Patch | None) -> Iterator[Finding]:
    """What keeps a patch from being cut out of records of this shape; paths begin at the `data` section."""
    if patch is None:
        return
    if task != "segmentation":
        yield Finding("patch", f"a patch with {task}", "nothing: a patch has no label of its own but in segmentation")
        return
    if len(patch.shape) != len(shape):
        yield Finding("patch.shape", f"{len(patch.shape)} axes", f"{len(shape)}, as many as data.shape has")
        return
    for axis, (side, whole) in enumerate(zip(patch.shape, shape, strict=True)):
        if side > whole:
            yield Finding(f"patch.shape[{axis}]", shown(side), f"at most the side of data.shape, {whole}")
    if patch.shape == shape:
        yield Finding("patch.shape", "the whole of data.shape", "at least one side that is shorter, or no patch")
    values = channels * patch.per_record
    for side in patch.shape:
        values *= side
    if values > PATCH_VALUES_MAX:
        yield Finding("patch.per_record", f"{values} numbers of a record", f"at most {PATCH_VALUES_MAX} together")
