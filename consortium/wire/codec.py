"""protobuf <-> messages: bytes from a peer become frozen, checked values here, or a WireViolation.

Every size and range is checked on the way in; inside nobody checks them again. On the way out our own words for people
are made to fit, and a message too large for the other side is refused here, where the reason can be seen.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar, assert_never

from google.protobuf.message import DecodeError, Message

from consortium.contract.certificates import REQUEST_BYTES_MAX
from consortium.contract.digest import digest_of
from consortium.contract.messages import (
    EARLIER_STARTS_MAX,
    START_BYTES,
    AccountRequest,
    BundleList,
    CheckpointReady,
    CoordinatorMessage,
    EnrolmentGrant,
    EnrolmentRequest,
    EventReceipt,
    Greeting,
    Hello,
    Invitation,
    MaskedUpdate,
    PrepareStudy,
    Refusal,
    ResultVerified,
    RoundAborted,
    RoundResult,
    SendInitialModel,
    ShareDelivery,
    SiteMessage,
    StudyDocument,
    StudyEnded,
    StudyOutcome,
    StudyPrepared,
    VectorHeader,
    VectorKind,
    Welcome,
)
from consortium.contract.names import Digest
from consortium.contract.plan import ATTEMPTS_MAX, PARTICIPANTS_MAX, PLAN_BYTES_MAX, ROUNDS_MAX
from consortium.contract.submission import Submission
from consortium.wire import consortium_pb2 as pb
from consortium.wire import fields, limits, shape
from consortium.wire import groups_codec as groups
from consortium.wire import secagg_codec as secagg
from consortium.wire.errors import WireViolation
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconReveal,
    CommitmentList,
    Confirmation,
    GroupedUnmaskRequest,
    KeyBundle,
    RevealList,
    SealedShares,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)

M = TypeVar("M", bound=Message)

_OUTCOMES_OUT = {
    StudyOutcome.COMPLETED: pb.STUDY_OUTCOME_COMPLETED,
    StudyOutcome.ABORTED: pb.STUDY_OUTCOME_ABORTED,
}
_KINDS_OUT = {
    VectorKind.MASKED_UPDATE: pb.VECTOR_KIND_MASKED_UPDATE,
    VectorKind.INITIAL_MODEL: pb.VECTOR_KIND_INITIAL_MODEL,
    VectorKind.GLOBAL_MODEL: pb.VECTOR_KIND_GLOBAL_MODEL,
    VectorKind.AGGREGATE: pb.VECTOR_KIND_AGGREGATE,
}
_OUTCOMES: dict[int, StudyOutcome] = {number: outcome for outcome, number in _OUTCOMES_OUT.items()}
_KINDS: dict[int, VectorKind] = {number: kind for kind, number in _KINDS_OUT.items()}


# --- the session ---------------------------------------------------------------------------------------------------


def encode_site_message(message: SiteMessage) -> bytes:
    """A site's message as bytes; raises WireViolation if it is larger than the coordinator takes."""
    match message:
        case Hello():
            body = pb.SiteMessage(
                hello=pb.Hello(
                    agent_version=message.agent_version,
                    protocol_version=message.protocol_version,
                    start=message.start,
                    earlier_starts=message.earlier_starts,
                    signed_entries=message.signed_entries,
                    takes_over=message.takes_over,
                    unix_time_ms=message.unix_time_ms,
                )
            )
        case StudyPrepared():
            body = pb.SiteMessage(
                study_prepared=pb.StudyPrepared(
                    study_digest=bytes.fromhex(message.study_digest),
                    model_digest=bytes.fromhex(message.model_digest),
                    parameter_count=message.parameter_count,
                )
            )
        case Refusal():
            body = pb.SiteMessage(
                refusal=pb.Refusal(
                    study_digest=bytes.fromhex(message.study_digest),
                    round=message.round,
                    attempt=message.attempt,
                    rule=fields.clipped(message.rule, limits.RULE_CHARACTERS_MAX),
                    explanation=fields.clipped(message.explanation),
                )
            )
        case BeaconCommitment():
            body = pb.SiteMessage(beacon_commitment=groups.commitment_out(message))
        case BeaconReveal():
            body = pb.SiteMessage(beacon_reveal=groups.reveal_out(message))
        case KeyBundle():
            body = pb.SiteMessage(key_bundle=secagg.bundle_out(message))
        case SealedShares():
            body = pb.SiteMessage(sealed_shares=secagg.sealed_out(message))
        case Confirmation():
            body = pb.SiteMessage(confirmation=secagg.confirmation_out(message))
        case UnmaskShares():
            body = pb.SiteMessage(unmask_shares=secagg.unmask_shares_out(message))
        case ResultVerified():
            body = pb.SiteMessage(
                result_verified=pb.ResultVerified(
                    context=message.context,
                    next_model_digest=bytes.fromhex(message.next_model_digest),
                    endorsement=message.endorsement,
                )
            )
        case MaskedUpdate():
            body = pb.SiteMessage(
                masked_update=pb.MaskedUpdate(
                    study_digest=bytes.fromhex(message.study_digest),
                    upload=secagg.upload_out(message.upload),
                    values=message.values,
                )
            )
        case _:
            assert_never(message)
    return encoded(body, limits.SITE_MESSAGE_BYTES_MAX)


