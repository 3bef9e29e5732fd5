"""The shell around one study: what `study_run.py` decides is done here, from the first round to the last.

Waiting for hospitals, planning and inviting, closing a round so that state, model and log move on together. One attempt at
one round is in `attempt.py`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import structlog

from audit import entries
from consortium import training_round
from consortium.attempt import Attempt, AttemptName, Progress, one_line
from consortium.contract.digest import digest_of
from consortium.contract.layout import measures, round_layout
from consortium.contract.messages import (
    Invitation,
    PrepareStudy,
    ResultVerified,
    RoundResult,
    SendInitialModel,
    StudyEnded,
    StudyOutcome,
)
from consortium.contract.metrics import metrics_of
from consortium.contract.names import Digest, SiteId
from consortium.contract.plan import PLAN_SIGNATURE_CONTEXT, Participant, RoundKind, RoundPlan
from consortium.contract.server_optimizer import next_global_model
from consortium.contract.study import StudyFile
from consortium.database import SiteRow, StudyRow
from consortium.record import now_stamp
from consortium.rooms import Rooms
from consortium.studies import RoundClosedFacts, StudyState
from consortium.study_run import Complete, Pause, Prepare, Run, decide
from consortium.training_round import (
    Aborted,
    MessageArrived,
    Running,
    SiteLeft,
    SiteRefused,
    Stopped,
    Summed,
    UploadStored,
    is_measured,
    may_measure,
)
from privacy.encoding import decode
from privacy.secagg.masks import vector_hash

log = structlog.get_logger(__name__)

VERIFIED_WAIT_S = 10.0
"""How long survivors have to say that they computed the next model too, before the next round is planned."""

NO_MODEL = Digest("0" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStored:
    """The first global model has arrived and is kept."""

    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVerified:
    """A site says which next global model it computed."""

    site: SiteId
    message: ResultVerified


Inbox: TypeAlias = training_round.Event | ModelStored | ModelVerified


class StudyDriver:
    """Runs one study until it is complete, paused or aborted."""

    def __init__(self, rooms: Rooms, study: StudyFile, digest: Digest) -> None:
        self._rooms = rooms
        self.study = study
        self.digest = digest
        self.progress = Progress()
        self._between: asyncio.Queue[Inbox] = asyncio.Queue()  # what arrives between attempts
        self._during: asyncio.Queue[training_round.Event] = asyncio.Queue()
        self._attempt: Attempt | None = None
        self._refused: dict[int, frozenset[SiteId]] = {}  # round -> sites that declined it
        self._log = log.bind(study=study.id)

    # --- what reaches it -------------------------------------------------------------------------------------------

    @property
    def running(self) -> Running | None:
        """The attempt under way, for admitting uploads before they take any space."""
        state = self._attempt.state if self._attempt is not None else None
        return state if isinstance(state, Running) else None

    def deliver(self, event: Inbox) -> None:
        """Queue an event for whoever is waiting for its kind."""
        match event:
            case ModelStored() | ModelVerified():
                self._between.put_nowait(event)
            case MessageArrived() | UploadStored() | SiteRefused():
                self._during.put_nowait(event)
            case _:
                self._during.put_nowait(event)
                self._between.put_nowait(event)

    # --- the study -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Go on from wherever the study stands until it needs nobody any more."""
        try:
            await self._finish_open_attempts()
            while (row := self._row()).state == StudyState.RUNNING:
                match decide(self.study, row):
                    case Prepare():
                        await self._agree_on_first_model(row)
                    case Run(kind=RoundKind.EVALUATE) if not await self._can_evaluate(row):
                        if self._row().state == StudyState.RUNNING:
                            self._log.warning("study.final_evaluation_skipped", survivors=list(row.measured))
                            self._complete(row)
                    case Run() as decision:
                        await self._run_attempt(row, decision)
                    case Pause(reason=reason):
                        self._rooms.studies.move(self.study.id, "pause", reason)
                        self._log.error("study.paused", reason=reason)
                    case Complete():
                        self._complete(row)
        finally:
            self._attempt = None
            self.progress.phase = "waiting"
            self._rooms.sessions.notify()

    def end(self, outcome: StudyOutcome, reason: str) -> None:
        """Tell every connected site of the study that no more rounds will come."""
        row = self._row()
        ended = StudyEnded(
            study=row.study,
            study_digest=row.digest,
            outcome=outcome,
            model_digest=row.model_digest or NO_MODEL,
            reason=reason,
        )
        for site in self.study.sites.roster:
            session = self._rooms.sessions.get(site)
            if session is not None:
                session.send(ended)

    def _complete(self, row: StudyRow) -> None:
        self._rooms.studies.complete(row)
        self._log.info("study.completed", model=row.model_digest)
        self.end(StudyOutcome.COMPLETED, "every round is closed")

    def _row(self) -> StudyRow:
        return self._rooms.studies.get(self.study.id)

    # --- who can take part -----------------------------------------------------------------------------------------

    def prepare(self, site: SiteId) -> None:
        """Ask a connected site of the study to get ready; it answers StudyPrepared or Refusal."""
        session = self._rooms.sessions.get(site)
        if session is not None and site in self.study.sites.roster:
            self.progress.sites[site] = "preparing"
            session.send(PrepareStudy(study_digest=self.digest))

    def _prepared(self) -> dict[SiteId, tuple[Digest, int]]:
        """Connected sites that are ready, with the first model each of them built and its size."""
        ready: dict[SiteId, tuple[Digest, int]] = {}
        for site in self.study.sites.roster:
            session = self._rooms.sessions.get(site)
            if session is not None and self.digest in session.prepared:
                ready[site] = session.prepared[self.digest]
        return ready

    @property
    def _needed(self) -> int:
        return max(self.study.sites.minimum, self.study.aggregation.threshold)

    async def _wait_until(self, suits: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait for hospitals to come or get ready; False at the timeout, or when the study is not running any more."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not suits():
            self.progress.phase = "waiting for hospitals"
            left = None if deadline is None else deadline - time.monotonic()
            if self._row().state != StudyState.RUNNING or (left is not None and left <= 0):
                return False
            await self._rooms.sessions.changed(left)
        return True

    async def _agree_on_first_model(self, row: StudyRow) -> None:
        """Every site builds the same first model from the study's seed; one of them uploads it."""
        if not await self._wait_until(lambda: len(self._prepared()) >= self._needed):
            return
        # All hospitals of the study are waited for, but not for ever: those that are ready may begin.
        everybody = len(self.study.sites.required)
        await self._wait_until(lambda: len(self._prepared()) == everybody, self.study.aggregation.round_deadline_s)
        ready = self._prepared()
        built = set(ready.values())
        if len(built) > 1:
            shown = "; ".join(f"{site} {model[:12]} ({count} values)" for site, (model, count) in ready.items())
            reason = f"the hospitals built different first models: {shown}. Their software versions differ."
            self._rooms.studies.move(self.study.id, "pause", reason)
            return
        for site, (model_digest, _) in ready.items():
            session = self._rooms.sessions.get(site)
            if session is None:
                continue
            session.send(SendInitialModel(study_digest=self.digest, model_digest=model_digest))
            if await self._first_model_stored(site, model_digest):
                self._rooms.studies.begin(row, tuple(ready), model_digest)
                self._log.info("study.started", sites=len(ready), model=model_digest)
                return

    async def _first_model_stored(self, site: SiteId, model_digest: Digest) -> bool:
        deadline = time.monotonic() + self.study.aggregation.upload_deadline_s
        while (left := deadline - time.monotonic()) > 0:
            match await self._next_between(left):
                case ModelStored(model_digest=found) if found == model_digest:
                    return True
                case SiteLeft(site=gone) if gone == site:
                    return False
                case Stopped() | None:
                    return False
                case _:
                    pass
        return False

    async def _next_between(self, timeout_s: float) -> Inbox | None:
        try:
            return await asyncio.wait_for(self._between.get(), timeout_s)
        except TimeoutError:
            return None

    async def _can_evaluate(self, row: StudyRow) -> bool:
        """Wait until the hospitals that are here can be measured without singling one out; not for ever."""
        measured = frozenset(row.measured) or None

        def suits() -> bool:
            here = frozenset(self._prepared())
            return len(here) >= self._needed and may_measure(here, measured)

        return await self._wait_until(suits, self.study.aggregation.round_deadline_s)

    # --- one attempt -----------------------------------------------------------------------------------------------

    async def _run_attempt(self, row: StudyRow, decision: Run) -> None:
        declined = self._refused.get(row.next_round, frozenset())

        def willing() -> list[SiteId]:
            return [site for site in self._prepared() if site not in declined]

        if not await self._wait_until(lambda: len(willing()) >= self._needed):
            return
        invited = [self._rooms.sites.get(site) for site in willing()]
        invited = [site for site in invited if self._rooms.sites.is_current(site)]
        if len(invited) < self._needed:
            self._rooms.studies.move(self.study.id, "pause", "too few hospitals have a certificate that is still valid")
            return
        plan = self._plan(row, decision, invited)
        raw = plan.to_bytes()
        started = entries.RoundStarted(
            **now_stamp(),
            study=row.study,
            round=plan.round,
            attempt=plan.attempt,
            kind=plan.kind.value,
            plan_sha256=digest_of(raw),
            participants=tuple(p.site for p in plan.participants),
            threshold=plan.threshold,
            model_digest=plan.model_digest,
        )
        self._rooms.studies.open_round(row, plan.kind.value, raw, [entries.entry_bytes(started)])
        for queue in (self._between, self._during):  # whatever is left of the attempt before
            while not queue.empty():
                queue.get_nowait()
        begun = time.monotonic()
        attempt = self._attempt = Attempt(self._rooms, self.digest, plan, frozenset(row.measured) or None)
        self._invite(row, plan, raw, invited)
        await attempt.run(self._during, self.progress)
        self._refused[row.next_round] = declined | attempt.refused
        await self._settle(row, attempt, time.monotonic() - begun)
        if isinstance(attempt.state, Summed):
            await self._hear_verifications(attempt.state)

    def _plan(self, row: StudyRow, decision: Run, invited: list[SiteRow]) -> RoundPlan:
        _, parameter_count = next(iter(self._prepared().values()))
        here = frozenset(site.site for site in invited)
        # Between two measured rounds the survivors must not differ by one hospital: this round may have to go without.
        measured = measures(self.study, decision.kind, decision.round) and may_measure(
            here, frozenset(row.measured) or None
        )
        return RoundPlan(
            consortium=self._rooms.consortium,
            study=row.study,
            study_digest=row.digest,
            kind=decision.kind,
            round=decision.round,
            attempt=decision.attempt,
            participants=tuple(
                Participant(site=s.site, spki_sha256=s.spki_sha256, signing_key=s.signing_key)
                for s in sorted(invited, key=lambda s: s.site)
            ),
            threshold=self.study.aggregation.threshold,
            minimum=self.study.sites.minimum,
            model_digest=row.model_digest,
            previous_transcript=row.transcript,
            layout=round_layout(
                self.study,
                parameter_count=parameter_count,
                kind=decision.kind,
                measured=measured,
            ),
            round_deadline_s=self.study.aggregation.round_deadline_s,
            upload_deadline_s=self.study.aggregation.upload_deadline_s,
        )

    def _invite(self, row: StudyRow, plan: RoundPlan, raw: bytes, invited: list[SiteRow]) -> None:
        certificates: Mapping[SiteId, bytes] = {site.site: site.certificate for site in invited}
        invitation = Invitation(
            plan=raw,
            signature=self._rooms.signing_key.sign(PLAN_SIGNATURE_CONTEXT + raw),
            certificates=tuple(certificates[p.site] for p in plan.participants),
            endorsements=self._rooms.studies.endorsements(row.digest, plan.model_digest),
        )
        for participant in plan.participants:
            session = self._rooms.sessions.get(participant.site)
            if session is not None:
                session.send(invitation)

    async def _settle(self, row: StudyRow, attempt: Attempt, seconds: float) -> None:
        """Record how the attempt ended; only then are its journal and uploads let go."""
        plan, state = attempt.plan, attempt.state
        match state:
            case Summed():
                await self._close(row, attempt, state, seconds)
            case Aborted(reason=reason):
                self._log.warning("round.aborted", round=plan.round, attempt=plan.attempt, reason=reason)
                self._abort(row, plan, reason)
            case Running():
                self._abort(row, plan, "the coordinator stopped before the survivors' shares had arrived")
        self._rooms.journal.forget(plan)
        for digest in attempt.uploads:
            self._rooms.vectors.discard(digest)

    def _abort(self, row: StudyRow, plan: RoundPlan, reason: str) -> None:
        aborted = entries.RoundAborted(
            **now_stamp(), study=row.study, round=plan.round, attempt=plan.attempt, reason=one_line(reason)
        )
        self._rooms.studies.abort_round(row, plan.attempt, reason, [entries.entry_bytes(aborted)])

    async def _close(self, row: StudyRow, attempt: Attempt, summed: Summed, seconds: float) -> None:
        """4.5: masks off, next global model, metrics; state, model and log move on together."""
        plan = summed.plan
        await asyncio.to_thread(attempt.total.remove, summed.removal)
        aggregate = attempt.total.result
        aggregate_hash = vector_hash(aggregate)
        model = self._rooms.models.load(row.model_digest)
        sums = decode(aggregate, plan.layout, survivors=len(summed.survivors))
        after = next_global_model(self.study, plan, model, sums)
        metrics = _figures(sums) if is_measured(plan) else {}
        # Files first: the state must never name a vector or a model that is not there.
        self._rooms.vectors.put(aggregate.tobytes())
        next_digest = self._rooms.models.save(after)
        about = AttemptName(study=row.study, round=plan.round, attempt=plan.attempt)
        logged = [
            entries.entry_bytes(
                entries.RoundClosed(
                    **now_stamp(),
                    **about,
                    survivors=summed.survivors,
                    transcript=summed.transcript.hex(),
                    aggregate_sha256=aggregate_hash.hex(),
                    model_digest=plan.model_digest,
                    next_model_digest=next_digest,
                )
            )
        ]
        if metrics:
            evaluated = entries.ModelEvaluated(
                **now_stamp(), **about, model_digest=plan.model_digest, metrics=tuple(sorted(metrics.items()))
            )
            logged.append(entries.entry_bytes(evaluated))
        facts = RoundClosedFacts(
            kind=plan.kind.value,
            participants=tuple(p.site for p in plan.participants),
            survivors=summed.survivors,
            transcript=Digest(summed.transcript.hex()),
            model_digest=plan.model_digest,
            next_model_digest=next_digest,
            metrics=metrics,
            seconds=seconds,
        )
        self._rooms.studies.close_round(row, plan.attempt, facts, logged)
        self._log.info("round.closed", round=plan.round, survivors=len(summed.survivors), seconds=round(seconds, 3))
        result = RoundResult(
            context=summed.context,
            transcript=summed.transcript,
            aggregate_hash=aggregate_hash,
            next_model_digest=next_digest,
        )
        for site in summed.survivors:
            session = self._rooms.sessions.get(site)
            if session is not None:
                session.send(result)

    async def _hear_verifications(self, summed: Summed) -> None:
        """Wait, not for long, until the survivors have computed the next model too.

        Their signed `model.verified` entries let a hospital that missed the round accept the model (ADR 6).
        """
        row = self._row()
        awaited = {site for site in summed.survivors if self._rooms.sessions.get(site) is not None}
        deadline = time.monotonic() + VERIFIED_WAIT_S
        while awaited and (left := deadline - time.monotonic()) > 0:
            match await self._next_between(left):
                case ModelVerified(site=site, message=message) if message.context == summed.context:
                    awaited.discard(site)
                    if message.next_model_digest != row.model_digest:
                        reason = (
                            f"{site} computed another next model than the coordinator after round {summed.plan.round}"
                        )
                        self._rooms.studies.move(self.study.id, "pause", reason)
                        return
                case SiteLeft(site=site):
                    awaited.discard(site)
                case Stopped() | None:
                    return
                case _:
                    pass

    # --- after a crash ---------------------------------------------------------------------------------------------

    async def _finish_open_attempts(self) -> None:
        """Close from the journal what can be closed; record the rest as aborted. Nothing is run twice."""
        row = self._row()
        for raw in self._rooms.studies.open_plans(row.digest):
            plan = RoundPlan.from_bytes(raw)
            attempt = Attempt(self._rooms, self.digest, plan, frozenset(row.measured) or None)
            await attempt.replay(self._rooms.journal.events(plan))
            await self._settle(row, attempt, 0.0)
            row = self._row()


def _figures(sums: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    """The metrics that have a meaning, by name."""
    return {name: float(value) for name, value in asdict(metrics_of(sums)).items() if value is not None}
