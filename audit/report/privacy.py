"""Section R7 of the report: what the study promises each patient, what was spent, what was assessed.

Evidence sections R7 (NIST SP 800-226, GDPR Art. 35, 45 CFR 164.514(b)). Bounds are rounded up.
"""

from collections.abc import Iterator

from audit.report import quality
from audit.report.assessment import compare
from audit.report.blocks import (
    LEAVES_MAX,
    NONE,
    entries_table,
    fact,
    facts,
    figure,
    lines,
    paragraph,
    remark,
    short,
    table,
)
from audit.report.certificate_view import GUESSES, CertificateView, view
from audit.report.document import (
    Block,
    Callout,
    Cell,
    Content,
    Heading,
    LeafRef,
    LineChart,
    Section,
    Series,
    Tone,
    bad,
    cell,
    soft,
    strong,
)
from audit.report.figures import Report, SiteFigures
from audit.report.training import thinned


def privacy_section(report: Report) -> Section:
    """R7."""
    certificates = view(report.certificates, report.model_certificate)
    return Section(
        number="R7",
        title="Privacy",
        blocks=(
            *_promise(report),
            *_spent(report),
            *_plans(report),
            *(_certificates(certificates) if certificates is not None else ()),
            *_audits(report),
            *_determinations(report),
            *_comparison(report),
        ),
    )


def _promise(report: Report) -> Iterator[Block]:
    why = quality.without_privacy(report.document)
    if why is not None:
        yield paragraph(
            bad("No patient has differential privacy in this study."),
            " No noise was added by anybody. What each hospital sent was hidden in the sum over hospitals and nowhere "
            "else; the sums and the model are exact, and may tell whoever sees them about single patients. Every "
            f"hospital had to allow this in its own rules. The reason given in the study: {why}",
        )
        return
    budget = quality.budget_of(report.document)
    allowed = f"The study allows each hospital epsilon {report.study.epsilon:g} at delta {report.study.delta:g}"
    if budget is not None:
        allowed += (
            f" for training, and epsilon {budget.epsilon:g} at delta {budget.delta:g} for test figures; for one "
            "patient the two add up"
        )
    yield paragraph(
        "The promise is to each ",
        strong("patient"),
        ": with or without that patient's records, what left the hospital is almost equally likely. Epsilon bounds by "
        f"how much; smaller is stronger. {allowed} ",
        LeafRef(index=report.study.leaf),
        ".",
    )


def _spent(report: Report) -> Iterator[Block]:
    figures = quality.budget_of(report.document) is not None
    yield table(
        "Hospital",
        ">Training: epsilon" if figures else ">Epsilon spent",
        ">Delta",
        ">Noisy steps",
        *((">Test figures: epsilon",) if figures else ()),
        rows=[_site(site, figures=figures) for site in report.sites],
    )
    series: dict[str, list[tuple[float, float]]] = {}
    for one in report.rounds:
        for spent in one.spent:
            series.setdefault(spent.site, []).append((float(one.round), spent.epsilon))
    if series:
        yield LineChart(
            caption=f"Epsilon spent so far{' on training' if figures else ''}, by hospital and round",
            series=tuple(Series(name=site, points=thinned(points)) for site, points in sorted(series.items())),
            unit="round",
            limit=("budget", report.study.epsilon),
            floor=0.0,
        )
    exact = (
        "Metrics are computed from noisy counts with a budget of their own, as the study document says."
        if figures
        else "Metrics are exact sums over the hospitals under secure aggregation; they are not differentially private."
    )
    yield remark(
        "Each hospital computes its own epsilon. verify.py recomputes an upper and a lower bound from the logged steps "
        f"and fails if the stated figure lies outside. {exact}"
    )


def _site(site: SiteFigures, *, figures: bool) -> tuple[Cell, ...]:
    planned = f" of {site.steps_planned}" if site.steps_planned is not None else ""
    row = (
        cell(site.site),
        cell(figure(site.epsilon, 4), leaves=(site.epsilon_leaf,)),
        cell(short(site.delta)),
        cell(f"{site.steps}{planned}"),
    )
    drawn = cell(figure(site.figures_epsilon, 4), leaves=(site.figures_leaf,))
    return (*row, drawn) if figures else row


def _plans(report: Report) -> Iterator[Block]:
    if report.plans:
        yield Heading(text="What each hospital set out to run")
        yield from lines(report.plans, "Hospital")


