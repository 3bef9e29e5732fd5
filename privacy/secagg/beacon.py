"""Section 10, steps "commit" and "reveal": the random value that divides participants into groups (`groups.py`).

Nobody may choose who is grouped with whom: a group in which many sites work with the coordinator would not be
protected. So every participant commits to a nonce before it sees any other, and the hash of all nonces shuffles the
participants. One honest nonce makes the shuffle unpredictable; what is left to a coordinator that lies is to withhold
a few nonces and see whether it likes the outcome better (`WITHHELD_MAX`, and `group_risk.py` for what that gains).

The lists that the coordinator relays carry no signatures, and a site checks none. What protects it is its own nonce,
which nobody knows before the list of commitments is fixed, and with it every other nonce. Sites that are shown
different lists draw different groups, under contexts under which they do not accept each other's keys. Signatures are
for the coordinator, which must be able to say who broke a rule. They are in no hash either: their makers could try
many of them after they had seen the nonces of the others.
"""

import hashlib
from collections.abc import Sequence

from privacy.errors import BelowThreshold, PeerViolation
from privacy.secagg.checks import check_context, check_signed, sorted_once
from privacy.secagg.context import Context
from privacy.secagg.messages import (
    COORDINATOR,
    HASH_BYTES,
    BeaconCommitment,
    BeaconPhase,
    BeaconReveal,
    CommitmentList,
    RevealList,
    SiteId,
)
from privacy.secagg.transcript import frame

NONCE_BYTES = 32

WITHHELD_MAX = 2
"""How many sites may be missing between the commitments and the nonces.

Each subset of the nonces gives other groups, and whoever relays them could pick the subset: with 600 participants and
two that may be missing there are 180 301 to choose from. A site that drops out in this one short step is rare, and an
attempt that fails here has cost nobody anything.
"""


def _hash(label: str, *parts: bytes) -> bytes:
    return hashlib.sha256(frame(label, *parts)).digest()


# --- 10.1: commitments ---------------------------------------------------------------------------------------------


def commitment_of(context: bytes, site: SiteId, nonce: bytes) -> bytes:
    """H(context, site, nonce): cannot be replayed in another attempt, nor copied by another site."""
    return _hash("beacon commitment", context, site.encode(), nonce)


def commitment_payload(commitment: BeaconCommitment) -> bytes:
    """What a commitment's signature covers."""
    return frame("beacon commit", commitment.context, commitment.site.encode(), commitment.commitment)


def commitments_hash(context: bytes, commitments: Sequence[tuple[SiteId, bytes]]) -> bytes:
    """H(context, every site and its commitment): what every nonce is revealed for."""
    return _hash("beacon commitments", context, *(part for s, value in commitments for part in (s.encode(), value)))


def check_commitment(context: Context, digest: bytes, commitment: BeaconCommitment, *, source: SiteId) -> None:
    """10.1: of this attempt, signed, and of the right length. Asked by the coordinator, about what a site sent."""
    phase = BeaconPhase.COMMIT
    check_context(commitment.context, digest, source=source, phase=phase)
    check_signed(
        context,
        site=commitment.site,
        payload=commitment_payload(commitment),
        signature=commitment.signature,
        source=source,
        phase=phase,
    )
    if len(commitment.commitment) != HASH_BYTES:
        found = f"{len(commitment.commitment)} bytes"
        raise PeerViolation(commitment.site, phase, f"a commitment has {HASH_BYTES} bytes", found)


def check_commitment_list(context: Context, digest: bytes, listed: CommitmentList, *, own: BeaconCommitment) -> None:
    """10.1, at a site: a list of participants' commitments, with its own unchanged, long enough to go on.

    Raises:
        PeerViolation: blaming the coordinator.
        BelowThreshold: too few participants committed.
    """
    phase = BeaconPhase.COMMIT
    check_context(listed.context, digest, source=COORDINATOR, phase=phase)
    sites = [site for site, _ in listed.commitments]
    if not sorted_once(sites) or not set(sites) <= set(context.sites):
        rule = "commitments are sorted, one per participant"
        raise PeerViolation(COORDINATOR, phase, rule, "a doubled, unsorted or foreign one")
    if any(len(value) != HASH_BYTES for _, value in listed.commitments):
        raise PeerViolation(COORDINATOR, phase, f"a commitment has {HASH_BYTES} bytes", "another length")
    if (own.site, own.commitment) not in listed.commitments:
        raise PeerViolation(COORDINATOR, phase, "this site's commitment is listed unchanged", "missing or changed")
    if len(sites) < context.required:
        raise BelowThreshold(len(sites), context.required)


