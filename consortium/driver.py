"""The shell around one study: what `study_run.py` decides is done here, from the first round to the last.

Waiting for hospitals, planning and inviting, closing a round so that state, model and log move on together. One attempt
at one round is in `attempt.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

from consortium.attempt import Attempt, Progress
from consortium.contract.best_model import Choice
from consortium.contract.event_file import EventFolder
from consortium.contract.layout import measures, round_layout
from consortium.contract.messages import (
    CoordinatorMessage,
    Invitation,
    PrepareStudy,
    ResultVerified,
    RoundAborted,
    RoundResult,
    SendInitialModel,
    StudyEnded,
    StudyOutcome,
)
from consortium.contract.mlflow_run import MlflowRun, Tracking
from consortium.contract.names import Digest, SiteId
from consortium.contract.noisy_metrics import basis_of, metrics_for
from consortium.contract.plan import PLAN_SIGNATURE_CONTEXT, Participant, RoundKind, RoundPlan, context_of
from consortium.contract.server_optimizer import (
    AggregateRefused,
    awaits_test,
    choice_after,
    next_global_model,
    why_ended,
)
from consortium.contract.study import StudyFile
from consortium.contract.tensor_clips import TensorClipsRefused, clipped_stretches
from consortium.database import SiteRow, StudyRow
from consortium.rooms import Rooms
from consortium.round_events import Event, Phase, SiteLeft, SiteReturned, Stopped, UploadStored
from consortium.sessions import Session
from consortium.studies import ChosenModel, RoundClosedFacts, StudyState
from consortium.study_run import Complete, Pause, Prepare, Run, decide
from consortium.training_round import (
    Aborted,
    Running,
    Summed,
    is_measured,
    may_measure,
    opened_over,
)
from consortium.vectors import VectorMissing
from consortium.wire.errors import WireViolation
from consortium.wire.limits import INLINE_BYTES_MAX
from privacy.encoding import decode
from privacy.errors import PrivacyError
from privacy.lazy_numpy import np
from privacy.secagg.suites import SuiteName

log = structlog.get_logger(__name__)

VERIFIED_WAIT_S = 10.0
"""How long survivors have to say that they computed the next model too, before the next round is planned."""

SLOW_ROUND_S = 10.0
"""Before the next round, everything about one that took longer than this must have been witnessed."""
WITNESSED_WITHIN_S = 10.0
"""Of faster rounds, what is older than this."""

NO_MODEL = Digest("0" * 64)
ALL_CLOSED = "every round is closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStored:
    """The first global model has arrived and is kept."""

    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVerified:
    """A site says which next global model it computed."""

    site: SiteId
    message: ResultVerified


Answer: TypeAlias = ModelStored | ModelVerified | SiteLeft | Stopped
"""What is waited for between attempts."""


@dataclass(slots=True, kw_only=True)
class LastRound:
    """The round that closed last, while its survivors verify the result. Mutable: their answers come in."""

    summed: Summed
    next_model_digest: Digest
    told: dict[SiteId, Session]  # survivors that were told the result, over these sessions
    awaited: set[SiteId]  # of them, who has not answered yet
    endorsements: dict[SiteId, bytes] = field(default_factory=dict)  # as they came, before they are in the log


class StudyDriver:
    """Runs one study until it is complete, paused or aborted."""

    def __init__(self, rooms: Rooms, study: StudyFile, digest: Digest) -> None:
        self._rooms = rooms
        self.study = study
        self.digest = digest
        self.progress = Progress()
        self._heard: asyncio.Queue[Answer] | None = None  # what sites say between attempts, while anybody listens
        self._asked: dict[SiteId, Digest] = {}  # who was asked for the first model, and for which
        self._attempt: Attempt | None = None
        self._stopped = False  # for good: a study that is resumed gets a new driver
        self._winding_up = False  # this process ends; the study goes on with the next one
        self._declined: dict[int, frozenset[SiteId]] = {}  # the present round -> sites that will not take part in it
        self._unmeasured = 0  # the round whose metrics would have singled a site out
        self._last: LastRound | None = None
        self._last_seconds = 0.0  # how long the last attempt took
        self._awaited_for = NO_MODEL  # the model whose endorsements were waited for
        self._curves = EventFolder(rooms.curves / study.id) if rooms.curves is not None else None
        self._tracked = self._run_of(rooms.tracking) if rooms.tracking is not None else None
        self._log = log.bind(study=study.id)

    # --- what reaches it -------------------------------------------------------------------------------------------

    @property
    def running(self) -> Running | None:
        """The attempt under way, for admitting uploads before they take any space."""
        state = self._attempt.state if self._attempt is not None else None
        return state if isinstance(state, Running) else None

    def upload_begins(self, site: SiteId, name: Digest) -> None:
        """Part of a masked update is about to be here."""
        if self._attempt is not None:
            self._attempt.upload_begins(site, name)

    def half_uploaded(self, site: SiteId) -> bytes | None:
        """The context of the attempt under way, if an upload of this site has begun in it and is not whole."""
        attempt = self._attempt
        if attempt is None or not attempt.is_half_uploaded(site):
            return None
        assert isinstance(attempt.state, Running)  # is_half_uploaded asked
        return attempt.state.context

    @property
    def backlog(self) -> int:
        """Events of the attempt that are queued and not handled yet."""
        return self._attempt.waiting if self._attempt is not None else 0

    def wants_first_model(self, site: SiteId) -> Digest | None:
        """Which first model this site was asked for, if it was."""
        return self._asked.get(site)

    def deliver(self, event: Event | Answer) -> None:
        """Queue an event for whoever waits for its kind; what nobody waits for is dropped."""
        self._stopped = self._stopped or isinstance(event, Stopped)
        if isinstance(event, ModelVerified):
            self._ask_again(event.site)
            self._note_verified(event.site, event.message)
        if isinstance(event, SiteLeft) and self._last is not None:
            self._last.awaited.discard(event.site)
        if isinstance(event, ModelStored | ModelVerified | SiteLeft | Stopped) and self._heard is not None:
            self._heard.put_nowait(event)
        if not isinstance(event, ModelStored | ModelVerified) and self._attempt is not None:
            self._attempt.deliver(event)

    def first_model_came(self, model_digest: Digest) -> None:
        """The first global model has arrived and is kept."""
        self.deliver(ModelStored(model_digest=model_digest))

    def result_verified(self, site: SiteId, message: ResultVerified) -> None:
        """A site says which next global model it computed."""
        self.deliver(ModelVerified(site=site, message=message))

    def wind_up(self) -> None:
        """Begin no attempt any more; the one under way may come to its end."""
        self._winding_up = True
        self._rooms.sessions.notify()

    def break_off(self, reason: str) -> None:
        """End the attempt under way with that reason, unless shares are asked for: that one is finished after a start.

        Hospitals that have trained mask the same update in the next attempt (ADR 4).
        """
        if self.running is not None and self.running.phase is not Phase.UNMASKING:
            self.deliver(Stopped(reason=reason))

    def deliver_small(self, event: UploadStored, values: bytes) -> None:
        """An upload that came in one message, for the attempt under way."""
        if self._attempt is not None:
            self._attempt.deliver_small(event, values)

    def _ask_again(self, site: SiteId) -> None:
        """Something changed at a site: what it declined before, it may take part in now."""
        self._declined = {number: sites - {site} for number, sites in self._declined.items()}

    @contextmanager
    def _listening(self) -> Iterator[asyncio.Queue[Answer]]:
        self._heard = asyncio.Queue()
        try:
            yield self._heard
        finally:
            self._heard = None

    # --- the study -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Go on from wherever the study stands until it needs nobody any more."""
        try:
            await self._finish_open_attempts()
            while self._goes_on():
                row = self._row()
                match decide(self.study, row, ended=self._why_ended() is not None, chosen=self._is_chosen(row)):
                    case Prepare():
                        await self._agree_on_first_model(row)
                    case Run(kind=RoundKind.EVALUATE) as decision if not await self._can_evaluate(row, decision):
                        await self._hear_verifications()
                        if self._is_running() and self.study.evaluation.keep_best is not None:
                            self._pause("the last model cannot be measured without singling a hospital out")
                        elif self._is_running():
                            self._log.warning("study.final_evaluation_skipped", survivors=list(row.measured))
                            self._complete(row)
                    case Run() as decision:
                        await self._run_attempt(row, decision)
                    case Pause(reason=reason):
                        self._pause(reason)
                    case Complete():
                        await self._hear_verifications()
                        if self._is_running():
                            self._complete(row)
        finally:
            self._attempt = None
            self._rooms.journal.scrub()
            self.progress.enters("waiting")
            self._rooms.sessions.notify()

    def greet(self, site: SiteId) -> None:
        """A site is here (again): tell it what it may have missed, and ask it to get ready."""
        if site not in self.study.sites.roster:
            return
        row = self._row()
        self._ask_again(site)
        self._tell_result(site)
        if self._attempt is not None:
            self._attempt.deliver(SiteReturned(site=site))
        match row.state:
            case StudyState.RUNNING:
                self.prepare(site)
            case StudyState.COMPLETED:
                self._tell_end(row, site, StudyOutcome.COMPLETED, self._why_ended() or ALL_CLOSED)
            case StudyState.ABORTED:
                self._tell_end(row, site, StudyOutcome.ABORTED, "aborted by the operator")
            case _:
                pass

    def end(self, outcome: StudyOutcome, reason: str) -> None:
        """Tell every connected site of the study that no more rounds will come."""
        row = self._row()
        for site in self.study.sites.roster:
            self._tell_end(row, site, outcome, reason)

    def _why_ended(self) -> str | None:
        """Why the round that closed last is the last one, in a study that chooses its model; None if it is not."""
        if self.study.evaluation.keep_best is None:
            return None
        closed = self._rooms.studies.last_closed(self.digest)
        return None if closed is None else closed.ended

    def _is_chosen(self, row: StudyRow) -> bool:
        """Whether the present model was chosen by validation patients, and test patients wait for it."""
        if not self.study.has_validation or not row.model_digest:
            return False
        return awaits_test(self.study, self._rooms.models.state(row.model_digest))

    def _tell_end(self, row: StudyRow, site: SiteId, outcome: StudyOutcome, reason: str) -> None:
        ended = StudyEnded(
            study=row.study,
            study_digest=row.digest,
            outcome=outcome,
            model_digest=row.model_digest or NO_MODEL,
            reason=reason,
        )
        self._tell(site, ended)

    def _tell_result(self, site: SiteId) -> None:
        """What came of the last round; a survivor may not have heard it, if a connection or this process ended."""
        closed = self._rooms.studies.last_closed(self.digest)
        if closed is None or site not in closed.survivors:
            return
        result = RoundResult(
            context=context_of(RoundPlan.from_bytes(closed.plan)).digest(),
            transcript=bytes.fromhex(closed.transcript),
            aggregate_hash=bytes.fromhex(closed.aggregate_sha256),
            next_model_digest=closed.next_model_digest,
            aggregate=self._rooms.vectors.small(closed.aggregate_sha256, INLINE_BYTES_MAX),
        )
        self._tell(site, result)

    def _tell(self, site: SiteId, message: CoordinatorMessage) -> None:
        session = self._rooms.sessions.get(site)
        if session is not None:
            session.send(message)

    def _complete(self, row: StudyRow) -> None:
        self._rooms.studies.complete(row)
        self._log.info("study.completed", model=row.model_digest)
        if self._tracked is not None:
            self._tracked.finish()
        self.end(StudyOutcome.COMPLETED, self._why_ended() or ALL_CLOSED)

    def _pause(self, reason: str) -> None:
        """Stop until the lead resumes the study, unless somebody stopped it in the meantime."""
        if self._is_running():
            self._rooms.studies.move(self.study.id, "pause", reason)
            self._log.error("study.paused", reason=reason)

    def _is_running(self) -> bool:
        return not self._stopped and self._row().state == StudyState.RUNNING

    def _goes_on(self) -> bool:
        """Whether there may be another attempt in this process."""
        return not self._winding_up and self._is_running()

    def _row(self) -> StudyRow:
        return self._rooms.studies.get(self.study.id)

    # --- who can take part -----------------------------------------------------------------------------------------

    def prepare(self, site: SiteId) -> None:
        """Ask a connected site of the study to get ready; it answers StudyPrepared or Refusal."""
        if self._rooms.sessions.get(site) is not None and site in self.study.sites.roster:
            self.progress.sites[site] = "preparing"
            self._tell(site, PrepareStudy(study_digest=self.digest))

    def _prepared(self) -> dict[SiteId, tuple[Digest, int]]:
        """Connected sites that are ready and approve, with the first model each of them built and its size."""
        approving = self._rooms.studies.approving(self.digest)
        ready: dict[SiteId, tuple[Digest, int]] = {}
        for site in self.study.sites.roster:
            session = self._rooms.sessions.get(site)
            if session is not None and site in approving and self.digest in session.prepared:
                ready[site] = session.prepared[self.digest]
        return ready

    @property
    def _needed(self) -> int:
        return max(self.study.sites.minimum, self.study.aggregation.threshold)

    async def _wait_until(
        self, suits: Callable[[], bool], timeout_s: float | None = None, *, phase: str = "waiting for hospitals"
    ) -> bool:
        """Wait for hospitals to come or get ready; False at the timeout, or when the study is not running any more."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._goes_on():
            if suits():
                return True
            self.progress.enters(phase)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            await self._rooms.sessions.changed(left)
        return False

    async def _agree_on_first_model(self, row: StudyRow) -> None:
        """Every site builds the same first model from the study's seed; one of them uploads it."""
        if not await self._wait_until(lambda: len(self._prepared()) >= self._needed):
            return
        # All hospitals of the study are waited for, but not for ever: those that are ready may begin.
        everybody = len(self.study.sites.roster)
        await self._wait_until(lambda: len(self._prepared()) == everybody, self.study.aggregation.round_deadline_s)
        ready = self._prepared()
        if not self._is_running() or len(ready) < self._needed:
            return
        if len(set(ready.values())) > 1:
            shown = "; ".join(f"{site} {model[:12]} ({count} values)" for site, (model, count) in ready.items())
            self._pause(f"the hospitals built different first models; their software differs. {shown}")
            return
        for site, (model_digest, _) in ready.items():
            if await self._first_model_stored(site, model_digest) and self._is_running():
                if not self._clips_fit(model_digest):
                    return
                self._rooms.studies.begin(row, tuple(ready), model_digest)
                self._log.info("study.started", sites=len(ready), model=model_digest)
                return

    def _clips_fit(self, model_digest: Digest) -> bool:
        """Whether the study's clips name parameters of the first model; otherwise no layout follows: a pause."""
        aggregation = self.study.aggregation
        if aggregation.tensor_clips is None:
            return True
        parameters = self._rooms.models.parameters(model_digest)
        try:
            clipped_stretches(parameters, aggregation.update_clip, aggregation.tensor_clips)
        except TensorClipsRefused as error:
            self._pause(str(error))
            return False
        return True

    async def _first_model_stored(self, site: SiteId, model_digest: Digest) -> bool:
        """Ask one site for the first model; False if it does not come."""
        if self._rooms.sessions.get(site) is None:
            return False
        deadline = time.monotonic() + self.study.aggregation.upload_deadline_s
        self._asked[site] = model_digest
        try:
            with self._listening() as heard:
                self._tell(site, SendInitialModel(study_digest=self.digest, model_digest=model_digest))
                while (left := deadline - time.monotonic()) > 0:
                    match await _next(heard, left):
                        case ModelStored(model_digest=found) if found == model_digest:
                            return True
                        case SiteLeft(site=gone) if gone == site:
                            return False
                        case Stopped() | None:
                            return False
                        case _:
                            pass
            return False
        finally:
            del self._asked[site]

    async def _can_evaluate(self, row: StudyRow, decision: Run) -> bool:
        """Wait until hospitals are here that can be measured without singling one out; not for ever."""

        def suits() -> bool:
            here = frozenset(self._invited(row, decision))
            return len(here) >= self._needed and may_measure(here, frozenset(row.measured) or None)

        return await self._wait_until(suits, self.study.aggregation.round_deadline_s)

    def _invited(self, row: StudyRow, decision: Run) -> dict[SiteId, SiteRow]:
        """Whom an attempt that began now would invite.

        An evaluation that would single a hospital out goes to exactly those measured before, if they are all here; and
        so does every round of a study whose updates carry no noise.
        """
        willing, measured = self._willing(row.next_round), frozenset(row.measured)
        counts = decision.kind is RoundKind.EVALUATE or not self.study.is_private
        alone = counts and not may_measure(frozenset(willing), measured or None)
        if alone and measured <= willing.keys():
            return {site: row for site, row in willing.items() if site in measured}
        return willing

    def _willing(self, round_number: int) -> dict[SiteId, SiteRow]:
        """Sites that can be invited to this round: in turn, ready, not declining it, its certificate and keys good."""
        declined = self._declined.get(round_number, frozenset())
        in_turn, ready = self.study.sites_of_round(round_number), self._prepared()
        return {
            row.site: row
            for row in self._rooms.sites.standing()
            if row.site in ready
            and row.site in in_turn
            and row.site not in declined
            and self._rooms.sites.is_current(row)
            and self._rooms.sites.is_in_sight(row)
        }

    # --- one attempt -----------------------------------------------------------------------------------------------

    async def _run_attempt(self, row: StudyRow, decision: Run) -> None:
        declined = self._declined.get(row.next_round, frozenset())
        if len(self.study.sites_of_round(row.next_round)) - len(declined) < self._needed:
            self._pause(f"too many hospitals declined round {row.next_round}: {', '.join(sorted(declined))}")
            return
        here: dict[SiteId, SiteRow] = {}

        def enough() -> bool:
            nonlocal here
            here = self._invited(row, decision)
            suits = self.study.is_private or may_measure(frozenset(here), frozenset(row.measured) or None)
            return len(here) >= self._needed and suits

        while True:
            if not await self._wait_until(enough):
                return
            # Not before: whoever was away has cosigned nothing meanwhile, and the others would decline for it.
            if not await self._witnessed():
                return
            if not self._all_informed(here):
                await self._hear_endorsements(row)
            if self._goes_on() and enough():
                break
        # From the last look to the invitations nothing is awaited, so nobody can come or go in between.
        invited = list(here.values())
        plan = self._plan(row, decision, invited)
        if not self._rooms.studies.open_round(row, plan):
            return
        begun = time.monotonic()
        attempt = self._attempt = self._new_attempt(row, plan)
        self._invite(row, plan, invited)
        await attempt.run(self.progress)
        before = self._declined.get(row.next_round, frozenset())
        self._declined = {row.next_round: before | attempt.refused}
        self._last_seconds = time.monotonic() - begun
        await self._conclude(row, attempt, self._last_seconds)

    async def _witnessed(self) -> bool:
        """Wait until enough hospitals have cosigned what is in the log; False if the study is not running any more.

        After a slow round that is all of it. Where rounds are faster than checkpoints, what is a few seconds old.
        """
        witnesses, needed = self._rooms.witnesses, self.study.cosignatures_needed
        if self._last_seconds >= SLOW_ROUND_S:
            owed = await asyncio.to_thread(lambda: self._rooms.recorder.log.size)  # with what is still queued
        else:
            owed = witnesses.size_before(WITNESSED_WITHIN_S)

        def covered() -> bool:
            return witnesses.covered(self.study.sites.roster, needed) >= owed

        return await self._wait_until(covered, phase="waiting for witnesses of the log")

    def _new_attempt(self, row: StudyRow, plan: RoundPlan) -> Attempt:
        return Attempt(self._rooms, plan, frozenset(row.measured) or None, is_exact=not self.study.is_private)

    async def _conclude(self, row: StudyRow, attempt: Attempt, seconds: float, *, restarted: bool = False) -> None:
        """Record how the attempt ended; if by a sum, hear from now on whether the survivors compute the same model."""
        await self._settle(row, attempt, seconds)
        self._attempt = None
        if restarted and self._last is not None:  # nobody is here yet, and all of the survivors are waited for
            self._last.awaited = set(self._last.summed.survivors)
            await self._hear_verifications()

    def _plan(self, row: StudyRow, decision: Run, invited: list[SiteRow]) -> RoundPlan:
        here = frozenset(site.site for site in invited)
        # Between two measured rounds the survivors must not differ by one hospital: this round may have to go without.
        measured = measures(self.study, decision.kind, decision.round) and may_measure(
            here, frozenset(row.measured) or None
        )
        if decision.kind is RoundKind.TRAIN and decision.round == self._unmeasured:
            measured = False
        return RoundPlan(
            consortium=self._rooms.consortium,
            suite=SuiteName(self.study.aggregation.suite),
            study=row.study,
            study_digest=row.digest,
            kind=decision.kind,
            round=decision.round,
            attempt=decision.attempt,
            participants=tuple(
                Participant(site=s.site, spki_sha256=s.spki_sha256, signing_key=s.signing_key, ecdsa_key=s.ecdsa_key)
                for s in sorted(invited, key=lambda s: s.site)
            ),
            threshold=self.study.aggregation.threshold,
            minimum=self.study.sites.minimum,
            model_digest=row.model_digest,
            previous_transcript=row.transcript,
            layout=round_layout(
                self.study,
                # Not what a site says: it decides how much memory the sum takes.
                parameters=self._rooms.models.parameters(row.model_digest),
                kind=decision.kind,
                measured=measured,
            ),
            round_deadline_s=self.study.aggregation.round_deadline_s,
            upload_deadline_s=self.study.aggregation.upload_deadline_s,
            group_size=self.study.aggregation.group_size or 0,
        )

    def _invite(self, row: StudyRow, plan: RoundPlan, invited: list[SiteRow]) -> None:
        raw = plan.to_bytes()
        here = {site.site: site for site in invited}
        certificates: Mapping[SiteId, bytes] = {site.site: site.certificate for site in invited}
        endorsed = {} if self._all_informed(here) else self._endorsements(row)
        absent = endorsed.keys() - here.keys()
        invitation = Invitation(
            plan=raw,
            signature=self._rooms.signing_key.sign(PLAN_SIGNATURE_CONTEXT + raw),
            certificates=tuple(certificates[p.site] for p in plan.participants),
            endorsements=tuple(endorsed[site] for site in sorted(endorsed)),
            endorser_certificates=tuple(
                site.certificate
                for site in self._rooms.sites.standing()
                if site.site in absent and self._rooms.sites.is_current(site)
            ),
        )
        for participant in plan.participants:
            self._tell(participant.site, invitation)
        for site in self._prepared().keys() - frozenset(self.study.sites_of_round(plan.round)):
            self.progress.sites[site] = "waiting for its turn"

    async def _settle(self, row: StudyRow, attempt: Attempt, seconds: float) -> None:
        """Record how the attempt ended; only then are its journal and uploads let go."""
        match attempt.state:
            case Summed() as summed:
                await self._close(row, attempt, summed, seconds)
            case Aborted(reason=reason, opened_over=survivors):
                if attempt.state.singles_out:
                    self._unmeasured = attempt.plan.round
                self._abort(row, attempt.plan, reason, survivors)
            case Running() as state:
                reason = "the coordinator stopped before the survivors' shares had arrived"
                self._abort(row, attempt.plan, reason, opened_over(state))
        attempt.forget()

    def _abort(self, row: StudyRow, plan: RoundPlan, reason: str, survivors: tuple[SiteId, ...]) -> None:
        """Nothing came of it; `survivors` are those over whom shares may have been released all the same."""
        self._log.warning("round.aborted", round=plan.round, attempt=plan.attempt, reason=reason)
        measured = survivors if is_measured(plan) or not self.study.is_private else ()
        if measured:  # the sites take these metrics as published: not over other survivors for the same model
            self._unmeasured = plan.round
        self._rooms.studies.abort_round(row, plan, reason, measured=measured)

    async def _close(self, row: StudyRow, attempt: Attempt, summed: Summed, seconds: float) -> None:
        """4.5: masks off, next global model, metrics; state, model and log move on together."""
        try:
            facts = await asyncio.to_thread(self._unmask, attempt, summed, seconds)
        except (AggregateRefused, PrivacyError) as error:
            # What the sites sent adds up to no model: that will not change by looking at it again.
            self._abort(row, attempt.plan, f"the sum cannot be used: {error}", summed.survivors)
            for site in summed.survivors:
                self._tell(site, RoundAborted(context=summed.context, reason="the sum cannot be used"))
            return
        self._rooms.studies.close_round(row, attempt.plan, facts, is_exact=not self.study.is_private)
        if self._tracked is not None and facts.metrics:
            self._tracked.add(attempt.plan.round, facts.metrics)
        if self._curves is not None and facts.metrics:
            await asyncio.to_thread(self._draw, self._curves, attempt.plan, facts)
        survivors = len(summed.survivors)
        self._log.info("round.closed", round=attempt.plan.round, survivors=survivors, seconds=round(seconds, 3))
        # Whoever dropped out after its upload released nothing: it does not compute this result (4.4).
        answering = [site for site in summed.survivors if site not in attempt.lost]
        told = {site: session for site in answering if (session := self._rooms.sessions.get(site)) is not None}
        self._last = LastRound(
            summed=summed,
            next_model_digest=facts.next_model_digest,
            told=told,
            awaited=set(told),
        )
        result = RoundResult(
            context=summed.context,
            transcript=summed.transcript,
            aggregate_hash=bytes.fromhex(facts.aggregate_sha256),
            next_model_digest=facts.next_model_digest,
            aggregate=self._rooms.vectors.small(facts.aggregate_sha256, INLINE_BYTES_MAX),
        )
        for site in summed.survivors:
            self._tell(site, result)

    def _run_of(self, tracking: Tracking) -> MlflowRun:
        """A run of the MLflow server, which hears what the log says and no more."""
        return MlflowRun(
            tracking,
            name=self.study.id,
            tags={"consortium.study_digest": self.digest, "consortium.side": "coordinator"},
            failed=lambda words: log.warning("mlflow.not_written", study=self.study.id, reason=words),
        )

    def _draw(self, curves: EventFolder, plan: RoundPlan, facts: RoundClosedFacts) -> None:
        """The round's figures, for TensorBoard; that a disk refuses them costs no round."""
        try:
            curves.add(plan.round, facts.metrics)
        except OSError as error:
            self._log.warning("curves.not_written", errno=error.errno)

    def _unmask(self, attempt: Attempt, summed: Summed, seconds: float) -> RoundClosedFacts:
        """What follows from the sum. Files are written here, before the state may name them; runs in a thread."""
        plan = summed.plan
        attempt.total.remove(summed.removal)
        aggregate = attempt.total.result
        sums = decode(aggregate, plan.layout, survivors=len(summed.survivors))
        model = self._rooms.models.load(plan.model_digest)
        after = next_global_model(self.study, plan, model, sums, survivors=len(summed.survivors))
        choice = choice_after(self.study, plan, model, sums)
        return RoundClosedFacts(
            survivors=summed.survivors,
            transcript=Digest(summed.transcript.hex()),
            aggregate_sha256=self._rooms.vectors.put(aggregate.view(np.uint8).data),
            next_model_digest=self._rooms.models.save(after),
            metrics=metrics_for(self.study, sums).named() if is_measured(plan) else {},
            basis=basis_of(self.study, chosen=awaits_test(self.study, model.state)),
            seconds=seconds,
            chosen=self._chosen(plan, choice) if choice is not None and choice.ends else None,
        )

    def _chosen(self, plan: RoundPlan, choice: Choice) -> ChosenModel:
        """What the log says of a choice that ends the study."""
        reason, tally = why_ended(self.study, plan, choice), choice.tally
        return ChosenModel(metric=choice.metric, figure=tally.figure, origin=tally.origin, reason=reason)

    # --- the result of the last round ------------------------------------------------------------------------------

    def _note_verified(self, site: SiteId, message: ResultVerified) -> None:
        """A survivor has computed the next model: the same one, or the study stops."""
        last = self._last
        if last is None or message.context != last.summed.context or site not in last.summed.survivors:
            return
        last.awaited.discard(site)
        self._rooms.sessions.notify()
        if message.next_model_digest != last.next_model_digest:
            reason = f"{site} computed another next model than the coordinator after round {last.summed.plan.round}"
            self._pause(reason)
            self.deliver(Stopped(reason=reason))
        elif message.endorsement:  # whoever is shown it checks it, as any other
            last.endorsements[site] = message.endorsement

    def _endorsements(self, row: StudyRow) -> dict[SiteId, bytes]:
        """Signed `model.verified` entries about the present model: those in the log, and those on their way."""
        kept = self._rooms.studies.endorsements(row.digest, row.model_digest)
        fresh = self._last.endorsements if self._last and self._last.next_model_digest == row.model_digest else {}
        return {**kept, **fresh}

    def _all_informed(self, invited: Mapping[SiteId, SiteRow]) -> bool:
        """Whether every one of them heard the last result over the session it still has, before the invitation.

        Then each knows the model by its own computation, and the next attempt need not wait for the others' answers.
        Whoever missed the round accepts the model by the endorsements of those who did not, so those are waited for.
        """
        last = self._last
        if last is not None:
            return all(last.told.get(site) is self._rooms.sessions.get(site) for site in invited)
        closed = self._rooms.studies.last_closed(self.digest)  # by an earlier process; whoever connects hears of it
        return closed is None or all(site in closed.survivors for site in invited)

    async def _hear_endorsements(self, row: StudyRow) -> None:
        """Wait, not for long and once for a model, for as many endorsements as a site that missed its round asks for.

        They come with the survivors' answers; or, if this process ended in between, with the entries that each of them
        signed and hands over when it connects. Where hospitals train by turns somebody has missed every round, and
        would decline without them: there they are waited for as hospitals are, for as long as it takes.
        """
        if self._awaited_for == row.model_digest:
            return
        self._awaited_for = row.model_digest

        by_turns = self.study.training.participants_per_round is not None

        def suits() -> bool:
            everybody = self._last is not None and not self._last.awaited
            enough = len(self._endorsements(row)) >= self.study.aggregation.threshold
            return enough or (everybody and not by_turns)

        await self._wait_until(suits, None if by_turns else VERIFIED_WAIT_S)

    async def _hear_verifications(self) -> None:
        """Wait, not for long, until the survivors have computed the next model too: those that are still here."""
        last = self._last
        deadline = time.monotonic() + VERIFIED_WAIT_S
        with self._listening() as heard:
            while last is not None and last.awaited and (left := deadline - time.monotonic()) > 0:
                if isinstance(await _next(heard, left), Stopped | None):
                    break
        if last is not None:
            last.awaited.clear()  # they were waited for once

    # --- after a crash ---------------------------------------------------------------------------------------------

    async def _finish_open_attempts(self) -> None:
        """Finish what was being unmasked, with the shares of the journal and of whoever comes back; the rest is over.

        Nothing is run twice.
        """
        row = self._row()
        for raw in self._rooms.studies.open_plans(row.digest):
            plan = RoundPlan.from_bytes(raw)
            attempt = self._new_attempt(row, plan)
            try:
                await attempt.replay(self._rooms.journal.events(plan))
                if isinstance(attempt.state, Running) and attempt.state.phase is Phase.UNMASKING:
                    self._attempt = attempt
                    await attempt.finish(self.progress)
            except (VectorMissing, WireViolation, PrivacyError, ValueError) as error:
                self._abort(row, plan, f"it could not be finished from the journal: {error}", ())
                attempt.forget()
            else:
                await self._conclude(row, attempt, 0.0, restarted=True)
            row = self._row()


async def _next(heard: asyncio.Queue[Answer], timeout_s: float) -> Answer | None:
    """What a site says next; None after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await heard.get()
    except TimeoutError:
        return None
