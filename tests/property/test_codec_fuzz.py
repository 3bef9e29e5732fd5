"""Any mutated, cut, extended or spliced message is refused by name, or says something its receiver will not believe.

One golden message of every kind there is, made by a real round with real signatures. Every byte of each is changed;
Hypothesis cuts, extends and splices them. What comes out of the decoder is a WireViolation, the very same message (a
byte that protobuf does not look at), or another message: of those that carry a signature, the receiver's machine then
refuses every one. Nothing else may be raised, and nothing may take more memory than a small multiple of its length.
"""

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consortium.contract.digest import canonical_bytes, digest_of
from consortium.contract.errors import ContractError
from consortium.contract.global_model import GlobalModel
from consortium.contract.messages import (
    BundleList,
    CheckpointReady,
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
    StudyDocument,
    StudyEnded,
    StudyOutcome,
    StudyPrepared,
    VectorHeader,
    VectorKind,
    Welcome,
)
from consortium.contract.names import Digest, SiteId, StudyId
from consortium.contract.plan import RoundPlan
from consortium.wire import codec, limits
from consortium.wire import consortium_pb2 as pb
from consortium.wire.errors import WireViolation
from privacy.errors import OutOfOrder, PeerViolation
from privacy.secagg import coordinator, grouped_coordinator, grouped_site, site
from privacy.secagg.context import SITES_MAX
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconReveal,
    CommitmentList,
    Confirmation,
    GroupedUnmaskRequest,
    KeyBundle,
    Phase,
    RevealList,
    SealedShares,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
)
from privacy.secagg.suites import SuiteName
from privacy.secagg.transcript import key_transcript
from site_agent.plan_check import Expectation, PlanRefused, check_plan, check_signature
from tests.fakes.grouped_round import GroupedRound, grouped
from tests.fakes.memory_round import REPLY_OF, Link, MemoryRound, consortium, site_name
from tests.fakes.site_world import ME, keys, make_world, small_study

B, D = site_name(1), site_name(3)
DIGEST = Digest("5d" * 32)
WORDS = "by a rule of this hospital: \u00fcber"
STRIDES = {SuiteName.P256: 1, SuiteName.HYBRID_PQ: 10}
"""In the suite with large keys, every so many changed messages are given to a machine; the decoder gets them all."""

UNSIGNED = (
    Hello | StudyPrepared | Refusal | ResultVerified | Welcome | PrepareStudy | SendInitialModel | RoundResult
    | RoundAborted | StudyEnded | CheckpointReady | EnrolmentRequest | EnrolmentGrant | EventReceipt | StudyDocument
    | bytes | tuple
)  # fmt: skip
"""Carried by TLS alone, and compared with what the receiver knows where it matters (a result, a certificate)."""

Decode = Callable[[bytes], Any]


# --- one golden message of every kind ------------------------------------------------------------------------------


class Played:
    """A round of four sites of which D drops out, stopped in every phase: who waits for what, and what comes."""

    def __init__(self, suite: SuiteName) -> None:
        self.group = consortium(4, suite=suite)
        self.to_site: dict[type, tuple[site.State, Any]] = {}
        for until in (Phase.SHARE, Phase.MASK, Phase.CONFIRM, Phase.UNMASK):
            round_ = self._round()
            round_.run(until=until)
            request = round_.request_for(B)
            self.to_site[type(request)] = (round_.site_states[B], request)
        self.to_coordinator = {phase: self._awaiting(phase) for phase in Phase}

    def _round(self) -> MemoryRound:
        return MemoryRound(self.group, links={D: Link(lose_reply=Phase.MASK)})

    def _awaiting(self, phase: Phase) -> tuple[coordinator.State, Any]:
        kept: list[Any] = []
        round_ = self._round()
        if phase is Phase.ADVERTISE:
            return round_.coordinator_state, dict(round_.queue)[B]

        def keep(name: SiteId, message: Any) -> Any:
            if name == B and REPLY_OF[type(message)] is phase:
                kept.append(message)
                return None
            return message

        round_.tamper_to_coordinator = keep
        while round_.queue:
            round_.deliver(*round_.queue.popleft())
        if phase is Phase.MASK:
            self.masked = round_.masked[B].tobytes()
        return round_.coordinator_state, kept[0]


