"""One study at one hospital: prepared once, then round after round until it ends.

The shell around `participation.py`. Everything that happens, a message or the end of a training, is an event in one
queue and is handled to its end before the next; decisions that protect a patient are made in pure modules (`policy.py`,
`plan_check.py`, `participation.py`). What must not be forgotten is on disk before it has any effect.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

import structlog

from audit import entries
from audit.fields import one_line
from consortium.contract.errors import ContractError
from consortium.contract.event_file import EventFolder
from consortium.contract.global_model import GlobalModel, parameter_count
from consortium.contract.layout import LaneName
from consortium.contract.messages import (
    BundleList,
    CoordinatorMessage,
    Invitation,
    PrepareStudy,
    Refusal,
    ResultVerified,
    RoundAborted,
    RoundResult,
    SendInitialModel,
    ShareDelivery,
    SiteMessage,
    StudyEnded,
    StudyOutcome,
    StudyPrepared,
    VectorHeader,
    VectorKind,
)
from consortium.contract.mlflow_run import MlflowRun, Tracking
from consortium.contract.names import Digest, SiteId
from consortium.contract.plan import RoundPlan, context_of
from consortium.contract.server_optimizer import has_ended, next_global_model, state_layout, state_layouts
from consortium.contract.study import StudyFile
from consortium.wire import codec
from consortium.wire.errors import ConnectionLost, WireError
from consortium.wire.limits import INLINE_BYTES_MAX
from privacy.encoding import RingVector, decode
from privacy.errors import BudgetExceeded, OutOfOrder, PeerViolation, PrivacyError
from privacy.lazy_numpy import np
from privacy.secagg import site as secagg
from privacy.secagg.cohort import CohortRule
from privacy.secagg.masks import encode_and_mask
from privacy.secagg.messages import (
    BeaconCommitment,
    CommitmentList,
    GroupedUnmaskRequest,
    KeyBundle,
    RevealList,
    SurvivorProposal,
    UnmaskRequest,
    UploadHeader,
)
from site_agent.certification import clipping_path, sign_certificate
from site_agent.clipping_record import ClippingRecord
from site_agent.cohort import TEST, VALIDATION
from site_agent.error_place import for_the_log
from site_agent.errors import SiteError
from site_agent.evaluation import Evaluation
from site_agent.evidence import keep_evidence
from site_agent.home import AgentHome
from site_agent.ledger import Ledger
from site_agent.log_watch import PATIENCE_S
from site_agent.model_folder import ModelFolder, mapped
from site_agent.participation import (
    AttemptOver,
    Effect,
    MaskAndUpload,
    Participation,
    UpdateMasked,
    UpdateReady,
    begin,
    repeats,
    step,
)
from site_agent.participation import Event as AttemptEvent
from site_agent.plan_check import (
    Expectation,
    PlanOutdated,
    PlanRefused,
    check_model_fits,
    check_plan,
    check_signature,
    read_plan,
)
from site_agent.policy import BUDGET_REFUSED, Refuse, SiteFacts, decide, facts_of
from site_agent.preparation import (
    NO_DATASET,
    Declined,
    Prepared,
    announce,
    approved_study,
    prepare,
)
from site_agent.progress import FOLDER, Progress
from site_agent.refusals import is_about_others, refusal_of
from site_agent.results import Results, curves_of
from site_agent.round_values import Contribution, RoundValues
from site_agent.signed_events import SignedEvents
from site_agent.site_file import Policy
from site_agent.spend_entries import sign_figures, sign_spends
from site_agent.steward_approval import NOT_APPROVED
from site_agent.store import ChainLink, Decision, Release, Store
from site_agent.training_room import Order, RoomLost, Rooms, TrainingRoom

log = structlog.get_logger(__name__)

METRICS_DIFFERENCE_MIN = 2
"""Exact metrics of two survivor sets that differ by one hospital would be that hospital's."""

INBOX_MAX = 64
"""Messages of a study that wait here; while there are so many, nothing more is read from the coordinator."""

NO_MODEL = Digest("0" * 64)

LOSSES_MAX = 3
"""Training processes of a study that may be lost one after the other: what each had reserved stays counted."""
TRAINING_ENDS = Refuse("training", "training at this hospital ended before it was done, several times in a row")


class Line(Protocol):
    """The connection to the coordinator, as a study uses it."""

    async def send(self, message: SiteMessage, study_digest: Digest) -> None:
        """Send a session message."""

    async def upload(self, header: VectorHeader, data: bytes | memoryview, *, again: bool = False) -> None:
        """Upload a vector, or what the coordinator lacks of one that was broken off; raises ConnectionLost."""

    async def reconnected(self) -> bool:
        """Wait for another connection than that of the last upload; False if there is none in time."""

    async def download(
        self, kind: VectorKind, digest: Digest, limit_bytes: int, into: Callable[[bytes], Awaitable[object]]
    ) -> None:
        """Download a vector of at most so many bytes; each chunk is handed to `into`, which is waited for."""

    async def submit_events(self) -> None:
        """Hand over the site's signed entries that are not in the log yet."""

    def submit_events_soon(self) -> None:
        """The same, in the background, with whatever else is signed meanwhile; they are on disk already."""

    async def read_log(self, holds: Callable[[], bool]) -> None:
        """Read the consortium's log on until something holds, or that takes too long."""

    def endorsed_before(self) -> Mapping[str, str]:
        """Model endorsements from before their hospital changed its signing keys: SHA-256 -> the key of then."""

    def unwitnessed_s(self, roster: Iterable[SiteId], needed: int) -> float:
        """For how long this site has seen more of the log than so many of these hospitals have cosigned."""

    async def look_again(self) -> None:
        """Have the log asked for now, so that what was cosigned a moment ago is known here; not for long."""


