"""Real hospital agents on one side of a real wire, and on the other a coordinator that says what a test wants.

    async with consortium_of_agents(tmp_path) as world:
        run = await world.run()                                   # an honest attempt
        run = await world.run(stop_before=UnmaskRequest)          # every survivor signed; nobody was asked for shares
        await world.tell("alder", some_lie)
        await world.settled()
        assert world.shares("alder") == []

The four agents are real: homes on disk, stores, ledgers, DP-SGD on a few synthetic patients, mutual TLS on the loopback
interface. The coordinator holds the real machine of `privacy.secagg.coordinator` and sends what that says, unless the
test changes, withholds or adds messages. It keeps everything that ever left a hospital, by the certificate it came
under.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from audit import entries
from audit.entry_types.steward_entries import StewardSignature
from consortium.contract.certificates import PeerIdentity
from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import measures, round_layout
from consortium.contract.messages import (
    BundleList,
    CoordinatorMessage,
    EventReceipt,
    Hello,
    Invitation,
    MaskedUpdate,
    PrepareStudy,
    Refusal,
    RoundResult,
    ShareDelivery,
    SiteMessage,
    StudyPrepared,
    VectorHeader,
    Welcome,
)
from consortium.contract.names import Digest, RoundNumber, SiteId
from consortium.contract.plan import PLAN_SIGNATURE_CONTEXT, RoundKind, RoundPlan, context_of
from consortium.contract.server_optimizer import next_global_model
from consortium.contract.study import StudyFile
from consortium.wire.server import RunningServer, serve
from privacy.encoding import decode
from privacy.secagg import coordinator as secagg
from privacy.secagg.masks import RunningSum, vector_hash
from privacy.secagg.messages import Confirmation, KeyBundle, SealedShares, UnmaskShares, UploadHeader
from privacy.secagg.suites import SuiteName
from site_agent.agent import Agent
from site_agent.home import AgentHome
from site_agent.ledger import Ledger
from site_agent.store import Decision, Store
from tests.fakes.site_world import SITES, ZEROS, Member, keys, make_home, new_member, small_study
from tests.fakes.stewards import signed
from tests.fakes.wire_world import NAME, RecordingService, pki, server_credentials

WAIT_S = 150.0  # loading torch takes its time on a busy machine
ALDER, BIRCH, CEDAR, DOGWOOD = SITES

Lie = Callable[[SiteId, CoordinatorMessage], list[CoordinatorMessage]]
"""What becomes of a message to a hospital: itself, others, or nothing."""


def honest(_: SiteId, message: CoordinatorMessage) -> list[CoordinatorMessage]:
    """What the machine says is what is sent."""
    return [message]


@cache
def members() -> Mapping[SiteId, Member]:
    """The hospitals, under the authority of the wire."""
    return {name: new_member(pki().authority, name) for name in SITES}


# --- the coordinator's side of the wire ------------------------------------------------------------------------------


@dataclass
class LyingService(RecordingService):
    """Decides nothing: what comes is put in a queue and kept, and what the test says is sent."""

    arrived: "asyncio.Queue[tuple[SiteId, SiteMessage | UploadHeader]]" = field(default_factory=asyncio.Queue)
    from_sites: list[tuple[SiteId, SiteMessage | UploadHeader]] = field(default_factory=list)
    lines: dict[SiteId, Callable[[CoordinatorMessage], Awaitable[None]]] = field(default_factory=dict)
    log: list[tuple[SiteId, entries.Entry]] = field(default_factory=list)

    async def run_session(
        self,
        peer: PeerIdentity,
        hello: Hello,
        incoming: AsyncIterator[SiteMessage],
        send: Callable[[CoordinatorMessage], Awaitable[None]],
    ) -> None:
        await send(Welcome(consortium=NAME, coordinator_version="0.1.0", protocol_version=1))
        self.lines[peer.site] = send
        try:
            async for message in incoming:
                if isinstance(message, MaskedUpdate):
                    self.vectors[message.upload.masked_update_hash.hex()] = message.values
                    self._hear(peer.site, message.upload)
                else:
                    self._hear(peer.site, message)
        finally:
            if self.lines.get(peer.site) is send:
                del self.lines[peer.site]

    async def receive_vector(self, peer: PeerIdentity, header: VectorHeader, chunks: AsyncIterator[bytes]) -> None:
        await super().receive_vector(peer, header, chunks)
        if header.upload is not None:
            self._hear(peer.site, header.upload)

    async def submit_events(self, peer: PeerIdentity, events: tuple[bytes, ...]) -> EventReceipt:
        parsed = [entries.parse_entry(event) for event in events]
        self.log += [(peer.site, entry) for entry in parsed if (peer.site, entry) not in self.log]
        return EventReceipt(last_sequence=parsed[-1].site_seq)  # type: ignore[attr-defined]  # sites sign site entries

    def _hear(self, name: SiteId, message: SiteMessage | UploadHeader) -> None:
        self.from_sites.append((name, message))
        self.arrived.put_nowait((name, message))


# --- a hospital's process ------------------------------------------------------------------------------------------


@dataclass
class RunningAgent:
    """One agent's process, as far as one can be had inside another: what is in memory is gone when it stops."""

    home: AgentHome
    store: Store
    stop: asyncio.Event
    task: "asyncio.Task[None]"

    @classmethod
    def begin(cls, home: AgentHome) -> "RunningAgent":
        store, stop = Store(home.folder / "agent.db"), asyncio.Event()
        agent = Agent(home, store, Ledger(home.folder / "ledger.db"))
        return cls(home=home, store=store, stop=stop, task=asyncio.create_task(agent.run(stop)))

    async def end(self) -> None:
        self.stop.set()
        await asyncio.gather(self.task, return_exceptions=True)


