"""The arithmetic that charts on a screen and on paper share: ticks of an axis, and labels that do not overlap."""

import math
from collections.abc import Sequence

COLOURS = ("#0b5fa5", "#c2571a", "#2e7d32", "#7b3fa0", "#a8323e", "#00838f", "#8a6d00", "#4a5568")
"""Told apart with colour-blind eyes in the order they are used; beyond eight they repeat and dashes differ."""

DASHES = ("", "6 3", "2 3", "9 3 2 3")


def dash_of(number: int, series: int) -> str:
    """The dashes of one of so many series, as lengths on and off."""
    return DASHES[number // len(COLOURS) % len(DASHES)] if series > len(COLOURS) else DASHES[number % 4]


def ticks(low: float, high: float) -> list[float]:
    """Three to six round values that enclose low..high; where the two are all but the same, what lies above them."""
    if high - low < 1e-6 * max(1.0, abs(low)):
        high = low + 0.1 * max(1.0, abs(low))
    power = 10.0 ** math.floor(math.log10(high - low))
    size = next(power * step for step in (0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / (power * step) < 5.01)
    first = int(low // size)
    found = [first * size]
    while found[-1] < high - size * 1e-6:
        found.append((first + len(found)) * size)
    if len(found) == 1:
        found.append(found[0] + size)
    return [round(tick, 12) for tick in found]


def whole_ticks(low: float, high: float) -> list[int]:
    """At most eleven whole numbers from low to high."""
    step = max(1, -(-int(high - low) // 10))
    return list(range(int(low), int(high) + 1, step))


def apart(labels: Sequence[tuple[float, str, str]], *, lowest: float, step: float = 14) -> list[tuple[float, str, str]]:
    """Move labels (y, colour, text) down until no two overlap, then up again where they would pass `lowest`."""
    placed: list[tuple[float, str, str]] = []
    for y, colour, text in sorted(labels):
        placed.append((max(y, placed[-1][0] + step) if placed else y, colour, text))
    for index in range(len(placed) - 1, -1, -1):
        y, colour, text = placed[index]
        placed[index] = (min(y, lowest), colour, text)
        lowest = placed[index][0] - step
    return placed


def short(text: str, length: int = 20) -> str:
    """A name cut to fit beside a chart."""
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"
