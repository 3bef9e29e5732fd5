"""One frozen class per message of secure aggregation, in the order they travel (protocol sections 4.0 to 4.5).

Every hash is 32 bytes (SHA-256), every signature 64 bytes (Ed25519), every public key of the suite
`KEY_BYTES` bytes. Sizes are checked by the wire before a message is built and again by the machine
that receives it; nothing here is trusted because it has the right type.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

SiteId = NewType("SiteId", str)
"""A hospital's name in the consortium: 3 to 40 characters of a-z, 0-9 and '-', starting with a letter."""

COORDINATOR: Final = SiteId("coordinator")
"""The name under which errors blame the coordinator. No site is enrolled under it."""

HASH_BYTES = 32
SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 1184 + 32
"""HPKE MLKEM768_X25519: the ML-KEM-768 encapsulation key followed by the X25519 public key."""

SHARE_BYTES = 33
SEAL_OVERHEAD_BYTES = 1088 + 32 + 16
"""What sealing adds to a plaintext: the encapsulated key of both halves of the suite and the tag of AES-GCM."""
SHARES_BOX_BYTES = SEAL_OVERHEAD_BYTES + 2 * SHARE_BYTES
PAIR_BOX_BYTES = SEAL_OVERHEAD_BYTES + 32


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
    pair_key: bytes  # PUBLIC_KEY_BYTES: pkA, opens pairwise seeds; its secret is derived from the shared root
    box_key: bytes  # PUBLIC_KEY_BYTES: pkB, opens shares; its secret is never shared
    self_mask_commitment: bytes  # 32 bytes: H("b" || b)
    signature: bytes  # 64 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedForPeer:
    """What one site seals for one other site."""

    recipient: SiteId
    shares: bytes  # SHARES_BOX_BYTES: HPKE(pkB of the recipient; share of r || share of b)
    pair_seed: (
        bytes  # PAIR_BOX_BYTES: HPKE(pkA of the recipient; k_ij) if the recipient sorts after the sender, else empty
    )


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
    share: bytes  # 33 bytes, big-endian, below 2^256 + 297


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskShares:
    """4.4, site to coordinator: shares of b for survivors, shares of r for dropouts, never both for one site."""

    context: bytes
    site: SiteId
    self_mask_shares: tuple[RevealedShare, ...]  # of b, one per site of U3, sorted by owner
    root_shares: tuple[RevealedShare, ...]  # of r, one per site of U2 without U3, sorted by owner
    signature: bytes
