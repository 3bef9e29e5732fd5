"""Entries about a study's life: submitted, approved, started, paused, ended; and the data it prepared."""

from dataclasses import dataclass
from typing import ClassVar

from audit.entry_types.frame import SiteStudyEntry, StudyEntry
from audit.entry_types.steward_entries import MaybeSigned
from audit.errors import EntryRefused
from audit.fields import (
    Bucket,
    Columns,
    Digest,
    Epsilon,
    Label,
    Line,
    MaybeInstant,
    MaybePseudonym,
    MaybePublicKey,
    MaybeSignature,
    Name,
    Names,
    Outcome,
    Positive,
    Probability,
    Pseudonym,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCreated(StudyEntry):
    """A study was submitted. Its digest is the SHA-256 of its canonical document, which stewards approve."""

    TYPE: ClassVar[str] = "study.created"
    study_digest: Digest
    document_sha256: Digest  # of study.json in the evidence; equals study_digest
    title: Line
    sites: Names
    rounds: Positive
    threshold: Positive
    minimum: Positive
    epsilon: Epsilon
    delta: Probability
    unit: Label
    mechanism: Label
    # What its owner signed; null in entries of an earlier release.
    owner: MaybePseudonym = None
    owner_key: MaybePublicKey = None
    signed_at: MaybeInstant = None
    owner_signature: MaybeSignature = None  # over digest, consortium, the coordinator's key and the time

    def __post_init__(self) -> None:
        StudyEntry.__post_init__(self)
        signed = (self.owner, self.owner_key, self.signed_at, self.owner_signature)
        if any(one is None for one in signed) and any(one is not None for one in signed):
            raise EntryRefused(f"{self.TYPE}.owner_signature", "a part of a signed statement", "all of it, or none")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyApproved(SiteStudyEntry):
    """A hospital's steward agreed to exactly this document."""

    TYPE: ClassVar[str] = "study.approved"
    study_digest: Digest
    steward: Pseudonym
    statement: Line
    signed: MaybeSigned = None  # by stewards, with keys of their own; null: by the agent's key alone, as of old

    def __post_init__(self) -> None:
        SiteStudyEntry.__post_init__(self)
        signed = self.signed or ()
        if signed and (signed[0].steward, signed[0].words) != (self.steward, self.statement):
            raise EntryRefused(f"{self.TYPE}.statement", "other words than were signed", "those of the first steward")
        if any(one.decision != "approved" for one in signed) or len({one.key for one in signed}) != len(signed):
            raise EntryRefused(f"{self.TYPE}.signed", "a key twice, or no approval", "approvals by different keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRejected(SiteStudyEntry):
    """A hospital's steward, or its policy, said no."""

    TYPE: ClassVar[str] = "study.rejected"
    outcome: Outcome = "4"
    study_digest: Digest
    steward: Pseudonym
    reason: Line
    signed: MaybeSigned = None  # by a steward; null: the agent's own decision, or one made without a steward's key

    def __post_init__(self) -> None:
        SiteStudyEntry.__post_init__(self)
        if any(one.decision == "approved" or one.words != self.reason for one in self.signed or ()):
            raise EntryRefused(f"{self.TYPE}.signed", "an approval, or other words", "the reason, signed")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRefused(StudyEntry):
    """A hospital's agent would not prepare the study: the first rule of the hospital's that stands against it."""

    TYPE: ClassVar[str] = "study.refused"
    outcome: Outcome = "4"
    site: Name
    rule: Line
    explanation: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStarted(StudyEntry):
    """Rounds begin from this first global model, which every site computed from the study alone."""

    TYPE: ClassVar[str] = "study.started"
    study_digest: Digest
    sites: Names
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPaused(StudyEntry):
    """No round is started until it is resumed."""

    TYPE: ClassVar[str] = "study.paused"
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResumed(StudyEntry):
    """Rounds go on."""

    TYPE: ClassVar[str] = "study.resumed"
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyAborted(StudyEntry):
    """The study ended early."""

    TYPE: ClassVar[str] = "study.aborted"
    outcome: Outcome = "8"
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCompleted(StudyEntry):
    """Every round of the study was closed."""

    TYPE: ClassVar[str] = "study.completed"
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortSnapshot(SiteStudyEntry):
    """Which columns a site prepared, and how many patients to the nearest range; never the number itself."""

    TYPE: ClassVar[str] = "cohort.snapshot"
    dataset: Name
    columns: Columns
    patients: Bucket
    contract_digest: Digest  # of the study's data contract the cohort was checked against


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientsWithdrawn(SiteStudyEntry):
    """Patients of this dataset withdrew: no later round is trained or tested on them. Never who, nor how many.

    What the site signs next of its cohort (`cohort.snapshot`) is without them.
    """

    TYPE: ClassVar[str] = "patients.withdrawn"
    dataset: Name
