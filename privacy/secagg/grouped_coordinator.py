"""The coordinator's machine for an attempt in groups: Committing -> Revealing -> Grouped -> Done | Aborted.

Protocol section 10, seen from the middle. It relays commitments and nonces, draws the same groups as every site, and
then runs the machine of `coordinator.py`, unchanged, once for each group: messages go to the group of their sender,
effects come out as if of one attempt. All uploads go into one running sum, and at the end one `Unmasked` says how to
take the masks of all groups off it.

No site is asked for shares before every group has its confirmations (10.4). Until then an attempt that ends reveals
nothing, and it ends as soon as one group cannot go on. The phase of the whole is that of the group that is behind, and
a deadline cuts off the groups in that phase only.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

from privacy.errors import BelowThreshold, OutOfOrder, PeerViolation
from privacy.secagg import coordinator
from privacy.secagg.beacon import (
    beacon_of,
    check_commitment,
    check_reveal,
    commitments_hash,
    needed_reveals,
)
from privacy.secagg.context import Context
from privacy.secagg.coordinator import (
    Abandon,
    Aborted,
    AddUpload,
    Attempt,
    Blame,
    DeadlinePassed,
    Done,
    Dropout,
    Ignored,
    SendBundles,
    SendProposal,
    SendShares,
    SendUnmaskRequest,
    SiteLost,
    SiteMessage,
    SiteReturned,
    Unmasked,
    Unmasking,
)
from privacy.secagg.groups import Group, all_survivors, draw_groups, whole_transcript
from privacy.secagg.masks import MaskSeeds
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconPhase,
    BeaconReveal,
    CommitmentList,
    Confirmation,
    ConfirmedGroup,
    GroupedUnmaskRequest,
    KeyBundle,
    Phase,
    RevealList,
    SealedShares,
    SiteId,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.transitions import Move, Moves

BeaconMessage: TypeAlias = BeaconCommitment | BeaconReveal
Event: TypeAlias = BeaconMessage | SiteMessage | SiteLost | SiteReturned | DeadlinePassed

# --- effects: those of `coordinator.py`, and these -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCommitments:
    """10.1: send every commitment to each of these sites."""

    to: tuple[SiteId, ...]
    listed: CommitmentList


@dataclass(frozen=True, slots=True, kw_only=True)
class SendReveals:
    """10.2: send every nonce to each of these sites."""

    to: tuple[SiteId, ...]
    listed: RevealList


@dataclass(frozen=True, slots=True, kw_only=True)
class SendGroupedUnmaskRequest:
    """10.4: ask each of these sites for its shares."""

    to: tuple[SiteId, ...]
    request: GroupedUnmaskRequest


Effect: TypeAlias = coordinator.Effect | SendCommitments | SendReveals | SendGroupedUnmaskRequest
Effects: TypeAlias = tuple[Effect, ...]

# --- states --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Committing:
    """10.1: every participant is asked for a commitment."""

    attempt: Attempt  # of the whole
    asked: frozenset[SiteId]
    answers: tuple[BeaconCommitment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealing:
    """10.2: every site that committed is asked for its nonce."""

    attempt: Attempt
    asked: frozenset[SiteId]
    answers: tuple[BeaconReveal, ...]
    commitments: tuple[tuple[SiteId, bytes], ...]  # sorted by site
    commitments_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One group and how far it is."""

    group: Group
    machine: coordinator.Running | Done
    confirmed: ConfirmedGroup | None = None  # once its survivors have confirmed
    removal: MaskSeeds | None = None  # once its masks are known


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """10.3: every group goes through 4.0 to 4.4 at its own pace."""

    attempt: Attempt
    parts: tuple[Part, ...]  # by number
    request: GroupedUnmaskRequest | None = None  # once every group has its confirmations


Running: TypeAlias = Committing | Revealing | Grouped
State: TypeAlias = Running | Done | Aborted

_ORDER: tuple[Phase, ...] = tuple(Phase)

# --- the machine ---------------------------------------------------------------------------------------------------


def begin(context: Context) -> tuple[Committing, Effects]:
    """10.1: wait for a commitment from every participant. The sites were told of the attempt outside this protocol.

    Raises:
        ContextRefused, EncodingRefused, EncodingOverflow: the attempt itself is unacceptable.
    """
    context.check_whole()
    attempt = Attempt(context=context, digest=context.digest(), lost=frozenset())
    return Committing(attempt=attempt, asked=frozenset(context.sites), answers=()), ()


