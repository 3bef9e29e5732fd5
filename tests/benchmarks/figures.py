"""What a benchmark hands back, and how it measures: medians of repeats, in turns with what they are compared to."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

WARM_UPS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number under its fixed name."""

    name: str
    value: float | None  # None where this machine cannot measure it; `note` says why
    unit: str
    reference: float  # what the project is held to
    better: Literal["at least", "at most"]
    spread: tuple[float, float] | None = None  # least and greatest of the repeats, in the same unit
    note: str = ""
    binding: bool = True  # False: for information

    @property
    def reached(self) -> bool:
        """Whether the value is on the right side of the reference."""
        if self.value is None:
            return False
        return self.value >= self.reference if self.better == "at least" else self.value <= self.reference

    def record(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        return {
            "value": self.value,
            "unit": self.unit,
            "reference": self.reference,
            "target": f"{self.better} {self.reference:g}" + ("" if self.binding else ", for information"),
            "reached": self.reached,
            "spread": list(self.spread) if self.spread is not None else None,
            "note": self.note,
        }

    def line(self) -> str:
        """As it is printed."""
        value = "not measured" if self.value is None else f"{self.value:.3f}"
        spread = "" if self.spread is None else f" ({self.spread[0]:.3f} to {self.spread[1]:.3f})"
        verdict = "reached" if self.reached else "NOT reached" if self.value is not None else ""
        aim = f"{self.better} {self.reference:g}" + ("" if self.binding else ", for information")
        text = f"{self.name:<27} {value}{spread} {self.unit}; {aim}: {verdict}".rstrip(": ")
        return f"{text}\n{'':<27} {self.note}" if self.note else text


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process for one call, all its threads together."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def in_turns(first: Callable[[], float], second: Callable[[], float], repeats: int) -> tuple[list[float], list[float]]:
    """`repeats` results of each, one after the other, so that a busy moment of the machine meets both alike."""
    for _ in range(WARM_UPS):
        first()
        second()
    pairs = [(first(), second()) for _ in range(repeats)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Median over median, and the least and greatest of the ratios of one turn."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return statistics.median(above) / statistics.median(below), (min(each), max(each))


def status_bytes(field: str) -> int:
    """A size in this process' status, in bytes: VmRSS, VmHWM and others. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