@cache
def played(suite: SuiteName) -> Played:
    return Played(suite)


class PlayedInGroups:
    """The same for an attempt of twelve sites in groups: what only such an attempt has."""

    KINDS = (CommitmentList, RevealList, GroupedUnmaskRequest)
    ANSWERS = (BeaconCommitment, BeaconReveal)

    def __init__(self) -> None:
        self.group = grouped(12, group_size=4)
        self.to_site: dict[type, tuple[grouped_site.State, Any]] = {}
        for kind in self.KINDS:
            round_ = GroupedRound(self.group)
            round_.run(until=kind)
            self.to_site[kind] = (round_.site_states[B], dict(round_.queue)[B])
        self.to_coordinator: dict[type, tuple[grouped_coordinator.State, Any]] = {}
        for answer in self.ANSWERS:
            round_ = GroupedRound(self.group)
            round_.run(until=answer)
            self.to_coordinator[answer] = (round_.coordinator_state, dict(round_.queue)[B])

    def heard(self, message: Any) -> grouped_site.State | None:
        """The site's state after a message; None if it left the attempt."""
        state, _ = self.to_site[type(message)]
        after, _ = grouped_site.step(state, message)
        return None if isinstance(after, site.Aborted) else after


@cache
def played_in_groups() -> PlayedInGroups:
    return PlayedInGroups()


@cache
def invited() -> tuple[RoundPlan, Invitation, Expectation]:
    """A signed invitation that the hospital `birch` answers, and what it knows before it reads it."""
    study = small_study()
    model = GlobalModel((("w", (4,)),), np.zeros(4, dtype=np.float32))
    with TemporaryDirectory() as folder:
        world = make_world(Path(folder), study)
        world.model = model
        plan = world.plan()
        invitation = world.invitation(plan)
    expectation = Expectation(
        consortium="alpine-heart",
        study=study,
        site=ME,
        signing_key=keys().members[ME].participant.signing_key,
        ecdsa_key=keys().members[ME].participant.ecdsa_key,
        parameters=model.parameters,
        first_model=model.digest(),
        chain=None,
        joined=(0, 0),
        released=frozenset(),
        peers={},
        minimum_sites=3,
        minimum_threshold=3,
    )
    return plan, invitation, expectation


def session_messages(suite: SuiteName) -> dict[str, list[Any]]:
    """Every message of a session, by direction."""
    round_ = played(suite)
    context = round_.group.context.digest()
    grouped_round = played_in_groups()
    bundles, delivered, proposal, request = (round_.to_site[kind][1] for kind in round_.to_site)
    return {
        "site": [
            Hello(agent_version="0.1.0", protocol_version=1),
            StudyPrepared(study_digest=DIGEST, model_digest=DIGEST, parameter_count=2**33),
            Refusal(study_digest=DIGEST, round=3, attempt=2, rule="max_epsilon_total", explanation=WORDS),
            *(answer for phase, (_, answer) in round_.to_coordinator.items() if phase is not Phase.MASK),
            *(answer for _, answer in grouped_round.to_coordinator.values()),
            ResultVerified(context=context, next_model_digest=DIGEST, endorsement=b"{}"),
            small_update(suite),
        ],
        "coordinator": [
            Welcome(consortium="alpine-heart", coordinator_version="0.1.0", protocol_version=1),
            PrepareStudy(study_digest=DIGEST),
            SendInitialModel(study_digest=DIGEST, model_digest=DIGEST),
            invited()[1],
            BundleList(context=bundles.context, bundles=bundles.bundles),
            ShareDelivery(context=context, members=delivered.members, deliveries=delivered.deliveries),
            proposal,
            request,
            *(message for _, message in grouped_round.to_site.values()),
            RoundResult(context=context, transcript=b"t" * 32, aggregate_hash=b"h" * 32, next_model_digest=DIGEST),
            RoundAborted(context=context, reason=WORDS),
            CheckpointReady(size=7),
            StudyEnded(
                study=StudyId("heart-disease"),
                study_digest=DIGEST,
                outcome=StudyOutcome.COMPLETED,
                model_digest=DIGEST,
                reason=WORDS,
            ),
        ],
    }


