"""Phase "unmask", coordinator side: revealed shares -> the masks to take off the sum.

Protocol section 4.5. Every survivor's self-mask seed is checked against its commitment and every dropout's root
against its public key, so a wrong share is noticed, its sender is named, and the secret is recovered from the others
as long as enough of them are right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from privacy.errors import PeerViolation, Unrecoverable
from privacy.secagg.context import Context
from privacy.secagg.keys import (
    CannotOpen,
    open_box,
    pair_key,
    pair_mask_seed,
    pair_seed,
    self_mask_seed,
)
from privacy.secagg.masks import MaskSeeds
from privacy.secagg.messages import KeyBundle, Phase, SiteId, UnmaskShares
from privacy.secagg.shares import SharesDisagree, recover
from privacy.secagg.suites import Suite
from privacy.secagg.transcript import self_mask_commitment
from privacy.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBox:
    """A pairwise seed as its sender sealed it: kept, because only the recipient's root opens it."""

    sender: SiteId
    recipient: SiteId
    box: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySchedule:
    """What the masks of an attempt are derived from, as far as the coordinator sees it."""

    bundles: tuple[KeyBundle, ...]  # U1, sorted
    key_transcript: bytes  # T1
    members: tuple[SiteId, ...]  # U2, sorted
    keying: bytes  # H(T1 || H(U2))
    pair_boxes: tuple[PairBox, ...]  # one per pair of U2, sorted by sender, then recipient

    def bundle(self, site: SiteId) -> KeyBundle:
        """The key bundle of a site that advertised."""
        return next(bundle for bundle in self.bundles if bundle.site == site)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The masks to apply to the sum so that none is left, and whose shares were wrong."""

    seeds: MaskSeeds
    violations: tuple[PeerViolation, ...]


def reconstruct(
    context: Context,
    digest: bytes,
    schedule: KeySchedule,
    survivors: Sequence[SiteId],
    revealed: Sequence[UnmaskShares],
) -> Removal:
    """Recover what must be recovered and derive the masks that are still in the sum.

    Args:
        context: what the attempt is about.
        digest: its digest.
        schedule: keys and boxes of the attempt.
        survivors: U3, sorted.
        revealed: checked and signed shares from at least t survivors.

    Raises:
        Unrecoverable: a secret that no t of the shares give back.
        PeerViolation: a survivor sealed a pairwise seed that does not open.
    """
    survivor_set = frozenset(survivors)
    dropouts = tuple(site for site in schedule.members if site not in survivor_set)
    suspects: dict[SiteId, PeerViolation] = {}
    t1, members = schedule.key_transcript, schedule.members
    add: list[Secret[bytes]] = []
    subtract: list[Secret[bytes]] = []
    for site in survivors:
        b = _recover(context, schedule, site, revealed, suspects, of_root=False)
        subtract.append(self_mask_seed(b, t1, members, site))
    for site in dropouts:
        root = _recover(context, schedule, site, revealed, suspects, of_root=True)
        key = pair_key(context.algorithms, root, digest, site)
        boxes = {box.sender: box.box for box in schedule.pair_boxes if box.recipient == site}
        for survivor in survivors:
            if site < survivor:
                # The survivor subtracted this pair's mask and its partner's addition never came.
                add.append(pair_mask_seed(pair_seed(root, t1, site, survivor), t1, members, site, survivor))
                continue
            try:
                seed = open_box(boxes[survivor], key, label="pair", key_transcript=t1, sender=survivor, recipient=site)
            except CannotOpen as error:
                rule = "a pairwise seed opens for its recipient"
                raise PeerViolation(survivor, Phase.UNMASK, rule, f"the box for {site} does not") from error
            subtract.append(pair_mask_seed(seed, t1, members, survivor, site))
    return Removal(
        seeds=MaskSeeds(add=tuple(add), subtract=tuple(subtract)),
        violations=tuple(suspects[site] for site in sorted(suspects)),
    )


def _recover(
    context: Context,
    schedule: KeySchedule,
    owner: SiteId,
    revealed: Sequence[UnmaskShares],
    suspects: dict[SiteId, PeerViolation],
    *,
    of_root: bool,
) -> Secret[bytes]:
    """One site's secret; holders whose share of it is wrong are added to `suspects`, and trusted last from then on."""
    holders = {context.share_number(message.site): message.site for message in revealed}
    points = []
    for message in sorted(revealed, key=lambda message: message.site in suspects):
        shares = message.root_shares if of_root else message.self_mask_shares
        share = next(s.share for s in shares if s.owner == owner)
        points.append((context.share_number(message.site), share))
    accepts = _acceptance(context.algorithms, schedule, owner, of_root=of_root)
    try:
        recovered = recover(points, threshold=context.threshold, accepts=accepts)
    except SharesDisagree as error:
        raise Unrecoverable(owner, len(points), context.threshold) from error
    for number in recovered.wrong:
        holder = holders[number]
        found = f"its signed share of a secret of {owner} is not on the polynomial of the other holders' shares"
        rule = "a revealed share is the one that was dealt"
        suspects.setdefault(holder, PeerViolation(holder, Phase.UNMASK, rule, found))
    return recovered.secret


def _acceptance(
    suite: Suite, schedule: KeySchedule, owner: SiteId, *, of_root: bool
) -> Callable[[Secret[bytes]], bool]:
    """How a candidate is compared with what its owner advertised."""
    bundle = schedule.bundle(owner)
    if of_root:
        return lambda root: pair_key(suite, root, bundle.context, owner).public == bundle.pair_key
    return lambda b: self_mask_commitment(b.expose()) == bundle.self_mask_commitment
