"""Two lists that the law names: an extract for the register of processing, and what left, when, to whom and why.

Evidence sections R3 (GDPR Art. 30) and R9 (45 CFR 164.528). Each line says where it comes from: the study document
that the hospitals approved, an entry of the log, or how this software works. Whether a masked sum or a model is a
disclosure of health information is a question of law: both are listed, under what they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from audit.entries import AgreementRecorded, CohortSnapshot, DisclosureRecorded, TransferRecorded
from audit.report import quality
from audit.report.blocks import by, counted, day, declared, part, size
from audit.report.figures import Report

DOCUMENT, LOG, SOFTWARE = "study document", "log", "how this software works"

RECORDED = "recorded disclosure"

RECORDS_SIMPLIFIED = 50
"""From so many records on, a covered entity may account for research by protocol (45 CFR 164.528(b)(4))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterLine:
    """One field of the register."""

    field: str
    text: str
    source: str
    leaves: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """Something that left a hospital or the consortium: a recorded disclosure, a model, or masked updates."""

    kind: str
    since: str  # a day; the same as `until` where it is one event
    until: str
    sender: str
    recipient: str
    what: str
    purpose: str
    leaves: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The list by protocol that 45 CFR 164.528(b)(4) allows where many records are concerned."""

    sites: tuple[str, ...]  # whose range of patients begins at RECORDS_SIMPLIFIED or above
    rows: tuple[tuple[str, str], ...]
    leaves: tuple[int, ...]


def register(report: Report) -> tuple[RegisterLine, ...]:
    """The extract, field by field, in the order of Art. 30(1)."""
    document, leaf = report.document, (report.study.leaf,)
    hospitals = ", ".join(site.site for site in report.sites)
    cohorts = [(at, entry) for at, entry in report.facts if isinstance(entry, CohortSnapshot)]
    ranges = "; ".join(f"{by(entry)} {entry.patients}" for _, entry in cohorts)
    columns = sorted({column for _, entry in cohorts for column in entry.columns})
    prepared = tuple(at for at, _ in cohorts)
    agreements = [(at, entry) for at, entry in report.facts if isinstance(entry, AgreementRecorded)]
    kinds = sorted({entry.kind for _, entry in agreements})
    return (
        RegisterLine(field="Controllers", text=f"the hospitals: {hospitals}", source=DOCUMENT, leaves=leaf),
        RegisterLine(
            field="Sponsor and contact",
            text=f"{declared(document, 'governance', 'sponsor')}; {declared(document, 'governance', 'contact')}",
            source=DOCUMENT,
            leaves=leaf,
        ),
        RegisterLine(
            field="Arrangements and processors",
            text=", ".join(kinds) if kinds else "none is on record in this log",
            source=LOG,
            leaves=tuple(at for at, _ in agreements),
        ),
        RegisterLine(field="Purposes", text=declared(document, "governance", "purpose"), source=DOCUMENT, leaves=leaf),
        RegisterLine(
            field="Categories of data subjects",
            text=f"patients of the hospitals ({ranges})" if ranges else "patients of the hospitals",
            source=LOG if ranges else DOCUMENT,
            leaves=prepared or leaf,
        ),
        RegisterLine(
            field="Categories of personal data",
            text=f"health data (Art. 9): {', '.join(columns)}" if columns else "health data (Art. 9)",
            source=LOG if columns else DOCUMENT,
            leaves=prepared or leaf,
        ),
        RegisterLine(
            field="Recipients",
            text=(
                "of patients' records: nobody, they stay in their hospital; of masked updates: the coordinator, which "
                "opens sums over hospitals only; of models: see section R9"
            ),
            source=SOFTWARE,
        ),
        _transfers(report),
        RegisterLine(
            field="Time limits for erasure",
            text=_limits(report),
            source=DOCUMENT,
            leaves=leaf,
        ),
        RegisterLine(field="Security measures", text=_measures(report), source=DOCUMENT, leaves=leaf),
    )


def _limits(report: Report) -> str:
    years = part(report.document, "governance", "retention_years")
    expires = part(report.document, "governance", "expires")
    said = "no period stated" if years is None else f"{years} years"
    return said if expires is None else f"{said}; no hospital takes part after {expires}"


def _transfers(report: Report) -> RegisterLine:
    found = [(at, entry) for at, entry in report.facts if isinstance(entry, TransferRecorded)]
    words = "; ".join(f"{one.origin} to {one.destination} ({one.instrument}): {one.what}" for _, one in found)
    return RegisterLine(
        field="Transfers to third countries",
        text=words or "none is on record in this log; without an entry it cannot tell",
        source=LOG,
        leaves=tuple(at for at, _ in found),
    )


def _measures(report: Report) -> str:
    document = report.document
    opened = (
        f"secure aggregation ({declared(document, 'aggregation', 'protocol')}), opened by at least "
        f"{declared(document, 'aggregation', 'threshold')} hospitals together"
    )
    said = [opened]
    if quality.without_privacy(document) is None:
        said.append(
            f"differential privacy of each {declared(document, 'privacy', 'unit')} "
            f"({declared(document, 'privacy', 'mechanism')}, epsilon {report.study.epsilon:g}, delta "
            f"{report.study.delta:g})"
        )
    return "; ".join([*said, "transport under TLS 1.3 with certificates on both sides"])


def departures(report: Report) -> tuple[Departure, ...]:
    """Everything that left: what was declared, then models, then masked updates by hospital."""
    return (*_recorded(report), *_models(report), *_uploads(report))


def _recorded(report: Report) -> Iterator[Departure]:
    for leaf, entry in report.facts:
        if isinstance(entry, DisclosureRecorded):
            yield Departure(
                kind=RECORDED,
                since=entry.disclosed_on,
                until=entry.disclosed_on,
                sender=by(entry),
                recipient=entry.recipient,
                what=entry.what,
                purpose=entry.purpose,
                leaves=(leaf,),
            )


def _models(report: Report) -> Iterator[Departure]:
    purpose = declared(report.document, "governance", "purpose")
    for leaf, entry in report.of("model.released", "model.downloaded"):
        released, digest = entry.TYPE == "model.released", str(getattr(entry, "model_digest", ""))
        yield Departure(
            kind="model",
            since=day(entry.ts),
            until=day(entry.ts),
            sender=by(entry),
            recipient="whoever the consortium hands it to" if released else str(getattr(entry, "site", "a hospital")),
            what=f"global model {digest[:16]}\u2026, {'released' if released else 'fetched'}",
            purpose=purpose,
            leaves=(leaf,),
        )


def _uploads(report: Report) -> Iterator[Departure]:
    figures = {site.site: site for site in report.sites}
    purpose = declared(report.document, "governance", "purpose")
    for one in report.uploads:
        line = figures[one.site]
        yield Departure(
            kind="masked updates",
            since=day(one.first_ts),
            until=day(one.last_ts),
            sender=one.site,
            recipient="coordinator",
            what=f"{counted(line.updates, 'masked update')}, {size(line.bytes_sent)} in all",
            purpose=purpose,
            leaves=tuple(dict.fromkeys((one.first_leaf, one.last_leaf))),
        )


def protocol(report: Report) -> Protocol | None:
    """The simplified list, where a hospital's range of patients shows at least RECORDS_SIMPLIFIED; else None."""
    large = [
        (leaf, by(entry))
        for leaf, entry in report.facts
        if isinstance(entry, CohortSnapshot) and _least(entry.patients) >= RECORDS_SIMPLIFIED
    ]
    if not large:
        return None
    document = report.document
    ethics = declared(document, "governance", "ethics", "reference")
    sponsor = f"{declared(document, 'governance', 'sponsor')}; {declared(document, 'governance', 'contact')}"
    period = (
        f"{min(day(one.first_ts) for one in report.uploads)} to {max(day(one.last_ts) for one in report.uploads)}"
        if report.uploads
        else "nothing was sent"
    )
    return Protocol(
        sites=tuple(dict.fromkeys(site for _, site in large)),
        rows=(
            ("Protocol", f"{report.study.title} ({report.study.id}, {report.study.digest[:16]}\u2026); {ethics}"),
            ("What it is for", declared(document, "governance", "purpose")),
            ("How records were chosen", _selection(report)),
            ("What was used of them", _used(report)),
            ("When", period),
            ("Sponsor", f"{sponsor}; address and telephone are not in the log"),
            ("Statement", "Information of a particular patient may or may not have been disclosed for this protocol."),
        ),
        leaves=tuple(leaf for leaf, _ in large),
    )


def _least(patients: str) -> int:
    """The lower end of a range such as 100-199 or 5000+."""
    return int(patients.rstrip("+").partition("-")[0])


def _selection(report: Report) -> str:
    minimum = part(report.document, "data", "minimum_patients")
    rule = f"; at least {minimum} at each hospital" if minimum is not None else ""
    return f"all records that meet the study's data contract{rule}; each hospital applies it itself"


def _used(report: Report) -> str:
    columns = sorted({c for _, entry in report.facts if isinstance(entry, CohortSnapshot) for c in entry.columns})
    return ", ".join(columns) if columns else "not in the log"