def step(state: State, event: Event) -> tuple[State, Effects]:
    """One event: the next state, and what to do, in order. Nothing a site sends raises (`coordinator.step`).

    Raises:
        OutOfOrder: something that is not an event of this machine.
    """
    return MOVES.make(state, event)


def phase_of(state: State) -> Phase | BeaconPhase | None:
    """The phase a running attempt is in: that of the group that is behind. None when it is over."""
    match state:
        case Committing():
            return BeaconPhase.COMMIT
        case Revealing():
            return BeaconPhase.REVEAL
        case Grouped(parts=parts):
            return min((_phase(part) for part in parts), key=_ORDER.index)
        case _:
            return None


def hears(state: State, context: bytes) -> bool:
    """Whether a message of this context belongs to the attempt: the whole one's, or that of one of its groups."""
    match state:
        case Grouped(attempt=attempt, parts=parts):
            return context == attempt.digest or any(context == part.group.digest for part in parts)
        case Committing(attempt=attempt) | Revealing(attempt=attempt):
            return context == attempt.digest
        case _:
            return False


def in_sum(state: State) -> tuple[SiteId, ...]:
    """The sites whose upload was accepted so far, whatever became of them."""
    if not isinstance(state, Grouped):
        return ()
    accepted: list[SiteId] = []
    for part in state.parts:
        match part.machine:
            case coordinator.Masking(answers=headers):
                accepted += [header.site for header in headers]
            case (
                coordinator.Confirming(survivors=survivors) | Unmasking(survivors=survivors) | Done(survivors=survivors)
            ):
                accepted += survivors
            case _:
                pass
    return tuple(sorted(accepted))


def opened_over(state: State) -> tuple[SiteId, ...]:
    """The survivors, if some may have released their shares already; else none."""
    return all_survivors(state.request.groups) if isinstance(state, Grouped) and state.request is not None else ()


def enough_shares(state: State) -> bool:
    """Whether the shares that have arrived open the sums of all groups, whoever else may be waited for."""
    return isinstance(state, Grouped) and all(
        isinstance(part.machine, Done)
        or (isinstance(part.machine, Unmasking) and len(part.machine.answers) >= part.group.context.threshold)
        for part in state.parts
    )


def admit_upload(state: State, header: UploadHeader) -> None:
    """`coordinator.admit_upload` in the group of the sender; raises as it does."""
    index = _index_of(state, header.site) if isinstance(state, Grouped) else None
    if not isinstance(state, Grouped) or index is None:
        raise OutOfOrder(type(state).__name__, type(header).__name__)
    coordinator.admit_upload(state.parts[index].machine, header)


def _phase(part: Part) -> Phase:
    return coordinator.phase_of(part.machine) or Phase.UNMASK  # one that is done waits for the others


def _index_of(state: Grouped, site: SiteId) -> int | None:
    return next((index for index, part in enumerate(state.parts) if site in part.group.sites), None)


# --- 10.1 and 10.2: the beacon -------------------------------------------------------------------------------------


def _beacon_phase(state: Committing | Revealing) -> BeaconPhase:
    return BeaconPhase.COMMIT if isinstance(state, Committing) else BeaconPhase.REVEAL


def _needed(state: Committing | Revealing) -> int:
    context = state.attempt.context
    return context.required if isinstance(state, Committing) else needed_reveals(context, len(state.commitments))


def _awaited(state: Committing | Revealing) -> frozenset[SiteId]:
    return state.asked - state.attempt.lost - {answer.site for answer in state.answers}


def _answer(state: Committing | Revealing, message: BeaconMessage) -> tuple[State, Effects]:
    """A message of the present step: take it, leave it, or blame its sender."""
    phase, site = _beacon_phase(state), message.site
    if message.context != state.attempt.digest:
        return state, (Ignored(site=site, phase=phase, reason="of another attempt"),)
    previous = next((answer for answer in state.answers if answer.site == site), None)
    if previous == message:
        return state, (Ignored(site=site, phase=phase, reason="a repetition"),)
    if previous is not None:
        found = "two different messages of one phase"
        return _settle(*_blame(state, PeerViolation(site, phase, "one answer in each phase", found)))
    if site in state.attempt.lost:
        return state, (Ignored(site=site, phase=phase, reason="after the site was lost"),)
    if site not in state.asked:
        return _settle(*_blame(state, PeerViolation(site, phase, "only sites that are asked answer", "not asked")))
    context, digest = state.attempt.context, state.attempt.digest
    try:
        match state, message:
            case Committing(), BeaconCommitment():
                check_commitment(context, digest, message, source=site)
                return _settle(replace(state, answers=(*state.answers, message)), ())
            case Revealing(), BeaconReveal():
                check_reveal(
                    context,
                    digest,
                    message,
                    listed=state.commitments_hash,
                    commitment=dict(state.commitments)[site],
                    source=site,
                )
                return _settle(replace(state, answers=(*state.answers, message)), ())
    except PeerViolation as violation:
        return _settle(*_blame(state, violation))
    raise OutOfOrder(type(state).__name__, type(message).__name__)


