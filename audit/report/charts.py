"""The report's charts as inline SVG: drawn by arithmetic, no script, no font of its own, readable in black and white.

Pure functions of a document's charts. Text from the log is escaped; `Markup` tells the template that a chart is safe.
"""

from typing import assert_never

from markupsafe import Markup, escape

from audit.report.document import AttendanceChart, BoxChart, CalibrationChart, Chart, LineChart
from audit.report.scales import COLOURS, apart, dash_of, short, ticks, whole_ticks

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 150, 14, 36


def draw(chart: Chart) -> Markup:
    """A chart of any kind."""
    match chart:
        case LineChart():
            return lines(chart)
        case CalibrationChart():
            return calibration(chart)
        case BoxChart():
            return boxes(chart)
        case AttendanceChart():
            return participation(chart)
        case _:
            assert_never(chart)


def lines(chart: LineChart) -> Markup:
    """A line for each series, named at its end, and the limit as a line across."""
    title, limit = chart.caption, chart.limit
    xs = [x for one in chart.series for x, _ in one.points]
    ys = [y for one in chart.series for _, y in one.points] + ([limit[1]] if limit else [])
    x_low, x_high = min(xs), max(*xs, min(xs) + 1)
    y_low = min(ys) if chart.floor is None else chart.floor
    levels = ticks(y_low, max(*ys, y_low + 1e-9))
    y_low, y_high = levels[0], levels[-1]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (right - LEFT)
        return across, bottom - (y - y_low) / (y_high - y_low) * (bottom - TOP)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in levels:
        _, y = at(x_low, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for number in whole_ticks(x_low, x_high):
        x, _ = at(number, y_low)
        parts.append(f'<text class="axis" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{number:g}</text>')
    middle = (LEFT + right) / 2
    parts.append(
        f'<text class="axis" x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(chart.unit)}</text>'
    )
    labels: list[tuple[float, str, str]] = []
    if limit:
        _, y = at(x_low, limit[1])
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        labels.append((y, "#444", f"{limit[0]} {limit[1]:g}"))
    for number, one in enumerate(chart.series):
        colour = COLOURS[number % len(COLOURS)]
        dash = dash_of(number, len(chart.series))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in one.points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-dasharray="{dash}"/>')
        x, y = at(*one.points[-1])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        labels.append((y, colour, f"{one.name} {one.points[-1][1]:.3g}"))
    for y, colour, text in apart(labels, lowest=HEIGHT - 6.0):
        parts.append(f'<text class="name" x="{right + 8}" y="{y + 4:.1f}" fill="{colour}">{escape(short(text))}</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  # every text above is escaped


def calibration(chart: CalibrationChart) -> Markup:
    """Observed share over predicted probability, each point with the bar of its interval and what it is in words."""
    title = "Calibration curve: share of patients with the label over predicted probability"
    said = "; ".join(
        f"predicted {one.score:.2f}, observed {one.rate:.2f}, {one.patients} patients" for one in chart.points
    )
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + x * (right - LEFT), bottom - y * (bottom - TOP)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}. {said}.")}">']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x, y = at(tick, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text class="axis" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="axis" x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">predicted</text>')
    (x_low, y_low), (x_high, y_high) = at(0, 0), at(1, 1)
    parts.append(f'<line class="limit" x1="{x_low}" y1="{y_low}" x2="{x_high}" y2="{y_high}"/>')
    parts.append(f'<text class="name" x="{right + 8}" y="{y_high + 4:.1f}" fill="#444">perfect</text>')
    colour = COLOURS[0]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(one.score, one.rate) for one in chart.points))
    parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
    for one in chart.points:
        x, y = at(one.score, one.rate)
        parts.append(f"<g><title>predicted {one.score:.3f}, observed {one.rate:.3f}, {one.patients} patients</title>")
        if one.low is not None and one.high is not None:
            y_from, y_to = at(one.score, one.low)[1], at(one.score, one.high)[1]
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y_from:.1f}" y2="{y_to:.1f}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/></g>')
    x, y = at(chart.points[-1].score, chart.points[-1].rate)
    label_y = y + 4 if y > y_high + 14 else y + 18  # clear of the word beside the diagonal
    parts.append(f'<text class="name" x="{right + 8}" y="{label_y:.1f}" fill="{colour}">observed</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  # every text above is escaped


def boxes(chart: BoxChart) -> Markup:
    """Box plots one below the other.

    The box goes from the second quantile to the fourth with a line at the third, its whiskers to the first and the
    last; the mean is a dot with its interval below the box. Without quantiles there is the mean alone.
    """
    title, rows = chart.caption, chart.rows
    left, step, top = 130, 46, 10
    right, bottom = WIDTH - 70, top + step * len(rows)
    said = "; ".join(
        f"{one.name}: mean {one.mean:.3f}"
        + (f", median {one.quantiles[2]:.3f}" if one.quantiles else "")
        + f", {one.patients} patients"
        for one in rows
    )

    def at(value: float) -> float:
        return left + min(1.0, max(0.0, value)) * (right - left)

    parts = [f'<svg viewBox="0 0 {WIDTH} {bottom + 36}" role="img" aria-label="{escape(f"{title}. {said}.")}">']
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x = at(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="axis" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for number, one in enumerate(rows):
        colour, y = COLOURS[number % len(COLOURS)], top + step * number + 18
        parts.append(f"<g><title>{escape(f'{one.name}: mean {one.mean:.3f}, {one.patients} patients')}</title>")
        parts.append(
            f'<text class="axis" x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(short(one.name))}</text>'
        )
        if one.quantiles:
            first, lower, middle, upper, last = (at(value) for value in one.quantiles)
            parts.append(f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{y}" y2="{y}" stroke="{colour}"/>')
            parts += [
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 5}" y2="{y + 5}" stroke="{colour}"/>' for x in (first, last)
            ]
            parts.append(
                f'<rect x="{lower:.1f}" y="{y - 10}" width="{max(1.0, upper - lower):.1f}" height="20" rx="2" '
                f'fill="#fff" stroke="{colour}" stroke-width="1.5"/>'
            )
            parts.append(
                f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{y - 10}" y2="{y + 10}" stroke="{colour}" '
                'stroke-width="3"/>'
            )
        below = y + 17
        if one.low is not None and one.high is not None:
            parts.append(
                f'<line x1="{at(one.low):.1f}" x2="{at(one.high):.1f}" y1="{below}" y2="{below}" stroke="{colour}" '
                'stroke-width="2"/>'
            )
        parts.append(f'<circle cx="{at(one.mean):.1f}" cy="{below}" r="3.5" fill="{colour}"/></g>')
        parts.append(f'<text class="name" x="{right + 12}" y="{y + 8}" fill="{colour}">{one.mean:.3f}</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  # every text above is escaped


def participation(chart: AttendanceChart) -> Markup:
    """A square for each hospital in each round: filled in the sum, crossed a dropout, empty without a result."""
    sites, rounds = chart.sites, chart.rounds
    cell = max(7.0, min(22.0, 760 / len(rounds)))
    left, top = 130, 8
    width, height = left + cell * len(rounds) + 8, top + 24 * len(sites) + 26
    parts = [f'<svg viewBox="0 0 {width:.0f} {height}" style="max-width:{width:.0f}px" role="img"']
    parts.append(' aria-label="Participation by round">')
    for row, site in enumerate(sites):
        y = top + 24 * row
        name = escape(short(site))
        parts.append(f'<text class="axis" x="{left - 10}" y="{y + 14}" text-anchor="end">{name}</text>')
        for column, one in enumerate(rounds):
            kind = one.part_of(site)
            if kind == "absent":
                continue
            x = left + cell * column
            said = {"in": "in the sum", "out": f"dropout {dict(one.dropouts).get(site, '')}", "none": one.state}[kind]
            side = cell - 2
            parts.append(
                f'<g class="cell {kind}"><title>{escape(site)}, round {escape(one.label)}: {escape(said)}</title>'
                f'<rect x="{x:.1f}" y="{y}" width="{side:.1f}" height="20" rx="2"/>'
            )
            if kind == "out":
                parts.append(f'<path d="M{x + 2:.1f} {y + 4}l{side - 4:.1f} 12m0 -12l{4 - side:.1f} 12"/>')
            parts.append("</g>")
    every = max(1, round(28 / cell))
    for column, one in enumerate(rounds):
        if column % every == 0 or column == len(rounds) - 1:
            x = left + cell * column + cell / 2
            parts.append(
                f'<text class="axis" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{escape(one.label)}</text>'
            )
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  # every text above is escaped
