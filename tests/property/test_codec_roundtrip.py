"""Whatever may be said arrives as it was said; whatever bytes arrive are a message or a WireViolation, nothing else."""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consortium.contract.digest import canonical_bytes, digest_of
from consortium.contract.messages import (
    BundleList,
    CoordinatorMessage,
    EnrolmentGrant,
    EnrolmentRequest,
    EventReceipt,
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
from consortium.contract.names import Digest, SiteId, StudyId, is_name
from consortium.wire import codec
from consortium.wire.errors import WireViolation
from privacy.secagg.messages import (
    SHARE_BYTES,
    BeaconCommitment,
    BeaconReveal,
    CommitmentList,
    Confirmation,
    ConfirmedGroup,
    DeliveredShares,
    GroupedUnmaskRequest,
    KeyBundle,
    RevealedShare,
    RevealList,
    SealedForPeer,
    SealedShares,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.suites import PAIR_BOX_SIZES, PUBLIC_KEY_SIZES, SHARES_BOX_SIZES


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.integers(0, 255).map(lambda byte: bytes([byte]) * size)


def one_of(sizes: Collection[int]) -> st.SearchStrategy[bytes]:
    return st.sampled_from(sorted(sizes)).flatmap(exactly)


sites = st.from_regex(r"[a-z][a-z0-9]{2,20}", fullmatch=True).map(SiteId)
names_64 = st.from_regex(r"[a-z][a-z0-9]{2}(-?[a-z0-9]){0,30}", fullmatch=True).filter(
    lambda text: is_name(text, longest=64)
)
hashes = exactly(32)
digests = hashes.map(lambda value: Digest(value.hex()))
signatures = exactly(64)
seeds = st.just(b"") | one_of(PAIR_BOX_SIZES)
versions = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64)
words = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp"), include_characters="\n"), max_size=200)
whole = st.integers(0, 2**53 - 1)


def few(strategy: st.SearchStrategy[Any], *, least: int = 1) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, min_size=least, max_size=5).map(tuple)


bundles = st.builds(
    KeyBundle,
    context=hashes,
    site=sites,
    pair_key=one_of(PUBLIC_KEY_SIZES),
    box_key=one_of(PUBLIC_KEY_SIZES),
    self_mask_commitment=hashes,
    signature=signatures,
)
confirmations = st.builds(Confirmation, context=hashes, site=sites, transcript=hashes, signature=signatures)


def _masked_update(study_digest: Digest, upload: UploadHeader, values: bytes) -> MaskedUpdate:
    signed = replace(upload, masked_update_hash=hashlib.sha256(values).digest())
    return MaskedUpdate(study_digest=study_digest, upload=signed, values=values)


def _result_with_its_sum(aggregate: bytes, **fields: Any) -> RoundResult:
    return RoundResult(aggregate_hash=hashlib.sha256(aggregate).digest(), aggregate=aggregate, **fields)


small = st.binary(min_size=1, max_size=100)
uploads = st.builds(
    UploadHeader, context=hashes, site=sites, keying_hash=hashes, masked_update_hash=hashes, signature=signatures
)
revealed = st.builds(RevealedShare, owner=sites, share=exactly(SHARE_BYTES))
boxes = st.builds(SealedForPeer, recipient=sites, shares=one_of(SHARES_BOX_SIZES), pair_seed=seeds)
delivered = st.builds(
    DeliveredShares,
    sender=sites,
    shares=one_of(SHARES_BOX_SIZES),
    pair_seed=seeds,
    other_box_hashes=few(st.tuples(sites, hashes), least=0),
    signature=signatures,
)
proposals = few(st.tuples(sites, uploads)).flatmap(
    lambda pairs: st.builds(
        SurvivorProposal,
        context=hashes,
        survivors=st.just(tuple(site for site, _ in pairs)),
        headers=st.just(tuple(header for _, header in pairs)),
    )
)

site_messages = st.one_of(
    st.builds(Hello, agent_version=versions, protocol_version=st.integers(1, 65535)),
    st.builds(StudyPrepared, study_digest=digests, model_digest=digests, parameter_count=st.integers(1, 2**33)),
    st.builds(
        Refusal,
        study_digest=digests,
        round=st.integers(0, 1_000_000),
        attempt=st.integers(0, 10_000),
        rule=words.filter(bool).map(lambda text: text[:128]),
        explanation=words,
    ),
    bundles,
    st.builds(SealedShares, context=hashes, site=sites, boxes=few(boxes), signature=signatures),
    confirmations,
    st.builds(
        UnmaskShares,
        context=hashes,
        site=sites,
        self_mask_shares=few(revealed, least=0),
        root_shares=few(revealed, least=0),
        signature=signatures,
    ),
    st.builds(ResultVerified, context=hashes, next_model_digest=digests, endorsement=st.binary(max_size=100)),
    st.builds(_masked_update, study_digest=digests, upload=uploads, values=small),
    st.builds(BeaconCommitment, context=hashes, site=sites, commitment=hashes, signature=signatures),
    st.builds(BeaconReveal, context=hashes, site=sites, commitments_hash=hashes, nonce=hashes, signature=signatures),
)