def decode_site_message(data: bytes, *, limit_bytes: int = limits.SITE_MESSAGE_BYTES_MAX) -> SiteMessage:
    """Bytes from a site; raises WireViolation."""
    message = parsed(pb.SiteMessage, data, limit_bytes)
    match message.WhichOneof("body"):
        case "hello":
            return _hello(message.hello)
        case "study_prepared":
            prepared = message.study_prepared
            return StudyPrepared(
                study_digest=fields.digest("study_prepared.study_digest", prepared.study_digest),
                model_digest=fields.digest("study_prepared.model_digest", prepared.model_digest),
                parameter_count=fields.whole(
                    "study_prepared.parameter_count", prepared.parameter_count, 1, limits.PARAMETERS_MAX
                ),
            )
        case "refusal":
            refusal = message.refusal
            return Refusal(
                study_digest=fields.digest("refusal.study_digest", refusal.study_digest),
                round=fields.whole("refusal.round", refusal.round, 0, ROUNDS_MAX),
                attempt=fields.whole("refusal.attempt", refusal.attempt, 0, ATTEMPTS_MAX),
                rule=fields.text("refusal.rule", refusal.rule, limits.RULE_CHARACTERS_MAX, least=1),
                explanation=fields.text("refusal.explanation", refusal.explanation),
            )
        case "beacon_commitment":
            return groups.commitment_in(message.beacon_commitment)
        case "beacon_reveal":
            return groups.reveal_in(message.beacon_reveal)
        case "key_bundle":
            return secagg.bundle_in(message.key_bundle)
        case "sealed_shares":
            return secagg.sealed_in(message.sealed_shares)
        case "confirmation":
            return secagg.confirmation_in(message.confirmation)
        case "unmask_shares":
            return secagg.unmask_shares_in(message.unmask_shares)
        case "result_verified":
            verified = message.result_verified
            return ResultVerified(
                context=fields.hash_of("result_verified.context", verified.context),
                next_model_digest=fields.digest("result_verified.next_model_digest", verified.next_model_digest),
                endorsement=fields.between(
                    "result_verified.endorsement", verified.endorsement, 0, limits.ENDORSEMENT_BYTES_MAX
                ),
            )
        case "masked_update":
            return _masked_update(message.masked_update)
        case _:
            raise _unknown("SiteMessage.body")