def small_update(suite: SuiteName) -> MaskedUpdate:
    _, upload = played(suite).to_coordinator[Phase.MASK]
    return MaskedUpdate(study_digest=DIGEST, upload=upload, values=played(suite).masked)


def masked_header(suite: SuiteName) -> VectorHeader:
    _, upload = played(suite).to_coordinator[Phase.MASK]
    return VectorHeader(
        kind=VectorKind.MASKED_UPDATE,
        sha256=upload.masked_update_hash,
        size_bytes=24,
        study_digest=DIGEST,
        upload=upload,
    )


def golden(suite: SuiteName) -> dict[str, tuple[Decode, bytes, Any]]:
    """Name -> decoder, bytes, and what they say."""
    made: dict[str, tuple[Decode, bytes, Any]] = {}
    for message in session_messages(suite)["site"]:
        if suite is SuiteName.P256 and isinstance(message, PlayedInGroups.ANSWERS):
            continue  # of the same form in both suites
        data = codec.encode_site_message(message)
        made[type(message).__name__] = (codec.decode_site_message, data, message)
    for message in session_messages(suite)["coordinator"]:
        if suite is SuiteName.P256 and isinstance(message, (Invitation, *PlayedInGroups.KINDS)):
            continue  # of the same form in both suites
        data = codec.encode_coordinator_message(message)
        made[type(message).__name__] = (codec.decode_coordinator_message, data, message)
    header = masked_header(suite)
    made["VectorHeader"] = (codec.decode_vector_header, codec.encode_vector_header(header), header)
    if suite is SuiteName.HYBRID_PQ:
        made |= one_off_calls()
    return made


def one_off_calls() -> dict[str, tuple[Decode, bytes, Any]]:
    """The messages outside a session; none depends on the suite."""
    document, arguments = b'{"id":"heart-disease"}', canonical_bytes({"study": "heart", "n": 4})
    first = VectorHeader(kind=VectorKind.INITIAL_MODEL, sha256=b"m" * 32, size_bytes=77, study_digest=DIGEST)
    study = StudyDocument(
        study=StudyId("heart-disease"), study_digest=digest_of(document), document=document, state="running"
    )
    request = EnrolmentRequest(site=ME, token="t" * 32, request_der=keys().members[ME].certificate_der)
    grant = EnrolmentGrant(consortium="alpine-heart", certificate_pem=keys().members[ME].certificate_pem)
    wanted = (VectorKind.AGGREGATE, DIGEST)
    return {
        "first model": (codec.decode_vector_header, codec.encode_vector_header(first), first),
        "chunk": (codec.decode_chunk, codec.encode_chunk(b"chunk" * 9), b"chunk" * 9),
        "vector request": (codec.decode_vector_request, codec.encode_vector_request(*wanted), wanted),
        "upload receipt": (codec.decode_upload_receipt, codec.encode_upload_receipt(b"r" * 32), b"r" * 32),
        "events": (codec.decode_events, codec.encode_events((b"one", b"two")), (b"one", b"two")),
        "event receipt": (
            codec.decode_event_receipt,
            codec.encode_event_receipt(EventReceipt(last_sequence=300)),
            EventReceipt(last_sequence=300),
        ),
        "study": (codec.decode_study, codec.encode_study(study), study),
        "enrolment request": (codec.decode_enrolment_request, codec.encode_enrolment_request(request), request),
        "enrolment grant": (codec.decode_enrolment_grant, codec.encode_enrolment_grant(grant), grant),
        "command": (codec.decode_command, codec.encode_command("study.start", arguments), ("study.start", arguments)),
        "answer": (codec.decode_answer, codec.encode_answer(arguments), arguments),
        "status": (codec.decode_status, codec.encode_status(arguments), arguments),
    }


NAMES = [(suite, name) for suite in SuiteName for name in golden(suite)]
IDS = [f"{suite.value}-{name}" for suite, name in NAMES]


