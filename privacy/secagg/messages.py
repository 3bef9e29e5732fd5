"""One frozen class per message of secure aggregation, in the order they travel (protocol sections 4.0 to 4.5).

Every hash is 32 bytes (SHA-256) and every signature 64 (Ed25519 or ECDSA P-256). How long public keys and sealed boxes
are is the suite's (`suites.Suite`). Sizes are checked by the wire before a message is built and again by the machine
that receives it; nothing here is trusted because it has the right type.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NewType

SiteId = NewType("SiteId", str)
"""A hospital's name in the consortium: 3 to 40 characters of a-z, 0-9 and '-', starting with a letter."""

COORDINATOR: Final = SiteId("coordinator")
"""The name under which errors blame the coordinator. No site is enrolled under it."""

HASH_BYTES = 32
SIGNATURE_BYTES = 64
SHARE_BYTES = 33


class Phase(StrEnum):
    """The steps of one attempt, in order."""

    ADVERTISE = "advertise"  # 4.0
    SHARE = "share"  # 4.1
    MASK = "mask"  # 4.2
    CONFIRM = "confirm"  # 4.3
    UNMASK = "unmask"  # 4.4


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBundle:
    """4.0, site to coordinator to all: the site's fresh public keys and a commitment to its self-mask seed."""

    context: bytes  # 32 bytes: the digest of the Context this attempt runs under
    site: SiteId
    pair_key: bytes  # suite.public_key_bytes: pkA, opens pairwise seeds; its secret is derived from the shared root
    box_key: bytes  # suite.public_key_bytes: pkB, opens shares; its secret is never shared
    self_mask_commitment: bytes  # 32 bytes: H("b" || b)
    signature: bytes  # 64 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedForPeer:
    """What one site seals for one other site."""

    recipient: SiteId
    shares: bytes  # suite.shares_box_bytes: HPKE(pkB of the recipient; share of r || share of b)
    pair_seed: bytes
    """suite.pair_box_bytes: HPKE(pkA of the recipient; k_ij) if the recipient sorts after the sender, else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedShares:
    """4.1, site to coordinator: one sealed box per peer, under one signature over T1 and the hash of all of them."""

    context: bytes
    site: SiteId
    boxes: tuple[SealedForPeer, ...]  # sorted by recipient, one per other site of U1
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredShares:
    """4.1, coordinator to one site: the box one sender sealed for it, and what its signature needs to be checked."""

    sender: SiteId
    shares: bytes
    pair_seed: bytes
    other_box_hashes: tuple[tuple[SiteId, bytes], ...]
    """(recipient, `transcript.box_hash`) of every box in the sender's list but this one, sorted by recipient."""
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadHeader:
    """4.2, site to coordinator, beside the masked update: what was uploaded, signed."""

    context: bytes
    site: SiteId
    keying_hash: bytes  # 32 bytes: H(T1 || H(U2)), the key schedule the masks came from
    masked_update_hash: bytes  # 32 bytes: SHA-256 of the little-endian bytes of the masked update
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SurvivorProposal:
    """4.3, coordinator to all: who is in the sum, proved by their signed upload headers."""

    context: bytes
    survivors: tuple[SiteId, ...]  # U3, sorted
    headers: tuple[UploadHeader, ...]  # one per survivor, in the same order


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """4.3, site to coordinator: a signature over T3 = H(T1 || U2 || U3 || headers), given once in an attempt."""

    context: bytes
    site: SiteId
    transcript: bytes  # T3
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskRequest:
    """4.4, coordinator to every survivor: at least t confirmations of one T3."""

    context: bytes
    confirmations: tuple[Confirmation, ...]  # sorted by site, no site twice


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealedShare:
    """One Shamir share that a site reveals about a peer."""

    owner: SiteId
    share: bytes = field(repr=False)  # 33 bytes, big-endian, below 2^256 + 297


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskShares:
    """4.4, site to coordinator: shares of b for survivors, shares of r for dropouts, never both for one site."""

    context: bytes
    site: SiteId
    self_mask_shares: tuple[RevealedShare, ...]  # of b, one per site of U3, sorted by owner
    root_shares: tuple[RevealedShare, ...]  # of r, one per site of U2 without U3, sorted by owner
    signature: bytes


# --- section 10: an attempt in groups ------------------------------------------------------------------------------


class BeaconPhase(StrEnum):
    """The two steps by which participants are divided into groups, before 4.0 begins in each of them."""

    COMMIT = "commit"  # 10.1
    REVEAL = "reveal"  # 10.2


@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconCommitment:
    """10.1, site to coordinator: a commitment to a fresh nonce."""

    context: bytes  # 32 bytes: the digest of the whole attempt's Context
    site: SiteId
    commitment: bytes  # 32 bytes: H(context, site, nonce)
    signature: bytes  # 64 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentList:
    """10.1, coordinator to all: every commitment that arrived, sorted by site."""

    context: bytes
    commitments: tuple[tuple[SiteId, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconReveal:
    """10.2, site to coordinator: the nonce, signed together with the list of commitments it was revealed for."""

    context: bytes
    site: SiteId
    commitments_hash: bytes  # 32 bytes: `beacon.commitments_hash` of the list
    nonce: bytes  # 32 bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealList:
    """10.2, coordinator to all: every nonce that arrived, sorted by site. The groups follow from it."""

    context: bytes
    nonces: tuple[tuple[SiteId, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedGroup:
    """10.4: one group's survivors have confirmed what they saw."""

    survivors: tuple[SiteId, ...]  # U3 of the group, sorted
    transcript: bytes  # T3 of the group
    confirmations: tuple[Confirmation, ...]  # t of the group's, sorted by site


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedUnmaskRequest:
    """10.4, coordinator to every survivor, in the place of `UnmaskRequest`: every group is ready to be unmasked."""

    context: bytes  # of the whole attempt
    groups: tuple[ConfirmedGroup, ...]  # by number