def encode_coordinator_message(message: CoordinatorMessage) -> bytes:
    """The coordinator's message as bytes; raises WireViolation if it is larger than a site takes."""
    match message:
        case Welcome():
            body = pb.CoordinatorMessage(
                welcome=pb.Welcome(
                    consortium=message.consortium,
                    coordinator_version=message.coordinator_version,
                    protocol_version=message.protocol_version,
                    unix_time_ms=message.unix_time_ms,
                )
            )
        case PrepareStudy():
            body = pb.CoordinatorMessage(
                prepare_study=pb.PrepareStudy(study_digest=bytes.fromhex(message.study_digest))
            )
        case SendInitialModel():
            body = pb.CoordinatorMessage(
                send_initial_model=pb.SendInitialModel(
                    study_digest=bytes.fromhex(message.study_digest), model_digest=bytes.fromhex(message.model_digest)
                )
            )
        case Invitation():
            body = pb.CoordinatorMessage(
                invitation=pb.Invitation(
                    plan=message.plan,
                    signature=message.signature,
                    certificates=message.certificates,
                    endorsements=message.endorsements,
                    endorser_certificates=message.endorser_certificates,
                )
            )
        case CommitmentList():
            body = pb.CoordinatorMessage(commitment_list=groups.commitments_out(message))
        case RevealList():
            body = pb.CoordinatorMessage(reveal_list=groups.reveals_out(message))
        case BundleList():
            body = pb.CoordinatorMessage(bundle_list=secagg.bundles_out(message))
        case ShareDelivery():
            body = pb.CoordinatorMessage(share_delivery=secagg.delivery_out(message))
        case SurvivorProposal():
            body = pb.CoordinatorMessage(survivor_proposal=secagg.proposal_out(message))
        case UnmaskRequest():
            body = pb.CoordinatorMessage(unmask_request=secagg.unmask_request_out(message))
        case GroupedUnmaskRequest():
            body = pb.CoordinatorMessage(grouped_unmask_request=groups.unmask_request_out(message))
        case RoundResult():
            body = pb.CoordinatorMessage(
                round_result=pb.RoundResult(
                    context=message.context,
                    transcript=message.transcript,
                    aggregate_hash=message.aggregate_hash,
                    next_model_digest=bytes.fromhex(message.next_model_digest),
                    aggregate=message.aggregate,
                )
            )
        case RoundAborted():
            body = pb.CoordinatorMessage(
                round_aborted=pb.RoundAborted(context=message.context, reason=fields.clipped(message.reason))
            )
        case StudyEnded():
            body = pb.CoordinatorMessage(
                study_ended=pb.StudyEnded(
                    study=message.study,
                    study_digest=bytes.fromhex(message.study_digest),
                    outcome=_OUTCOMES_OUT[message.outcome],
                    model_digest=bytes.fromhex(message.model_digest),
                    reason=fields.clipped(message.reason),
                )
            )
        case CheckpointReady():
            body = pb.CoordinatorMessage(checkpoint_ready=pb.CheckpointReady(size=message.size))
        case _:
            assert_never(message)
    return encoded(body, limits.COORDINATOR_MESSAGE_BYTES_MAX)


def decode_coordinator_message(data: bytes) -> CoordinatorMessage:
    """Bytes from the coordinator; raises WireViolation."""
    message = parsed(pb.CoordinatorMessage, data, limits.COORDINATOR_MESSAGE_BYTES_MAX)
    match message.WhichOneof("body"):
        case "welcome":
            return _welcome(message.welcome)
        case "prepare_study":
            return PrepareStudy(
                study_digest=fields.digest("prepare_study.study_digest", message.prepare_study.study_digest)
            )
        case "send_initial_model":
            asked = message.send_initial_model
            return SendInitialModel(
                study_digest=fields.digest("send_initial_model.study_digest", asked.study_digest),
                model_digest=fields.digest("send_initial_model.model_digest", asked.model_digest),
            )
        case "invitation":
            return _invitation(message.invitation)
        case "commitment_list":
            return groups.commitments_in(message.commitment_list)
        case "reveal_list":
            return groups.reveals_in(message.reveal_list)
        case "grouped_unmask_request":
            return groups.unmask_request_in(message.grouped_unmask_request)
        case "bundle_list":
            return secagg.bundles_in(message.bundle_list)
        case "share_delivery":
            return secagg.delivery_in(message.share_delivery)
        case "survivor_proposal":
            return secagg.proposal_in(message.survivor_proposal)
        case "unmask_request":
            return secagg.unmask_request_in(message.unmask_request)
        case "round_result":
            return _round_result(message.round_result)
        case "round_aborted":
            return RoundAborted(
                context=fields.hash_of("round_aborted.context", message.round_aborted.context),
                reason=fields.text("round_aborted.reason", message.round_aborted.reason),
            )
        case "study_ended":
            return _study_ended(message.study_ended)
        case "checkpoint_ready":
            size = fields.whole("checkpoint_ready.size", message.checkpoint_ready.size, 1, limits.SEQUENCE_MAX)
            return CheckpointReady(size=size)
        case _:
            raise _unknown("CoordinatorMessage.body")


