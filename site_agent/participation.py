"""One attempt at one round, seen from the site (pure): keys and shares travel while the model trains; both meet here.

Secure aggregation has its own machine (`privacy/secagg/site.py`, protocol 4.0 to 4.4; `grouped_site.py`, protocol 10,
where the plan has groups). This one adds what it leaves to
its surroundings: the update becomes ready at its own time, and only then, with the masks known too, is it uploaded.

    Invited -> (keys and shares || training) -> Masked -> Confirmed -> Released | Over
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

from consortium.contract.messages import BundleList, RoundAborted, ShareDelivery
from consortium.contract.plan import RoundPlan
from privacy.errors import PrivacyError
from privacy.secagg import grouped_site, groups
from privacy.secagg import site as secagg
from privacy.secagg.cohort import CohortRule
from privacy.secagg.context import Context
from privacy.secagg.keys import Entropy, Signer
from privacy.secagg.masks import MaskSeeds
from privacy.secagg.messages import (
    BeaconCommitment,
    CommitmentList,
    GroupedUnmaskRequest,
    KeyBundle,
    RevealList,
    SiteId,
    SurvivorProposal,
    UnmaskRequest,
)
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
    CommitmentList
    | RevealList
    | BundleList
    | ShareDelivery
    | SurvivorProposal
    | UnmaskRequest
    | GroupedUnmaskRequest
    | RoundAborted
    | UpdateReady
    | UpdateMasked
)

# --- effects: secagg's own, and one more ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskAndUpload:
    """Encode the values with `dither`, put `masks` on them, hash, and answer with UpdateMasked."""

    masks: MaskSeeds
    dither: Secret[bytes]


Effect: TypeAlias = secagg.Effect | MaskAndUpload
Machine: TypeAlias = secagg.State | grouped_site.State


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """Where this site stands in the attempt."""

    plan: RoundPlan
    machine: Machine
    update_ready: bool = False
    masking: bool = False

    @property
    def released(self) -> bool:
        """Whether shares have left: from then on the sum may be known."""
        return isinstance(self.machine, secagg.Done)

    @property
    def outlives_the_session(self) -> bool:
        """Whether a survivor set is signed: its shares may be asked for over the next connection too."""
        return isinstance(self.inner, secagg.Unmasking | secagg.Done)

    @property
    def inner(self) -> Machine:
        """The machine of secure aggregation; in groups, that of this site's own group, once it has one."""
        return self.machine.inner if isinstance(self.machine, grouped_site.Grouped) else self.machine

    @property
    def over(self) -> bool:
        """Whether this attempt asks for nothing more."""
        return isinstance(self.machine, secagg.Aborted)


def begin(
    context: Context,
    me: SiteId,
    signer: Signer,
    entropy: Entropy,
    long_term_secret: Secret[bytes],
    *,
    cohort: CohortRule,
) -> tuple[Machine, KeyBundle | BeaconCommitment]:
    """The machine for an attempt, and what to send first; arguments and errors are those of `site.begin`."""
    if context.group_size:
        return grouped_site.begin(context, me, signer, entropy, long_term_secret, cohort=cohort)
    return secagg.begin(context, me, signer, entropy, long_term_secret, cohort=cohort)


def repeats(request: UnmaskRequest | GroupedUnmaskRequest, *, context: bytes, transcript: bytes) -> bool:
    """Whether shares that were released before may be sent again, unchanged (protocol 4.4)."""
    if isinstance(request, UnmaskRequest):
        return secagg.repeats(request, context=context, transcript=transcript)
    return groups.repeats(request, context=context, transcript=transcript)


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
        case SurvivorProposal() | UnmaskRequest() | CommitmentList() | RevealList() | GroupedUnmaskRequest():
            state, effects = _secagg(state, event)
        case RoundAborted():
            state, effects = _secagg(state, secagg.AttemptEnded(reason=AttemptOver(event.reason)))
    inner = state.inner
    if isinstance(inner, secagg.Masking) and state.update_ready and not state.masking:
        wanted = MaskAndUpload(masks=inner.masks, dither=inner.dither)
        return replace(state, masking=True), (*effects, wanted)
    return state, effects


def _secagg(state: Participation, event: secagg.Event | grouped_site.Event) -> tuple[Participation, tuple[Effect, ...]]:
    """Each machine is out of order with what belongs to the other, whatever the coordinator sends."""
    machine: Machine
    if isinstance(state.machine, _IN_GROUPS) or isinstance(event, _TO_GROUPS):
        machine, effects = grouped_site.step(state.machine, event)  # type: ignore[arg-type]
    else:
        machine, effects = secagg.step(state.machine, event)
    return replace(state, machine=machine), effects


_IN_GROUPS = (grouped_site.Committing, grouped_site.Revealing, grouped_site.Grouped)
_TO_GROUPS = (CommitmentList, RevealList, GroupedUnmaskRequest)
