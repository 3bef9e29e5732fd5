"""Who submitted a study, by a signature that this hospital checks itself (threat G-09).

The coordinator hands the owner's statement over with the study, and has it in the log. Neither is believed: the
signature must be over this study's digest, this consortium and the key of the coordinator that this hospital enrolled
with; and where the hospital's own copy of the log has the study already, it must be the same statement there.

A key says nothing of whose it is. `allowed_owners` in site.yaml pins fingerprints that people have compared.
"""

import json
from dataclasses import dataclass

from audit.log import LogView
from consortium.contract.messages import StudyDocument
from consortium.contract.names import Digest
from consortium.contract.submission import Destination, Submission, SubmissionRefused, verify
from site_agent.errors import SiteError
from site_agent.home import AgentHome
from site_agent.log_copy import CopyMissing, open_copy
from site_agent.site_file import Policy


class OwnerNotAllowed(SiteError):
    """A study of an owner whom this hospital's site.yaml does not name."""

    code = "refused"

    def __init__(self, found: str) -> None:
        super().__init__(f"allowed_owners: found {found}; allowed: the fingerprints in site.yaml")

    def advice(self) -> str:
        """What to do next."""
        return "Compare the owner's fingerprint by telephone; if it is right, add it to allowed_owners in site.yaml."


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who signed a study, checked."""

    fingerprint: Digest  # SHA-256 of the public key
    signed_at: str
    in_log: bool  # whether this hospital's copy of the log has the statement; it may not have come that far


def owner_of(home: AgentHome, document: StudyDocument) -> Owner | None:
    """Who submitted a study; None if nobody signed it, as in releases before there were signatures.

    Raises:
        SubmissionRefused: The statement is not the owner's, not for this consortium, or not the one in the log.
        CopyAltered: This hospital's copy of the log does not hold.
    """
    submission = document.submission
    if submission is not None:
        here = Destination(
            consortium=home.identity.consortium, coordinator_signing_key=home.identity.coordinator_signing_key
        )
        verify(submission, document.study_digest, here)
    try:
        logged = in_log(open_copy(home), document.study_digest)
    except CopyMissing:
        logged = NOT_THERE
    if logged is not NOT_THERE and logged != submission:
        found = "a statement that is not the one in the log" if submission is not None else "none, and one in the log"
        raise SubmissionRefused(found, "the owner's statement as this hospital's copy of the log has it")
    if submission is None:
        return None
    return Owner(fingerprint=submission.fingerprint, signed_at=submission.signed_at, in_log=logged is not NOT_THERE)


NOT_THERE = "not there"
"""The copy of the log does not have the study yet."""


def in_log(log: LogView, study_digest: Digest) -> Submission | str | None:
    """The owner's statement as `study.created` has it; None if that has none, NOT_THERE if there is no such entry."""
    mark = study_digest.encode()
    for data in log.known():
        if data is None or mark not in data or b'"type":"study.created"' not in data:
            continue
        body = json.loads(data)["body"]
        if body["study_digest"] != study_digest:
            continue
        if "owner_key" not in body:
            return None
        return Submission(owner_key=body["owner_key"], signed_at=body["signed_at"], signature=body["owner_signature"])
    return NOT_THERE


def require_allowed(policy: Policy, owner: Owner | None) -> None:
    """Raise OwnerNotAllowed if this hospital pins owners, and this is none of them."""
    if policy.allowed_owners and (owner is None or owner.fingerprint not in policy.allowed_owners):
        raise OwnerNotAllowed("a study that nobody signed" if owner is None else f"the owner {owner.fingerprint}")


def words(owner: Owner | None, policy: Policy) -> str:
    """For the person who decides."""
    if owner is None:
        return "nobody: no owner signed this study. " + _pinned(policy, allowed=False)
    where = "as the log has it" if owner.in_log else "this hospital's copy of the log does not have it yet"
    said = f"the owner with the key {owner.fingerprint}, signed at {owner.signed_at} ({where})"
    return f"{said}. {_pinned(policy, allowed=owner.fingerprint in policy.allowed_owners)}"


def _pinned(policy: Policy, *, allowed: bool) -> str:
    if not policy.allowed_owners:
        return "site.yaml names no allowed_owners: compare the fingerprint with the owner's own."
    return "site.yaml allows this owner." if allowed else "site.yaml does not allow it: it cannot be approved here."
