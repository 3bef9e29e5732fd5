"""Sections R3 to R6 of the report: legal basis, data, people, security measures.

What people did outside the software is here as far as somebody declared it in the log; a declaration shows who said so
and when. What nobody declared is said to be missing.
"""

from collections.abc import Iterator, Sequence

from audit.entries import AS_DECLARED, IrbRecorded, SiteEnrolled, SiteKeysRotated
from audit.report.blocks import (
    LEAVES_MAX,
    agreed,
    counted,
    declarations,
    declared,
    fact,
    facts,
    lines,
    moment,
    paragraph,
    part,
    remark,
    table,
)
from audit.report.document import Block, Content, Heading, Section, cell, code, soft
from audit.report.figures import Report
from audit.report.register import register

AS_DECLARED_MEANS = (
    "A decision \u201cdeclared\u201d repeats what the study document says of its board; nobody showed it."
)


def law_section(report: Report) -> Section:
    """R3: legal basis, agreements, register extract, transfers."""
    basis = part(report.document, "governance", "legal_basis")
    said = [
        f"GDPR Art. {declared(report.document, 'governance', 'legal_basis', name)}"
        for name in ("gdpr_article_6", "gdpr_article_9")
        if isinstance(basis, dict) and basis.get(name)
    ]
    if isinstance(basis, dict) and basis.get("hipaa"):
        said.append(f"HIPAA: {basis['hipaa']}")
    board = declared(report.document, "governance", "ethics", "reference")
    authority = declared(report.document, "governance", "ethics", "authority")
    leaf = report.study.leaf
    return Section(
        number="R3",
        title="Legal basis, agreements, register",
        blocks=(
            facts(
                fact("Legal basis in the study", "; ".join(said) or "not stated", *agreed(leaf)),
                fact("Ethics decision in the study", f"{board} (authority: {authority})", *agreed(leaf)),
            ),
            Heading(text="On record"),
            *declarations(
                report,
                ("legal_basis.declared", "irb.recorded", "agreement.recorded"),
                "No agreement, no decision of a board and no legal basis was declared in this log by anybody.",
            ),
            *([remark(AS_DECLARED_MEANS)] if _only_declared(report) else []),
            Heading(text="Extract for the register of processing (GDPR Art. 30)"),
            paragraph(
                "For the controllers to take over and complete. The last column says where each line comes from."
            ),
            table(
                "Field",
                "Content",
                "From",
                rows=[
                    (cell(row.field), cell(row.text), cell(row.source, leaves=row.leaves[:LEAVES_MAX]))
                    for row in register(report)
                ],
                weights=(1.2, 3.4, 1.2),
            ),
            Heading(text="Transfers to other countries"),
            *declarations(
                report, ("transfer.recorded",), "No transfer is on record; without an entry the log cannot tell."
            ),
        ),
    )


def _only_declared(report: Report) -> bool:
    return any(isinstance(entry, IrbRecorded) and entry.decision == AS_DECLARED for _, entry in report.facts)


def data_section(report: Report) -> Section:
    """R4: minimum necessary and data governance."""
    patients = {site.site: site.patients for site in report.sites}
    return Section(
        number="R4",
        title="Data used, and why these",
        blocks=(
            paragraph("What each hospital says it prepared, signed by it. Numbers of patients are ranges on purpose."),
            table(
                "Hospital",
                "Patients",
                "Columns",
                rows=[
                    (cell(row.who, leaves=(row.leaf,)), cell(patients.get(row.who) or "not in the log"), cell(row.text))
                    for row in report.cohorts
                ],
                weights=(1.2, 0.8, 4),
            )
            if report.cohorts
            else remark("No hospital logged its columns."),
            Heading(text="Determination of what is necessary"),
            *declarations(
                report,
                ("minimum_necessary.determined",),
                "Nobody recorded a determination that these columns, and no others, are needed.",
            ),
        ),
    )


