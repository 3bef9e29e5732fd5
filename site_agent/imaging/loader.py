"""One record -> what the network sees: float32[channels, *shape], and its label or mask. Raises Unusable.

Everything here is a function of one record and the study's public constants, so that no patient's image depends on
another patient's: nothing has to be accounted for before training begins.

The order is: channels and range, in the file's own unit; resampling; scaling; cutting or padding around the centre.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from consortium.contract.digest import canonical_bytes
from consortium.contract.study_data import BinaryLabel, ClassesLabel, ImagingData, MaskLabel
from site_agent.image_cache import ImageCache, PreparedImage
from site_agent.imaging.dicom import read_dicom_image, read_dicom_volume
from site_agent.imaging.nifti import read_nifti, same_grid
from site_agent.imaging.raster import read_raster, read_raster_mask
from site_agent.imaging.records import (
    ArrayImage,
    DicomFiles,
    Image,
    ImageRecord,
    LabelSource,
    NiftiFiles,
    RasterFile,
    Source,
    Unusable,
    paths_of,
)
from site_agent.imaging.safety import check_count

_PREPARED = b"consortium/prepared-image/v1\n"
"""Changes whenever the same file and contract would give other numbers, so that no old entry is taken for a new one."""

_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Loaded:
    """A record that fits."""

    prepared: PreparedImage
    label: npt.NDArray[np.float32]  # [*record_label_shape]: 0 or 1, or indices of the label's values


def load(record: ImageRecord, data: ImagingData, cache: ImageCache | None) -> Loaded:
    """The record's image and label under the study's contract, from the cache if it is there; raises Unusable."""
    value = None if isinstance(data.label, MaskLabel) else value_of(record.label, data.label)
    prepared = _kept_or_made(record, data, cache)
    label = prepared.mask if prepared.mask is not None else np.asarray(value, dtype=np.float32)
    return Loaded(prepared=prepared, label=label)


def _kept_or_made(record: ImageRecord, data: ImagingData, cache: ImageCache | None) -> PreparedImage:
    # An image that is in memory already is ready sooner than a file of the cache is read.
    if isinstance(record.image, ArrayImage) or cache is None or cache.quota_bytes == 0:
        return _prepared(record, data)
    key = key_of(record, data)
    held = cache.get(key, data.record_shape, data.record_label_shape)
    if held is not None:
        return held
    made = _prepared(record, data)
    cache.put(key, made)
    return made


def key_of(record: ImageRecord, data: ImagingData) -> str:
    """SHA-256 over the bytes of the record's files and all of the contract that decides what becomes of them."""
    # What training makes of a record anew in every step is made after the cache.
    later = {"split", "minimum_patients", "augmentation", "patch"}
    contract = data.model_dump(mode="json", exclude_none=True, exclude=later)
    hasher = hashlib.sha256(_PREPARED + canonical_bytes(contract))
    for path in (*record.image_paths, *(paths_of(record.label) if isinstance(data.label, MaskLabel) else ())):
        hasher.update(_digest(path))
    return hasher.hexdigest()


def value_of(text: LabelSource, label: BinaryLabel | ClassesLabel) -> float:
    """0 or 1, or the index of the value; raises Unusable for anything outside the contract."""
    if not isinstance(text, str):
        raise Unusable("a mask in place of a value")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if isinstance(label, BinaryLabel):
        if not math.isfinite(number):
            raise Unusable("a label that is no number")
        return float(number > label.positive_above)
    for index, value in enumerate(label.values):
        # Files write the class 2 as 2 or 2.0; a class that is text must be spelled as in the study.
        if text == value if isinstance(value, str) else number == value:
            return float(index)
    raise Unusable("a label that is not one of the study's values")


def _digest(path: Path) -> bytes:
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                hasher.update(chunk)
    except OSError:
        raise Unusable("the file is not there, or cannot be read") from None
    return hasher.digest()


def _prepared(record: ImageRecord, data: ImagingData) -> PreparedImage:
    image = _decoded(record.image, data)
    axes = len(data.shape)
    if image.values.ndim != axes + 1:
        raise Unusable(f"an image with other than {axes} axes")
    if len(image.values) != data.channels:
        raise Unusable(f"{len(image.values)} channels instead of {data.channels}")
    low, high = data.intensity.range
    # NaN is neither, so it is found too.
    if not (low <= float(image.values.min()) and float(image.values.max()) <= high):
        raise Unusable("values outside the study's range")
    mask = _mask(record.label, image, data.label) if isinstance(data.label, MaskLabel) else None
    spacing = _spacing(image)
    cut = any(have > want for have, want in zip(image.values.shape[1:], data.shape, strict=True))
    values = image.values
    if data.spacing is not None:
        values = _resampled(image, data.spacing, nearest=False)
        cut = any(have > want for have, want in zip(values.shape[1:], data.shape, strict=True))
        if mask is not None:
            mask = _resampled(Image(values=mask[None], affine=image.affine), data.spacing, nearest=True)[0]
    values = _scaled(values, data)
    fitted = np.stack([_fitted(channel, data.shape, float(channel.min())) for channel in values])
    return PreparedImage(
        image=fitted.astype(np.float32, copy=False),
        mask=None if mask is None else _fitted(mask, data.shape, 0.0),
        spacing=spacing,
        cut=cut,
    )


