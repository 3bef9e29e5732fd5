"""The table of measured figures in docs/reference/benchmarks.md, which keeps what was not measured again (pure).

Rows come from several runs, so each says which run it is of, and above the table stands what every such run ran on:

    - 2026-11-23, 4bc5481: AMD EPYC, 2 cores, ...

    | name | measured | least to greatest | held to | run |
    |---|---|---|---|---|
    | `ledger_append_per_s` | 1283.385 | 1276.691 to 1301.592 | at least 100, for information | 2026-11-23, 4bc5481 |

    ```
    ledger_append_per_s: a note, of one line or of several
    ```
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.figures import Figure

BEGINS, ENDS = "<!-- table begins -->", "<!-- table ends -->"
_HEAD = ("| name | measured | least to greatest | held to | run |", "|---|---|---|---|---|")
_ROW = re.compile(r"\| `(?P<name>\w+)` \| .* \| (?P<run>[^|]*) \|")
_RUN = re.compile(r"- (?P<run>[^:]+): (?P<machine>.+)")
_NOTE = re.compile(r"(?P<name>\w+): ")
_FENCE = "```"


class TableLost(Exception):
    """The page has no table to write into, or one that nobody can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows and notes as they stand on the page, by the figure's name; the machine by the run."""

    machines: Mapping[str, str]
    rows: Mapping[str, str]
    notes: Mapping[str, str]

    def text(self) -> str:
        """As it stands between the marks."""
        runs = {_run_of(row) for row in self.rows.values()}
        machines = [f"- {run}: {machine}" for run, machine in sorted(self.machines.items()) if run in runs]
        notes = [self.notes[name] for name in self.rows if name in self.notes]
        return "\n".join([*machines, "", *_HEAD, *self.rows.values(), "", _FENCE, *notes, _FENCE, ""])


def merged(old: Table, figures: Iterable[Figure], *, run: str, machine: str, order: Sequence[str]) -> Table:
    """The old table with these figures in place of their rows.

    Args:
        old: What the page has.
        figures: What was measured now.
        run: Which run they are of, such as "2026-11-23, 4bc5481".
        machine: What it ran on.
        order: Every figure there is; a row of another name goes.
    """
    rows, notes = dict(old.rows), dict(old.notes)
    for figure in figures:
        value = "not measured" if figure.value is None else f"{figure.value:.3f}"
        spread = "" if figure.spread is None else f"{figure.spread[0]:.3f} to {figure.spread[1]:.3f}"
        rows[figure.name] = f"| `{figure.name}` | {value} | {spread} | {figure.record()['target']} | {run} |"
        notes.pop(figure.name, None)
        if figure.note:
            notes[figure.name] = f"{figure.name}: {figure.note}"
    return Table(
        machines={**old.machines, run: machine}, rows={name: rows[name] for name in order if name in rows}, notes=notes
    )


def read(page: str) -> Table:
    """The table of a page; raises TableLost."""
    lines = _between(page)[1].strip().split("\n")
    machines = {found["run"]: found["machine"] for line in lines if (found := _RUN.fullmatch(line))}
    rows = {found["name"]: line for line in lines if (found := _ROW.fullmatch(line))}
    if sum(line.startswith("| `") for line in lines) != len(rows):
        raise TableLost("a row of the table cannot be read, or there are two of one figure")
    if lines.count(_FENCE) != 2:
        raise TableLost("the notes under the table do not stand between two lines of ```")
    begin = lines.index(_FENCE) + 1
    notes: dict[str, str] = {}
    name = ""
    for line in lines[begin : lines.index(_FENCE, begin)]:
        found = _NOTE.match(line)
        if found is not None and found["name"] in rows:
            name = found["name"]
            notes[name] = line
        elif name:
            notes[name] += f"\n{line}"
    return Table(machines=machines, rows=rows, notes=notes)


def with_table(page: str, table: Table) -> str:
    """The page with this table; raises TableLost."""
    head, _, tail = _between(page)
    return f"{head}{BEGINS}\n{table.text()}{ENDS}{tail}"


def _between(page: str) -> tuple[str, str, str]:
    head, begins, rest = page.partition(BEGINS)
    text, ends, tail = rest.partition(ENDS)
    if not (begins and ends):
        raise TableLost("the page has lost the marks that the table stands between")
    return head, text, tail


def _run_of(row: str) -> str:
    found = _ROW.fullmatch(row)
    return "" if found is None else found["run"]
