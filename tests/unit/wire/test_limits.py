"""The largest honest message of each kind fits its bound; the documented bounds are the ones in the code."""

from consortium.contract.messages import BundleList, Invitation, ShareDelivery
from consortium.contract.names import SiteId
from consortium.contract.plan import PARTICIPANTS_MAX, PLAN_BYTES_MAX
from consortium.wire import codec, limits
from consortium.wire import consortium_pb2 as pb
from consortium.wire.generate import ROOT
from privacy.secagg.context import GROUPED_SITES_MAX, SITES_MAX, SITES_MIN
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

PUBLIC_KEY_BYTES, SHARES_BOX_BYTES, PAIR_BOX_BYTES = max(PUBLIC_KEY_SIZES), max(SHARES_BOX_SIZES), max(PAIR_BOX_SIZES)
HASH, SIGNATURE = b"\xff" * 32, b"\xff" * 64
ALL = tuple(SiteId(f"s{number:039d}") for number in range(PARTICIPANTS_MAX))
SITES = ALL[:SITES_MAX]
PEERS = SITES[1:]


def test_a_site_can_speak_with_as_many_peers_as_a_plan_allows() -> None:
    boxes = tuple(
        SealedForPeer(recipient=peer, shares=b"x" * SHARES_BOX_BYTES, pair_seed=b"x" * PAIR_BOX_BYTES) for peer in PEERS
    )
    sealed = SealedShares(context=HASH, site=SITES[0], boxes=boxes, signature=SIGNATURE)
    shares = tuple(RevealedShare(owner=site, share=b"x" * SHARE_BYTES) for site in SITES)
    unmask = UnmaskShares(context=HASH, site=SITES[0], self_mask_shares=shares, root_shares=shares, signature=SIGNATURE)
    for message in (sealed, unmask):
        assert codec.decode_site_message(codec.encode_site_message(message)) == message


def test_the_coordinator_can_speak_with_as_many_sites_as_a_plan_allows() -> None:
    hashes = tuple((peer, HASH) for peer in PEERS)
    delivery = ShareDelivery(
        context=HASH,
        members=SITES,
        deliveries=tuple(
            DeliveredShares(
                sender=peer,
                shares=b"x" * SHARES_BOX_BYTES,
                pair_seed=b"x" * PAIR_BOX_BYTES,
                other_box_hashes=hashes,
                signature=SIGNATURE,
            )
            for peer in PEERS
        ),
    )
    bundles = BundleList(
        context=HASH,
        bundles=tuple(
            KeyBundle(
                context=HASH,
                site=site,
                pair_key=b"x" * PUBLIC_KEY_BYTES,
                box_key=b"x" * PUBLIC_KEY_BYTES,
                self_mask_commitment=HASH,
                signature=SIGNATURE,
            )
            for site in SITES
        ),
    )
    uploads = tuple(
        UploadHeader(context=HASH, site=site, keying_hash=HASH, masked_update_hash=HASH, signature=SIGNATURE)
        for site in SITES
    )
    confirmations = tuple(Confirmation(context=HASH, site=site, transcript=HASH, signature=SIGNATURE) for site in SITES)
    invitation = Invitation(
        plan=b"x" * PLAN_BYTES_MAX,
        signature=SIGNATURE,
        certificates=(b"x" * (limits.INVITATION_LIST_BYTES_MAX // PARTICIPANTS_MAX),) * PARTICIPANTS_MAX,
        endorsements=(b"x" * (limits.INVITATION_LIST_BYTES_MAX // PARTICIPANTS_MAX),) * PARTICIPANTS_MAX,
    )
    for message in (
        delivery,
        bundles,
        invitation,
        SurvivorProposal(context=HASH, survivors=SITES, headers=uploads),
        UnmaskRequest(context=HASH, confirmations=confirmations),
    ):
        assert codec.decode_coordinator_message(codec.encode_coordinator_message(message)) == message


def test_an_attempt_in_groups_can_be_as_large_as_a_plan_allows() -> None:
    values = tuple((site, HASH) for site in ALL)
    confirmed = tuple(
        ConfirmedGroup(
            survivors=part,
            transcript=HASH,
            confirmations=tuple(
                Confirmation(context=HASH, site=site, transcript=HASH, signature=SIGNATURE) for site in part
            ),
        )
        for part in (ALL[start : start + SITES_MIN] for start in range(0, len(ALL) - 1, SITES_MIN))
    )
    assert len(confirmed) == GROUPED_SITES_MAX // SITES_MIN
    for message in (
        CommitmentList(context=HASH, commitments=values),
        RevealList(context=HASH, nonces=values),
        GroupedUnmaskRequest(context=HASH, groups=confirmed),
    ):
        assert codec.decode_coordinator_message(codec.encode_coordinator_message(message)) == message
    signed = {"context": HASH, "site": ALL[0], "signature": SIGNATURE}
    for answer in (
        BeaconCommitment(commitment=HASH, **signed),
        BeaconReveal(commitments_hash=HASH, nonce=HASH, **signed),
    ):
        assert codec.decode_site_message(codec.encode_site_message(answer)) == answer


def test_the_largest_calls_fit() -> None:
    chunk = b"x" * limits.CHUNK_BYTES_MAX
    assert codec.decode_chunk(codec.encode_chunk(chunk)) == chunk
    events = (b"x" * (limits.EVENTS_BYTES_MAX // limits.EVENTS_PER_CALL_MAX),) * limits.EVENTS_PER_CALL_MAX
    assert codec.decode_events(codec.encode_events(events)) == events
    arguments = b'{"x":"' + b"y" * (limits.ARGUMENTS_BYTES_MAX - 8) + b'"}'
    assert codec.decode_command(codec.encode_command("study.submit", arguments)) == ("study.submit", arguments)
    answer = b'{"x":"' + b"y" * (limits.ANSWER_BYTES_MAX - 8) + b'"}'
    assert codec.decode_answer(codec.encode_answer(answer)) == answer
    assert max(limits.REQUEST_BYTES_MAX.values()) < limits.MESSAGE_BYTES_MAX
    assert limits.COORDINATOR_MESSAGE_BYTES_MAX < limits.MESSAGE_BYTES_MAX


def test_every_method_has_a_bound_and_is_documented() -> None:
    page = (ROOT / "docs/reference/wire.md").read_text(encoding="utf-8")
    methods = {method.name for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods}
    assert methods == set(limits.REQUEST_BYTES_MAX)
    for method in methods:
        assert f"`{method}`" in page
    for message in (*pb.SiteMessage.DESCRIPTOR.fields, *pb.CoordinatorMessage.DESCRIPTOR.fields):
        assert f"`{message.message_type.name}`" in page
