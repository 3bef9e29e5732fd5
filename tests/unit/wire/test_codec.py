"""Each field at its bound and just beyond it."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from consortium.contract.messages import VectorKind
from consortium.contract.names import Digest
from consortium.wire import codec, limits
from consortium.wire import consortium_pb2 as pb
from consortium.wire.errors import WireViolation

H, S, KEY, BOX, SEED, SHARE = b"h" * 32, b"s" * 64, b"k" * 1216, b"b" * 1202, b"p" * 1168, b"r" * 33
NAME = "north-clinic"


def _confirmation(**changes: Any) -> pb.Confirmation:
    return pb.Confirmation(**{"context": H, "site": NAME, "transcript": H, "signature": S, **changes})


def _bundle(**changes: Any) -> pb.KeyBundle:
    good = {
        "context": H,
        "site": NAME,
        "pair_key": KEY,
        "box_key": KEY,
        "self_mask_commitment": H,
        "signature": S,
    }
    return pb.KeyBundle(**{**good, **changes})


def _upload(**changes: Any) -> pb.UploadHeader:
    good = {"context": H, "site": NAME, "keying_hash": H, "masked_update_hash": H, "signature": S}
    return pb.UploadHeader(**{**good, **changes})


def _box(**changes: Any) -> pb.SealedForPeer:
    return pb.SealedForPeer(**{"recipient": NAME, "shares": BOX, "pair_seed": SEED, **changes})


def _revealed(**changes: Any) -> pb.RevealedShare:
    return pb.RevealedShare(**{"owner": NAME, "share": SHARE, **changes})


def _delivered(**changes: Any) -> pb.DeliveredShares:
    good = {"sender": NAME, "shares": BOX, "pair_seed": b"", "other_box_hashes": [_hash()], "signature": S}
    return pb.DeliveredShares(**{**good, **changes})


def _hash(**changes: Any) -> pb.BoxHash:
    return pb.BoxHash(**{"recipient": NAME, "sha256": H, **changes})


def _value(**changes: Any) -> pb.SiteValue:
    return pb.SiteValue(**{"site": NAME, "value": H, **changes})


def _group(**changes: Any) -> pb.ConfirmedGroup:
    good = {"survivors": [NAME], "transcript": H, "confirmations": [_confirmation()]}
    return pb.ConfirmedGroup(**{**good, **changes})


SITE_GOOD: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "hello": (pb.Hello, {"agent_version": "0.1.0", "protocol_version": 1}),
    "study_prepared": (pb.StudyPrepared, {"study_digest": H, "model_digest": H, "parameter_count": 14}),
    "refusal": (
        pb.Refusal,
        {"study_digest": H, "round": 0, "attempt": 0, "rule": "max-epsilon", "explanation": "no"},
    ),
    "key_bundle": (_bundle, {}),
    "sealed_shares": (pb.SealedShares, {"context": H, "site": NAME, "boxes": [_box()], "signature": S}),
    "confirmation": (_confirmation, {}),
    "unmask_shares": (
        pb.UnmaskShares,
        {"context": H, "site": NAME, "self_mask_shares": [_revealed()], "root_shares": [], "signature": S},
    ),
    "beacon_commitment": (pb.BeaconCommitment, {"context": H, "site": NAME, "commitment": H, "signature": S}),
    "beacon_reveal": (
        pb.BeaconReveal,
        {"context": H, "site": NAME, "commitments_hash": H, "nonce": H, "signature": S},
    ),
    "result_verified": (pb.ResultVerified, {"context": H, "next_model_digest": H, "endorsement": b"{}"}),
    "masked_update": (
        pb.MaskedUpdate,
        {
            "study_digest": H,
            "upload": _upload(masked_update_hash=hashlib.sha256(b"values").digest()),
            "values": b"values",
        },
    ),
}

SITE_BAD = [
    ("result_verified", {"endorsement": b"e" * 4097}),
    ("masked_update", {"study_digest": H[1:]}),
    ("masked_update", {"values": b""}),
    ("masked_update", {"values": b"v" * (64 * 1024 + 1)}),
    ("masked_update", {"values": b"Values"}),  # not those that were signed
    ("hello", {"agent_version": ""}),
    ("hello", {"agent_version": "x" * 65}),
    ("hello", {"agent_version": "0.1\n"}),
    ("hello", {"protocol_version": 0}),
    ("hello", {"protocol_version": 65536}),
    ("study_prepared", {"study_digest": H[:31]}),
    ("study_prepared", {"model_digest": b""}),
    ("study_prepared", {"parameter_count": 0}),
    ("study_prepared", {"parameter_count": 2**33 + 1}),
    ("refusal", {"study_digest": H + b"x"}),
    ("refusal", {"round": 1_000_001}),
    ("refusal", {"attempt": 10_001}),
    ("refusal", {"rule": ""}),
    ("refusal", {"rule": "x" * 129}),
    ("refusal", {"rule": "\x1b[2J"}),
    ("refusal", {"explanation": "x" * 2049}),
    ("refusal", {"explanation": "a\rb"}),
    ("refusal", {"explanation": "a\u202eb"}),
    ("refusal", {"explanation": "a\x9bb"}),
    ("key_bundle", {"context": b""}),
    ("key_bundle", {"site": "North"}),
    ("key_bundle", {"site": "x" * 41}),
    ("key_bundle", {"pair_key": KEY[1:]}),
    ("key_bundle", {"box_key": KEY + b"x"}),
    ("key_bundle", {"self_mask_commitment": b"m"}),
    ("key_bundle", {"signature": S[1:]}),
    ("sealed_shares", {"context": b""}),
    ("sealed_shares", {"site": ""}),
    ("sealed_shares", {"boxes": []}),
    ("sealed_shares", {"boxes": [_box()] * 256}),
    ("sealed_shares", {"boxes": [_box(recipient="-")]}),
    ("sealed_shares", {"boxes": [_box(shares=BOX[1:])]}),
    ("sealed_shares", {"boxes": [_box(pair_seed=SEED[1:])]}),
    ("sealed_shares", {"boxes": [_box(pair_seed=SEED + b"x")]}),
    ("sealed_shares", {"signature": b""}),
    ("confirmation", {"context": H * 2}),
    ("confirmation", {"site": "a b c"}),
    ("confirmation", {"transcript": b""}),
    ("confirmation", {"signature": b""}),
    ("unmask_shares", {"context": b""}),
    ("unmask_shares", {"site": "ab"}),
    ("unmask_shares", {"self_mask_shares": [_revealed(owner="")]}),
    ("unmask_shares", {"self_mask_shares": [_revealed(share=SHARE[1:])]}),
    ("unmask_shares", {"root_shares": [_revealed(share=SHARE + b"x")]}),
    ("unmask_shares", {"root_shares": [_revealed()] * 257}),
    ("unmask_shares", {"self_mask_shares": [_revealed()] * 257}),
    ("unmask_shares", {"signature": b""}),
    ("beacon_commitment", {"context": b""}),
    ("beacon_commitment", {"site": "North"}),
    ("beacon_commitment", {"commitment": H[1:]}),
    ("beacon_commitment", {"signature": b""}),
    ("beacon_reveal", {"context": H * 2}),
    ("beacon_reveal", {"site": ""}),
    ("beacon_reveal", {"commitments_hash": b""}),
    ("beacon_reveal", {"nonce": H + b"x"}),
    ("beacon_reveal", {"signature": S[1:]}),
    ("result_verified", {"context": b""}),
    ("result_verified", {"next_model_digest": b""}),
]


@pytest.mark.parametrize("name", SITE_GOOD)
def test_a_sites_message_that_is_good(name: str) -> None:
    make, good = SITE_GOOD[name]
    codec.decode_site_message(pb.SiteMessage(**{name: make(**good)}).SerializeToString())


@pytest.mark.parametrize(("name", "changes"), SITE_BAD)
def test_a_sites_message_beyond_a_bound(name: str, changes: dict[str, Any]) -> None:
    make, good = SITE_GOOD[name]
    message = pb.SiteMessage(**{name: make(**{**good, **changes})})
    with pytest.raises(WireViolation) as caught:
        codec.decode_site_message(message.SerializeToString())
    assert caught.value.field.startswith(name)
    assert next(iter(changes)) in caught.value.field
    assert caught.value.advice()


COORDINATOR_GOOD: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "welcome": (pb.Welcome, {"consortium": "alpine", "coordinator_version": "0.1.0", "protocol_version": 1}),
    "prepare_study": (pb.PrepareStudy, {"study_digest": H}),
    "send_initial_model": (pb.SendInitialModel, {"study_digest": H, "model_digest": H}),
    "invitation": (pb.Invitation, {"plan": b"{}", "signature": S, "certificates": [b"x"], "endorsements": [b"e"]}),
    "bundle_list": (pb.BundleList, {"context": H, "bundles": [_bundle()]}),
    "share_delivery": (pb.ShareDelivery, {"context": H, "members": [NAME], "deliveries": [_delivered()]}),
    "survivor_proposal": (pb.SurvivorProposal, {"context": H, "survivors": [NAME], "headers": [_upload()]}),
    "commitment_list": (pb.CommitmentList, {"context": H, "commitments": [_value()]}),
    "reveal_list": (pb.RevealList, {"context": H, "nonces": [_value()]}),
    "grouped_unmask_request": (pb.GroupedUnmaskRequest, {"context": H, "groups": [_group()]}),
    "unmask_request": (pb.UnmaskRequest, {"context": H, "confirmations": [_confirmation()]}),
    "round_result": (
        pb.RoundResult,
        {"context": H, "transcript": H, "aggregate_hash": H, "next_model_digest": H},
    ),
    "round_aborted": (pb.RoundAborted, {"context": H, "reason": "below the threshold"}),
    "study_ended": (
        pb.StudyEnded,
        {"study": "heart", "study_digest": H, "outcome": pb.STUDY_OUTCOME_COMPLETED, "model_digest": H, "reason": ""},
    ),
}

COORDINATOR_BAD = [
    ("welcome", {"consortium": "A"}),
    ("welcome", {"coordinator_version": ""}),
    ("welcome", {"protocol_version": 0}),
    ("prepare_study", {"study_digest": b""}),
    ("send_initial_model", {"study_digest": b""}),
    ("send_initial_model", {"model_digest": b""}),
    ("invitation", {"plan": b""}),
    ("invitation", {"plan": b"x" * (2**19 + 1)}),
    ("invitation", {"signature": b""}),
    ("invitation", {"certificates": []}),
    ("invitation", {"certificates": [b"x"] * 1025}),
    ("invitation", {"certificates": [b"x" * 4096] * 769}),
    ("invitation", {"certificates": [b""]}),
    ("invitation", {"certificates": [b"x" * 4097]}),
    ("invitation", {"endorsements": [b"x"] * 1025}),
    ("invitation", {"endorsements": [b"x" * 4096] * 769}),
    ("invitation", {"endorsements": [b"x" * 4097]}),
    ("invitation", {"endorser_certificates": [b"x"] * 1024}),  # with those of the participants one too many
    ("invitation", {"endorser_certificates": [b"x" * 4096] * 768}),
    ("invitation", {"endorser_certificates": [b"x" * 4097]}),
    ("bundle_list", {"context": b""}),
    ("bundle_list", {"bundles": []}),
    ("bundle_list", {"bundles": [_bundle()] * 257}),
    ("share_delivery", {"context": b""}),
    ("share_delivery", {"members": []}),
    ("share_delivery", {"members": ["north-clinic", "?"]}),
    ("share_delivery", {"members": [NAME] * 257}),
    ("share_delivery", {"deliveries": []}),
    ("share_delivery", {"deliveries": [_delivered()] * 256}),
    ("share_delivery", {"deliveries": [_delivered(sender="")]}),
    ("share_delivery", {"deliveries": [_delivered(shares=b"")]}),
    ("share_delivery", {"deliveries": [_delivered(pair_seed=b"x")]}),
    ("share_delivery", {"deliveries": [_delivered(signature=b"")]}),
    ("share_delivery", {"deliveries": [_delivered(other_box_hashes=[_hash(sha256=b"")])]}),
    ("share_delivery", {"deliveries": [_delivered(other_box_hashes=[_hash(recipient="")])]}),
    ("share_delivery", {"deliveries": [_delivered(other_box_hashes=[_hash()] * 256)]}),
    ("survivor_proposal", {"context": b""}),
    ("survivor_proposal", {"survivors": []}),
    ("survivor_proposal", {"headers": []}),
    ("survivor_proposal", {"headers": [_upload()] * 2}),
    ("commitment_list", {"context": b""}),
    ("commitment_list", {"commitments": []}),
    ("commitment_list", {"commitments": [_value()] * 1025}),
    ("commitment_list", {"commitments": [_value(site="")]}),
    ("commitment_list", {"commitments": [_value(value=b"")]}),
    ("reveal_list", {"context": b""}),
    ("reveal_list", {"nonces": []}),
    ("reveal_list", {"nonces": [_value()] * 1025}),
    ("reveal_list", {"nonces": [_value(site="?")]}),
    ("reveal_list", {"nonces": [_value(value=H * 2)]}),
    ("grouped_unmask_request", {"context": b""}),
    ("grouped_unmask_request", {"groups": []}),
    ("grouped_unmask_request", {"groups": [_group()] * 342}),
    ("grouped_unmask_request", {"groups": [_group(survivors=[])]}),
    ("grouped_unmask_request", {"groups": [_group(survivors=["?"])]}),
    ("grouped_unmask_request", {"groups": [_group(survivors=[NAME] * 257)]}),
    ("grouped_unmask_request", {"groups": [_group(survivors=[NAME] * 205)] * 5}),
    ("grouped_unmask_request", {"groups": [_group(transcript=b"")]}),
    ("grouped_unmask_request", {"groups": [_group(confirmations=[])]}),
    ("grouped_unmask_request", {"groups": [_group(confirmations=[_confirmation()] * 257)]}),
    ("grouped_unmask_request", {"groups": [_group(confirmations=[_confirmation()] * 205)] * 5}),
    ("unmask_request", {"context": b""}),
    ("unmask_request", {"confirmations": []}),
    ("unmask_request", {"confirmations": [_confirmation()] * 257}),
    ("round_result", {"aggregate": b"another sum"}),
    ("round_result", {"aggregate": b"s" * (64 * 1024 + 1)}),
    ("round_result", {"context": b""}),
    ("round_result", {"transcript": b""}),
    ("round_result", {"aggregate_hash": b""}),
    ("round_result", {"next_model_digest": b""}),
    ("round_aborted", {"context": b""}),
    ("round_aborted", {"reason": "\x07"}),
    ("study_ended", {"study": ""}),
    ("study_ended", {"study_digest": b""}),
    ("study_ended", {"outcome": 0}),
    ("study_ended", {"outcome": 77}),
    ("study_ended", {"model_digest": b""}),
    ("study_ended", {"reason": "x" * 2049}),
]


@pytest.mark.parametrize("name", COORDINATOR_GOOD)
def test_the_coordinators_message_that_is_good(name: str) -> None:
    make, good = COORDINATOR_GOOD[name]
    codec.decode_coordinator_message(pb.CoordinatorMessage(**{name: make(**good)}).SerializeToString())


@pytest.mark.parametrize(("name", "changes"), COORDINATOR_BAD)
def test_the_coordinators_message_beyond_a_bound(name: str, changes: dict[str, Any]) -> None:
    make, good = COORDINATOR_GOOD[name]
    message = pb.CoordinatorMessage(**{name: make(**{**good, **changes})})
    with pytest.raises(WireViolation) as caught:
        codec.decode_coordinator_message(message.SerializeToString())
    assert caught.value.field.startswith(name)


HEADER: dict[str, Any] = {"kind": pb.VECTOR_KIND_INITIAL_MODEL, "sha256": H, "size_bytes": 1, "study_digest": H}
MASKED: dict[str, Any] = {**HEADER, "kind": pb.VECTOR_KIND_MASKED_UPDATE, "upload": _upload()}


@pytest.mark.parametrize(
    "header",
    [
        {**HEADER, "kind": 0},
        {**HEADER, "kind": 9},
        {**HEADER, "sha256": b""},
        {**HEADER, "size_bytes": 0},
        {**HEADER, "size_bytes": limits.VECTOR_BYTES_MAX + 1},
        {**HEADER, "study_digest": b""},
        {**HEADER, "upload": _upload()},
        {**MASKED, "upload": None},
        {**MASKED, "upload": _upload(masked_update_hash=b"x" * 32)},
        {**MASKED, "upload": _upload(signature=b"")},
        {**MASKED, "upload": _upload(keying_hash=b"")},
        {**MASKED, "upload": _upload(site="")},
        {**MASKED, "upload": _upload(context=b"")},
    ],
)
def test_a_vector_header_beyond_a_bound(header: dict[str, Any]) -> None:
    for good in (HEADER, MASKED):
        codec.decode_vector_header(pb.VectorPart(header=pb.VectorHeader(**good)).SerializeToString())
    with pytest.raises(WireViolation):
        codec.decode_vector_header(pb.VectorPart(header=pb.VectorHeader(**header)).SerializeToString())


STUDY: dict[str, Any] = {"study": "heart", "study_digest": H, "document": b"{}", "state": "running"}
EMPTY_SHA256 = bytes.fromhex("44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")  # of "{}"

GREETING: dict[str, Any] = {
    "unix_time_ms": 1,
    "coordinator_version": "0.1.0",
    "protocol_version": 1,
    "minimum_agent_version": "0.1.0",
}


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (codec.decode_vector_request, pb.VectorRequest(kind=pb.VECTOR_KIND_UNSPECIFIED, sha256=H)),
        (codec.decode_vector_request, pb.VectorRequest(kind=pb.VECTOR_KIND_AGGREGATE, sha256=b"")),
        (codec.decode_upload_receipt, pb.UploadReceipt(sha256=b"")),
        (codec.decode_events, pb.Events()),
        (codec.decode_events, pb.Events(events=[b""])),
        (codec.decode_events, pb.Events(events=[b"x" * (64 * 1024 + 1)])),
        (codec.decode_events, pb.Events(events=[b"x"] * 1025)),
        (codec.decode_events, pb.Events(events=[b"x" * 60_000] * 53)),
        (codec.decode_event_receipt, pb.EventReceipt(last_sequence=2**53)),
        (codec.decode_greeting, pb.Greeting(**{**GREETING, "unix_time_ms": 2**53})),
        (codec.decode_greeting, pb.Greeting(**{**GREETING, "coordinator_version": "x" * 65})),
        (codec.decode_greeting, pb.Greeting(**{**GREETING, "protocol_version": 0})),
        (codec.decode_greeting, pb.Greeting(**{**GREETING, "minimum_agent_version": "\n"})),
        (codec.decode_study, pb.StudyDocument(**STUDY)),
        (codec.decode_study, pb.StudyDocument(**{**STUDY, "study_digest": EMPTY_SHA256, "study": "?"})),
        (codec.decode_study, pb.StudyDocument(**{**STUDY, "study_digest": EMPTY_SHA256, "state": ""})),
        (codec.decode_study, pb.StudyDocument(**{**STUDY, "document": b""})),
        (codec.decode_study, pb.StudyDocument(**{**STUDY, "document": b"x" * (2**20 + 1)})),
        (codec.decode_enrolment_request, pb.EnrolmentRequest(site="?", token="t" * 16, request_der=b"x")),
        (codec.decode_enrolment_request, pb.EnrolmentRequest(site=NAME, token="t" * 15, request_der=b"x")),
        (codec.decode_enrolment_request, pb.EnrolmentRequest(site=NAME, token="t" * 257, request_der=b"x")),
        (codec.decode_enrolment_request, pb.EnrolmentRequest(site=NAME, token="t t" * 8, request_der=b"x")),
        (codec.decode_enrolment_request, pb.EnrolmentRequest(site=NAME, token="t" * 16)),
        (codec.decode_enrolment_request, pb.EnrolmentRequest(site=NAME, token="t" * 16, request_der=b"x" * 4097)),
        (codec.decode_enrolment_grant, pb.EnrolmentGrant(consortium="", certificate_pem=b"x")),
        (codec.decode_enrolment_grant, pb.EnrolmentGrant(consortium="alpine", certificate_pem=b"x" * 8193)),
        (codec.decode_command, pb.Command(name="", arguments=b"{}")),
        (codec.decode_command, pb.Command(name="Study list", arguments=b"{}")),
        (codec.decode_command, pb.Command(name="x" * 65, arguments=b"{}")),
        (codec.decode_command, pb.Command(name="study.list", arguments=b"")),
        (codec.decode_command, pb.Command(name="study.list", arguments=b"[]")),
        (codec.decode_command, pb.Command(name="study.list", arguments=b'{"b":1,"a":2}')),
        (codec.decode_command, pb.Command(name="study.list", arguments=b'{"a":NaN}')),
        (codec.decode_command, pb.Command(name="study.list", arguments=b'{"a":1,"a":1}')),
        (codec.decode_command, pb.Command(name="study.list", arguments=b'{"a":' + b"[" * 100_000)),
        (codec.decode_command, pb.Command(name="study.list", arguments=b'{"a":' + b"9" * 10_000 + b"}")),
        (codec.decode_answer, pb.CommandAnswer(answer=b"null")),
        (codec.decode_status, pb.Status(status=b"{} ")),
    ],
)
def test_a_one_off_call_beyond_a_bound(decode: Callable[[bytes], Any], message: Any) -> None:
    with pytest.raises(WireViolation):
        decode(message.SerializeToString())


def test_a_violation_does_not_repeat_what_the_peer_sent() -> None:
    secret = "4711-patient-of-north-clinic"
    with pytest.raises(WireViolation) as caught:
        codec.decode_site_message(
            pb.SiteMessage(hello=pb.Hello(agent_version=secret * 9, protocol_version=1)).SerializeToString()
        )
    assert secret not in str(caught.value)


def test_what_we_send_ourselves_is_bounded_too() -> None:
    with pytest.raises(WireViolation, match="to send"):
        codec.encode_chunk(b"x" * (2 * limits.MIB))
    with pytest.raises(WireViolation):
        codec.encode_events((b"x" * (limits.EVENT_BYTES_MAX + 1),))
    with pytest.raises(WireViolation):
        codec.encode_command("study list", b"{}")
    assert codec.decode_vector_request(codec.encode_vector_request(VectorKind.AGGREGATE, Digest("ab" * 32)))
