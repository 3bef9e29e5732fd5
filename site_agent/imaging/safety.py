"""What is checked of a file before a library opens it: that it is inside its folder, regular, and not too large.

A file's header is a claim: how many numbers it announces is compared with these bounds before memory is taken for them.
"""

import logging
import math
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from site_agent.imaging.records import Unusable

FILE_BYTES_MAX = 4 * 2**30
VOLUME_VALUES_MAX = 2**28
"""Numbers of an image as it lies in its files, all channels together: 1 GiB as float32."""

SPACING_MIN_MM, SPACING_MAX_MM = 0.001, 1000.0

NO_SUCH_SIZE = f"a header that announces no image, or one of more than {VOLUME_VALUES_MAX} numbers"

LOUD = ("pydicom", "nibabel", "nibabel.global", "PIL")
"""Loggers of the libraries that read images."""


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, libraries that read images say nothing: their warnings quote what stands in a file."""
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def or_unusable(reason: str) -> Iterator[None]:
    """Inside, libraries are quiet, and whatever they make of damaged bytes is `reason`, of this record alone."""
    try:
        with quiet():
            yield
    except Unusable:
        raise
    except Exception:  # noqa: BLE001 - a library may raise anything at all
        raise Unusable(reason) from None


def within(root: Path, name: str) -> Path:
    """The regular file `name` below `root`; raises Unusable unless it is there, inside, and of a size to be read."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not name or "\0" in name or ".." in parts:
        raise Unusable("no file is named, or one outside the dataset's folder")
    try:
        home, path = root.resolve(strict=True), (root / name).resolve(strict=True)
        status = path.stat()
    except (OSError, RuntimeError, ValueError):
        raise Unusable("the file is not there, or cannot be read") from None
    if not path.is_relative_to(home):
        raise Unusable("no file is named, or one outside the dataset's folder")
    if not stat.S_ISREG(status.st_mode):
        raise Unusable("something that is not a file")
    if status.st_size > FILE_BYTES_MAX:
        raise Unusable(f"a file of more than {FILE_BYTES_MAX >> 30} GiB")
    return path


def check_count(shape: Sequence[int]) -> None:
    """Raise Unusable where a header announces more numbers than a record may have, or none."""
    if any(length < 1 for length in shape) or math.prod(shape) > VOLUME_VALUES_MAX:
        raise Unusable(NO_SUCH_SIZE)


def check_spacing(millimetres: Sequence[float]) -> None:
    """Raise Unusable unless every one is a length that pixels can have."""
    if not all(SPACING_MIN_MM <= abs(one) <= SPACING_MAX_MM for one in millimetres):  # NaN fails too
        raise Unusable(f"a header with a spacing that is not from {SPACING_MIN_MM:g} to {SPACING_MAX_MM:g} mm")