coordinator_messages = st.one_of(
    st.builds(Welcome, consortium=names_64, coordinator_version=versions, protocol_version=st.integers(1, 65535)),
    st.builds(PrepareStudy, study_digest=digests),
    st.builds(SendInitialModel, study_digest=digests, model_digest=digests),
    st.builds(
        Invitation,
        plan=st.binary(min_size=1, max_size=100),
        signature=signatures,
        certificates=few(st.binary(min_size=1, max_size=100)),
        endorsements=few(st.binary(min_size=1, max_size=100), least=0),
        endorser_certificates=few(st.binary(min_size=1, max_size=100), least=0),
    ),
    st.builds(BundleList, context=hashes, bundles=few(bundles)),
    st.builds(ShareDelivery, context=hashes, members=few(sites), deliveries=few(delivered)),
    proposals,
    st.builds(UnmaskRequest, context=hashes, confirmations=few(confirmations)),
    st.builds(CommitmentList, context=hashes, commitments=few(st.tuples(sites, hashes))),
    st.builds(RevealList, context=hashes, nonces=few(st.tuples(sites, hashes))),
    st.builds(
        GroupedUnmaskRequest,
        context=hashes,
        groups=few(
            st.builds(ConfirmedGroup, survivors=few(sites), transcript=hashes, confirmations=few(confirmations))
        ),
    ),
    st.builds(RoundResult, context=hashes, transcript=hashes, aggregate_hash=hashes, next_model_digest=digests),
    st.builds(_result_with_its_sum, context=hashes, transcript=hashes, next_model_digest=digests, aggregate=small),
    st.builds(RoundAborted, context=hashes, reason=words),
    st.builds(
        StudyEnded,
        study=names_64.map(StudyId),
        study_digest=digests,
        outcome=st.sampled_from(StudyOutcome),
        model_digest=digests,
        reason=words,
    ),
)

headers = st.one_of(
    st.builds(
        VectorHeader,
        kind=st.sampled_from([VectorKind.INITIAL_MODEL, VectorKind.GLOBAL_MODEL, VectorKind.AGGREGATE]),
        sha256=hashes,
        size_bytes=st.integers(1, 8 * 2**30),
        study_digest=digests,
        upload=st.none(),
    ),
    uploads.flatmap(
        lambda upload: st.builds(
            VectorHeader,
            kind=st.just(VectorKind.MASKED_UPDATE),
            sha256=st.just(upload.masked_update_hash),
            size_bytes=st.integers(1, 8 * 2**30),
            study_digest=digests,
            upload=st.just(upload),
        )
    ),
)


@settings(max_examples=150)
@given(site_messages)
def test_a_sites_messages(message: SiteMessage) -> None:
    assert codec.decode_site_message(codec.encode_site_message(message)) == message


@settings(max_examples=150)
@given(coordinator_messages)
def test_the_coordinators_messages(message: CoordinatorMessage) -> None:
    assert codec.decode_coordinator_message(codec.encode_coordinator_message(message)) == message


@given(headers)
def test_vector_headers(header: VectorHeader) -> None:
    assert codec.decode_vector_header(codec.encode_vector_header(header)) == header


@given(st.sampled_from(VectorKind), digests)
def test_vector_requests(kind: VectorKind, digest: Digest) -> None:
    assert codec.decode_vector_request(codec.encode_vector_request(kind, digest)) == (kind, digest)


@given(site=sites, token=st.from_regex(r"[A-Za-z0-9_-]{16,64}", fullmatch=True), der=st.binary(min_size=1, max_size=99))
def test_enrolment(site: SiteId, token: str, der: bytes) -> None:
    request = EnrolmentRequest(site=site, token=token, request_der=der)
    assert codec.decode_enrolment_request(codec.encode_enrolment_request(request)) == request
    grant = EnrolmentGrant(consortium=site, certificate_pem=der)
    assert codec.decode_enrolment_grant(codec.encode_enrolment_grant(grant)) == grant


@given(study=names_64.map(StudyId), document=st.binary(min_size=1, max_size=200))
def test_studies(study: StudyId, document: bytes) -> None:
    offered = StudyDocument(study=study, study_digest=digest_of(document), document=document, state="running")
    assert codec.decode_study(codec.encode_study(offered)) == offered


@given(events=few(st.binary(min_size=1, max_size=100)), sequence=whole)
def test_events(events: tuple[bytes, ...], sequence: int) -> None:
    assert codec.decode_events(codec.encode_events(events)) == events
    receipt = EventReceipt(last_sequence=sequence)
    assert codec.decode_event_receipt(codec.encode_event_receipt(receipt)) == receipt


@given(st.dictionaries(st.text(max_size=10), st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=5))
def test_json(value: dict[str, object]) -> None:
    data = canonical_bytes(value)  # type: ignore[arg-type]
    assert codec.decode_command(codec.encode_command("study.list", data)) == ("study.list", data)
    assert codec.decode_answer(codec.encode_answer(data)) == data
    assert codec.decode_status(codec.encode_status(data)) == data


DECODERS = [
    codec.decode_site_message,
    codec.decode_coordinator_message,
    codec.decode_vector_header,
    codec.decode_vector_request,
    codec.decode_chunk,
    codec.decode_events,
    codec.decode_event_receipt,
    codec.decode_study,
    codec.decode_enrolment_request,
    codec.decode_enrolment_grant,
    codec.decode_command,
    codec.decode_answer,
    codec.decode_status,
    codec.decode_upload_receipt,
]


@pytest.mark.parametrize("decode", DECODERS)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_violation(decode: Callable[[bytes], object], data: bytes) -> None:
    try:
        decode(data)
    except WireViolation:
        return


@settings(max_examples=200)
@given(message=site_messages, position=st.integers(0), flip=st.integers(1, 255))
def test_a_mutated_message_is_a_message_or_a_violation(message: SiteMessage, position: int, flip: int) -> None:
    data = bytearray(codec.encode_site_message(message))
    data[position % len(data)] ^= flip
    try:
        codec.decode_site_message(bytes(data))
    except WireViolation:
        return