@pytest.mark.parametrize("kind", [pb.SiteMessage, pb.CoordinatorMessage])
def test_every_message_of_the_schema_has_a_golden_one(kind: Any) -> None:
    there: set[str] = set()
    for suite in SuiteName:
        for _, data, _ in golden(suite).values():
            message = kind()
            try:
                message.ParseFromString(data)
            except Exception:  # noqa: BLE001 - of the other direction
                continue
            there.add(str(message.WhichOneof("body")))
    assert there >= {field.name for field in kind.DESCRIPTOR.oneofs_by_name["body"].fields}


@pytest.mark.parametrize(("suite", "name"), NAMES, ids=IDS)
def test_the_golden_message_itself_is_believed(suite: SuiteName, name: str) -> None:
    decode, data, message = golden(suite)[name]
    assert decode(data) == message
    assert believed(suite, message)


# --- who would believe it ------------------------------------------------------------------------------------------


def falls_for(suite: SuiteName, heard: Any, message: Any) -> bool:
    """Whether the receiver takes a changed message for the golden one. What nobody signed says only what it says."""
    signed = not isinstance(message, UNSIGNED) and getattr(message, "upload", True) is not None
    if not signed or type(heard) is not type(message) or not believed(suite, heard):
        return False
    if isinstance(heard, Invitation):
        # Endorsements, and whose they are, count for nothing unless they verify, and not at all in the first round.
        return replace(heard, endorsements=(), endorser_certificates=()) != message
    # With one vote more or less there may still be enough of them: what the site then does is the same.
    groups = played_in_groups()
    return not (isinstance(heard, PlayedInGroups.KINDS) and groups.heard(heard) == groups.heard(message))


def believed(suite: SuiteName, message: Any) -> bool:
    """Whether the receiver's own checks let the message through; for messages without a signature, always."""
    round_ = played(suite)
    match message:
        case BundleList(context=context, bundles=bundles):
            # A shorter list is one that a coordinator may send. Whoever hears it has another T1 than everybody else,
            # and no signature of the next phase holds for it.
            listed = site.BundlesListed(context=context, bundles=bundles)
            t1 = key_transcript(context, round_.to_site[site.BundlesListed][1].bundles)
            return _site_goes_on(round_, listed) and key_transcript(context, bundles) == t1
        case ShareDelivery(context=context, members=members, deliveries=deliveries):
            delivered = site.SharesDelivered(context=context, members=members, deliveries=deliveries)
            return _site_goes_on(round_, delivered)
        case SurvivorProposal() | UnmaskRequest():
            return _site_goes_on(round_, message)
        case KeyBundle() | SealedShares() | Confirmation() | UnmaskShares():
            state, _ = round_.to_coordinator[REPLY_OF[type(message)]]
            _, effects = coordinator.step(state, message)
            return not any(isinstance(effect, coordinator.Blame | coordinator.Ignored) for effect in effects)
        case CommitmentList() | RevealList() | GroupedUnmaskRequest():
            after = played_in_groups().heard(message)
            _, true = played_in_groups().to_site[type(message)]
            if isinstance(message, CommitmentList):
                # The nonces that come next would not fit other commitments, and are signed with the hash of these.
                return after is not None and message.commitments == true.commitments
            if isinstance(message, RevealList):
                # Without one nonce the groups are others, and so is everything that is signed in them.
                expected = played_in_groups().heard(true)
                assert isinstance(expected, grouped_site.Grouped)
                return isinstance(after, grouped_site.Grouped) and after.own.digest == expected.own.digest
            return after is not None
        case BeaconCommitment() | BeaconReveal():
            _, effects = grouped_coordinator.step(played_in_groups().to_coordinator[type(message)][0], message)
            return not any(isinstance(effect, coordinator.Blame | coordinator.Ignored) for effect in effects)
        case VectorHeader(kind=VectorKind.MASKED_UPDATE, upload=upload):
            return upload is not None and _upload_is_admitted(round_, message)
        case MaskedUpdate(study_digest=study_digest, upload=upload, values=values):
            announced = replace(
                masked_header(suite),
                sha256=upload.masked_update_hash,
                size_bytes=len(values),
                study_digest=study_digest,
                upload=upload,
            )
            return _upload_is_admitted(round_, announced)
        case Invitation():
            return _plan_is_accepted(message)
        case _:
            return True


