"""The coordinator's machine: Advertising -> Sharing -> Masking -> Confirming -> Unmasking -> Done | Aborted.

Protocol sections 4.0 to 4.5, seen from the middle. It relays, keeps account of who is still there, and at the end
says which masks to take off the sum; the sum itself is a `masks.RunningSum` that the shell owns. It draws no
randomness, so replaying the same events gives the same states and the same effects.

Every phase asks a set of sites for one answer each. A phase closes as soon as every site that is still connected has
answered, or at its deadline if enough have; when enough can no longer come, the attempt is over and nothing has been
revealed. A site that breaks a rule is named and is not heard again in this attempt; its upload, if it is in the sum
already, stays there, like that of a site whose connection breaks after its upload.

Whoever feeds events in has compared `message.site` with the certificate of the connection (`attributed` does it), so
a site answers for what comes in its name.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from privacy.errors import BelowThreshold, OutOfOrder, PeerViolation, PrivacyError
from privacy.secagg.checks import (
    check_bundle,
    check_confirmation,
    check_header,
    check_no_key_twice,
    check_sealed,
    check_unmask_shares,
)
from privacy.secagg.context import Context
from privacy.secagg.masks import MaskSeeds
from privacy.secagg.messages import (
    BeaconPhase,
    Confirmation,
    DeliveredShares,
    KeyBundle,
    Phase,
    SealedShares,
    SiteId,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.transcript import box_hashes, key_transcript, keying_hash, survivor_transcript
from privacy.secagg.transitions import Move, Moves
from privacy.secagg.unmasking import KeySchedule, PairBox, reconstruct

# --- events --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLost:
    """The connection to a site broke, or it said that it leaves. It is not heard again in this attempt.

    If it `may_return`, it is still heard while shares are collected, when they come before the deadline.
    """

    site: SiteId
    may_return: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReturned:
    """A site that was away is connected again. While shares are collected it is asked for its own once more."""

    site: SiteId


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """The time for the present phase is over."""


SiteMessage: TypeAlias = KeyBundle | SealedShares | UploadHeader | Confirmation | UnmaskShares
"""An UploadHeader is an event once its whole body has arrived, with the length and the SHA-256 it promises."""

Event: TypeAlias = SiteMessage | SiteLost | SiteReturned | DeadlinePassed

# --- effects -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SendBundles:
    """4.0: send every key bundle to each of these sites."""

    to: tuple[SiteId, ...]
    bundles: tuple[KeyBundle, ...]  # U1, sorted by site


@dataclass(frozen=True, slots=True, kw_only=True)
class SendShares:
    """4.1: send one site the boxes that the other members sealed for it."""

    to: SiteId
    members: tuple[SiteId, ...]  # U2, sorted
    deliveries: tuple[DeliveredShares, ...]  # sorted by sender


@dataclass(frozen=True, slots=True, kw_only=True)
class AddUpload:
    """4.2: the upload is accepted; add it to the running sum, whatever becomes of the site. Once per site."""

    site: SiteId
    masked_update_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SendProposal:
    """4.3: send the survivor set to each of these sites."""

    to: tuple[SiteId, ...]
    proposal: SurvivorProposal


@dataclass(frozen=True, slots=True, kw_only=True)
class SendUnmaskRequest:
    """4.4: ask each of these sites for its shares."""

    to: tuple[SiteId, ...]
    request: UnmaskRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """The site is not heard again in this attempt. It is a survivor all the same if its upload was accepted."""

    site: SiteId
    phase: Phase | BeaconPhase


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """A site broke a rule; keep the evidence."""

    violation: PeerViolation


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """A message that came late, twice, or from an earlier attempt: nobody's fault, and nothing changed."""

    site: SiteId
    phase: Phase | BeaconPhase
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmasked:
    """4.5: apply `removal` to the running sum (`RunningSum.remove`); what is left is the plain sum over survivors."""

    survivors: tuple[SiteId, ...]  # U3, sorted
    removal: MaskSeeds
    transcript: bytes  # T3


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """The attempt is over and its sum stays masked; tell the sites that are connected."""

    reason: PrivacyError


