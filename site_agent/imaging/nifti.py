"""NIfTI files, by nibabel, with the header read and bounded before anything else."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from site_agent.imaging.records import Image, Unusable
from site_agent.imaging.safety import check_count, check_spacing, or_unusable

ENDINGS = (".nii", ".nii.gz")
DAMAGED = "cannot be read as NIfTI: truncated or damaged"
_SIZES = {348: 1, 540: 2}  # of the two versions' headers, which is also their first number
_EXTENSION_BYTES_MAX = 2**20
_GRID_TOLERANCE_MM = 1e-3


def read_nifti(paths: tuple[Path, ...]) -> Image:
    """A volume, turned so that its axes point to the right, to the front and upwards; raises Unusable.

    One file holds one channel, or several along its fourth axis; several files hold one channel each, on one grid.
    """
    parts = [_read(path) for path in paths]
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    if any(len(part.values) != 1 or not same_grid(part, first) for part in parts):
        raise Unusable("channels in files of different shape, place or direction")
    return Image(values=np.concatenate([part.values for part in parts]), affine=first.affine)


def same_grid(one: Image, other: Image) -> bool:
    """Whether two volumes are about the same places, to a thousandth of a millimetre."""
    if one.values.shape[1:] != other.values.shape[1:]:
        return False
    if one.affine is None or other.affine is None:
        return one.affine is other.affine
    return bool(np.allclose(one.affine, other.affine, rtol=1e-4, atol=_GRID_TOLERANCE_MM))


def _read(path: Path) -> Image:
    import nibabel as nib  # noqa: PLC0415 - only where a study reads this format

    if not path.name.endswith(ENDINGS):
        raise Unusable("a file that does not end in .nii or .nii.gz")
    with or_unusable(DAMAGED):
        shape = _announced(path, nib)
        volume = nib.as_closest_canonical(nib.load(path))  # type: ignore[no-untyped-call]
        values = np.asarray(volume.dataobj, dtype=np.float32)
        affine = np.asarray(volume.affine, dtype=np.float64)
    if values.size != np.prod(shape) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise Unusable(DAMAGED)
    check_spacing(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist())
    while values.ndim > 3 and values.shape[3] == 1:
        values = values[:, :, :, 0]
    if values.ndim not in (3, 4):
        raise Unusable("a volume with other than three axes and one of channels")
    channels = values[None] if values.ndim == 3 else np.moveaxis(values, 3, 0)
    return Image(values=np.ascontiguousarray(channels), affine=affine)


def _announced(path: Path, nib: Any) -> tuple[int, ...]:
    """The shape in the header, after a look at everything that decides how much will be read."""
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
        head = file.read(max(_SIZES))
    sizes = [int.from_bytes(head[:4], order, signed=True) for order in ("little", "big")]
    version = next((_SIZES[size] for size in sizes if size in _SIZES), None)
    if version is None:
        raise Unusable(DAMAGED)
    kind, length = (nib.Nifti1Header, 348) if version == 1 else (nib.Nifti2Header, 540)
    header = kind(head[:length], check=False)
    shape = tuple(int(one) for one in header.get_data_shape())
    check_count(shape)
    if header.get_data_dtype().kind not in "uif":
        raise Unusable("numbers that are neither whole nor real")
    offset = float(header["vox_offset"])
    if not 0 <= offset <= length + _EXTENSION_BYTES_MAX:
        raise Unusable(DAMAGED)
    return shape
