"""A steward's decision about a study, signed and remembered as `site-agent studies approve` does it."""

from typing import Any

from audit import entries
from audit.entry_types.steward_entries import StewardSignature
from consortium.contract.study import StudyFile
from site_agent.signed_events import SignedEvents
from site_agent.store import Decision


def decide(
    events: SignedEvents, study: StudyFile, decision: str, signatures: tuple[StewardSignature, ...] = ()
) -> bytes:
    """Approve or reject; returns the signed entry. `signatures`: what `stewards.signed` gives, where it counts."""
    made = Decision(
        study_digest=study.digest(),
        study=study.study_id,
        document=study.document(),
        decision=decision,
        steward="Dr Ada Steward",
        statement="I have read it.",
        at=1_795_000_000.0,
        signatures=signatures,
    )
    fields: dict[str, Any] = {
        "study": study.id,
        "study_digest": study.digest(),
        "steward": events.pseudonym(made.steward),
        "signed": signatures or None,
    }
    if decision == "approved":
        return events.add(entries.StudyApproved, decision=made, statement=made.statement, **fields)
    return events.add(entries.StudyRejected, decision=made, reason=made.statement, **fields)
