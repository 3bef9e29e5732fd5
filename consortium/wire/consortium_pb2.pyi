from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StudyOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STUDY_OUTCOME_UNSPECIFIED: _ClassVar[StudyOutcome]
    STUDY_OUTCOME_COMPLETED: _ClassVar[StudyOutcome]
    STUDY_OUTCOME_ABORTED: _ClassVar[StudyOutcome]

class VectorKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VECTOR_KIND_UNSPECIFIED: _ClassVar[VectorKind]
    VECTOR_KIND_MASKED_UPDATE: _ClassVar[VectorKind]
    VECTOR_KIND_INITIAL_MODEL: _ClassVar[VectorKind]
    VECTOR_KIND_GLOBAL_MODEL: _ClassVar[VectorKind]
    VECTOR_KIND_AGGREGATE: _ClassVar[VectorKind]
STUDY_OUTCOME_UNSPECIFIED: StudyOutcome
STUDY_OUTCOME_COMPLETED: StudyOutcome
STUDY_OUTCOME_ABORTED: StudyOutcome
VECTOR_KIND_UNSPECIFIED: VectorKind
VECTOR_KIND_MASKED_UPDATE: VectorKind
VECTOR_KIND_INITIAL_MODEL: VectorKind
VECTOR_KIND_GLOBAL_MODEL: VectorKind
VECTOR_KIND_AGGREGATE: VectorKind