def _site_goes_on(round_: Played, event: site.Event) -> bool:
    state, _ = round_.to_site[type(event)]
    after, effects = site.step(state, event)
    assert isinstance(after, site.Aborted) == (effects == (site.Abandon(reason=getattr(after, "reason", None)),))
    return not isinstance(after, site.Aborted)


def _upload_is_admitted(round_: Played, header: VectorHeader) -> bool:
    """As `Coordinator.upload_limit` and `receive_vector` have it."""
    state, _ = round_.to_coordinator[Phase.MASK]
    assert header.upload is not None
    if (header.size_bytes, header.study_digest) != (24, DIGEST):
        return False
    try:
        coordinator.admit_upload(state, header.upload)
    except (PeerViolation, OutOfOrder):
        return False
    return header.upload.context == round_.group.context.digest()


def _plan_is_accepted(invitation: Invitation) -> bool:
    _, _, expectation = invited()
    try:
        check_signature(invitation, keys().coordinator.public_key().public_bytes_raw())
        plan = RoundPlan.from_bytes(invitation.plan)
        authority = keys().authority.certificate
        check_plan(plan, invitation, expectation, authority=authority, now=datetime.now(UTC))
    except (PlanRefused, ContractError):
        return False
    return True


def attempt(decode: Decode, data: bytes) -> Any:
    """The message, or None if it is refused by name. Any other exception fails the test."""
    try:
        return decode(data)
    except WireViolation:
        return None


# --- every byte ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "name"), NAMES, ids=IDS)
def test_every_byte_changed(suite: SuiteName, name: str) -> None:
    decode, data, message = golden(suite)[name]
    refused, changed = 0, 0
    for place in range(len(data)):
        for mask in {1 << place % 8, 0x80}:
            mutated = bytearray(data)
            mutated[place] ^= mask
            heard = attempt(decode, bytes(mutated))
            if heard is None:
                refused += 1
            elif heard != message:
                changed += 1
                if changed % STRIDES[suite] == 0:
                    assert not falls_for(suite, heard, message)
    assert refused + changed > len(data)


# --- cut, extended, spliced ----------------------------------------------------------------------------------------

FUZZED = golden(SuiteName.HYBRID_PQ) | golden(SuiteName.P256)  # of the latter where there are both: it is shorter
SUITE_OF = {name: SuiteName.P256 if name in golden(SuiteName.P256) else SuiteName.HYBRID_PQ for name in FUZZED}
ANY = st.sampled_from(sorted(FUZZED))
HUGE = st.sampled_from([2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1])


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def check(name: str, data: bytes) -> None:
    """What arrives in the place of a golden message is refused, is the same, or is not believed; and costs little."""
    decode, _, message = FUZZED[name]
    tracemalloc.start()
    try:
        heard = attempt(decode, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024 + 32 * len(data), f"{len(data)} bytes took {peak}"
    if heard is not None and all(heard != true for _, _, true in FUZZED.values()):
        assert not falls_for(SUITE_OF[name], heard, message)


@settings(max_examples=300, deadline=None)
@given(name=ANY, place=st.floats(0, 1), tail=st.binary(max_size=40))
def test_cut_anywhere_and_extended_by_anything(name: str, place: float, tail: bytes) -> None:
    data = FUZZED[name][1]
    check(name, data[: round(place * len(data))] + tail)
    check(name, data + tail)


@settings(max_examples=300, deadline=None)
@given(first=ANY, second=ANY, cut=st.floats(0, 1), skip=st.floats(0, 1))
def test_spliced(first: str, second: str, cut: float, skip: float) -> None:
    """The beginning of one message and the end of another; whole messages after one another, which protobuf merges."""
    one, other = FUZZED[first][1], FUZZED[second][1]
    spliced = one[: round(cut * len(one))] + other[round(skip * len(other)) :]
    for name in (first, second):
        check(name, spliced)
        check(name, one + other)


@settings(max_examples=300, deadline=None)
@given(name=ANY, edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3)), max_size=6))
def test_several_places_at_once(name: str, edits: list[tuple[float, bytes]]) -> None:
    data = bytearray(FUZZED[name][1])
    for place, put in edits:
        at = int(place * len(data))
        data[at : at + 1] = put
    check(name, bytes(data))


