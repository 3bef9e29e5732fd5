"""A report with one of every block, names in several scripts, and texts that are too long for their place."""

from audit.report.document import (
    Attendance,
    AttendanceChart,
    BoxChart,
    BoxRow,
    Bullets,
    CalibrationChart,
    CalibrationPoint,
    Callout,
    Cell,
    Column,
    Document,
    Fact,
    Facts,
    Heading,
    Headline,
    LeafRef,
    LineChart,
    Listing,
    Paragraph,
    Section,
    Series,
    Table,
    bad,
    cell,
    code,
    soft,
    strong,
)

DIGEST = "3f9a" * 16
NAMES = ("Universitätsklinikum Köln", "Szpital w Łodzi", "Νοσοκομείο Αθηνών", "Больница №3", "Háskólasjúkrahúsið")


def lines_table(rows: int) -> Table:
    """A row for each of so many entries."""
    said = "gaussian; noise multiplier 1.1, sampling rate 0.05, 120 steps, clip 1 (L2); epsilon 1.94 at delta 1e-05"
    return Table(
        columns=(
            Column(title="Leaf", weight=0.5),
            Column(title="Time (UTC)"),
            Column(title="Hospital"),
            Column(title="What it says", weight=4),
        ),
        rows=tuple(
            (cell(leaves=(row,)), cell("2026-11-23 09:00:00"), cell(NAMES[row % len(NAMES)]), cell(said))
            for row in range(rows)
        ),
    )


def charts() -> tuple[LineChart, CalibrationChart, BoxChart, AttendanceChart]:
    """One of each kind."""
    return (
        LineChart(
            caption="Epsilon spent so far, by hospital and round",
            series=tuple(
                Series(name=name, points=tuple((float(number), 0.4 * number + 0.05 * place) for number in range(1, 6)))
                for place, name in enumerate(NAMES)
            ),
            unit="round",
            limit=("budget", 2.5),
            floor=0.0,
        ),
        CalibrationChart(
            caption="Calibration",
            points=tuple(
                CalibrationPoint(score=score / 10, rate=score / 9, low=score / 12, high=min(1, score / 8), patients=20)
                for score in range(1, 10)
            ),
        ),
        BoxChart(
            caption="Dice over test patients",
            rows=(
                BoxRow(name="tumour", quantiles=(0.2, 0.4, 0.6, 0.7, 0.9), mean=0.58, low=0.5, high=0.65, patients=40),
                BoxRow(name="few", quantiles=(), mean=0.5, low=None, high=None, patients=12),
            ),
        ),
        AttendanceChart(
            caption="Filled: in the sum. Crossed: dropout. Empty: attempt without a result.",
            sites=NAMES,
            rounds=tuple(
                Attendance(
                    label=str(number),
                    state="closed" if number % 5 else "aborted",
                    participants=NAMES[: 5 - number % 2],
                    survivors=NAMES[:3] if number % 5 else (),
                    dropouts=((NAMES[3], "masking"),),
                )
                for number in range(1, 41)
            ),
        ),
    )


def sample_document(rows: int = 60) -> Document:
    """Several pages; `rows` of them in one long table."""
    return Document(
        kicker="Demo consortium \u00b7 evidence report",
        title="Heart disease from thirteen routine findings, at four hospitals",
        subtitle=("Study ", code("heart-disease"), ", completed. Read from the log at 143 entries ", LeafRef(index=0)),
        subject=f"Study heart-disease \u00b7 SHA-256 {DIGEST}",
        language="en",
        dated="2026-11-23T09:00:00.000Z",
        headlines=(
            Headline(value="4", label="hospitals"),
            Headline(value="0.842", label="last AUC over test patients"),
            Headline(value="none", label="differential privacy promised to patients", tone="bad"),
        ),
        introduction=(Paragraph(content=("A number after ", LeafRef(index=3), " is an index."), tone="soft"),),
        sections=(
            Section(
                number="R1",
                title="Scope and parties",
                blocks=(
                    Facts(
                        rows=(
                            Fact(name="Study document", content=("SHA-256 ", code(DIGEST)), leaves=(2,)),
                            Fact(name="Hospitals", content=(", ".join(NAMES), soft(" (stated)"))),
                        )
                    ),
                    Callout(
                        title="What this report cannot show",
                        paragraphs=(("Whatever it ", bad("shows"), "."),),
                        items=tuple((f"Limit {number} of this report.",) for number in range(1, 11)),
                    ),
                ),
            ),
            Section(
                number="R7",
                title="Privacy",
                blocks=(
                    Paragraph(content=("The promise is to each ", strong("patient"), ".")),
                    *charts(),
                    Heading(text="What each hospital set out to run"),
                    lines_table(rows),
                ),
            ),
            Section(
                number="R8",
                title="Training",
                blocks=(
                    Table(
                        columns=(Column(title=""), *(Column(title=f"class {k}", align="right") for k in range(3))),
                        rows=tuple(
                            (cell(f"class {i}"), *(Cell(content=(f"{i * k}",), shade=k / 3) for k in range(3)))
                            for i in range(3)
                        ),
                        caption="Confusion matrix",
                        first_names_row=True,
                        compact=True,
                    ),
                    Table(
                        columns=(Column(title="Model"), Column(title="Leaves", align="right")),
                        rows=(
                            (cell(code(DIGEST)), cell(leaves=(1, 2, 3, 9, 11, 12))),
                            (cell("x" * 700), cell("word " * 3000)),
                            (cell("withheld: too few patients", tone="soft", columns=2),),
                        ),
                    ),
                    Table(
                        columns=tuple(Column(title=f"column-{place}", align="right") for place in range(30)),
                        rows=tuple(tuple(cell(f"{place * row}") for place in range(30)) for row in range(3)),
                    ),
                    Listing(text="unzip -p evidence.zip verify.py > verify.py\npython3 verify.py evidence.zip"),
                    Bullets(items=(("one",), ("two ", code(DIGEST * 3)))),
                ),
            ),
        ),
        footer="Made from the log of example.org/consortium at 143 entries. This report is not a certification.",
    )
