"""Sections R9 to R12 of the report: what left, what went wrong, who looked at the log, how long it is kept.

What people did outside the software is here as far as somebody declared it in the log; a declaration shows who said so
and when. What nobody declared is said to be missing.
"""

from audit.entries import IncidentClosed, IncidentNotified, IncidentOpened, LogReviewed
from audit.report.blocks import (
    LEAVES_MAX,
    agreed,
    by,
    counted,
    declarations,
    duration,
    fact,
    facts,
    moment,
    paragraph,
    part,
    remark,
    table,
)
from audit.report.document import Block, Cell, Heading, Section, bad, cell, code
from audit.report.figures import Report
from audit.report.payloads import payload_blocks
from audit.report.reader import seconds_between
from audit.report.register import RECORDED, departures, protocol
from audit.report.watching import objections_blocks

NOTICE_S = 72 * 3600.0
"""GDPR Art. 33: notice to the authority within 72 hours."""


def disclosures_section(report: Report) -> Section:
    """R9: releases and disclosures (45 CFR 164.528)."""
    left = departures(report)
    simplified = protocol(report)
    return Section(
        number="R9",
        title="Releases and disclosures",
        blocks=(
            paragraph(
                "What left a hospital or the consortium under this study, for the accounting of 45 CFR 164.528. Masked "
                "updates can be opened only as a sum over hospitals, and models are made of such sums; both are listed "
                "as what they are. Whether either is a disclosure of health information is a question for counsel. "
                "What left by other ways than this software is listed only where somebody declared it."
            ),
            table(
                "What it is",
                "From",
                "To",
                "Day",
                "What",
                "Why",
                rows=[
                    (
                        cell(one.kind, leaves=one.leaves),
                        cell(one.sender),
                        cell(one.recipient),
                        cell(one.since if one.since == one.until else f"{one.since} to {one.until}"),
                        cell(one.what),
                        cell(one.purpose if one.kind == RECORDED else "the purpose of the study (R1)"),
                    )
                    for one in left
                ],
                weights=(1.5, 1.1, 1.3, 1.2, 2, 1.8),
            )
            if left
            else remark("Nothing left, as far as it was logged."),
            *(() if report.released else (remark("No model was released."),)),
            *(
                ()
                if simplified is None
                else (
                    Heading(text="List by protocol (45 CFR 164.528(b)(4))"),
                    paragraph(
                        "Where records of 50 or more people are used for one research protocol, a covered entity may "
                        f"account for it in this form. By its own range of patients that is so at "
                        f"{', '.join(simplified.sites)}."
                    ),
                    facts(*(fact(name, text) for name, text in simplified.rows)),
                )
            ),
        ),
    )


def incidents_section(report: Report) -> Section:
    """R10: incidents, with the time from discovery to notice."""
    opened = [(leaf, entry) for leaf, entry in report.facts if isinstance(entry, IncidentOpened)]
    blocks: list[Block] = []
    if opened:
        blocks.append(
            table(
                "Incident",
                "Kind",
                "Discovered (UTC)",
                "Told",
                "Closed",
                "Summary",
                rows=[_incident(report, leaf, entry) for leaf, entry in opened],
                weights=(1, 1, 1.3, 2.2, 1.2, 2.4),
            )
        )
        blocks.append(
            remark(
                "Times are those that were declared. GDPR Art. 33 allows 72 hours from becoming aware for notice to "
                "the authority; 45 CFR 164.410 asks a business associate for notice without unreasonable delay, and "
                "within 60 days at most."
            )
        )
    else:
        blocks.append(remark("No incident is on record. That none happened is not shown by that."))
    strays = [
        (leaf, entry)
        for leaf, entry in report.facts
        if isinstance(entry, IncidentNotified | IncidentClosed)
        and entry.incident not in {one.incident for _, one in opened}
    ]
    if strays:
        blocks.append(
            paragraph(
                bad("Notices or closures of incidents that nobody opened: "), ", ".join(f"#{at}" for at, _ in strays)
            )
        )
    return Section(number="R10", title="Incidents", blocks=tuple(blocks))


def _incident(report: Report, leaf: int, opened: IncidentOpened) -> tuple[Cell, ...]:
    told, late, leaves = [], False, []
    for at, entry in report.facts:
        if isinstance(entry, IncidentNotified) and entry.incident == opened.incident:
            took = seconds_between(opened.discovered_at, entry.notified_at)
            late = late or (entry.recipient == "authority" and took > NOTICE_S)
            told.append(f"{entry.recipient} after {duration(took)}")
            leaves.append(at)
    closed = [
        (at, entry)
        for at, entry in report.facts
        if isinstance(entry, IncidentClosed) and entry.incident == opened.incident
    ]
    return (
        cell(opened.incident, leaves=(leaf,)),
        cell(opened.kind),
        cell(moment(opened.discovered_at)),
        cell(
            "; ".join(told) or "nobody, as far as it was logged",
            *((bad(" (more than 72 hours)"),) if late else ()),
            leaves=leaves[:LEAVES_MAX],
        ),
        cell(moment(closed[-1][1].ts) if closed else "open", leaves=[at for at, _ in closed[-1:]]),
        cell(opened.summary),
    )


def reviews_section(report: Report) -> Section:
    """R11: who read the log, and when, and who objected to it."""
    reviews = [(leaf, entry) for leaf, entry in report.facts if isinstance(entry, LogReviewed)]
    if not reviews:
        nobody = remark(
            "Nobody recorded a review of this log. A review is declared with ", code("consortium audit declare"), "."
        )
        return Section(number="R11", title="Reviews and sign-offs", blocks=(nobody, *objections_blocks(report)))
    covered = max(entry.last_leaf for _, entry in reviews)
    unread = report.checkpoint.size - 1 - covered
    return Section(
        number="R11",
        title="Reviews and sign-offs",
        blocks=(
            table(
                "Review",
                "When (UTC)",
                "By",
                "Entries",
                ">Findings",
                "Summary",
                rows=[
                    (
                        cell(leaves=(leaf,)),
                        cell(moment(entry.ts)),
                        cell(f"{by(entry)}, {entry.on_behalf}"),
                        cell(f"{entry.first_leaf} to {entry.last_leaf}"),
                        cell(str(entry.findings)),
                        cell(entry.summary),
                    )
                    for leaf, entry in reviews
                ],
                weights=(0.6, 1.2, 2, 1, 0.8, 2.4),
            ),
            paragraph(
                f"The last entry that a review covers is {covered}; {counted(max(unread, 0), 'entry', 'entries')} "
                "after it had not been reviewed when this was exported."
            ),
            *objections_blocks(report),
        ),
    )


def retention_section(report: Report) -> Section:
    """R12: how long records are kept, and whether they could be restored."""
    years = part(report.document, "governance", "retention_years")
    return Section(
        number="R12",
        title="Retention and restoring",
        blocks=(
            facts(
                fact("Agreed", "not stated" if years is None else f"{years} years", *agreed(report.study.leaf)),
                fact("Oldest entry of this log", moment(report.first_ts), leaves=(0,)),
                fact("Newest entry of this log", moment(report.last_ts), leaves=(report.checkpoint.size - 1,)),
            ),
            *declarations(
                report,
                ("retention.applied", "backup.restored"),
                "No application of a retention policy and no test of restoring is on record in this log.",
            ),
            *payload_blocks(report),
        ),
    )