def people_section(report: Report) -> Section:
    """R5: identities, roles, approvals, denied access."""
    enrolled = [(leaf, entry) for leaf, entry in report.facts if isinstance(entry, SiteEnrolled)]
    concerned = {site.site for site in report.sites}
    return Section(
        number="R5",
        title="Identities, approvals, denied access",
        blocks=(
            Heading(text="Hospitals and their keys"),
            table(
                "Hospital",
                "Enrolled (UTC)",
                "Certificate (SHA-256)",
                "Signing key (Ed25519)",
                rows=[
                    (
                        cell(entry.site, leaves=(leaf,)),
                        cell(moment(entry.ts)),
                        cell(code(f"{entry.certificate_sha256[:16]}\u2026")),
                        cell(code(f"{entry.signing_key[:16]}\u2026")),
                    )
                    for leaf, entry in enrolled
                    if entry.site in concerned
                ],
            ),
            *_changed_keys(report),
            *declarations(
                report,
                ("site.suspended", "site.reinstated", "site.revoked", "site.renewed", "role.changed"),
                "No hospital was excluded or suspended, no certificate was renewed, no change of a role is on record.",
            ),
            Heading(text="Approvals"),
            *_approvals(report),
            Heading(text="Refused, failed or denied"),
            *(
                lines(report.refused, "Who")
                if report.refused
                else [remark("Nothing was refused, failed or denied, as far as it was logged.")]
            ),
        ),
    )


def _changed_keys(report: Report) -> Iterator[Block]:
    """Hospitals that changed their signing keys by their own word, and a steward's."""
    changed = [(leaf, entry) for leaf, entry in report.facts if isinstance(entry, SiteKeysRotated)]
    if not changed:
        return
    yield table(
        "Changed its signing keys",
        "When (UTC)",
        "Former key (Ed25519)",
        "New key (Ed25519)",
        "Signed by the steward",
        rows=[
            (
                cell(entry.actor.removeprefix("site:"), leaves=(leaf,)),
                cell(moment(entry.ts)),
                cell(code(f"{entry.old_signing_key[:16]}\u2026")),
                cell(code(f"{entry.signing_key[:16]}\u2026")),
                cell(entry.steward),
            )
            for leaf, entry in changed
        ],
    )


def _approvals(report: Report) -> Iterator[Block]:
    if not report.approvals:
        yield remark("No approval is in the log.")
        return
    yield paragraph(
        "Each approval names the study document by its SHA-256 and is signed with the hospital's key. Stewards are "
        "pseudonyms; the hospital holds the names."
    )
    yield from lines(report.approvals, "Hospital")


def measures_section(report: Report) -> Section:
    """R6: security measures and configuration changes."""
    leaf = report.study.leaf
    software = sorted({line for _, _, one in report.certificates for line in one.software})
    sources = sorted({one.code_sha256 for _, _, one in report.certificates})
    certified = sorted(at for at, _, _ in report.certificates)
    return Section(
        number="R6",
        title="Security measures and changes",
        blocks=(
            facts(
                fact("Secure aggregation", _aggregation(report), *agreed(leaf)),
                fact(
                    "A sum is opened by at least",
                    f"{declared(report.document, 'aggregation', 'threshold')} hospitals together",
                    *agreed(leaf),
                ),
                fact(
                    "Transport",
                    "TLS 1.3 and nothing older, certificates on both sides",
                    soft(" (how this software works; the log has the sessions, not their ciphers)"),
                ),
                fact("Rounds broken off or refused", _troubles(report)),
                fact("Software of the hospitals", _claimed(", ".join(software)), leaves=certified[:LEAVES_MAX]),
                fact("Its source files (SHA-256)", *_sources(sources), leaves=certified[:LEAVES_MAX]),
            ),
            Heading(text="Changes"),
            *declarations(
                report,
                ("config.changed", "software.deployed", "study.paused", "study.resumed"),
                "No change of configuration or software is in the log, and the study was never paused.",
            ),
        ),
    )


def _aggregation(report: Report) -> str:
    said = [declared(report.document, "aggregation", "protocol")]
    for name, words in (("suite", "suite {}"), ("modulus_bits", "sums modulo 2 to the power {}")):
        if part(report.document, "aggregation", name) is not None:
            said.append(words.format(declared(report.document, "aggregation", name)))
    return ", ".join(said)


def _claimed(software: str) -> str:
    return f"{software} (as their certificates say)" if software else "not in the log"


def _sources(digests: Sequence[str]) -> Content:
    return tuple(code(digest) for digest in digests) or ("not in the log",)


def _troubles(report: Report) -> str:
    count = dict(report.refusals)
    said = (
        counted(sum(one.state == "aborted" for one in report.rounds), "attempt broken off", "attempts broken off"),
        counted(count["round.refused"], "invitation refused", "invitations refused"),
        counted(sum(len(one.dropouts) for one in report.rounds), "dropout"),
        counted(count["secagg.failed"] + count["secagg.accused"], "breach of the protocol", "breaches of the protocol"),
    )
    return ", ".join(said)