def _masked_update(message: pb.MaskedUpdate) -> MaskedUpdate:
    upload = secagg.upload_in(message.upload)
    values = fields.between("masked_update.values", message.values, 1, limits.INLINE_BYTES_MAX)
    # What the site signed and what is added to the sum must be the same bytes, or the signature proves nothing.
    if hashlib.sha256(values).digest() != upload.masked_update_hash:
        raise WireViolation("masked_update.values", found="another SHA-256", allowed="upload.masked_update_hash")
    return MaskedUpdate(
        study_digest=fields.digest("masked_update.study_digest", message.study_digest), upload=upload, values=values
    )


def _round_result(message: pb.RoundResult) -> RoundResult:
    aggregate_hash = fields.hash_of("round_result.aggregate_hash", message.aggregate_hash)
    aggregate = fields.between("round_result.aggregate", message.aggregate, 0, limits.INLINE_BYTES_MAX)
    if aggregate and hashlib.sha256(aggregate).digest() != aggregate_hash:
        raise WireViolation("round_result.aggregate", found="another SHA-256", allowed="round_result.aggregate_hash")
    return RoundResult(
        context=fields.hash_of("round_result.context", message.context),
        transcript=fields.hash_of("round_result.transcript", message.transcript),
        aggregate_hash=aggregate_hash,
        next_model_digest=fields.digest("round_result.next_model_digest", message.next_model_digest),
        aggregate=aggregate,
    )


def _hello(message: pb.Hello) -> Hello:
    starts = fields.listed("hello.earlier_starts", message.earlier_starts, 0, EARLIER_STARTS_MAX)
    return Hello(
        agent_version=fields.printable("hello.agent_version", message.agent_version, limits.VERSION_CHARACTERS_MAX),
        protocol_version=fields.whole("hello.protocol_version", message.protocol_version, 1, 65535),
        start=fields.one_of("hello.start", message.start, (0, START_BYTES)),
        earlier_starts=tuple(fields.exactly("hello.earlier_starts", start, START_BYTES) for start in starts),
        signed_entries=fields.whole("hello.signed_entries", message.signed_entries, 0, limits.SEQUENCE_MAX),
        takes_over=message.takes_over,
        unix_time_ms=fields.whole("hello.unix_time_ms", message.unix_time_ms, 0, limits.SEQUENCE_MAX),
    )


def _welcome(message: pb.Welcome) -> Welcome:
    return Welcome(
        consortium=fields.name_64("welcome.consortium", message.consortium),
        coordinator_version=fields.printable(
            "welcome.coordinator_version", message.coordinator_version, limits.VERSION_CHARACTERS_MAX
        ),
        protocol_version=fields.whole("welcome.protocol_version", message.protocol_version, 1, 65535),
        unix_time_ms=fields.whole("welcome.unix_time_ms", message.unix_time_ms, 0, limits.SEQUENCE_MAX),
    )


def _invitation(message: pb.Invitation) -> Invitation:
    everybody = (*message.certificates, *message.endorser_certificates)
    _documents("invitation.endorser_certificates", everybody, 0, limits.CERTIFICATE_DER_BYTES_MAX)
    return Invitation(
        plan=fields.between("invitation.plan", message.plan, 1, PLAN_BYTES_MAX),
        signature=fields.signature("invitation.signature", message.signature),
        certificates=_documents("invitation.certificates", message.certificates, 1, limits.CERTIFICATE_DER_BYTES_MAX),
        endorsements=_documents("invitation.endorsements", message.endorsements, 0, limits.ENDORSEMENT_BYTES_MAX),
        endorser_certificates=tuple(message.endorser_certificates),
    )


