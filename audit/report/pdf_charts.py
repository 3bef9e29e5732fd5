"""The charts of a report for print: the pictures of charts.py as reportlab drawings, which are vectors.

A drawing's origin is its lower left corner. Here heights are counted from its upper edge, as in charts.py.
"""

from collections.abc import Sequence
from typing import assert_never

from reportlab.graphics.shapes import Circle, Drawing, PolyLine, Rect, String

from audit.report.document import AttendanceChart, BoxChart, CalibrationChart, Chart, LineChart
from audit.report.pdf_text import BAD, BLUE, HAIR, LIMIT, SOFT, Face, colour_of, fitting, width_of
from audit.report.scales import COLOURS, apart, dash_of, ticks, whole_ticks

SIZE = 7.5
_LABELS = 96.0
_BEFORE = 34.0
_NAMES = 96.0
_GREY = "#9aa5b1"


def draw(chart: Chart, width: float) -> Drawing:
    """A chart as wide as `width`, in points."""
    match chart:
        case LineChart():
            return _lines(chart, width)
        case CalibrationChart():
            return _calibration(chart, width)
        case BoxChart():
            return _boxes(chart, width)
        case AttendanceChart():
            return _attendance(chart, width)
        case _:
            assert_never(chart)


class _Picture:
    """A drawing on its way; places are counted from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.drawing = Drawing(width, height)
        self.width, self.height = width, height

    def stroke(
        self, points: Sequence[tuple[float, float]], colour: str, line: float = 0.5, dash: Sequence[float] = ()
    ) -> None:
        flat = [value for x, y in points for value in (x, self.height - y)]
        dashes = list(dash) or None
        self.drawing.add(
            PolyLine(flat, strokeColor=colour_of(colour), strokeWidth=line, strokeDashArray=dashes, strokeLineJoin=1)
        )

    def box(
        self, x: float, y: float, width: float, height: float, *, fill: str, colour: str, line: float = 0.5
    ) -> None:
        self.drawing.add(
            Rect(
                x,
                self.height - y - height,
                width,
                height,
                fillColor=colour_of(fill),
                strokeColor=colour_of(colour),
                strokeWidth=line,
            )
        )

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        self.drawing.add(
            Circle(x, self.height - y, radius, fillColor=colour_of(colour), strokeColor=None, strokeWidth=0)
        )

    def words(
        self, x: float, y: float, text: str, anchor: str = "start", *, face: Face = Face.REGULAR, colour: str = SOFT
    ) -> None:
        self.drawing.add(
            String(
                x,
                self.height - y,
                text,
                fontName=face.value,
                fontSize=SIZE,
                fillColor=colour_of(colour),
                textAnchor=anchor,
            )
        )


def _lines(chart: LineChart, width: float) -> Drawing:
    height = max(164.0, 10.0 * (len(chart.series) + 1) + 34)
    picture = _Picture(width, height)
    points = [point for one in chart.series for point in one.points]
    heights = [value for _, value in points] + ([chart.limit[1]] if chart.limit else [])
    x_low, x_high = min(at for at, _ in points), max(*(at for at, _ in points), min(at for at, _ in points) + 1)
    lowest = min(heights) if chart.floor is None else chart.floor
    levels = ticks(lowest, max(*heights, lowest + 1e-9))
    left, right = _BEFORE, width - _LABELS
    top, bottom = 8.0, height - 30

    def place(across: float, up: float) -> tuple[float, float]:
        return (
            left + (across - x_low) / (x_high - x_low) * (right - left),
            bottom - (up - levels[0]) / (levels[-1] - levels[0]) * (bottom - top),
        )

    for level in levels:
        _, y = place(x_low, level)
        picture.stroke(((left, y), (right, y)), HAIR)
        picture.words(left - 6, y + 2.6, f"{level:g}", "end")
    for number in whole_ticks(x_low, x_high):
        picture.words(place(number, levels[0])[0], bottom + 12, f"{number:g}", "middle")
    picture.words((left + right) / 2, bottom + 23, fitting(chart.unit, Face.REGULAR, SIZE, 300), "middle")
    labels: list[tuple[float, str, str]] = []
    room = _LABELS - 8
    if chart.limit:
        _, y = place(x_low, chart.limit[1])
        picture.stroke(((left, y), (right, y)), LIMIT, 0.8, (1.5, 3))
        labels.append((y, LIMIT, _named(chart.limit[0], f"{chart.limit[1]:g}", room)))
    for number, one in enumerate(chart.series):
        colour = COLOURS[number % len(COLOURS)]
        dash = tuple(float(part) for part in dash_of(number, len(chart.series)).split())
        path = tuple(place(*point) for point in one.points)
        if len(path) > 1:
            picture.stroke(path, colour, 1.4, dash)
        picture.dot(*path[-1], 2.1, colour)
        labels.append((path[-1][1], colour, _named(one.name, f"{one.points[-1][1]:.3g}", room)))
    for y, colour, text in apart(labels, lowest=bottom + 18, step=10):
        picture.words(right + 7, y + 2.6, text, face=Face.BOLD, colour=colour)
    return picture.drawing


def _calibration(chart: CalibrationChart, width: float) -> Drawing:
    picture = _Picture(width, 196)
    left, top, bottom = _BEFORE, 8.0, picture.height - 30
    right = left + min(width - _BEFORE - _LABELS, (bottom - top) * 1.6)

    def place(across: float, up: float) -> tuple[float, float]:
        return left + across * (right - left), bottom - up * (bottom - top)

    for tick in (0, 0.25, 0.5, 0.75, 1):
        across, y = place(tick, tick)
        picture.stroke(((left, y), (right, y)), HAIR)
        picture.words(left - 6, y + 2.6, f"{tick:g}", "end")
        picture.words(across, bottom + 12, f"{tick:g}", "middle")
    picture.words((left + right) / 2, bottom + 23, "predicted", "middle")
    picture.stroke((place(0, 0), place(1, 1)), LIMIT, 0.8, (1.5, 3))
    picture.words(right + 7, place(1, 1)[1] + 2.6, "perfect", face=Face.BOLD, colour=LIMIT)
    colour = COLOURS[0]
    path = tuple(place(point.score, point.rate) for point in chart.points)
    if len(path) > 1:
        picture.stroke(path, colour, 1.4)
    for point, (across, y) in zip(chart.points, path, strict=True):
        if point.low is not None and point.high is not None:
            picture.stroke((place(point.score, point.low), place(point.score, point.high)), colour, 0.8)
        picture.dot(across, y, 2.3, colour)
    y = path[-1][1]
    clear = y + 2.6 if y > place(1, 1)[1] + 11 else y + 13
    picture.words(right + 7, clear, "observed", face=Face.BOLD, colour=colour)
    return picture.drawing


def _boxes(chart: BoxChart, width: float) -> Drawing:
    picture = _Picture(width, 40.0 * len(chart.rows) + 28)
    left, right, top = _NAMES, width - 50, 4.0
    bottom = top + 40 * len(chart.rows)

    def place(value: float) -> float:
        return left + min(1.0, max(0.0, value)) * (right - left)

    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        picture.stroke(((place(tick), top), (place(tick), bottom)), HAIR)
        picture.words(place(tick), bottom + 12, f"{tick:g}", "middle")
    for number, row in enumerate(chart.rows):
        colour, middle = COLOURS[number % len(COLOURS)], top + 40 * number + 15
        picture.words(left - 8, middle + 2.6, fitting(row.name, Face.REGULAR, SIZE, _NAMES - 10), "end")
        if row.quantiles:
            first, lower, median, upper, last = (place(value) for value in row.quantiles)
            picture.stroke(((first, middle), (last, middle)), colour, 0.8)
            for end in (first, last):
                picture.stroke(((end, middle - 4), (end, middle + 4)), colour, 0.8)
            picture.box(lower, middle - 7, max(1.0, upper - lower), 14, fill="#ffffff", colour=colour, line=1.1)
            picture.stroke(((median, middle - 7), (median, middle + 7)), colour, 2.0)
        below = middle + 13
        if row.low is not None and row.high is not None:
            picture.stroke(((place(row.low), below), (place(row.high), below)), colour, 1.4)
        picture.dot(place(row.mean), below, 2.3, colour)
        picture.words(right + 8, middle + 6, f"{row.mean:.3f}", face=Face.BOLD, colour=colour)
    return picture.drawing


def _attendance(chart: AttendanceChart, width: float) -> Drawing:
    picture = _Picture(width, 18.0 * len(chart.sites) + 34)
    side = min(16.0, (width - _NAMES) / len(chart.rounds))
    for row, site in enumerate(chart.sites):
        top = 18.0 * row + 2
        picture.words(_NAMES - 8, top + 9.6, fitting(site, Face.REGULAR, SIZE, _NAMES - 10), "end")
        for column, one in enumerate(chart.rounds):
            part = one.part_of(site)
            if part == "absent":
                continue
            left, gap = _NAMES + side * column, min(1.5, side / 5)
            right = left + side - gap
            if part == "in":
                picture.box(left, top, right - left, 14, fill=BLUE, colour=BLUE)
                continue
            colour = BAD if part == "out" else _GREY
            picture.box(left, top, right - left, 14, fill="#ffffff", colour=colour)
            if part == "out":
                picture.stroke(((left + 1, top + 2), (right - 1, top + 12)), colour, 0.8)
                picture.stroke(((left + 1, top + 12), (right - 1, top + 2)), colour, 0.8)
    every = max(1, -(-int(20 / side) // 1))
    last, under = len(chart.rounds) - 1, 18.0 * len(chart.sites) + 12
    for column, one in enumerate(chart.rounds):
        if (column % every == 0 and (column == 0 or last - column >= every)) or column == last:
            label = fitting(one.label, Face.REGULAR, SIZE, 40)
            middle = _NAMES + side * (column + 0.5)
            picture.words(min(middle, width - width_of(label, Face.REGULAR, SIZE) / 2), under, label, "middle")
    picture.words(_NAMES, under + 12, "round", "start")
    return picture.drawing


def _named(name: str, value: str, room: float) -> str:
    """A name, cut where it is too long, and its value, which never is."""
    return f"{fitting(name, Face.BOLD, SIZE, room - width_of(f' {value}', Face.BOLD, SIZE))} {value}"
