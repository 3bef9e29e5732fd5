"""The site's machine: Advertising -> Sharing -> Masking -> Confirming -> Unmasking -> Done | Aborted.

Protocol sections 4.0 to 4.4, seen from one site; Bonawitz et al., CCS 2017, the variant against an active server.
Holds against: a coordinator that lies to every site as it likes and fewer than 2t - n colluding sites (section 2).
Does not hide: that this site took part, when, nor the vector's length.

`step` is a function of values, except that HPKE draws ephemeral keys inside the cryptography library. A machine lives
in memory only: a process that restarts in the middle of an attempt has lost it, is a dropout, and so can never mask
two vectors under one seed. Reading the table `MOVES` at the end is reading the protocol.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypeAlias

from privacy.errors import BelowThreshold, LocalProtocolError, OutOfOrder, PeerViolation, PrivacyError
from privacy.secagg.checks import (
    check_box_sizes,
    check_bundle,
    check_confirmation,
    check_context,
    check_header,
    check_no_key_twice,
    check_signed,
    sorted_once,
)
from privacy.secagg.cohort import CohortRule
from privacy.secagg.context import Context
from privacy.secagg.keys import (
    CannotOpen,
    Entropy,
    KeyPair,
    Signer,
    SiteSeeds,
    box_key,
    dither_seed,
    draw_seeds,
    open_box,
    pair_key,
    pair_mask_seed,
    pair_seed,
    polynomial_seed,
    seal,
    self_mask_seed,
)
from privacy.secagg.masks import MaskSeeds
from privacy.secagg.messages import (
    COORDINATOR,
    HASH_BYTES,
    SHARE_BYTES,
    BeaconReveal,
    Confirmation,
    DeliveredShares,
    KeyBundle,
    Phase,
    RevealedShare,
    SealedForPeer,
    SealedShares,
    SiteId,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.shares import SharesDisagree, share_value, split
from privacy.secagg.transcript import (
    box_hash,
    bundle_payload,
    confirmation_payload,
    key_transcript,
    keying_hash,
    sealed_payload,
    self_mask_commitment,
    survivor_transcript,
    unmask_payload,
    upload_payload,
)
from privacy.secagg.transitions import Move, Moves
from privacy.secret import Secret

# --- events: what reaches the site ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlesListed:
    """4.0: the coordinator relayed every key bundle that arrived, sorted by site."""

    context: bytes
    bundles: tuple[KeyBundle, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharesDelivered:
    """4.1: the coordinator relayed the boxes sealed for this site by every other member of U2."""

    context: bytes
    members: tuple[SiteId, ...]  # U2, sorted, this site included
    deliveries: tuple[DeliveredShares, ...]  # sorted by sender, one per other member


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadFinished:
    """4.2, from the shell: the encoded update is masked with `Masking.masks`, complete, and hashed."""

    masked_update_hash: bytes  # 32 bytes: masks.vector_hash of the masked update


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """The attempt is over for another reason: the coordinator said so, training failed, the connection is gone."""

    reason: PrivacyError


Event: TypeAlias = BundlesListed | SharesDelivered | UploadFinished | SurvivorProposal | UnmaskRequest | AttemptEnded

# --- effects: what the shell does, in the order given --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send this to the coordinator. An upload header travels beside the masked update it describes."""

    message: SealedShares | UploadHeader | Confirmation | UnmaskShares | BeaconReveal | KeyBundle
    """The last two follow events only in an attempt in groups (`grouped_site.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistReleased:
    """4.4: write to disk, with fsync, that shares were released for this attempt, BEFORE the next effect.

    If that fails, the shares are not sent. What is written feeds `CohortRule.released_on_model` later. The very message
    is kept beside it until the round is closed, so that it can be sent again, and no other, to a coordinator that lost
    it in a crash.
    """

    context: bytes
    transcript: bytes  # T3
    model_hash: bytes
    survivors: tuple[SiteId, ...]
    shares: UnmaskShares


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """This site leaves the attempt and has revealed nothing in it. A PeerViolation is worth reporting."""

    reason: PrivacyError


Effect: TypeAlias = Send | PersistReleased | Abandon

# --- states: each holds only what exists then ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What stays the same from begin to end."""

    context: Context
    digest: bytes
    me: SiteId
    signer: Signer
    cohort: CohortRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """What is agreed once every bundle and every box has arrived: the key schedule of the attempt."""

    key_transcript: bytes  # T1
    members: tuple[SiteId, ...]  # U2
    keying: bytes  # H(T1 || H(U2))
    held: tuple["HeldShares", ...]  # sorted by owner, this site's own included


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldShares:
    """This site's shares of another site's two secrets. At most one of the two is ever revealed."""

    owner: SiteId
    root: Secret[bytes]
    self_mask: Secret[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertising:
    """4.0: the key bundle is out."""

    attempt: Attempt
    seeds: SiteSeeds
    box_key: KeyPair
    bundle: KeyBundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """4.1: every bundle is checked, and the boxes are out."""

    attempt: Attempt
    seeds: SiteSeeds
    box_key: KeyPair
    bundles: tuple[KeyBundle, ...]  # U1, sorted
    key_transcript: bytes
    own_shares: HeldShares


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """4.2: the shell may now mask one encoded update with `masks`, rounding it with `dither`."""

    attempt: Attempt
    keyed: Keyed
    masks: MaskSeeds
    dither: Secret[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirming:
    """4.3: the masked update is described and on its way; its masks are forgotten here."""

    attempt: Attempt
    keyed: Keyed
    header: UploadHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmasking:
    """4.4: one survivor set is signed; only shares that fit it can be released."""

    attempt: Attempt
    keyed: Keyed
    survivors: tuple[SiteId, ...]
    transcript: bytes  # T3


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Shares were released. No secret is left but these shares, which the coordinator has or may ask for again."""

    context: bytes
    transcript: bytes  # T3
    survivors: tuple[SiteId, ...]
    shares: UnmaskShares


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """This site left the attempt without releasing any share. No secret is left."""

    reason: PrivacyError


State: TypeAlias = Advertising | Sharing | Masking | Confirming | Unmasking | Done | Aborted

# --- the machine ---------------------------------------------------------------------------------------------------


def begin(
    context: Context,
    me: SiteId,
    signer: Signer,
    entropy: Entropy,
    long_term_secret: Secret[bytes],
    *,
    cohort: CohortRule | None = None,
) -> tuple[Advertising, KeyBundle]:
    """4.0: draw this attempt's seeds and advertise their public keys.

    Args:
        context: what the attempt is about; the caller compared it with the signed plan and its own policy.
        me: this site.
        signer: the key of the context's suite that this site's certificate binds.
        entropy: fresh random bytes, `os.urandom`.
        long_term_secret: 32 bytes or more that only this site has (`keys.draw_seeds` says why).
        cohort: what earlier rounds of the study demand of the survivor set; by default those of a first round.

    Raises:
        ContextRefused, EncodingRefused, EncodingOverflow: the attempt itself is unacceptable; no key was made.
        LocalProtocolError: this site does not take part, or the signer is not the one of its certificate.
    """
    context.check()
    entry = context.entry(me)
    if entry is None:
        raise LocalProtocolError("a site takes part under its own name", f"{me!r} is not in the roster")
    digest = context.digest()
    seeds = draw_seeds(entropy, long_term_secret, digest, me)
    boxes = box_key(context.algorithms, seeds, digest, me)
    unsigned = KeyBundle(
        context=digest,
        site=me,
        pair_key=pair_key(context.algorithms, seeds.root, digest, me).public,
        box_key=boxes.public,
        self_mask_commitment=self_mask_commitment(seeds.self_mask.expose()),
        signature=b"",
    )
    bundle = replace(unsigned, signature=signer.sign(bundle_payload(unsigned)))
    if not context.algorithms.signature_holds(entry.signing_key, bundle_payload(bundle), bundle.signature):
        raise LocalProtocolError("a site signs with the key of its certificate", f"another key than {me}'s")
    attempt = Attempt(context=context, digest=digest, me=me, signer=signer, cohort=cohort or CohortRule())
    return Advertising(attempt=attempt, seeds=seeds, box_key=boxes, bundle=bundle), bundle


def step(state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
    """One event: the next state, and what to do, in order.

    A message that breaks a rule ends the attempt here: the state becomes `Aborted`, every secret is dropped, and the
    coordinator gets no second try at the same phase. An event that does not belong to the state changes nothing.

    Raises:
        OutOfOrder: the event has no meaning in this state.
    """
    try:
        return MOVES.make(state, event)
    except OutOfOrder:
        raise
    except PrivacyError as error:
        return Aborted(reason=error), (Abandon(reason=error),)


# --- 4.0 -> 4.1 ----------------------------------------------------------------------------------------------------


def _share(state: Advertising, event: BundlesListed) -> tuple[Sharing, tuple[Effect, ...]]:
    """Check every bundle, then deal shares of both secrets to every other site."""
    attempt = state.attempt
    _check_bundles(state, event)
    t1 = key_transcript(attempt.digest, event.bundles)
    context = attempt.context
    dealt = {
        kind: split(
            secret,
            threshold=context.threshold,
            count=len(context.roster),
            seed=polynomial_seed(state.seeds, attempt.digest, kind),
        )
        for kind, secret in (("root", state.seeds.root), ("self-mask", state.seeds.self_mask))
    }

    def shares_for(site: SiteId) -> HeldShares:
        place = context.share_number(site) - 1
        return HeldShares(owner=attempt.me, root=dealt["root"][place], self_mask=dealt["self-mask"][place])

    boxes = tuple(
        _seal_for(state, peer, shares_for(peer.site), t1) for peer in event.bundles if peer.site != attempt.me
    )
    hashes = tuple((box.recipient, box_hash(box)) for box in boxes)
    signature = attempt.signer.sign(sealed_payload(attempt.digest, attempt.me, t1, hashes))
    sealed = SealedShares(context=attempt.digest, site=attempt.me, boxes=boxes, signature=signature)
    sharing = Sharing(
        attempt=attempt,
        seeds=state.seeds,
        box_key=state.box_key,
        bundles=event.bundles,
        key_transcript=t1,
        own_shares=shares_for(attempt.me),
    )
    return sharing, (Send(message=sealed),)


def _check_bundles(state: Advertising, event: BundlesListed) -> None:
    attempt = state.attempt
    check_context(event.context, attempt.digest, source=COORDINATOR, phase=Phase.ADVERTISE)
    if not sorted_once([bundle.site for bundle in event.bundles]):
        _blame_coordinator(Phase.ADVERTISE, "bundles are sorted, one per site", "a doubled or unsorted list")
    for bundle in event.bundles:
        # 4.0 (1): every signature against the roster, so that the coordinator cannot substitute a key.
        check_bundle(attempt.context, attempt.digest, bundle, source=COORDINATOR)
    # 4.0 (2): no key twice, this site's own included.
    check_no_key_twice(attempt.context.algorithms, event.bundles)
    # 4.0 (3): this site's bundle as it sent it.
    if state.bundle not in event.bundles:
        _blame_coordinator(Phase.ADVERTISE, "this site's bundle is listed unchanged", "missing or changed")
    # 4.0 (4): enough sites, or nothing is shared.
    _check_enough(attempt, event.bundles)


def _seal_for(state: Advertising, peer: KeyBundle, shares: HeldShares, t1: bytes) -> SealedForPeer:
    me, suite = state.attempt.me, state.attempt.context.algorithms
    both = Secret(shares.root.expose() + shares.self_mask.expose())
    box = seal(both, peer.box_key, suite=suite, label="share", key_transcript=t1, sender=me, recipient=peer.site)
    pair_box = b""
    if me < peer.site:
        seed = pair_seed(state.seeds.root, t1, me, peer.site)
        pair_box = seal(
            seed, peer.pair_key, suite=suite, label="pair", key_transcript=t1, sender=me, recipient=peer.site
        )
    return SealedForPeer(recipient=peer.site, shares=box, pair_seed=pair_box)


# --- 4.1 -> 4.2 ----------------------------------------------------------------------------------------------------


def _agree_on_keys(state: Sharing, event: SharesDelivered) -> tuple[Masking, tuple[Effect, ...]]:
    """Check and open every box; derive the masks over the sites whose boxes arrived."""
    attempt, t1, members = state.attempt, state.key_transcript, event.members
    me = attempt.me
    _check_deliveries(state, event)
    own_pair_key = pair_key(attempt.context.algorithms, state.seeds.root, attempt.digest, me)
    held = [state.own_shares]
    add = [self_mask_seed(state.seeds.self_mask, t1, members, me)]
    subtract = []
    for delivery in event.deliveries:
        peer = delivery.sender
        held.append(_open_shares(state, delivery))
        if me < peer:
            # 4.2: the earlier site of a pair adds the pair's mask, the later one subtracts it.
            add.append(pair_mask_seed(pair_seed(state.seeds.root, t1, me, peer), t1, members, me, peer))
        else:
            seed = _open_pair_seed(delivery, own_pair_key, t1, me)
            subtract.append(pair_mask_seed(seed, t1, members, peer, me))
    keyed = Keyed(
        key_transcript=t1,
        members=members,
        keying=keying_hash(t1, members),
        held=tuple(sorted(held, key=lambda shares: shares.owner)),
    )
    masks = MaskSeeds(add=tuple(add), subtract=tuple(subtract))
    return Masking(attempt=attempt, keyed=keyed, masks=masks, dither=dither_seed(state.seeds, t1, me)), ()


def _check_deliveries(state: Sharing, event: SharesDelivered) -> None:
    attempt, members = state.attempt, event.members
    phase = Phase.SHARE
    advertised = {bundle.site for bundle in state.bundles}
    check_context(event.context, attempt.digest, source=COORDINATOR, phase=phase)
    if not sorted_once(members) or not set(members) <= advertised or attempt.me not in members:
        _blame_coordinator(phase, "U2 is sorted, within U1, and includes this site", f"{len(members)} sites")
    _check_enough(attempt, members)
    if [delivery.sender for delivery in event.deliveries] != [site for site in members if site != attempt.me]:
        _blame_coordinator(phase, "one box from every other member, in order", f"{len(event.deliveries)} boxes")
    for delivery in event.deliveries:
        others = [site for site in sorted(advertised) if site not in (delivery.sender, attempt.me)]
        if [recipient for recipient, _ in delivery.other_box_hashes] != others:
            _blame_coordinator(phase, "a sender's list of boxes is shown whole", f"that of {delivery.sender}")
        mine = SealedForPeer(recipient=attempt.me, shares=delivery.shares, pair_seed=delivery.pair_seed)
        hashes = sorted([*delivery.other_box_hashes, (attempt.me, box_hash(mine))])
        # 4.1: HPKE does not say who sealed a box; this signature does, over T1 and all boxes of the sender.
        check_signed(
            attempt.context,
            site=delivery.sender,
            payload=sealed_payload(attempt.digest, delivery.sender, state.key_transcript, hashes),
            signature=delivery.signature,
            source=COORDINATOR,
            phase=phase,
        )
        check_box_sizes(
            attempt.context.algorithms,
            delivery.shares,
            delivery.pair_seed,
            sender=delivery.sender,
            recipient=attempt.me,
        )


def _open_shares(state: Sharing, delivery: DeliveredShares) -> HeldShares:
    """This site's shares of the sender's two secrets; the sender signed the box, so a bad one is the sender's."""
    sender, me = delivery.sender, state.attempt.me
    try:
        both = open_box(
            delivery.shares,
            state.box_key,
            label="share",
            key_transcript=state.key_transcript,
            sender=sender,
            recipient=me,
        )
        root, self_mask = Secret(both.expose()[:SHARE_BYTES]), Secret(both.expose()[SHARE_BYTES:])
        share_value(root.expose())
        share_value(self_mask.expose())
    except (CannotOpen, SharesDisagree) as error:
        rule = "a sealed box opens for its recipient and holds two shares"
        raise PeerViolation(sender, Phase.SHARE, rule, str(error)) from error
    return HeldShares(owner=sender, root=root, self_mask=self_mask)


def _open_pair_seed(delivery: DeliveredShares, key: KeyPair, t1: bytes, me: SiteId) -> Secret[bytes]:
    try:
        return open_box(delivery.pair_seed, key, label="pair", key_transcript=t1, sender=delivery.sender, recipient=me)
    except CannotOpen as error:
        rule = "a pairwise seed opens for its recipient"
        raise PeerViolation(delivery.sender, Phase.SHARE, rule, str(error)) from error


# --- 4.2 -> 4.3 ----------------------------------------------------------------------------------------------------


def _describe_upload(state: Masking, event: UploadFinished) -> tuple[Confirming, tuple[Effect, ...]]:
    """Sign what is uploaded. The masks go out of reach: a second vector under them would reveal a difference."""
    attempt = state.attempt
    if len(event.masked_update_hash) != HASH_BYTES:
        raise LocalProtocolError("a masked update is named by its SHA-256", f"{len(event.masked_update_hash)} bytes")
    unsigned = UploadHeader(
        context=attempt.digest,
        site=attempt.me,
        keying_hash=state.keyed.keying,
        masked_update_hash=event.masked_update_hash,
        signature=b"",
    )
    header = replace(unsigned, signature=attempt.signer.sign(upload_payload(unsigned)))
    return Confirming(attempt=attempt, keyed=state.keyed, header=header), (Send(message=header),)


# --- 4.3 -> 4.4 ----------------------------------------------------------------------------------------------------


def _confirm(state: Confirming, event: SurvivorProposal) -> tuple[Unmasking, tuple[Effect, ...]]:
    """Check the proposed survivor set, then sign it: once, because the state moves on."""
    attempt, keyed = state.attempt, state.keyed
    _check_proposal(state, event)
    t3 = survivor_transcript(keyed.key_transcript, keyed.members, event.survivors, event.headers)
    unsigned = Confirmation(context=attempt.digest, site=attempt.me, transcript=t3, signature=b"")
    confirmation = replace(unsigned, signature=attempt.signer.sign(confirmation_payload(unsigned)))
    unmasking = Unmasking(attempt=attempt, keyed=keyed, survivors=event.survivors, transcript=t3)
    return unmasking, (Send(message=confirmation),)


def _check_proposal(state: Confirming, event: SurvivorProposal) -> None:
    attempt, keyed = state.attempt, state.keyed
    phase = Phase.CONFIRM
    check_context(event.context, attempt.digest, source=COORDINATOR, phase=phase)
    # 4.3 (1): a site named twice, or one that never dealt keys, is not a survivor.
    if not sorted_once(event.survivors) or not set(event.survivors) <= set(keyed.members):
        _blame_coordinator(phase, "U3 is sorted and within U2", f"{len(event.survivors)} sites")
    if [header.site for header in event.headers] != list(event.survivors):
        _blame_coordinator(phase, "one upload header per survivor, in order", f"{len(event.headers)} headers")
    for header in event.headers:
        # 4.3 (2): "alive" needs a real upload, signed under the same keys.
        check_header(attempt.context, attempt.digest, header, keying=keyed.keying, source=COORDINATOR)
    # 4.3 (3): this site is in the sum, with the vector it sent: otherwise it would help to unmask others' only.
    if state.header not in event.headers:
        _blame_coordinator(phase, "this site's upload is listed unchanged", "missing or changed")
    # 4.3 (4): a sum over fewer sites says more about each.
    _check_enough(attempt, event.survivors)
    # 4.3 (5): a sum that differs from an earlier one by too few sites says too much about those.
    attempt.cohort.check(frozenset(event.survivors))


# --- 4.4 -----------------------------------------------------------------------------------------------------------


def _release(state: Unmasking, event: UnmaskRequest) -> tuple[Done, tuple[Effect, ...]]:
    """Given t confirmations of the survivor set it signed, release one kind of share for each site: once."""
    attempt, keyed = state.attempt, state.keyed
    _check_quorum(state, event)
    # 4.4: the two lists come from one set and its complement, so no site is in both. A share of b for a survivor
    # removes its self mask; a share of r for the same site would also remove its pairwise masks and reveal it.
    survivors = frozenset(state.survivors)
    unsigned = UnmaskShares(
        context=attempt.digest,
        site=attempt.me,
        self_mask_shares=tuple(
            RevealedShare(owner=h.owner, share=h.self_mask.expose()) for h in keyed.held if h.owner in survivors
        ),
        root_shares=tuple(
            RevealedShare(owner=h.owner, share=h.root.expose()) for h in keyed.held if h.owner not in survivors
        ),
        signature=b"",
    )
    shares = replace(unsigned, signature=attempt.signer.sign(unmask_payload(unsigned, state.transcript)))
    released = PersistReleased(
        context=attempt.digest,
        transcript=state.transcript,
        model_hash=attempt.context.model_hash,
        survivors=state.survivors,
        shares=shares,
    )
    done = Done(context=attempt.digest, transcript=state.transcript, survivors=state.survivors, shares=shares)
    return done, (released, Send(message=shares))


def repeats(request: UnmaskRequest, *, context: bytes, transcript: bytes) -> bool:
    """Whether a request is for the very sum whose shares were released before: then the same bytes may go again.

    They tell a coordinator nothing that it has not been told, and let one that lost them in a crash finish the round
    from the same sites, instead of running it again. Every confirmation must be of the T3 that was signed here.
    """
    confirmed = {confirmation.transcript for confirmation in request.confirmations}
    return request.context == context and confirmed == {transcript}


def _repeat(state: Done, event: UnmaskRequest) -> tuple[Done, tuple[Effect, ...]]:
    """4.4: after a release nothing else is released; the message that was sent may be sent again, unchanged."""
    if not repeats(event, context=state.context, transcript=state.transcript):
        raise OutOfOrder(type(state).__name__, f"{type(event).__name__} for another sum")
    return state, (Send(message=state.shares),)


def _check_quorum(state: Unmasking, event: UnmaskRequest) -> None:
    attempt = state.attempt
    phase = Phase.UNMASK
    check_context(event.context, attempt.digest, source=COORDINATOR, phase=phase)
    signers = [confirmation.site for confirmation in event.confirmations]
    # 4.4 (1): one vote per survivor.
    if not sorted_once(signers) or not set(signers) <= set(state.survivors):
        _blame_coordinator(phase, "confirmations are sorted, one per survivor", "a doubled or foreign one")
    # 4.4 (2): t of them. Since 2t > n, no two survivor sets can both find so many signers among honest sites.
    if len(signers) < attempt.context.threshold:
        _blame_coordinator(phase, f"{attempt.context.threshold} confirmations", f"{len(signers)}")
    for confirmation in event.confirmations:
        # 4.4 (3): of this very T3: same members, same survivors, same uploads.
        check_confirmation(
            attempt.context, attempt.digest, confirmation, transcript=state.transcript, source=COORDINATOR
        )


# --- helpers -------------------------------------------------------------------------------------------------------


def _check_enough(attempt: Attempt, sites: Sequence[object]) -> None:
    if len(sites) < attempt.context.required:
        raise BelowThreshold(len(sites), attempt.context.required)


def _blame_coordinator(phase: Phase, rule: str, evidence: str) -> NoReturn:
    raise PeerViolation(COORDINATOR, phase, rule, evidence)


def end(_: object, event: AttemptEnded) -> tuple[Aborted, tuple[Effect, ...]]:
    """Whatever was under way is over."""
    return Aborted(reason=event.reason), (Abandon(reason=event.reason),)


def _stay(state: Done | Aborted, _: AttemptEnded) -> tuple[Done | Aborted, tuple[Effect, ...]]:
    return state, ()


STAY = Move(
    section="4", states=(Done, Aborted), events=(AttemptEnded,), does=_stay, becomes=(Done, Aborted), outputs=()
)
"""What has ended does not end again; in groups as well."""


# --- the table -----------------------------------------------------------------------------------------------------

MOVES = Moves(
    Move(
        section="4.0, 4.1",
        states=(Advertising,),
        events=(BundlesListed,),
        does=_share,
        becomes=(Sharing,),
        outputs=(SealedShares,),
    ),
    Move(
        section="4.1, 4.2",
        states=(Sharing,),
        events=(SharesDelivered,),
        does=_agree_on_keys,
        becomes=(Masking,),
        outputs=(),
    ),
    Move(
        section="4.2",
        states=(Masking,),
        events=(UploadFinished,),
        does=_describe_upload,
        becomes=(Confirming,),
        outputs=(UploadHeader,),
    ),
    Move(
        section="4.3",
        states=(Confirming,),
        events=(SurvivorProposal,),
        does=_confirm,
        becomes=(Unmasking,),
        outputs=(Confirmation,),
    ),
    Move(
        section="4.4",
        states=(Unmasking,),
        events=(UnmaskRequest,),
        does=_release,
        becomes=(Done,),
        outputs=(PersistReleased, UnmaskShares),
    ),
    Move(
        section="4.4",
        states=(Done,),
        events=(UnmaskRequest,),
        does=_repeat,
        becomes=(Done,),
        outputs=(UnmaskShares,),
        note="(the same bytes)",
    ),
    Move(
        section="4",
        states=(Advertising, Sharing, Masking, Confirming, Unmasking),
        events=(AttemptEnded,),
        does=end,
        becomes=(Aborted,),
        outputs=(Abandon,),
    ),
    STAY,
)
"""Every move there is. A check that fails leads to Aborted, with Abandon, instead; any other event is OutOfOrder."""