def _decoded(source: Source, data: ImagingData) -> Image:
    match source:
        case NiftiFiles(paths=paths):
            return read_nifti(paths)
        case RasterFile(path=path):
            return read_raster(path)
        case DicomFiles(paths=paths) if len(data.shape) == 3:
            return read_dicom_volume(paths)
        case DicomFiles(paths=paths):
            return read_dicom_image(paths[0])
        case ArrayImage(values=values):
            return Image(values=np.moveaxis(values, -1, 0).astype(np.float32), affine=None)


def _mask(source: LabelSource, image: Image, label: MaskLabel) -> npt.NDArray[np.float32]:
    """float32[*spatial]: the index of the value at every place of the image; raises Unusable."""
    match source:
        case NiftiFiles(paths=paths):
            mask = read_nifti(paths)
        case RasterFile(path=path):
            mask = read_raster_mask(path)
        case _:
            raise Unusable("a value in place of a mask")
    if len(mask.values) != 1 or not same_grid(Image(values=image.values[:1], affine=image.affine), mask):
        raise Unusable("a mask of another shape, place or direction than its image")
    allowed = np.array(label.values, dtype=np.float32)
    order = np.argsort(allowed)
    places = np.minimum(np.searchsorted(allowed[order], mask.values[0]), len(allowed) - 1)
    found = order[places]
    if not (allowed[found] == mask.values[0]).all():
        raise Unusable("a mask with values that are not the study's")
    indices: npt.NDArray[np.float32] = found.astype(np.float32)
    return indices


def _spacing(image: Image) -> tuple[float, ...] | None:
    if image.affine is None:
        return None
    axes = image.values.ndim - 1
    return tuple(round(float(one), 2) for one in np.sqrt((image.affine[:axes, :axes] ** 2).sum(axis=0)))


def _resampled(image: Image, spacing: Sequence[float], *, nearest: bool) -> npt.NDArray[np.float32]:
    """float32[channels, *spatial] with `spacing` mm between neighbours, linear or nearest; raises Unusable."""
    if image.affine is None:
        raise Unusable("a file that does not say how large its pixels are")
    axes = image.values.ndim - 1
    now = np.sqrt((image.affine[:axes, :axes] ** 2).sum(axis=0))
    if np.allclose(now, spacing, rtol=1e-3):
        return image.values
    # The first place stays where it is; the last one is the last that lies within the volume.
    places = [
        math.floor((n - 1) * a / b + 1e-6) + 1 for n, a, b in zip(image.values.shape[1:], now, spacing, strict=True)
    ]
    check_count((len(image.values), *places))
    from scipy.ndimage import affine_transform  # noqa: PLC0415 - only where a study resamples

    steps = np.asarray(spacing) / now
    order = 0 if nearest else 1
    values: npt.NDArray[np.float32] = np.stack(
        [affine_transform(one, steps, output_shape=places, order=order, mode="nearest") for one in image.values]
    )
    return values


def _scaled(values: npt.NDArray[np.float32], data: ImagingData) -> npt.NDArray[np.float32]:
    """By the study's constants, or by the image's own mean and deviation, each channel for itself."""
    intensity = data.intensity
    if intensity.scale is not None:
        scaled: npt.NDArray[np.float32] = ((values - np.float64(intensity.scale.mean)) / intensity.scale.std).astype(
            np.float32
        )
        return scaled
    if intensity.standardise is None:
        return values
    axes = tuple(range(1, values.ndim))
    mean, std = (part(values.astype(np.float64), axis=axes, keepdims=True) for part in (np.mean, np.std))
    standardised: npt.NDArray[np.float32] = ((values - mean) / np.where(std > 0, std, 1.0)).astype(np.float32)
    return standardised


def _fitted(values: npt.NDArray[np.float32], shape: Sequence[int], background: float) -> npt.NDArray[np.float32]:
    """Cut or padded around its centre; an odd remainder goes to the far side."""
    found = np.full(shape, background, dtype=np.float32)
    source, target = [], []
    for have, want in zip(values.shape, shape, strict=True):
        length = min(have, want)
        source.append(slice((have - length) // 2, (have - length) // 2 + length))
        target.append(slice((want - length) // 2, (want - length) // 2 + length))
    found[tuple(target)] = values[tuple(source)]
    return found
