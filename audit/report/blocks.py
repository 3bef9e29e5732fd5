"""Small pieces that sections of the report are made of: times, sizes, leaves, rows of entries."""

from collections.abc import Iterable, Mapping, Sequence

from audit.entries import Entry
from audit.fields import Json, rules_of
from audit.report.document import (
    Block,
    Cell,
    Column,
    Content,
    Fact,
    Facts,
    Inline,
    LeafRef,
    Paragraph,
    Table,
    cell,
    soft,
)
from audit.report.figures import Line, Report

ROWS_MAX = 500
"""Of a table that has a row for each entry; the others are in events.ndjson."""

LEAVES_MAX = 6
"""Of the entries that stand behind one figure; their number is said as well."""

NONE = "\u2013"

_FRAME = frozenset({"id", "ts", "actor", "outcome", "study", "round", "attempt", "site_seq", "site_prev"})
_DIGEST_SHOWN = 16


def table(*columns: str, rows: Iterable[Sequence[Cell]], weights: Sequence[float] = ()) -> Table:
    """A table; a title that begins with '>' is of a column of numbers."""
    wide = weights or (1.0,) * len(columns)
    return Table(
        columns=tuple(
            Column(title=title.removeprefix(">"), align="right" if title.startswith(">") else "left", weight=weight)
            for title, weight in zip(columns, wide, strict=True)
        ),
        rows=tuple(tuple(row) for row in rows),
    )


def paragraph(*content: Inline) -> Paragraph:
    """Running text."""
    return Paragraph(content=content)


def remark(*content: Inline) -> Paragraph:
    """Text beside the point, or in the place of something that is not there."""
    return Paragraph(content=content, tone="soft")


def fact(name: str, *content: Inline, leaves: Sequence[int | None] = ()) -> Fact:
    """A name and what it is."""
    return Fact(name=name, content=content, leaves=tuple(leaf for leaf in leaves if leaf is not None))


def facts(*rows: Fact) -> Facts:
    """Names and values."""
    return Facts(rows=rows)


def stated() -> Inline:
    """The mark of what nothing proves."""
    return soft(" (stated, not evidence)")


def agreed(leaf: int) -> tuple[Inline, Inline, Inline]:
    """The mark of what the approved study document says."""
    return soft(" (study document\u00a0"), LeafRef(index=leaf), soft(")")


def day(ts: str) -> str:
    """The day of a time."""
    return ts[:10]


def moment(ts: str) -> str:
    """A time to the second, in UTC."""
    return f"{ts[:10]} {ts[11:19]}"


def figure(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash."""
    return NONE if value is None else f"{value:.{digits}f}"


def short(value: float | None) -> str:
    """A figure in as few digits as it takes, or a dash."""
    return NONE if value is None else f"{value:g}"


def size(count: int) -> str:
    """A number of bytes, for people."""
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def duration(seconds: float) -> str:
    """A time span in a unit that suits it; hours up to four days, because laws count in them."""
    for unit, length, least in (("days", 86_400, 4), ("hours", 3_600, 2), ("minutes", 60, 2)):
        if seconds >= least * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def some(leaves: Sequence[int]) -> tuple[int, ...]:
    """At most LEAVES_MAX of rising leaves: the first ones, and the last."""
    return tuple(leaves) if len(leaves) <= LEAVES_MAX else (*leaves[: LEAVES_MAX - 1], leaves[-1])


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 round`, `2 rounds`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def lines(rows: Sequence[Line], who: str) -> tuple[Block, ...]:
    """A table of entries in words, and how many it leaves out."""
    shown = [(cell(leaves=(row.leaf,)), cell(moment(row.ts)), cell(row.who), cell(row.text)) for row in rows[:ROWS_MAX]]
    return (table("Leaf", "Time (UTC)", who, "What it says", rows=shown, weights=(0.5, 1.2, 1.6, 4)), *_others(rows))


def entries_table(rows: Sequence[tuple[int, Entry]]) -> tuple[Block, ...]:
    """A table of entries with all their fields, for types that are few."""
    shown = [
        (cell(leaves=(leaf,)), cell(moment(entry.ts)), cell(by(entry)), cell(entry.TYPE), cell(*fields_of(entry)))
        for leaf, entry in rows[:ROWS_MAX]
    ]
    titles = ("Leaf", "Time (UTC)", "By", "Entry", "What it says")
    return (table(*titles, rows=shown, weights=(0.5, 1.1, 1.1, 1.9, 3.6)), *_others(rows))


def declarations(report: Report, kinds: Sequence[str], otherwise: str) -> tuple[Block, ...]:
    """The entries of some types with all their fields, or what it means that there are none."""
    found = report.of(*kinds)
    return entries_table(found) if found else (remark(otherwise),)


def _others(rows: Sequence[object]) -> tuple[Block, ...]:
    left = len(rows) - ROWS_MAX
    return () if left <= 0 else (remark(f"{left} more are in events.ndjson."),)


def by(entry: Entry) -> str:
    """Who wrote an entry."""
    return entry.actor.removeprefix("site:")


def fields_of(entry: Entry) -> Content:
    """What an entry says besides who and when, field by field; digests are cut."""
    said = []
    for name, rule in rules_of(type(entry)).items():
        if name not in _FRAME:
            value = rule.write(getattr(entry, name))
            if value not in (None, "", []):
                said.append(f"{name.replace('_', ' ')}: {_value(value)}")
    return ("; ".join(said),)


def _value(value: Json) -> str:
    if isinstance(value, list):
        return ", ".join(_value(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    hexadecimal = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return f"{text[:_DIGEST_SHOWN]}\u2026" if hexadecimal else text


def part(document: Mapping[str, Json], *path: str) -> Json:
    """A value of the study document, or None."""
    value: Json = dict(document)
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def declared(document: Mapping[str, Json], *path: str) -> str:
    """A value of the study document in words, or 'not stated'."""
    value = part(document, *path)
    if value is None or value in ("", [], {}):
        return "not stated"
    return _value(value)