class ResultRefused(SiteError):
    """The coordinator's result is not what this site computed from the same sum."""

    def advice(self) -> str:
        """What to do next."""
        return "This site takes no further part in the study. Keep the log and compare it with the other hospitals'."


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """The attempt under way: the one thing that changes while a round runs. There is never more than one in a study."""

    participation: Participation
    context: bytes  # 32 bytes
    policy: Policy  # the hospital's, as it was when it joined
    computing: asyncio.Task[None] | None = None
    contribution: Contribution | None = field(default=None, repr=False)  # until it is masked
    evaluation: Evaluation | None = None  # of the model it starts from; stays here
    masked: RingVector | None = field(default=None, repr=False)  # until it is uploaded
    uploading: bool = False

    @property
    def plan(self) -> RoundPlan:
        """The signed plan."""
        return self.participation.plan

    @property
    def outlives_the_session(self) -> bool:
        """Whether it goes on over the next connection."""
        return self.uploading or self.participation.outlives_the_session


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Computed:
    """Training and evaluation of an attempt are done."""

    attempt: Attempt
    contribution: Contribution


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComputationFailed:
    """Training or evaluation of an attempt was not possible."""

    attempt: Attempt
    error: Exception


WorkEvent: TypeAlias = CoordinatorMessage | Computed | ComputationFailed


