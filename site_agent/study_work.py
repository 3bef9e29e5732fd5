"""One study at one hospital: prepared once, then round after round until it ends.

The shell around `participation.py`. Everything that happens, a message or the end of a training, is an event in one queue and is
handled to its end before the next; decisions that protect a patient are made in pure modules (`policy.py`, `plan_check.py`,
`participation.py`). What must not be forgotten is on disk before it has any effect.
"""

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import structlog

from audit import entries
from consortium.contract.digest import digest_of
from consortium.contract.global_model import GlobalModel
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
    StudyPrepared,
    VectorHeader,
    VectorKind,
)
from consortium.contract.names import Digest, SiteId
from consortium.contract.plan import RoundKind, RoundPlan, context_of
from consortium.contract.server_optimizer import next_global_model
from consortium.wire.errors import WireError
from privacy.encoding import RingVector, decode, encode
from privacy.errors import BudgetExceeded, PrivacyError
from privacy.secagg import site as secagg
from privacy.secagg.cohort import CohortRule
from privacy.secagg.masks import apply_masks, vector_hash
from privacy.secagg.messages import SurvivorProposal, UnmaskRequest, UploadHeader
from site_agent.errors import SiteError
from site_agent.home import AgentHome
from site_agent.ledger import Ledger
from site_agent.participation import Effect, MaskAndUpload, Participation, UpdateMasked, UpdateReady, step
from site_agent.participation import Event as AttemptEvent
from site_agent.plan_check import Expectation, PlanRefused, check_plan, read_invitation
from site_agent.policy import BUDGET_REFUSED, Refuse
from site_agent.preparation import Declined, Prepared, announce, approved_study, prepare
from site_agent.results import Results
from site_agent.signed_events import SignedEvents
from site_agent.store import ChainLink, Store

if TYPE_CHECKING:  # torch is loaded when a study is prepared, not while the agent waits
    from site_agent.round_values import Lanes, RoundValues

log = structlog.get_logger(__name__)

METRICS_DIFFERENCE_MIN = 2
"""Exact metrics of two survivor sets that differ by one hospital would be that hospital's."""


class Line(Protocol):
    """The connection to the coordinator, as a study uses it."""

    async def send(self, message: SiteMessage, study_digest: Digest) -> None:
        """Send a session message."""

    async def upload(self, header: VectorHeader, data: bytes | memoryview) -> None:
        """Upload a vector."""

    async def download(self, kind: VectorKind, digest: Digest, limit_bytes: int) -> bytes:
        """Download a vector of at most so many bytes."""

    async def submit_events(self) -> None:
        """Hand over the site's signed entries that are not in the log yet."""


class ResultRefused(SiteError):
    """The coordinator's result is not what this site computed from the same sum."""

    def advice(self) -> str:
        """What to do next."""
        return "This site takes no further part in the study. Keep the log and compare it with the other hospitals'."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Computed:
    """Training and evaluation of an attempt are done."""

    plan: RoundPlan
    lanes: "Lanes"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComputationFailed:
    """Training or evaluation of an attempt was not possible."""

    plan: RoundPlan
    error: Exception


WorkEvent: TypeAlias = CoordinatorMessage | Computed | ComputationFailed


