"""A slice with its masks as a picture: numbers in, numbers out (numpy only, pure)."""

import numpy as np
from numpy.typing import NDArray

SIDE_MIN = 256
"""Small slices are made larger, by whole factors, until their height is at least this."""

_COLOURS = ((226, 88, 34), (30, 136, 229), (67, 160, 71), (253, 216, 53), (142, 36, 170), (0, 172, 193))
_STRENGTH, _GAP = 0.5, 4
_DARKEST, _BRIGHTEST = 1.0, 99.0  # percentiles


def slice_shown(volume_labels: NDArray[np.int64]) -> int:
    """Which slice along the last axis has most places that are not background; the middle one if none has any."""
    counts = (volume_labels > 0).sum(axis=tuple(range(volume_labels.ndim - 1)))
    return int(counts.argmax()) if counts.any() else volume_labels.shape[-1] // 2


def side_by_side(
    image: NDArray[np.float32], truth: NDArray[np.int64], predicted: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Three panels: the image, the image with the true mask, the image with the predicted one.

    Args:
        image: [rows, columns], of any range; what is not a number is drawn black.
        truth: [rows, columns], 0 where there is nothing to colour.
        predicted: The same.

    Returns:
        uint8[rows * s, 3 * columns * s + 2 gaps, 3], red, green and blue; s is a whole number.
    """
    finite = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
    low, high = np.percentile(finite, (_DARKEST, _BRIGHTEST))
    grey = np.clip((finite - low) / max(float(high - low), 1e-12), 0.0, 1.0)[..., None] * np.full(3, 255.0)
    scale = max(1, -(-SIDE_MIN // image.shape[0]))
    panels = [_larger(panel, scale) for panel in (grey, _coloured(grey, truth), _coloured(grey, predicted))]
    gap = np.full((panels[0].shape[0], _GAP, 3), 255.0)
    together = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    return np.asarray(np.rint(together), dtype=np.uint8)


def _coloured(grey: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    palette = np.array(_COLOURS, dtype=np.float64)[(labels - 1) % len(_COLOURS)]
    return np.where((labels > 0)[..., None], (1 - _STRENGTH) * grey + _STRENGTH * palette, grey)


def _larger(picture: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)
