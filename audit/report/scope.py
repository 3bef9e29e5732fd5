"""Sections R1, R2, R13 and R14 of the report: scope and limits, the log itself, how to check it, the clause matrix."""

import hashlib
from collections.abc import Callable, Iterator, Sequence

from audit.entries import KeyRetired, KeyRotated, LogOpened, WitnessEnrolled
from audit.report.blocks import (
    LEAVES_MAX,
    agreed,
    by,
    counted,
    day,
    declared,
    fact,
    facts,
    moment,
    paragraph,
    part,
    remark,
    stated,
    table,
)
from audit.report.clauses import Row, Status
from audit.report.document import (
    Block,
    Bullets,
    Callout,
    Cell,
    Fact,
    Heading,
    Inline,
    LeafRef,
    Listing,
    Section,
    Span,
    bad,
    cell,
    code,
    soft,
    strong,
)
from audit.report.figures import Report, StudyFigures
from audit.report.watching import life, objections, objections_callout

LIMITS = (
    "That a hospital's patients, counts or labels are real, or that a patient consented.",
    (
        "That a hospital ran the privacy code it says it ran. Its signed statements and the digest of its source files "
        "are what it claims, not a measurement."
    ),
    "That no event was withheld before it was submitted. Only gaps between a site's entries can be seen.",
    "Anything that happened before the first checkpoint of this log that witnesses cosigned.",
    (
        "The exact time of an event. Times are those of the clocks of the coordinator and the sites; witnesses' "
        "cosignatures bound them from above, as closely as the witnesses' own clocks agree."
    ),
    (
        "That everybody was shown the same log, if the coordinator and more witnesses than the policy reckons with lie "
        "together. Without witnesses in the policy, nothing shows it: compare roots with a hospital."
    ),
    "Legal conclusions, such as a lawful basis, or that data are anonymous or de-identified or a use compliant.",
    "Policies, training of staff, physical safeguards and risk analyses.",
    "What the final model remembers beyond the privacy bound given here and the attacks that were tried.",
    "Anything as a certificate would: this report is not a certification.",
)
"""What no software can attest; printed in every report, whatever it shows."""

_TONES: dict[Status, Callable[[str], Span]] = {
    Status.EVIDENCED: strong,
    Status.PARTLY: strong,
    Status.NOT_EVIDENCED: bad,
    Status.NOT_APPLICABLE: soft,
}


def _submitted(study: StudyFigures) -> tuple[Inline, ...]:
    """Who signed the study for submission: a pseudonym, and the fingerprint that hospitals compare and pin."""
    if study.owner is None or study.owner_key is None:
        return ("signed by nobody",)
    fingerprint = hashlib.sha256(bytes.fromhex(study.owner_key)).hexdigest()
    return ("by ", code(study.owner), f", signed {study.signed_at} with the key of fingerprint ", code(fingerprint))


def scope_section(report: Report) -> Section:
    """R1: scope, period, study, parties, who exported, what no report of this kind shows."""
    leaf, document = report.study.leaf, report.document
    software = ", ".join(f"{name} {version}" for name, version in report.stated.software)
    ended = f" to {day(report.ended_at)}" if report.ended_at else ""
    period = f"{day(report.started_at)}{ended}" if report.started_at else "not started"
    return Section(
        number="R1",
        title="Scope and limits",
        blocks=(
            facts(
                fact("Study", f"{report.study.title} (", code(report.study.id), ")", leaves=(leaf,)),
                fact("Study document", "SHA-256 ", code(report.study.digest), leaves=(leaf,)),
                fact("Submitted", *_submitted(report.study), leaves=(leaf,)),
                fact("Period", f"{period}; {report.status}"),
                fact("Purpose", declared(document, "governance", "purpose"), *agreed(leaf)),
                fact("Sponsor", declared(document, "governance", "sponsor"), *agreed(leaf)),
                fact("Hospitals", ", ".join(site.site for site in report.sites)),
                fact(
                    "Decisions about a person",
                    "none: training a model decides about nobody; its use in care is another matter",
                ),
                fact("Exported", f"{report.stated.exported_at} by {report.stated.exported_by}", stated()),
                fact("Software of the exporter", software or "not said", stated()),
            ),
            Callout(
                title="What this report cannot show",
                items=tuple((limit,) for limit in LIMITS),
            ),
        ),
    )


def log_section(report: Report) -> Section:
    """R2: origin, keys, size, root, witnesses, quorum, signs of life."""
    witnesses = [(leaf, entry) for leaf, entry in report.facts if isinstance(entry, WitnessEnrolled)]
    return Section(
        number="R2",
        title="The log",
        blocks=(
            paragraph(
                "Every step of the study is an entry in an append-only log. The signature below covers all of them: "
                "changing, removing or reordering one changes the root."
            ),
            facts(
                fact("Origin", code(report.checkpoint.origin)),
                fact("Entries", str(report.checkpoint.size)),
                fact("Root", code(report.checkpoint.root.hex())),
                fact("Log key", code(report.log_vkey), leaves=(0,)),
                *_later_keys(report),
                fact("Export key", code(report.export_vkey), leaves=(0,)),
                fact("First and last entry", f"{moment(report.first_ts)} and {moment(report.last_ts)} (UTC)"),
            ),
            Heading(text="Witnesses"),
            *_witnesses(report, witnesses),
            Heading(text="Signs of life"),
            *life(report),
        ),
    )