# --- lengths and counts that lie -----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(name=ANY, field=st.integers(1, 15), size=HUGE, depth=st.integers(0, 4), rest=st.binary(max_size=20))
@example(name="BundleList", field=5, size=2**31, depth=1, rest=b"")
def test_a_length_that_lies_takes_no_memory(name: str, field: int, size: int, depth: int, rest: bytes) -> None:
    """A field that says it has two thousand million bytes, on its own and inside others."""
    body = varint(field << 3 | 2) + varint(size) + rest
    for _ in range(depth):
        body = varint(field << 3 | 2) + varint(len(body)) + body
    check(name, body)
    check(name, FUZZED[name][1] + body)


MANY = """
import json, resource, sys
from consortium.wire import codec, limits
from consortium.wire import consortium_pb2 as pb
from consortium.wire.errors import WireViolation

def empties(kind, field, size, outer=None):
    "A list of empty entries, two bytes each, that fills the whole message."
    tag = bytes([kind.DESCRIPTOR.fields_by_name[field].number << 3 | 2, 0])
    body = tag * (size // 2 - 16)
    if outer is None:
        return body
    holder, name = outer
    head = pb.SiteMessage if holder == "site" else pb.CoordinatorMessage
    number = head.DESCRIPTOR.fields_by_name[name].number
    length, out = len(body), b""
    while length >= 128:
        out, length = out + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + out + bytes([length]) + body

down, up = limits.COORDINATOR_MESSAGE_BYTES_MAX, limits.SITE_MESSAGE_BYTES_MAX
bombs = [
    (codec.decode_coordinator_message, empties(pb.BundleList, "bundles", down, ("coordinator", "bundle_list"))),
    (codec.decode_coordinator_message, empties(pb.ShareDelivery, "members", down, ("coordinator", "share_delivery"))),
    (codec.decode_coordinator_message, empties(pb.Invitation, "certificates", down, ("coordinator", "invitation"))),
    (codec.decode_site_message, empties(pb.SealedShares, "boxes", up, ("site", "sealed_shares"))),
    (codec.decode_site_message, empties(pb.UnmaskShares, "root_shares", up, ("site", "unmask_shares"))),
    (codec.decode_events, empties(pb.Events, "events", limits.EVENTS_BYTES_MAX)),
    (codec.decode_site_message, bytes([0xA2, 0x7F, 0]) * (up // 3)),
]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused = 0
for decode, data in bombs:
    try:
        decode(data)
    except WireViolation:
        refused += 1
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps([refused, len(bombs), grown, max(len(data) for _, data in bombs)]))
"""


def test_millions_of_empty_entries_take_no_memory() -> None:
    """They fit the bound on a message's length; protobuf alone would take 420 MB for the first of them.

    Measured as the resident memory of a process of its own, since protobuf's is not Python's.
    """
    ran = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=True, timeout=60)
    refused, count, grown, longest = json.loads(ran.stdout)
    assert refused == count
    assert longest > limits.COORDINATOR_MESSAGE_BYTES_MAX - 100
    assert grown < 2 * longest


def test_what_a_full_message_costs() -> None:
    """The largest honest message, a delivery among the most sites, is in the bounds and takes a few times its size."""
    delivered = played(SuiteName.HYBRID_PQ).to_site[site.SharesDelivered][1]
    names = tuple(SiteId(f"site-{number:03}") for number in range(SITES_MAX))
    one = delivered.deliveries[0]
    hashes = tuple((name, b"h" * 32) for name in names[2:])
    message = ShareDelivery(
        context=delivered.context,
        members=names,
        deliveries=tuple(replace(one, sender=name, other_box_hashes=hashes) for name in names[1:]),
    )
    data = codec.encode_coordinator_message(message)
    tracemalloc.start()
    assert codec.decode_coordinator_message(data) == message
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * len(data)
