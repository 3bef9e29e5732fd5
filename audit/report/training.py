"""Section R8 of the report: how the model was trained, who contributed, what it is worth on test patients.

Figures come from entries of the log; what groups and classes are called, from the study document.
"""

from collections.abc import Iterator, Mapping, Sequence

from audit.report import quality
from audit.report.blocks import (
    LEAVES_MAX,
    NONE,
    ROWS_MAX,
    entries_table,
    fact,
    facts,
    figure,
    paragraph,
    remark,
    size,
    table,
)
from audit.report.document import (
    Attendance,
    AttendanceChart,
    Block,
    BoxChart,
    BoxRow,
    CalibrationChart,
    CalibrationPoint,
    Callout,
    Cell,
    Column,
    Heading,
    LeafRef,
    LineChart,
    Section,
    Series,
    Table,
    cell,
    code,
    soft,
)
from audit.report.figures import Report, RoundFigures
from audit.report.quality import Interval, Quality
from audit.report.scales import COLOURS

POINTS_MAX = 400
"""Of a line in a chart; more cannot be told apart on paper."""

ATTENDANCE_MAX = 200
"""Rounds in the chart of participation: the last ones."""

_SHARES = {"auc": "AUC", "dice": "Dice", "accuracy": "accuracy"}
_COLUMNS = (("auc", "AUC"), ("dice", "Dice"), ("accuracy", "Accuracy"), ("loss", "Loss"))


def training_section(report: Report) -> Section:
    """R8."""
    measured = measured_rounds(report)
    final = final_round(report)
    shown = quality.quality_of(dict(final.metrics or ()), report.document) if final else None
    return Section(
        number="R8",
        title="Training history",
        blocks=(
            *_participation(report),
            *_choice(report),
            *curves(_of_one_kind(report, measured), quality.values_of(report.document)),
            *_rounds(report, measured),
            *(_quality(report, final, shown) if final and shown and shown.figures else ()),
            Heading(text="Withdrawals and erasure"),
            *_withdrawals(report),
            facts(fact("Last global model", code(report.model_digest) if report.model_digest else "none")),
        ),
    )


def measured_rounds(report: Report) -> list[RoundFigures]:
    """Closed rounds whose model was measured."""
    return [one for one in report.rounds if one.state == "closed" and one.metrics is not None]


def final_round(report: Report) -> RoundFigures | None:
    """The round with the figures of the model that is kept: it starts from it. Without a choice, the last measured.

    Where validation patients chose, the round that ended the study, which measured that model on the test patients.
    """
    measured = measured_rounds(report)
    if report.chosen is not None:
        _, said = report.chosen
        if quality.has_validation(report.document):
            return next((one for one in measured if one.round == said.round), None)
        return next((one for one in measured if one.round == said.origin + 1), None)
    return measured[-1] if measured else None


def _of_one_kind(report: Report, measured: Sequence[RoundFigures]) -> Sequence[RoundFigures]:
    """Rounds whose figures are of the same patients: without the one that tests what validation patients chose."""
    if report.chosen is None or not quality.has_validation(report.document):
        return measured
    return [one for one in measured if one.round != report.chosen[1].round]


