"""One attempt in memory, as the coordinator's `training_round.py` sees it: real site machines, no shell, no clock.

    play = Play(sites=4)
    play.run()
    assert isinstance(play.state, Summed)

A play is a list of events under way. `run(until=Phase.CONFIRMING)` delivers them in order until the attempt reaches
that phase, so that a test can drop a site, let a deadline pass or send something of its own, and go on. Every event
that the attempt took is in `journal`, in order.
"""

import hashlib
from dataclasses import replace
from typing import Any

from consortium.contract.messages import BundleList, CoordinatorMessage, Refusal, ShareDelivery
from consortium.contract.names import Digest, RoundNumber, SiteId, StudyId
from consortium.contract.plan import Participant, RoundKind, RoundPlan
from consortium.training_round import (
    AddToSum,
    DeadlinePassed,
    Effect,
    Event,
    MessageArrived,
    NoteDropout,
    NoteRefusal,
    NoteViolation,
    Phase,
    Running,
    SiteLeft,
    SiteRefused,
    StartDeadline,
    State,
    Tell,
    UploadStored,
    begin,
    step,
)
from privacy.encoding import Lane, Layout
from privacy.errors import OutOfOrder
from privacy.secagg import site as secagg
from privacy.secagg.messages import SurvivorProposal, UnmaskRequest, UploadHeader
from privacy.secagg.suites import SuiteName
from tests.fakes.memory_round import Member, consortium, deterministic_entropy


def layout_of(*, measured: bool) -> Layout:
    """Three parameters and a weight; with metrics, also a count of test patients."""
    lanes = [
        Lane(name="update", length=3, clip=1.0, scale=1000.0),
        Lane(name="weight", length=1, clip=1.0, scale=1.0),
    ]
    if measured:
        lanes.append(Lane(name="test_patients", length=1, clip=1000.0, scale=1.0))
    return Layout(modulus_bits=32, lanes=tuple(lanes))


def plan_of(members: tuple[Member, ...], *, measured: bool = False, **changes: Any) -> RoundPlan:
    """A plan for one attempt at a training round of these members."""
    plan = RoundPlan(
        consortium="test-consortium",
        suite=members[0].suite,
        study=StudyId("heart-disease"),
        study_digest=Digest("5d" * 32),
        kind=RoundKind.TRAIN,
        round=RoundNumber(1),
        attempt=1,
        participants=tuple(
            Participant(
                site=member.site,
                spki_sha256=Digest(hashlib.sha256(member.site.encode()).hexdigest()),
                signing_key=member.signing_key.public_key().public_bytes_raw().hex(),
                ecdsa_key=member.ecdsa_key.public.hex(),
            )
            for member in members
        ),
        threshold=3,
        minimum=3,
        model_digest=Digest("a1" * 32),
        previous_transcript=Digest("0" * 64),
        layout=layout_of(measured=measured),
        round_deadline_s=600.0,
        upload_deadline_s=120.0,
    )
    return replace(plan, **changes)