class SiteMessage(_message.Message):
    __slots__ = ("hello", "study_prepared", "refusal", "key_bundle", "sealed_shares", "confirmation", "unmask_shares", "result_verified", "beacon_commitment", "beacon_reveal", "masked_update")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    STUDY_PREPARED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    KEY_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    SEALED_SHARES_FIELD_NUMBER: _ClassVar[int]
    CONFIRMATION_FIELD_NUMBER: _ClassVar[int]
    UNMASK_SHARES_FIELD_NUMBER: _ClassVar[int]
    RESULT_VERIFIED_FIELD_NUMBER: _ClassVar[int]
    BEACON_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    BEACON_REVEAL_FIELD_NUMBER: _ClassVar[int]
    MASKED_UPDATE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    study_prepared: StudyPrepared
    refusal: Refusal
    key_bundle: KeyBundle
    sealed_shares: SealedShares
    confirmation: Confirmation
    unmask_shares: UnmaskShares
    result_verified: ResultVerified
    beacon_commitment: BeaconCommitment
    beacon_reveal: BeaconReveal
    masked_update: MaskedUpdate
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., study_prepared: _Optional[_Union[StudyPrepared, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., key_bundle: _Optional[_Union[KeyBundle, _Mapping]] = ..., sealed_shares: _Optional[_Union[SealedShares, _Mapping]] = ..., confirmation: _Optional[_Union[Confirmation, _Mapping]] = ..., unmask_shares: _Optional[_Union[UnmaskShares, _Mapping]] = ..., result_verified: _Optional[_Union[ResultVerified, _Mapping]] = ..., beacon_commitment: _Optional[_Union[BeaconCommitment, _Mapping]] = ..., beacon_reveal: _Optional[_Union[BeaconReveal, _Mapping]] = ..., masked_update: _Optional[_Union[MaskedUpdate, _Mapping]] = ...) -> None: ...

class CoordinatorMessage(_message.Message):
    __slots__ = ("welcome", "prepare_study", "send_initial_model", "invitation", "bundle_list", "share_delivery", "survivor_proposal", "unmask_request", "round_result", "round_aborted", "study_ended", "commitment_list", "reveal_list", "grouped_unmask_request", "checkpoint_ready")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    PREPARE_STUDY_FIELD_NUMBER: _ClassVar[int]
    SEND_INITIAL_MODEL_FIELD_NUMBER: _ClassVar[int]
    INVITATION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_LIST_FIELD_NUMBER: _ClassVar[int]
    SHARE_DELIVERY_FIELD_NUMBER: _ClassVar[int]
    SURVIVOR_PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    UNMASK_REQUEST_FIELD_NUMBER: _ClassVar[int]
    ROUND_RESULT_FIELD_NUMBER: _ClassVar[int]
    ROUND_ABORTED_FIELD_NUMBER: _ClassVar[int]
    STUDY_ENDED_FIELD_NUMBER: _ClassVar[int]
    COMMITMENT_LIST_FIELD_NUMBER: _ClassVar[int]
    REVEAL_LIST_FIELD_NUMBER: _ClassVar[int]
    GROUPED_UNMASK_REQUEST_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_READY_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    prepare_study: PrepareStudy
    send_initial_model: SendInitialModel
    invitation: Invitation
    bundle_list: BundleList
    share_delivery: ShareDelivery
    survivor_proposal: SurvivorProposal
    unmask_request: UnmaskRequest
    round_result: RoundResult
    round_aborted: RoundAborted
    study_ended: StudyEnded
    commitment_list: CommitmentList
    reveal_list: RevealList
    grouped_unmask_request: GroupedUnmaskRequest
    checkpoint_ready: CheckpointReady
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., prepare_study: _Optional[_Union[PrepareStudy, _Mapping]] = ..., send_initial_model: _Optional[_Union[SendInitialModel, _Mapping]] = ..., invitation: _Optional[_Union[Invitation, _Mapping]] = ..., bundle_list: _Optional[_Union[BundleList, _Mapping]] = ..., share_delivery: _Optional[_Union[ShareDelivery, _Mapping]] = ..., survivor_proposal: _Optional[_Union[SurvivorProposal, _Mapping]] = ..., unmask_request: _Optional[_Union[UnmaskRequest, _Mapping]] = ..., round_result: _Optional[_Union[RoundResult, _Mapping]] = ..., round_aborted: _Optional[_Union[RoundAborted, _Mapping]] = ..., study_ended: _Optional[_Union[StudyEnded, _Mapping]] = ..., commitment_list: _Optional[_Union[CommitmentList, _Mapping]] = ..., reveal_list: _Optional[_Union[RevealList, _Mapping]] = ..., grouped_unmask_request: _Optional[_Union[GroupedUnmaskRequest, _Mapping]] = ..., checkpoint_ready: _Optional[_Union[CheckpointReady, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("agent_version", "protocol_version", "start", "earlier_starts", "signed_entries", "takes_over", "unix_time_ms")
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    EARLIER_STARTS_FIELD_NUMBER: _ClassVar[int]
    SIGNED_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    TAKES_OVER_FIELD_NUMBER: _ClassVar[int]
    UNIX_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    agent_version: str
    protocol_version: int
    start: bytes
    earlier_starts: _containers.RepeatedScalarFieldContainer[bytes]
    signed_entries: int
    takes_over: bool
    unix_time_ms: int
    def __init__(self, agent_version: _Optional[str] = ..., protocol_version: _Optional[int] = ..., start: _Optional[bytes] = ..., earlier_starts: _Optional[_Iterable[bytes]] = ..., signed_entries: _Optional[int] = ..., takes_over: _Optional[bool] = ..., unix_time_ms: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("consortium", "coordinator_version", "protocol_version", "unix_time_ms")
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    UNIX_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    consortium: str
    coordinator_version: str
    protocol_version: int
    unix_time_ms: int
    def __init__(self, consortium: _Optional[str] = ..., coordinator_version: _Optional[str] = ..., protocol_version: _Optional[int] = ..., unix_time_ms: _Optional[int] = ...) -> None: ...

class PrepareStudy(_message.Message):
    __slots__ = ("study_digest",)
    STUDY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    study_digest: bytes
    def __init__(self, study_digest: _Optional[bytes] = ...) -> None: ...

class StudyPrepared(_message.Message):
    __slots__ = ("study_digest", "model_digest", "parameter_count")
    STUDY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_COUNT_FIELD_NUMBER: _ClassVar[int]
    study_digest: bytes
    model_digest: bytes
    parameter_count: int
    def __init__(self, study_digest: _Optional[bytes] = ..., model_digest: _Optional[bytes] = ..., parameter_count: _Optional[int] = ...) -> None: ...

class SendInitialModel(_message.Message):
    __slots__ = ("study_digest", "model_digest")
    STUDY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    study_digest: bytes
    model_digest: bytes
    def __init__(self, study_digest: _Optional[bytes] = ..., model_digest: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("study_digest", "round", "attempt", "rule", "explanation")
    STUDY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    study_digest: bytes
    round: int
    attempt: int
    rule: str
    explanation: str
    def __init__(self, study_digest: _Optional[bytes] = ..., round: _Optional[int] = ..., attempt: _Optional[int] = ..., rule: _Optional[str] = ..., explanation: _Optional[str] = ...) -> None: ...

class Invitation(_message.Message):
    __slots__ = ("plan", "signature", "certificates", "endorsements", "endorser_certificates")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    ENDORSEMENTS_FIELD_NUMBER: _ClassVar[int]
    ENDORSER_CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    plan: bytes
    signature: bytes
    certificates: _containers.RepeatedScalarFieldContainer[bytes]
    endorsements: _containers.RepeatedScalarFieldContainer[bytes]
    endorser_certificates: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, plan: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., certificates: _Optional[_Iterable[bytes]] = ..., endorsements: _Optional[_Iterable[bytes]] = ..., endorser_certificates: _Optional[_Iterable[bytes]] = ...) -> None: ...

class KeyBundle(_message.Message):
    __slots__ = ("context", "site", "pair_key", "box_key", "self_mask_commitment", "signature")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    PAIR_KEY_FIELD_NUMBER: _ClassVar[int]
    BOX_KEY_FIELD_NUMBER: _ClassVar[int]
    SELF_MASK_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    site: str
    pair_key: bytes
    box_key: bytes
    self_mask_commitment: bytes
    signature: bytes
    def __init__(self, context: _Optional[bytes] = ..., site: _Optional[str] = ..., pair_key: _Optional[bytes] = ..., box_key: _Optional[bytes] = ..., self_mask_commitment: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class BundleList(_message.Message):
    __slots__ = ("context", "bundles")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    bundles: _containers.RepeatedCompositeFieldContainer[KeyBundle]
    def __init__(self, context: _Optional[bytes] = ..., bundles: _Optional[_Iterable[_Union[KeyBundle, _Mapping]]] = ...) -> None: ...

class SealedForPeer(_message.Message):
    __slots__ = ("recipient", "shares", "pair_seed")
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    PAIR_SEED_FIELD_NUMBER: _ClassVar[int]
    recipient: str
    shares: bytes
    pair_seed: bytes
    def __init__(self, recipient: _Optional[str] = ..., shares: _Optional[bytes] = ..., pair_seed: _Optional[bytes] = ...) -> None: ...

class SealedShares(_message.Message):
    __slots__ = ("context", "site", "boxes", "signature")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    site: str
    boxes: _containers.RepeatedCompositeFieldContainer[SealedForPeer]
    signature: bytes
    def __init__(self, context: _Optional[bytes] = ..., site: _Optional[str] = ..., boxes: _Optional[_Iterable[_Union[SealedForPeer, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class BoxHash(_message.Message):
    __slots__ = ("recipient", "sha256")
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    recipient: str
    sha256: bytes
    def __init__(self, recipient: _Optional[str] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class DeliveredShares(_message.Message):
    __slots__ = ("sender", "shares", "pair_seed", "other_box_hashes", "signature")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    PAIR_SEED_FIELD_NUMBER: _ClassVar[int]
    OTHER_BOX_HASHES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    sender: str
    shares: bytes
    pair_seed: bytes
    other_box_hashes: _containers.RepeatedCompositeFieldContainer[BoxHash]
    signature: bytes
    def __init__(self, sender: _Optional[str] = ..., shares: _Optional[bytes] = ..., pair_seed: _Optional[bytes] = ..., other_box_hashes: _Optional[_Iterable[_Union[BoxHash, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ShareDelivery(_message.Message):
    __slots__ = ("context", "members", "deliveries")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    members: _containers.RepeatedScalarFieldContainer[str]
    deliveries: _containers.RepeatedCompositeFieldContainer[DeliveredShares]
    def __init__(self, context: _Optional[bytes] = ..., members: _Optional[_Iterable[str]] = ..., deliveries: _Optional[_Iterable[_Union[DeliveredShares, _Mapping]]] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("context", "site", "keying_hash", "masked_update_hash", "signature")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    KEYING_HASH_FIELD_NUMBER: _ClassVar[int]
    MASKED_UPDATE_HASH_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    site: str
    keying_hash: bytes
    masked_update_hash: bytes
    signature: bytes
    def __init__(self, context: _Optional[bytes] = ..., site: _Optional[str] = ..., keying_hash: _Optional[bytes] = ..., masked_update_hash: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class MaskedUpdate(_message.Message):
    __slots__ = ("study_digest", "upload", "values")
    STUDY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    study_digest: bytes
    upload: UploadHeader
    values: bytes
    def __init__(self, study_digest: _Optional[bytes] = ..., upload: _Optional[_Union[UploadHeader, _Mapping]] = ..., values: _Optional[bytes] = ...) -> None: ...

class SurvivorProposal(_message.Message):
    __slots__ = ("context", "survivors", "headers")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    survivors: _containers.RepeatedScalarFieldContainer[str]
    headers: _containers.RepeatedCompositeFieldContainer[UploadHeader]
    def __init__(self, context: _Optional[bytes] = ..., survivors: _Optional[_Iterable[str]] = ..., headers: _Optional[_Iterable[_Union[UploadHeader, _Mapping]]] = ...) -> None: ...

class Confirmation(_message.Message):
    __slots__ = ("context", "site", "transcript", "signature")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    site: str
    transcript: bytes
    signature: bytes
    def __init__(self, context: _Optional[bytes] = ..., site: _Optional[str] = ..., transcript: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class UnmaskRequest(_message.Message):
    __slots__ = ("context", "confirmations")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CONFIRMATIONS_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    confirmations: _containers.RepeatedCompositeFieldContainer[Confirmation]
    def __init__(self, context: _Optional[bytes] = ..., confirmations: _Optional[_Iterable[_Union[Confirmation, _Mapping]]] = ...) -> None: ...

class RevealedShare(_message.Message):
    __slots__ = ("owner", "share")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    owner: str
    share: bytes
    def __init__(self, owner: _Optional[str] = ..., share: _Optional[bytes] = ...) -> None: ...

class UnmaskShares(_message.Message):
    __slots__ = ("context", "site", "self_mask_shares", "root_shares", "signature")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    SELF_MASK_SHARES_FIELD_NUMBER: _ClassVar[int]
    ROOT_SHARES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    site: str
    self_mask_shares: _containers.RepeatedCompositeFieldContainer[RevealedShare]
    root_shares: _containers.RepeatedCompositeFieldContainer[RevealedShare]
    signature: bytes
    def __init__(self, context: _Optional[bytes] = ..., site: _Optional[str] = ..., self_mask_shares: _Optional[_Iterable[_Union[RevealedShare, _Mapping]]] = ..., root_shares: _Optional[_Iterable[_Union[RevealedShare, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class BeaconCommitment(_message.Message):
    __slots__ = ("context", "site", "commitment", "signature")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    site: str
    commitment: bytes
    signature: bytes
    def __init__(self, context: _Optional[bytes] = ..., site: _Optional[str] = ..., commitment: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SiteValue(_message.Message):
    __slots__ = ("site", "value")
    SITE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    site: str
    value: bytes
    def __init__(self, site: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class CommitmentList(_message.Message):
    __slots__ = ("context", "commitments")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    COMMITMENTS_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    commitments: _containers.RepeatedCompositeFieldContainer[SiteValue]
    def __init__(self, context: _Optional[bytes] = ..., commitments: _Optional[_Iterable[_Union[SiteValue, _Mapping]]] = ...) -> None: ...

class BeaconReveal(_message.Message):
    __slots__ = ("context", "site", "commitments_hash", "nonce", "signature")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    COMMITMENTS_HASH_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    site: str
    commitments_hash: bytes
    nonce: bytes
    signature: bytes
    def __init__(self, context: _Optional[bytes] = ..., site: _Optional[str] = ..., commitments_hash: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class RevealList(_message.Message):
    __slots__ = ("context", "nonces")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NONCES_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    nonces: _containers.RepeatedCompositeFieldContainer[SiteValue]
    def __init__(self, context: _Optional[bytes] = ..., nonces: _Optional[_Iterable[_Union[SiteValue, _Mapping]]] = ...) -> None: ...

class ConfirmedGroup(_message.Message):
    __slots__ = ("survivors", "transcript", "confirmations")
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    CONFIRMATIONS_FIELD_NUMBER: _ClassVar[int]
    survivors: _containers.RepeatedScalarFieldContainer[str]
    transcript: bytes
    confirmations: _containers.RepeatedCompositeFieldContainer[Confirmation]
    def __init__(self, survivors: _Optional[_Iterable[str]] = ..., transcript: _Optional[bytes] = ..., confirmations: _Optional[_Iterable[_Union[Confirmation, _Mapping]]] = ...) -> None: ...

class GroupedUnmaskRequest(_message.Message):
    __slots__ = ("context", "groups")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    groups: _containers.RepeatedCompositeFieldContainer[ConfirmedGroup]
    def __init__(self, context: _Optional[bytes] = ..., groups: _Optional[_Iterable[_Union[ConfirmedGroup, _Mapping]]] = ...) -> None: ...

class RoundResult(_message.Message):
    __slots__ = ("context", "transcript", "aggregate_hash", "next_model_digest", "aggregate")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_HASH_FIELD_NUMBER: _ClassVar[int]
    NEXT_MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    AGGREGATE_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    transcript: bytes
    aggregate_hash: bytes
    next_model_digest: bytes
    aggregate: bytes
    def __init__(self, context: _Optional[bytes] = ..., transcript: _Optional[bytes] = ..., aggregate_hash: _Optional[bytes] = ..., next_model_digest: _Optional[bytes] = ..., aggregate: _Optional[bytes] = ...) -> None: ...

class ResultVerified(_message.Message):
    __slots__ = ("context", "next_model_digest", "endorsement")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NEXT_MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENDORSEMENT_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    next_model_digest: bytes
    endorsement: bytes
    def __init__(self, context: _Optional[bytes] = ..., next_model_digest: _Optional[bytes] = ..., endorsement: _Optional[bytes] = ...) -> None: ...

class RoundAborted(_message.Message):
    __slots__ = ("context", "reason")
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    context: bytes
    reason: str
    def __init__(self, context: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class StudyEnded(_message.Message):
    __slots__ = ("study", "study_digest", "outcome", "model_digest", "reason")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    STUDY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    study: str
    study_digest: bytes
    outcome: StudyOutcome
    model_digest: bytes
    reason: str
    def __init__(self, study: _Optional[str] = ..., study_digest: _Optional[bytes] = ..., outcome: _Optional[_Union[StudyOutcome, str]] = ..., model_digest: _Optional[bytes] = ..., reason: _Optional[str] = ...) -> None: ...

class VectorHeader(_message.Message):
    __slots__ = ("kind", "sha256", "size_bytes", "study_digest", "upload")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    STUDY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    kind: VectorKind
    sha256: bytes
    size_bytes: int
    study_digest: bytes
    upload: UploadHeader
    def __init__(self, kind: _Optional[_Union[VectorKind, str]] = ..., sha256: _Optional[bytes] = ..., size_bytes: _Optional[int] = ..., study_digest: _Optional[bytes] = ..., upload: _Optional[_Union[UploadHeader, _Mapping]] = ...) -> None: ...

class VectorPart(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: VectorHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[VectorHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class VectorRequest(_message.Message):
    __slots__ = ("kind", "sha256")
    KIND_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    kind: VectorKind
    sha256: bytes
    def __init__(self, kind: _Optional[_Union[VectorKind, str]] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class UploadReceipt(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    def __init__(self, sha256: _Optional[bytes] = ...) -> None: ...

class Events(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, events: _Optional[_Iterable[bytes]] = ...) -> None: ...

class EventReceipt(_message.Message):
    __slots__ = ("last_sequence",)
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    last_sequence: int
    def __init__(self, last_sequence: _Optional[int] = ...) -> None: ...

class CheckpointReady(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class LogPosition(_message.Message):
    __slots__ = ("size", "note")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    size: int
    note: bytes
    def __init__(self, size: _Optional[int] = ..., note: _Optional[bytes] = ...) -> None: ...

class LogGrowth(_message.Message):
    __slots__ = ("note", "proof", "cosigned", "dropped")
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    COSIGNED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    note: bytes
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    cosigned: _containers.RepeatedScalarFieldContainer[bytes]
    dropped: bytes
    def __init__(self, note: _Optional[bytes] = ..., proof: _Optional[_Iterable[bytes]] = ..., cosigned: _Optional[_Iterable[bytes]] = ..., dropped: _Optional[bytes] = ...) -> None: ...

class LogHashes(_message.Message):
    __slots__ = ("hashes",)
    HASHES_FIELD_NUMBER: _ClassVar[int]
    hashes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, hashes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class LogEntries(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, entries: _Optional[_Iterable[bytes]] = ...) -> None: ...

class LogPart(_message.Message):
    __slots__ = ("growth", "entries", "hashes")
    GROWTH_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    HASHES_FIELD_NUMBER: _ClassVar[int]
    growth: LogGrowth
    entries: LogEntries
    hashes: LogHashes
    def __init__(self, growth: _Optional[_Union[LogGrowth, _Mapping]] = ..., entries: _Optional[_Union[LogEntries, _Mapping]] = ..., hashes: _Optional[_Union[LogHashes, _Mapping]] = ...) -> None: ...

class CosignedNote(_message.Message):
    __slots__ = ("note",)
    NOTE_FIELD_NUMBER: _ClassVar[int]
    note: bytes
    def __init__(self, note: _Optional[bytes] = ...) -> None: ...

class CosignReceipt(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListStudiesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GreetingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Greeting(_message.Message):
    __slots__ = ("unix_time_ms", "coordinator_version", "protocol_version", "minimum_agent_version")
    UNIX_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    unix_time_ms: int
    coordinator_version: str
    protocol_version: int
    minimum_agent_version: str
    def __init__(self, unix_time_ms: _Optional[int] = ..., coordinator_version: _Optional[str] = ..., protocol_version: _Optional[int] = ..., minimum_agent_version: _Optional[str] = ...) -> None: ...

class StudyDocument(_message.Message):
    __slots__ = ("study", "study_digest", "document", "state", "submission")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    STUDY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_FIELD_NUMBER: _ClassVar[int]
    study: str
    study_digest: bytes
    document: bytes
    state: str
    submission: StudySubmission
    def __init__(self, study: _Optional[str] = ..., study_digest: _Optional[bytes] = ..., document: _Optional[bytes] = ..., state: _Optional[str] = ..., submission: _Optional[_Union[StudySubmission, _Mapping]] = ...) -> None: ...

class StudySubmission(_message.Message):
    __slots__ = ("owner_key", "signed_at", "signature")
    OWNER_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNED_AT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    owner_key: bytes
    signed_at: str
    signature: bytes
    def __init__(self, owner_key: _Optional[bytes] = ..., signed_at: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class EnrolmentRequest(_message.Message):
    __slots__ = ("site", "token", "request_der")
    SITE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DER_FIELD_NUMBER: _ClassVar[int]
    site: str
    token: str
    request_der: bytes
    def __init__(self, site: _Optional[str] = ..., token: _Optional[str] = ..., request_der: _Optional[bytes] = ...) -> None: ...

class RenewalRequest(_message.Message):
    __slots__ = ("request_der",)
    REQUEST_DER_FIELD_NUMBER: _ClassVar[int]
    request_der: bytes
    def __init__(self, request_der: _Optional[bytes] = ...) -> None: ...

class AccountRequest(_message.Message):
    __slots__ = ("account", "token", "request_der")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DER_FIELD_NUMBER: _ClassVar[int]
    account: str
    token: str
    request_der: bytes
    def __init__(self, account: _Optional[str] = ..., token: _Optional[str] = ..., request_der: _Optional[bytes] = ...) -> None: ...

class EnrolmentGrant(_message.Message):
    __slots__ = ("consortium", "certificate_pem")
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    consortium: str
    certificate_pem: bytes
    def __init__(self, consortium: _Optional[str] = ..., certificate_pem: _Optional[bytes] = ...) -> None: ...

class Command(_message.Message):
    __slots__ = ("name", "arguments")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    arguments: bytes
    def __init__(self, name: _Optional[str] = ..., arguments: _Optional[bytes] = ...) -> None: ...

class CommandAnswer(_message.Message):
    __slots__ = ("answer",)
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    answer: bytes
    def __init__(self, answer: _Optional[bytes] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: bytes
    def __init__(self, status: _Optional[bytes] = ...) -> None: ...
