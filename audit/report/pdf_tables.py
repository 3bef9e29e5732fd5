"""Tables for print: how wide their columns are; reportlab breaks them over pages, under their heads.

A row stays whole where it fits on a page, and is cut where it does not, so that no entry can keep a report from being
printed. A table never leaves one short row alone on a page.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.platypus import Flowable, KeepTogether, LongTable, Paragraph

from audit.report.document import Cell, Table
from audit.report.pdf_text import (
    HAIR,
    INK,
    ROOM,
    SMALL,
    SOFT,
    SPACES,
    TABLE,
    TONES,
    WIDTH,
    Face,
    colour_of,
    fitting,
    paragraph,
    piece,
    pieces,
)

_PAD = 4.0
_MANY_COLUMNS, _SMALL_TABLE = 9, 6.9
_LEADING = 1.36
_WORD_MAX, _TITLE_MAX = 96.0, 120.0
_HEAD_LINES = 4
_SHORT, _SHORT_PART = 104.0, 0.62
"""Texts up to so wide stay on one line, if their columns take no more than this part of the page."""

_KEPT_ROWS, _KEPT_HEIGHT = 10, 240.0
"""Tables up to so many rows and points stay on one page."""

_LOW_LINES = 8
"""Rows up to so many lines are kept beside their neighbours at the ends of a table."""


class Grid(LongTable):  # type: ignore[misc]  # reportlab has no types
    """reportlab's table, which cuts a row only where it is higher than a page."""

    def __init__(self, rows: Sequence[Sequence[Any]], **options: Any) -> None:
        super().__init__(rows, **{"hAlign": "LEFT", "splitByRow": 1, **options})

    def split(self, width: float, height: float) -> list[Flowable]:
        """Called by reportlab where the table does not fit."""
        self._calc(width, height)
        self.splitInRow = int(sum(self._rowHeights[: self.repeatRows + 1]) > ROOM)
        return cast("list[Flowable]", super().split(width, height))


def caption(text: str) -> Paragraph:
    """The words above a chart or a table."""
    style = pieces((text,), SMALL + 0.6, SOFT)
    return paragraph(style, SMALL + 0.6, before=3, after=3)


def printed(table: Table) -> list[Flowable]:
    """A table, or several where the page is too narrow for its columns."""
    made: list[Flowable] = []
    for place, part in enumerate(_column_groups(table)):
        one = _long_table(part)
        above = [caption(table.caption)] if table.caption and not place else []
        if len(part.rows) <= _KEPT_ROWS and one.wrap(WIDTH, 2 * _KEPT_HEIGHT)[1] <= _KEPT_HEIGHT:
            made.append(KeepTogether([*above, one]))
        else:
            made += [*above, one]
    return made


def _column_groups(table: Table) -> Iterator[Table]:
    """The table itself, or one for each group of its columns where the page is too narrow for their words.

    Each has the first column again. A table with cells over several columns is never cut.
    """
    least = [one.word for one in _wishes(table)]
    if sum(least) <= WIDTH or len(least) < 3 or any(one.columns > 1 for row in table.rows for one in row):
        yield table
        return
    groups: list[list[int]] = [[0]]
    for place, width in enumerate(least[1:], 1):
        if len(groups[-1]) > 1 and sum(least[other] for other in groups[-1]) + width > WIDTH:
            groups.append([0])
        groups[-1].append(place)
    for group in groups:
        yield Table(
            columns=tuple(table.columns[place] for place in group),
            rows=tuple(tuple(row[place] for place in group) for row in table.rows),
            first_names_row=table.first_names_row,
            compact=table.compact or len(groups) > 1,
        )


def _long_table(table: Table) -> Grid:
    widths = _column_widths(table)
    size, last = _size_of(table), len(table.rows)
    style: list[Any] = [
        ("VALIGN", (0, 0), (-1, 0), "BOTTOM"),
        ("VALIGN", (0, 1), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), _PAD),
        ("RIGHTPADDING", (0, 0), (-1, -1), _PAD),
        ("TOPPADDING", (0, 0), (-1, -1), 2.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3.5),
        ("LINEBELOW", (0, 0), (-1, 0), 0.7, colour_of(INK)),
    ]
    if last:
        style.append(("LINEBELOW", (0, 1), (-1, -1), 0.5, colour_of(HAIR)))
    head = [
        paragraph(
            [piece(fitting(one.title, Face.BOLD, SMALL, _HEAD_LINES * (width - 2 * _PAD)), Face.BOLD, SMALL, SOFT)],
            SMALL,
            leading=1.3,
            align=one.align,
            loose=True,
        )
        for one, width in zip(table.columns, widths, strict=True)
    ]
    rows: list[list[Paragraph | str]] = [list(head)]
    low = [_lines(table, row, widths) <= _LOW_LINES for row in (*table.rows[:2], *table.rows[-2:])]
    for number, row in enumerate(table.rows, 1):
        cells: list[Paragraph | str] = []
        for one in row:
            place = len(cells)
            align = table.columns[place].align if one.columns == 1 else "left"
            cells.append(paragraph(_cell_pieces(table, one, place), size, leading=_LEADING, align=align, loose=True))
            cells += [""] * (one.columns - 1)
            if one.columns > 1:
                style.append(("SPAN", (place, number), (place + one.columns - 1, number)))
            if one.shade is not None:
                style.append(("BACKGROUND", (place, number), (place, number), colour_of(_shaded(one.shade))))
        rows.append(cells)
    if last > 2 and all(low):
        style += [("NOSPLIT", (0, 0), (-1, 2)), ("NOSPLIT", (0, -2), (-1, -1))]
    return Grid(rows, colWidths=widths, repeatRows=1, style=style, spaceBefore=3, spaceAfter=9)