class StudyWork:
    """One study at this site."""

    def __init__(
        self, home: AgentHome, store: Store, ledger: Ledger, line: Line, digest: Digest, *, rooms: Rooms
    ) -> None:
        self._home = home
        self._rooms = rooms
        self._room: TrainingRoom | None = None  # from when preparing begins
        self._anew = False  # what the study was prepared with is gone: the next invitation prepares it again
        self._losses = 0  # training processes that ended before they were done, one after the other
        self._store = store
        self._ledger = ledger
        self._line = line
        self._digest = digest
        self._events = SignedEvents(home, store)
        self._models = ModelFolder(home.folder / "models")
        self._inbox: asyncio.Queue[WorkEvent] = asyncio.Queue(INBOX_MAX)
        self._invitations = 0  # in the inbox or being handled
        self._prepared: Prepared | None = None
        self._values: RoundValues | None = None
        self._progress: Progress | None = None  # from when the study is prepared
        self._curves: EventFolder | None = None  # from the first round that is measured, if they are wanted
        self._tracked: MlflowRun | None = None  # the same
        self._attempt: Attempt | None = None
        self._joined = (0, 0)  # the last round and attempt
        self._exhausted = False  # the log has been told that the budget does not allow the study
        self._handling: asyncio.Task[None] | None = None  # of one event
        self._stopped = False  # this site goes on with the study no more, whatever could be written down about it
        self._ended = False
        self.rests = asyncio.Event()  # no attempt is under way, and none is being concluded, down to this site's answer
        self.rests.set()
        self._log = log.bind(study=digest[:12])

    async def deliver(self, event: WorkEvent) -> None:
        """Queue something that happened; waits while too much is waiting already."""
        if isinstance(event, Invitation):
            self._invitations += 1
        await self._inbox.put(event)

    def concerns(self, context: bytes) -> bool:
        """Whether a message of this attempt may be for this study: of the one under way, or one about to be joined."""
        return self._invitations > 0 or (self._attempt is not None and self._attempt.context == context)

    async def run(self) -> None:
        """Handle events until the study ends. One that fails costs this site its place in the attempt, and no more."""
        try:
            while not self._ended:
                await self._handle_next()
        finally:
            self._leave()
            self.rests.set()
            if self._values is not None:
                await asyncio.to_thread(self._values.close)
            elif self._room is not None:  # the study is being prepared
                await asyncio.to_thread(self._room.stop)

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to stop: an attempt, or a process that holds this hospital's data."""
        return self._attempt is not None or self._room is not None

    def objection(self) -> Refuse | None:
        """Why the study must not go on here, as far as its approval goes; None if nothing stands against it."""
        try:
            self._approved()
        except Declined as error:
            return error.refusal
        return None

    async def give_up(self, refusal: Refuse) -> None:
        """The approval does not stand any more: stop at once, in the middle of anything, and say so.

        | it was | what happens |
        |---|---|
        | preparing or training | the process that computes is ended; what was reserved stays counted |
        | uploading | the upload is broken off; without all of it the coordinator has nothing |
        | waiting, its upload done | it confirms nothing and releases no share any more. What was uploaded is in the sum
          if the others open it: their shares, not this hospital's, take its masks off |
        """
        attempt = self._attempt
        if attempt is not None and self._handling is not None:
            self._handling.cancel()
            await asyncio.wait({self._handling})
        await self.stop_computing()
        self._log.warning("study.given_up", rule=refusal.rule, reason=refusal.explanation)
        if attempt is not None:
            with suppress(WireError):  # who is not connected has said nothing, and is a dropout
                await self._refuse(attempt.plan.round, attempt.plan.attempt, Declined(refusal))

    async def stop_computing(self) -> None:
        """End at once whatever is computed for this study, and with it what it was prepared with.

        If the study goes on after all, it is prepared anew at the next invitation.
        """
        self._leave()
        self.rests.set()
        room, self._room = self._room, None
        self._values, self._prepared, self._anew = None, None, True
        if room is not None:
            await asyncio.to_thread(room.stop)

    async def _handle_next(self) -> None:
        event = await self._inbox.get()
        handling = self._handling = asyncio.create_task(self._handle(event))
        try:
            await asyncio.wait({handling})
            if not handling.cancelled():  # else the approval was taken back meanwhile, and `give_up` does the rest
                handling.result()
        except asyncio.CancelledError:
            handling.cancel()
            await asyncio.gather(handling, return_exceptions=True)
            raise
        except WireError as error:
            self._leave()
            self._log.warning("message.not_delivered", kind=type(event).__name__, reason=str(error))
        except Exception as error:  # noqa: BLE001 - of any library; its words may quote patients' data and are not logged
            self._leave()
            self._log.error("message.failed", kind=type(event).__name__, error=for_the_log(error))
        finally:
            self._handling = None
            self._invitations = max(0, self._invitations - isinstance(event, Invitation))
            if self._attempt is None:
                self.rests.set()

    def session_ended(self) -> None:
        """The connection is gone: the attempt under way is lost, which is safe; a trained update is kept.

        An attempt whose survivor set is signed is not lost: the coordinator may ask for the shares over the next
        connection, or send the result. Nor is one whose masked update is on its way: the rest follows.
        """
        if self._attempt is not None and not self._attempt.outlives_the_session:
            self._leave()
            self.rests.set()
        while not self._inbox.empty():
            self._inbox.get_nowait()
        self._invitations = 0

    async def _handle(self, event: WorkEvent) -> None:
        match event:
            case PrepareStudy():
                await self._prepare()
            case SendInitialModel(model_digest=model_digest):
                await self._send_first_model(model_digest)
            case Invitation():
                await self._join(event)
            case Computed(attempt=attempt, contribution=contribution):
                if attempt is self._attempt:
                    attempt.contribution = contribution
                    await self._advance(attempt, UpdateReady())
            case ComputationFailed(attempt=attempt, error=error):
                await self._computation_failed(attempt, error)
            case (
                CommitmentList()
                | RevealList()
                | BundleList()
                | ShareDelivery()
                | SurvivorProposal()
                | UnmaskRequest()
                | GroupedUnmaskRequest()
                | RoundAborted()
            ):
                if self._attempt is not None and event.context == self._attempt.context:
                    await self._advance(self._attempt, event)
                elif isinstance(event, UnmaskRequest | GroupedUnmaskRequest):
                    await self._send_shares_again(event)
            case RoundResult():
                await self._hear_result(event)
            case StudyEnded():
                await self._end(event)
            case _:
                self._log.warning("message.unexpected", kind=type(event).__name__)

    # --- before the first round ------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Answer with the first model built here, or with the rule that stands against the study."""
        try:
            prepared = await asyncio.to_thread(self._make_ready)
        except Exception as error:  # noqa: BLE001 - whatever it is, the coordinator is told that there is no model
            await self._refuse(0, 0, error)
            return
        await self._line.submit_events()
        model = prepared.first_model
        self._log.info("study.prepared", parameters=model.vector.size, engine=prepared.engine)
        await self._send(
            StudyPrepared(study_digest=self._digest, model_digest=model.digest(), parameter_count=model.vector.size)
        )

    def _make_ready(self) -> Prepared:
        self._approved()
        if self._prepared is not None:
            return self._prepared
        if self._losses >= LOSSES_MAX:
            raise Declined(TRAINING_ENDS)
        try:
            return self._made_ready()
        except RoomLost as error:
            if self._room is not None:  # nobody stopped it
                self._lose_room(error)
            raise
        except BaseException:
            room, self._room = self._room, None
            if room is not None:  # nothing is computed in it
                room.stop()
            raise

    def _made_ready(self) -> Prepared:
        prepared = prepare(self._home, self._store, self._ledger, self._digest, self._new_room)
        prepared = self._with_model_on_disk(prepared)
        record = ClippingRecord(clipping_path(self._home.folder, prepared.study.id))
        values = RoundValues(
            prepared,
            self._ledger,
            self._events,
            keep=record.add,
            released_rounds=self._released_rounds,
            progress=self._progress_of(prepared),
        )
        announce(prepared, self._events)
        for sign in (sign_spends, sign_figures):  # what a process that died left without an entry
            sign(self._ledger, self._events, prepared.study, prepared.digest, prepared.dataset)
        self._prepared, self._values, self._anew = prepared, values, False
        return prepared

    def _new_room(self, order: Order) -> TrainingRoom:
        room = self._room = self._rooms(order)
        return room

    def _lose_room(self, error: RoomLost) -> None:
        """Forget what the study was prepared with; how often that happened in a row is counted."""
        self._room = self._values = self._prepared = None
        self._anew = True
        self._losses += 1
        self._log.error("training.lost", reason=str(error), advice=error.advice())

    def _read_again(self) -> None:
        """Patients withdrew since the cohort was read: nothing of what was made with them is used any more."""
        room, self._room = self._room, None
        self._values = self._prepared = None
        self._anew = True
        if room is not None:
            room.stop()
        self._log.info("cohort.out_of_date")

    def _released_rounds(self) -> frozenset[int]:
        """Rounds for whose sum this site released shares, in any attempt."""
        return frozenset(read_plan(one.plan).round for one in self._store.releases(self._digest))

    def _curves_of(self, prepared: Prepared) -> EventFolder:
        if self._curves is None:
            self._curves = EventFolder(self._home.folder / "tensorboard" / prepared.study.id)
        return self._curves

    def _tracked_by(self, tracking: Tracking, prepared: Prepared) -> MlflowRun:
        """A run of the hospital's own MLflow server; what it hears is this hospital's and goes nowhere else."""
        if self._tracked is None:
            self._tracked = MlflowRun(
                tracking,
                name=f"{prepared.study.id} at {self._home.site}",
                tags={"consortium.study_digest": self._digest, "consortium.side": "site"},
                failed=lambda words: self._log.warning("mlflow.not_written", reason=words),
            )
        return self._tracked

    def _progress_of(self, prepared: Prepared) -> Progress:
        if self._progress is None:
            study, device = prepared.study, prepared.seen.device
            folder = self._home.folder / FOLDER
            self._progress = Progress(folder, study.study_id, study.training.rounds, device=device)
        return self._progress

    def _with_model_on_disk(self, prepared: Prepared) -> Prepared:
        """The first model is wanted as a file, if at all: as numbers it would take memory for as long as the study."""
        return replace(prepared, first_model=self._models.exchange(prepared.first_model))

    def _approved(self) -> StudyFile:
        """The study as the steward approved it, asked again before anything leaves; raises Declined."""
        if self._stopped:
            raise Declined(NOT_APPROVED)
        return approved_study(self._home, self._store, self._digest)

    async def _send_first_model(self, model_digest: Digest) -> None:
        """The first global model is a function of the study: it holds no data, and every site has its own copy."""
        prepared = self._prepared
        if prepared is None or prepared.first_model.digest() != model_digest:
            self._log.error("study.first_model_unknown", wanted=model_digest[:12])
            return
        file = await asyncio.to_thread(mapped, self._models.path(model_digest))
        header = VectorHeader(
            kind=VectorKind.INITIAL_MODEL,
            sha256=await asyncio.to_thread(lambda: hashlib.sha256(file).digest()),
            size_bytes=len(file),
            study_digest=self._digest,
        )
        await self._line.upload(header, file)

    # --- joining an attempt ----------------------------------------------------------------------------------------

    async def _join(self, invitation: Invitation) -> None:
        """Check the plan and everybody in it, advertise fresh keys, and train while keys are exchanged."""
        plan = read_plan(invitation.plan)
        if self._attempt is not None and self._attempt.plan == plan:
            self._log.warning("round.invited_twice", round=plan.round, attempt=plan.attempt)
            return
        # Hospitals that were away for long have cosigned, for this very invitation, since the log was asked for last.
        if self._prepared is not None and self._is_unwitnessed(self._prepared.study):
            await self._line.look_again()
        try:
            if not await asyncio.to_thread(self._knows_keys, plan):
                await self._line.read_log(lambda: self._knows_keys(plan))
            attempt, first = await asyncio.to_thread(self._check_and_begin, plan, invitation)
        except PlanOutdated as error:  # a refusal would stand in the log as this hospital's word
            self._log.warning("round.outdated", round=plan.round, attempt=plan.attempt, reason=str(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, this site does not take part
            await self._refuse(plan.round, plan.attempt, error)
            return
        self._leave()
        self._attempt, self._joined = attempt, (plan.round, plan.attempt)
        self.rests.clear()
        self._log.info("round.joined", round=plan.round, attempt=plan.attempt, kind=plan.kind.value)
        await self._send(first)
        attempt.computing = asyncio.create_task(self._compute(attempt))

    def _knows_keys(self, plan: RoundPlan) -> bool:
        """Whether every other hospital of a plan has the signing keys that it is known by; else the log may say why."""
        known = {site: tuple(keys) for site, _, *keys in self._store.peers()}
        others = {p.site: (p.signing_key, p.ecdsa_key) for p in plan.participants if p.site != self._home.site}
        return all(known.get(site, keys) == keys for site, keys in others.items())

    def _require_witnesses(self, study: StudyFile) -> None:
        """No round on a log that may be shown to this hospital alone; raises Declined."""
        if self._is_unwitnessed(study):
            raise Declined(Refuse("witnesses", "too few hospitals have cosigned the log that this one sees"))

    def _is_unwitnessed(self, study: StudyFile) -> bool:
        return self._line.unwitnessed_s(study.sites.roster, study.cosignatures_needed) > PATIENCE_S

    def _check_and_begin(self, plan: RoundPlan, invitation: Invitation) -> tuple[Attempt, KeyBundle | BeaconCommitment]:
        check_signature(invitation, bytes.fromhex(self._home.identity.coordinator_signing_key))
        self._approved()
        if self._prepared is not None and (how := self._prepared.room.lost) is not None:
            self._lose_room(how)
        if self._prepared is not None and len(self._store.withdrawals()) != self._prepared.withdrawals:
            self._read_again()
        if self._anew:
            self._make_ready()
        if self._prepared is None:
            raise Declined(Refuse("preparation", "this site has not prepared the study"))
        self._require_witnesses(self._prepared.study)
        policy = self._check(plan, invitation, self._prepared)
        machine, first = begin(
            context_of(plan),
            self._home.site,
            self._home.signer(plan.suite),
            os.urandom,
            self._home.long_term_secret,
            cohort=self._cohort_rule(plan),
        )
        participation = Participation(plan=plan, machine=machine)
        return Attempt(participation=participation, context=first.context, policy=policy), first

    def _check(self, plan: RoundPlan, invitation: Invitation, prepared: Prepared) -> Policy:
        """The hospital's rules as they are now, none of which stands against this round."""
        config, now = self._home.config, datetime.now(UTC)
        known, own = {site: tuple(keys) for site, *keys in self._store.peers()}, self._home.signing_keys
        expected = Expectation(
            consortium=self._home.identity.consortium,
            study=prepared.study,
            site=self._home.site,
            signing_key=own.signing,
            ecdsa_key=own.ecdsa,
            former_keys=frozenset(self._store.former_own_keys(self._home.identity.signing_key)),
            parameters=prepared.first_model.parameters,
            first_model=prepared.first_model.digest(),
            chain=self._store.chain(self._digest),
            joined=self._joined,
            released=self._store.release(context_of(plan).digest()) is not None,
            peers={SiteId(site): signing_key for site, (_, signing_key, _) in known.items()},
            minimum_sites=config.policy.minimum_sites,
            minimum_threshold=config.policy.minimum_threshold,
            endorsed_before=self._line.endorsed_before(),
        )
        check_plan(plan, invitation, expected, authority=self._home.ca_certificate, now=now)
        if config.studies.get(prepared.study.id) != prepared.dataset:
            raise Declined(NO_DATASET)
        answer = decide(
            config.policy,
            facts_of(prepared.study, upload_bytes=plan.layout.size_bytes, participants=len(plan.participants)),
            SiteFacts(approved=True, patients=prepared.seen.patients, today=now.date(), round_at=now),
        )
        if isinstance(answer, Refuse):
            raise Declined(answer)
        for peer in plan.participants:
            keys = (peer.spki_sha256, peer.signing_key, peer.ecdsa_key)
            here = known.get(peer.site, keys)
            # Its own were held against its keys by `check_plan`; what it remembers of itself follows with the log.
            changed_here = peer.site == self._home.site and here[1:] != keys[1:]
            if (peer.site not in known or here != keys) and not changed_here:
                self._store.pin_peer(peer.site, *keys)
        return config.policy

    def _is_exact(self, plan: RoundPlan) -> bool:
        """Whether what is summed carries no noise: test figures, or updates without differential privacy."""
        assert self._prepared is not None  # plans are looked at when the study is prepared
        return not self._prepared.study.is_private or any(
            lane.name == LaneName.TEST_PATIENTS for lane in plan.layout.lanes
        )

    def _cohort_rule(self, plan: RoundPlan) -> CohortRule:
        """Section 2 for this attempt.

        A private update may be summed over any survivors. Exact metrics may not, nor may updates without noise: such an
        attempt is held against the last one for which this site released shares, whether or not it heard of a result,
        and one global model is measured over one survivor set only.
        """
        if not self._is_exact(plan):
            return CohortRule(least_difference=1, update_is_private=True)
        measured = self._store.measured_releases(self._digest, plan.model_digest)
        return CohortRule(
            previous_survivors=frozenset(measured[-1].survivors) if measured else None,
            least_difference=METRICS_DIFFERENCE_MIN,
            released_on_model=tuple(frozenset(r.survivors) for r in measured if r.model_digest == plan.model_digest),
            update_is_private=False,
        )

    async def _compute(self, attempt: Attempt) -> None:
        values = self._values
        assert values is not None  # a plan is joined only when the study is prepared
        try:
            model = await self._model(attempt.plan.model_digest)
            assert self._prepared is not None  # with `values`
            # Also where this site missed the round that ended the study, and only sees the model.
            check_model_fits(attempt.plan, self._prepared.study, model)
            contribution = await values.contribution(attempt.plan, model, attempt.policy)
            if contribution.clipped:  # of an update that is private already; said here and to nobody else
                self._log.info("update.clipped", round=attempt.plan.round, fraction=round(contribution.clipped, 6))
        except Exception as error:  # noqa: BLE001 - handled in turn; training may fail in any library
            await self.deliver(ComputationFailed(attempt=attempt, error=error))
        else:
            self._losses = 0
            await self.deliver(Computed(attempt=attempt, contribution=contribution))

    async def _computation_failed(self, attempt: Attempt, error: Exception) -> None:
        if isinstance(error, RoomLost) and self._prepared is not None and self._prepared.room.lost is not None:
            self._lose_room(error)
        if attempt is not self._attempt:
            return
        self._leave()
        if isinstance(error, WireError):
            raise error  # not a reason of this hospital's: it goes to whoever reconnects
        await self._refuse(attempt.plan.round, attempt.plan.attempt, error)

    # --- the attempt -----------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """No attempt is under way any more. Training that has begun goes on, for the next attempt to use (ADR 4)."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None and attempt.computing is not None:
            attempt.computing.cancel()

    async def _advance(self, attempt: Attempt, event: AttemptEvent) -> None:
        """Step, then perform the effects in their order."""
        try:
            attempt.participation, effects = step(attempt.participation, event)
        except OutOfOrder as error:
            self._log.warning("round.out_of_order", reason=str(error))
            return
        for effect in effects:
            if isinstance(effect, secagg.Abandon) and isinstance(effect.reason, PeerViolation):
                await self._accuse(attempt, effect.reason, event)
            if not await self._perform(effect, attempt):
                return

    async def _accuse(self, attempt: Attempt, violation: PeerViolation, event: AttemptEvent) -> None:
        """Sign for the log who broke which rule, and keep the message that shows it."""
        self._log.error("round.violation", site=violation.site, rule=violation.rule, evidence=violation.evidence)
        message = event if isinstance(event, CoordinatorMessage) else None
        await self._sign(
            entries.SecaggAccused,
            study=attempt.plan.study,
            round=attempt.plan.round,
            attempt=attempt.plan.attempt,
            accused=violation.site,
            phase=violation.phase,
            rule=one_line(f"{violation.rule}: {violation.evidence}"),
            evidence_sha256=None if message is None else await asyncio.to_thread(keep_evidence, self._home, message),
        )
        await self._line.submit_events()

    async def _perform(self, effect: Effect, attempt: Attempt) -> bool:
        """One effect; False when the ones after it must not happen."""
        match effect:
            case secagg.Send(message=UploadHeader() as header):
                await self._upload(attempt, header)
            case secagg.Send(message=message):
                assert not isinstance(message, UploadHeader)  # taken above
                if not await self._still_approved(attempt):
                    return False
                await self._send(message)
            case secagg.PersistReleased():
                return await self._may_release(effect, attempt)
            case secagg.Abandon(reason=reason):
                self._log.warning("round.left", round=attempt.plan.round, reason=str(reason))
                self._leave()
                if not isinstance(reason, AttemptOver):  # an end that the coordinator announced needs no answer
                    await self._refuse(attempt.plan.round, attempt.plan.attempt, reason)
                return False
            case MaskAndUpload():
                await self._mask(effect, attempt)
        return True

    async def _may_release(self, effect: secagg.PersistReleased, attempt: Attempt) -> bool:
        """4.4: on disk before the first share leaves; if it is there already, nothing leaves again."""
        if not await self._still_approved(attempt):
            return False
        release = Release(
            context=effect.context,
            model_digest=attempt.plan.model_digest,
            transcript=effect.transcript,
            survivors=effect.survivors,
            measured=self._is_exact(attempt.plan),
            plan=attempt.plan.to_bytes(),
        )
        shares = codec.encode_site_message(effect.shares)
        is_first = await asyncio.to_thread(self._store.record_release, self._digest, release, shares)
        if self._values is not None:
            self._values.released()
        if not is_first:
            self._log.error("round.released_before", round=attempt.plan.round)
            self._leave()
        return is_first

    async def _send_shares_again(self, request: UnmaskRequest | GroupedUnmaskRequest) -> None:
        """4.4, after this agent restarted: to a coordinator that lost them, the bytes that were released, no others."""
        release = await asyncio.to_thread(self._open_release, request.context)
        sent = await asyncio.to_thread(self._store.shares_sent, request.context)
        if (
            release is None
            or sent is None
            or not repeats(request, context=release.context, transcript=release.transcript)
        ):
            self._log.warning("message.unexpected", kind=type(request).__name__)
            return
        await asyncio.to_thread(self._approved)
        await self._send(codec.decode_site_message(sent))

    async def _still_approved(self, attempt: Attempt) -> bool:
        """A steward may take an approval back at any time; from then on nothing more leaves."""
        try:
            self._approved()
        except Declined as error:
            self._leave()
            await self._refuse(attempt.plan.round, attempt.plan.attempt, error)
            return False
        return True

    async def _mask(self, effect: MaskAndUpload, attempt: Attempt) -> None:
        contribution, attempt.contribution = attempt.contribution, None
        assert contribution is not None  # UpdateReady came with it
        if not await self._still_approved(attempt):
            return
        lanes, attempt.evaluation = contribution.lanes, contribution.evaluation
        del contribution
        try:
            attempt.masked, sha256 = await asyncio.to_thread(
                encode_and_mask, lanes, attempt.plan.layout, effect.dither, effect.masks
            )
        except PrivacyError as error:
            self._leave()
            await self._refuse(attempt.plan.round, attempt.plan.attempt, error)
            return
        del lanes  # what follows goes on until the upload is over
        await self._advance(attempt, UpdateMasked(masked_update_hash=sha256))

    async def _upload(self, attempt: Attempt, upload: UploadHeader) -> None:
        plan, masked = attempt.plan, attempt.masked
        attempt.masked = None
        assert masked is not None  # the header describes it
        if self._values is not None:
            self._values.uploading()
        header = VectorHeader(
            kind=VectorKind.MASKED_UPDATE,
            sha256=upload.masked_update_hash,
            size_bytes=masked.nbytes,
            study_digest=self._digest,
            upload=upload,
        )
        # Nothing waits for it: it is durable with the word of the release, which is the next thing that must be.
        await self._sign(
            entries.UpdateSubmitted,
            durably=False,
            study=plan.study,
            round=plan.round,
            attempt=plan.attempt,
            masked_update_sha256=upload.masked_update_hash.hex(),
            size_bytes=masked.nbytes,
        )
        self._line.submit_events_soon()
        attempt.uploading = True
        try:
            if not await self._send_all(attempt, header, masked.data.cast("B")):
                return
        finally:
            attempt.uploading = False
        await self._show("uploaded", plan.round)

    async def _send_all(self, attempt: Attempt, header: VectorHeader, data: memoryview) -> bool:
        """Upload, over as many connections as it takes; False if the steward took the approval back meanwhile."""
        again = False
        while True:
            try:
                await self._line.upload(header, data, again=again)
            except ConnectionLost as error:
                if header.size_bytes <= INLINE_BYTES_MAX:
                    raise
                self._log.warning("upload.broken_off", size_bytes=header.size_bytes, reason=str(error))
                if not await self._line.reconnected():
                    raise
                if not await self._still_approved(attempt):
                    return False
                again = True
            else:
                return True

    # --- the end of a round, and of the study ----------------------------------------------------------------------

    async def _hear_result(self, result: RoundResult) -> None:
        """4.5: compute the next global model from the sum, and compare. Only whoever released shares is asked.

        What was released is on disk, so a result is verified also after a restart; one that was, only once.
        """
        release = self._open_release(result.context)
        if release is None:
            self._log.warning("message.unexpected", kind=type(result).__name__)
            return
        self._approved()
        prepared = self._prepared
        if prepared is None:
            prepared = await asyncio.to_thread(self._make_ready)
        try:
            await self._verify(release, prepared, result)
        except ResultRefused as error:
            await self._stop(error)

    def _open_release(self, context: bytes) -> Release | None:
        """The release in this attempt, if its round is not closed here yet."""
        release, chain = self._store.release(context), self._store.chain(self._digest)
        if release is None:
            return None
        plan = read_plan(release.plan)
        is_open = plan.study_digest == self._digest and plan.round > (chain.round if chain else 0)
        return release if is_open else None

    async def _verify(self, release: Release, prepared: Prepared, result: RoundResult) -> None:
        plan = read_plan(release.plan)
        if result.transcript != release.transcript:
            raise ResultRefused(f"after round {plan.round} the coordinator names another transcript than was signed")
        name = Digest(result.aggregate_hash.hex())
        async with self._aggregate(result, name, plan.layout.size_bytes) as raw:
            model = await self._model(plan.model_digest)

            def compute() -> GlobalModel:
                if len(raw) != plan.layout.size_bytes:
                    raise ResultRefused(f"the sum of round {plan.round} has {len(raw)} bytes")
                try:
                    aggregate = np.frombuffer(raw, dtype=plan.layout.dtype)
                    sums = decode(aggregate, plan.layout, survivors=len(release.survivors))
                    survivors = len(release.survivors)
                    after = next_global_model(prepared.study, plan, model, sums, survivors=survivors)
                except (PrivacyError, ContractError) as error:
                    raise ResultRefused(f"from the sum of round {plan.round} no model follows: {error}") from error
                after.digest()  # computed here, where nobody waits for it
                return after

            after = await asyncio.to_thread(compute)
        digest = after.digest()
        if digest != result.next_model_digest:
            raise ResultRefused(
                f"after round {plan.round} the coordinator names model {result.next_model_digest[:12]}, "
                f"but the sum gives {digest[:12]}"
            )
        await asyncio.to_thread(self._models.save, after)
        chain = await asyncio.to_thread(self._store.chain, self._digest)
        ended = has_ended(prepared.study, after)
        link = ChainLink(round=plan.round, model_digest=digest, transcript=Digest(result.transcript.hex()), ended=ended)
        endorsement = await self._sign(
            entries.ModelVerified,
            closed=(self._digest, link),
            study=plan.study,
            round=plan.round,
            attempt=plan.attempt,
            next_model_digest=digest,
        )
        # This round is closed here for good; so is the last one in which this site took part, however long ago.
        for done in {plan.model_digest} if chain is None else {plan.model_digest, chain.model_digest}:
            if done not in (digest, prepared.first_model.digest()):
                self._models.forget(done)
        attempt = self._attempt
        evaluation = attempt.evaluation if attempt is not None and attempt.context == release.context else None
        if evaluation is not None:
            self._keep(
                prepared, lambda results: results.add(plan.round, evaluation, of=_measured_on(prepared, ended=ended))
            )
            if self._home.config.tensorboard:
                self._keep(prepared, lambda _: self._curves_of(prepared).add(plan.round, curves_of(evaluation)))
            if self._home.config.mlflow is not None:
                self._tracked_by(self._home.config.mlflow, prepared).add(plan.round, curves_of(evaluation))
        self._leave()
        await self._show("waiting for the next round", plan.round)
        if plan.round < prepared.study.training.rounds and not ended:
            self._line.submit_events_soon()
        else:  # who hears that the study is complete finds all of it in the log
            await self._line.submit_events()
        # Signed, on disk and on its way to the log; a site that missed the round may be shown it before it is there.
        await self._send(ResultVerified(context=result.context, next_model_digest=digest, endorsement=endorsement))

    async def _stop(self, error: ResultRefused) -> None:
        """Take back the approval, signed for the log: this site does not go on with a coordinator that miscounts."""
        self._leave()
        self._stopped = True  # also if the disk refuses what follows
        self._log.error("study.result_refused", reason=str(error), advice=error.advice())
        decision = await asyncio.to_thread(self._store.decision, self._digest)
        if decision is None or decision.decision != "approved":
            return
        withdrawn = replace(decision, decision="withdrawn", statement=str(error), at=time.time())
        await self._sign(
            entries.StudyRejected,
            decision=withdrawn,
            study=decision.study,
            study_digest=self._digest,
            steward=self._events.pseudonym("agent"),
            reason=str(error)[:200],
        )
        self._stopped = False  # it is written down; the steward may approve again
        await self._line.submit_events()

    async def _end(self, ended: StudyEnded) -> None:
        """No more rounds will come. A final model that this site did not compute itself is fetched, and marked so."""
        self._ended = True
        self._leave()
        if self._tracked is not None:
            self._tracked.finish()
        self._log.info("study.ended", outcome=ended.outcome.value, reason=ended.reason)
        if self._progress is not None:
            await asyncio.to_thread(
                self._progress.rests, f"ended: {ended.outcome.value}", self._joined[0], for_good=True
            )
        await asyncio.to_thread(self._store.forget_shares, self._digest)
        await self._certify()
        prepared = self._prepared
        if prepared is None or ended.model_digest == NO_MODEL:
            return
        await self._model(ended.model_digest)
        chain = await asyncio.to_thread(self._store.chain, self._digest)
        verified = chain is not None and chain.model_digest == ended.model_digest
        if ended.outcome is StudyOutcome.COMPLETED and prepared.study.evaluation.keep_best is not None:
            # The rule that ends the study is computed here too: a model from before its end is not the one it chose.
            verified = verified and chain is not None and chain.ended
            if not verified:
                self._log.warning("study.choice_not_verified", model=ended.model_digest[:12], reason=ended.reason)
        self._keep(prepared, lambda results: results.finish(ended.outcome.value, ended.model_digest, verified=verified))

    async def _certify(self) -> None:
        """Sign for the log what this study promises each patient here; a reason not to is for this hospital's eyes."""
        try:
            certificate = await asyncio.to_thread(
                lambda: sign_certificate(
                    self._home, self._store, self._ledger, self._events, self._digest, parameters=self._sent_values()
                )
            )
        except SiteError as error:
            self._log.error("study.not_certified", reason=str(error), advice=error.advice())
            return
        if certificate is not None:
            self._log.info("study.certified")
        await self._line.submit_events()

    def _sent_values(self) -> int | None:
        """How many values an update of this study has; None where no model of it is here."""
        if self._prepared is not None:
            return self._prepared.first_model.vector.size
        chain = self._store.chain(self._digest)
        model = None if chain is None else self._models.find(chain.model_digest)
        return None if model is None else model.vector.size

    # --- helpers ---------------------------------------------------------------------------------------------------

    async def _sign(
        self,
        kind: type[entries.SiteEntry],
        *,
        decision: Decision | None = None,
        closed: tuple[Digest, ChainLink] | None = None,
        durably: bool = True,
        **fields: Any,
    ) -> bytes:
        """Sign an entry for the log without holding up the others: it waits for the disk. Returns its bytes."""
        return await asyncio.to_thread(
            self._events.add, kind, decision=decision, closed=closed, durably=durably, **fields
        )

    async def _model(self, digest: Digest) -> GlobalModel:
        """A global model by its digest: from this site's folder, else from the coordinator and then checked."""
        assert self._prepared is not None  # models are asked for in rounds
        first = self._prepared.first_model
        model = await asyncio.to_thread(self._models.find, digest)
        if model is not None:
            return model
        study = self._prepared.study
        state = state_layout(study, first.parameters)
        limit_bytes = 4 * (first.vector.size + parameter_count(state)) + 2**20
        async with self._downloaded(VectorKind.GLOBAL_MODEL, digest, limit_bytes) as file:

            def checked() -> GlobalModel:
                model = GlobalModel.from_safetensors(file)
                fits = model.parameters == first.parameters and model.state in state_layouts(study, first.parameters)
                if model.digest() != digest or not fits:
                    raise PlanRefused("model", f"a file of model {model.digest()[:12]}", f"model {digest[:12]}")
                return self._models.exchange(model)

            return await asyncio.to_thread(checked)

    @asynccontextmanager
    async def _aggregate(self, result: RoundResult, name: Digest, limit_bytes: int) -> AsyncIterator[memoryview]:
        """The sum of a round: out of the message where it is small, and the wire has compared its hash."""
        if result.aggregate:
            yield memoryview(result.aggregate)
            return
        async with self._downloaded(VectorKind.AGGREGATE, name, limit_bytes) as raw:
            yield raw

    @asynccontextmanager
    async def _downloaded(self, kind: VectorKind, digest: Digest, limit_bytes: int) -> AsyncIterator[memoryview]:
        """A vector from the coordinator, on disk but looked at as if in memory, for as long as it is needed.

        The file has no name: whatever happens to this process, nothing of it stays behind.
        """
        with tempfile.TemporaryFile(dir=self._home.folder) as file:
            await self._line.download(kind, digest, limit_bytes, lambda chunk: asyncio.to_thread(file.write, chunk))
            yield await asyncio.to_thread(mapped, file)

    async def _show(self, doing: str, round_number: int) -> None:
        """For this hospital's own eyes: what goes on now that is no training."""
        if self._progress is not None:
            await asyncio.to_thread(self._progress.rests, doing, round_number)

    def _keep(self, prepared: Prepared, write: Callable[[Results], None]) -> None:
        """Write this hospital's own figures; that a disk refuses them costs nobody the round."""
        try:
            write(Results(self._home.folder / "results" / f"{prepared.study.id}.json", prepared.study.id))
        except OSError as error:
            self._log.warning("results.not_written", reason=error.strerror or type(error).__name__)

    async def _refuse(self, round_number: int, attempt: int, error: Exception) -> None:
        """Tell the coordinator which rule, without this hospital's numbers; nor are they in the agent's log."""
        refusal = refusal_of(error)
        if isinstance(error, RoomLost):  # it was ended because the approval was taken back, or by itself
            taken_back = await asyncio.to_thread(self.objection)
            refusal = refusal if taken_back is None else taken_back
        self._log.warning(
            "study.refused",
            round=round_number,
            attempt=attempt,
            rule=refusal.rule,
            reason=str(error) if is_about_others(error) else refusal.explanation,
            error=for_the_log(error),
        )
        await self._send(
            Refusal(
                study_digest=self._digest,
                round=round_number,
                attempt=attempt,
                rule=refusal.rule,
                explanation=refusal.explanation,
            )
        )
        if isinstance(error, BudgetExceeded):
            await self._tell_exhausted(error)

    async def _tell_exhausted(self, error: BudgetExceeded) -> None:
        """Signed for the log, once: which rule of the budget ended this hospital's part."""
        decision = await asyncio.to_thread(self._store.decision, self._digest)
        if self._exhausted or decision is None:
            return
        self._exhausted = True
        await self._sign(entries.DpExhausted, study=decision.study, dataset=error.dataset, rule=BUDGET_REFUSED.rule)
        await self._line.submit_events()

    async def _send(self, message: SiteMessage) -> None:
        await self._line.send(message, self._digest)


def _measured_on(prepared: Prepared, *, ended: bool) -> str | None:
    """Whose figures a closed round's are, where a study tests its model on others than it was chosen by."""
    if not prepared.study.has_validation:
        return None
    return TEST if ended else VALIDATION
