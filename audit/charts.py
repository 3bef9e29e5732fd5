"""The report's charts as inline SVG: drawn by arithmetic, no script, no font of its own, readable in black and white.

Pure functions of plain values. Text from the log is escaped; `Markup` tells the template that a chart is safe.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from markupsafe import Markup, escape

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 150, 14, 36

COLOURS = ("#0b5fa5", "#c2571a", "#2e7d32", "#7b3fa0", "#a8323e", "#00838f", "#8a6d00", "#4a5568")
"""Told apart with colour-blind eyes in the order they are used; beyond eight they repeat and dashes differ."""

DASHES = ("", "6 3", "2 3", "9 3 2 3")

Series = tuple[str, Sequence[tuple[float, float]]]


_SHARES = {"auc": "AUC", "dice": "Dice", "accuracy": "accuracy"}


def training(
    rows: Sequence[tuple[int, Mapping[str, float | None]]], values: Sequence[str] = ()
) -> list[tuple[str, Markup]]:
    """Figures over rounds: (caption, picture) of those between 0 and 1, of Dice by class, and of the loss.

    Args:
        rows: (round, metrics by their names in the log).
        values: What the values of the study's label are called; the first of a mask is the background.
    """
    classes = {f"dice.{place}": f"value {value}" for place, value in enumerate(values) if place}
    shares = [label for name, label in _SHARES.items() if any(metrics.get(name) is not None for _, metrics in rows)]
    pictures = []
    for what, columns in (
        (" and ".join(shares), _SHARES),
        ("Dice of each class", classes if len(classes) in range(2, len(COLOURS) + 1) else {}),
        ("Loss", {"loss": "loss"}),
    ):
        series: list[Series] = []
        for name, label in columns.items():
            points = [(float(number), float(value)) for number, m in rows if (value := m.get(name)) is not None]
            if points:
                series.append((label, points))
        if series:
            title = f"{what} over all test patients, by round"
            pictures.append((title, lines(title, series, unit="round")))
    return pictures


def epsilon(rows: Sequence[tuple[int, str, float]], *, budget: float) -> Markup | None:
    """Each site's cumulative epsilon over rounds, under the study's budget; rows are (round, site, epsilon)."""
    by_site: dict[str, list[tuple[float, float]]] = {}
    for number, site, value in rows:
        by_site.setdefault(site, []).append((float(number), value))
    if not by_site:
        return None
    series: list[Series] = sorted(by_site.items())
    return lines("Epsilon spent so far, by site", series, unit="round", limit=("budget", budget), floor=0.0)


def lines(
    title: str,
    series: Sequence[Series],
    *,
    unit: str,
    limit: tuple[str, float] | None = None,
    floor: float | None = None,
) -> Markup:
    """A line chart; `limit` is a named horizontal line, `floor` the lowest value shown."""
    xs = [x for _, points in series for x, _ in points]
    ys = [y for _, points in series for _, y in points] + ([limit[1]] if limit else [])
    x_low, x_high = min(xs), max(*xs, min(xs) + 1)
    y_low = min(ys) if floor is None else floor
    ticks = _ticks(y_low, max(*ys, y_low + 1e-9))
    y_low, y_high = ticks[0], ticks[-1]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (right - LEFT)
        return across, bottom - (y - y_low) / (y_high - y_low) * (bottom - TOP)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in ticks:
        _, y = at(x_low, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for number in _whole_ticks(x_low, x_high):
        x, _ = at(number, y_low)
        parts.append(f'<text class="axis" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{number:g}</text>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="axis" x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(unit)}</text>')
    labels: list[tuple[float, str, str]] = []
    if limit:
        _, y = at(x_low, limit[1])
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        labels.append((y, "#444", f"{limit[0]} {limit[1]:g}"))
    for number, (name, points) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        dash = DASHES[number // len(COLOURS) % len(DASHES)] if len(series) > len(COLOURS) else DASHES[number % 4]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-dasharray="{dash}"/>')
        x, y = at(*points[-1])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        labels.append((y, colour, f"{name} {points[-1][1]:.3g}"))
    for y, colour, text in _apart(labels):
        parts.append(
            f'<text class="name" x="{right + 8}" y="{y + 4:.1f}" fill="{colour}">{escape(_short(text))}</text>'
        )
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  # every text above is escaped


def calibration(points: Sequence[tuple[float, float, float | None, float | None, int]]) -> Markup | None:
    """Observed share of patients with the label over predicted probability, beside the diagonal of a perfect model.

    Args:
        points: (mean score, share, lower bound, upper bound, patients) of each bin, by rising score; the bounds are
            drawn as a bar, and every point says in words what it is.

    Returns:
        None without points.
    """
    if not points:
        return None
    title = "Calibration curve: share of patients with the label over predicted probability"
    said = "; ".join(f"predicted {score:.2f}, observed {rate:.2f}, {n} patients" for score, rate, _, _, n in points)
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
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(score, rate) for score, rate, *_ in points))
    parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
    for score, rate, low, high, patients in points:
        x, y = at(score, rate)
        parts.append(f"<g><title>predicted {score:.3f}, observed {rate:.3f}, {patients} patients</title>")
        if low is not None and high is not None:
            y_from, y_to = at(score, low)[1], at(score, high)[1]
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y_from:.1f}" y2="{y_to:.1f}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/></g>')
    x, y = at(*points[-1][:2])
    label_y = y + 4 if y > y_high + 14 else y + 18  # clear of the word beside the diagonal
    parts.append(f'<text class="name" x="{right + 8}" y="{label_y:.1f}" fill="{colour}">observed</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  # every text above is escaped


def boxes(
    title: str, rows: Sequence[tuple[str, Sequence[float], float, float | None, float | None, int]]
) -> Markup | None:
    """Box plots of values between 0 and 1, one below the other.

    Args:
        title: What is shown.
        rows: (name, five quantiles, mean, its lower bound, its upper bound, patients). The box goes from the second
            quantile to the fourth with a line at the third, its whiskers to the first and the last; the mean is a dot
            with its interval below the box. Without quantiles there is the mean alone.

    Returns:
        None without rows.
    """
    if not rows:
        return None
    left, step, top = 130, 46, 10
    right, bottom = WIDTH - 70, top + step * len(rows)
    said = "; ".join(
        f"{name}: mean {mean:.3f}" + (f", median {quantiles[2]:.3f}" if quantiles else "") + f", {patients} patients"
        for name, quantiles, mean, _, _, patients in rows
    )

    def at(value: float) -> float:
        return left + min(1.0, max(0.0, value)) * (right - left)

    parts = [f'<svg viewBox="0 0 {WIDTH} {bottom + 36}" role="img" aria-label="{escape(f"{title}. {said}.")}">']
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x = at(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text class="axis" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for number, (name, quantiles, mean, low, high, patients) in enumerate(rows):
        colour, y = COLOURS[number % len(COLOURS)], top + step * number + 18
        parts.append(f"<g><title>{escape(f'{name}: mean {mean:.3f}, {patients} patients')}</title>")
        parts.append(f'<text class="axis" x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(_short(name))}</text>')
        if quantiles:
            first, lower, middle, upper, last = (at(value) for value in quantiles)
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
        if low is not None and high is not None:
            parts.append(
                f'<line x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{below}" y2="{below}" stroke="{colour}" '
                'stroke-width="2"/>'
            )
        parts.append(f'<circle cx="{at(mean):.1f}" cy="{below}" r="3.5" fill="{colour}"/></g>')
        parts.append(f'<text class="name" x="{right + 12}" y="{y + 8}" fill="{colour}">{mean:.3f}</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  # every text above is escaped


def participation(
    sites: Sequence[str],
    rounds: Sequence[tuple[str, str, AbstractSet[str], AbstractSet[str], Mapping[str, str]]],
) -> Markup | None:
    """Who was in which round; each round is (label, state, participants, survivors, {dropout: phase}).

    A filled square is a contribution in the sum, a crossed one a dropout, an empty one an attempt without result.
    """
    if not sites or not rounds:
        return None
    cell = max(7.0, min(22.0, 760 / len(rounds)))
    left, top = 130, 8
    width, height = left + cell * len(rounds) + 8, top + 24 * len(sites) + 26
    parts = [f'<svg viewBox="0 0 {width:.0f} {height}" style="max-width:{width:.0f}px" role="img"']
    parts.append(' aria-label="Participation by round">')
    for row, site in enumerate(sites):
        y = top + 24 * row
        name = escape(_short(site))
        parts.append(f'<text class="axis" x="{left - 10}" y="{y + 14}" text-anchor="end">{name}</text>')
        for column, (label, state, participants, survivors, dropouts) in enumerate(rounds):
            if site not in participants:
                continue
            x = left + cell * column
            kind = "in" if site in survivors else "out" if site in dropouts or state == "closed" else "none"
            said = {"in": "in the sum", "out": f"dropout {dropouts.get(site, '')}", "none": state}[kind]
            side = cell - 2
            parts.append(
                f'<g class="cell {kind}"><title>{escape(site)}, round {escape(label)}: {escape(said)}</title>'
                f'<rect x="{x:.1f}" y="{y}" width="{side:.1f}" height="20" rx="2"/>'
            )
            if kind == "out":
                parts.append(f'<path d="M{x + 2:.1f} {y + 4}l{side - 4:.1f} 12m0 -12l{4 - side:.1f} 12"/>')
            parts.append("</g>")
    every = max(1, round(28 / cell))
    for column, (label, *_) in enumerate(rounds):
        if column % every == 0 or column == len(rounds) - 1:
            x = left + cell * column + cell / 2
            parts.append(f'<text class="axis" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{escape(label)}</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704  # every text above is escaped


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values that enclose low..high."""
    power = 10.0 ** math.floor(math.log10(high - low))
    size = next(power * step for step in (0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / (power * step) < 5.01)
    first = int(low // size)
    ticks = [first * size]
    while ticks[-1] < high - size * 1e-6:
        ticks.append((first + len(ticks)) * size)
    if len(ticks) == 1:
        ticks.append(ticks[0] + size)
    return [round(tick, 12) for tick in ticks]


def _whole_ticks(low: float, high: float) -> list[int]:
    step = max(1, -(-int(high - low) // 10))
    return list(range(int(low), int(high) + 1, step))


def _apart(labels: list[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Move labels down until no two overlap, then up again where they would leave the picture."""
    placed: list[tuple[float, str, str]] = []
    for y, colour, text in sorted(labels):
        placed.append((max(y, placed[-1][0] + 14) if placed else y, colour, text))
    lowest = HEIGHT - 6.0
    for index in range(len(placed) - 1, -1, -1):
        y, colour, text = placed[index]
        placed[index] = (min(y, lowest), colour, text)
        lowest = placed[index][0] - 14
    return placed


def _short(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:19]}\u2026"
