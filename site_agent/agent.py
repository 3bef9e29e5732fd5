"""The shell of a running agent: dial out, listen, hand each message to the study it belongs to, dial again.

It listens on nothing. A lost connection is taken up again with growing pauses; what the coordinator says for good
(revoked, too old, replaced by another agent) ends the agent with that message.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import structlog

from consortium import __version__
from consortium.contract.errors import ContractError
from consortium.contract.messages import (
    PROTOCOL_VERSION,
    BundleList,
    CoordinatorMessage,
    Hello,
    Invitation,
    MaskedUpdate,
    PrepareStudy,
    Refusal,
    RoundAborted,
    RoundResult,
    SendInitialModel,
    ShareDelivery,
    SiteMessage,
    StudyEnded,
    VectorHeader,
    VectorKind,
    Welcome,
)
from consortium.contract.names import Digest
from consortium.wire.client import CoordinatorClient, SentRecord, Session
from consortium.wire.errors import CallRefused, ConnectionLost, RefusalCode, TlsRefused, WireError, WireViolation
from consortium.wire.limits import INLINE_BYTES_MAX
from privacy.secagg.messages import CommitmentList, GroupedUnmaskRequest, RevealList, SurvivorProposal, UnmaskRequest
from site_agent.errors import HistoryLost, SiteError
from site_agent.home import AgentHome
from site_agent.ledger import Ledger
from site_agent.plan_check import read_plan
from site_agent.preparation import NOT_APPROVED
from site_agent.store import EgressRecord, Store
from site_agent.study_work import StudyWork

log = structlog.get_logger(__name__)

AttemptMessage: TypeAlias = (
    CommitmentList
    | RevealList
    | BundleList
    | ShareDelivery
    | SurvivorProposal
    | UnmaskRequest
    | GroupedUnmaskRequest
    | RoundAborted
)
"""What is about one attempt, by its context."""

PAUSE_FIRST_S, PAUSE_LONGEST_S = 0.5, 30.0
STEADY_S = 5.0
"""A session that lasted so long was a good one: after it, the pauses begin small again."""
EVENTS_AT_ONCE = 64
SUBMIT_EVERY_S = 1.0
"""Entries that nobody waits for are handed over together, this often (ADR 13)."""
GOODBYE_S = 2.0
"""How long an agent that is stopped takes to hand over what it signed and has not handed over yet."""


class Agent:
    """One hospital's agent."""

    def __init__(self, home: AgentHome, store: Store, ledger: Ledger) -> None:
        self._home = home
        self._store = store
        self._ledger = ledger
        self._line = CoordinatorLine(store)
        # Only studies that a steward approved, so that no coordinator can fill it.
        self._works: dict[Digest, StudyWork] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Take part until `stop` is set.

        Raises:
            CallRefused: The coordinator will not have this agent, and trying again would not change that.
            TlsRefused: Whoever answered is not this consortium's coordinator, or our certificate is not good.
            StoreUnwritable: What leaves could not be written down any more, so nothing leaves.
            HistoryLost: The log has more of this hospital's entries than the agent remembers.
        """
        pause_s = 0.0
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                begun = time.monotonic()
                session = asyncio.create_task(self._session())
                await asyncio.wait({session, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    await self._line.submit_waiting()
                    session.cancel()
                    await asyncio.gather(session, return_exceptions=True)
                    return
                error = session.result()
                if _is_final(error):
                    raise error
                pause_s = next_pause_s(pause_s, time.monotonic() - begun)
                # The pauses of many hospitals must not fall together after the coordinator was away.
                waited_s = pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, protects nothing
                log.warning("coordinator.away", reason=str(error), again_in_s=round(waited_s, 1))
                await asyncio.wait({stopping}, timeout=waited_s)
        finally:
            stopping.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _session(self) -> WireError:
        """One connection, from dialling to its end: what ended it."""
        try:
            client = await dial(self._home, self._line)
            async with (
                client,
                client.session(Hello(agent_version=__version__, protocol_version=PROTOCOL_VERSION)) as session,
            ):
                self._line.bind(client, session)
                try:
                    async for message in session:
                        await self._hear(message)
                finally:
                    self._line.unbind()
                    for work in self._works.values():
                        work.session_ended()
        except WireError as error:
            return error
        except WireViolation as error:  # one bad message must not end the agent, nor be read again at once
            log.error("coordinator.broke_a_rule", reason=str(error), advice=error.advice())  # noqa: TRY400 - no defect here
            return ConnectionLost("the coordinator sent something that breaks the rules of the wire")
        return ConnectionLost("the session ended")

    async def _hear(self, message: CoordinatorMessage) -> None:
        match message:
            case Welcome():
                log.info("coordinator.connected", consortium=message.consortium, version=message.coordinator_version)
                await self._line.submit_events()
                await self._line.check_history()
            case PrepareStudy():
                await self._begin_with(message, message.study_digest)
            case Invitation():
                try:
                    plan = read_plan(message.plan)
                except ContractError as error:
                    log.error("round.plan_unreadable", reason=str(error))  # noqa: TRY400 - the coordinator's fault, not a defect
                    return
                await self._begin_with(message, plan.study_digest, plan.round, plan.attempt)
            case SendInitialModel() | StudyEnded():
                work = self._works.get(message.study_digest)
                if work is not None:
                    await work.deliver(message)
            case RoundResult():
                await self._hear_about_release(message)
            case CommitmentList() | RevealList() | BundleList() | ShareDelivery() | SurvivorProposal() | RoundAborted():
                await self._deliver_to_attempt(message)
            case UnmaskRequest() | GroupedUnmaskRequest():
                if not await self._deliver_to_attempt(message):
                    await self._hear_about_release(message)

    async def _begin_with(
        self, message: PrepareStudy | Invitation, digest: Digest, round_number: int = 0, attempt: int = 0
    ) -> None:
        """Hand over what may begin a study here. Nothing is kept for one that no steward of this hospital approved."""
        work = await self._work_of(digest)
        if work is not None:
            await work.deliver(message)
            return
        log.warning("study.refused", study=digest[:12], rule=NOT_APPROVED.rule, reason=NOT_APPROVED.explanation)
        refusal = Refusal(
            study_digest=digest,
            round=round_number,
            attempt=attempt,
            rule=NOT_APPROVED.rule,
            explanation=NOT_APPROVED.explanation,
        )
        await self._line.send(refusal, digest)

    async def _deliver_to_attempt(self, message: AttemptMessage) -> bool:
        """Hand a message to the study whose attempt it is of; False if there is none."""
        concerned = [work for work in self._works.values() if work.concerns(message.context)]
        for work in concerned:
            await work.deliver(message)
        return bool(concerned)

    async def _hear_about_release(self, message: RoundResult | UnmaskRequest | GroupedUnmaskRequest) -> None:
        """It is for the study in which this site released shares in that attempt, be it before a restart."""
        digest = self._store.released_in(message.context)
        work = await self._work_of(digest) if digest is not None else None
        if work is not None:
            await work.deliver(message)

    async def _work_of(self, digest: Digest) -> StudyWork | None:
        """The work on a study, begun if a steward of this hospital has approved it."""
        work = self._works.get(digest)
        if work is not None:
            return work
        decision = await asyncio.to_thread(self._store.decision, digest)
        return self._work(digest) if decision is not None and decision.decision == "approved" else None

    def _work(self, digest: Digest) -> StudyWork:
        work = self._works[digest] = StudyWork(self._home, self._store, self._ledger, self._line, digest)
        task = asyncio.create_task(work.run())
        self._tasks.add(task)

        def ended(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._works.pop(digest, None)  # the cohort in memory goes with it

        task.add_done_callback(ended)
        return work


def next_pause_s(pause_s: float, lasted_s: float) -> float:
    """The pause after a session that lasted so long, given the pause before it; 0 before the first."""
    if lasted_s >= STEADY_S or pause_s == 0:
        return PAUSE_FIRST_S
    return min(2 * pause_s, PAUSE_LONGEST_S)


def _is_final(error: WireError) -> bool:
    """Whether dialling again can change nothing: somebody has to act."""
    if isinstance(error, CallRefused):
        return error.code not in (RefusalCode.TRY_LATER, RefusalCode.INTERNAL)
    return isinstance(error, TlsRefused)


async def dial(home: AgentHome, line: "CoordinatorLine") -> CoordinatorClient:
    """Connect as this hospital, by the address and the proxy of its own site.yaml; raises WireError."""
    if home.proxy is not None:
        os.environ["https_proxy"] = home.proxy  # the only way gRPC is told
    return await CoordinatorClient.connect(
        home.address, home.ca_pem, home.certificate_pem, home.tls_key_pem, on_sent=line.record
    )


class CoordinatorLine:
    """The connection as studies use it. Everything that leaves is written down first (`site-agent egress`)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client: CoordinatorClient | None = None
        self._session: Session | None = None
        self._turn = asyncio.Lock()
        self._soon: asyncio.Task[None] | None = None
        self._submitted_s = 0.0
        self._in_log = 0  # this site's entries, by the coordinator's word over this connection; 0: not asked yet

    def bind(self, client: CoordinatorClient, session: Session | None) -> None:
        """A connection is there; without a session for the one-off calls of the command line."""
        self._client, self._session = client, session
        self._in_log = 0

    def unbind(self) -> None:
        """The connection is gone. What is kept is handed over with the next one."""
        self._client = self._session = None
        if self._soon is not None:
            self._soon.cancel()

    def record(self, sent: SentRecord) -> None:
        """The hospital's own list of what left, by digest."""
        self._store.record_egress(
            EgressRecord(
                at=time.time(),
                kind=sent.kind,
                study_digest=sent.study_digest or "",
                sha256=sent.sha256,
                size_bytes=sent.size_bytes,
            )
        )

    async def send(self, message: SiteMessage, study_digest: Digest) -> None:
        """Send a session message; raises ConnectionLost when there is no session."""
        if self._session is None:
            raise ConnectionLost("there is no session")
        await self._session.send(message, study_digest=study_digest)

    async def upload(self, header: VectorHeader, data: bytes | memoryview) -> None:
        """Upload a vector, from where it lies; returns when the coordinator has it whole, or a small one is sent."""
        if header.upload is not None and header.size_bytes <= INLINE_BYTES_MAX:
            values = bytes(data)
            message = MaskedUpdate(study_digest=header.study_digest, upload=header.upload, values=values)
            await self.send(message, header.study_digest)
            return
        await self._connected().upload_vector(header, [data])

    async def download(
        self, kind: VectorKind, digest: Digest, limit_bytes: int, into: Callable[[bytes], Awaitable[object]]
    ) -> None:
        """Download a vector, chunk by chunk; its length and SHA-256 are checked on the way."""
        await self._connected().download_vector(kind, digest, limit_bytes, into)

    async def submit_events(self) -> None:
        """Put this site's signed entries into the log, in order, a few at a time."""
        async with self._turn:
            self._submitted_s = time.monotonic()
            while pending := await asyncio.to_thread(self._store.pending_events, EVENTS_AT_ONCE):
                receipt = await self._connected().submit_events(tuple(entry for _, entry in pending))
                self._in_log = receipt.last_sequence
                # What was not sent cannot be in the log, whatever the coordinator says.
                last = min(receipt.last_sequence, pending[-1][0])
                if await asyncio.to_thread(self._store.acknowledge, last) == 0:
                    raise ConnectionLost("the coordinator did not acknowledge this site's entries")

    async def check_history(self) -> None:
        """Raise HistoryLost if the log has entries of this site that the agent does not remember.

        Then an older copy of the agent's home is there, with a ledger as old. If nothing was handed over just now, the
        newest entry that is in the log is, again: it changes nothing there, and the answer says how many there are.
        """
        if self._in_log == 0 and (newest := await asyncio.to_thread(self._store.newest_in_log)) is not None:
            self._in_log = (await self._connected().submit_events((newest,))).last_sequence
        remembered = await asyncio.to_thread(self._store.last_sequence)
        if self._in_log > remembered:
            raise HistoryLost(remembered=remembered, logged=self._in_log)

    def submit_events_soon(self) -> None:
        """The same, for entries that nobody waits for: at once, or together with those of the next second."""
        if self._soon is None or self._soon.done():
            self._soon = asyncio.create_task(self._submit_later())

    async def submit_waiting(self) -> None:
        """What `submit_events_soon` still waits with goes now, if it can; it is kept in any case."""
        if self._soon is not None and not self._soon.done():
            with suppress(WireError, SiteError, TimeoutError):
                await asyncio.wait_for(self.submit_events(), GOODBYE_S)

    async def _submit_later(self) -> None:
        await asyncio.sleep(max(0.0, self._submitted_s + SUBMIT_EVERY_S - time.monotonic()))
        try:
            await self.submit_events()
        except (WireError, SiteError) as error:  # they are kept, and handed over with the next ones
            log.warning("events.not_submitted", reason=str(error))

    def _connected(self) -> CoordinatorClient:
        if self._client is None:
            raise ConnectionLost("there is no connection")
        return self._client
