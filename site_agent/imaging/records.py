"""What a list or folder of images comes to, before any image is opened: records, their patients and their labels.

Nothing in here prints: a record knows its patient and its files, and neither may reach a log by way of a traceback.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt


class Unusable(Exception):
    """One record does not fit the study. Its text is a reason in plain words: no name of a file, no value, nobody."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NiftiFiles:
    """A volume in one file, perhaps with its channels along a fourth axis, or in a file for each channel."""

    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RasterFile:
    """A PNG or JPEG file."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DicomFiles:
    """The slices of a series, or one image."""

    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class ArrayImage:
    """An image that is in memory already, of a file that holds many."""

    values: npt.NDArray[Any]  # [*spatial] or [*spatial, channels]


Source: TypeAlias = NiftiFiles | RasterFile | DicomFiles | ArrayImage
LabelSource: TypeAlias = str | NiftiFiles | RasterFile
"""A label's value as text, or the file of a mask."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class ImageRecord:
    """One image or volume of one patient."""

    number: int  # in the hospital's list, from 1
    patient: str
    image: Source
    label: LabelSource
    side: str | None = None  # train or test, where the hospital says so

    @property
    def image_paths(self) -> tuple[Path, ...]:
        """The files the image is read from; none of one in memory."""
        return paths_of(self.image)


def paths_of(source: Source | LabelSource) -> tuple[Path, ...]:
    """The files behind a source."""
    match source:
        case NiftiFiles(paths=paths) | DicomFiles(paths=paths):
            return paths
        case RasterFile(path=path):
            return (path,)
        case _:
            return ()


@dataclass(slots=True, kw_only=True, repr=False)
class Listing:
    """The records of a dataset, and those that are left out before they are opened. The one mutable thing here."""

    records: list[ImageRecord] = field(default_factory=list)
    left_out: list[tuple[int, str]] = field(default_factory=list)  # number, reason
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records) + len(self.left_out)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Image:
    """A decoded image, in the unit of its file."""

    values: npt.NDArray[np.float32]  # [channels, *spatial]; of a volume with axes to the right, front and top
    affine: npt.NDArray[np.float64] | None  # [axes + 1, axes + 1]: places to mm; None where pixels have no size
