"""What is wrong with a hospital's data, for its own eyes: counts and numbers of records, never what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from privacy.lazy_numpy import np
from site_agent.errors import SiteError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

LINES_SHOWN_MAX = 5

_Bools: TypeAlias = "npt.NDArray[np.bool_]"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataProblem:
    """One thing that is wrong with the data: where, what was found (counts and line numbers only), what is allowed."""

    column: str  # empty for the file as a whole
    found: str
    allowed: str

    def __str__(self) -> str:
        place = f"column {self.column}: " if self.column else ""
        return f"{place}found {self.found}; allowed: {self.allowed}"


class DataInvalid(SiteError):
    """The hospital's data do not meet the study's contract. Whose fault: the file's, or the study does not fit it.

    Safe to log and to show: neither identifiers nor values are in it. It is for this hospital alone all the same; a
    coordinator is told no more than that the data do not fit.
    """

    def __init__(self, path: Path, problems: Sequence[DataProblem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{path} cannot take part:", *(f"  {problem}" for problem in problems)]))

    def __reduce__(self) -> tuple[type[Self], tuple[Path, tuple[DataProblem, ...]]]:
        return type(self), (self.path, self.problems)

    def advice(self) -> str:
        """What to do next."""
        return (
            f"Put right what is listed in {self.path}, or point `datasets` in site.yaml to the right file and columns, "
            "then run `site-agent check`. Nothing was read into the study."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Collects what is wrong with one file."""

    path: Path
    found: list[DataProblem]
    noun: str = "line"  # what the numbers of records count

    def add(self, column: str, found: str, allowed: str) -> None:
        """Note one problem; `column` is empty for the data as a whole."""
        self.found.append(DataProblem(column=column, found=found, allowed=allowed))

    def records(self, cells: pd.Series[Any], wrong: _Bools, what: str, allowed: str) -> None:
        """Report the records at which `wrong` is true, if any: how many and on which lines, but not what they hold."""
        if wrong.any():
            self.records_at([int(line) for line in cells.index[wrong]], what, allowed, column=str(cells.name))

    def records_at(self, places: Sequence[int], what: str, allowed: str, *, column: str = "") -> None:
        """Report the records at these places of the hospital's list."""
        self.add(column, f"{counted(len(places), 'record')} {what} ({lines_of(places, self.noun)})", allowed)

    def error(self) -> DataInvalid:
        """Everything that was found, to be raised."""
        return DataInvalid(self.path, self.found)


def counted(number: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def lines_of(lines: Sequence[int], noun: str = "line") -> str:
    """`line 3`, or `lines 3, 4, 5, 6, 7 and 12 more`."""
    shown = ", ".join(map(str, lines[:LINES_SHOWN_MAX]))
    more = f" and {len(lines) - LINES_SHOWN_MAX} more" if len(lines) > LINES_SHOWN_MAX else ""
    return f"{noun if len(lines) == 1 else noun + 's'} {shown}{more}"
