"""The site's machine for an attempt in groups: Committing -> Revealing -> Grouped -> Done | Aborted.

Protocol section 10, seen from one site. It commits to a nonce, reveals it, draws the groups from everybody's nonces,
and then runs the machine of `site.py`, unchanged, for the group it is in; `Grouped.inner` is that machine. The
interface is that of `site.py`, with the same effects, so a shell needs to know no more than how to begin.

What travels between the coordinator and a site is addressed by the context of the whole attempt; what sites sign is
bound to the context of their group, which covers the whole one and the beacon. Shares leave only when every group of
the attempt is ready (10.4), and what is written down about it (`PersistReleased`) is about the whole attempt.
Holds against: what `site.py` holds against, in every group with few enough colluding sites (`group_risk.py`).
Does not hide: the sum of each group. Updates must be private without the others' (`CohortRule.update_is_private`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from privacy.errors import ContextRefused, LocalProtocolError, OutOfOrder, PeerViolation, PrivacyError
from privacy.keystream import Keystream
from privacy.lazy_numpy import np
from privacy.secagg import site
from privacy.secagg.beacon import (
    NONCE_BYTES,
    beacon_of,
    check_commitment_list,
    check_reveal_list,
    commitment_of,
    commitment_payload,
    commitments_hash,
    reveal_payload,
)
from privacy.secagg.checks import check_context
from privacy.secagg.cohort import CohortRule
from privacy.secagg.context import Context
from privacy.secagg.groups import (
    Group,
    all_survivors,
    check_confirmed_groups,
    draw_groups,
    repeats,
    whole_transcript,
)
from privacy.secagg.keys import SEED_BYTES, Entropy, Signer, derive
from privacy.secagg.messages import (
    COORDINATOR,
    BeaconCommitment,
    BeaconReveal,
    CommitmentList,
    Confirmation,
    GroupedUnmaskRequest,
    KeyBundle,
    Phase,
    RevealList,
    SealedShares,
    SiteId,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.site import (
    Abandon,
    Aborted,
    AttemptEnded,
    BundlesListed,
    Done,
    Effect,
    PersistReleased,
    Send,
    SharesDelivered,
    UploadFinished,
)
from privacy.secagg.transitions import Move, Moves
from privacy.secret import Secret

Event: TypeAlias = (
    CommitmentList
    | RevealList
    | BundlesListed
    | SharesDelivered
    | UploadFinished
    | SurvivorProposal
    | GroupedUnmaskRequest
    | AttemptEnded
)

PRIVATE_UPDATES = CohortRule(least_difference=1, update_is_private=True)
"""The only rule about survivor sets under which a site takes part in groups.

