"""The shell of a running agent: dial out, listen, hand each message to the study it belongs to, dial again.

It listens on nothing. A lost connection is taken up again with growing pauses; what the coordinator says for good
(revoked, too old, replaced by another agent) ends the agent with that message.
"""

import asyncio
import os
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import TypeAlias

import structlog

from consortium import __version__
from consortium.contract import clocks
from consortium.contract.certificates import CertificateRefused
from consortium.contract.errors import ContractError
from consortium.contract.messages import (
    PROTOCOL_VERSION,
    BundleList,
    CheckpointReady,
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
from consortium.contract.names import Digest, SiteId
from consortium.wire import limits
from consortium.wire.client import CoordinatorClient, SentRecord, Session
from consortium.wire.errors import CallRefused, ConnectionLost, RefusalCode, TlsRefused, WireError, WireViolation
from consortium.wire.traffic import Traffic
from privacy.secagg.messages import CommitmentList, GroupedUnmaskRequest, RevealList, SurvivorProposal, UnmaskRequest
from site_agent.deployment import announce_start
from site_agent.egress_log import EgressKeeper, EgressUnwritable
from site_agent.egress_rows import EgressRecord
from site_agent.errors import HistoryLost, SiteError
from site_agent.heartbeat import SiteHeartbeats
from site_agent.home import AgentHome, Connection
from site_agent.ledger import Ledger
from site_agent.log_watch import LogWatch
from site_agent.plan_check import read_plan
from site_agent.renewal import keep_certified
from site_agent.signing_key_change import carry_out, settle_keys
from site_agent.starts import new_start
from site_agent.steward_approval import NOT_APPROVED
from site_agent.store import Store, StoreUnwritable
from site_agent.study_work import StudyWork
from site_agent.traffic_file import TrafficFile
from site_agent.training_child.child_process import child_room
from site_agent.training_room import Rooms

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

PAUSE_FIRST_S, PAUSE_LONGEST_S, PAUSE_GROWTH = 0.5, 30.0, 1.5
"""A coordinator that was killed is back within seconds: four more tries fall into the first five."""
SUSPENDED_S = 300.0
"""While its hospital is suspended an agent tries again this often: nobody but the consortium lead can change it."""
STEADY_S = 5.0
"""A session that lasted so long was a good one: after it, the pauses begin small again."""
EVENTS_AT_ONCE = 64
SUBMIT_EVERY_S = 1.0
"""Entries that nobody waits for are handed over together, this often (ADR 13)."""
GOODBYE_S = 2.0
"""How long an agent that is stopped takes to hand over what it signed and has not handed over yet."""
APPROVALS_EVERY_S = 0.5
"""Whether the approvals of studies under way still stand is looked up this often, besides before anything leaves."""
EGRESS_EVERY_S = 1.0
"""What left is moved to the hospital's own log this often: an append waits for the disk."""


class Agent:
    """One hospital's agent."""

    def __init__(
        self,
        home: AgentHome,
        store: Store,
        ledger: Ledger,
        *,
        announces: bool = False,
        rooms: Rooms = child_room,
        takes_over: bool = False,
    ) -> None:
        """An agent that is not connected yet.

        Args:
            home: The hospital's.
            store: Its memory.
            ledger: Its privacy ledger.
            announces: Whether it signs what is new about this agent, once it is connected (`deployment.py`).
            rooms: Where studies are computed: each in a process of its own, unless told otherwise.
            takes_over: Whether it may take the place of an agent that ran on a copy of this home (`starts.py`).
        """
        self._home = home
        self._rooms = rooms
        self._announces = announces
        self._store = store
        self._ledger = ledger
        self._line = CoordinatorLine(store)
        self._watch = LogWatch(home, store, self._line)
        self._line.watch = self._watch
        self._heartbeats = SiteHeartbeats(home, store, self._watch.clock, lambda: self._watch.cosigned)
        self._egress = EgressKeeper(home, store)
        self._traffic = TrafficFile(home.folder, self._line.traffic)
        # Only studies that a steward approved, so that no coordinator can fill it.
        self._works: dict[Digest, StudyWork] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._takes_over = takes_over
        self._start = new_start()
        self._earlier_starts: tuple[bytes, ...] = ()  # of this home, from when it runs
        self._changing = False  # whether this connection only sees a change of signing keys to its end
        self._renewed = False  # whether a session was ended to begin another with a renewed certificate

    @property
    def line(self) -> "CoordinatorLine":
        """The connection."""
        return self._line

    @property
    def cosigned_entries(self) -> int:
        """How many entries of the log this process cosigned last."""
        return self._watch.cosigned

    async def run(self, stop: asyncio.Event, *, drain_s: float = 0.0, at_once: asyncio.Event | None = None) -> None:
        """Take part until `stop` is set; then, for at most `drain_s`, let attempts under way come to their end.

        Args:
            stop: Asks to stop in order.
            drain_s: How long an attempt may take to its end; after that this site drops out of it.
            at_once: Ends the waiting.

        Raises:
            CallRefused: The coordinator will not have this agent, and trying again would not change that.
            TlsRefused: Whoever answered is not this consortium's coordinator, or our certificate is not good.
            StoreUnwritable: What leaves could not be written down any more, so nothing leaves.
            HistoryLost: The log has more of this hospital's entries than the agent remembers.
            EgressAltered: The hospital's own log of what left was tampered with.
        """
        pause_s = 0.0
        self._earlier_starts = await asyncio.to_thread(self._store.begin_start, self._start)
        await asyncio.to_thread(self._keep_egress)  # before anything leaves
        keeping = asyncio.create_task(self._keep_egress_up())
        obeying = asyncio.create_task(self._obey_stewards())
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                begun = time.monotonic()
                session = asyncio.create_task(self._session())
                await asyncio.wait({session, stopping, keeping}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set() or keeping.done():
                    if not keeping.done():
                        await self._drain(session, drain_s, at_once or asyncio.Event())
                        await self._line.submit_waiting(more=await asyncio.to_thread(self._say_goodbye))
                    session.cancel()
                    await asyncio.gather(session, return_exceptions=True)
                    if keeping.done():
                        keeping.result()
                    return
                error = session.result()
                if self._renewed:  # not a loss: the next connection is made with another certificate
                    self._renewed = False
                    continue
                if _is_final(error):
                    raise error
                if _is_suspended(error):
                    log.warning("site.suspended", reason=str(error), again_in_s=SUSPENDED_S)
                    await asyncio.wait({stopping}, timeout=SUSPENDED_S)
                    continue
                pause_s = next_pause_s(pause_s, time.monotonic() - begun)
                # The pauses of many hospitals must not fall together after the coordinator was away.
                waited_s = pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, protects nothing
                log.warning("coordinator.away", reason=str(error), again_in_s=round(waited_s, 1))
                await asyncio.wait({stopping}, timeout=waited_s)
        finally:
            stopping.cancel()
            for task in (*self._tasks, keeping, obeying):
                task.cancel()
            await asyncio.gather(*self._tasks, keeping, obeying, return_exceptions=True)
            with suppress(SiteError):  # what is not moved now is moved at the next start
                await asyncio.to_thread(self._egress.close)
            await self._watch.close()

    async def _drain(self, session: "asyncio.Task[WireError]", drain_s: float, at_once: asyncio.Event) -> None:
        """Let every attempt under way come to its end, while there is a connection and time; join no other.

        An invitation that comes now is not answered: a refusal would stand in the log as this hospital's word, and a
        study whose hospitals refuse is paused. Whoever leaves without a word is waited for, and is back soon.
        """
        self._draining = True
        works = [asyncio.create_task(work.rests.wait()) for work in self._works.values() if not work.rests.is_set()]
        hurry = asyncio.create_task(at_once.wait())
        try:
            async with asyncio.timeout(drain_s):
                while (pending := [work for work in works if not work.done()]) and not session.done():
                    await asyncio.wait({session, hurry, *pending}, return_when=asyncio.FIRST_COMPLETED)
                    if hurry.done():
                        break
        except TimeoutError:
            log.warning("agent.left_a_round", waited_s=drain_s)
        finally:
            for task in (hurry, *works):
                task.cancel()
            await asyncio.gather(hurry, *works, return_exceptions=True)

    async def _obey_stewards(self) -> None:
        """What a steward takes back stops at once: the command line writes it down, and this looks there."""
        while True:
            await asyncio.sleep(APPROVALS_EVERY_S)
            for work in [one for one in self._works.values() if one.is_busy]:
                try:
                    refused = await asyncio.to_thread(work.objection)
                except SiteError as error:  # what cannot be read is asked again before anything leaves
                    log.warning("approval.not_read", reason=str(error))
                    continue
                if refused is not None:
                    await work.give_up(refused)

    async def _keep_egress_up(self) -> None:
        """What left goes to the hospital's own log, and how much passes is shown; ends only with what stops all."""
        while True:
            await asyncio.sleep(EGRESS_EVERY_S)
            await asyncio.to_thread(self._keep_egress)

    def _keep_egress(self) -> None:
        self._traffic.step()
        try:
            self._egress.step()
        except (EgressUnwritable, StoreUnwritable) as error:  # it is kept in agent.db, or nothing leaves
            log.warning("egress.not_logged", reason=str(error))

    async def _keep_saying(self) -> None:
        """Signs of life, for as long as there is a connection."""
        while (due_s := self._heartbeats.due_in_s()) is not None:
            await asyncio.sleep(due_s)
            try:
                if await asyncio.to_thread(self._heartbeats.step):
                    self._line.submit_events_soon()
            except SiteError as error:  # a disk that is full now may not be in a while; until then the gap says so
                log.warning("heartbeat.not_written", reason=str(error))
                await asyncio.sleep(PAUSE_LONGEST_S)

    async def _keep_certified(self, client: CoordinatorClient, session: Session, shown: Connection) -> None:
        """Renew the certificate when it is due, and begin a session with the new one between two attempts.

        Signing keys that a steward has signed for are changed to there, too.

        The certificate of this connection goes on meanwhile (`consortium.sites.OVERLAP`).
        """
        await keep_certified(self._home, client, shown)
        while unrested := [work for work in self._works.values() if not work.rests.is_set()]:
            await unrested[0].rests.wait()
        self._changing = True  # nothing was awaited since: no attempt begins under keys that are about to change
        try:
            await carry_out(self._home, self._store, self._line, client)
            self._renewed = True
        except (WireError, WireViolation, SiteError, CertificateRefused) as error:
            advice = getattr(error, "advice", str)()
            log.warning("keys.not_changed", reason=str(error), advice=advice)
        session.close()

    def _say_goodbye(self) -> bool:
        """Sign that this agent stops in order; whether that was to be said."""
        try:
            return self._heartbeats.stop()
        except SiteError as error:
            log.warning("heartbeat.not_written", reason=str(error))
            return False

    async def _session(self) -> WireError:
        """One connection, from dialling to its end: what ended it."""
        try:
            self._changing = False
            await asyncio.to_thread(settle_keys, self._home, self._store)
            shown = await asyncio.to_thread(_connection_of, self._home)
            client = await dial(self._home, self._line, shown)
            async with (
                client,
                client.session(await self._hello()) as session,
            ):
                self._line.bind(client, session)
                watching: asyncio.Task[None] | None = None
                saying: asyncio.Task[None] | None = None
                certifying: asyncio.Task[None] | None = None
                try:
                    async for message in session:
                        await self._hear(message)
                        if isinstance(message, Welcome):
                            certifying = asyncio.create_task(self._keep_certified(client, session, shown))
                            watching = asyncio.create_task(self._watch.run(client))
                            watching.add_done_callback(lambda _: session.close())
                            saying = asyncio.create_task(self._keep_saying()) if self._announces else None
                finally:
                    self._line.unbind()
                    for task in (saying, certifying):
                        if task is not None:
                            task.cancel()
                    for work in self._works.values():
                        work.session_ended()
                    if watching is not None:
                        await _ended(watching)
        except WireError as error:
            return error
        except WireViolation as error:  # one bad message must not end the agent, nor be read again at once
            log.error("coordinator.broke_a_rule", reason=str(error), advice=error.advice())  # noqa: TRY400 - no defect here
            return ConnectionLost("the coordinator sent something that breaks the rules of the wire")
        return ConnectionLost("the session ended")

    async def _hello(self) -> Hello:
        return Hello(
            agent_version=__version__,
            protocol_version=PROTOCOL_VERSION,
            start=self._start,
            earlier_starts=self._earlier_starts,
            signed_entries=await asyncio.to_thread(self._store.last_sequence),
            takes_over=self._takes_over,
            unix_time_ms=time.time_ns() // 1_000_000,
        )

    async def _hear_welcome(self, message: Welcome) -> None:
        log.info("coordinator.connected", consortium=message.consortium, version=message.coordinator_version)
        self._takes_over = False  # said once, by a person: the next session is this start's own
        if message.unix_time_ms:
            words = clocks.apart(here_s=time.time(), there_s=message.unix_time_ms / 1000, whose="the coordinator")
            if words is not None:
                log.warning("clock.differs", reason=words, advice=clocks.ADVICE)
        await asyncio.to_thread(self._store.start_welcomed, self._start)

    async def _hear(self, message: CoordinatorMessage) -> None:
        if (self._draining or self._changing) and isinstance(message, Invitation | PrepareStudy | SendInitialModel):
            return
        match message:
            case Welcome():
                await self._hear_welcome(message)
                await self._line.submit_events()
                await self._line.check_history()
                if self._announces and await asyncio.to_thread(announce_start, self._home, self._store):
                    await self._line.submit_events()
            case CheckpointReady():
                self._watch.wake()
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
        work = self._works[digest] = StudyWork(
            self._home, self._store, self._ledger, self._line, digest, rooms=self._rooms
        )
        task = asyncio.create_task(work.run())
        self._tasks.add(task)

        def ended(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._works.pop(digest, None)  # the cohort in memory goes with it

        task.add_done_callback(ended)
        return work


async def _ended(watching: "asyncio.Task[None]") -> None:
    """Stop watching the log; what it found broken is raised here, and ends the agent."""
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


def next_pause_s(pause_s: float, lasted_s: float) -> float:
    """The pause after a session that lasted so long, given the pause before it; 0 before the first."""
    if lasted_s >= STEADY_S or pause_s == 0:
        return PAUSE_FIRST_S
    return min(PAUSE_GROWTH * pause_s, PAUSE_LONGEST_S)


def _is_final(error: WireError) -> bool:
    """Whether dialling again can change nothing: somebody has to act."""
    if isinstance(error, CallRefused):
        return error.code not in (RefusalCode.TRY_LATER, RefusalCode.SUSPENDED, RefusalCode.INTERNAL)
    return isinstance(error, TlsRefused)


def _is_suspended(error: WireError) -> bool:
    return isinstance(error, CallRefused) and error.code is RefusalCode.SUSPENDED


def _connection_of(home: AgentHome) -> Connection:
    return home.connection


async def dial(home: AgentHome, line: "CoordinatorLine", shown: Connection | None = None) -> CoordinatorClient:
    """Connect as this hospital, by the address and the proxy of its own site.yaml; raises WireError.

    Args:
        home: Whose.
        line: Where what leaves is written down.
        shown: The certificate and its key; None for the newest.
    """
    use_proxy(home)
    pair = shown if shown is not None else await asyncio.to_thread(_connection_of, home)
    return await CoordinatorClient.connect(
        home.address, home.ca_pem, pair.certificate_pem, pair.key_pem, on_sent=line.record, traffic=line.traffic
    )


def use_proxy(home: AgentHome) -> None:
    """Dial through the proxy of site.yaml, if it names one, instead of what the environment says."""
    if home.proxy is not None:
        os.environ["https_proxy"] = home.proxy  # the only way gRPC is told


class CoordinatorLine:
    """The connection as studies use it. Everything that leaves is written down first (`site-agent egress`)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.sent_bytes: Counter[str] = Counter()  # by kind, since the start
        self.traffic = Traffic()
        self._client: CoordinatorClient | None = None
        self._session: Session | None = None
        self._turn = asyncio.Lock()
        self._soon: asyncio.Task[None] | None = None
        self._submitted_s = 0.0
        self._in_log = 0  # this site's entries, by the coordinator's word over this connection; 0: not asked yet
        self._bound = asyncio.Event()
        self._uploaded_over: CoordinatorClient | None = None
        self.watch: LogWatch | None = None
        # When the coordinator was known to have taken in how many of this site's entries.
        self._acknowledged: deque[tuple[float, int]] = deque(
            [(time.monotonic(), store.last_acknowledged())], maxlen=4096
        )

    def bind(self, client: CoordinatorClient, session: Session | None) -> None:
        """A connection is there; without a session for the one-off calls of the command line."""
        self._client, self._session = client, session
        self._in_log = 0
        self._bound.set()

    def unbind(self) -> None:
        """The connection is gone. What is kept is handed over with the next one."""
        self._client = self._session = None
        if self._soon is not None:
            self._soon.cancel()

    @property
    def is_connected(self) -> bool:
        """Whether there is a session."""
        return self._session is not None

    def record(self, sent: SentRecord) -> None:
        """The hospital's own list of what left, by digest."""
        self.sent_bytes[sent.kind] += sent.size_bytes
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

    async def upload(self, header: VectorHeader, data: bytes | memoryview, *, again: bool = False) -> None:
        """Upload a vector, from where it lies; returns when the coordinator has it whole, or a small one is sent.

        `again`: it was broken off before, and only what is missing leaves now.
        """
        if header.upload is not None and header.size_bytes <= limits.INLINE_BYTES_MAX:
            values = bytes(data)
            message = MaskedUpdate(study_digest=header.study_digest, upload=header.upload, values=values)
            await self.send(message, header.study_digest)
            return
        self._uploaded_over = self._connected()
        await self._uploaded_over.upload_vector(header, memoryview(data), again=again)

    async def reconnected(self) -> bool:
        """Wait for a session over another connection than the one of the last upload; False if none comes in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.RETURN_S):
                while self._session is None or self._client is self._uploaded_over:
                    self._bound.clear()
                    await self._bound.wait()
                return True
        return False

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
                self._acknowledged.append((time.monotonic(), last))

    async def read_log(self, holds: Callable[[], bool]) -> None:
        """See `LogWatch.read_until`; nothing where nobody watches the log."""
        if self.watch is not None:
            await self.watch.read_until(holds)

    def endorsed_before(self) -> Mapping[str, str]:
        """See `LogWatch.endorsed_before`; none where nobody watches the log."""
        return {} if self.watch is None else self.watch.endorsed_before()

    def acknowledged_before(self, moment_s: float) -> int:
        """The counter of the last entry that the coordinator had taken in by then (monotonic clock)."""
        while len(self._acknowledged) > 1 and self._acknowledged[1][0] <= moment_s:
            self._acknowledged.popleft()
        at, last = self._acknowledged[0]
        return last if at <= moment_s else 0

    def unwitnessed_s(self, roster: Iterable[SiteId], needed: int) -> float:
        """See `LogWatch.unwitnessed_s`; 0 where nobody watches the log."""
        return 0.0 if self.watch is None else self.watch.unwitnessed_s(roster, needed)

    async def look_again(self) -> None:
        """See `LogWatch.look_again`."""
        if self.watch is not None:
            await self.watch.look_again()

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

    async def submit_waiting(self, *, more: bool = False) -> None:
        """What `submit_events_soon` still waits with goes now, or `more` does, if it can; it is kept in any case."""
        if more or (self._soon is not None and not self._soon.done()):
            with suppress(WireError, SiteError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self.submit_events()

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
