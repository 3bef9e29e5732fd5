"""One attempt in groups, whole, in memory: as `memory_round.py`, with the machines of section 10.

    round_ = GroupedRound(grouped(12, group_size=4))
    round_.run()
    assert (round_.aggregate() == round_.plain_aggregate()).all()

Small groups are for tests only: a study file asks for 64 sites or more. Messages travel in a queue, one at a time.
When it is empty and somebody is still awaited, the deadline passes. A site falls silent before it answers the phase
named in `losses`; `run(until=...)` stops when all that is under way is of one kind, so that a test can look, change a
message and go on. `tamper_to_site` and `tamper_to_coordinator` see every message and may replace or swallow it.
"""

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from privacy.encoding import RingVector, encode
from privacy.errors import OutOfOrder, PrivacyError
from privacy.secagg import coordinator, grouped_coordinator, grouped_site, site
from privacy.secagg.beacon import reveal_payload
from privacy.secagg.masks import RunningSum, apply_masks, vector_hash
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconPhase,
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
    UnmaskShares,
    UploadHeader,
)
from tests.fakes.memory_round import Consortium, consortium, deterministic_entropy, random_values, small_layout

ToSite: TypeAlias = (
    CommitmentList | RevealList | site.BundlesListed | site.SharesDelivered | SurvivorProposal | GroupedUnmaskRequest
)
ToCoordinator: TypeAlias = (
    BeaconCommitment | BeaconReveal | KeyBundle | SealedShares | UploadHeader | Confirmation | UnmaskShares
)
AnyPhase: TypeAlias = BeaconPhase | Phase
PHASES: tuple[AnyPhase, ...] = (*BeaconPhase, *Phase)

REPLY_OF: dict[type, AnyPhase] = {
    BeaconCommitment: BeaconPhase.COMMIT,
    BeaconReveal: BeaconPhase.REVEAL,
    KeyBundle: Phase.ADVERTISE,
    SealedShares: Phase.SHARE,
    UploadHeader: Phase.MASK,
    Confirmation: Phase.CONFIRM,
    UnmaskShares: Phase.UNMASK,
}
"""The phase that a message from a site answers."""


def grouped(
    participants: int, *, group_size: int, threshold: int | None = None, minimum: int | None = None, **context: Any
) -> Consortium:
    """Members, and a context for one attempt in groups. By default one site in ten may be missing throughout."""
    layout = context.pop("layout", None) or small_layout(participants)
    plain = consortium(participants, threshold=threshold, layout=layout)
    least = participants - participants // 10 if minimum is None else minimum
    return replace(plain, context=replace(plain.context, minimum=least, group_size=group_size, **context))