Effect: TypeAlias = (
    SendBundles
    | SendShares
    | AddUpload
    | SendProposal
    | SendUnmaskRequest
    | Dropout
    | Blame
    | Ignored
    | Unmasked
    | Abandon
)
Effects: TypeAlias = tuple[Effect, ...]

# --- states --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What every phase needs: what the attempt is about, and who is not heard any more."""

    context: Context
    digest: bytes
    lost: frozenset[SiteId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertising:
    """4.0: every participant is asked for a key bundle."""

    attempt: Attempt
    asked: frozenset[SiteId]
    answers: tuple[KeyBundle, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """4.1: every site of U1 is asked for its boxes."""

    attempt: Attempt
    asked: frozenset[SiteId]
    answers: tuple[SealedShares, ...]
    bundles: tuple[KeyBundle, ...]  # U1, sorted
    key_transcript: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """4.2: every member of U2 is asked for its masked update."""

    attempt: Attempt
    asked: frozenset[SiteId]
    answers: tuple[UploadHeader, ...]
    schedule: KeySchedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirming:
    """4.3: every survivor is asked to sign the survivor set. The sum is complete and stays masked."""

    attempt: Attempt
    asked: frozenset[SiteId]
    answers: tuple[Confirmation, ...]
    schedule: KeySchedule
    survivors: tuple[SiteId, ...]  # U3, sorted
    headers: tuple[UploadHeader, ...]  # one per survivor, in the same order
    transcript: bytes  # T3


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmasking:
    """4.4: every site that confirmed is asked for its shares.

    A site whose connection breaks now has signed the sum and may have released its shares already. It is `away` rather
    than lost: until the deadline it may come back and be asked again, if its shares are needed.
    """

    attempt: Attempt
    asked: frozenset[SiteId]
    answers: tuple[UnmaskShares, ...]
    schedule: KeySchedule
    survivors: tuple[SiteId, ...]
    headers: tuple[UploadHeader, ...]
    transcript: bytes
    request: UnmaskRequest
    away: frozenset[SiteId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The masks of the sum are known."""

    survivors: tuple[SiteId, ...]
    transcript: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """The attempt is over without a result."""

    reason: PrivacyError


Running: TypeAlias = Advertising | Sharing | Masking | Confirming | Unmasking
State: TypeAlias = Running | Done | Aborted

_PHASE: dict[type, Phase] = {
    Advertising: Phase.ADVERTISE,
    Sharing: Phase.SHARE,
    Masking: Phase.MASK,
    Confirming: Phase.CONFIRM,
    Unmasking: Phase.UNMASK,
    KeyBundle: Phase.ADVERTISE,
    SealedShares: Phase.SHARE,
    UploadHeader: Phase.MASK,
    Confirmation: Phase.CONFIRM,
    UnmaskShares: Phase.UNMASK,
}
_ORDER = tuple(Phase)

# --- the machine ---------------------------------------------------------------------------------------------------


def begin(context: Context) -> tuple[State, Effects]:
    """Ask every participant for a key bundle; the invitation that does so is the shell's.

    Raises:
        ContextRefused, EncodingRefused, EncodingOverflow: no honest study asks for this attempt.
    """
    context.check()
    attempt = Attempt(context=context, digest=context.digest(), lost=frozenset())
    return Advertising(attempt=attempt, asked=frozenset(context.sites), answers=()), ()


def step(state: State, event: Event) -> tuple[State, Effects]:
    """One event: the next state, and what to do, in order.

    Nothing that a site sends raises: a message that breaks a rule is an effect `Blame`, and its sender is a dropout.

    Raises:
        OutOfOrder: something that is not an event of this machine.
    """
    return MOVES.make(state, event)


M = TypeVar("M", KeyBundle, SealedShares, UploadHeader, Confirmation, UnmaskShares)


def attributed(message: M, sender: SiteId) -> M:
    """The message, if it speaks in the name of the site whose certificate it came under.

    Raises:
        PeerViolation: blaming the sender; treat it like `SiteLost(site=sender)`.
    """
    if message.site != sender:
        rule = "a site speaks in its own name"
        raise PeerViolation(sender, _PHASE[type(message)], rule, f"a message of {message.site!r}")
    return message


def admit_upload(state: State, header: UploadHeader) -> None:
    """Raise unless an upload under this header would be accepted now; asked before any memory is taken for its body.

    Raises:
        OutOfOrder: uploads are not being collected; the site is late or early.
        PeerViolation: the header breaks a rule, or the site has uploaded already.
    """
    if not isinstance(state, Masking):
        raise OutOfOrder(type(state).__name__, type(header).__name__)
    if header.site not in _awaited(state):
        raise PeerViolation(header.site, Phase.MASK, "one upload from each member that is connected", "another")
    _check(state, header)


def phase_of(state: State) -> Phase | None:
    """The phase a running attempt is in, None when it is over."""
    return _PHASE.get(type(state))


def awaited(state: State) -> frozenset[SiteId]:
    """The sites whose answer the present phase waits for."""
    return frozenset() if isinstance(state, Done | Aborted) else _awaited(state)


# --- who is there --------------------------------------------------------------------------------------------------


def _awaited(state: Running) -> frozenset[SiteId]:
    return state.asked - state.attempt.lost - _away(state) - {answer.site for answer in state.answers}


def _away(state: Running) -> frozenset[SiteId]:
    """Sites that are not connected and may yet answer."""
    return state.away if isinstance(state, Unmasking) else frozenset()


def _needed(state: Running) -> int:
    """How many answers the phase must have: max(t, minimum) up to the survivor set, then t of its members."""
    context = state.attempt.context
    return context.threshold if isinstance(state, Confirming | Unmasking) else context.required


def _drop(state: Running, site: SiteId) -> tuple[Running, Effects]:
    """Stop listening to a site.

    Before its boxes are handed out nothing depends on it, so its answer is forgotten too. Afterwards what it signed
    stays valid: an upload is in the sum, a confirmation confirms, and shares are shares.
    """
    if site in state.attempt.lost or site not in state.attempt.context.sites:
        return state, ()
    attempt = replace(state.attempt, lost=state.attempt.lost | {site})
    effects: Effects = (Dropout(site=site, phase=_PHASE[type(state)]),) if site in state.asked else ()
    match state:
        case Advertising():
            kept = tuple(answer for answer in state.answers if answer.site != site)
            return replace(state, attempt=attempt, answers=kept), effects
        case Sharing():
            boxes = tuple(answer for answer in state.answers if answer.site != site)
            return replace(state, attempt=attempt, answers=boxes), effects
        case _:
            return replace(state, attempt=attempt), effects


def _leave(state: Running, event: SiteLost) -> tuple[State, Effects]:
    """A connection broke. In the last phase that is not the end: the shares may come over the next one."""
    site = event.site
    if event.may_return and isinstance(state, Unmasking) and site in _awaited(state):
        return _settle(replace(state, away=state.away | {site}), ())
    return _settle(*_drop(state, site))


def _return(state: Unmasking, event: SiteReturned) -> tuple[State, Effects]:
    """4.4: ask again for shares that are still needed. An honest site sends the same bytes, or has nothing to send."""
    site = event.site
    if site not in _awaited(state) | state.away:
        return state, ()
    return replace(state, away=state.away - {site}), (SendUnmaskRequest(to=(site,), request=state.request),)


def _ignore(state: State, _: Event) -> tuple[State, Effects]:
    """It changes nothing."""
    return state, ()


def _blame(state: Running, violation: PeerViolation) -> tuple[Running, Effects]:
    site = SiteId(violation.site)
    dropped, effects = _drop(state, site)
    return dropped, (Blame(violation=violation), *effects)


def _at_deadline(state: Running, _: DeadlinePassed) -> tuple[State, Effects]:
    """Stop waiting: whoever has not answered is a dropout."""
    return _settle(*_give_up(state, _awaited(state) | _away(state)))


def _give_up(state: Running, sites: frozenset[SiteId]) -> tuple[Running, Effects]:
    effects: Effects = ()
    if isinstance(state, Unmasking):
        state = replace(state, away=state.away - sites)
    for site in sorted(sites):
        state, dropped = _drop(state, site)
        effects += dropped
    return state, effects


def _settle(state: Running, effects: Effects) -> tuple[State, Effects]:
    """Close the phase if nobody is awaited any more; give up if too few can answer."""
    awaited, away = _awaited(state), _away(state)
    possible = len(state.answers) + len(awaited) + len(away)
    if possible < _needed(state):
        reason = BelowThreshold(possible, _needed(state))
        return Aborted(reason=reason), (*effects, Abandon(reason=reason))
    if awaited or len(state.answers) < _needed(state):
        return state, effects
    state, gone = _give_up(state, away)
    effects += gone
    closed, more = _close(state)
    if isinstance(closed, Done | Aborted):
        return closed, effects + more
    # The next phase may be hopeless already, when sites were lost after they answered in this one.
    return _settle(closed, effects + more)


# --- messages ------------------------------------------------------------------------------------------------------


def _accept(state: Running, message: SiteMessage) -> tuple[State, Effects]:
    """A message of the present phase: take it, leave it, or blame its sender."""
    phase = _PHASE[type(state)]
    site = message.site
    if message.context != state.attempt.digest:
        # An honest site's message may still be on its way when the next attempt begins.
        return state, (Ignored(site=site, phase=phase, reason="of another attempt"),)
    previous = next((answer for answer in state.answers if answer.site == site), None)
    if previous is not None:
        if previous == message:
            return state, (Ignored(site=site, phase=phase, reason="a repetition"),)
        found = "two different messages of one phase"
        return _settle(*_blame(state, PeerViolation(site, phase, "one answer in each phase", found)))
    if site in state.attempt.lost:
        return state, (Ignored(site=site, phase=phase, reason="after the site was lost"),)
    if site not in state.asked:
        return _settle(*_blame(state, PeerViolation(site, phase, "only sites that are asked answer", "not asked")))
    try:
        _check(state, message)
    except PeerViolation as violation:
        return _settle(*_blame(state, violation))
    return _settle(*_take(state, message))


def _take(state: Running, message: SiteMessage) -> tuple[Running, Effects]:
    match state, message:
        case Advertising(), KeyBundle():
            return replace(state, answers=(*state.answers, message)), ()
        case Sharing(), SealedShares():
            return replace(state, answers=(*state.answers, message)), ()
        case Masking(), UploadHeader():
            added = AddUpload(site=message.site, masked_update_hash=message.masked_update_hash)
            return replace(state, answers=(*state.answers, message)), (added,)
        case Confirming(), Confirmation():
            return replace(state, answers=(*state.answers, message)), ()
        case Unmasking(), UnmaskShares():
            return replace(state, answers=(*state.answers, message)), ()
        case _:
            raise OutOfOrder(type(state).__name__, type(message).__name__)


def _check(state: Running, message: SiteMessage) -> None:
    """Raise PeerViolation unless an honest site could have sent this now."""
    context, digest = state.attempt.context, state.attempt.digest
    match state, message:
        case Advertising(), KeyBundle():
            check_bundle(context, digest, message, source=message.site)
            check_no_key_twice(context.algorithms, (*state.answers, message))
        case Sharing(), SealedShares():
            check_sealed(
                context,
                message,
                key_transcript=state.key_transcript,
                peers=[bundle.site for bundle in state.bundles if bundle.site != message.site],
                source=message.site,
            )
        case Masking(), UploadHeader():
            check_header(context, digest, message, keying=state.schedule.keying, source=message.site)
        case Confirming(), Confirmation():
            check_confirmation(context, digest, message, transcript=state.transcript, source=message.site)
        case Unmasking(), UnmaskShares():
            check_unmask_shares(
                context,
                message,
                transcript=state.transcript,
                survivors=state.survivors,
                dropouts=[site for site in state.schedule.members if site not in state.survivors],
                source=message.site,
            )
        case _:
            raise OutOfOrder(type(state).__name__, type(message).__name__)


def _out_of_phase(state: Running, message: SiteMessage) -> tuple[State, Effects]:
    """A message of an earlier phase is late; one of a later phase cannot come from an honest site."""
    phase = _PHASE[type(state)]
    site = message.site
    if message.context != state.attempt.digest:
        return state, (Ignored(site=site, phase=phase, reason="of another attempt"),)
    if _ORDER.index(_PHASE[type(message)]) < _ORDER.index(phase):
        if isinstance(state, Confirming | Unmasking) and isinstance(message, UploadHeader):
            accepted = next((header for header in state.headers if header.site == site), message)
            if accepted.masked_update_hash != message.masked_update_hash:
                violation = PeerViolation(site, phase, "one upload in each attempt", "two different uploads")
                return _settle(*_blame(state, violation))
        return state, (Ignored(site=site, phase=phase, reason="after its phase was closed"),)
    found = f"{type(message).__name__} in phase {phase}"
    return _settle(*_blame(state, PeerViolation(site, phase, "phases are answered in order", found)))


# --- closing a phase -----------------------------------------------------------------------------------------------


def _close(state: Running) -> tuple[State, Effects]:
    """Everybody who is still there has answered, and they are enough."""
    match state:
        case Advertising():
            return _open_sharing(state)
        case Sharing():
            return _open_masking(state)
        case Masking():
            return _open_confirming(state)
        case Confirming():
            return _open_unmasking(state)
        case Unmasking():
            return _finish(state)


def _open_sharing(state: Advertising) -> tuple[Sharing, Effects]:
    bundles = tuple(sorted(state.answers, key=lambda bundle: bundle.site))
    sites = tuple(bundle.site for bundle in bundles)
    sharing = Sharing(
        attempt=state.attempt,
        asked=frozenset(sites),
        answers=(),
        bundles=bundles,
        key_transcript=key_transcript(state.attempt.digest, bundles),
    )
    return sharing, (SendBundles(to=sites, bundles=bundles),)


def _open_masking(state: Sharing) -> tuple[Masking, Effects]:
    dealt = sorted(state.answers, key=lambda sealed: sealed.site)
    members = tuple(sealed.site for sealed in dealt)
    hashes = {sealed.site: box_hashes(sealed) for sealed in dealt}
    deliveries: dict[SiteId, list[DeliveredShares]] = {member: [] for member in members}
    pair_boxes = []
    for sealed in dealt:
        for box in sealed.boxes:
            if box.recipient not in deliveries:
                continue
            delivered = DeliveredShares(
                sender=sealed.site,
                shares=box.shares,
                pair_seed=box.pair_seed,
                other_box_hashes=tuple(pair for pair in hashes[sealed.site] if pair[0] != box.recipient),
                signature=sealed.signature,
            )
            deliveries[box.recipient].append(delivered)
            if box.pair_seed:
                pair_boxes.append(PairBox(sender=sealed.site, recipient=box.recipient, box=box.pair_seed))
    schedule = KeySchedule(
        bundles=state.bundles,
        key_transcript=state.key_transcript,
        members=members,
        keying=keying_hash(state.key_transcript, members),
        pair_boxes=tuple(pair_boxes),
    )
    masking = Masking(attempt=state.attempt, asked=frozenset(members), answers=(), schedule=schedule)
    return masking, tuple(
        SendShares(to=member, members=members, deliveries=tuple(deliveries[member])) for member in members
    )


def _open_confirming(state: Masking) -> tuple[Confirming, Effects]:
    headers = tuple(sorted(state.answers, key=lambda header: header.site))
    survivors = tuple(header.site for header in headers)
    schedule = state.schedule
    confirming = Confirming(
        attempt=state.attempt,
        asked=frozenset(survivors),
        answers=(),
        schedule=schedule,
        survivors=survivors,
        headers=headers,
        transcript=survivor_transcript(schedule.key_transcript, schedule.members, survivors, headers),
    )
    proposal = SurvivorProposal(context=state.attempt.digest, survivors=survivors, headers=headers)
    to = tuple(site for site in survivors if site not in state.attempt.lost)
    return confirming, (SendProposal(to=to, proposal=proposal),)


def _open_unmasking(state: Confirming) -> tuple[Unmasking, Effects]:
    confirmations = tuple(sorted(state.answers, key=lambda confirmation: confirmation.site))
    request = UnmaskRequest(context=state.attempt.digest, confirmations=confirmations)
    unmasking = Unmasking(
        attempt=state.attempt,
        asked=frozenset(confirmation.site for confirmation in confirmations),
        answers=(),
        schedule=state.schedule,
        survivors=state.survivors,
        headers=state.headers,
        transcript=state.transcript,
        request=request,
    )
    to = tuple(c.site for c in confirmations if c.site not in state.attempt.lost)
    return unmasking, (SendUnmaskRequest(to=to, request=request),)


def _finish(state: Unmasking) -> tuple[Done | Aborted, Effects]:
    try:
        removal = reconstruct(
            state.attempt.context, state.attempt.digest, state.schedule, state.survivors, state.answers
        )
    except PrivacyError as reason:
        blame = (Blame(violation=reason),) if isinstance(reason, PeerViolation) else ()
        return Aborted(reason=reason), (*blame, Abandon(reason=reason))
    blamed = tuple(Blame(violation=violation) for violation in removal.violations)
    unmasked = Unmasked(survivors=state.survivors, removal=removal.seeds, transcript=state.transcript)
    return Done(survivors=state.survivors, transcript=state.transcript), (*blamed, unmasked)


# --- the table -----------------------------------------------------------------------------------------------------

_PHASES = (Advertising, Sharing, Masking, Confirming, Unmasking)
_ANSWERS = (KeyBundle, SealedShares, UploadHeader, Confirmation, UnmaskShares)
_OPENS = (SendBundles, SendShares, SendProposal, SendUnmaskRequest, Unmasked)
"""What closing each phase gives."""


def _in_every_phase(
    section: str, events: tuple[type, ...], does: Callable[[Any, Any], tuple[State, Effects]], outputs: tuple[type, ...]
) -> tuple[Move, ...]:
    """What can happen in any phase: it goes on, it closes and the next one opens, or the attempt is over."""
    return tuple(
        Move(
            section=section,
            states=(phase,),
            events=tuple(event for event in events if event is not answer),
            does=does,
            becomes=(phase, following, Aborted),
            outputs=(opens, *outputs),
        )
        for phase, answer, following, opens in zip(_PHASES, _ANSWERS, (*_PHASES[1:], Done), _OPENS, strict=True)
    )


MOVES = Moves(
    Move(
        section="4.0",
        states=(Advertising,),
        events=(KeyBundle,),
        does=_accept,
        becomes=(Advertising, Sharing, Aborted),
        outputs=(SendBundles, Dropout, Blame, Ignored, Abandon),
    ),
    Move(
        section="4.1",
        states=(Sharing,),
        events=(SealedShares,),
        does=_accept,
        becomes=(Sharing, Masking, Aborted),
        outputs=(SendShares, Dropout, Blame, Ignored, Abandon),
    ),
    Move(
        section="4.2",
        states=(Masking,),
        events=(UploadHeader,),
        does=_accept,
        becomes=(Masking, Confirming, Aborted),
        outputs=(AddUpload, SendProposal, Dropout, Blame, Ignored, Abandon),
    ),
    Move(
        section="4.3",
        states=(Confirming,),
        events=(Confirmation,),
        does=_accept,
        becomes=(Confirming, Unmasking, Aborted),
        outputs=(SendUnmaskRequest, Dropout, Blame, Ignored, Abandon),
    ),
    Move(
        section="4.4, 4.5",
        states=(Unmasking,),
        events=(UnmaskShares,),
        does=_accept,
        becomes=(Unmasking, Done, Aborted),
        outputs=(Unmasked, Dropout, Blame, Ignored, Abandon),
    ),
    *_in_every_phase("4.0 to 4.4", _ANSWERS, _out_of_phase, (Dropout, Blame, Ignored, Abandon)),
    *_in_every_phase("4.0 to 4.4", (SiteLost,), _leave, (Dropout, Blame, Abandon)),
    *_in_every_phase("4.0 to 4.4", (DeadlinePassed,), _at_deadline, (Dropout, Blame, Abandon)),
    Move(
        section="4.4",
        states=(Unmasking,),
        events=(SiteReturned,),
        does=_return,
        becomes=(Unmasking,),
        outputs=(SendUnmaskRequest,),
    ),
    Move(
        section="4.0 to 4.3",
        states=(Advertising, Sharing, Masking, Confirming),
        events=(SiteReturned,),
        does=_ignore,
        becomes=(Advertising, Sharing, Masking, Confirming),
        outputs=(),
    ),
    Move(
        section="4",
        states=(Done, Aborted),
        events=(*_ANSWERS, SiteLost, SiteReturned, DeadlinePassed),
        does=_ignore,
        becomes=(Done, Aborted),
        outputs=(),
    ),
)
"""Every move there is; the first that fits is made."""
