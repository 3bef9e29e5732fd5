"""What a lying coordinator or a colluding site can make: messages signed by keys it really holds, and others.

Used by tests/adversarial. `refused` is how most of those tests end: the site left the attempt, for a reason that
names a culprit, and keeps nothing that a later lie could get out of it.
"""

from dataclasses import replace

from privacy.errors import PeerViolation, PrivacyError
from privacy.secagg import keys, site
from privacy.secagg.context import Context
from privacy.secagg.messages import (
    Confirmation,
    KeyBundle,
    SealedForPeer,
    SealedShares,
    SiteId,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.transcript import (
    box_hashes,
    bundle_payload,
    confirmation_payload,
    sealed_payload,
    unmask_payload,
    upload_payload,
)
from privacy.secret import Secret
from tests.fakes.memory_round import Consortium, Member, deterministic_entropy


def refused(state: site.State, event: site.Event) -> PrivacyError:
    """Give a site an event that it must refuse; returns its reason."""
    after, effects = site.step(state, event)
    assert isinstance(after, site.Aborted), f"{type(event).__name__} was accepted"
    assert effects == (site.Abandon(reason=after.reason),)
    return after.reason


def blamed(state: site.State, event: site.Event) -> PeerViolation:
    """The same, where the reason must be a peer's violation."""
    reason = refused(state, event)
    assert isinstance(reason, PeerViolation), reason
    return reason


def begun(group: Consortium, name: SiteId, context: Context | None = None) -> tuple[site.Advertising, KeyBundle]:
    """A site that has begun an attempt, by default the group's, with the same randomness for the same name."""
    member = group.member(name)
    entropy = deterministic_entropy(f"a round of {name}")
    return site.begin(context or group.context, name, member.signer, entropy, member.long_term_secret)


def signed_bundle(member: Member, bundle: KeyBundle) -> KeyBundle:
    """The bundle under the member's own signature, whatever is in it."""
    return replace(bundle, signature=member.signer.sign(bundle_payload(bundle)))


def signed_boxes(member: Member, key_transcript: bytes, sealed: SealedShares) -> SealedShares:
    """A list of boxes under the member's own signature, whatever is in them."""
    payload = sealed_payload(sealed.context, sealed.site, key_transcript, box_hashes(sealed))
    return replace(sealed, signature=member.signer.sign(payload))


def signed_header(member: Member, header: UploadHeader) -> UploadHeader:
    """An upload header under the member's own signature."""
    return replace(header, signature=member.signer.sign(upload_payload(header)))


def signed_confirmation(member: Member, context: bytes, transcript: bytes) -> Confirmation:
    """A confirmation of any transcript under the member's own signature."""
    unsigned = Confirmation(context=context, site=member.site, transcript=transcript, signature=b"")
    return replace(unsigned, signature=member.signer.sign(confirmation_payload(unsigned)))


def signed_unmask_shares(member: Member, transcript: bytes, shares: UnmaskShares) -> UnmaskShares:
    """Revealed shares under the member's own signature."""
    return replace(shares, signature=member.signer.sign(unmask_payload(shares, transcript)))


def resealed(
    member: Member, state: site.Sharing, sealed: SealedShares, plaintexts: dict[SiteId, bytes]
) -> SealedShares:
    """The member's boxes, with other shares sealed for some recipients, signed by the member."""
    bundles = {bundle.site: bundle for bundle in state.bundles}

    def box(old: SealedForPeer) -> SealedForPeer:
        if old.recipient not in plaintexts:
            return old
        shares = keys.seal(
            Secret(plaintexts[old.recipient]),
            bundles[old.recipient].box_key,
            suite=state.attempt.context.algorithms,
            label="share",
            key_transcript=state.key_transcript,
            sender=member.site,
            recipient=old.recipient,
        )
        return replace(old, shares=shares)

    return signed_boxes(member, state.key_transcript, replace(sealed, boxes=tuple(map(box, sealed.boxes))))
