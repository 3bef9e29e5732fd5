"""One attempt at one round, seen from the site (pure): keys and shares travel while the model trains; both meet here.

Secure aggregation has its own machine (`privacy/secagg/site.py`, protocol 4.0 to 4.4). This one adds what it leaves to
its surroundings: the update becomes ready at its own time, and only then, with the masks known too, is it uploaded.

    Invited -> (keys and shares || training) -> Masked -> Confirmed -> Released | Over
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

from consortium.contract.messages import BundleList, RoundAborted, ShareDelivery
from consortium.contract.plan import RoundPlan
from privacy.errors import PrivacyError
from privacy.secagg import site as secagg
from privacy.secagg.masks import MaskSeeds
from privacy.secagg.messages import SurvivorProposal, UnmaskRequest
from privacy.secret import Secret

# --- events --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UpdateReady:
    """Training (or evaluation) is done; the values wait to be encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMasked:
    """The masked update is whole and hashed; its masks are forgotten."""

    masked_update_hash: bytes  # 32 bytes


class AttemptOver(PrivacyError):
    """The attempt ended for a reason outside secure aggregation; no share was released by it."""

    def advice(self) -> str:
        """What to do next."""
        return "Nothing: the round is tried again, or the next one comes."


Event: TypeAlias = (
    BundleList | ShareDelivery | SurvivorProposal | UnmaskRequest | RoundAborted | UpdateReady | UpdateMasked
)

# --- effects: secagg's own, and one more ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskAndUpload:
    """Encode the values with `dither`, put `masks` on them, hash, and answer with UpdateMasked."""

    masks: MaskSeeds
    dither: Secret[bytes]


Effect: TypeAlias = secagg.Effect | MaskAndUpload


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """Where this site stands in the attempt."""

    plan: RoundPlan
    machine: secagg.State
    update_ready: bool = False
    masking: bool = False

    @property
    def released(self) -> bool:
        """Whether shares have left: from then on the sum may be known."""
        return isinstance(self.machine, secagg.Done)

    @property
    def over(self) -> bool:
        """Whether this attempt asks for nothing more."""
        return isinstance(self.machine, secagg.Aborted)


def step(state: Participation, event: Event) -> tuple[Participation, tuple[Effect, ...]]:
    """One event; raises OutOfOrder for one that has no meaning now."""
    effects: tuple[Effect, ...] = ()
    match event:
        case UpdateReady():
            state = replace(state, update_ready=True)
        case BundleList():
            state, effects = _secagg(state, secagg.BundlesListed(context=event.context, bundles=event.bundles))
        case ShareDelivery():
            delivered = secagg.SharesDelivered(
                context=event.context, members=event.members, deliveries=event.deliveries
            )
            state, effects = _secagg(state, delivered)
        case UpdateMasked():
            state, effects = _secagg(state, secagg.UploadFinished(masked_update_hash=event.masked_update_hash))
        case SurvivorProposal() | UnmaskRequest():
            state, effects = _secagg(state, event)
        case RoundAborted():
            state, effects = _secagg(state, secagg.AttemptEnded(reason=AttemptOver(event.reason)))
    if isinstance(state.machine, secagg.Masking) and state.update_ready and not state.masking:
        wanted = MaskAndUpload(masks=state.machine.masks, dither=state.machine.dither)
        return replace(state, masking=True), (*effects, wanted)
    return state, effects


def _secagg(state: Participation, event: secagg.Event) -> tuple[Participation, tuple[Effect, ...]]:
    machine, effects = secagg.step(state.machine, event)
    return replace(state, machine=machine), effects
