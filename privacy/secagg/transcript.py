"""Section 4: what is signed and what is hashed, byte for byte.

Every byte string that is signed or hashed begins with its own label and carries the length of each of its parts, so no
two of them can be read as one another. Names and labels are ASCII.
"""

import hashlib
from collections.abc import Iterable, Sequence

from privacy.secagg.messages import (
    Confirmation,
    KeyBundle,
    SealedForPeer,
    SealedShares,
    SiteId,
    UnmaskShares,
    UploadHeader,
)

PREFIX = "consortium/secagg/v1/"


def frame(label: str, *parts: bytes) -> bytes:
    """Label and parts, each after its length in 8 big-endian bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in ((PREFIX + label).encode(), *parts))


def _hash(label: str, *parts: bytes) -> bytes:
    return hashlib.sha256(frame(label, *parts)).digest()


def _names(sites: Iterable[SiteId]) -> bytes:
    return frame("sites", *(site.encode() for site in sites))


def self_mask_commitment(seed: bytes) -> bytes:
    """H("b" || b), of the 32-byte self-mask seed b."""
    return hashlib.sha256(b"b" + seed).digest()


# --- 4.0 -----------------------------------------------------------------------------------------------------------


def bundle_payload(bundle: KeyBundle) -> bytes:
    """What a key bundle's signature covers."""
    return frame(
        "bundle",
        bundle.context,
        bundle.site.encode(),
        bundle.pair_key,
        bundle.box_key,
        bundle.self_mask_commitment,
    )


def key_transcript(context: bytes, bundles: Sequence[KeyBundle]) -> bytes:
    """T1 = H(ctx || bundles sorted by site), signatures included."""
    ordered = sorted(bundles, key=lambda bundle: bundle.site)
    return _hash("keys", context, *(frame("signed", bundle_payload(b), b.signature) for b in ordered))


# --- 4.1 -----------------------------------------------------------------------------------------------------------


def box_hash(box: SealedForPeer) -> bytes:
    """SHA-256 of what one site sealed for one other."""
    return _hash("box", box.recipient.encode(), box.shares, box.pair_seed)


def sealed_payload(
    context: bytes, site: SiteId, key_transcript: bytes, box_hashes: Sequence[tuple[SiteId, bytes]]
) -> bytes:
    """What the signature of a site's whole list of boxes covers; `box_hashes` is sorted by recipient."""
    parts = [part for recipient, digest in box_hashes for part in (recipient.encode(), digest)]
    return frame("share", context, site.encode(), key_transcript, hashlib.sha256(frame("boxes", *parts)).digest())


def box_hashes(sealed: SealedShares) -> tuple[tuple[SiteId, bytes], ...]:
    """(recipient, hash) of every box, in the order sent."""
    return tuple((box.recipient, box_hash(box)) for box in sealed.boxes)


# --- 4.2 -----------------------------------------------------------------------------------------------------------


def members_hash(members: Sequence[SiteId]) -> bytes:
    """H(U2)."""
    return _hash("members", _names(members))


def keying_hash(key_transcript: bytes, members: Sequence[SiteId]) -> bytes:
    """H(T1 || H(U2)): names the key schedule that an upload was masked with."""
    return _hash("keying", key_transcript, members_hash(members))


def upload_payload(header: UploadHeader) -> bytes:
    """What an upload header's signature covers."""
    return frame("upload", header.context, header.site.encode(), header.keying_hash, header.masked_update_hash)


# --- 4.3 and 4.4 ---------------------------------------------------------------------------------------------------


def survivor_transcript(
    key_transcript: bytes, members: Sequence[SiteId], survivors: Sequence[SiteId], headers: Sequence[UploadHeader]
) -> bytes:
    """T3 = H(T1 || U2 || U3 || headers): the round as every survivor must have seen it."""
    signed = (frame("signed", upload_payload(header), header.signature) for header in headers)
    return _hash("round", key_transcript, _names(members), _names(survivors), *signed)


def confirmation_payload(confirmation: Confirmation) -> bytes:
    """What a confirmation's signature covers."""
    return frame("survivors", confirmation.context, confirmation.site.encode(), confirmation.transcript)


def unmask_payload(shares: UnmaskShares, transcript: bytes) -> bytes:
    """What the signature of revealed shares covers: the shares and the T3 they were revealed for."""
    kinds = (shares.self_mask_shares, shares.root_shares)
    lists = (frame("list", *(part for s in kind for part in (s.owner.encode(), s.share))) for kind in kinds)
    return frame("unmask", shares.context, shares.site.encode(), transcript, *lists)
