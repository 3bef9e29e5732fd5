"""One attempt at one round (pure): what arrives, what the coordinator says, what it logs, how the attempt ends.

The cryptography is in `privacy/secagg/coordinator.py` (protocol 4.0 to 4.5) or, in groups, in `grouped_coordinator.py`
(protocol 10), behind the one interface of `secagg_attempt.py`. Around it this machine keeps what hospitals and auditors
ask about: who refused by which rule, who dropped out in which phase, who broke a rule; and it sets the deadlines, so
that a stuck site costs its own place and nobody else's time.

    Inviting -> Keying -> Collecting -> Confirming -> Unmasking -> Summed | Aborted

with Committing -> Revealing before it where the plan has groups.

`Summed` is where the driver takes the masks off the running sum and closes the round; it holds what that needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from consortium import secagg_attempt
from consortium.contract.layout import LaneName
from consortium.contract.messages import BundleList, CoordinatorMessage, RoundAborted, ShareDelivery
from consortium.contract.names import SiteId
from consortium.contract.plan import RoundPlan, context_of
from consortium.round_events import (
    DeadlinePassed,
    Event,
    MessageArrived,
    Phase,
    SiteLeft,
    SiteRefused,
    SiteReturned,
    Stopped,
    UploadStored,
)
from privacy.errors import PeerViolation
from privacy.secagg import coordinator as secagg
from privacy.secagg import grouped_coordinator as grouped
from privacy.secagg import messages
from privacy.secagg.masks import MaskSeeds
from privacy.secagg.messages import (
    UploadHeader,
)

METRICS_DIFFERENCE_MIN = 2
"""Exact metrics of two survivor sets that differ by one site are that site's metrics: such a pair is never summed."""


GRAPH_PHASES: tuple[Phase, ...] = tuple(phase for phase in Phase if phase not in (Phase.COMMITTING, Phase.REVEALING))
"""Those of an attempt that is one complete graph."""

_BY_SECAGG: Mapping[messages.BeaconPhase | messages.Phase, Phase] = dict(
    zip((*messages.BeaconPhase, *messages.Phase), Phase, strict=True)
)

# --- effects -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Send a message to a site."""

    site: SiteId
    message: CoordinatorMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDeadline:
    """Answer with DeadlinePassed(phase) after so long."""

    phase: Phase
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AddToSum:
    """Add a stored upload to the running sum."""

    site: SiteId
    masked_update_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteDropout:
    """A participant is not heard any more here; if its upload is in the sum, it is a survivor all the same."""

    site: SiteId
    phase: Phase
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteRefusal:
    """A site answered with a rule of its own."""

    site: SiteId
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteViolation:
    """A site broke a rule of the protocol."""

    violation: PeerViolation
    evidence: secagg_attempt.Message | None = None  # the message of this site that broke it


Effect: TypeAlias = Tell | StartDeadline | AddToSum | NoteDropout | NoteRefusal | NoteViolation
Effects: TypeAlias = tuple[Effect, ...]

# --- states --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The attempt is under way."""

    plan: RoundPlan
    context: bytes  # 32 bytes, the digest everything is bound to
    machine: secagg_attempt.Running
    measured_before: frozenset[SiteId] | None  # survivors of the last round whose exact values were summed
    is_exact: bool = False  # whether the updates themselves carry no noise, so that every sum of them counts as exact

    @property
    def phase(self) -> Phase:
        """Which phase it is in."""
        return _BY_SECAGG[secagg_attempt.phase_of(self.machine)]

    def hears(self, context: bytes) -> bool:
        """Whether what a site signed under this context is about this attempt."""
        return secagg_attempt.hears(self.machine, context)

    def admit_upload(self, site: SiteId, header: UploadHeader) -> None:
        """Raise unless this site's upload would be accepted now: OutOfOrder, or PeerViolation."""
        secagg.attributed(header, site)
        secagg_attempt.admit_upload(self.machine, header)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """4.5: the survivors' shares are in; the masks can come off."""

    plan: RoundPlan
    context: bytes
    survivors: tuple[SiteId, ...]
    removal: MaskSeeds
    transcript: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """The attempt is over and revealed nothing."""

    plan: RoundPlan
    reason: str
    singles_out: bool = False  # its metrics would have revealed one hospital's
    opened_over: tuple[SiteId, ...] = ()  # the survivors, if some may have released their shares of this sum already


