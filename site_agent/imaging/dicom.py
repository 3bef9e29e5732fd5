"""DICOM files, by pydicom: headers without pixels to group them, then images or volumes of a series.

Only the attributes named here are read. Files in a transfer syntax that is not on the list are left alone: among those
is deflate, which the library would unpack whole before anybody could look at its size. The library reads an attribute
only when it is asked for it, so what is public here is guarded as a whole.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from site_agent.imaging.records import Image, Unusable
from site_agent.imaging.safety import check_count, check_spacing, or_unusable

DAMAGED = "cannot be read as DICOM: truncated or damaged"
NO_PIXELS = "a DICOM file without pixel data"
UNEVEN = "slices that are not evenly spaced, or not of one shape, spacing and direction"
_HEADER_TAGS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns")
_SYNTAXES = frozenset(
    {
        "1.2.840.10008.1.2",  # implicit, little endian
        "1.2.840.10008.1.2.1",  # explicit, little endian
        "1.2.840.10008.1.2.2",  # explicit, big endian
        "1.2.840.10008.1.2.5",  # RLE, lossless
        "1.2.840.10008.1.2.4.50",  # JPEG baseline
        "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless
        "1.2.840.10008.1.2.4.91",  # JPEG 2000
    }
)
_EVEN_MM, _EVEN_PART = 0.01, 0.02


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Header:
    """What one file says of itself. The identifiers stay in here."""

    path: Path
    patient: str
    study: str
    series: str
    modality: str
    has_rows: bool


@or_unusable(DAMAGED)
def read_header(path: Path) -> Header | None:
    """The header of a file; None where it is not DICOM; raises Unusable where it is, and cannot be used."""
    dataset = _opened(path, stop_before_pixels=True, tags=_HEADER_TAGS)
    if dataset is None:
        return None
    texts = [str(dataset.get(tag, "") or "").strip() for tag in _HEADER_TAGS[:4]]
    if not all(texts[:3]):
        raise Unusable("a DICOM file without PatientID, StudyInstanceUID or SeriesInstanceUID")
    patient, study, series, modality = texts
    return Header(path=path, patient=patient, study=study, series=series, modality=modality, has_rows="Rows" in dataset)


@or_unusable(DAMAGED)
def read_dicom_image(path: Path) -> Image:
    """One image of two axes, rows and columns; raises Unusable."""
    dataset = _with_pixels(path)
    values = _values(dataset)
    return Image(values=values, affine=_plane(dataset))


@or_unusable(DAMAGED)
def read_dicom_volume(paths: tuple[Path, ...]) -> Image:
    """The slices of a series as one volume, turned as every volume is; raises Unusable."""
    import nibabel as nib  # noqa: PLC0415 - it knows orientations

    slices = [(path, _opened(path, stop_before_pixels=True, tags=None)) for path in paths]
    if len(slices) < 2:
        raise Unusable("a series of one slice, in a study of volumes")
    with or_unusable("slices without orientation, position or spacing"):
        affine, ordered = _geometry([(path, dataset) for path, dataset in slices if dataset is not None])
        check_count((int(slices[0][1].Rows), int(slices[0][1].Columns), len(ordered)))
    planes = [_values(_with_pixels(path)) for path in ordered]
    if any(plane.shape != planes[0].shape for plane in planes) or len(planes[0]) != 1:
        raise Unusable(UNEVEN if len(planes[0]) == 1 else "a volume in colour")
    volume = np.stack([plane[0] for plane in planes], axis=-1)  # rows, columns, slices
    placed = nib.Nifti1Image(volume, affine)  # type: ignore[no-untyped-call]
    turned = nib.as_closest_canonical(placed)  # type: ignore[no-untyped-call]
    return Image(
        values=np.ascontiguousarray(np.asarray(turned.dataobj, dtype=np.float32)[None]),
        affine=np.asarray(turned.affine, dtype=np.float64),
    )


def _opened(path: Path, *, stop_before_pixels: bool, tags: tuple[str, ...] | None) -> Any:
    """The file's attributes; None where it is not DICOM. Raises Unusable, and what the library makes of its bytes."""
    import pydicom  # noqa: PLC0415 - only where a study reads this format
    from pydicom import config  # noqa: PLC0415
    from pydicom.errors import InvalidDicomError  # noqa: PLC0415
    from pydicom.filereader import read_file_meta_info  # noqa: PLC0415

    config.settings.reading_validation_mode = config.IGNORE  # else its warnings quote identifiers
    try:
        meta = read_file_meta_info(path)
    except InvalidDicomError:
        return None
    if str(meta.get("TransferSyntaxUID", "")) in _SYNTAXES:
        wanted = list(tags) if tags else None
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels, specific_tags=wanted)
    raise Unusable("a DICOM file compressed in a way that is not read here")


