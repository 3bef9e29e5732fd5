"""How training went at this hospital, in total: figures without noise, so they never leave the building.

`results/<study>.clipping.json`. Shown by `site-agent certificate`; a clipping rate near 0 or 1 says that the study's
clip norm fits badly, which its author may be told in words.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class StepFigures(Protocol):
    """What a round's training saw (`training_room.LocalFigures`)."""

    @property
    def sampled_patients(self) -> tuple[int, ...]:
        """Of each step."""

    @property
    def clipped_patients(self) -> int:
        """Over all steps."""

    @property
    def broken_patients(self) -> int:
        """Over all steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Over every round trained here. They print as nothing."""

    steps: int = 0
    sampled: int = 0
    clipped: int = 0
    broken: int = 0

    @property
    def clipped_fraction(self) -> float:
        """Of the contributions made, how many were shortened; 0 if there were none."""
        return self.clipped / max(1, self.sampled)

    def __repr__(self) -> str:
        return "Totals()"


class ClippingRecord:
    """The file at `path`; made at the first round."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, figures: StepFigures) -> None:
        """Count one round's training; raises OSError."""
        before = self.read()
        after = {
            "steps": before.steps + len(figures.sampled_patients),
            "sampled": before.sampled + sum(figures.sampled_patients),
            "clipped": before.clipped + figures.clipped_patients,
            "broken": before.broken + figures.broken_patients,
        }
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        scratch = self._path.with_suffix(".partial")
        scratch.write_text(json.dumps(after), encoding="utf-8")
        scratch.replace(self._path)

    def read(self) -> Totals:
        """What was counted; a file that is missing or damaged counts as nothing."""
        try:
            record: Any = json.loads(self._path.read_text(encoding="utf-8"))
            return Totals(**{name: int(record[name]) for name in ("steps", "sampled", "clipped", "broken")})
        except (OSError, ValueError, KeyError, TypeError):
            return Totals()