def _documents(field: str, values: Sequence[bytes], least: int, bytes_max: int) -> tuple[bytes, ...]:
    """Up to one document of each participant, each of bounded length, and all of them together."""
    listed = fields.listed(field, values, least, PARTICIPANTS_MAX)
    documents = tuple(fields.between(field, one, 1, bytes_max) for one in listed)
    fields.whole(f"{field} (bytes together)", sum(map(len, documents)), 0, limits.INVITATION_LIST_BYTES_MAX)
    return documents


def _study_ended(message: pb.StudyEnded) -> StudyEnded:
    outcome = _OUTCOMES.get(message.outcome)
    if outcome is None:
        raise WireViolation("study_ended.outcome", found=str(message.outcome), allowed="completed or aborted")
    return StudyEnded(
        study=fields.study("study_ended.study", message.study),
        study_digest=fields.digest("study_ended.study_digest", message.study_digest),
        outcome=outcome,
        model_digest=fields.digest("study_ended.model_digest", message.model_digest),
        reason=fields.text("study_ended.reason", message.reason),
    )


# --- vectors -------------------------------------------------------------------------------------------------------


def encode_upload(upload: UploadHeader) -> bytes:
    """A signed upload header by itself, as evidence of what a site said."""
    return bytes(secagg.upload_out(upload).SerializeToString(deterministic=True))


def encode_vector_header(header: VectorHeader) -> bytes:
    """The first part of a vector's stream."""
    return encoded(
        pb.VectorPart(
            header=pb.VectorHeader(
                kind=_KINDS_OUT[header.kind],
                sha256=header.sha256,
                size_bytes=header.size_bytes,
                study_digest=bytes.fromhex(header.study_digest),
                upload=None if header.upload is None else secagg.upload_out(header.upload),
            )
        ),
        limits.REQUEST_BYTES_MAX["UploadVector"],
    )


def decode_vector_header(data: bytes) -> VectorHeader:
    """The first part of a vector's stream; raises WireViolation if it is not a header."""
    part = parsed(pb.VectorPart, data, limits.REQUEST_BYTES_MAX["UploadVector"])
    if part.WhichOneof("part") != "header":
        raise WireViolation("VectorPart", found="no header", allowed="a header before the first chunk")
    message = part.header
    kind = _kind("header.kind", message.kind)
    upload = secagg.upload_in(message.upload) if message.HasField("upload") else None
    if (upload is not None) != (kind is VectorKind.MASKED_UPDATE):
        found = "a signed upload header" if upload else "no signed upload header"
        raise WireViolation("header.upload", found=f"{found} with {kind}", allowed="with a masked update, only then")
    sha256 = fields.hash_of("header.sha256", message.sha256)
    # What the site signed and what the stream is checked against must be one hash, or the signature proves nothing.
    if upload is not None and upload.masked_update_hash != sha256:
        raise WireViolation("header.upload.masked_update_hash", found="another hash", allowed="header.sha256")
    return VectorHeader(
        kind=kind,
        sha256=sha256,
        size_bytes=fields.whole("header.size_bytes", message.size_bytes, 1, limits.VECTOR_BYTES_MAX),
        study_digest=fields.digest("header.study_digest", message.study_digest),
        upload=upload,
    )


def encode_chunk(chunk: bytes) -> bytes:
    """A further part."""
    return encoded(pb.VectorPart(chunk=chunk), limits.REQUEST_BYTES_MAX["UploadVector"])


def decode_chunk(data: bytes) -> bytes:
    """A further part; raises WireViolation if it is not a chunk of 1 byte to 256 KiB."""
    part = parsed(pb.VectorPart, data, limits.REQUEST_BYTES_MAX["UploadVector"])
    if part.WhichOneof("part") != "chunk":
        raise WireViolation("VectorPart", found="no chunk", allowed="chunks after the header")
    return fields.between("chunk", part.chunk, 1, limits.CHUNK_BYTES_MAX)


