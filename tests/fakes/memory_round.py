"""One attempt at a round, whole, in memory: N sites, one coordinator, and links that can fail or lie.

The shortest way to see secure aggregation run:

    round_ = MemoryRound(consortium(4))
    round_.run()
    assert round_.sums() == round_.plain_sums()

A round is a queue of messages. `run()` delivers them one by one until none is left, lets the deadline pass when
somebody is still awaited, and goes on until the coordinator's machine is over. `run(until=Phase.CONFIRM)` stops as
soon as every message of that phase is under way and none is delivered, so that a test can look at the states, change
a message, and go on.

Links fail in the ways real ones do: `Link(lose_request=Phase.SHARE)` breaks before the site hears of that phase,
`lose_reply` after it answered and before the answer arrived, `duplicate` delivers everything to the coordinator
twice. `tamper_to_site` and `tamper_to_coordinator` see every message on its way and may replace or swallow it: a
lying coordinator is a function there.

Everything is drawn from `seed`, except the ephemeral keys of HPKE, so two rounds with one seed have the same keys,
masks and transcripts T1, and different ciphertexts.
"""

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from privacy import p256
from privacy.encoding import Lane, Layout, RingVector, decode, encode, lane_scale
from privacy.errors import OutOfOrder
from privacy.p256 import EcdsaSigner
from privacy.secagg import coordinator, site
from privacy.secagg.cohort import CohortRule
from privacy.secagg.context import Context, RosterEntry, default_threshold
from privacy.secagg.keys import Signer
from privacy.secagg.masks import RunningSum, apply_masks, vector_hash
from privacy.secagg.messages import (
    Confirmation,
    KeyBundle,
    Phase,
    SealedShares,
    SiteId,
    SurvivorProposal,
    UnmaskRequest,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.suites import SuiteName
from privacy.secret import Secret

ToSite: TypeAlias = site.BundlesListed | site.SharesDelivered | SurvivorProposal | UnmaskRequest
ToCoordinator: TypeAlias = KeyBundle | SealedShares | UploadHeader | Confirmation | UnmaskShares

REQUEST_OF: dict[type, Phase] = {
    site.BundlesListed: Phase.SHARE,
    site.SharesDelivered: Phase.MASK,
    SurvivorProposal: Phase.CONFIRM,
    UnmaskRequest: Phase.UNMASK,
}
"""The phase that a message from the coordinator opens for a site."""

REPLY_OF: dict[type, Phase] = {
    KeyBundle: Phase.ADVERTISE,
    SealedShares: Phase.SHARE,
    UploadHeader: Phase.MASK,
    Confirmation: Phase.CONFIRM,
    UnmaskShares: Phase.UNMASK,
}
"""The phase that a message from a site answers."""


# --- who takes part ------------------------------------------------------------------------------------------------


def deterministic_entropy(seed: str) -> Callable[[int], bytes]:
    """A stand-in for os.urandom that gives the same bytes for the same seed."""
    counter = iter(range(2**31))

    def draw(size: int) -> bytes:
        return hashlib.shake_256(f"{seed}/{next(counter)}".encode()).digest(size)

    return draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A site with its long-lived keys."""

    site: SiteId
    suite: SuiteName
    signing_key: Ed25519PrivateKey
    ecdsa_key: EcdsaSigner
    long_term_secret: Secret[bytes]

    @property
    def signer(self) -> Signer:
        """The key that signs in this member's suite."""
        return self.ecdsa_key if self.suite is SuiteName.P256 else self.signing_key

    @property
    def public_key(self) -> bytes:
        """What verifies it, as a certificate binds it."""
        return (
            self.ecdsa_key.public if self.suite is SuiteName.P256 else self.signing_key.public_key().public_bytes_raw()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Consortium:
    """The members and what one attempt is about."""

    members: tuple[Member, ...]
    context: Context

    def member(self, name: SiteId) -> Member:
        """The member called `name`."""
        return next(member for member in self.members if member.site == name)


def site_name(number: int) -> SiteId:
    """site-a, site-b, ..., site-z, site-za, ...: sorted as numbered, up to 52 of them."""
    return SiteId("site-" + "z" * (number // 26) + chr(ord("a") + number % 26))


def small_layout(participants: int, length: int = 5, bits: int = 32) -> Layout:
    """An update of `length` values within +-1, and one count."""
    return Layout(
        modulus_bits=bits,
        lanes=(
            Lane(name="update", length=length, clip=1.0, scale=lane_scale(participants, 1.0, bits)),
            Lane(name="weight", length=1, clip=100.0, scale=1.0),
        ),
    )


def consortium(
    participants: int,
    *,
    suite: SuiteName = SuiteName.HYBRID_PQ,
    threshold: int | None = None,
    minimum: int = 3,
    layout: Layout | None = None,
    round_number: int = 1,
    attempt: int = 1,
    previous_transcript: bytes = bytes(32),
    model_hash: bytes = bytes(31) + b"\x01",
) -> Consortium:
    """N members with keys of their own and a context for one attempt; the keys depend on the names only."""
    members = []
    for number in range(participants):
        name = site_name(number)
        draw = deterministic_entropy(f"keys of {name}")
        signing_key = Ed25519PrivateKey.from_private_bytes(draw(32))
        long_term_secret = Secret(draw(32))
        ecdsa_key = EcdsaSigner(p256.private_key(Secret(draw(p256.SEED_BYTES))).expose())
        members.append(
            Member(
                site=name,
                suite=suite,
                signing_key=signing_key,
                ecdsa_key=ecdsa_key,
                long_term_secret=long_term_secret,
            )
        )
    context = Context(
        consortium="test-consortium",
        suite=suite,
        study_hash=hashlib.sha256(b"study").digest(),
        round=round_number,
        attempt=attempt,
        previous_transcript=previous_transcript,
        roster=tuple(
            RosterEntry(
                site=member.site,
                spki_sha256=hashlib.sha256(f"spki of {member.site}".encode()).digest(),
                signing_key=member.public_key,
            )
            for member in members
        ),
        threshold=default_threshold(participants) if threshold is None else threshold,
        minimum=minimum,
        model_hash=model_hash,
        plan_hash=hashlib.sha256(b"plan").digest(),
        layout=layout or small_layout(participants),
    )
    return Consortium(members=tuple(members), context=context)


# --- the links -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """How one site's connection behaves. A link that lost something is broken from then on."""

    lose_request: Phase | None = None
    lose_reply: Phase | None = None
    silent: bool = False  # a lost message is noticed only when the deadline passes, not at once
    duplicate: bool = False  # the coordinator gets everything twice


PERFECT = Link()

# --- the round -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class MemoryRound:
    """N site machines and the coordinator's, with the queue of messages between them.

    Args:
        group: who takes part, in what.
        values: one mapping of lane name to values per site; by default values drawn from `seed`.
        links: how each site's connection behaves; perfect by default.
        cohorts: what each site insists on about survivor sets; the rules of a first round by default.
        seed: everything drawn is drawn from it.
        reorder: the queue is shuffled at every step, by `seed`.
    """

    group: Consortium
    values: Mapping[SiteId, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)
    links: Mapping[SiteId, Link] = field(default_factory=dict)
    cohorts: Mapping[SiteId, CohortRule] = field(default_factory=dict)
    seed: str = "a round"
    reorder: bool = False
    tamper_to_site: Callable[[SiteId, ToSite], ToSite | None] = lambda _site, message: message
    tamper_to_coordinator: Callable[[SiteId, ToCoordinator], ToCoordinator | None] = lambda _site, message: message

    site_states: dict[SiteId, site.State] = field(init=False)
    coordinator_state: coordinator.State = field(init=False)
    running_sum: RunningSum = field(init=False)
    masked: dict[SiteId, RingVector] = field(init=False, default_factory=dict)
    encoded: dict[SiteId, RingVector] = field(init=False, default_factory=dict)
    effects: list[coordinator.Effect] = field(init=False, default_factory=list)
    site_effects: dict[SiteId, list[site.Effect]] = field(init=False, default_factory=dict)
    queue: deque[tuple[SiteId, ToSite | ToCoordinator]] = field(init=False, default_factory=deque)
    broken: set[SiteId] = field(init=False, default_factory=set)
    shuffler: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Begin: every site's key bundle is under way."""
        context = self.group.context
        self.shuffler = random.Random(self.seed)
        if not self.values:
            self.values = random_values(self.group, self.seed)
        self.coordinator_state, effects = coordinator.begin(context)
        self.effects.extend(effects)
        self.running_sum = RunningSum(context.layout)
        self.site_states = {}
        for member in self.group.members:
            state, bundle = site.begin(
                context,
                member.site,
                member.signer,
                deterministic_entropy(f"{self.seed} of {member.site}"),
                member.long_term_secret,
                cohort=self.cohorts.get(member.site),
            )
            self.site_states[member.site] = state
            self.site_effects[member.site] = []
            self._reply(member.site, bundle)

    # --- running ---

    def run(self, until: Phase | None = None) -> None:
        """Deliver messages until the attempt is over, or until all that is under way are requests of `until`."""
        while not isinstance(self.coordinator_state, coordinator.Done | coordinator.Aborted):
            if until is not None and self.queue and all(REQUEST_OF.get(type(m)) == until for _, m in self.queue):
                return
            if not self.queue:
                self.tell_coordinator(coordinator.DeadlinePassed())
                continue
            if self.reorder:
                self.shuffler.shuffle(self.queue)
            self.deliver(*self.queue.popleft())

    def request_for(self, name: SiteId) -> ToSite:
        """The message that is under way to a site."""
        return next(
            message
            for to, message in self.queue
            if to == name
            and not isinstance(message, KeyBundle | SealedShares | UploadHeader | Confirmation | UnmaskShares)
        )

    def deliver(self, name: SiteId, message: ToSite | ToCoordinator) -> None:
        """Hand one message to whom it is meant for."""
        if isinstance(message, KeyBundle | SealedShares | UploadHeader | Confirmation | UnmaskShares):
            self.tell_coordinator(message)
        else:
            self.tell_site(name, message)

    def tell_coordinator(self, event: coordinator.Event) -> None:
        """One event for the coordinator's machine, and its effects done."""
        self.coordinator_state, effects = coordinator.step(self.coordinator_state, event)
        self.effects.extend(effects)
        for effect in effects:
            self._perform(effect)

    def tell_site(self, name: SiteId, event: site.Event) -> tuple[site.Effect, ...]:
        """One event for a site's machine, and its effects done. A site that broke off says nothing more."""
        if name in self.broken:
            return ()
        try:
            self.site_states[name], effects = site.step(self.site_states[name], event)
        except OutOfOrder:
            if isinstance(self.site_states[name], site.Aborted):
                return ()
            raise
        self.site_effects[name].extend(effects)
        for effect in effects:
            match effect:
                case site.Send(message=message):
                    self._reply(name, message)
                case site.PersistReleased():
                    pass  # a test looks for it in site_effects, before the Send of the shares
                case site.Abandon():
                    self._break(name)
        if isinstance(self.site_states[name], site.Masking):
            effects += self.tell_site(name, site.UploadFinished(masked_update_hash=self.mask(name)))
        return effects

    def mask(self, name: SiteId) -> bytes:
        """What the site's shell does in phase "mask": encode, mask, hash. Returns the hash."""
        state = self.site_states[name]
        assert isinstance(state, site.Masking)
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
        """The unmasked sum."""
        assert isinstance(self.coordinator_state, coordinator.Done), self.coordinator_state
        return self.running_sum.result

    def plain_aggregate(self) -> RingVector:
        """What the unmasked sum must be: the survivors' encoded updates added up."""
        total = np.zeros_like(self.running_sum.result)
        for name in self.survivors:
            total += self.encoded[name]
        return total

    def sums(self) -> dict[str, list[float]]:
        """The decoded sums by lane."""
        decoded = decode(self.aggregate(), self.group.context.layout, survivors=len(self.survivors))
        return {name: values.tolist() for name, values in decoded.items()}

    def plain_sums(self) -> dict[str, list[float]]:
        """The decoded sums of what the survivors encoded."""
        decoded = decode(self.plain_aggregate(), self.group.context.layout)
        return {name: values.tolist() for name, values in decoded.items()}

    def blamed(self) -> list[str]:
        """Whom the coordinator blamed, in order."""
        return [effect.violation.site for effect in self.effects if isinstance(effect, coordinator.Blame)]

    def dropouts(self) -> dict[SiteId, Phase]:
        """In which phase the coordinator stopped listening to which site."""
        return {effect.site: effect.phase for effect in self.effects if isinstance(effect, coordinator.Dropout)}

    # --- inside ---

    def _perform(self, effect: coordinator.Effect) -> None:
        match effect:
            case coordinator.SendBundles(to=to, bundles=bundles):
                event = site.BundlesListed(context=self.group.context.digest(), bundles=bundles)
                self._request(to, event)
            case coordinator.SendShares(to=name, members=members, deliveries=deliveries):
                digest = self.group.context.digest()
                self._request([name], site.SharesDelivered(context=digest, members=members, deliveries=deliveries))
            case coordinator.AddUpload(site=name, masked_update_hash=digest):
                vector = self.masked[name]
                assert vector_hash(vector) == digest
                self.running_sum.add(vector)
            case coordinator.SendProposal(to=to, proposal=proposal):
                self._request(to, proposal)
            case coordinator.SendUnmaskRequest(to=to, request=request):
                self._request(to, request)
            case coordinator.Unmasked(removal=removal):
                self.running_sum.remove(removal)
            case coordinator.Dropout() | coordinator.Blame() | coordinator.Ignored() | coordinator.Abandon():
                pass

    def _request(self, names: Iterable[SiteId], message: ToSite) -> None:
        for name in names:
            if name in self.broken:
                continue
            if self.links.get(name, PERFECT).lose_request == REQUEST_OF[type(message)]:
                self._break(name)
                continue
            changed = self.tamper_to_site(name, message)
            if changed is not None:
                self.queue.append((name, changed))

    def _reply(self, name: SiteId, message: ToCoordinator) -> None:
        link = self.links.get(name, PERFECT)
        if name in self.broken:
            return
        phase = REPLY_OF[type(message)]
        if phase in (link.lose_reply, link.lose_request if phase is Phase.ADVERTISE else None):
            self._break(name)
            return
        changed = self.tamper_to_coordinator(name, message)
        if changed is not None:
            self.queue.extend([(name, changed)] * (2 if link.duplicate else 1))

    def _break(self, name: SiteId) -> None:
        if name in self.broken:
            return
        self.broken.add(name)
        if not self.links.get(name, PERFECT).silent:
            self.tell_coordinator(coordinator.SiteLost(site=name))


def random_values(group: Consortium, seed: str) -> dict[SiteId, dict[str, NDArray[np.float64]]]:
    """Values within every lane's clip: whole numbers in lanes of counts, reals elsewhere."""
    generator = np.random.default_rng(list(seed.encode()))
    return {
        member.site: {
            lane.name: generator.integers(0, int(lane.clip) + 1, lane.length).astype(np.float64)
            if lane.is_count
            else generator.uniform(-lane.clip, lane.clip, lane.length)
            for lane in group.context.layout.lanes
        }
        for member in group.members
    }


def reattempt(group: Consortium, **changes: Any) -> Consortium:
    """The same members with some fields of the context changed."""
    return replace(group, context=replace(group.context, **changes))
