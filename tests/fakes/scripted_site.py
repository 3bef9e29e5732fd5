"""A hospital that follows a script: the pure site machine behind the real wire, without training and without torch.

    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites["amber-clinic"].script[1, 1] = Phase.COLLECTING     # round 1, attempt 1: break off when asked for that
        world.start(study)
        await world.until(lambda: world.state(study) == "completed")

A site answers everything an agent answers. Its update is the same small vector in every round, so the tests know what
the global model must be.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audit import entries
from audit.cosignature import WitnessSigner
from audit.note import Note, parse_note
from consortium.commands import execute
from consortium.contract.digest import canonical_bytes
from consortium.contract.global_model import GlobalModel
from consortium.contract.messages import (
    BundleList,
    CheckpointReady,
    CoordinatorMessage,
    Hello,
    Invitation,
    LogGrowth,
    LogPosition,
    MaskedUpdate,
    PrepareStudy,
    Refusal,
    ResultVerified,
    RoundAborted,
    RoundResult,
    SendInitialModel,
    ShareDelivery,
    StudyEnded,
    StudyPrepared,
    VectorHeader,
    VectorKind,
)
from consortium.contract.names import Digest
from consortium.contract.plan import RoundPlan, context_of
from consortium.contract.server_optimizer import next_global_model
from consortium.contract.study import StudyFile
from consortium.training_round import Phase
from consortium.wire.client import CoordinatorClient, Session
from consortium.wire.errors import CallRefused, WireError
from consortium.wire.server import RunningServer, ServerCredentials, serve
from privacy.encoding import RingVector, decode, encode
from privacy.errors import OutOfOrder
from privacy.secagg import grouped_site
from privacy.secagg import site as secagg
from privacy.secagg.cohort import CohortRule
from privacy.secagg.masks import apply_masks, vector_hash
from privacy.secagg.messages import (
    CommitmentList,
    GroupedUnmaskRequest,
    RevealList,
    SurvivorProposal,
    UnmaskRequest,
    UploadHeader,
)
from site_agent import participation
from tests.fakes.coordinator_home import Home, Hospital, coordinator_in
from tests.fakes.memory_round import deterministic_entropy
from tests.fakes.small_study import SITES, first_model

HELLO = Hello(agent_version="0.1.0", protocol_version=1)
OPENS: Mapping[type, Phase] = {
    Invitation: Phase.INVITING,
    CommitmentList: Phase.REVEALING,
    RevealList: Phase.INVITING,
    BundleList: Phase.KEYING,
    ShareDelivery: Phase.COLLECTING,
    SurvivorProposal: Phase.CONFIRMING,
    UnmaskRequest: Phase.UNMASKING,
    GroupedUnmaskRequest: Phase.UNMASKING,
}
"""Which phase a message opens for a site."""


def update_of(name: str) -> npt.NDArray[np.float64]:
    """What the site contributes in every training round: float64[3]."""
    return np.full(3, 0.25 * (1 + SITES.index(name)))


@dataclass(eq=False)
class ScriptedSite:
    """One hospital and what it is told to do. Mutable: tests change the script while it runs."""

    world: "World"
    hospital: Hospital
    study: StudyFile
    hello: Hello = HELLO
    prepares: bool = True  # answers PrepareStudy
    fast: bool = False  # sends its update in a message, and its signed entries with its last answer only
    stays_away: bool = False  # after it broke off
    witness: WitnessSigner | None = None  # cosigns the log with it, unseen
    script: dict[tuple[int, int], Phase] = field(default_factory=dict)  # (round, attempt) -> break off when asked
    refuses: dict[tuple[int, int], str] = field(default_factory=dict)  # (round, attempt) -> by this rule
    silent: dict[tuple[int, int], Phase] = field(default_factory=dict)  # (round, attempt) -> say nothing from here on
    changes: dict[tuple[int, int], Callable[[Any], Any]] = field(default_factory=dict)  # (round, attempt) -> a lie
    heard: list[CoordinatorMessage] = field(default_factory=list)
    refused_uploads: list[CallRefused] = field(default_factory=list)
    ended_with: list[Exception] = field(default_factory=list)
    signed: list[bytes] = field(default_factory=list)  # not handed over yet
    client: CoordinatorClient | None = None
    session: Session | None = None
    plan: RoundPlan | None = None
    machine: participation.Machine | None = None
    masked: "RingVector | None" = None
    model: GlobalModel = field(default_factory=first_model)
    back: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return self.hospital.site

    @property
    def inner(self) -> participation.Machine | None:
        """The machine of secure aggregation; in groups, that of its own group."""
        return self.machine.inner if isinstance(self.machine, grouped_site.Grouped) else self.machine

    async def run(self) -> None:
        """Connect, take part, and connect again whenever the line broke."""
        while True:
            try:
                async with self.connect() as client:
                    self.client = client
                    async with client.session(self.hello) as session:
                        self.session = session
                        if self.witness is not None:
                            vkey = self.witness.key.vkey()
                            await self.submit(self.hospital.signs(entries.WitnessEnrolled, vkey=vkey))
                        async for message in session:
                            await self._hear(message)
            except WireError as error:
                self.ended_with.append(error)
            finally:
                self.client = self.session = None
                if not isinstance(self.inner, secagg.Unmasking | secagg.Done):  # as an agent does
                    self.machine = None
            if self.stays_away:
                await self.back.wait()
                self.back.clear()
            await asyncio.sleep(0.02)

    def connect(self, **options: Any) -> Any:
        """A connection as this hospital; a context manager."""
        return self.world.connect(self.hospital, **options)

    def come_back(self) -> None:
        """End its absence."""
        self.stays_away = False
        self.back.set()

    def told(self, kind: type) -> list[Any]:
        """The messages of one kind that it heard."""
        return [message for message in self.heard if isinstance(message, kind)]

    async def submit(self, *events: bytes) -> None:
        assert self.client is not None
        await self.client.submit_events(events)

    # --- inside ---

    async def _hear(self, message: CoordinatorMessage) -> None:
        self.heard.append(message)
        if isinstance(message, Invitation):
            self.plan = RoundPlan.from_bytes(message.plan)
        if self.plan is not None and type(message) in OPENS:
            now = (self.plan.round, self.plan.attempt)
            if self.script.get(now) is OPENS[type(message)]:
                assert self.session is not None
                self.session.close()
                return
            order = tuple(Phase)
            if now in self.silent and order.index(OPENS[type(message)]) >= order.index(self.silent[now]):
                return
        match message:
            case PrepareStudy(study_digest=digest) if self.prepares and digest == self.study.digest():
                await self._send(
                    StudyPrepared(
                        study_digest=digest,
                        model_digest=first_model().digest(),
                        parameter_count=first_model().vector.size,
                    )
                )
            case SendInitialModel():
                await self.upload_model(first_model())
            case Invitation():
                await self._join()
            case BundleList():
                await self._step(secagg.BundlesListed(context=message.context, bundles=message.bundles))
            case ShareDelivery():
                await self._step(
                    secagg.SharesDelivered(
                        context=message.context, members=message.members, deliveries=message.deliveries
                    )
                )
            case SurvivorProposal() | UnmaskRequest() | CommitmentList() | RevealList() | GroupedUnmaskRequest():
                await self._step(message)
            case RoundResult():
                await self._verify(message)
            case RoundAborted() | StudyEnded():
                self.machine = None
            case CheckpointReady() if self.witness is not None:
                await self._cosign(self.witness)
            case _:
                pass

    async def _join(self) -> None:
        plan = self.plan
        assert plan is not None
        rule = self.refuses.get((plan.round, plan.attempt))
        if rule is not None:
            await self._send(
                Refusal(
                    study_digest=plan.study_digest,
                    round=plan.round,
                    attempt=plan.attempt,
                    rule=rule,
                    explanation="by a rule of this hospital",
                )
            )
            return
        if plan.model_digest != self.model.digest():  # it missed a round; the coordinator has the present model only
            assert self.client is not None
            file = bytearray()
            await self.client.download_vector(VectorKind.GLOBAL_MODEL, plan.model_digest, 10_000, file.extend)
            self.model = GlobalModel.from_safetensors(bytes(file))
        self.machine, first = participation.begin(
            context_of(plan),
            self.hospital.site,
            self.hospital.signer(plan.suite),
            deterministic_entropy(f"{self.name} {plan.round} {plan.attempt}"),
            self.hospital.long_term_secret,
            cohort=grouped_site.PRIVATE_UPDATES if plan.group_size else CohortRule(),
        )
        await self._send(first)

    async def _step(self, event: Any) -> None:
        if self.machine is None or self.plan is None:
            return
        step = grouped_site.step if self.plan.group_size else secagg.step
        try:
            self.machine, effects = step(self.machine, event)  # type: ignore[arg-type]
        except OutOfOrder:
            return
        for effect in effects:
            match effect:
                case secagg.Send(message=UploadHeader() as header):
                    try:
                        await self.upload_update(header)
                    except CallRefused as error:  # late: the attempt ended while the upload was under way
                        self.refused_uploads.append(error)
                case secagg.Send(message=message):
                    assert not isinstance(message, UploadHeader)
                    assert self.plan is not None
                    lie = self.changes.get((self.plan.round, self.plan.attempt), lambda message: message)
                    await self._send(lie(message))
                case _:
                    pass
        if isinstance(self.inner, secagg.Masking):
            self.masked = self._mask(self.inner)
            await self._step(secagg.UploadFinished(masked_update_hash=vector_hash(self.masked)))

    def _mask(self, machine: secagg.Masking) -> RingVector:
        assert self.plan is not None
        values = {lane.name: np.ones(lane.length) for lane in self.plan.layout.lanes}
        if "update" in values:
            values["update"] = update_of(self.name)
        if "test_patients" in values:
            values |= {"test_patients": np.array([10.0]), "correct": np.array([5.0]), "site_accuracy": np.array([0.5])}
        vector = encode(values, self.plan.layout, machine.dither)
        apply_masks(vector, machine.masks)
        return vector

    async def upload_update(self, upload: UploadHeader, **changes: Any) -> None:
        """Upload the masked update under this header."""
        assert self.masked is not None
        assert self.client is not None
        data = self.masked.tobytes()
        if self.fast:
            await self._send(MaskedUpdate(study_digest=self.study.digest(), upload=upload, values=data, **changes))
            return
        header = VectorHeader(
            kind=VectorKind.MASKED_UPDATE,
            sha256=upload.masked_update_hash,
            size_bytes=len(data),
            study_digest=self.study.digest(),
            upload=upload,
        )
        await self.client.upload_vector(replace(header, **changes), iter([data]))

    async def upload_model(self, model: GlobalModel) -> None:
        """Upload a first global model."""
        assert self.client is not None
        data = model.to_safetensors()
        header = VectorHeader(
            kind=VectorKind.INITIAL_MODEL,
            sha256=hashlib.sha256(data).digest(),
            size_bytes=len(data),
            study_digest=self.study.digest(),
        )
        await self.client.upload_vector(header, iter([data]))

    async def _verify(self, result: RoundResult) -> None:
        plan = self.plan
        if plan is None or result.context != context_of(plan).digest() or not isinstance(self.machine, secagg.Done):
            return
        assert self.client is not None
        raw, aggregate = bytearray(), Digest(result.aggregate_hash.hex())
        await self.client.download_vector(VectorKind.AGGREGATE, aggregate, plan.layout.size_bytes, raw.extend)
        sums = decode(
            np.frombuffer(bytes(raw), dtype=plan.layout.dtype), plan.layout, survivors=len(self.machine.survivors)
        )
        self.model = next_global_model(self.study, plan, self.model, sums, survivors=len(self.machine.survivors))
        assert self.model.digest() == result.next_model_digest
        verified = self.hospital.signs(
            entries.ModelVerified,
            study=plan.study,
            round=plan.round,
            attempt=plan.attempt,
            next_model_digest=self.model.digest(),
        )
        self.signed.append(verified)
        if not self.fast or plan.round >= self.study.training.rounds:
            await self.submit(*self.signed)
            self.signed.clear()
        answer = ResultVerified(
            context=result.context,
            next_model_digest=self.model.digest(),
            endorsement=verified if self.fast else b"",
        )
        await self._send(answer)

    async def _cosign(self, witness: WitnessSigner) -> None:
        assert self.client is not None
        async for part in self.client.follow_log(LogPosition(size=0, note=b"")):
            if isinstance(part, LogGrowth):
                note = parse_note(part.note)
        own = note.signatures[:1]
        cosigned = Note(text=note.text, signatures=(*own, witness.cosign(note.text, int(time.time()))))
        await self.client.cosign_log(cosigned.to_bytes())

    async def _send(self, message: Any) -> None:
        assert self.session is not None
        await self.session.send(message)


@dataclass(eq=False)
class World:
    """A coordinator that serves, and the hospitals that are connected to it."""

    home: Home
    server: RunningServer
    sites: dict[str, ScriptedSite] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @asynccontextmanager
    async def connect(self, hospital: Hospital) -> AsyncIterator[CoordinatorClient]:
        """A client of a hospital."""
        client = await CoordinatorClient.connect(
            self.address, self.home.coordinator.home.ca_pem, hospital.certificate_pem, hospital.tls_key_pem
        )
        async with client:
            yield client

    def enrol(self, study: StudyFile, *names: str) -> dict[str, ScriptedSite]:
        """Enrol hospitals that approve the study, without connecting them."""
        if study.id not in [row.study for row in self.home.studies.all()]:
            self.home.submit(study)
        for name in names or SITES:
            hospital = self.home.enrol(name)
            self.home.sites.submit_events(hospital.site, [hospital.approves(study)])
            self.sites[name] = ScriptedSite(world=self, hospital=hospital, study=study)
        return self.sites

    async def hospitals(self, study: StudyFile, *names: str) -> dict[str, ScriptedSite]:
        """Enrol hospitals, connect them, and wait until all of them are there."""
        self.enrol(study, *names)
        self.join(*(names or SITES))
        await self.until(lambda: len(self.home.rooms.sessions.connected()) == len(self.sites))
        return self.sites

    def join(self, *names: str) -> None:
        """Let hospitals connect."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self.sites[name].run())

    async def command(self, name: str, **arguments: Any) -> None:
        """An operator's command."""
        await execute(self.home.coordinator, name, canonical_bytes(arguments))

    async def until(self, holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Wait for something to become true; a hospital whose script failed ends the wait."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                for task in self.tasks.values():
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    # --- what is to be seen ---

    def state(self, study: StudyFile) -> str:
        return self.home.studies.get(study.id).state

    def history(self, study: StudyFile) -> list[dict[str, Any]]:
        return list(self.home.studies.history(study.digest()))

    def dropouts(self) -> list[tuple[int, int, str, str]]:
        """(round, attempt, site, phase) of every secagg.dropout in the log."""
        return [
            (entry["round"], entry["attempt"], entry["body"]["site"], entry["body"]["phase"])
            for entry in self.home.log()
            if entry["type"] == "secagg.dropout"
        ]

    def model(self, study: StudyFile) -> list[float]:
        """The present global model's values."""
        row = self.home.studies.get(study.id)
        return [float(value) for value in self.home.rooms.models.load(row.model_digest).vector]


@asynccontextmanager
async def serving(
    parent: Path, sites: Mapping[str, ScriptedSite] | None = None, *, resume: bool = True
) -> AsyncIterator[World]:
    """A coordinator in `parent`, serving on a free port; with `sites` of an earlier one, they move over to it."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(coordinator_in(parent))
        key_pem, certificate_pem = home.coordinator.home.server_pem
        server = await serve(
            home.coordinator,
            address="127.0.0.1:0",
            credentials=ServerCredentials(
                ca_pem=home.coordinator.home.ca_pem, certificate_pem=certificate_pem, key_pem=key_pem
            ),
        )
        stack.push_async_callback(server.stop, 0.2)
        stack.push_async_callback(home.coordinator.close)
        world = World(home=home, server=server, sites=dict(sites or {}))
        for site in world.sites.values():
            site.world = world
        stack.push_async_callback(_stop, world)
        if resume:
            home.coordinator.resume_all()
        yield world


async def _stop(world: World) -> None:
    for task in world.tasks.values():
        task.cancel()
    for task in world.tasks.values():
        with suppress(asyncio.CancelledError, WireError):
            await task
