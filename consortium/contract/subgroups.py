"""Groups of test patients that a study wants figures for, such as women and men, or bands of age.

A subgroup divides the patients by one feature, in the feature's own unit, into cells that do not overlap. Values and
bands are constants of the study, so every hospital divides in the same way and no boundary says anything about a
patient. A patient whose value is in no cell, such as one that was not measured, is in none.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, TypeAlias

from annotated_types import Ge, Gt, Le, Len, Lt

from consortium.contract.errors import shown
from consortium.contract.fields import ColumnName, Line
from consortium.contract.schema import Finding, Rule, Section, Words

CELLS_MAX = 32
"""The most cells of all subgroups together: each is some twenty figures in every log entry with metrics."""

CALIBRATION_BINS, SUBGROUP_BINS, MINIMUM_CELL = 10, 20, 10
"""What a study has that does not say otherwise."""

NOISE_TAIL = 4096.0
"""Room above and below the counts of a noisy histogram. What is beyond is cut, which costs no privacy."""

Category: TypeAlias = Annotated[int | Line, Words("a whole number or a line of text")]


def _values_or_bands(values: tuple[int | str, ...] | None, bands: tuple[float, ...] | None) -> Iterator[Finding]:
    if (values is None) == (bands is None):
        found = "neither values nor bands" if values is None else "both values and bands"
        yield Finding("", found, "values of a column, or bands of a number")


def _values_once(values: tuple[int | str, ...] | None) -> Iterator[Finding]:
    for index, value in enumerate(values or ()):
        if value in (values or ())[:index]:
            yield Finding(f"values[{index}]", f"{shown(value)} a second time", "every value once")


def _bands_rise(bands: tuple[float, ...] | None) -> Iterator[Finding]:
    for index in range(1, len(bands or ())):
        before, edge = (bands or ())[index - 1 : index + 1]
        if edge <= before:
            yield Finding(f"bands[{index}]", shown(edge), f"a number greater than the one before it, {shown(before)}")


def _a_name_for_each(
    values: tuple[int | str, ...] | None, bands: tuple[float, ...] | None, names: tuple[str, ...] | None
) -> Iterator[Finding]:
    cells = len(values) if values is not None else len(bands or ()) + 1
    if names is not None and len(names) != cells:
        yield Finding("names", f"{len(names)} names for {cells} groups", "a name for each")


class Subgroup(Section):
    """Cells by the values of one column, or by bands of it."""

    column: ColumnName
    values: Annotated[tuple[Category, ...], Len(1, 16)] | None = None  # a cell for each
    bands: Annotated[tuple[float, ...], Len(1, 15)] | None = None  # below the first, from it to the next, and so on
    names: Annotated[tuple[Line, ...], Len(1, 16)] | None = None  # of the cells, for people

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("values", "bands"), check=_values_or_bands),
        Rule(reads=("values",), check=_values_once),
        Rule(reads=("bands",), check=_bands_rise),
        Rule(reads=("values", "bands", "names"), check=_a_name_for_each),
    )

    @property
    def cells(self) -> int:
        """How many cells the patients are divided into."""
        return len(self.values) if self.values is not None else len(self.bands or ()) + 1

    def name_of(self, cell: int) -> str:
        """What people call a cell: its name, or else its value or band, such as "50 to below 60"."""
        if self.names is not None:
            return self.names[cell]
        if self.values is not None:
            return str(self.values[cell])
        edges = [f"{edge:g}" for edge in self.bands or ()]
        if cell == 0:
            return f"below {edges[0]}"
        return f"{edges[-1]} and above" if cell == len(edges) else f"{edges[cell - 1]} to below {edges[cell]}"


class EvaluationPrivacy(Section):
    """A budget of its own for the test figures: with it they are computed from noisy histograms, and from no others."""

    epsilon: Annotated[float, Gt(0), Le(100)]
    delta: Annotated[float, Ge(1e-10), Lt(1)]


def all_cells(subgroups: Sequence[Subgroup] | None) -> tuple[tuple[int, int], ...]:
    """Every (subgroup, cell) in the order of the lanes with subgroups."""
    return tuple((number, cell) for number, one in enumerate(subgroups or ()) for cell in range(one.cells))