class StudyWork:
    """One study at this site."""

    def __init__(self, home: AgentHome, store: Store, ledger: Ledger, line: Line, digest: Digest) -> None:
        self._home = home
        self._store = store
        self._ledger = ledger
        self._line = line
        self._digest = digest
        self._events = SignedEvents(home, store)
        self._inbox: asyncio.Queue[WorkEvent] = asyncio.Queue()
        self._prepared: Prepared | None = None
        self._values: RoundValues | None = None
        self._participation: Participation | None = None
        self._context = b""
        self._lanes: Lanes | None = None
        self._masked: RingVector | None = None
        self._survivors: tuple[SiteId, ...] = ()
        self._computing: set[asyncio.Task[None]] = set()
        self._log = log.bind(study=digest[:12])

    def deliver(self, event: WorkEvent) -> None:
        """Queue something that happened."""
        self._inbox.put_nowait(event)

    async def run(self) -> None:
        """Handle events until cancelled. An event that fails costs this site its place in the attempt, and no more."""
        while True:
            event = await self._inbox.get()
            try:
                await self._handle(event)
            except ResultRefused as error:
                self._participation = None
                self._log.error("study.result_refused", reason=str(error), advice=error.advice())
                self._withdraw(str(error))
                await self._submit_quietly()
            except WireError as error:
                self._participation = None
                self._log.warning("message.not_delivered", reason=str(error))
            except Exception:
                self._participation = None
                self._log.exception("message.failed", kind=type(event).__name__)

    def session_ended(self) -> None:
        """The connection is gone: the attempt under way is lost, which is safe; a trained update is kept."""
        self._participation = None
        while not self._inbox.empty():
            self._inbox.get_nowait()

    async def _handle(self, event: WorkEvent) -> None:
        match event:
            case PrepareStudy():
                await self._prepare()
            case SendInitialModel(model_digest=model_digest):
                await self._send_first_model(model_digest)
            case Invitation():
                await self._join(event)
            case Computed(plan=plan, lanes=lanes):
                if self._is_current(plan):
                    self._lanes = lanes
                    await self._advance(UpdateReady())
            case ComputationFailed(plan=plan, error=error):
                await self._computation_failed(plan, error)
            case BundleList() | ShareDelivery() | SurvivorProposal() | UnmaskRequest() | RoundAborted():
                if event.context == self._context:
                    await self._advance(event)
            case RoundResult():
                if event.context == self._context:
                    await self._verify(event)
            case StudyEnded():
                await self._end(event)
            case _:
                self._log.warning("message.unexpected", kind=type(event).__name__)

    # --- before the first round ------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Answer with the first model built here, or with the rule that stands against the study."""
        try:
            if self._prepared is None:
                self._prepared = await asyncio.to_thread(prepare, self._home, self._store, self._ledger, self._digest)
                from site_agent.round_values import RoundValues  # noqa: PLC0415 - torch

                self._values = RoundValues(self._prepared, self._ledger, self._events)
                announce(self._prepared, self._store, self._events)
                await self._line.submit_events()
            approved_study(self._store, self._digest)
        except Exception as error:
            _raise_if_wire(error)
            await self._refuse(0, 0, error)
            return
        model = self._prepared.first_model
        self._save(model)
        self._log.info("study.prepared", parameters=model.vector.size)
        await self._send(
            StudyPrepared(study_digest=self._digest, model_digest=model.digest(), parameter_count=model.vector.size)
        )

    async def _send_first_model(self, model_digest: Digest) -> None:
        """The first global model is a function of the study: it holds no data, and every site has its own copy."""
        if self._prepared is None or self._prepared.first_model.digest() != model_digest:
            self._log.error("study.first_model_unknown", wanted=model_digest[:12])
            return
        data = self._prepared.first_model.to_safetensors()
        header = VectorHeader(
            kind=VectorKind.INITIAL_MODEL,
            sha256=bytes.fromhex(digest_of(data)),
            size_bytes=len(data),
            study_digest=self._digest,
        )
        await self._line.upload(header, data)

    # --- joining an attempt ----------------------------------------------------------------------------------------

    async def _join(self, invitation: Invitation) -> None:
        """Check the plan and everybody in it, advertise fresh keys, and train while keys are exchanged."""
        plan: RoundPlan | None = None
        self._participation, self._lanes, self._masked = None, None, None
        try:
            plan = read_invitation(invitation, bytes.fromhex(self._home.identity.coordinator_signing_key))
            approved_study(self._store, self._digest)
            if self._prepared is None:
                raise Declined(Refuse("preparation", "this site has not prepared the study"))
            await asyncio.to_thread(self._check, plan, invitation, self._prepared)
            machine, bundle = secagg.begin(
                context_of(plan),
                self._home.site,
                self._home.signing_key,
                os.urandom,
                self._home.long_term_secret,
                cohort=self._cohort_rule(plan),
            )
        except Exception as error:
            _raise_if_wire(error)
            await self._refuse(plan.round if plan else 1, plan.attempt if plan else 1, error)
            return
        self._participation = Participation(plan=plan, machine=machine)
        self._context = bundle.context
        self._log.info("round.joined", round=plan.round, attempt=plan.attempt, kind=plan.kind.value)
        await self._send(bundle)
        task = asyncio.create_task(self._compute(plan))
        self._computing.add(task)
        task.add_done_callback(self._computing.discard)

    def _check(self, plan: RoundPlan, invitation: Invitation, prepared: Prepared) -> None:
        policy = self._home.config.policy
        expected = Expectation(
            consortium=self._home.identity.consortium,
            study=prepared.study,
            site=self._home.site,
            spki_sha256=self._home.identity.spki_sha256,
            parameter_count=prepared.first_model.vector.size,
            first_model=prepared.first_model.digest(),
            chain=self._store.chain(self._digest),
            minimum_sites=policy.minimum_sites,
            minimum_threshold=policy.minimum_threshold,
        )
        authority, now = self._home.ca_certificate, datetime.now(UTC)
        check_plan(plan, invitation.certificates, invitation.endorsements, expected, authority, now)
        for participant in plan.participants:
            self._store.pin_peer(participant.site, participant.spki_sha256, participant.signing_key)

    def _cohort_rule(self, plan: RoundPlan) -> CohortRule:
        """Section 2 for this attempt.

        A private update may be summed over any survivors. Exact metrics may not: a measured round is held against the last
        measured one.
        """
        chain = self._store.chain(self._digest)
        before = chain.measured if chain is not None and _is_measured(plan) else ()
        return CohortRule(
            previous_survivors=frozenset(before) or None,
            least_difference=METRICS_DIFFERENCE_MIN if _is_measured(plan) else 1,
            update_is_private=plan.kind is RoundKind.TRAIN,
        )

    async def _compute(self, plan: RoundPlan) -> None:
        assert self._values is not None  # a plan is joined only when the study is prepared
        try:
            model = await self._model(plan.model_digest)
            lanes = await self._values.lanes(plan, model, self._home.config.policy)
        except Exception as error:  # noqa: BLE001 - handled in turn; training may fail in any library
            self.deliver(ComputationFailed(plan=plan, error=error))
        else:
            self.deliver(Computed(plan=plan, lanes=lanes))

    async def _computation_failed(self, plan: RoundPlan, error: Exception) -> None:
        _raise_if_wire(error)
        if isinstance(error, BudgetExceeded) and self._prepared is not None:
            self._events.add(
                entries.DpExhausted, study=plan.study, dataset=self._prepared.dataset, rule=BUDGET_REFUSED.rule
            )
        await self._line.submit_events()
        if self._is_current(plan):
            self._participation = None
            await self._refuse(plan.round, plan.attempt, error)

    # --- the attempt -----------------------------------------------------------------------------------------------

    def _is_current(self, plan: RoundPlan) -> bool:
        return self._participation is not None and self._participation.plan == plan

    async def _advance(self, event: AttemptEvent) -> None:
        """Step, then perform the effects in their order."""
        if self._participation is None:
            return
        try:
            self._participation, effects = step(self._participation, event)
        except PrivacyError as error:
            self._log.warning("round.out_of_order", reason=str(error))
            return
        for effect in effects:
            if not await self._perform(effect, self._participation.plan):
                return

    async def _perform(self, effect: Effect, plan: RoundPlan) -> bool:
        """One effect; False when the ones after it must not happen."""
        match effect:
            case secagg.Send(message=UploadHeader() as header):
                await self._upload(plan, header)
            case secagg.Send(message=message):
                assert not isinstance(message, UploadHeader)  # taken above
                await self._send(message)
            case secagg.PersistReleased(context=context, transcript=transcript, survivors=survivors):
                # 4.4: on disk before the first share leaves; if it is there already, nothing leaves again.
                if not self._store.record_release(context, self._digest, plan.model_digest, transcript):
                    self._log.error("round.released_before", round=plan.round)
                    return False
                if self._values is not None:
                    self._values.released()
                self._survivors = survivors
            case secagg.Abandon(reason=reason):
                self._log.warning("round.left", round=plan.round, reason=str(reason))
                self._participation = None
                await self._refuse(plan.round, plan.attempt, reason)
                return False
            case MaskAndUpload():
                await self._mask(effect, plan)
        return True

    async def _mask(self, effect: MaskAndUpload, plan: RoundPlan) -> None:
        lanes, self._lanes = self._lanes, None
        assert lanes is not None  # UpdateReady came with them

        def encode_and_mask() -> tuple[RingVector, bytes]:
            vector = encode(lanes, plan.layout, effect.dither)
            apply_masks(vector, effect.masks)
            return vector, vector_hash(vector)

        try:
            self._masked, sha256 = await asyncio.to_thread(encode_and_mask)
        except PrivacyError as error:
            self._participation = None
            await self._refuse(plan.round, plan.attempt, error)
            return
        await self._advance(UpdateMasked(masked_update_hash=sha256))

    async def _upload(self, plan: RoundPlan, upload: UploadHeader) -> None:
        masked, self._masked = self._masked, None
        assert masked is not None  # the header describes it
        header = VectorHeader(
            kind=VectorKind.MASKED_UPDATE,
            sha256=upload.masked_update_hash,
            size_bytes=masked.nbytes,
            study_digest=self._digest,
            upload=upload,
        )
        self._events.add(
            entries.UpdateSubmitted,
            study=plan.study,
            round=plan.round,
            attempt=plan.attempt,
            masked_update_sha256=upload.masked_update_hash.hex(),
            size_bytes=masked.nbytes,
        )
        await self._line.upload(header, masked.data.cast("B"))
        await self._line.submit_events()

    # --- the end of a round, and of the study ----------------------------------------------------------------------

    async def _verify(self, result: RoundResult) -> None:
        """4.5: compute the next global model from the sum, and compare."""
        participation, prepared = self._participation, self._prepared
        if participation is None or prepared is None or not participation.released:
            return
        plan = participation.plan
        aggregate = Digest(result.aggregate_hash.hex())
        raw = await self._line.download(VectorKind.AGGREGATE, aggregate, plan.layout.size_bytes)
        model = await self._model(plan.model_digest)
        sums = decode(np.frombuffer(raw, dtype=plan.layout.dtype), plan.layout, survivors=len(self._survivors))
        after = next_global_model(prepared.study, plan, model, sums)
        if after.digest() != result.next_model_digest:
            raise ResultRefused(
                f"after round {plan.round} the coordinator names model {result.next_model_digest[:12]}, "
                f"but the sum gives {after.digest()[:12]}"
            )
        self._save(after)
        chain = self._store.chain(self._digest)
        measured = self._survivors if _is_measured(plan) else (chain.measured if chain is not None else ())
        link = ChainLink(
            round=plan.round,
            model_digest=after.digest(),
            transcript=Digest(result.transcript.hex()),
            survivors=self._survivors,
            measured=measured,
        )
        self._store.extend_chain(self._digest, link)
        self._events.add(
            entries.ModelVerified,
            study=plan.study,
            round=plan.round,
            attempt=plan.attempt,
            next_model_digest=after.digest(),
        )
        if self._values is not None and self._values.evaluation is not None and _is_measured(plan):
            self._results(prepared).add(plan.round, self._values.evaluation)
        self._participation = None
        await self._line.submit_events()
        await self._send(ResultVerified(context=result.context, next_model_digest=after.digest()))

    async def _end(self, ended: StudyEnded) -> None:
        """No more rounds will come. A final model that this site did not compute itself is fetched."""
        self._participation = None
        self._log.info("study.ended", outcome=ended.outcome.value, reason=ended.reason)
        if self._prepared is not None and ended.model_digest != "0" * 64:
            await self._model(ended.model_digest)
            self._results(self._prepared).finish(ended.outcome.value, ended.model_digest)

    # --- helpers ---------------------------------------------------------------------------------------------------

    def _withdraw(self, reason: str) -> None:
        """Take back the approval, signed for the log: this site does not go on with a coordinator that miscounts."""
        decision = self._store.decision(self._digest)
        if decision is None:
            return
        withdrawn = replace(decision, decision="withdrawn", statement=reason, at=time.time())
        self._events.add(
            entries.StudyRejected,
            decision=withdrawn,
            study=decision.study,
            study_digest=self._digest,
            steward=self._events.pseudonym("agent"),
            reason=reason[:200],
        )

    async def _submit_quietly(self) -> None:
        with suppress(WireError):
            await self._line.submit_events()

    async def _model(self, digest: Digest) -> GlobalModel:
        """A global model by its digest: from this site's folder, else from the coordinator and then checked."""
        path = self._model_path(digest)
        if path.is_file():
            model = GlobalModel.from_safetensors(path.read_bytes())
            if model.digest() == digest:
                return model
        assert self._prepared is not None
        limit = 4 * self._prepared.first_model.vector.size + 2**20
        model = GlobalModel.from_safetensors(await self._line.download(VectorKind.GLOBAL_MODEL, digest, limit))
        if (model.digest(), model.parameters) != (digest, self._prepared.first_model.parameters):
            raise PlanRefused("model", f"a file of model {model.digest()[:12]}", f"model {digest[:12]}")
        self._save(model)
        return model

    def _save(self, model: GlobalModel) -> None:
        path = self._model_path(model.digest())
        path.parent.mkdir(exist_ok=True)
        scratch = path.with_suffix(".partial")
        scratch.write_bytes(model.to_safetensors())
        scratch.replace(path)

    def _model_path(self, digest: Digest) -> Path:
        return self._home.folder / "models" / f"{digest}.safetensors"

    def _results(self, prepared: Prepared) -> Results:
        return Results(self._home.folder / "results" / f"{prepared.study.id}.json", prepared.study.id)

    async def _refuse(self, round_number: int, attempt: int, error: Exception) -> None:
        """Tell the coordinator which rule, without this hospital's numbers; the numbers go to the agent's own log."""
        refusal = refusal_of(error)
        self._log.warning("study.refused", round=round_number, rule=refusal.rule, reason=f"{error}")
        await self._send(
            Refusal(
                study_digest=self._digest,
                round=round_number,
                attempt=attempt,
                rule=refusal.rule,
                explanation=refusal.explanation,
            )
        )

    async def _send(self, message: SiteMessage) -> None:
        await self._line.send(message, self._digest)


def refusal_of(error: Exception) -> Refuse:
    """What the coordinator is told about an error here: a rule and general words, never a message from inside."""
    match error:
        case Declined(refusal=refusal):
            return refusal
        case BudgetExceeded():
            return BUDGET_REFUSED
        case PlanRefused(rule=rule):
            return Refuse(f"plan: {rule}"[:100], "the round plan is not one this site may answer")
        case PrivacyError():
            return Refuse("secure aggregation", "this site left the attempt")
        case SiteError():
            return Refuse("site", f"this site cannot take part ({type(error).__name__})")
        case _:
            return Refuse("failure", "something failed at this site; its operator can see what")


def _raise_if_wire(error: Exception) -> None:
    """A broken connection is not a reason of this hospital's: it goes to whoever reconnects."""
    if isinstance(error, WireError):
        raise error


def _is_measured(plan: RoundPlan) -> bool:
    return any(lane.name == LaneName.TEST_PATIENTS for lane in plan.layout.lanes)