State: TypeAlias = Running | Summed | Aborted


def is_measured(plan: RoundPlan) -> bool:
    """Whether the round carries metrics."""
    return any(lane.name == LaneName.TEST_PATIENTS for lane in plan.layout.lanes)


def may_measure(survivors: frozenset[SiteId], measured_before: frozenset[SiteId] | None) -> bool:
    """Whether exact metrics over `survivors` can be published next to those published before."""
    if measured_before is None or survivors == measured_before:
        return True
    return len(survivors ^ measured_before) >= METRICS_DIFFERENCE_MIN


# --- the machine ---------------------------------------------------------------------------------------------------


def begin(
    plan: RoundPlan, measured_before: frozenset[SiteId] | None, *, is_exact: bool = False
) -> tuple[Running, Effects]:
    """Wait for key bundles. The invitations carry signatures and certificates, so the driver sends them itself."""
    context = context_of(plan)
    machine = secagg_attempt.begin(context)
    state = Running(
        plan=plan, context=context.digest(), machine=machine, measured_before=measured_before, is_exact=is_exact
    )
    return state, (deadline_of(state),)


def step(state: State, event: Event) -> tuple[State, Effects]:
    """One event: the next state, and what to do, in order.

    An attempt that is over hears nothing more. An event that changes nothing gives back the very same state and no
    effect, so that it need not be kept.
    """
    if not isinstance(state, Running):
        return state, ()
    match event:
        case MessageArrived(site=site, message=message):
            return _heard(state, site, message)
        case UploadStored(site=site, header=header):
            return _heard(state, site, header)
        case SiteRefused(site=site, refusal=refusal):
            left, effects = _advance(state, secagg.SiteLost(site=site), f"refused: {refusal.rule}")
            # Only an answer that makes a dropout is noted: a site could fill the log with more of them.
            return left, (NoteRefusal(site=site, rule=refusal.rule), *effects) if effects else ()
        case SiteLeft(site=site):
            return _advance(state, secagg.SiteLost(site=site, may_return=True), "")
        case SiteReturned(site=site):
            return _advance(state, secagg.SiteReturned(site=site), "")
        case DeadlinePassed(phase=phase) if phase is state.phase:
            return _advance(state, secagg.DeadlinePassed(), "it did not answer in time")
        case DeadlinePassed():
            return state, ()
        case Stopped(reason=reason):
            return _abort(state, reason, ())


def _heard(state: Running, site: SiteId, message: secagg_attempt.Message) -> tuple[State, Effects]:
    if message.site != site:
        rule, evidence = "a site speaks in its own name", f"a message of {message.site!r}"
        violation = PeerViolation(site, state.phase.value, rule, evidence)
        left, effects = _advance(state, secagg.SiteLost(site=site), rule)
        return left, (NoteViolation(violation=violation, evidence=message), *effects) if effects else ()
    return _advance(state, message, "")


