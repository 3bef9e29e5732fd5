"""A bundle's random transforms and inferer as what a study says of views, or the place that keeps them from it. Pure.

| bundle | study | with |
|---|---|---|
| `RandFlipd` | `flip` | one axis: several are mirrored there by one coin, here by one each |
| `RandRotate90d` | `rotate90` | `max_k: 3` |
| `RandRotated` | `rotate` | the same range about every axis, `keep_size`, borders repeated |
| `RandZoomd` | `zoom` | one range for all axes, `keep_size`, borders repeated |
| `RandAffined` | `affine` | ranges about 0, one shear and one scale for all axes, borders repeated |
| `RandGaussianNoised` | `gaussian-noise` | `mean: 0` |
| `RandGaussianSmoothd` | `gaussian-smooth` | one sigma for all axes |
| `RandScaleIntensityd` | `scale-intensity` | a range about 0, all channels at once |
| `RandShiftIntensityd` | `shift-intensity` | the same |
| `RandAdjustContrastd` | `contrast` | |
| `RandCropByPosNegLabeld`, `RandSpatialCropd` with `SlidingWindowInferer` | `data.patch` | windows of the crop's size |

Transforms without chance are not among them: the study's `data` section says how records are prepared, the same at
every hospital, whatever files they have. What changes a record before it is prepared can therefore not be taken over.

Where something cannot be said exactly, it is left out and not said nearly: a study that follows its bundle means what
the bundle says, but for what `changes` lists.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from consortium.contract.errors import shown
from consortium.contract.record_views import (
    Affine,
    Contrast,
    Flip,
    GaussianNoise,
    GaussianSmooth,
    Patch,
    Rotate,
    Rotate90,
    ScaleIntensity,
    ShiftIntensity,
    Transform,
    Zoom,
)
from consortium.contract.schema import problems_of
from site_agent.bundles.checking import Bundle, Component, LeftOut
from site_agent.bundles.definition import CLASSIFIERS
from site_agent.bundles.documents import Value

_IMAGE, _MASK = "image", "label"
_DECIMALS = 6
"""Of what is computed here, so that a study reads 15 degrees and not 14.999999999999998."""

_FLAT = frozenset({"EfficientNetBN", "FlexibleUNet"})
"""Networks of pictures unless they say otherwise; the others are of volumes."""

_CROPS = ("RandCropByPosNegLabeld", "RandSpatialCropd")
_KEEP_VALUES = frozenset({"EnsureTyped", "CastToTyped", "EnsureChannelFirstd"})
_PREPARED = "preparing records: the study's data section says shape, spacing and intensities"

_Fields: TypeAlias = Mapping[str, object]
_Made: TypeAlias = tuple[type[Transform], _Fields]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyViews:
    """What a study says that follows a bundle."""

    augmentation: tuple[Transform, ...]  # data.augmentation; none where it is empty
    patch: Patch | None  # data.patch
    left_out: tuple[LeftOut, ...]  # what no study can say as the bundle does, and where it stands
    changes: tuple[str, ...]  # what is done otherwise all the same


def views_of(bundle: Bundle) -> StudyViews:
    """What of a checked bundle's training transforms and inferer a study may take over."""
    reader = _Reader(bundle)
    augmentation = tuple(reader.augmentation())
    patch = reader.patch()
    return StudyViews(
        augmentation=augmentation, patch=patch, left_out=tuple(reader.left_out), changes=tuple(reader.changes)
    )


class _Unmapped(Exception):
    """No study says this; `argument` is "" where it is the component as a whole."""

    def __init__(self, argument: str, found: str, allowed: str) -> None:
        super().__init__(found)
        self.argument = argument
        self.found = found
        self.allowed = allowed