def _with_pixels(path: Path) -> Any:
    """A file with its pixels, once its header has said how many there will be."""
    head = _opened(path, stop_before_pixels=True, tags=None)
    if head is None or "Rows" not in head or "Columns" not in head:
        raise Unusable(NO_PIXELS)
    frames, samples = int(head.get("NumberOfFrames", 1) or 1), int(head.get("SamplesPerPixel", 1))
    shape = (frames, int(head.Rows), int(head.Columns), samples)
    if frames != 1:
        raise Unusable("a DICOM file of several frames")
    check_count(shape)
    dataset = _opened(path, stop_before_pixels=False, tags=None)
    if "PixelData" not in dataset:
        raise Unusable(NO_PIXELS)
    return dataset


def _values(dataset: Any) -> Any:
    """float32[channels, rows, columns], in the unit the file's rescaling gives; raises Unusable."""
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric not in ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"):
        raise Unusable("pixels that are neither grey nor red, green and blue")
    pixels = np.asarray(dataset.pixel_array)
    if photometric == "MONOCHROME1":  # white is 0: turned round, so that more is brighter everywhere
        bits = int(dataset.BitsStored)
        pixels = (-1 if int(dataset.PixelRepresentation) else 2**bits - 1) - pixels.astype(np.int64)
    slope, intercept = float(dataset.get("RescaleSlope", 1) or 1), float(dataset.get("RescaleIntercept", 0) or 0)
    values = (pixels * np.float64(slope) + intercept).astype(np.float32)
    return values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)


def _plane(dataset: Any) -> Any:
    """float64[3, 3] from pixels to mm, rows first; None where the file gives no spacing. Raises Unusable."""
    spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    if not spacing:
        return None
    rows, columns = (float(one) for one in spacing)
    check_spacing((rows, columns))
    return np.diag([rows, columns, 1.0])


def _geometry(slices: list[tuple[Path, Any]]) -> tuple[Any, list[Path]]:
    """The affine of a series (DICOM PS3.3 C.7.6.2.1.1, turned from left-back-top to right-front-top), and its order."""
    first = slices[0][1]
    direction = np.array([float(one) for one in first.ImageOrientationPatient]).reshape(2, 3)
    spacing = np.array([float(one) for one in first.PixelSpacing])
    check_spacing(spacing.tolist())
    normal = np.cross(direction[0], direction[1])
    if not 0.99 < float(np.linalg.norm(normal)) < 1.01:
        raise Unusable(UNEVEN)
    placed = []
    for path, one in slices:
        same = (
            np.allclose([float(x) for x in one.ImageOrientationPatient], direction.ravel(), atol=1e-3)
            and np.allclose([float(x) for x in one.PixelSpacing], spacing, rtol=1e-3)
            and (one.Rows, one.Columns) == (first.Rows, first.Columns)
        )
        if not same:
            raise Unusable(UNEVEN)
        position = np.array([float(x) for x in one.ImagePositionPatient])
        placed.append((float(position @ normal), position, path))
    placed.sort(key=lambda item: (item[0], str(item[2])))
    steps = np.diff([item[0] for item in placed])
    step = float(np.mean(steps))
    if step <= 0 or float(np.abs(steps - step).max()) > max(_EVEN_MM, _EVEN_PART * step):
        raise Unusable(UNEVEN)
    check_spacing((step,))
    affine = np.eye(4)
    # Rows run along the second direction of the attribute, columns along the first; spacing is rows first.
    affine[:3, 0], affine[:3, 1] = direction[1] * spacing[0], direction[0] * spacing[1]
    affine[:3, 2] = (placed[-1][1] - placed[0][1]) / (len(placed) - 1)
    affine[:3, 3] = placed[0][1]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, [item[2] for item in placed]
