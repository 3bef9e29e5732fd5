"""A study's privacy certificate made from what this agent keeps, signed once, and shown on demand.

The shell around `privacy_certificate.py`: it opens the ledger, the store and site.yaml, and decides nothing.
"""

from collections.abc import Iterator
from pathlib import Path

from audit import entries
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from site_agent.clipping_record import ClippingRecord
from site_agent.figures_account import budget_digest
from site_agent.home import AgentHome
from site_agent.ledger import Ledger
from site_agent.privacy_certificate import CertificateRefused, PrivacyCertificate, certify
from site_agent.signed_events import SignedEvents
from site_agent.spend_entries import sign_figures, sign_spends
from site_agent.store import Store


def certificate_of(
    home: AgentHome, store: Store, ledger: Ledger, digest: Digest, *, parameters: int | None = None
) -> PrivacyCertificate:
    """What this hospital can promise about a study as of now; nothing is signed. Raises CertificateRefused."""
    decision = store.decision(digest)
    if decision is None:
        raise CertificateRefused("this hospital never decided about the study")
    study = StudyFile.from_document(decision.document)
    config = home.config
    dataset = config.dataset_for(study.study_id)
    return certify(
        study=study,
        digest=digest,
        policy=config.policy,
        # The divisor of a step's sum: no part of the promise, but the plan cannot be computed without a number.
        declared_patients=dataset.declared_patients if dataset is not None else study.data.minimum_patients,
        ledger=ledger,
        signed=_signed(store),
        parameters=parameters,
    )


def sign_certificate(
    home: AgentHome,
    store: Store,
    ledger: Ledger,
    events: SignedEvents,
    digest: Digest,
    *,
    parameters: int | None = None,
) -> PrivacyCertificate | None:
    """Sign a study's certificate for the log when the study is over; None if there is nothing to say, or it was said.

    A hospital that took its approval back says nothing more about the study of its own accord.

    Raises:
        CertificateRefused: See `certify`.
    """
    decision = store.decision(digest)
    if decision is None or decision.decision != "approved":
        return None
    study, rows = StudyFile.from_document(decision.document), ledger.report()
    for row in rows:  # a reservation whose process died counts, and so the log has to know of it
        if row.study_digest == digest:
            sign_spends(ledger, events, study, digest, row.dataset)
        elif row.study_digest == budget_digest(digest):
            sign_figures(ledger, events, study, digest, row.dataset)
    if not any(row.study_digest == digest for row in rows):
        return None
    certificate = certificate_of(home, store, ledger, digest, parameters=parameters)
    said = [e for e in _signed(store) if isinstance(e, entries.DpCertificate) and e.study_digest == digest]
    if said and (said[-1].event, said[-1].epsilon_figures) == (certificate.event, certificate.epsilon_figures):
        return None
    events.add(entries.DpCertificate, **certificate.fields())
    return certificate


def local_figures(folder: Path, study: str) -> list[tuple[str, str]]:
    """What the hospital may look at beside a certificate, and nobody else."""
    totals = ClippingRecord(clipping_path(folder, study)).read()
    if not totals.steps:
        return []
    return [
        (
            "Clipped",
            f"{totals.clipped_fraction:.1%} of {totals.sampled} contributions of patients over {totals.steps} steps",
        ),
        ("Broken records", f"{totals.broken} contributions had a gradient that was no number, and counted as zero"),
    ]


def clipping_path(folder: Path, study: str) -> Path:
    """Where a study's clipping record lies in an agent's home."""
    return folder / "results" / f"{study}.clipping.json"


def _signed(store: Store) -> Iterator[entries.SiteEntry]:
    for data in store.signed_entries():
        entry = entries.parse_entry(data)
        assert entries.is_signed_by_site(entry)  # a site's store holds nothing else
        yield entry