# --- 10.2: nonces --------------------------------------------------------------------------------------------------


def reveal_payload(reveal: BeaconReveal) -> bytes:
    """What a nonce's signature covers."""
    return frame("beacon reveal", reveal.context, reveal.site.encode(), reveal.commitments_hash, reveal.nonce)


def needed_reveals(context: Context, committed: int) -> int:
    """How many of `committed` sites must reveal their nonces for the groups to be drawn."""
    return max(context.required, committed - WITHHELD_MAX)


def check_reveal(
    context: Context, digest: bytes, reveal: BeaconReveal, *, listed: bytes, commitment: bytes, source: SiteId
) -> None:
    """10.2: of this attempt, signed, and what its site had committed to. Asked by the coordinator.

    Args:
        context: of the whole attempt.
        digest: its digest.
        reveal: the nonce.
        listed: `commitments_hash` of the list that was sent.
        commitment: the site's commitment on that list.
        source: who handed it to us.
    """
    phase = BeaconPhase.REVEAL
    check_context(reveal.context, digest, source=source, phase=phase)
    payload = reveal_payload(reveal)
    check_signed(context, site=reveal.site, payload=payload, signature=reveal.signature, source=source, phase=phase)
    if reveal.commitments_hash != listed:
        raise PeerViolation(reveal.site, phase, "a nonce is for the list of commitments that was sent", "another list")
    if len(reveal.nonce) != NONCE_BYTES or commitment_of(digest, reveal.site, reveal.nonce) != commitment:
        # The signature covers the list with the commitment and the nonce: evidence against its signer.
        raise PeerViolation(reveal.site, phase, "a nonce is the one that was committed to", "another nonce")


def check_reveal_list(
    context: Context,
    digest: bytes,
    listed: RevealList,
    *,
    commitments: Sequence[tuple[SiteId, bytes]],
    own: BeaconReveal,
) -> None:
    """10.2, at a site: nonces of all who committed but `WITHHELD_MAX`, each committed to, its own among them.

    Raises:
        PeerViolation: blaming the coordinator; an honest one does not relay a nonce that was not committed to.
        BelowThreshold: too many are missing; nobody can be blamed for that.
    """
    phase = BeaconPhase.REVEAL
    check_context(listed.context, digest, source=COORDINATOR, phase=phase)
    committed = dict(commitments)
    sites = [site for site, _ in listed.nonces]
    if not sorted_once(sites) or not set(sites) <= committed.keys():
        rule = "nonces are sorted, one per site that committed"
        raise PeerViolation(COORDINATOR, phase, rule, "a doubled, unsorted or foreign one")
    # 10.2: without this nonce, the groups could have been chosen by those who made the others.
    if (own.site, own.nonce) not in listed.nonces:
        raise PeerViolation(COORDINATOR, phase, "this site's nonce is listed unchanged", "missing or changed")
    # 10.2: every nonce that may be left out is a choice for whoever leaves it out.
    if len(sites) < needed_reveals(context, len(committed)):
        raise BelowThreshold(len(sites), needed_reveals(context, len(committed)))
    for site, nonce in listed.nonces:
        # 10.2: fixed before this site's nonce was known, or it could have been chosen to fit.
        if len(nonce) != NONCE_BYTES or commitment_of(digest, site, nonce) != committed[site]:
            raise PeerViolation(COORDINATOR, phase, "a nonce is the one that was committed to", f"another for {site}")


def beacon_of(context: bytes, commitments_hash: bytes, nonces: Sequence[tuple[SiteId, bytes]]) -> bytes:
    """H(context, commitments, every site and its nonce), of nonces that were checked and are sorted by site."""
    return _hash("beacon", context, commitments_hash, *(part for s, nonce in nonces for part in (s.encode(), nonce)))
