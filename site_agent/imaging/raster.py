"""PNG and JPEG files, by Pillow: grey or colour, one frame, no transparency."""

from pathlib import Path
from typing import Any

import numpy as np

from site_agent.imaging.records import Image, Unusable
from site_agent.imaging.safety import NO_SUCH_SIZE, check_count, or_unusable

DAMAGED = "cannot be read as PNG or JPEG: truncated or damaged"
_FORMATS = ("PNG", "JPEG")
_GREY = ("L", "I", "I;16", "I;16L", "I;16B", "1")


def read_raster(path: Path) -> Image:
    """An image of one or three channels, in the numbers of its file, upright as its camera says; raises Unusable."""
    values = _pixels(path, palette=False)
    return Image(values=values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0), affine=None)


def read_raster_mask(path: Path) -> Image:
    """A mask of one channel: grey values, or the numbers of a palette's colours; raises Unusable."""
    values = _pixels(path, palette=True)
    if values.ndim != 2:
        raise Unusable("a mask with other than one channel")
    return Image(values=values[None], affine=None)


def _pixels(path: Path, *, palette: bool) -> Any:
    from PIL import Image as Pillow  # noqa: PLC0415 - only where a study reads this format
    from PIL import ImageOps  # noqa: PLC0415

    with or_unusable(DAMAGED), _opened(path, Pillow) as file:
        check_count((*file.size, len(file.getbands())))
        frames, upright = getattr(file, "n_frames", 1), ImageOps.exif_transpose(file)
        if upright.mode == "P" and not palette:
            upright = upright.convert("RGB")
        mode, values = upright.mode, np.asarray(upright).astype(np.float32)
    if frames != 1:
        raise Unusable("an image of several frames")
    if mode not in (*_GREY, "RGB", *(["P"] if palette else [])):
        raise Unusable("neither grey nor red, green and blue, or with transparency")
    return values


def _opened(path: Path, library: Any) -> Any:
    """The picture with its header read; no pixel is unpacked yet."""
    try:
        return library.open(path, formats=_FORMATS)
    except library.DecompressionBombError:  # the library's own bound, before ours is asked
        raise Unusable(NO_SUCH_SIZE) from None
