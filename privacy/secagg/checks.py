"""The checks both machines make on what sites sign (protocol sections 4.0 to 4.4). Each returns nothing or raises.

`source` is who handed us the message: the coordinator for a site, the site itself for the coordinator. A message
whose signature does not hold proves nothing about the site it names, so the source is blamed for it; a message that
is well signed and wrong is evidence against its signer.
"""

from collections.abc import Iterable, Sequence

from privacy.errors import PeerViolation
from privacy.secagg.context import Context
from privacy.secagg.messages import (
    HASH_BYTES,
    BeaconPhase,
    Confirmation,
    KeyBundle,
    Phase,
    RevealedShare,
    SealedShares,
    SiteId,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.shares import SharesDisagree, share_value
from privacy.secagg.suites import MalformedKey, Suite
from privacy.secagg.transcript import (
    box_hashes,
    bundle_payload,
    confirmation_payload,
    sealed_payload,
    unmask_payload,
    upload_payload,
)


def check_signed(
    context: Context, *, site: SiteId, payload: bytes, signature: bytes, source: SiteId, phase: Phase | BeaconPhase
) -> None:
    """Raise unless `site` takes part and signed `payload` with the key its certificate binds."""
    entry = context.entry(site)
    if entry is None:
        raise PeerViolation(source, phase, "only participants are heard", f"a message of {site!r}")
    if not context.algorithms.signature_holds(entry.signing_key, payload, signature):
        raise PeerViolation(source, phase, "every message carries its sender's signature", f"not signed by {site}")


def check_context(found: bytes, expected: bytes, *, source: SiteId, phase: Phase | BeaconPhase) -> None:
    """Raise unless the message belongs to this attempt at this round (section 3)."""
    if found != expected:
        rule = "every message is bound to one attempt at one round"
        raise PeerViolation(source, phase, rule, f"context {found[:8].hex()} where {expected[:8].hex()} was expected")


def sorted_once(sites: Sequence[SiteId]) -> bool:
    """Whether the sites are in order and none appears twice."""
    return list(sites) == sorted(set(sites))


# --- 4.0 -----------------------------------------------------------------------------------------------------------


def check_bundle(context: Context, digest: bytes, bundle: KeyBundle, *, source: SiteId) -> None:
    """4.0: bound to this attempt, signed, and with two usable public keys."""
    phase = Phase.ADVERTISE
    check_context(bundle.context, digest, source=source, phase=phase)
    check_signed(
        context,
        site=bundle.site,
        payload=bundle_payload(bundle),
        signature=bundle.signature,
        source=source,
        phase=phase,
    )
    if len(bundle.self_mask_commitment) != HASH_BYTES:
        raise PeerViolation(
            bundle.site, phase, f"a commitment has {HASH_BYTES} bytes", f"{len(bundle.self_mask_commitment)}"
        )
    for public in (bundle.pair_key, bundle.box_key):
        try:
            # 4.0: a low-order or malformed key would make a shared secret that anyone can compute.
            context.algorithms.parse_public_key(public)
        except MalformedKey as error:
            raise PeerViolation(bundle.site, phase, "public keys are well formed", str(error)) from error


def check_no_key_twice(suite: Suite, bundles: Iterable[KeyBundle]) -> None:
    """4.0: raise if any key, part of a key or commitment appears twice, in one bundle or in two.

    One key under two names lets its owner open what was sealed for another site; a site's own key reflected to it
    would be its own mask; equal commitments mean cloned random generators, whose masks cancel. The later of the two
    bundles is blamed.
    """
    seen: dict[bytes, SiteId] = {}
    for bundle in bundles:
        parts = (*suite.key_parts(bundle.pair_key), *suite.key_parts(bundle.box_key))
        for value in (*parts, bundle.self_mask_commitment):
            if value in seen:
                found = f"a key or commitment of {seen[value]} again in the bundle of {bundle.site}"
                raise PeerViolation(bundle.site, Phase.ADVERTISE, "no key appears twice", found)
            seen[value] = bundle.site


# --- 4.1 -----------------------------------------------------------------------------------------------------------


def check_sealed(
    context: Context,
    sealed: SealedShares,
    *,
    key_transcript: bytes,
    peers: Sequence[SiteId],
    source: SiteId,
) -> None:
    """4.1: one box of the right size for every other site that advertised keys, under one signature.

    The coordinator's machine has compared the context: it ignores messages of another attempt.

    Args:
        context: what the attempt is about.
        sealed: the list of boxes of one site.
        key_transcript: T1.
        peers: U1 without the sender, sorted.
        source: who handed it to us.
    """
    phase = Phase.SHARE
    payload = sealed_payload(sealed.context, sealed.site, key_transcript, box_hashes(sealed))
    check_signed(context, site=sealed.site, payload=payload, signature=sealed.signature, source=source, phase=phase)
    if [box.recipient for box in sealed.boxes] != list(peers):
        raise PeerViolation(sealed.site, phase, "one box for every other site, in order", f"{len(sealed.boxes)} boxes")
    for box in sealed.boxes:
        check_box_sizes(context.algorithms, box.shares, box.pair_seed, sender=sealed.site, recipient=box.recipient)


def check_box_sizes(suite: Suite, shares: bytes, pair_seed: bytes, *, sender: SiteId, recipient: SiteId) -> None:
    """4.1: a pairwise seed travels from the site that sorts first to the one that sorts last, and no other way."""
    pair_bytes = suite.pair_box_bytes if sender < recipient else 0
    if len(shares) != suite.shares_box_bytes or len(pair_seed) != pair_bytes:
        found = f"{len(shares)} and {len(pair_seed)} bytes for {recipient}"
        raise PeerViolation(sender, Phase.SHARE, f"boxes of {suite.shares_box_bytes} and {pair_bytes} bytes", found)


# --- 4.2 and 4.3 ---------------------------------------------------------------------------------------------------


def check_header(context: Context, digest: bytes, header: UploadHeader, *, keying: bytes, source: SiteId) -> None:
    """4.2: signed, and masked under the key schedule that everybody in U2 has."""
    phase = Phase.MASK
    check_context(header.context, digest, source=source, phase=phase)
    check_signed(
        context,
        site=header.site,
        payload=upload_payload(header),
        signature=header.signature,
        source=source,
        phase=phase,
    )
    if header.keying_hash != keying:
        # Its signer may have been shown another T1 or U2 by whoever hands it to us.
        raise PeerViolation(source, phase, "masks come from the agreed keys", f"another T1 or U2 for {header.site}")
    if len(header.masked_update_hash) != HASH_BYTES:
        found = f"{len(header.masked_update_hash)} bytes"
        raise PeerViolation(header.site, phase, f"an upload's hash has {HASH_BYTES} bytes", found)


def check_confirmation(
    context: Context, digest: bytes, confirmation: Confirmation, *, transcript: bytes, source: SiteId
) -> None:
    """4.4: a survivor's signature over this attempt and this T3."""
    phase = Phase.CONFIRM
    check_context(confirmation.context, digest, source=source, phase=phase)
    check_signed(
        context,
        site=confirmation.site,
        payload=confirmation_payload(confirmation),
        signature=confirmation.signature,
        source=source,
        phase=phase,
    )
    if confirmation.transcript != transcript:
        found = f"{confirmation.site} signed another T3"
        raise PeerViolation(source, phase, "all survivors confirm one survivor set", found)


# --- 4.4 -----------------------------------------------------------------------------------------------------------


def check_unmask_shares(
    context: Context,
    shares: UnmaskShares,
    *,
    transcript: bytes,
    survivors: Sequence[SiteId],
    dropouts: Sequence[SiteId],
    source: SiteId,
) -> None:
    """4.4: signed, one share of b per survivor, one of r per dropout, nothing else.

    The coordinator's machine has compared the context: it ignores messages of another attempt.
    """
    phase = Phase.UNMASK
    check_signed(
        context,
        site=shares.site,
        payload=unmask_payload(shares, transcript),
        signature=shares.signature,
        source=source,
        phase=phase,
    )
    _check_owners(shares.site, shares.self_mask_shares, survivors, "one share of b for every survivor, in order")
    _check_owners(shares.site, shares.root_shares, dropouts, "one share of r for every dropout, in order")


def _check_owners(site: SiteId, shares: Sequence[RevealedShare], owners: Sequence[SiteId], rule: str) -> None:
    if [share.owner for share in shares] != list(owners):
        raise PeerViolation(site, Phase.UNMASK, rule, f"{len(shares)} shares for {len(owners)} sites")
    for share in shares:
        try:
            share_value(share.share)
        except SharesDisagree as error:
            raise PeerViolation(site, Phase.UNMASK, "shares are elements of the field", str(error)) from error