def encode_vector_request(kind: VectorKind, digest: Digest) -> bytes:
    """Which vector is wanted."""
    return pb.VectorRequest(kind=_KINDS_OUT[kind], sha256=bytes.fromhex(digest)).SerializeToString()


def decode_vector_request(data: bytes) -> tuple[VectorKind, Digest]:
    """Which vector is wanted; raises WireViolation."""
    message = parsed(pb.VectorRequest, data, limits.REQUEST_BYTES_MAX["DownloadVector"])
    return _kind("request.kind", message.kind), fields.digest("request.sha256", message.sha256)


def encode_upload_receipt(sha256: bytes) -> bytes:
    """What was received, whole."""
    return pb.UploadReceipt(sha256=sha256).SerializeToString()


def decode_upload_receipt(data: bytes) -> bytes:
    """What was received, whole; raises WireViolation."""
    message = parsed(pb.UploadReceipt, data, limits.KIB)
    return fields.hash_of("receipt.sha256", message.sha256)


def _kind(field: str, number: int) -> VectorKind:
    kind = _KINDS.get(number)
    if kind is None:
        raise WireViolation(field, found=str(number), allowed=", ".join(_KINDS_OUT))
    return kind


# --- one-off calls -------------------------------------------------------------------------------------------------


def encode_events(events: tuple[bytes, ...]) -> bytes:
    """A site's signed log entries; raises WireViolation if there are too many for one call."""
    _check_events(events)
    return encoded(pb.Events(events=events), limits.REQUEST_BYTES_MAX["SubmitEvents"])


def decode_events(data: bytes) -> tuple[bytes, ...]:
    """A site's signed log entries; raises WireViolation."""
    message = parsed(pb.Events, data, limits.REQUEST_BYTES_MAX["SubmitEvents"])
    events = tuple(message.events)
    _check_events(events)
    return events


def _check_events(events: tuple[bytes, ...]) -> None:
    for event in fields.listed("events", events, 1, limits.EVENTS_PER_CALL_MAX):
        fields.between("events", event, 1, limits.EVENT_BYTES_MAX)
    fields.whole("events (bytes together)", sum(map(len, events)), 1, limits.EVENTS_BYTES_MAX)


def encode_event_receipt(receipt: EventReceipt) -> bytes:
    """The coordinator's word that events are in the log."""
    return pb.EventReceipt(last_sequence=receipt.last_sequence).SerializeToString()


def decode_event_receipt(data: bytes) -> EventReceipt:
    """The coordinator's word that events are in the log; raises WireViolation."""
    message = parsed(pb.EventReceipt, data, limits.MESSAGE_BYTES_MAX)
    return EventReceipt(
        last_sequence=fields.whole("receipt.last_sequence", message.last_sequence, 0, limits.SEQUENCE_MAX),
    )


def encode_greeting(greeting: Greeting) -> bytes:
    """The coordinator's clock and release."""
    return encoded(
        pb.Greeting(
            unix_time_ms=greeting.unix_time_ms,
            coordinator_version=greeting.coordinator_version,
            protocol_version=greeting.protocol_version,
            minimum_agent_version=greeting.minimum_agent_version,
        ),
        limits.MESSAGE_BYTES_MAX,
    )


def decode_greeting(data: bytes) -> Greeting:
    """The coordinator's clock and release; raises WireViolation."""
    message = parsed(pb.Greeting, data, limits.MESSAGE_BYTES_MAX)
    versions = {
        name: fields.printable(f"greeting.{name}", getattr(message, name), limits.VERSION_CHARACTERS_MAX)
        for name in ("coordinator_version", "minimum_agent_version")
    }
    return Greeting(
        unix_time_ms=fields.whole("greeting.unix_time_ms", message.unix_time_ms, 0, limits.SEQUENCE_MAX),
        protocol_version=fields.whole("greeting.protocol_version", message.protocol_version, 1, 65535),
        **versions,
    )