@dataclass(slots=True)
class GroupedRound:
    """N site machines and the coordinator's, with the queue of messages between them.

    Args:
        group: who takes part, in what.
        losses: the phase that a site does not answer any more, with a connection that breaks at once.
        silent: of these, the sites whose loss is noticed only when the deadline passes.
        seed: everything drawn is drawn from it, except the ephemeral keys of HPKE.
        reorder: the queue is shuffled at every step, by `seed`.
    """

    group: Consortium
    losses: Mapping[SiteId, AnyPhase] = field(default_factory=dict)
    silent: frozenset[SiteId] = frozenset()
    seed: str = "a round in groups"
    reorder: bool = False
    tamper_to_site: Callable[[SiteId, ToSite], ToSite | None] = lambda _site, message: message
    tamper_to_coordinator: Callable[[SiteId, ToCoordinator], ToCoordinator | None] = lambda _site, message: message

    site_states: dict[SiteId, grouped_site.State] = field(init=False, default_factory=dict)
    coordinator_state: grouped_coordinator.State = field(init=False)
    running_sum: RunningSum = field(init=False)
    encoded: dict[SiteId, RingVector] = field(init=False, default_factory=dict)
    masked: dict[SiteId, RingVector] = field(init=False, default_factory=dict)
    effects: list[grouped_coordinator.Effect] = field(init=False, default_factory=list)
    site_effects: dict[SiteId, list[site.Effect]] = field(init=False, default_factory=dict)
    events: list[grouped_coordinator.Event] = field(init=False, default_factory=list)
    queue: deque[tuple[SiteId, ToSite | ToCoordinator]] = field(init=False, default_factory=deque)
    broken: set[SiteId] = field(init=False, default_factory=set)
    values: dict[SiteId, Any] = field(init=False)
    drawn: tuple[tuple[SiteId, ...], ...] = field(init=False, default=())
    shuffler: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Begin: every site's commitment is under way."""
        context = self.group.context
        self.shuffler = random.Random(self.seed)
        self.values = random_values(self.group, self.seed)
        self.coordinator_state, effects = grouped_coordinator.begin(context)
        self.effects.extend(effects)
        self.running_sum = RunningSum(context.layout)
        for member in self.group.members:
            state, commitment = grouped_site.begin(
                context,
                member.site,
                member.signer,
                deterministic_entropy(f"{self.seed} of {member.site}"),
                member.long_term_secret,
                cohort=grouped_site.PRIVATE_UPDATES,
            )
            self.site_states[member.site] = state
            self.site_effects[member.site] = []
            self._reply(member.site, commitment)

    # --- running ---

    def run(self, until: type | None = None) -> None:
        """Deliver messages until the attempt is over, or until all that is under way are of the kind `until`."""
        while not isinstance(self.coordinator_state, coordinator.Done | coordinator.Aborted):
            if until is not None and self.queue and all(isinstance(message, until) for _, message in self.queue):
                return
            if not self.queue:
                self.tell_coordinator(coordinator.DeadlinePassed())
                continue
            if self.reorder:
                self.shuffler.shuffle(self.queue)
            self.deliver(*self.queue.popleft())

    def deliver(self, name: SiteId, message: ToSite | ToCoordinator) -> None:
        """Hand one message to whom it is meant for."""
        if type(message) in REPLY_OF:
            self.tell_coordinator(message)  # type: ignore[arg-type]
        else:
            self.tell_site(name, message)  # type: ignore[arg-type]

    def tell_coordinator(self, event: grouped_coordinator.Event) -> None:
        """One event for the coordinator's machine, and its effects done."""
        self.events.append(event)
        self.coordinator_state, effects = grouped_coordinator.step(self.coordinator_state, event)
        self.effects.extend(effects)
        if isinstance(self.coordinator_state, grouped_coordinator.Grouped):
            self.drawn = tuple(part.group.context.sites for part in self.coordinator_state.parts)
        for effect in effects:
            self._perform(effect)

    def tell_site(self, name: SiteId, event: grouped_site.Event) -> tuple[site.Effect, ...]:
        """One event for a site's machine, and its effects done. A site that broke off says nothing more."""
        if name in self.broken:
            return ()
        try:
            self.site_states[name], effects = grouped_site.step(self.site_states[name], event)
        except OutOfOrder:
            if isinstance(self.site_states[name], site.Aborted):
                return ()
            raise
        self.site_effects[name].extend(effects)
        for effect in effects:
            match effect:
                case site.Send(message=message):
                    self._reply(name, message)
                case site.Abandon():
                    self._break(name)
                case site.PersistReleased():
                    pass  # a test looks for it in site_effects
        state = self.site_states[name]
        if isinstance(state, grouped_site.Grouped) and isinstance(state.inner, site.Masking):
            self.tell_site(name, site.UploadFinished(masked_update_hash=self.mask(name, state.inner)))
        return effects

    def mask(self, name: SiteId, state: site.Masking) -> bytes:
        """What the site's shell does in phase "mask": encode, mask, hash. Returns the hash."""
        vector = encode(self.values[name], self.group.context.layout, state.dither)
        self.encoded[name] = vector.copy()
        apply_masks(vector, state.masks)
        self.masked[name] = vector
        return vector_hash(vector)

    # --- results ---

    @property
    def survivors(self) -> tuple[SiteId, ...]:
        """The survivor set of a round that was unmasked."""
        assert isinstance(self.coordinator_state, coordinator.Done), self.coordinator_state
        return self.coordinator_state.survivors

    def aggregate(self) -> RingVector:
        """The unmasked sum over all groups."""
        assert isinstance(self.coordinator_state, coordinator.Done), self.coordinator_state
        return self.running_sum.result

    def plain_aggregate(self) -> RingVector:
        """What the unmasked sum must be: the survivors' encoded updates added up."""
        total = np.zeros_like(self.running_sum.result)
        for name in self.survivors:
            total += self.encoded[name]
        return total

    def blamed(self) -> list[str]:
        """Whom the coordinator blamed, in order."""
        return [effect.violation.site for effect in self.effects if isinstance(effect, coordinator.Blame)]

    def dropouts(self) -> dict[SiteId, AnyPhase]:
        """In which phase the coordinator stopped listening to which site."""
        return {effect.site: effect.phase for effect in self.effects if isinstance(effect, coordinator.Dropout)}

    def of(self, kind: type) -> list[Any]:
        """The coordinator's effects of one kind, in order."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def released(self) -> set[SiteId]:
        """The sites that have sent shares."""
        return {
            name
            for name, effects in self.site_effects.items()
            if any(isinstance(effect, site.PersistReleased) for effect in effects)
        }

    def groups(self) -> tuple[tuple[SiteId, ...], ...]:
        """Who is grouped with whom, once the groups are drawn."""
        return self.drawn

    # --- inside ---

    def _perform(self, effect: grouped_coordinator.Effect) -> None:
        digest = self.group.context.digest()
        match effect:
            case grouped_coordinator.SendCommitments(to=to, listed=listed):
                self._request(to, listed)
            case grouped_coordinator.SendReveals(to=to, listed=reveals):
                self._request(to, reveals)
            case coordinator.SendBundles(to=to, bundles=bundles):
                self._request(to, site.BundlesListed(context=digest, bundles=bundles))
            case coordinator.SendShares(to=name, members=members, deliveries=deliveries):
                self._request((name,), site.SharesDelivered(context=digest, members=members, deliveries=deliveries))
            case coordinator.AddUpload(site=name, masked_update_hash=sha256):
                assert vector_hash(self.masked[name]) == sha256
                self.running_sum.add(self.masked[name])
            case coordinator.SendProposal(to=to, proposal=proposal):
                self._request(to, proposal)
            case grouped_coordinator.SendGroupedUnmaskRequest(to=to, request=request):
                self._request(to, request)
            case coordinator.Unmasked(removal=removal):
                self.running_sum.remove(removal)
            case coordinator.SendUnmaskRequest():
                raise AssertionError("one group alone is never unmasked")
            case _:
                pass

    def _request(self, names: tuple[SiteId, ...], message: ToSite) -> None:
        for name in names:
            changed = None if name in self.broken else self.tamper_to_site(name, message)
            if changed is not None:
                self.queue.append((name, changed))

    def _reply(self, name: SiteId, message: ToCoordinator) -> None:
        if name in self.broken:
            return
        if self.losses.get(name) is REPLY_OF[type(message)]:
            self._break(name)
            return
        changed = self.tamper_to_coordinator(name, message)
        if changed is not None:
            self.queue.append((name, changed))

    def _break(self, name: SiteId) -> None:
        self.broken.add(name)
        if name not in self.silent:
            self.tell_coordinator(coordinator.SiteLost(site=name))


def refusal(state: grouped_site.State, event: grouped_site.Event) -> PrivacyError:
    """Why a site leaves the attempt when it hears this; it must, without having revealed anything."""
    after, effects = grouped_site.step(state, event)
    assert isinstance(after, site.Aborted), after
    assert effects == (site.Abandon(reason=after.reason),)
    return after.reason


def resealed(group: Consortium, reveal: BeaconReveal) -> BeaconReveal:
    """The nonce, signed by the site it names: what a site that works with the coordinator can do."""
    return replace(reveal, signature=group.member(reveal.site).signer.sign(reveal_payload(reveal)))