class _Reader:
    """Mutable: it collects what cannot be taken over."""

    def __init__(self, bundle: Bundle) -> None:
        self._transforms = bundle.train_transforms
        self._inferer = bundle.inferer
        network = bundle.network
        self._masks = network.target.name not in CLASSIFIERS
        dims = network.arguments.get("spatial_dims", 2 if network.target.name in _FLAT else 3)
        self._axes = 2 if dims == 2 else 3
        self.left_out: list[LeftOut] = []
        self.changes: list[str] = []

    def augmentation(self) -> Iterator[Transform]:
        """Random transforms but crops, in order."""
        for place, one in enumerate(self._transforms):
            name = one.target.name
            if name in _CROPS:
                continue
            if not name.startswith("Rand"):
                at = f"{one.file}: {one.id}"
                self.left_out.append(LeftOut(place=at, what=name, why=_PREPARED))
                continue
            if one.arguments.get("prob", 0.1) == 0:
                continue  # never happens
            try:
                yield self._taken(one, place)
            except _Unmapped as unmapped:
                self._leave_out(one, unmapped)

    def _taken(self, one: Component, place: int) -> Transform:
        name, given = one.target.name, one.arguments
        where = _PLACES.get(name)
        maker = where or _BRIGHTNESS.get(name)
        if maker is None:
            raise _Unmapped("_target_", name, ", ".join([*_PLACES, *_BRIGHTNESS]))
        self._require_prepared(one, place)
        wanted = [_IMAGE, _MASK] if where is not None and self._masks else [_IMAGE]
        keys = _listed(given.get("keys"))
        if sorted(map(str, keys)) != wanted:
            raise _Unmapped("keys", shown(given.get("keys")), " and ".join(wanted))
        kind, fields = maker(given, self._axes)
        self._note_modes(one, keys)
        probability = given.get("prob", 0.1)
        return _built(kind, {**fields, "probability": _float(probability)})

    def _require_prepared(self, one: Component, place: int) -> None:
        """Here records are prepared first: what changes them before is another thing, in other units."""
        later = (o for o in self._transforms[place + 1 :] if not o.target.name.startswith("Rand"))
        after = next((o for o in later if o.target.name not in _KEEP_VALUES), None)
        if after is not None:
            found = f"{one.target.name} before {after.target.name}"
            raise _Unmapped("", found, "a random transform after all that prepares records")

    def _note_modes(self, one: Component, keys: list[Value]) -> None:
        if one.target.name not in _MODES:
            return
        value = one.arguments.get("mode", _MODES[one.target.name])
        modes = value if isinstance(value, list) else [value] * len(keys)
        usual = {_IMAGE: ("bilinear", "trilinear"), _MASK: ("nearest", "nearest-exact")}
        if any(mode not in usual[str(key)] for key, mode in zip(keys, modes, strict=False)):
            masks = ", masks by the nearest value" if self._masks else ""
            said = ", ".join(map(str, modes))
            self.changes.append(f"{one.id}: between pixels an image is read linearly{masks}; the bundle says {said}")

    def patch(self) -> Patch | None:
        """Crops and windows together, which is what a study says; None if they are not there or do not go together."""
        crops = [one for one in self._transforms if one.target.name in _CROPS]
        windows = self._inferer if self._inferer is not None and self._inferer.arguments else None
        if not crops:
            if windows is not None:
                found = "windows over records that are trained on as a whole"
                self._leave_out(windows, _Unmapped("", found, "windows of the size of a crop among the transforms"))
            return None
        try:
            found_patch = self._patch(crops, windows)
        except _Unmapped as unmapped:
            self._leave_out(crops[0], unmapped)
            return None
        self.changes.append(f"{crops[0].id}: a record is cut into patches after its augmentation")
        return found_patch

    def _patch(self, crops: list[Component], windows: Component | None) -> Patch | None:
        crop = crops[0]
        given = crop.arguments
        if not self._masks:
            raise _Unmapped("", "crops with classification", "whole records: a patch has no label of its own")
        if len(crops) > 1:
            raise _Unmapped("", "a crop of a crop", "one crop")
        if windows is None:
            raise _Unmapped("", "crops, and a network that is led over no windows", "a SlidingWindowInferer too")
        if sorted(map(str, _listed(given.get("keys")))) != [_IMAGE, _MASK]:
            raise _Unmapped("keys", shown(given.get("keys")), f"{_IMAGE} and {_MASK}")
        if crop.target.name == "RandSpatialCropd":
            size = _listed(given["roi_size"])
            _require(given, "random_size", default=False, wanted=False)
            _require(given, "random_center", default=True, wanted=True)
            chance: dict[str, object] = {}
        else:
            size = _listed(given["spatial_size"])
            _require(given, "label_key", default=None, wanted=_MASK)
            positive, negative = _float(given.get("pos", 1.0)), _float(given.get("neg", 1.0))
            if positive + negative <= 0:
                raise _Unmapped("pos", "chances that are both 0", "one above 0")
            chance = {"foreground": round(positive / (positive + negative), _DECIMALS)}
            chance["per_record"] = given.get("num_samples", 1)
        try:
            return self._windowed(size, chance, windows)
        except _Unmapped as unmapped:
            self._leave_out(windows, unmapped)
            return None
        finally:
            if chance:
                self.changes.append(f"{crop.id}: patches that are not about foreground lie anywhere")

    def _windowed(self, size: list[Value], chance: Mapping[str, object], windows: Component) -> Patch:
        roi, overlaps = _listed(windows.arguments["roi_size"]), _listed(windows.arguments.get("overlap", 0.25))
        if roi != size or len(size) != self._axes:
            raise _Unmapped("roi_size", shown(roi), f"the crop's size, one number for each of {self._axes} axes")
        if len(set(map(str, overlaps))) != 1:
            raise _Unmapped("overlap", shown(overlaps), "one number for all axes")
        if "sw_batch_size" in windows.arguments:
            self.changes.append(f"{windows.id}: how many windows are computed at once is the hospital's to say")
        blending = windows.arguments.get("mode", "constant")
        fields = {"shape": tuple(size), "overlap": _float(overlaps[0]), "blending": blending, **chance}
        problems = problems_of(Patch, fields)
        if problems:
            raise _Unmapped("", f"{problems[0].path} {problems[0].found}", problems[0].allowed)
        return Patch.model_validate(fields)

    def _leave_out(self, one: Component, unmapped: _Unmapped) -> None:
        at = f"{one.id}#{unmapped.argument}" if unmapped.argument else one.id
        why = f"{one.target.name}: found {unmapped.found}; a study can say: {unmapped.allowed}"
        self.left_out.append(LeftOut(place=f"{one.file}: {at}", what=one.target.name, why=why))