def _certificates(found: CertificateView) -> Iterator[Block]:
    yield Heading(text="What could someone learn about one patient?")
    yield paragraph(
        "Somebody suspects that a certain person's records were used here. Seeing everything that this study let out, "
        "they may become more certain. This is the most they can be, whatever else they know, except for a chance of "
        "delta:"
    )
    yield table(
        "About",
        ">Epsilon",
        ">Delta",
        *(f">sure at first: {100 * guess:g}\u00a0%" for guess in GUESSES),
        rows=[
            (
                cell(row.whose, *((soft(" (hardly a promise)"),) if row.weak else ())),
                cell(figure(row.epsilon, 4)),
                cell(f"{row.delta:.2g}"),
                *(cell(guess) for guess in row.guesses),
            )
            for row in found.odds
        ],
        weights=(2.6, 1, 0.9, *(1.0 for _ in GUESSES)),
    )
    if found.model_leaf is None:
        composed: Content = (
            "The largest of the hospitals' certificates is shown; the coordinator has not composed them.",
        )
    else:
        two = "both parts are in one sum, and the bound is that for two" if found.distributed else "they add"
        composed = (
            "The promise of the model is composed from the hospitals' certificates ",
            LeafRef(index=found.model_leaf),
            (
                ": a patient of one hospital has that hospital's epsilon, and the largest is shown; for a patient of "
                f"two hospitals {two}."
            ),
        )
    yield remark(
        *composed,
        " What the model says of people in general is not in this table: it would say so had the person stayed away.",
    )
    if found.missing:
        yield paragraph(
            strong("Without a certificate: "),
            f"{', '.join(found.missing)}. The figures do not speak for the patients there.",
        )
    yield Heading(text="Privacy certificates")
    yield paragraph(
        "Each hospital signs one when the study is over. verify.py holds it against every step the hospital logged."
    )
    yield table(
        "Hospital",
        ">Epsilon",
        *((">If aggregation failed",) if found.distributed else ()),
        ">Steps",
        *((">Test figures: epsilon",) if found.figures else ()),
        f"Delta {found.rows[0].delta:g} is",
        "This dataset, all studies",
        "Audit of the mechanism",
        rows=[
            (
                cell(row.site),
                cell(figure(row.epsilon, 4), leaves=(row.leaf,)),
                *((cell(figure(row.unmasked)),) if found.distributed else ()),
                cell(row.steps),
                *((cell(row.figures or NONE),) if found.figures else ()),
                cell(row.against),
                cell(row.dataset),
                cell(row.audit, tone="plain" if row.audit_good else "bad"),
            )
            for row in found.rows
        ],
    )
    yield facts(*(fact(name, value) for name, value in found.facts))
    yield Callout(title="Outside the guarantee", items=tuple((line,) for line in found.outside))


def _audits(report: Report) -> Iterator[Block]:
    yield Heading(text="Attack tests")
    found = report.of("attack.tested")
    if found:
        yield from entries_table(found)
    else:
        yield remark("No attack on the trained model is on record in this log.")
    audited = report.of("dp.audited")
    if audited:
        failed = [leaf for leaf, entry in audited if entry.outcome != "0"]
        yield paragraph(
            f"Hospitals audited their mechanism {len(audited)} times, on probes and never on patients",
            *(part for leaf, _ in audited[:LEAVES_MAX] for part in (" ", LeafRef(index=leaf))),
            "; ",
            bad(f"{len(failed)} of them failed.") if failed else "none failed.",
        )


def _determinations(report: Report) -> Iterator[Block]:
    yield Heading(text="De-identification and impact assessment")
    found = report.of("deid.determined", "dpia.recorded")
    if found:
        yield from entries_table(found)
    else:
        yield remark("No determination of de-identification and no impact assessment is on record in this log.")
    yield remark(
        "Differential privacy can support an expert's determination; it cannot replace one. Masked updates are not "
        "de-identified data by being masked."
    )


def _comparison(report: Report) -> Iterator[Block]:
    yield Heading(text="What was assessed, and what ran")
    rows = compare(report)
    wrong = sum(row.holds is False for row in rows)
    yield paragraph(
        "Left what the hospitals approved or an assessment names, right what the entries show. ",
        bad(f"{wrong} of {len(rows)} rows do not agree.") if wrong else strong("No row disagrees."),
    )
    verdicts: dict[bool | None, tuple[str, Tone]] = {
        True: ("agrees", "good"),
        False: ("DOES NOT AGREE", "bad"),
        None: ("nothing to compare", "soft"),
    }
    yield table(
        "What",
        "Assessed",
        "By",
        "What ran",
        "Verdict",
        rows=[
            (
                cell(row.what),
                cell(row.assessed),
                cell(row.source),
                cell(row.ran, leaves=row.leaves[:LEAVES_MAX]),
                cell(verdicts[row.holds][0], tone=verdicts[row.holds][1]),
            )
            for row in rows
        ],
        weights=(1.4, 1.6, 1, 1.8, 1),
    )