# --- an attempt ----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Run:
    """One attempt, as far as the coordinator took it."""

    plan: RoundPlan
    context: bytes
    state: secagg.State
    total: RunningSum
    said: dict[SiteId, list[SiteMessage | UploadHeader]] = field(default_factory=dict)
    withheld: dict[SiteId, CoordinatorMessage] = field(default_factory=dict)  # at which the run was stopped

    @property
    def closed(self) -> bool:
        """Whether the sum was opened."""
        return isinstance(self.state, secagg.Done)

    def kinds(self, name: str) -> list[str]:
        """What one hospital said, by kind, in order."""
        return [type(message).__name__ for message in self.said.get(SiteId(name), [])]


@dataclass
class World:
    """The agents, the wire, and the coordinator's memory."""

    study: StudyFile
    folder: Path
    service: LyingService
    server: RunningServer
    agents: dict[SiteId, RunningAgent] = field(default_factory=dict)
    model: GlobalModel | None = None
    transcript: Digest = ZEROS
    next_round: int = 1
    attempts: int = 0

    # --- what left ---

    def shares(self, name: str | None = None) -> list[UnmaskShares]:
        """Every message with shares that ever left a hospital, or one of them."""
        return [
            message
            for site, message in self.service.from_sites
            if isinstance(message, UnmaskShares) and name in (None, site)
        ]

    def owners(self, name: str, *, context: bytes) -> tuple[set[SiteId], set[SiteId]]:
        """Of whom a hospital revealed shares of b, and of whom shares of r, in one attempt."""
        released = [message for message in self.shares(name) if message.context == context]
        return (
            {share.owner for message in released for share in message.self_mask_shares},
            {share.owner for message in released for share in message.root_shares},
        )

    def left(self, name: str, kind: type, *, context: bytes) -> list[Any]:
        """What one hospital sent of one kind in one attempt."""
        return [
            message
            for site, message in self.service.from_sites
            if site == name and isinstance(message, kind) and message.context == context
        ]

    # --- talking ---

    async def tell(self, name: str, message: CoordinatorMessage) -> None:
        """Say something to one hospital."""
        await self.service.lines[SiteId(name)](message)

    async def connected(self, *names: str) -> None:
        """Wait until these hospitals have a session."""
        await _until(lambda: set(names or SITES) <= self.service.lines.keys())

    async def settled(self, *names: str) -> None:
        """Wait until everything that was said to these hospitals is handled: they answer a question asked after it."""
        for name in names or SITES:
            await self.tell(name, PrepareStudy(study_digest=self.study.digest()))
        await self._hear_prepared(set(names or SITES))

    async def answers(self, kind: type, *names: str, context: bytes) -> dict[SiteId, Any]:
        """Wait until each of these hospitals has said something of one kind in one attempt; the first of each."""
        await _until(lambda: all(self.left(name, kind, context=context) for name in names))
        return {SiteId(name): self.left(name, kind, context=context)[0] for name in names}

    async def prepare(self) -> None:
        """Every hospital is ready, with the same first model."""
        await self.connected()
        await self.settled()
        if self.model is None:
            (answer,) = {message for _, message in self.service.from_sites if isinstance(message, StudyPrepared)}
            path = self.agents[ALDER].home.folder / "models" / f"{answer.model_digest}.safetensors"
            self.model = GlobalModel.from_safetensors(path.read_bytes())

    async def _hear_prepared(self, awaited: set[str]) -> None:
        async with asyncio.timeout(WAIT_S):
            while awaited:
                name, message = await self.service.arrived.get()
                if isinstance(message, StudyPrepared | Refusal) and getattr(message, "round", 0) == 0:
                    awaited.discard(name)

    # --- processes that die ---

    async def restart_agent(self, name: str) -> None:
        """Kill a hospital's agent and start another on the same home."""
        site = SiteId(name)
        await self.agents[site].end()
        await _until(lambda: site not in self.service.lines)
        self.agents[site] = RunningAgent.begin(self.agents[site].home)
        await self.connected(name)

    async def restart_coordinator(self) -> None:
        """The coordinator's process dies; the one after it has the same address, certificate and keys, and no memory.

        What left the hospitals before is still remembered here, by the test.
        """
        port = self.server.port
        await self.server.stop(0.0)
        self.service.lines.clear()
        while not self.service.arrived.empty():
            self.service.arrived.get_nowait()
        self.server = await serve(self.service, address=f"127.0.0.1:{port}", credentials=server_credentials())
        await self.connected()

    # --- attempts ---

    def plan(self, *, sites: tuple[str, ...] = SITES, measured: bool | None = None, **changes: Any) -> RoundPlan:
        """The plan of the next attempt at the next round, but for `changes`."""
        assert self.model is not None
        number = RoundNumber(changes.pop("round", self.next_round))
        kind = RoundKind.TRAIN if number <= self.study.training.rounds else RoundKind.EVALUATE
        if measured is None:
            measured = measures(self.study, kind, number)
        self.attempts += 1
        fields: dict[str, Any] = {
            "consortium": NAME,
            "suite": SuiteName(self.study.aggregation.suite),
            "study": self.study.study_id,
            "study_digest": self.study.digest(),
            "kind": kind,
            "round": number,
            "attempt": self.attempts,
            "participants": tuple(members()[SiteId(name)].participant for name in sorted(sites)),
            "threshold": self.study.aggregation.threshold,
            "minimum": self.study.sites.minimum,
            "model_digest": self.model.digest(),
            "previous_transcript": self.transcript,
            "layout": round_layout(self.study, parameters=self.model.parameters, kind=kind, measured=measured),
            "round_deadline_s": self.study.aggregation.round_deadline_s,
            "upload_deadline_s": self.study.aggregation.upload_deadline_s,
        }
        return RoundPlan(**{**fields, **changes})

    def invitation(self, plan: RoundPlan) -> Invitation:
        """The signed invitation to a plan."""
        raw = plan.to_bytes()
        return Invitation(
            plan=raw,
            signature=keys().coordinator.sign(PLAN_SIGNATURE_CONTEXT + raw),
            certificates=tuple(members()[p.site].certificate_der for p in plan.participants),
            endorsements=(),
        )

    async def run(
        self,
        plan: RoundPlan | None = None,
        *,
        lie: Lie = honest,
        plans: Mapping[SiteId, RoundPlan] | None = None,
        drops: tuple[str, ...] = (),
        stop_before: type[CoordinatorMessage] | None = None,
    ) -> Run:
        """Run an attempt until it is over, or until the machine wants to send the first message of one kind.

        Args:
            plan: What the attempt is about, by default the honest plan.
            lie: What becomes of every message on its way to a hospital.
            plans: Another plan for some hospitals.
            drops: Hospitals whose upload is treated as if it had not come.
            stop_before: Messages of this kind, and everything after them, are kept back in `withheld`.
        """
        plan = plan or self.plan()
        context = context_of(plan)
        state, _ = secagg.begin(context)
        run = Run(plan=plan, context=context.digest(), state=state, total=RunningSum(plan.layout))
        while not self.service.arrived.empty():
            self.service.arrived.get_nowait()
        for participant in plan.participants:
            shown = (plans or {}).get(participant.site, plan)
            await self._say(run, lie, participant.site, self.invitation(shown))
        while not isinstance(run.state, secagg.Done | secagg.Aborted) and not self._stopped(run, stop_before):
            async with asyncio.timeout(WAIT_S):
                name, message = await self.service.arrived.get()
            run.said.setdefault(name, []).append(message)
            event = self._event(run, name, message, drops)
            if event is not None:
                await self._step(run, event, lie, stop_before)
        return run

    def _stopped(self, run: Run, stop_before: type[CoordinatorMessage] | None) -> bool:
        return stop_before is not None and any(isinstance(message, stop_before) for message in run.withheld.values())

    def _event(
        self, run: Run, name: SiteId, message: SiteMessage | UploadHeader, drops: tuple[str, ...]
    ) -> secagg.Event | None:
        match message:
            case UploadHeader() if name in drops:
                return secagg.SiteLost(site=name)
            case Refusal() if (message.round, message.attempt) == (run.plan.round, run.plan.attempt):
                return secagg.SiteLost(site=name)
            case KeyBundle() | SealedShares() | UploadHeader() | Confirmation() | UnmaskShares():
                return message
            case _:
                return None

    async def _step(
        self, run: Run, event: secagg.Event, lie: Lie, stop_before: type[CoordinatorMessage] | None
    ) -> None:
        run.state, effects = secagg.step(run.state, event)
        for effect in effects:
            for name, message in self._messages(run, effect):
                if stop_before is not None and isinstance(message, stop_before):
                    run.withheld[name] = message
                else:
                    await self._say(run, lie, name, message)

    def _messages(self, run: Run, effect: secagg.Effect) -> list[tuple[SiteId, CoordinatorMessage]]:
        match effect:
            case secagg.SendBundles(to=to, bundles=bundles):
                return [(name, BundleList(context=run.context, bundles=bundles)) for name in to]
            case secagg.SendShares(to=name, members=names, deliveries=deliveries):
                return [(name, ShareDelivery(context=run.context, members=names, deliveries=deliveries))]
            case secagg.AddUpload(masked_update_hash=digest):
                vector = np.frombuffer(self.service.vectors[digest.hex()], dtype=run.plan.layout.dtype)
                run.total.add(vector.copy())
                return []
            case secagg.SendProposal(to=to, proposal=proposal):
                return [(name, proposal) for name in to]
            case secagg.SendUnmaskRequest(to=to, request=request):
                return [(name, request) for name in to]
            case secagg.Unmasked(removal=removal):
                run.total.remove(removal)
                return []
            case _:
                return []

    async def _say(self, run: Run, lie: Lie, name: SiteId, message: CoordinatorMessage) -> None:
        for told in lie(name, message):
            await self.tell(name, told)

    async def finish(self, run: Run) -> None:
        """Give the machine every share that has arrived, whenever that was."""
        for message in self.shares():
            if message.context == run.context and not isinstance(run.state, secagg.Done):
                await self._step(run, message, honest, None)

    async def close(self, run: Run) -> None:
        """Publish what came of an attempt, and let every survivor verify it."""
        assert isinstance(run.state, secagg.Done)
        assert self.model is not None
        aggregate = run.total.result
        sums = decode(aggregate, run.plan.layout, survivors=len(run.state.survivors))
        after = next_global_model(self.study, run.plan, self.model, sums, survivors=len(run.state.survivors))
        self.service.vectors[vector_hash(aggregate).hex()] = aggregate.tobytes()
        file = after.to_safetensors()
        self.service.vectors[hashlib.sha256(file).hexdigest()] = file
        result = RoundResult(
            context=run.context,
            transcript=run.state.transcript,
            aggregate_hash=vector_hash(aggregate),
            next_model_digest=after.digest(),
        )
        for name in run.state.survivors:
            await self.tell(name, result)
        await self.settled(*run.state.survivors)
        self.model, self.next_round = after, run.plan.round + 1
        self.transcript = Digest(run.state.transcript.hex())


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def consortium_of_agents(folder: Path, study: StudyFile | None = None, **policy: Any) -> AsyncIterator[World]:
    """Four agents that approved the study, connected to the coordinator and prepared."""
    study = study or small_study()
    service = LyingService()
    server = await serve(service, address="127.0.0.1:0", credentials=server_credentials())
    world = World(study=study, folder=folder, service=service, server=server)
    try:
        for name in SITES:
            home = make_home(
                folder / name,
                study,
                authority=pki().authority,
                member=members()[name],
                address=f"127.0.0.1:{server.port}",
                **policy,
            )
            agent = RunningAgent.begin(home)
            agent.store.add_events([], decision=_approval(study, signed(agent.home, agent.store, study)))
            world.agents[name] = agent
        await world.prepare()
        yield world
    finally:
        for agent in world.agents.values():
            await agent.end()
        await world.server.stop(0.0)


def _approval(study: StudyFile, signatures: tuple[StewardSignature, ...]) -> Decision:
    return Decision(
        study_digest=study.digest(),
        study=study.study_id,
        document=study.document(),
        decision="approved",
        steward="Dr Somebody",
        statement="I have read it.",
        at=1.0,
        signatures=signatures,
    )
