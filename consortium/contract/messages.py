"""What coordinator and site say to each other, outside secure aggregation.

One frozen class per message. The secure-aggregation messages themselves are in `privacy.secagg.messages` and travel
in the same session.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from consortium.contract.names import Digest, SiteId, StudyId
from consortium.contract.submission import Submission
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconReveal,
    CommitmentList,
    Confirmation,
    DeliveredShares,
    GroupedUnmaskRequest,
    KeyBundle,
    RevealList,
    SealedShares,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)

PROTOCOL_VERSION = 1
"""Raised when an older agent could no longer take part; the coordinator refuses agents below its own minimum."""

START_BYTES, EARLIER_STARTS_MAX = 16, 16


# --- site to coordinator -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first message of a session. Who is speaking is in the certificate, not here.

    The rest tells copies of one agent's home apart (threat S-24); agents from before there was that leave it out.
    """

    agent_version: str
    protocol_version: int
    start: bytes = b""  # START_BYTES, drawn when this agent was started
    earlier_starts: tuple[bytes, ...] = ()  # of this home, as far back as one that a coordinator welcomed
    signed_entries: int = 0  # that this home remembers to have signed for the log
    takes_over: bool = False  # a person says that no other copy of the home is to run any more
    unix_time_ms: int = 0  # by this agent's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPrepared:
    """The site built the study's network from the study's seed; this is what it got."""

    study_digest: Digest
    model_digest: Digest
    parameter_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The site will not take part: by which rule of its own, in words, without its numbers."""

    study_digest: Digest
    round: int  # 0 when it refuses the study itself
    attempt: int
    rule: str
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultVerified:
    """The site recomputed the next global model and got the same digest."""

    context: bytes  # 32 bytes
    next_model_digest: Digest
    endorsement: bytes = b""  # its signed model.verified entry, which may reach the log a little later (ADR 13)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedUpdate:
    """4.2: a masked update so small that it needs no stream of its own."""

    study_digest: Digest
    upload: UploadHeader
    values: bytes = field(repr=False)  # little-endian; their SHA-256 is upload.masked_update_hash

    @property
    def site(self) -> str:
        """In whose name it is sent."""
        return self.upload.site


# --- coordinator to site -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The answer to Hello."""

    consortium: str
    coordinator_version: str
    protocol_version: int
    unix_time_ms: int = 0  # by the coordinator's clock; 0 from one that does not tell


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareStudy:
    """Check the study against the site's policy and data, and build its first global model from its seed."""

    study_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SendInitialModel:
    """Upload the first global model. It holds no data: it is a function of the study, and every site checks it."""

    study_digest: Digest
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A signed round plan and the certificates of everybody in it."""

    plan: bytes  # RoundPlan.to_bytes()
    signature: bytes  # 64 bytes, Ed25519 under the coordinator's signing key
    certificates: tuple[bytes, ...]  # DER, one per participant, in the plan's order
    endorsements: tuple[
        bytes, ...
    ]  # signed model.verified entries about the plan's model, for a site that missed a round
    # DER, of endorsing sites that are not participants: their keys, for a site that never met them.
    endorser_certificates: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleList:
    """4.0: every key bundle that arrived, sorted by site."""

    context: bytes
    bundles: tuple[KeyBundle, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareDelivery:
    """4.1: the boxes sealed for this site by every other member of U2, sorted by sender."""

    context: bytes
    members: tuple[SiteId, ...]  # U2, sorted
    deliveries: tuple[DeliveredShares, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """4.5: the sum is in; recompute the next global model and compare."""

    context: bytes
    transcript: bytes  # T3
    aggregate_hash: bytes  # 32 bytes: SHA-256 of the aggregate's little-endian bytes
    next_model_digest: Digest
    aggregate: bytes = field(default=b"", repr=False)  # those bytes where they are few; otherwise they are downloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundAborted:
    """This attempt is over and nothing was revealed by it."""

    context: bytes
    reason: str


class StudyOutcome(StrEnum):
    """How a study ended."""

    COMPLETED = "completed"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEnded:
    """No more rounds of this study will come."""

    study: StudyId
    study_digest: Digest
    outcome: StudyOutcome
    model_digest: Digest
    reason: str


# --- vectors: beside the session, in chunks ------------------------------------------------------------------------


class VectorKind(StrEnum):
    """What a stream of chunks carries."""

    MASKED_UPDATE = "masked-update"
    INITIAL_MODEL = "initial-model"
    GLOBAL_MODEL = "global-model"
    AGGREGATE = "aggregate"


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorHeader:
    """What travels ahead of the chunks; the receiver checks it before it takes any memory."""

    kind: VectorKind
    sha256: bytes  # 32 bytes, of the whole stream
    size_bytes: int
    study_digest: Digest
    upload: UploadHeader | None = None  # with MASKED_UPDATE only


SiteMessage: TypeAlias = (
    Hello
    | StudyPrepared
    | Refusal
    | BeaconCommitment
    | BeaconReveal
    | KeyBundle
    | SealedShares
    | Confirmation
    | UnmaskShares
    | ResultVerified
    | MaskedUpdate
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointReady:
    """The log has a checkpoint to cosign; the site fetches it, with the entries it does not have."""

    size: int


CoordinatorMessage: TypeAlias = (
    Welcome
    | PrepareStudy
    | SendInitialModel
    | Invitation
    | CommitmentList
    | RevealList
    | BundleList
    | ShareDelivery
    | SurvivorProposal
    | UnmaskRequest
    | GroupedUnmaskRequest
    | RoundResult
    | RoundAborted
    | StudyEnded
    | CheckpointReady
)


# --- enrolment and one-off calls -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """A site's certificate request and the one-time token of its kit."""

    site: SiteId
    token: str
    request_der: bytes  # PKCS #10


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRequest:
    """The certificate request of a person's account and the one-time token of its kit."""

    account: str
    token: str
    request_der: bytes  # PKCS #10


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentGrant:
    """The certificate of a site or an account."""

    consortium: str
    certificate_pem: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """How far a site's copy of the log has come."""

    size: int
    note: bytes  # the checkpoint it stands under, as the log signed it; empty before the first


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGrowth:
    """A checkpoint beyond a site's copy, which its entries follow."""

    note: bytes
    proof: tuple[bytes, ...]  # of consistency with the copy
    cosigned: tuple[bytes, ...]  # the notes that other witnesses cosigned last
    dropped: bytes = b""  # the list of leaves whose entries are gone (`audit.dropped`), where hashes follow too


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedLeaves:
    """Hashes of the next leaves, whose entries the log has dropped."""

    hashes: tuple[bytes, ...]  # of 32 bytes each


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDocument:
    """A study as submitted: its canonical bytes are what a steward approves."""

    study: StudyId
    study_digest: Digest
    document: bytes
    state: str
    submission: Submission | None = None  # what its owner signed, unchecked; None from before there were signatures


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReceipt:
    """The coordinator's word that a site's events are in the log, durably."""

    last_sequence: int  # the site's highest counter value in the log


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The coordinator's clock and release, as it says them to a site that looks before it takes part."""

    unix_time_ms: int
    coordinator_version: str
    protocol_version: int
    minimum_agent_version: str  # an older agent is turned away