Who is summed with whom changes from attempt to attempt, and the coordinator sees every group's sum. After as many
attempts as there are sites in a group, sums of anything that stays the same can be solved for each site's part. So
each update must be private on its own; survivor sets then say nothing more.
"""

# --- states --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What stays the same from begin to end."""

    context: Context  # of the whole attempt
    digest: bytes
    me: SiteId
    signer: Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """What the machine of the group will be begun with."""

    fresh: Secret[bytes]  # 32 random bytes, drawn at the beginning so that `step` draws none
    long_term_secret: Secret[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Committing:
    """10.1: the commitment is out."""

    attempt: Attempt
    later: Later
    nonce: Secret[bytes]
    commitment: BeaconCommitment


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealing:
    """10.2: the nonce is out, for one list of commitments."""

    attempt: Attempt
    later: Later
    commitments: tuple[tuple[SiteId, bytes], ...]
    reveal: BeaconReveal


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """10.3: the groups are drawn, and this site's own goes through 4.0 to 4.3."""

    attempt: Attempt
    groups: tuple[Group, ...]  # by number
    number: int  # of this site's group, counted from 1
    inner: site.State  # its machine; neither Done nor Aborted

    @property
    def own(self) -> Group:
        """This site's group."""
        return self.groups[self.number - 1]


State: TypeAlias = Committing | Revealing | Grouped | Done | Aborted
Effects: TypeAlias = tuple[Effect, ...]

# --- the machine ---------------------------------------------------------------------------------------------------


def begin(
    context: Context,
    me: SiteId,
    signer: Signer,
    entropy: Entropy,
    long_term_secret: Secret[bytes],
    *,
    cohort: CohortRule | None = None,
) -> tuple[Committing, BeaconCommitment]:
    """10.1: draw a nonce and commit to it.

    Args:
        context: what the whole attempt is about; the caller compared it with the signed plan and its own policy.
        me: this site.
        signer: the key of the context's suite that this site's certificate binds.
        entropy: fresh random bytes, `os.urandom`.
        long_term_secret: 32 bytes or more that only this site has.
        cohort: what the site demands of survivor sets; it must be `PRIVATE_UPDATES` in effect.

    Raises:
        ContextRefused, EncodingRefused, EncodingOverflow: the attempt itself is unacceptable; nothing was drawn.
        LocalProtocolError: this site does not take part, the signer is not the one of its certificate, or the random
            generator gives too little.
    """
    context.check_whole()
    if cohort is None or not cohort.update_is_private or cohort.least_difference > 1:
        # 10: the sum of each group is seen, over sites that change; see PRIVATE_UPDATES.
        raise ContextRefused("group_size", f"{context.group_size} without differential privacy", "0, one group")
    entry = context.entry(me)
    if entry is None:
        raise LocalProtocolError("a site takes part under its own name", f"{me!r} is not in the roster")
    digest = context.digest()
    drawn, fresh = Secret(entropy(NONCE_BYTES)), Secret(entropy(SEED_BYTES))
    sizes = (len(drawn.expose()), len(fresh.expose()))
    if sizes != (NONCE_BYTES, SEED_BYTES):
        raise LocalProtocolError("the random generator gives 32 bytes", f"{sizes[0]} and {sizes[1]} bytes")
    # Hedged as the seeds of section 4 are: clones of one machine draw the same bytes and must not share a nonce.
    hedge = derive(long_term_secret, salt=digest, label="hedge", parts=(b"beacon", me.encode()))
    nonce = derive(Secret(drawn.expose() + hedge.expose()), salt=digest, label="beacon nonce", parts=(me.encode(),))
    unsigned = BeaconCommitment(
        context=digest, site=me, commitment=commitment_of(digest, me, nonce.expose()), signature=b""
    )
    commitment = replace(unsigned, signature=signer.sign(commitment_payload(unsigned)))
    if not context.algorithms.signature_holds(entry.signing_key, commitment_payload(commitment), commitment.signature):
        raise LocalProtocolError("a site signs with the key of its certificate", f"another key than {me}'s")
    committing = Committing(
        attempt=Attempt(context=context, digest=digest, me=me, signer=signer),
        later=Later(fresh=fresh, long_term_secret=long_term_secret),
        nonce=nonce,
        commitment=commitment,
    )
    return committing, commitment


def step(state: State, event: Event | UnmaskRequest) -> tuple[State, Effects]:
    """One event: the next state, and what to do, in order (`site.step` says how failures are handled).

    Raises:
        OutOfOrder: the event has no meaning in this state. An `UnmaskRequest` for one group alone never has.
    """
    try:
        return MOVES.make(state, event)
    except OutOfOrder:
        raise
    except PrivacyError as error:
        return Aborted(reason=error), (Abandon(reason=error),)


# --- 10.1 -> 10.2 --------------------------------------------------------------------------------------------------


def _reveal(state: Committing, event: CommitmentList) -> tuple[Revealing, Effects]:
    """Reveal the nonce, signed together with the list: once, because the state moves on."""
    attempt = state.attempt
    check_commitment_list(attempt.context, attempt.digest, event, own=state.commitment)
    unsigned = BeaconReveal(
        context=attempt.digest,
        site=attempt.me,
        commitments_hash=commitments_hash(attempt.digest, event.commitments),
        nonce=state.nonce.expose(),
        signature=b"",
    )
    reveal = replace(unsigned, signature=attempt.signer.sign(reveal_payload(unsigned)))
    revealing = Revealing(attempt=attempt, later=state.later, commitments=event.commitments, reveal=reveal)
    return revealing, (Send(message=reveal),)


# --- 10.2 -> 10.3 --------------------------------------------------------------------------------------------------


def _draw(state: Revealing, event: RevealList) -> tuple[Grouped, Effects]:
    """Check every nonce, draw the groups, and advertise keys in this site's own."""
    attempt = state.attempt
    check_reveal_list(attempt.context, attempt.digest, event, commitments=state.commitments, own=state.reveal)
    beacon = beacon_of(attempt.digest, state.reveal.commitments_hash, event.nonces)
    revealed = [revealing for revealing, _ in event.nonces]
    groups = draw_groups(attempt.context, attempt.digest, beacon, revealed)
    number = next(number for number, group in enumerate(groups, start=1) if attempt.me in group.sites)
    stream = Keystream(state.later.fresh)
    inner, bundle = site.begin(
        groups[number - 1].context,
        attempt.me,
        attempt.signer,
        lambda size: stream.words(size, np.dtype("u1")).tobytes(),
        state.later.long_term_secret,
        cohort=PRIVATE_UPDATES,
    )
    return Grouped(attempt=attempt, groups=groups, number=number, inner=inner), (Send(message=bundle),)


# --- 4.0 to 4.3, in the group --------------------------------------------------------------------------------------


def _go_on(
    state: Grouped, event: BundlesListed | SharesDelivered | UploadFinished | SurvivorProposal
) -> tuple[Grouped | Aborted, Effects]:
    """Hand it to the machine of the group, under the group's context."""
    if not isinstance(event, UploadFinished):
        phase = {BundlesListed: Phase.ADVERTISE, SharesDelivered: Phase.SHARE, SurvivorProposal: Phase.CONFIRM}
        check_context(event.context, state.attempt.digest, source=COORDINATOR, phase=phase[type(event)])
        event = replace(event, context=state.own.digest)
    inner, effects = site.step(state.inner, event)
    return (inner if isinstance(inner, Aborted) else replace(state, inner=inner)), effects


# --- 4.4 and 10.4 --------------------------------------------------------------------------------------------------


def _release(state: Grouped, event: GroupedUnmaskRequest) -> tuple[Done | Aborted, Effects]:
    """Release shares if every group is ready to be unmasked, and write down the sum of all of them."""
    attempt, inner = state.attempt, state.inner
    if not isinstance(inner, site.Unmasking):
        raise OutOfOrder(type(inner).__name__, type(event).__name__)
    check_confirmed_groups(state.groups, attempt.digest, event)
    own = event.groups[state.number - 1]
    if (own.survivors, own.transcript) != (inner.survivors, inner.transcript):
        rule = "all survivors of a group confirm one survivor set"
        raise PeerViolation(COORDINATOR, Phase.UNMASK, rule, f"another one for group {state.number}")
    done, effects = site.step(inner, UnmaskRequest(context=state.own.digest, confirmations=own.confirmations))
    if not isinstance(done, Done):
        assert isinstance(done, Aborted)  # what else a request can lead to
        return done, effects
    whole = Done(
        context=attempt.digest,
        transcript=whole_transcript(attempt.digest, event.groups),
        survivors=all_survivors(event.groups),
        shares=done.shares,
    )
    released = PersistReleased(
        context=whole.context,
        transcript=whole.transcript,
        model_hash=attempt.context.model_hash,
        survivors=whole.survivors,
        shares=whole.shares,
    )
    return whole, (released, Send(message=whole.shares))


def _repeat(state: Done, event: GroupedUnmaskRequest) -> tuple[Done, Effects]:
    """4.4: the message that was sent may be sent again, unchanged, for the same sum."""
    if not repeats(event, context=state.context, transcript=state.transcript):
        raise OutOfOrder(type(state).__name__, f"{type(event).__name__} for another sum")
    return state, (Send(message=state.shares),)


# --- the table -----------------------------------------------------------------------------------------------------

MOVES = Moves(
    Move(
        section="10.1",
        states=(Committing,),
        events=(CommitmentList,),
        does=_reveal,
        becomes=(Revealing,),
        outputs=(BeaconReveal,),
    ),
    Move(
        section="10.2, 10.3",
        states=(Revealing,),
        events=(RevealList,),
        does=_draw,
        becomes=(Grouped,),
        outputs=(KeyBundle,),
    ),
    Move(
        section="4.0 to 4.3",
        states=(Grouped,),
        events=(BundlesListed, SharesDelivered, UploadFinished, SurvivorProposal),
        does=_go_on,
        becomes=(Grouped, Aborted),
        outputs=(SealedShares, UploadHeader, Confirmation, Abandon),
    ),
    Move(
        section="4.4, 10.4",
        states=(Grouped,),
        events=(GroupedUnmaskRequest,),
        does=_release,
        becomes=(Done, Aborted),
        outputs=(PersistReleased, UnmaskShares, Abandon),
    ),
    Move(
        section="4.4",
        states=(Done,),
        events=(GroupedUnmaskRequest,),
        does=_repeat,
        becomes=(Done,),
        outputs=(UnmaskShares,),
        note="(the same bytes)",
    ),
    Move(
        section="4",
        states=(Committing, Revealing, Grouped),
        events=(AttemptEnded,),
        does=site.end,
        becomes=(Aborted,),
        outputs=(Abandon,),
    ),
    site.STAY,
)
"""Every move there is. A check that fails leads to Aborted, with Abandon, instead; any other event is OutOfOrder."""
