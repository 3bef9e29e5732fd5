"""protobuf <-> the messages of secure aggregation, field by field (protocol sections 4.0 to 4.5).

Checked here: every length, every name, every count. Not checked here, because only the machine that receives it can:
signatures, order, repetition, and whether the message may come now.
"""

from collections.abc import Iterable

from consortium.contract.messages import BundleList, ShareDelivery
from consortium.wire import consortium_pb2 as pb
from consortium.wire import fields
from consortium.wire.errors import WireViolation
from privacy.secagg.context import SITES_MAX
from privacy.secagg.messages import (
    SHARE_BYTES,
    Confirmation,
    DeliveredShares,
    KeyBundle,
    RevealedShare,
    SealedForPeer,
    SealedShares,
    SiteId,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.suites import PAIR_BOX_SIZES, PUBLIC_KEY_SIZES, SHARES_BOX_SIZES

PEERS_MAX = SITES_MAX - 1


def bundle_out(message: KeyBundle) -> pb.KeyBundle:
    """4.0."""
    return pb.KeyBundle(
        context=message.context,
        site=message.site,
        pair_key=message.pair_key,
        box_key=message.box_key,
        self_mask_commitment=message.self_mask_commitment,
        signature=message.signature,
    )


def bundle_in(message: pb.KeyBundle) -> KeyBundle:
    """4.0; raises WireViolation, as every function here that reads."""
    return KeyBundle(
        context=fields.hash_of("key_bundle.context", message.context),
        site=fields.site("key_bundle.site", message.site),
        pair_key=fields.one_of("key_bundle.pair_key", message.pair_key, PUBLIC_KEY_SIZES),
        box_key=fields.one_of("key_bundle.box_key", message.box_key, PUBLIC_KEY_SIZES),
        self_mask_commitment=fields.hash_of("key_bundle.self_mask_commitment", message.self_mask_commitment),
        signature=fields.signature("key_bundle.signature", message.signature),
    )


def bundles_out(message: BundleList) -> pb.BundleList:
    """4.0."""
    return pb.BundleList(context=message.context, bundles=[bundle_out(bundle) for bundle in message.bundles])


def bundles_in(message: pb.BundleList) -> BundleList:
    """4.0."""
    bundles = fields.listed("bundle_list.bundles", message.bundles, 1)
    return BundleList(
        context=fields.hash_of("bundle_list.context", message.context),
        bundles=tuple(bundle_in(bundle) for bundle in bundles),
    )


def sealed_out(message: SealedShares) -> pb.SealedShares:
    """4.1, up."""
    return pb.SealedShares(
        context=message.context,
        site=message.site,
        boxes=[
            pb.SealedForPeer(recipient=box.recipient, shares=box.shares, pair_seed=box.pair_seed)
            for box in message.boxes
        ],
        signature=message.signature,
    )


def sealed_in(message: pb.SealedShares) -> SealedShares:
    """4.1, up."""
    return SealedShares(
        context=fields.hash_of("sealed_shares.context", message.context),
        site=fields.site("sealed_shares.site", message.site),
        boxes=tuple(
            SealedForPeer(
                recipient=fields.site("sealed_shares.boxes.recipient", box.recipient),
                shares=fields.one_of("sealed_shares.boxes.shares", box.shares, SHARES_BOX_SIZES),
                pair_seed=_pair_seed("sealed_shares.boxes.pair_seed", box.pair_seed),
            )
            for box in fields.listed("sealed_shares.boxes", message.boxes, 1, PEERS_MAX)
        ),
        signature=fields.signature("sealed_shares.signature", message.signature),
    )


def delivery_out(message: ShareDelivery) -> pb.ShareDelivery:
    """4.1, down."""
    return pb.ShareDelivery(
        context=message.context,
        members=message.members,
        deliveries=[
            pb.DeliveredShares(
                sender=one.sender,
                shares=one.shares,
                pair_seed=one.pair_seed,
                other_box_hashes=[pb.BoxHash(recipient=to, sha256=sha256) for to, sha256 in one.other_box_hashes],
                signature=one.signature,
            )
            for one in message.deliveries
        ],
    )


def delivery_in(message: pb.ShareDelivery) -> ShareDelivery:
    """4.1, down."""
    return ShareDelivery(
        context=fields.hash_of("share_delivery.context", message.context),
        members=_sites("share_delivery.members", message.members),
        deliveries=tuple(
            _delivered_in(one) for one in fields.listed("share_delivery.deliveries", message.deliveries, 1, PEERS_MAX)
        ),
    )


def _delivered_in(message: pb.DeliveredShares) -> DeliveredShares:
    where = "share_delivery.deliveries"
    return DeliveredShares(
        sender=fields.site(f"{where}.sender", message.sender),
        shares=fields.one_of(f"{where}.shares", message.shares, SHARES_BOX_SIZES),
        pair_seed=_pair_seed(f"{where}.pair_seed", message.pair_seed),
        other_box_hashes=tuple(
            (
                fields.site(f"{where}.other_box_hashes.recipient", one.recipient),
                fields.hash_of(f"{where}.other_box_hashes.sha256", one.sha256),
            )
            for one in fields.listed(f"{where}.other_box_hashes", message.other_box_hashes, 0, PEERS_MAX)
        ),
        signature=fields.signature(f"{where}.signature", message.signature),
    )


def upload_out(message: UploadHeader) -> pb.UploadHeader:
    """4.2."""
    return pb.UploadHeader(
        context=message.context,
        site=message.site,
        keying_hash=message.keying_hash,
        masked_update_hash=message.masked_update_hash,
        signature=message.signature,
    )


def upload_in(message: pb.UploadHeader) -> UploadHeader:
    """4.2."""
    return UploadHeader(
        context=fields.hash_of("upload.context", message.context),
        site=fields.site("upload.site", message.site),
        keying_hash=fields.hash_of("upload.keying_hash", message.keying_hash),
        masked_update_hash=fields.hash_of("upload.masked_update_hash", message.masked_update_hash),
        signature=fields.signature("upload.signature", message.signature),
    )


def proposal_out(message: SurvivorProposal) -> pb.SurvivorProposal:
    """4.3, down."""
    return pb.SurvivorProposal(
        context=message.context,
        survivors=message.survivors,
        headers=[upload_out(header) for header in message.headers],
    )


def proposal_in(message: pb.SurvivorProposal) -> SurvivorProposal:
    """4.3, down."""
    survivors = _sites("survivor_proposal.survivors", message.survivors)
    if len(message.headers) != len(survivors):
        found = f"{len(message.headers)} entries"
        raise WireViolation("survivor_proposal.headers", found=found, allowed=f"one per survivor, {len(survivors)}")
    return SurvivorProposal(
        context=fields.hash_of("survivor_proposal.context", message.context),
        survivors=survivors,
        headers=tuple(upload_in(header) for header in message.headers),
    )


def confirmation_out(message: Confirmation) -> pb.Confirmation:
    """4.3, up."""
    return pb.Confirmation(
        context=message.context, site=message.site, transcript=message.transcript, signature=message.signature
    )


def confirmation_in(message: pb.Confirmation) -> Confirmation:
    """4.3, up."""
    return Confirmation(
        context=fields.hash_of("confirmation.context", message.context),
        site=fields.site("confirmation.site", message.site),
        transcript=fields.hash_of("confirmation.transcript", message.transcript),
        signature=fields.signature("confirmation.signature", message.signature),
    )


def unmask_request_out(message: UnmaskRequest) -> pb.UnmaskRequest:
    """4.4, down."""
    return pb.UnmaskRequest(
        context=message.context, confirmations=[confirmation_out(one) for one in message.confirmations]
    )


def unmask_request_in(message: pb.UnmaskRequest) -> UnmaskRequest:
    """4.4, down."""
    confirmations = fields.listed("unmask_request.confirmations", message.confirmations, 1)
    return UnmaskRequest(
        context=fields.hash_of("unmask_request.context", message.context),
        confirmations=tuple(confirmation_in(one) for one in confirmations),
    )


def unmask_shares_out(message: UnmaskShares) -> pb.UnmaskShares:
    """4.4, up."""
    return pb.UnmaskShares(
        context=message.context,
        site=message.site,
        self_mask_shares=[pb.RevealedShare(owner=one.owner, share=one.share) for one in message.self_mask_shares],
        root_shares=[pb.RevealedShare(owner=one.owner, share=one.share) for one in message.root_shares],
        signature=message.signature,
    )


def unmask_shares_in(message: pb.UnmaskShares) -> UnmaskShares:
    """4.4, up."""
    return UnmaskShares(
        context=fields.hash_of("unmask_shares.context", message.context),
        site=fields.site("unmask_shares.site", message.site),
        self_mask_shares=_revealed_in("unmask_shares.self_mask_shares", message.self_mask_shares),
        root_shares=_revealed_in("unmask_shares.root_shares", message.root_shares),
        signature=fields.signature("unmask_shares.signature", message.signature),
    )


def _revealed_in(field: str, shares: Iterable[pb.RevealedShare]) -> tuple[RevealedShare, ...]:
    return tuple(
        RevealedShare(
            owner=fields.site(f"{field}.owner", one.owner),
            share=fields.exactly(f"{field}.share", one.share, SHARE_BYTES),
        )
        for one in fields.listed(field, tuple(shares), 0)
    )


def _pair_seed(field: str, value: bytes) -> bytes:
    """One sealed seed for a pair: dealt by the site that sorts first, so the other one's box is empty."""
    return value if not value else fields.one_of(field, value, PAIR_BOX_SIZES)


def _sites(field: str, values: Iterable[str]) -> tuple[SiteId, ...]:
    return tuple(fields.site(field, value) for value in fields.listed(field, tuple(values), 1))
