"""Entries about what people did and decided: agreements, boards, assessments, reviews, incidents, disclosures.

The software knows none of this by itself. Each is declared by the coordinator of itself or signed by a site for itself,
with the SHA-256 of the document that says so and never the document. A declaration proves who declared what and when.

The fields of these classes are the one list of what may be declared: `audit.declarations` reads command lines by it.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from audit.entry_types.frame import Declaration
from audit.errors import EntryRefused
from audit.fields import (
    Bucket,
    Choice,
    Columns,
    Count,
    Country,
    Day,
    Digest,
    Figures,
    Instant,
    MaybeCommitments,
    MaybeDay,
    MaybeDigest,
    MaybeEpsilon,
    MaybePositive,
    MaybePseudonym,
    Optional,
    Outcome,
    Positive,
    Pseudonym,
    Reference,
    References,
    Words,
)

AS_DECLARED = "declared"
"""An `irb.recorded` that repeats what the study document says of its board; nobody showed the decision."""

_ARTICLE_6 = Choice(tuple(f"6(1)({letter})" for letter in "abcdef"))
_ARTICLE_9 = Choice(tuple(f"9(2)({letter})" for letter in "abcdefghij"))
_HIPAA = Choice(("authorization", "waiver", "limited-data-set", "de-identified"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementRecorded(Declaration):
    """A contract is in force: who with whom, from when to when."""

    TYPE: ClassVar[str] = "agreement.recorded"
    NEEDS_DOCUMENT: ClassVar[bool] = True
    kind: Annotated[str, Choice(("BAA", "DUA", "joint-controller", "processor", "sub-processor", "other"))]
    parties: References
    valid_from: Day
    valid_until: MaybeDay = None  # null: until it is ended


@dataclass(frozen=True, slots=True, kw_only=True)
class IrbRecorded(Declaration):
    """An ethics board or a permit authority decided about a study."""

    TYPE: ClassVar[str] = "irb.recorded"
    NEEDS_DOCUMENT: ClassVar[bool] = True
    reference: Words
    authority: Words
    decision: Annotated[str, Choice(("approved", "conditions", "waived", "exempt", "rejected", "declared"))]
    expires: MaybeDay = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalBasisDeclared(Declaration):
    """On which ground a controller processes these records for this purpose."""

    TYPE: ClassVar[str] = "legal_basis.declared"
    article_6: Annotated[str | None, Optional(_ARTICLE_6)] = None
    article_9: Annotated[str | None, Optional(_ARTICLE_9)] = None
    hipaa: Annotated[str | None, Optional(_HIPAA)] = None

    def __post_init__(self) -> None:
        Declaration.__post_init__(self)
        if (self.article_6, self.article_9, self.hipaa) == (None, None, None):
            raise EntryRefused(self.TYPE, "no ground", "article_6, article_9 or hipaa, or several")


@dataclass(frozen=True, slots=True, kw_only=True)
class DpiaRecorded(Declaration):
    """An assessment under GDPR article 35 exists, and what it assessed: to hold against what ran."""

    TYPE: ClassVar[str] = "dpia.recorded"
    NEEDS_DOCUMENT: ClassVar[bool] = True
    version: Reference
    assessed_epsilon: MaybeEpsilon = None
    assessed_sites: MaybePositive = None  # how many hospitals
    assessed_columns: Columns = ()  # none: the assessment names none


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimumNecessaryDetermined(Declaration):
    """Somebody determined that these columns, and no others, are needed."""

    TYPE: ClassVar[str] = "minimum_necessary.determined"
    columns: Columns
    determination: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class DeidDetermined(Declaration):
    """Somebody determined that what leaves is de-identified, and by which method."""

    TYPE: ClassVar[str] = "deid.determined"
    NEEDS_DOCUMENT: ClassVar[bool] = True
    method: Annotated[str, Choice(("safe-harbor", "expert", "none-needed"))]
    expert: MaybePseudonym = None
    expires: MaybeDay = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReviewed(Declaration):
    """Somebody read the entries of this range of leaves, both ends included."""

    TYPE: ClassVar[str] = "log.reviewed"
    first_leaf: Count
    last_leaf: Count
    findings: Count
    summary: Words

    def __post_init__(self) -> None:
        Declaration.__post_init__(self)
        if self.on_behalf is None:
            raise EntryRefused(f"{self.TYPE}.on_behalf", "nobody", "the pseudonym of who read it")
        if self.last_leaf < self.first_leaf:
            raise EntryRefused(f"{self.TYPE}.last_leaf", str(self.last_leaf), f"{self.first_leaf} or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened(Declaration):
    """Something went wrong, or may have; the clock of notification runs from `discovered_at`."""

    TYPE: ClassVar[str] = "incident.opened"
    outcome: Outcome = "8"
    incident: Reference
    kind: Annotated[str, Choice(("confidentiality", "integrity", "availability", "privacy", "other"))]
    discovered_at: Instant
    summary: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentNotified(Declaration):
    """Somebody was told of an incident."""

    TYPE: ClassVar[str] = "incident.notified"
    incident: Reference
    recipient: Annotated[
        str, Choice(("authority", "controller", "covered-entity", "board", "patients", "public", "other"))
    ]
    notified_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentClosed(Declaration):
    """An incident is over."""

    TYPE: ClassVar[str] = "incident.closed"
    incident: Reference
    summary: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class DisclosureRecorded(Declaration):
    """Something was disclosed to somebody: when, to whom, what, why."""

    TYPE: ClassVar[str] = "disclosure.recorded"
    recipient: Words
    what: Words
    purpose: Words
    disclosed_on: Day


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentWithdrawn(Declaration):
    """Patients took their consent back: how many to the nearest range, never who."""

    TYPE: ClassVar[str] = "consent.withdrawn"
    patients: Bucket
    received_on: Day


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureExecuted(Declaration):
    """Something was destroyed for good."""

    TYPE: ClassVar[str] = "erasure.executed"
    what: Annotated[str, Choice(("patient-data", "pseudonym-key", "payload", "model", "export", "other"))]
    executed_on: Day
    commitments: MaybeCommitments = None  # of the payloads whose key and salt are destroyed
    subject: MaybePseudonym = None  # whose pseudonym is nobody's from now on

    def __post_init__(self) -> None:
        Declaration.__post_init__(self)
        if self.commitments is not None and self.what != "payload":
            raise EntryRefused(f"{self.TYPE}.commitments", f"those of {self.what}", "those of payloads")
        if self.subject is not None and self.what != "pseudonym-key":
            raise EntryRefused(f"{self.TYPE}.subject", f"that of {self.what}", "that of a pseudonym's key")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRecorded(Declaration):
    """Data of a kind go from one country to another, under an instrument."""

    TYPE: ClassVar[str] = "transfer.recorded"
    origin: Country
    destination: Country
    instrument: Annotated[str, Choice(("adequacy", "SCC", "BCR", "derogation", "none-needed"))]
    what: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionApplied(Declaration):
    """A retention policy was looked at, and what was done about entries older than a day.

    Written before anything is dropped. The digest is of the list of every leaf that then has a hash only, those of
    earlier drops with it (`audit.dropped`); the leaves are the first and the last of it.
    """

    TYPE: ClassVar[str] = "retention.applied"
    years: Positive
    older_than: Day
    entries_due: Count
    action: Annotated[str, Choice(("kept", "dropped"))]
    first_leaf: MaybePositive = None
    last_leaf: MaybePositive = None
    entries_dropped: MaybePositive = None  # by this drop and those before it
    dropped_sha256: MaybeDigest = None

    def __post_init__(self) -> None:
        Declaration.__post_init__(self)
        about = (self.first_leaf, self.last_leaf, self.entries_dropped, self.dropped_sha256)
        if any((one is not None) is not (self.action == "dropped") for one in about):
            raise EntryRefused(
                f"{self.TYPE}.dropped_sha256",
                f"{'no' if self.dropped_sha256 is None else 'a'} list of leaves with {self.action!r}",
                "the list with 'dropped', as `consortium audit retention --drop` makes it, and none with 'kept'",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRestored(Declaration):
    """Something was restored from a backup, in earnest or to see whether it can be."""

    TYPE: ClassVar[str] = "backup.restored"
    what: Annotated[str, Choice(("database", "log", "home", "ledger"))]
    purpose: Annotated[str, Choice(("test", "recovery"))]
    result: Annotated[str, Choice(("complete", "partly", "failed"))]
    taken_on: Day  # the day the backup is of


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChanged(Declaration):
    """A person got a role in this consortium or lost it."""

    TYPE: ClassVar[str] = "role.changed"
    person: Pseudonym
    role: Annotated[str, Choice(("lead", "scientist", "operator", "steward", "auditor"))]
    change: Annotated[str, Choice(("given", "taken"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackTested(Declaration):
    """Somebody attacked a model or an update on purpose, to see what it gives away."""

    TYPE: ClassVar[str] = "attack.tested"
    attack: Annotated[str, Choice(("membership-inference", "extraction", "reconstruction", "poisoning", "other"))]
    model_digest: Digest
    figures: Figures
    tested_on: Day