# --- one transform at a time ---------------------------------------------------------------------------------------


def _flip(given: Mapping[str, Value], _axes: int) -> _Made:
    axes = _listed(given.get("spatial_axis"))
    if len(axes) != 1 or axes[0] is None:
        allowed = "one axis; a study mirrors along each by a coin of its own"
        raise _Unmapped("spatial_axis", shown(given.get("spatial_axis")), allowed)
    return Flip, {"transform": "flip", "axes": tuple(axes)}


def _rotate90(given: Mapping[str, Value], _axes: int) -> _Made:
    _require(given, "max_k", default=3, wanted=3)
    plane = _listed(given.get("spatial_axes", [0, 1]))
    return Rotate90, {"transform": "rotate90", "axes": tuple(plane)}


def _rotate(given: Mapping[str, Value], axes: int) -> _Made:
    _require(given, "keep_size", default=True, wanted=True)
    _require(given, "padding_mode", default="border", wanted="border")
    names = ("range_x", "range_y", "range_z")[: 1 if axes == 2 else 3]
    limits = [_limit(name, given.get(name, 0.0)) for name in names]
    if len(set(limits)) != 1:
        raise _Unmapped(names[1], shown(given.get(names[1], 0.0)), f"the same as {names[0]}")
    return Rotate, {"transform": "rotate", "max_degrees": _degrees(limits[0])}


def _zoom(given: Mapping[str, Value], _axes: int) -> _Made:
    _require(given, "keep_size", default=True, wanted=True)
    _require(given, "padding_mode", default="edge", wanted="edge")
    bounds = []
    for name, default in (("min_zoom", 0.9), ("max_zoom", 1.1)):
        values = _listed(given.get(name, default))
        if len(set(map(str, values))) != 1:
            raise _Unmapped(name, shown(values), "one number for all axes")
        bounds.append(_float(values[0]))
    return Zoom, {"transform": "zoom", "range": tuple(bounds)}


def _affine(given: Mapping[str, Value], axes: int) -> _Made:
    _require(given, "spatial_size", default=None, wanted=None)
    _require(given, "padding_mode", default="reflection", wanted="border")
    fields: dict[str, object] = {"transform": "affine"}
    angles = _each_limit(given, "rotate_range", 1 if axes == 2 else 3)
    if angles is not None:
        fields["degrees"] = tuple(map(_degrees, angles))
    shifts = _each_limit(given, "translate_range", axes)
    if shifts is not None:
        fields["shift"] = shifts
    shears = _each_limit(given, "shear_range", axes * (axes - 1))
    if shears is not None:
        if len(set(shears)) != 1:
            raise _Unmapped("shear_range", shown(given.get("shear_range")), "the same for all pairs of axes")
        fields["shear"] = shears[0]
    scales = given.get("scale_range")
    if scales is not None:
        # MONAI's scale is how far apart the places are that are read: 1.25 there is 0.8 here.
        low, high = _same_range("scale_range", scales, axes)
        fields["zoom"] = (round(1 / (1 + high), _DECIMALS), round(1 / (1 + low), _DECIMALS))
    return Affine, fields


def _noise(given: Mapping[str, Value], _axes: int) -> _Made:
    if given.get("mean", 0.0) != 0:
        raise _Unmapped("mean", shown(given["mean"]), "0")
    return GaussianNoise, {"transform": "gaussian-noise", "std": _float(given.get("std", 0.1))}


