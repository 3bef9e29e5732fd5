"""A report as a document: what it says, section by section, for HTML and PDF alike. Evidence sections R1 to R14."""

from audit.report import clauses, quality
from audit.report.accounts import disclosures_section, incidents_section, retention_section, reviews_section
from audit.report.blocks import day, figure
from audit.report.document import Block, Document, Headline, Paragraph, code, soft
from audit.report.figures import Report
from audit.report.governance import data_section, law_section, measures_section, people_section
from audit.report.privacy import privacy_section
from audit.report.scope import log_section, matrix_section, scope_section, verification_section
from audit.report.training import final_round, training_section


def document_of(report: Report) -> Document:
    """The whole report."""
    return Document(
        kicker=f"{report.consortium} \u00b7 evidence report",
        title=report.study.title,
        subtitle=("Study ", code(report.study.id), f", {report.status}{_period(report)}. {_read(report)}"),
        subject=f"{report.study.id}, study document {report.study.digest}",
        language="en",
        dated=report.stated.exported_at,
        headlines=_headlines(report),
        introduction=_introduction(),
        sections=(
            scope_section(report),
            log_section(report),
            law_section(report),
            data_section(report),
            people_section(report),
            measures_section(report),
            privacy_section(report),
            training_section(report),
            disclosures_section(report),
            incidents_section(report),
            reviews_section(report),
            retention_section(report),
            verification_section(report),
            matrix_section(clauses.evaluate(clauses.matrix(), report)),
        ),
        footer=(
            f"Made from the log of {report.checkpoint.origin} at {report.checkpoint.size} entries. This report is not "
            "a certification."
        ),
    )


def _period(report: Report) -> str:
    if not report.started_at:
        return ""
    return f", {day(report.started_at)}" + (f" to {day(report.ended_at)}" if report.ended_at else "")


def _read(report: Report) -> str:
    return f"Read from the audit log at {report.checkpoint.size} entries."


def _headlines(report: Report) -> tuple[Headline, ...]:
    closed = [one for one in report.rounds if one.state == "closed" and one.kind == "train"]
    final = final_round(report)
    dice = final is not None and final.metric("auc") is None and final.metric("dice") is not None
    measured = final.metric("dice" if dice else "auc") if final is not None else None
    largest = max((site.epsilon for site in report.sites if site.epsilon is not None), default=None)
    training = " for training" if quality.budget_of(report.document) is not None else ""
    return (
        Headline(value=str(len(report.sites)), label="hospitals"),
        Headline(value=f"{len(closed)} of {report.study.rounds}", label="training rounds closed"),
        Headline(value=figure(measured), label=f"last {'mean Dice' if dice else 'AUC'} over test patients"),
        Headline(value=figure(largest), label=f"largest epsilon, of {report.study.epsilon:g} allowed{training}")
        if quality.without_privacy(report.document) is None
        else Headline(value="none", label="differential privacy promised to patients", tone="bad"),
        Headline(value=str(len(report.approvals)), label="signed approvals"),
    )


def _introduction() -> tuple[Block, ...]:
    return (
        Paragraph(
            content=(
                (
                    "A number after # is the index of the log entry that a figure was read from. verify.py, in the "
                    "same archive, reads the entries again, counts the figures again and compares them with "
                    "report.json. What is marked "
                ),
                soft("(stated, not evidence)"),
                " is the exporter's word; what is marked ",
                soft("(study document)"),
                " was agreed by the hospitals' approvals and is not a measurement.",
            ),
            tone="soft",
        ),
    )