class Play:
    """An attempt, its sites and what is under way between them."""

    def __init__(
        self,
        *,
        sites: int = 4,
        measured: bool = False,
        measured_before: frozenset[SiteId] | None = None,
        seed: str = "a play",
        suite: SuiteName = SuiteName.HYBRID_PQ,
        **changes: Any,
    ) -> None:
        self.members = consortium(sites, suite=suite).members
        self.plan = plan_of(self.members, measured=measured, **changes)
        self.state: State
        self.state, first = begin(self.plan, measured_before)
        assert isinstance(self.state, Running)
        self.context = self.state.context
        self.effects: list[Effect] = list(first)
        self.journal: list[Event] = []
        self.pending: list[Event] = []
        self.silent: set[SiteId] = set()
        self.machines: dict[SiteId, secagg.State] = {}
        for member in self.members:
            machine, bundle = secagg.begin(
                self.state.machine.attempt.context,
                member.site,
                member.signer,
                deterministic_entropy(f"{seed} of {member.site}"),
                member.long_term_secret,
            )
            self.machines[member.site] = machine
            self.pending.append(MessageArrived(site=member.site, message=bundle))

    # --- going on ---

    @property
    def names(self) -> tuple[SiteId, ...]:
        return tuple(member.site for member in self.members)

    @property
    def phase(self) -> Phase | None:
        return self.state.phase if isinstance(self.state, Running) else None

    def run(self, until: Phase | None = None) -> State:
        """Deliver what is under way, in order, until the phase is reached or nothing is left."""
        while self.pending and isinstance(self.state, Running) and self.phase is not until:
            self.feed(self.pending.pop(0))
        return self.state

    def feed(self, event: Event) -> tuple[Effect, ...]:
        """One event, and the sites' answers to what the coordinator then says."""
        before = self.state
        self.state, effects = step(before, event)
        if self.state is not before:
            self.journal.append(event)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Tell):
                self._hear(effect.site, effect.message)
        return effects

    def lose(self, name: SiteId) -> tuple[Effect, ...]:
        """The site's connection breaks: nothing of it arrives any more."""
        self.mute(name)
        return self.feed(SiteLeft(site=name))

    def mute(self, name: SiteId) -> None:
        """The site says nothing more, and nobody notices."""
        self.silent.add(name)
        self.pending = [event for event in self.pending if getattr(event, "site", None) != name]

    def deadline(self) -> tuple[Effect, ...]:
        """The time of the present phase is over."""
        assert self.phase is not None
        return self.feed(DeadlinePassed(phase=self.phase))

    def refuse(self, name: SiteId, rule: str = "max_epsilon_total") -> tuple[Effect, ...]:
        """The site declines."""
        self.mute(name)
        refusal = Refusal(
            study_digest=self.plan.study_digest,
            round=self.plan.round,
            attempt=self.plan.attempt,
            rule=rule,
            explanation="the budget does not allow it",
        )
        return self.feed(SiteRefused(site=name, refusal=refusal))

    def answer_of(self, name: SiteId) -> Event:
        """What the site has under way."""
        return next(event for event in self.pending if getattr(event, "site", None) == name)

    # --- what came of it ---

    def of(self, kind: type) -> list[Any]:
        """All effects of one kind."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def dropouts(self) -> dict[SiteId, tuple[Phase, str]]:
        return {effect.site: (effect.phase, effect.reason) for effect in self.of(NoteDropout)}

    def refusals(self) -> list[tuple[SiteId, str]]:
        return [(effect.site, effect.rule) for effect in self.of(NoteRefusal)]

    def blamed(self) -> list[str]:
        return [effect.violation.site for effect in self.of(NoteViolation)]

    def added(self) -> list[SiteId]:
        return [effect.site for effect in self.of(AddToSum)]

    def deadlines(self) -> list[tuple[Phase, float]]:
        return [(effect.phase, effect.seconds) for effect in self.of(StartDeadline)]

    def told(self, kind: type) -> list[SiteId]:
        """Who was sent a message of one kind."""
        return [effect.site for effect in self.of(Tell) if isinstance(effect.message, kind)]

    # --- inside ---

    def _hear(self, name: SiteId, message: CoordinatorMessage) -> None:
        if name in self.silent:
            return
        match message:
            case BundleList():
                event: secagg.Event = secagg.BundlesListed(context=message.context, bundles=message.bundles)
            case ShareDelivery():
                event = secagg.SharesDelivered(
                    context=message.context, members=message.members, deliveries=message.deliveries
                )
            case SurvivorProposal() | UnmaskRequest():
                event = message
            case _:
                return
        self._tell(name, event)

    def _tell(self, name: SiteId, event: secagg.Event) -> None:
        try:
            self.machines[name], effects = secagg.step(self.machines[name], event)
        except OutOfOrder:
            return
        for effect in effects:
            if isinstance(effect, secagg.Send):
                answer = effect.message
                self.pending.append(
                    UploadStored(site=name, header=answer)
                    if isinstance(answer, UploadHeader)
                    else MessageArrived(site=name, message=answer)
                )
        if isinstance(self.machines[name], secagg.Masking):
            self._tell(name, secagg.UploadFinished(masked_update_hash=hashlib.sha256(name.encode()).digest()))