def _too_early(state: Committing | Revealing, message: BeaconMessage | SiteMessage) -> tuple[State, Effects]:
    """A commitment that comes again is late; anything later cannot come from an honest site that is in this attempt."""
    phase, site = _beacon_phase(state), message.site
    if message.context != state.attempt.digest:
        return state, (Ignored(site=site, phase=phase, reason="of another attempt"),)
    if isinstance(message, BeaconCommitment):
        return state, (Ignored(site=site, phase=phase, reason="after its phase was closed"),)
    found = f"{type(message).__name__} in phase {phase}"
    return _settle(*_blame(state, PeerViolation(site, phase, "phases are answered in order", found)))


def _lose(state: Committing | Revealing, event: SiteLost) -> tuple[State, Effects]:
    return _settle(*_drop(state, event.site))


def _drop(state: Committing | Revealing, site: SiteId) -> tuple[Committing | Revealing, Effects]:
    """Stop listening to a site. A commitment is forgotten; a nonce is kept, or leaving would change the groups."""
    if site in state.attempt.lost or site not in state.attempt.context.sites:
        return state, ()
    attempt = replace(state.attempt, lost=state.attempt.lost | {site})
    effects: Effects = (Dropout(site=site, phase=_beacon_phase(state)),) if site in state.asked else ()
    if isinstance(state, Committing):
        kept = tuple(answer for answer in state.answers if answer.site != site)
        return replace(state, attempt=attempt, answers=kept), effects
    return replace(state, attempt=attempt), effects


def _blame(state: Committing | Revealing, violation: PeerViolation) -> tuple[Committing | Revealing, Effects]:
    dropped, effects = _drop(state, SiteId(violation.site))
    return dropped, (Blame(violation=violation), *effects)


def _at_deadline(state: Committing | Revealing, _: DeadlinePassed) -> tuple[State, Effects]:
    """Stop waiting: whoever has not answered is a dropout."""
    effects: Effects = ()
    for site in sorted(_awaited(state)):
        state, dropped = _drop(state, site)
        effects += dropped
    return _settle(state, effects)


def _settle(state: Committing | Revealing, effects: Effects) -> tuple[State, Effects]:
    """Close the step if nobody is awaited any more; give up if too few can answer."""
    awaited = _awaited(state)
    possible, needed = len(state.answers) + len(awaited), _needed(state)
    if possible < needed:
        reason = BelowThreshold(possible, needed)
        return Aborted(reason=reason), (*effects, Abandon(reason=reason))
    if awaited:
        return state, effects
    if isinstance(state, Revealing):
        return _open_groups(state, effects)
    opened, more = _open_revealing(state)
    return _settle(opened, effects + more)


def _open_revealing(state: Committing) -> tuple[Revealing, Effects]:
    commitments = tuple(sorted((answer.site, answer.commitment) for answer in state.answers))
    sites = tuple(site for site, _ in commitments)
    digest = state.attempt.digest
    revealing = Revealing(
        attempt=state.attempt,
        asked=frozenset(sites),
        answers=(),
        commitments=commitments,
        commitments_hash=commitments_hash(digest, commitments),
    )
    return revealing, (SendCommitments(to=sites, listed=CommitmentList(context=digest, commitments=commitments)),)