def _later_keys(report: Report) -> Iterator[Fact]:
    """Changes of the log's key, and which log this one continues."""
    for leaf, entry in report.facts:
        if isinstance(entry, KeyRotated):
            yield fact("A key that followed it", code(entry.new_vkey), leaves=(leaf,))
        elif isinstance(entry, KeyRetired):
            yield fact("Signs no more", code(entry.vkey), leaves=(leaf,))
        elif isinstance(entry, LogOpened) and entry.continues is not None:
            yield fact("Continues the log", code(entry.continues.partition("\n")[0]), leaves=(leaf,))


def _witnesses(report: Report, enrolled: Sequence[tuple[int, WitnessEnrolled]]) -> Iterator[Block]:
    if report.cosigners:
        yield paragraph(
            f"Besides the log, the checkpoint carries lines of {', '.join(report.cosigners)}. verify.py checks them, "
            "and whether they are as many as the policy that you were given asks for."
        )
    else:
        yield remark(
            "Nobody but the log has signed the checkpoint of this export. To be sure that everybody sees this log, "
            "compare its root with a hospital's."
        )
    if objected := objections(report):
        yield paragraph(
            f"{counted(len(objected), 'objection', 'objections')} to the log, in section R11 ",
            *(LeafRef(index=leaf) for leaf, _ in objected[:LEAVES_MAX]),
            ".",
        )
    lying = part(report.document, "witnesses", "lying")
    if lying is not None:
        yield remark(f"The study reckons with {lying} of the hospitals' witnesses in league with the log.")
    if enrolled:
        yield table(
            "Hospital",
            "Witness key",
            "Since (UTC)",
            rows=[
                (cell(by(entry), leaves=(leaf,)), cell(code(entry.vkey)), cell(moment(entry.ts)))
                for leaf, entry in enrolled
            ],
            weights=(1, 3.4, 1.2),
        )


def verification_section(report: Report) -> Section:
    """R13: how to repeat the verification."""
    return Section(
        number="R13",
        title="Verification, and how to repeat it",
        blocks=(
            paragraph(
                "No result is printed here: it would be the word of whoever exported. On any computer with Python 3, "
                "without network access, and with the policy file obtained from a hospital or from the consortium, not "
                "from this archive:"
            ),
            Listing(
                text="unzip -p evidence.zip verify.py > verify.py\npython3 verify.py evidence.zip --policy policy.txt"
            ),
            paragraph(
                "It prints one line per step and ends with VERIFIED or NOT VERIFIED. VERIFY.md says what each step "
                "shows, and how to repeat the main ones with other tools. It counts the figures of report.json again "
                "from the entries, and looks up every entry that section R14 names."
            ),
            *objections_callout(report),
            Bullets(
                items=(
                    ("Entries can only be added: a correction is a new entry, and the old one stays.",),
                    ("This page is for people; report.json holds the same for programs, events.ndjson every entry.",),
                ),
            ),
        ),
    )


def matrix_section(rows: Sequence[Row]) -> Section:
    """R14: clause -> status -> leaves."""
    count = {status: sum(row.status is status for row in rows) for status in Status}
    return Section(
        number="R14",
        title="Clause matrix",
        blocks=(
            paragraph(
                "What an auditor asks under each clause, held against the entries of this log. A status is about "
                "entries, never about compliance: \u201cevidenced\u201d says that the entries are there and verify, "
                "not that a duty is met. The rows are data that counsel can correct (clauses.yaml)."
            ),
            facts(*(fact(status.value, str(count[status])) for status in Status)),
            table(
                "Clause, and what is asked",
                "Status, and the entries found",
                "Beyond software",
                rows=[_row(row) for row in rows],
                weights=(2.4, 2.4, 1.6),
            ),
        ),
    )


def _row(row: Row) -> tuple[Cell, ...]:
    found: list[Inline] = []
    for one in row.found:
        found.append(f"{'; ' if found else ' Entries: '}{one.type} ({len(one.leaves)})")
        for number, leaf in enumerate(one.leaves[:3]):
            found += [" " if number else "\u00a0", LeafRef(index=leaf)]
        if len(one.leaves) > 3:
            found.append("\u00a0\u2026")
    return (
        cell(strong(f"{row.clause.law}: {row.clause.clause}"), soft(f" ({row.clause.section}) "), row.clause.asks),
        cell(_TONES[row.status](f"{row.status.value}. "), row.reason, *found),
        cell(row.clause.beyond),
    )