def thinned(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """At most POINTS_MAX of the points, evenly, the first and the last among them."""
    if len(points) <= POINTS_MAX:
        return tuple(points)
    step = (len(points) - 1) / (POINTS_MAX - 1)
    return tuple(points[round(number * step)] for number in range(POINTS_MAX))


def curves(measured: Sequence[RoundFigures], values: Sequence[str] = ()) -> Iterator[LineChart]:
    """Figures over rounds: of those between 0 and 1, of Dice by class, and of the loss.

    Args:
        measured: Rounds with metrics.
        values: What the values of the study's label are called; the first of a mask is the background.
    """
    rows = [(one.round, dict(one.metrics or ())) for one in measured]
    classes = {f"dice.{place}": f"value {value}" for place, value in enumerate(values) if place}
    shares = [label for name, label in _SHARES.items() if any(metrics.get(name) is not None for _, metrics in rows)]
    for what, columns in (
        (" and ".join(shares), _SHARES),
        ("Dice of each class", classes if len(classes) in range(2, len(COLOURS) + 1) else {}),
        ("Loss", {"loss": "loss"}),
    ):
        series = tuple(_series(rows, columns))
        if series:
            yield LineChart(caption=f"{what} over all test patients, by round", series=series, unit="round")


def _series(rows: Sequence[tuple[int, Mapping[str, float | None]]], columns: Mapping[str, str]) -> Iterator[Series]:
    for name, label in columns.items():
        points = [(float(number), value) for number, metrics in rows if (value := metrics.get(name)) is not None]
        if points:
            yield Series(name=label, points=thinned(points))


def _participation(report: Report) -> Iterator[Block]:
    threshold = min((one.threshold for one in report.rounds), default=None)
    yield Heading(text="Participation")
    yield paragraph(
        "The coordinator receives masked vectors and can open only their sum, and only over at least "
        f"{'the agreed number of' if threshold is None else threshold} hospitals."
    )
    if not report.rounds:
        yield remark("No round was started.")
        return
    shown = report.rounds[-ATTENDANCE_MAX:]
    left_out = len(report.rounds) - len(shown)
    yield AttendanceChart(
        caption="Rounds from left to right. Filled: in the sum. Crossed: dropout. Empty: attempt without a result."
        + (f" The last {len(shown)} of {len(report.rounds)} attempts." if left_out else ""),
        sites=tuple(site.site for site in report.sites),
        rounds=tuple(
            Attendance(
                label=f"{one.round}" if one.attempt == 1 else f"{one.round}.{one.attempt}",
                state=one.state,
                participants=one.participants,
                survivors=one.survivors,
                dropouts=tuple((dropout.site, dropout.phase) for dropout in one.dropouts),
            )
            for one in shown
        ),
    )
    yield Heading(text="Contributions")
    yield table(
        "Hospital",
        ">Rounds in the sum",
        ">Masked updates",
        ">Sent",
        rows=[
            (
                cell(site.site, leaves=(site.enrolled_leaf,)),
                cell(f"{site.rounds_survived} of {site.rounds_invited}"),
                cell(str(site.updates), leaves=_uploads(report, site.site)),
                cell(size(site.bytes_sent)),
            )
            for site in report.sites
        ],
    )


def _uploads(report: Report, site: str) -> tuple[int, ...]:
    """The first and the last upload of a site."""
    found = [(one.first_leaf, one.last_leaf) for one in report.uploads if one.site == site]
    return tuple(dict.fromkeys(found[0])) if found else ()


def _choice(report: Report) -> Iterator[Block]:
    if report.chosen is None:
        return
    leaf, said = report.chosen
    private = quality.without_privacy(report.document) is None
    price = ""
    if quality.budget_of(report.document) is not None:
        price = (
            " The figures it was chosen by carry noise and have the budget stated in section R7; choosing by them "
            "costs nothing more."
        )
    elif private:
        price = (
            " The figures it was chosen by are exact sums. What the choice gives away about the patients set aside is "
            "not in any epsilon of this report."
        )
    if private:
        price += (
            " The privacy of the model is that of all training up to the last round, not only up to the round that "
            "made it."
        )
    apart = quality.has_validation(report.document)
    how = (
        "The figure it was chosen by is the best of all that were measured, on the same patients: it is optimistic, "
        "and no patients were set aside whom the choice has not seen."
    )
    if apart:
        how = (
            "The figure it was chosen by is the best of all that were measured on the validation patients: it is "
            f"optimistic. Those of round {said.round} are of the test patients, whom nothing was chosen by."
        )
    yield Callout(
        title=f"The model was chosen by its {'validation' if apart else 'test'} figures",
        paragraphs=(
            (
                f"{said.reason[:1].upper()}{said.reason[1:]} ",
                LeafRef(index=leaf),
                (
                    ". verify.py makes the choice again from the figures in this log, and every hospital of the round "
                    "made it too."
                ),
            ),
            (f"{how}{price}",),
        ),
    )


def _rounds(report: Report, measured: Sequence[RoundFigures]) -> Iterator[Block]:
    if not report.rounds:
        return
    columns = [(name, label) for name, label in _COLUMNS if any(one.metric(name) is not None for one in measured)]
    yield Heading(text="Rounds")
    yield table(
        "Round",
        "Kind",
        "Result",
        ">In the sum",
        *(f">{label}" for _, label in columns),
        "Model after it",
        rows=[_round(one, [name for name, _ in columns]) for one in report.rounds[:ROWS_MAX]],
    )
    if len(report.rounds) > ROWS_MAX:
        yield remark(f"{len(report.rounds) - ROWS_MAX} more are in report.json.")


def _round(one: RoundFigures, columns: Sequence[str]) -> tuple[Cell, ...]:
    name = f"{one.round}" if one.attempt == 1 else f"{one.round}, attempt {one.attempt}"
    return (
        cell(name, leaves=(one.started_leaf,)),
        cell(one.kind),
        cell(one.state, leaves=(one.ended_leaf,), tone="plain" if one.state == "closed" else "soft"),
        cell(f"{len(one.survivors)} of {len(one.participants)}"),
        *(
            cell(figure(one.metric(column)), leaves=(one.metrics_leaf,) if place == 0 else ())
            for place, column in enumerate(columns)
        ),
        cell(code(f"{one.next_model_digest[:16]}\u2026") if one.next_model_digest else NONE),
    )


def _withdrawals(report: Report) -> Iterator[Block]:
    found = report.of("consent.withdrawn", "erasure.executed", "patients.withdrawn")
    if not found:
        yield remark("No withdrawal of patients or of consent and no erasure is in the log.")
        return
    yield from entries_table(found)
    snapshots = [leaf for leaf, entry in report.of("cohort.snapshot") if leaf > found[0][0]]
    if snapshots:
        refs = [part for leaf in snapshots[:LEAVES_MAX] for part in (" ", LeafRef(index=leaf))]
        yield remark("Cohorts prepared after the first of them:", *refs, ".")
    if report.of("patients.withdrawn"):
        yield remark(
            "From the next round after patients.withdrawn that the hospital took part in, its software put these "
            "patients on no side: not in training, not in tests, not where a model is chosen. Who they are and how "
            "many is in no entry. What was spent on their records stays spent."
        )
    yield remark(
        "A model that was trained before keeps what it has learned, and is not trained again; how much that can be of "
        "one patient is bounded by the epsilon of section R7: whoever has the model can tell with no more certainty "
        "than that whether this patient was in it. Without differential privacy there is no such bound."
    )
    yield remark(
        "Consent that is withdrawn makes what was done before no less lawful (GDPR, article 7(3)). Whether a released "
        "model is itself about a patient, so that erasure under article 17 reaches it, and what a revoked "
        "authorisation (45 CFR 164.508(b)(5)) still allows, is for people to decide; these figures are what they can "
        "decide it by."
    )


# --- the model on test patients ---------------------------------------------------------------------------------------


def _quality(report: Report, final: RoundFigures, shown: Quality) -> Iterator[Block]:
    chosen = report.chosen is not None
    yield Heading(
        text=f"{'The model that is kept' if chosen else 'The last model that was measured'}, on patients set aside for "
        "testing"
    )
    counts = [final.metric(name) for name in ("patients", "sites")]
    whose = "" if None in counts else f"{counts[0]:.0f} patients of {counts[1]:.0f} hospitals. "
    yield paragraph(
        f"{whose}Beside each figure stands its confidence interval of 95 %, where there is one: it speaks of other "
        "patients like these, not of other hospitals. All are from one entry",
        *((" ", LeafRef(index=final.metrics_leaf)) if final.metrics_leaf is not None else ()),
        ".",
    )
    rows = [(cell(one.label), cell(figure(one.value)), cell(_bounds(one))) for one in (*shown.figures, *shown.areas)]
    if shown.score is not None and shown.rate is not None:
        words = "Mean score, beside the share of patients with the label"
        rows.append((cell(words), cell(f"{figure(shown.score)}, {figure(shown.rate)}"), cell(NONE)))
    if shown.curve_error is not None:
        rows.append((cell("Calibration error, mean over patients"), cell(figure(shown.curve_error)), cell(NONE)))
    yield table("Figure", ">Value", ">95 % interval", rows=rows, weights=(3, 1, 1.4))
    if shown.dice:
        yield from _dice(shown)
    if shown.confusion:
        yield from _confusion(shown)
    if shown.curve:
        yield CalibrationChart(
            caption="Calibration: of the patients given a probability, how many have the label. Bars are intervals of "
            "95 %; bins with too few patients are left out.",
            points=tuple(
                CalibrationPoint(score=one.score, rate=one.rate, low=one.low, high=one.high, patients=one.patients)
                for one in shown.curve
            ),
        )
    if shown.spread:
        yield Heading(text="Differences between hospitals")
        yield paragraph(
            "Each hospital's own figure, all hospitals weighing the same. No hospital's figure is known to others."
        )
        yield table(
            "Figure",
            ">Hospitals",
            ">Mean",
            ">Standard deviation",
            rows=[
                (cell(one.label), cell(str(one.sites)), cell(figure(one.mean)), cell(figure(one.deviation)))
                for one in shown.spread
            ],
        )
    if shown.groups:
        yield from _groups(report, shown)


def _bounds(one: Interval | None) -> str:
    if one is None or one.low is None or one.high is None:
        return NONE
    return f"{one.low:.3f} to {one.high:.3f}"


def _dice(shown: Quality) -> Iterator[Block]:
    yield Heading(text="Dice, by class")
    few = (
        ""
        if shown.minimum_cell is None
        else (f" A class with fewer than {shown.minimum_cell} such patients has no figures.")
    )
    yield paragraph(
        "How well the predicted regions cover the true ones: 1 is in full, 0 is not at all. The mean is over the test "
        "patients in whom there is something to find or something was found; the others are left out of that class."
        + few
    )
    boxes = tuple(
        BoxRow(
            name=one.name,
            quantiles=one.quantiles,
            mean=one.mean.value,
            low=one.mean.low,
            high=one.mean.high,
            patients=one.patients or 0,
        )
        for one in shown.dice
        if one.mean
    )
    if boxes:
        yield BoxChart(
            caption="Dice over test patients. Box: the middle half of the patients, with the median; whiskers: the "
            "middle 80 %; dot: the mean with its 95 % interval. Read off a histogram summed over hospitals.",
            rows=boxes,
        )
    yield table(
        "Class",
        ">Patients",
        ">Mean",
        ">95 % interval",
        ">Standard deviation",
        *(f">{name}" for name in ("10 %", "25 %", "Median", "75 %", "90 %")),
        rows=[_dice_row(one) for one in shown.dice],
        weights=(1.4, 1, 1, 1.8, 1.3, 0.8, 0.8, 0.9, 0.8, 0.8),
    )


def _dice_row(one: quality.DiceRow) -> tuple[Cell, ...]:
    if one.mean is None:
        return cell(one.name), cell("withheld: too few patients", tone="soft", columns=9)
    quantiles = (
        tuple(cell(figure(value, 2)) for value in one.quantiles)
        if one.quantiles
        else (cell("too few patients", tone="soft", columns=5),)
    )
    return (
        cell(one.name),
        cell(str(one.patients)),
        cell(figure(one.mean.value)),
        cell(_bounds(one.mean)),
        cell(figure(one.deviation)),
        *quantiles,
    )


def _confusion(shown: Quality) -> Iterator[Block]:
    assert shown.confusion is not None
    yield Heading(text="Confusion matrix")
    withheld = (
        " Cells of few patients are withheld, and as many others as it takes that nobody can work them out."
        if shown.confusion.withheld
        else ""
    )
    yield paragraph(
        "Test patients by their class (rows) and the predicted one (columns); the darker a cell, the larger its share "
        "of the row." + withheld
    )
    names = shown.confusion.names
    yield Table(
        columns=(Column(title=""), *(Column(title=name, align="right") for name in names)),
        rows=tuple(
            (
                cell(name),
                *(
                    Cell(content=(str(one.patients) if one.patients is not None else "withheld",), shade=one.share)
                    for one in row
                ),
            )
            for name, row in zip(names, shown.confusion.rows, strict=True)
        ),
        first_names_row=True,
        compact=True,
    )


def _groups(report: Report, shown: Quality) -> Iterator[Block]:
    noisy = quality.budget_of(report.document) is not None
    yield Heading(text="Groups of patients")
    if noisy:
        yield paragraph("From noisy counts of every hospital. Groups that the noise drowns are left out.")
    else:
        fewer = "" if shown.minimum_cell is None else f" (here fewer than {shown.minimum_cell})"
        yield paragraph(
            f"A hospital with too few patients in a group withholds that group{fewer}, and every hospital leaves as "
            "many patients out of all groups, so that no small group can be found by subtraction. These rows are "
            "therefore about the hospitals with more such patients, and do not add up to everybody."
        )
    left_out = "left out: the noise is larger" if noisy else "withheld: too few patients, or of one hospital only"
    yield table(
        "Column",
        "Group",
        ">Hospitals",
        ">Patients",
        ">With the label",
        ">Mean score",
        *(f">{name}" for name in ("AUC", "Sensitivity", "Accuracy", "Brier")),
        rows=[_group(one, left_out) for one in shown.groups],
        weights=(1, 1.4, 0.9, 0.9, 0.9, 0.9, 1.2, 1.2, 1.2, 1.2),
    )


def _group(one: quality.Group, left_out: str) -> tuple[Cell, ...]:
    if one.patients is None:
        return cell(one.column), cell(one.name), cell(left_out, tone="soft", columns=8)
    return (
        cell(one.column),
        cell(one.name),
        cell(str(one.sites)),
        cell(str(one.patients)),
        cell(figure(one.rate)),
        cell(figure(one.score)),
        *(_interval(one.of(name)) for name in ("auc", "sensitivity", "accuracy", "brier")),
    )


def _interval(one: Interval | None) -> Cell:
    if one is None:
        return cell(NONE)
    bounds = _bounds(one)
    together = bounds.replace(" ", "\u00a0")
    return cell(figure(one.value), *((soft(f" {together}"),) if bounds != NONE else ()))