def encode_study(study: StudyDocument) -> bytes:
    """A study as submitted."""
    return encoded(
        pb.StudyDocument(
            study=study.study,
            study_digest=bytes.fromhex(study.study_digest),
            document=study.document,
            state=study.state,
            submission=None if study.submission is None else _submission_message(study.submission),
        ),
        limits.MESSAGE_BYTES_MAX,
    )


def decode_study(data: bytes) -> StudyDocument:
    """A study as submitted; raises WireViolation, also if its digest is not that of its bytes."""
    message = parsed(pb.StudyDocument, data, limits.MESSAGE_BYTES_MAX)
    document = fields.between("study.document", message.document, 1, limits.STUDY_BYTES_MAX)
    digest = fields.digest("study.study_digest", message.study_digest)
    if digest_of(document) != digest:
        raise WireViolation("study.study_digest", found="another digest", allowed="the SHA-256 of the document")
    return StudyDocument(
        study=fields.study("study.study", message.study),
        study_digest=digest,
        document=document,
        state=fields.printable("study.state", message.state, 40),
        submission=_submission(message.submission) if message.HasField("submission") else None,
    )


def _submission_message(submission: Submission) -> pb.StudySubmission:
    return pb.StudySubmission(
        owner_key=bytes.fromhex(submission.owner_key),
        signed_at=submission.signed_at,
        signature=base64.b64decode(submission.signature),
    )


def _submission(message: pb.StudySubmission) -> Submission:
    """The statement in its bounds; whether it is anybody's is for `submission.verify` to say."""
    signature = fields.signature("submission.signature", message.signature)
    return Submission(
        owner_key=fields.exactly("submission.owner_key", message.owner_key, 32).hex(),
        signed_at=fields.printable("submission.signed_at", message.signed_at, 24),
        signature=base64.b64encode(signature).decode(),
    )


def encode_enrolment_request(request: EnrolmentRequest) -> bytes:
    """A site's certificate request and token."""
    message = pb.EnrolmentRequest(site=request.site, token=request.token, request_der=request.request_der)
    return encoded(message, limits.REQUEST_BYTES_MAX["Enrol"])


def decode_enrolment_request(data: bytes) -> EnrolmentRequest:
    """A site's certificate request and token; raises WireViolation."""
    message = parsed(pb.EnrolmentRequest, data, limits.REQUEST_BYTES_MAX["Enrol"])
    return EnrolmentRequest(
        site=fields.site("enrolment.site", message.site),
        token=fields.token("enrolment.token", message.token, limits.TOKEN_CHARACTERS_MIN, limits.TOKEN_CHARACTERS_MAX),
        request_der=fields.between("enrolment.request_der", message.request_der, 1, REQUEST_BYTES_MAX),
    )


def encode_account_request(request: AccountRequest) -> bytes:
    """An account's certificate request and token."""
    message = pb.AccountRequest(account=request.account, token=request.token, request_der=request.request_der)
    return encoded(message, limits.REQUEST_BYTES_MAX["EnrolAccount"])


def decode_account_request(data: bytes) -> AccountRequest:
    """An account's certificate request and token; raises WireViolation."""
    message = parsed(pb.AccountRequest, data, limits.REQUEST_BYTES_MAX["EnrolAccount"])
    return AccountRequest(
        account=fields.site("enrolment.account", message.account),
        token=fields.token("enrolment.token", message.token, limits.TOKEN_CHARACTERS_MIN, limits.TOKEN_CHARACTERS_MAX),
        request_der=fields.between("enrolment.request_der", message.request_der, 1, REQUEST_BYTES_MAX),
    )


def encode_renewal_request(request_der: bytes) -> bytes:
    """RenewalRequest as bytes."""
    return encoded(pb.RenewalRequest(request_der=request_der), limits.REQUEST_BYTES_MAX["Renew"])