def _advance(state: Running, event: secagg_attempt.Event, reason: str) -> tuple[State, Effects]:
    """Step the cryptographic machine and translate what it wants."""
    machine, wanted = secagg_attempt.step(state.machine, event)
    effects: list[Effect] = []
    blamed: list[SiteId] = []
    for effect in wanted:
        match effect:
            case secagg.SendBundles(to=to, bundles=bundles):
                effects += [Tell(site=s, message=BundleList(context=state.context, bundles=bundles)) for s in to]
            case secagg.SendShares(to=to_one, members=members, deliveries=deliveries):
                delivery = ShareDelivery(context=state.context, members=members, deliveries=deliveries)
                effects.append(Tell(site=to_one, message=delivery))
            case secagg.AddUpload(site=site, masked_update_hash=sha256):
                effects.append(AddToSum(site=site, masked_update_hash=sha256))
            case secagg.SendProposal(to=to, proposal=proposal):
                counts = state.is_exact or is_measured(state.plan)
                if counts and not may_measure(frozenset(proposal.survivors), state.measured_before):
                    return _abort(state, _SINGLES_OUT, tuple(effects), singles_out=True)
                effects += [Tell(site=s, message=proposal) for s in to]
            case secagg.SendUnmaskRequest(to=to, request=request):
                effects += [Tell(site=s, message=request) for s in to]
            case grouped.SendCommitments(to=to, listed=commitments):
                effects += [Tell(site=s, message=commitments) for s in to]
            case grouped.SendReveals(to=to, listed=reveals):
                effects += [Tell(site=s, message=reveals) for s in to]
            case grouped.SendGroupedUnmaskRequest(to=to, request=for_all):
                effects += [Tell(site=s, message=for_all) for s in to]
            case secagg.Dropout(site=site, phase=phase):
                why = "it broke a rule of the protocol" if site in blamed else reason or "its connection ended"
                if site in secagg_attempt.in_sum(state.machine):
                    why += "; its update is in the sum"
                effects.append(NoteDropout(site=site, phase=_BY_SECAGG[phase], reason=why))
            case secagg.Blame(violation=violation):
                blamed.append(SiteId(violation.site))
                effects.append(NoteViolation(violation=violation, evidence=_said(state.machine, violation.site, event)))
            case secagg.Ignored():
                pass
            case secagg.Unmasked(survivors=survivors, removal=removal, transcript=transcript):
                summed = Summed(
                    plan=state.plan,
                    context=state.context,
                    survivors=survivors,
                    removal=removal,
                    transcript=transcript,
                )
                return summed, tuple(effects)
            case secagg.Abandon(reason=error):
                return _abort(state, str(error), tuple(effects))
    assert not isinstance(machine, secagg.Done | secagg.Aborted)  # both come with an effect handled above
    if machine is state.machine and not effects:
        return state, ()  # ignored: late, repeated, or of another attempt
    after = replace(state, machine=machine)
    if after.phase is not state.phase:
        effects.append(deadline_of(after))
    return after, tuple(effects)


def _said(machine: secagg_attempt.Running, site: str, event: secagg_attempt.Event) -> secagg_attempt.Message | None:
    """What a site said that is held against it: just now, or earlier in this phase (a wrong share shows at its end)."""
    if not isinstance(event, _NOT_SAID) and event.site == site:
        return event
    return secagg_attempt.answer_of(machine, site)


_NOT_SAID = (secagg.SiteLost, secagg.SiteReturned, secagg.DeadlinePassed)
_SINGLES_OUT = (
    "the survivors differ by one hospital from those of the last published metrics, which would reveal that hospital's"
)


def _abort(state: Running, reason: str, before: Effects, *, singles_out: bool = False) -> tuple[Aborted, Effects]:
    told = RoundAborted(context=state.context, reason=reason)
    everyone = tuple(Tell(site=participant.site, message=told) for participant in state.plan.participants)
    aborted = Aborted(plan=state.plan, reason=reason, singles_out=singles_out, opened_over=opened_over(state))
    return aborted, (*before, *everyone)


def opened_over(state: Running) -> tuple[SiteId, ...]:
    """The survivors over whom shares may have been released: to the sites, such a sum counts as known."""
    return secagg_attempt.opened_over(state.machine)


def may_have_opened(state: State) -> bool:
    """Whether shares of the sum have been asked for: from then on nothing that led to it may be forgotten."""
    match state:
        case Running():
            return bool(opened_over(state))
        case Summed():
            return True
        case Aborted():
            return bool(state.opened_over)


def enough_shares(state: Running) -> bool:
    """Whether the shares that have arrived open the sum, whoever else may be waited for."""
    return secagg_attempt.enough_shares(state.machine)


def deadline_of(state: Running) -> StartDeadline:
    """Training has the round's time; every other phase is a few kilobytes and has the upload's."""
    plan = state.plan
    seconds = plan.round_deadline_s if state.phase is Phase.COLLECTING else plan.upload_deadline_s
    return StartDeadline(phase=state.phase, seconds=seconds)