def _open_groups(state: Revealing, effects: Effects) -> tuple[State, Effects]:
    """10.3: the nonces are complete; every group begins without those that have been lost on the way."""
    attempt = state.attempt
    nonces = tuple(sorted((reveal.site, reveal.nonce) for reveal in state.answers))
    sites = tuple(site for site, _ in nonces)
    beacon = beacon_of(attempt.digest, state.commitments_hash, nonces)
    parts = []
    for group in draw_groups(attempt.context, attempt.digest, beacon, sites):
        machine, _ = coordinator.begin(group.context)
        assert not isinstance(machine, Aborted)  # begin asks, it does not decide
        parts.append(Part(group=group, machine=machine))
    listed = RevealList(context=attempt.digest, nonces=nonces)
    to = tuple(site for site in sites if site not in attempt.lost)
    grouped: State = Grouped(attempt=attempt, parts=tuple(parts))
    effects = (*effects, SendReveals(to=to, listed=listed))
    for site in sorted(attempt.lost & set(sites)):
        if isinstance(grouped, Grouped):
            grouped, more = _in_group(grouped, SiteLost(site=site))
            effects += tuple(e for e in more if not (isinstance(e, Dropout) and e.site == site))  # noted before
    return grouped, effects


# --- 10.3: in the groups -------------------------------------------------------------------------------------------


def _in_group(state: Grouped, event: SiteMessage | SiteLost | SiteReturned) -> tuple[State, Effects]:
    """Hand it to the machine of the sender's group."""
    index = _index_of(state, event.site)
    if index is not None:
        return _step_parts(state, (index,), event)
    if isinstance(event, SiteLost | SiteReturned):
        return state, ()
    return state, (_ignored(state, event.site, "in no group: its nonce did not come"),)


def _late(state: Grouped, message: BeaconMessage) -> tuple[State, Effects]:
    return state, (_ignored(state, message.site, "after its phase was closed"),)


def _cut_off(state: Grouped, event: DeadlinePassed) -> tuple[State, Effects]:
    """The time of the phase is over for the groups that are in it; the others are further already."""
    phase = phase_of(state)
    behind = tuple(i for i, part in enumerate(state.parts) if coordinator.phase_of(part.machine) is phase)
    return _step_parts(state, behind, event)


def _step_parts(state: Grouped, indices: tuple[int, ...], event: coordinator.Event) -> tuple[State, Effects]:
    """Step some groups, and see what that makes of the whole."""
    parts, unchanged = list(state.parts), True
    effects: Effects = ()
    for index in indices:
        machine, inside = coordinator.step(parts[index].machine, event)
        effects += tuple(_addressed(state, effect) for effect in inside if not isinstance(effect, _HELD))
        if isinstance(machine, Aborted):
            # 10: one group that cannot go on ends the attempt; `Abandon` is among the effects.
            return machine, effects
        if machine is not parts[index].machine:
            parts[index], unchanged = _noted(replace(parts[index], machine=machine), inside), False
        if state.request is not None:
            again = [effect for effect in inside if isinstance(effect, SendUnmaskRequest)]
            effects += tuple(SendGroupedUnmaskRequest(to=effect.to, request=state.request) for effect in again)
    if unchanged:
        return state, effects  # the very same: what changes nothing need not be kept
    return _settle_groups(replace(state, parts=tuple(parts)), effects)


_HELD = (SendUnmaskRequest, Unmasked)
"""What a group's machine says and the whole says later, for all groups at once."""


def _noted(part: Part, effects: coordinator.Effects) -> Part:
    """Keep what the whole will need of a group: its confirmations, and the masks to take off."""
    machine = part.machine
    if part.confirmed is None and isinstance(machine, Unmasking):
        # 10.4: t are enough to prove it to the others, and each of them will check every one.
        confirmed = ConfirmedGroup(
            survivors=machine.survivors,
            transcript=machine.transcript,
            confirmations=machine.request.confirmations[: part.group.context.threshold],
        )
        part = replace(part, confirmed=confirmed)
    unmasked = [effect for effect in effects if isinstance(effect, Unmasked)]
    return replace(part, removal=unmasked[0].removal) if unmasked else part


def _addressed(state: Grouped, effect: coordinator.Effect) -> coordinator.Effect:
    """What goes to sites is addressed by the context of the whole; what they signed in it is their group's."""
    if isinstance(effect, SendProposal):
        return replace(effect, proposal=replace(effect.proposal, context=state.attempt.digest))
    return effect