def _lines(table: Table, row: Sequence[Cell], widths: Sequence[float]) -> float:
    """How many lines a row has, about."""
    most, place = 0.0, 0
    for one in row:
        width = sum(widths[place : place + one.columns]) - 2 * _PAD
        most = max(most, _across(_cell_pieces(table, one, place)) / width)
        place += one.columns
    return most * 1.2 + 1


def _size_of(table: Table) -> float:
    """Of the letters: a table of many columns has smaller ones."""
    return TABLE if len(table.columns) < _MANY_COLUMNS else _SMALL_TABLE


def _cell_pieces(table: Table, one: Cell, place: int) -> list[Any]:
    face = Face.BOLD if table.first_names_row and place == 0 else Face.REGULAR
    dark = one.shade is not None and one.shade > 0.55
    return pieces(one.content, _size_of(table), "#ffffff" if dark else TONES[one.tone], face, one.leaves)


def _across(made_of: Sequence[Any]) -> float:
    """The width of all of it on one line."""
    return float(sum(stringWidth(one.text, one.fontName, one.fontSize) for one in made_of))


def _column_widths(table: Table) -> list[float]:
    """As wide as their text where all of it fits; else the widest words first, and the rest by what remains to say.

    Columns share what remains in proportion to their usual amount of text, so that the rows become low; none gets more
    than its longest text needs.
    """
    wishes = _wishes(table)
    least, most = [one.word for one in wishes], [one.text for one in wishes]
    weights = [column.weight for column in table.columns]
    if sum(most) <= WIDTH:
        spare = 0.0 if table.compact else WIDTH - sum(most)
        total = sum(width * weight for width, weight in zip(most, weights, strict=True))
        return [width + spare * width * weight / total for width, weight in zip(most, weights, strict=True)]
    unbroken = [whole if whole <= _SHORT else word for word, whole in zip(least, most, strict=True)]
    if sum(unbroken) <= WIDTH * _SHORT_PART:
        least = unbroken
    if sum(least) > WIDTH:
        return [width * WIDTH / sum(least) for width in least]
    return _filled(least, most, [one.usual for one in wishes])


def _filled(least: Sequence[float], most: Sequence[float], usual: Sequence[float]) -> list[float]:
    """Widths that fill the page, each a common multiple of the column's usual text within its least and its most."""

    def widths(factor: float) -> list[float]:
        return [min(top, max(low, mean * factor)) for low, top, mean in zip(least, most, usual, strict=True)]

    small, large = 0.0, max(top / mean for top, mean in zip(most, usual, strict=True))
    for _ in range(40):
        middle = (small + large) / 2
        small, large = (small, middle) if sum(widths(middle)) > WIDTH else (middle, large)
    return widths(small)


@dataclass(frozen=True, slots=True)
class _Wish:
    """How wide a column must be for its widest word (not beyond all measure), its longest text, and its usual one.

    The usual one is a root mean square: one long text counts for more than several short ones.
    """

    word: float
    text: float
    usual: float


def _wishes(table: Table) -> list[_Wish]:
    words, texts, usual = [], [], [0.0] * len(table.columns)
    for column in table.columns:
        title = [piece(column.title, Face.BOLD, SMALL, SOFT)]
        words.append(_widest_word(title))
        texts.append(min(_across(title), _TITLE_MAX))
    for row in table.rows:
        place = 0
        for one in row:
            if one.columns == 1:
                made_of = _cell_pieces(table, one, place)
                whole = _across(made_of)
                if whole > words[place]:
                    words[place] = max(words[place], _widest_word(made_of))
                texts[place] = max(texts[place], whole)
                usual[place] += whole**2 / len(table.rows)
            place += one.columns
    return [
        _Wish(max(12.0, word) + 2 * _PAD + 0.1, max(12.0, whole) + 2 * _PAD + 0.1, max(12.0, math.sqrt(mean)))
        for word, whole, mean in zip(words, texts, usual, strict=True)
    ]


def _widest_word(made_of: Sequence[Any]) -> float:
    """Of words within one piece; not beyond all measure, since a digest may be broken anywhere."""
    widest = 0.0
    for one in made_of:
        for word in SPACES.split(one.text):
            widest = max(widest, stringWidth(word, one.fontName, one.fontSize))
            if widest > _WORD_MAX:
                return _WORD_MAX
    return widest


def _shaded(shade: float) -> str:
    """Blue on white."""
    part = 0.9 * min(1.0, max(0.0, shade))
    mixed = (round(255 + (value - 255) * part) for value in (11, 95, 165))
    return "#" + "".join(f"{value:02x}" for value in mixed)