def decode_renewal_request(data: bytes) -> bytes:
    """A certificate request, PKCS #10 in DER; raises WireViolation."""
    message = parsed(pb.RenewalRequest, data, limits.REQUEST_BYTES_MAX["Renew"])
    return fields.between("renewal.request_der", message.request_der, 1, REQUEST_BYTES_MAX)


def encode_enrolment_grant(grant: EnrolmentGrant) -> bytes:
    """The site's certificate."""
    message = pb.EnrolmentGrant(consortium=grant.consortium, certificate_pem=grant.certificate_pem)
    return encoded(message, limits.MESSAGE_BYTES_MAX)


def decode_enrolment_grant(data: bytes) -> EnrolmentGrant:
    """The site's certificate; raises WireViolation."""
    message = parsed(pb.EnrolmentGrant, data, limits.MESSAGE_BYTES_MAX)
    return EnrolmentGrant(
        consortium=fields.name_64("grant.consortium", message.consortium),
        certificate_pem=fields.between(
            "grant.certificate_pem", message.certificate_pem, 1, limits.CERTIFICATE_PEM_BYTES_MAX
        ),
    )


def encode_command(name: str, arguments: bytes) -> bytes:
    """An operator's command; raises WireViolation if the arguments are not a canonical JSON object."""
    fields.command("command.name", name)
    fields.json_object("command.arguments", arguments, limits.ARGUMENTS_BYTES_MAX)
    return pb.Command(name=name, arguments=arguments).SerializeToString()


def decode_command(data: bytes) -> tuple[str, bytes]:
    """An operator's command: its name and arguments; raises WireViolation."""
    message = parsed(pb.Command, data, limits.REQUEST_BYTES_MAX["Execute"])
    return (
        fields.command("command.name", message.name),
        fields.json_object("command.arguments", message.arguments, limits.ARGUMENTS_BYTES_MAX),
    )


def encode_answer(answer: bytes) -> bytes:
    """A command's answer, canonical JSON."""
    return encoded(pb.CommandAnswer(answer=answer), limits.MESSAGE_BYTES_MAX)


def decode_answer(data: bytes) -> bytes:
    """A command's answer, canonical JSON; raises WireViolation."""
    message = parsed(pb.CommandAnswer, data, limits.MESSAGE_BYTES_MAX)
    return fields.json_object("answer", message.answer, limits.ANSWER_BYTES_MAX)


def encode_status(status: bytes) -> bytes:
    """A status, canonical JSON."""
    return encoded(pb.Status(status=status), limits.MESSAGE_BYTES_MAX)


def decode_status(data: bytes) -> bytes:
    """A status, canonical JSON; raises WireViolation."""
    message = parsed(pb.Status, data, limits.MESSAGE_BYTES_MAX)
    return fields.json_object("status", message.status, limits.ANSWER_BYTES_MAX)


def decode_empty(method: str, data: bytes) -> None:
    """A request that says nothing; raises WireViolation if it is large."""
    fields.between(method, data, 0, limits.REQUEST_BYTES_MAX[method])


# --- the parts -----------------------------------------------------------------------------------------------------


def parsed(kind: Callable[[], M], data: bytes, limit_bytes: int) -> M:
    """A message of the schema, its length and number of parts bounded; raises WireViolation."""
    message = kind()
    name = message.DESCRIPTOR.name
    if len(data) > limit_bytes:
        raise WireViolation(name, found=f"{len(data)} bytes", allowed=f"at most {limit_bytes} bytes")
    shape.check_parts(message.DESCRIPTOR, data, limits.PARTS_MAX)
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise WireViolation(name, found=f"{len(data)} bytes of something else", allowed="protobuf") from None
    return message


def encoded(message: Message, limit_bytes: int) -> bytes:
    """A message's bytes; raises WireViolation if the other side would not take so many."""
    data = message.SerializeToString()
    if len(data) > limit_bytes:
        name = message.DESCRIPTOR.name
        raise WireViolation(name, found=f"{len(data)} bytes to send", allowed=f"at most {limit_bytes} bytes")
    return data


def _unknown(field: str) -> WireViolation:
    return WireViolation(field, found="nothing this release knows", allowed="one of the messages of the schema")