def _settle_groups(state: Grouped, effects: Effects) -> tuple[State, Effects]:
    confirmed = tuple(part.confirmed for part in state.parts if part.confirmed is not None)
    if state.request is None and len(confirmed) == len(state.parts):
        # 10.4: only now is anybody asked for shares.
        request = GroupedUnmaskRequest(context=state.attempt.digest, groups=confirmed)
        to = tuple(sorted(site for part in state.parts for site in coordinator.awaited(part.machine)))
        state = replace(state, request=request)
        effects = (*effects, SendGroupedUnmaskRequest(to=to, request=request))
    removals = [part.removal for part in state.parts if part.removal is not None]
    if len(removals) < len(state.parts):
        return state, effects
    survivors, transcript = all_survivors(confirmed), whole_transcript(state.attempt.digest, confirmed)
    masks = MaskSeeds(
        add=tuple(seed for removal in removals for seed in removal.add),
        subtract=tuple(seed for removal in removals for seed in removal.subtract),
    )
    unmasked = Unmasked(survivors=survivors, removal=masks, transcript=transcript)
    return Done(survivors=survivors, transcript=transcript), (*effects, unmasked)


def _ignored(state: Grouped, site: SiteId, reason: str) -> Ignored:
    phase = phase_of(state)
    assert phase is not None  # it is running
    return Ignored(site=site, phase=phase, reason=reason)


def _ignore(state: State, _: Event) -> tuple[State, Effects]:
    return state, ()


# --- the table -----------------------------------------------------------------------------------------------------

_ANSWERS = (KeyBundle, SealedShares, UploadHeader, Confirmation, UnmaskShares)
_ASIDE = (Dropout, Blame, Ignored, Abandon)

MOVES = Moves(
    Move(
        section="10.1",
        states=(Committing,),
        events=(BeaconCommitment,),
        does=_answer,
        becomes=(Committing, Revealing, Aborted),
        outputs=(SendCommitments, *_ASIDE),
    ),
    Move(
        section="10.2, 10.3",
        states=(Revealing,),
        events=(BeaconReveal,),
        does=_answer,
        becomes=(Revealing, Grouped, Aborted),
        outputs=(SendReveals, *_ASIDE),
    ),
    Move(
        section="10.1",
        states=(Committing,),
        events=(BeaconReveal, *_ANSWERS),
        does=_too_early,
        becomes=(Committing, Revealing, Aborted),
        outputs=(SendCommitments, *_ASIDE),
    ),
    Move(
        section="10.2",
        states=(Revealing,),
        events=(BeaconCommitment, *_ANSWERS),
        does=_too_early,
        becomes=(Revealing, Grouped, Aborted),
        outputs=(SendReveals, *_ASIDE),
    ),
    Move(
        section="10.1, 10.2",
        states=(Committing, Revealing),
        events=(SiteLost,),
        does=_lose,
        becomes=(Committing, Revealing, Grouped, Aborted),
        outputs=(SendCommitments, SendReveals, Dropout, Abandon),
    ),
    Move(
        section="10.1, 10.2",
        states=(Committing, Revealing),
        events=(DeadlinePassed,),
        does=_at_deadline,
        becomes=(Committing, Revealing, Grouped, Aborted),
        outputs=(SendCommitments, SendReveals, Dropout, Abandon),
    ),
    Move(
        section="10.1, 10.2",
        states=(Committing, Revealing),
        events=(SiteReturned,),
        does=_ignore,
        becomes=(Committing, Revealing),
        outputs=(),
    ),
    Move(
        section="4.0 to 4.5, 10.4",
        states=(Grouped,),
        events=(*_ANSWERS, SiteLost, SiteReturned),
        does=_in_group,
        becomes=(Grouped, Done, Aborted),
        outputs=(SendBundles, SendShares, AddUpload, SendProposal, SendGroupedUnmaskRequest, Unmasked, *_ASIDE),
    ),
    Move(
        section="4.0 to 4.5, 10.4",
        states=(Grouped,),
        events=(DeadlinePassed,),
        does=_cut_off,
        becomes=(Grouped, Done, Aborted),
        outputs=(SendBundles, SendShares, SendProposal, SendGroupedUnmaskRequest, Unmasked, Dropout, Blame, Abandon),
    ),
    Move(
        section="10.3",
        states=(Grouped,),
        events=(BeaconCommitment, BeaconReveal),
        does=_late,
        becomes=(Grouped,),
        outputs=(Ignored,),
    ),
    Move(
        section="4",
        states=(Done, Aborted),
        events=(BeaconCommitment, BeaconReveal, *_ANSWERS, SiteLost, SiteReturned, DeadlinePassed),
        does=_ignore,
        becomes=(Done, Aborted),
        outputs=(),
    ),
)
"""Every move there is; the first that fits is made."""