def _smooth(given: Mapping[str, Value], axes: int) -> _Made:
    names = ("sigma_x", "sigma_y", "sigma_z")[:axes]
    ranges = [_listed(given.get(name, [0.25, 1.5])) for name in names]
    for name, bounds in zip(names, ranges, strict=True):
        if bounds != ranges[0] or len(bounds) != 2:
            raise _Unmapped(name, shown(bounds), "two numbers, the same for all axes")
    return GaussianSmooth, {"transform": "gaussian-smooth", "sigma": tuple(map(_float, ranges[0]))}


def _scale(given: Mapping[str, Value], _axes: int) -> _Made:
    _require(given, "channel_wise", default=False, wanted=False)
    return ScaleIntensity, {"transform": "scale-intensity", "limit": _limit("factors", given["factors"])}


def _shift(given: Mapping[str, Value], _axes: int) -> _Made:
    _require(given, "channel_wise", default=False, wanted=False)
    return ShiftIntensity, {"transform": "shift-intensity", "limit": _limit("offsets", given["offsets"])}


def _contrast(given: Mapping[str, Value], _axes: int) -> _Made:
    value = given.get("gamma", [0.5, 4.5])
    bounds = value if isinstance(value, list) else [0.5, value]  # as MONAI reads a number
    if len(bounds) != 2:
        raise _Unmapped("gamma", shown(value), "two numbers")
    return Contrast, {"transform": "contrast", "gamma": (_float(bounds[0]), _float(bounds[1]))}


_Maker: TypeAlias = Callable[[Mapping[str, Value], int], _Made]
_PLACES: Mapping[str, _Maker] = MappingProxyType(
    {
        "RandFlipd": _flip,
        "RandRotate90d": _rotate90,
        "RandRotated": _rotate,
        "RandZoomd": _zoom,
        "RandAffined": _affine,
    }
)
"""What moves places: image and mask together."""

_BRIGHTNESS: Mapping[str, _Maker] = MappingProxyType(
    {
        "RandGaussianNoised": _noise,
        "RandGaussianSmoothd": _smooth,
        "RandScaleIntensityd": _scale,
        "RandShiftIntensityd": _shift,
        "RandAdjustContrastd": _contrast,
    }
)
"""What changes values: the image alone."""

_MODES: Mapping[str, str] = {"RandRotated": "bilinear", "RandZoomd": "area", "RandAffined": "bilinear"}
"""Those that read between pixels, and how MONAI does unless it is told."""


def _built(kind: type[Transform], fields: _Fields) -> Transform:
    problems = problems_of(kind, dict(fields))
    if problems:
        raise _Unmapped("", f"{problems[0].path or fields['transform']} {problems[0].found}", problems[0].allowed)
    return kind.model_validate(dict(fields))


def _listed(value: Value) -> list[Value]:
    return value if isinstance(value, list) else [value]


def _float(value: Value) -> float:
    assert isinstance(value, (int, float))  # by the bounds of its argument (`targets`)
    return float(value)


def _require(given: Mapping[str, Value], argument: str, *, default: Value, wanted: Value) -> None:
    value = given.get(argument, default)
    if any(one != wanted for one in _listed(value)):  # a list has one for each key
        raise _Unmapped(argument, shown(value), shown(wanted))


def _limit(argument: str, value: Value) -> float:
    """The r of a range from -r to r, which MONAI also writes as one number."""
    match value:
        case [low, high] if isinstance(low, (int, float)) and isinstance(high, (int, float)) and -low == high:
            return float(high)
        case int() | float():
            return abs(float(value))
        case _:
            raise _Unmapped(argument, shown(value), "a range as far below 0 as above")


def _each_limit(given: Mapping[str, Value], argument: str, count: int) -> tuple[float, ...] | None:
    """The limit of each of `count` ranges; those that are not given are 0, as in MONAI."""
    value = given.get(argument)
    if value is None:
        return None
    limits = [_limit(argument, one) for one in _listed(value)]
    if len(limits) > count:
        raise _Unmapped(argument, f"{len(limits)} ranges", f"at most {count}")
    return (*limits, *[0.0] * (count - len(limits)))


def _same_range(argument: str, value: Value, count: int) -> tuple[float, float]:
    """The one range of all axes."""
    ranges = [one if isinstance(one, list) else [-_float(one), _float(one)] for one in _listed(value)]
    if len(ranges) != count or any(one != ranges[0] for one in ranges) or len(ranges[0]) != 2:
        raise _Unmapped(argument, shown(value), f"the same range for each of {count} axes")
    low, high = sorted(map(_float, ranges[0]))
    if low <= -1:
        raise _Unmapped(argument, shown(value), "a range above -1")
    return low, high


def _degrees(radians: float) -> float:
    return round(math.degrees(radians), _DECIMALS)
