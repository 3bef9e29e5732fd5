"""Made-up pictures of lesions for demonstrations: a body, structures in it, and lesions with their masks (numpy only).

Every hospital has another scanner: contrast, noise and resolution differ, and on one scanner lesions are dark where on
the others they are bright. So a network trained on one hospital's pictures is lost on another's. Nobody's data are in
here; everything follows from the seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LESIONS_MAX = 3
_BODY, _STRUCTURES = 0.45, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """What a hospital's pictures look like. Brightness is 0 to 1 before the scanner cuts it off."""

    contrast: float  # brightness of a lesion above the body's; negative: lesions are dark
    noise: float  # standard deviation of what is added to every pixel
    blur: int  # how often neighbouring pixels are averaged


SCANNERS: Mapping[str, Scanner] = {
    "north": Scanner(contrast=0.35, noise=0.03, blur=0),
    "east": Scanner(contrast=-0.25, noise=0.05, blur=0),
    "south": Scanner(contrast=0.18, noise=0.10, blur=1),
    "west": Scanner(contrast=0.30, noise=0.05, blur=4),
}
"""By hospital."""


def phantom(
    scanner: Scanner, shape: tuple[int, int], random: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture, uint8[shape], and where its lesions are: 1, elsewhere 0."""
    height, width = shape
    middle = np.array([height / 2, width / 2])
    picture = np.full(shape, 0.1)
    body = _ellipse(shape, middle, np.array([0.44 * height, 0.40 * width]) * random.uniform(0.9, 1.05, 2), 0.0)
    picture[body] = _BODY
    for _ in range(_STRUCTURES):  # of the body's own, fainter than any lesion
        place = middle + random.uniform(-0.25, 0.25, 2) * shape
        inside = _ellipse(shape, place, random.uniform(0.06, 0.16, 2) * shape, random.uniform(0, np.pi)) & body
        picture[inside] += random.uniform(-0.06, 0.06)
    mask = np.zeros(shape, dtype=np.bool_)
    for _ in range(int(random.integers(1, LESIONS_MAX + 1))):
        place = middle + random.uniform(-0.24, 0.24, 2) * shape
        mask |= _ellipse(shape, place, random.uniform(0.06, 0.13, 2) * shape, random.uniform(0, np.pi))
    picture[mask] += scanner.contrast * random.uniform(0.85, 1.15)
    for _ in range(scanner.blur):
        picture = _averaged(picture)
    picture += random.normal(0.0, scanner.noise, shape)
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8), mask.astype(np.uint8)


def write_phantoms(folder: Path, scanner: Scanner, shape: tuple[int, int], *, patients: int, seed: int) -> Path:
    """Pictures and masks as PNG files, one of each for every patient; returns the CSV that lists them."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    lines = ["file,patient,label"]
    for number in range(1, patients + 1):
        picture, mask = phantom(scanner, shape, random)
        image_name, mask_name = f"{number:04d}.png", f"{number:04d}-mask.png"
        Image.fromarray(picture).save(folder / image_name)
        Image.fromarray(mask).save(folder / mask_name)
        lines.append(f"{image_name},P{number:04d},{mask_name}")
    table = folder / "list.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def _ellipse(
    shape: tuple[int, int], centre: NDArray[np.float64], radii: NDArray[np.float64], angle: float
) -> NDArray[np.bool_]:
    rows, columns = np.indices(shape)
    down, right = rows - centre[0], columns - centre[1]
    along = (np.cos(angle) * down + np.sin(angle) * right) / radii[0]
    across = (np.cos(angle) * right - np.sin(angle) * down) / radii[1]
    inside: NDArray[np.bool_] = along**2 + across**2 <= 1
    return inside


def _averaged(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every pixel as the mean of itself and its four neighbours."""
    padded = np.pad(picture, 1, mode="edge")
    mean: NDArray[np.float64] = (
        padded[1:-1, 1:-1] + padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    ) / 5
    return mean
