"""The coordinator at work: its rooms, one driver per running study, and the calls that reach them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import structlog

from consortium import __version__, status
from consortium.contract.certificates import PeerIdentity, Role
from consortium.contract.global_model import GlobalModel
from consortium.contract.messages import (
    PROTOCOL_VERSION,
    CoordinatorMessage,
    EnrolmentGrant,
    EnrolmentRequest,
    EventReceipt,
    Hello,
    Refusal,
    ResultVerified,
    SiteMessage,
    StudyDocument,
    StudyOutcome,
    StudyPrepared,
    VectorHeader,
    VectorKind,
    Welcome,
)
from consortium.contract.names import Digest, SiteId
from consortium.contract.study import StudyFile
from consortium.driver import ModelStored, ModelVerified, StudyDriver
from consortium.errors import AccessDenied, AgentTooOld, StudyConflict, StudyUnknown
from consortium.home import CoordinatorHome
from consortium.rooms import Rooms
from consortium.sessions import Session, SessionReplaced
from consortium.studies import StudyState
from consortium.training_round import MessageArrived, SiteLeft, SiteRefused, Stopped, UploadStored
from privacy.errors import PrivacyError
from privacy.secagg import coordinator as secagg
from privacy.secagg.messages import Confirmation, KeyBundle, SealedShares, UnmaskShares

log = structlog.get_logger(__name__)

INITIAL_MODEL_BYTES_MAX = 2 * 2**30
WATCH_INTERVAL_S = 0.2
"""A watcher is told of changes at most this often."""


Executor: TypeAlias = Callable[["Coordinator", str, bytes], Awaitable[bytes]]
"""Carries out a command: its name and canonical JSON arguments -> canonical JSON answer (`commands.py`)."""


class Coordinator:
    """Implements what `wire/server.py` asks of a service; every decision is made elsewhere."""

    def __init__(self, home: CoordinatorHome, rooms: Rooms, execute: "Executor") -> None:
        self.home = home
        self.rooms = rooms
        self._execute = execute
        self.drivers: dict[str, StudyDriver] = {}
        self.serving = False  # whether studies run here, or the command line only opened the home for one command
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # --- studies at work -------------------------------------------------------------------------------------------

    def resume_all(self) -> None:
        """After a start: every study that was running goes on."""
        self.serving = True
        for row in self.rooms.studies.all():
            if row.state == StudyState.RUNNING:
                self.begin_study(row.study)

    def begin_study(self, name: str) -> None:
        """Give a running study its driver, and ask its connected hospitals to get ready."""
        if name in self._tasks and not self._tasks[name].done():
            return
        row = self.rooms.studies.get(name)
        driver = self.drivers[name] = StudyDriver(self.rooms, StudyFile.from_document(row.document), row.digest)
        self._tasks[name] = asyncio.create_task(self._run(name, driver))
        for site in driver.study.sites.roster:
            driver.prepare(site)

    async def _run(self, name: str, driver: StudyDriver) -> None:
        try:
            await driver.run()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a study that fails must not take the others down, nor fail in silence
            log.exception("study.failed", study=name)
            reason = f"the coordinator met an error: {type(error).__name__}: {error}"
            if self.rooms.studies.get(name).state == StudyState.RUNNING:
                self.rooms.studies.move(name, "pause", reason[:200])
        self.rooms.sessions.notify()

    def stop_study(self, name: str, action: str) -> None:
        """Pause or abort: the state first, then whoever is at work."""
        self.rooms.studies.move(name, action)
        driver = self.drivers.get(name)
        if driver is not None:
            driver.deliver(Stopped(reason=f"the operator chose to {action} the study"))
            if action == "abort":
                driver.end(StudyOutcome.ABORTED, "aborted by the operator")
        self.rooms.sessions.notify()

    async def close(self) -> None:
        """Stop every study where it is; a later start goes on from there."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _driver(self, digest: Digest) -> StudyDriver:
        for driver in self.drivers.values():
            if driver.digest == digest:
                return driver
        raise StudyUnknown(digest[:12])

    # --- sessions --------------------------------------------------------------------------------------------------

    async def authenticate(self, peer: PeerIdentity) -> None:
        """Asked before every call: a site must be the one enrolled and not revoked; raises AccessDenied.

        There is one operator certificate, and it never leaves the coordinator's home: the authority's word is enough.
        """
        if peer.role is Role.OPERATOR:
            return
        await asyncio.to_thread(self.rooms.sites.authenticate, peer)

    async def run_session(
        self,
        peer: PeerIdentity,
        hello: Hello,
        incoming: AsyncIterator[SiteMessage],
        send: Callable[[CoordinatorMessage], Awaitable[None]],
    ) -> None:
        """One agent's session, for as long as its stream lives."""
        self._check_version(hello)
        site = peer.site
        with self.rooms.sessions.opened(site) as session:
            log.info("site.connected", site=site, version=hello.agent_version)
            welcome = Welcome(
                consortium=self.rooms.consortium,
                coordinator_version=__version__,
                protocol_version=PROTOCOL_VERSION,
            )
            await send(welcome)
            for driver in self.drivers.values():
                driver.prepare(site)
            writer = asyncio.create_task(_drain(session, send))
            reader = asyncio.create_task(self._hear(session, incoming))
            try:
                done, _ = await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in (writer, reader):
                    task.cancel()
                await asyncio.gather(writer, reader, return_exceptions=True)
                if self.rooms.sessions.current(session):
                    for driver in self.drivers.values():
                        driver.deliver(SiteLeft(site=site))
                log.info("site.disconnected", site=site)
        if session.replaced:
            raise SessionReplaced(site)

    def _check_version(self, hello: Hello) -> None:
        minimum = self.home.config.minimum_agent_version
        if hello.protocol_version < PROTOCOL_VERSION or _version(hello.agent_version) < _version(minimum):
            raise AgentTooOld(f"{hello.agent_version} (protocol {hello.protocol_version})", minimum)

    async def _hear(self, session: Session, incoming: AsyncIterator[SiteMessage]) -> None:
        async for message in incoming:
            if not self.rooms.sessions.current(session):
                return
            self._hear_one(session, message)

    def _hear_one(self, session: Session, message: SiteMessage) -> None:
        site = session.site
        match message:
            case StudyPrepared():
                driver = self._driver(message.study_digest)
                session.prepared[message.study_digest] = (message.model_digest, message.parameter_count)
                driver.progress.sites[site] = "ready"
                self.rooms.sessions.notify()
            case Refusal(round=0):
                self._driver(message.study_digest).progress.sites[site] = f"not ready: {message.rule}"
                log.warning("site.not_ready", site=site, rule=message.rule, explanation=message.explanation)
                self.rooms.sessions.notify()
            case Refusal():
                self._driver(message.study_digest).deliver(SiteRefused(site=site, refusal=message))
            case KeyBundle() | SealedShares() | Confirmation() | UnmaskShares():
                for driver in self.drivers.values():
                    if driver.running is not None and driver.running.context == message.context:
                        driver.deliver(MessageArrived(site=site, message=message))
            case ResultVerified():
                for driver in self.drivers.values():
                    driver.deliver(ModelVerified(site=site, message=message))
            case Hello():
                pass  # a session says hello once; the wire has taken it

    # --- vectors ---------------------------------------------------------------------------------------------------

    def upload_limit(self, peer: PeerIdentity, header: VectorHeader) -> int:
        """How many bytes this upload may have; raises for one nobody asked for, before any of it is read."""
        site = peer.site
        match header.kind:
            case VectorKind.MASKED_UPDATE:
                driver = self._driver(header.study_digest)
                running = driver.running
                if running is None or header.upload is None or header.upload.context != running.context:
                    raise StudyConflict("this attempt is over; the upload is not wanted any more")
                if header.upload.masked_update_hash != header.sha256:
                    raise StudyConflict("the signed header describes another upload than the one announced")
                try:
                    secagg.attributed(header.upload, site)
                    secagg.admit_upload(running.machine, header.upload)
                except PrivacyError as error:
                    raise StudyConflict(str(error)) from error
                return running.plan.layout.size_bytes
            case VectorKind.INITIAL_MODEL:
                self._driver(header.study_digest)
                session = self.rooms.sessions.get(site)
                if session is None or header.study_digest not in session.prepared:
                    raise StudyConflict("nobody asked this site for a first model")
                _, parameter_count = session.prepared[header.study_digest]
                return min(INITIAL_MODEL_BYTES_MAX, 4 * parameter_count + 2**20)
            case _:
                raise AccessDenied(f"sites do not upload vectors of kind {header.kind.value}")

    async def receive_vector(self, peer: PeerIdentity, header: VectorHeader, chunks: AsyncIterator[bytes]) -> None:
        """Spool an upload; it counts only when it is whole."""
        driver = self._driver(header.study_digest)
        if header.kind is VectorKind.MASKED_UPDATE:
            if header.size_bytes != self.upload_limit(peer, header):
                raise StudyConflict(f"a masked update of this round has another size than {header.size_bytes} bytes")
            await self.rooms.vectors.receive(Digest(header.sha256.hex()), chunks)
            assert header.upload is not None  # upload_limit asked for it
            driver.deliver(UploadStored(site=peer.site, header=header.upload))
            return
        digest = Digest(header.sha256.hex())
        path = await self.rooms.vectors.receive(digest, chunks)
        try:
            model = GlobalModel.from_safetensors(path.read_bytes())
        finally:
            self.rooms.vectors.discard(digest)
        driver.deliver(ModelStored(model_digest=self.rooms.models.save(model)))

    async def open_vector(
        self, _peer: PeerIdentity, kind: VectorKind, digest: Digest
    ) -> tuple[VectorHeader, AsyncIterator[bytes]]:
        """A global model or an aggregate, by its digest."""
        match kind:
            case VectorKind.GLOBAL_MODEL:
                store, study = self.rooms.models.store, "0" * 64
            case VectorKind.AGGREGATE:
                store, study = self.rooms.vectors, "0" * 64
            case _:
                raise AccessDenied(f"vectors of kind {kind.value} are not handed out")
        sha256, size_bytes = await asyncio.to_thread(store.describe, digest)
        header = VectorHeader(kind=kind, sha256=sha256, size_bytes=size_bytes, study_digest=Digest(study))

        async def chunks() -> AsyncIterator[bytes]:
            for chunk in store.chunks(digest):
                yield chunk

        return header, chunks()

    # --- one-off calls ---------------------------------------------------------------------------------------------

    async def enrol(self, request: EnrolmentRequest) -> EnrolmentGrant:
        """Certify a site's keys against its one-time token."""
        return await asyncio.to_thread(self.rooms.sites.enrol, request)

    async def submit_events(self, peer: PeerIdentity, events: tuple[bytes, ...]) -> EventReceipt:
        """A site's signed entries; an approval lets it take part at once."""
        receipt = await asyncio.to_thread(self.rooms.sites.submit_events, peer.site, events)
        for driver in self.drivers.values():
            session = self.rooms.sessions.get(peer.site)
            if session is not None and driver.digest not in session.prepared:
                driver.prepare(peer.site)
        self.rooms.sessions.notify()
        return receipt

    async def list_studies(self, peer: PeerIdentity) -> tuple[StudyDocument, ...]:
        """The studies this site is part of."""
        return tuple(
            document
            for document in self.rooms.studies.documents()
            if peer.name in StudyFile.from_document(document.document).sites.required
        )

    async def execute(self, _peer: PeerIdentity, command: str, arguments: bytes) -> bytes:
        """An operator's command; the same table serves a coordinator that is not running."""
        return await self._execute(self, command, arguments)

    async def watch(self, _peer: PeerIdentity) -> AsyncIterator[bytes]:
        """The status now and after every change."""
        while True:
            changed = asyncio.create_task(self.rooms.sessions.changed())
            try:
                yield status.to_bytes(await asyncio.to_thread(status.snapshot, self.rooms, dict(self.drivers)))
                await changed
            finally:
                changed.cancel()
            await asyncio.sleep(WATCH_INTERVAL_S)  # several changes at once are shown once


async def _drain(session: Session, send: Callable[[CoordinatorMessage], Awaitable[None]]) -> None:
    while (message := await session.outgoing.get()) is not None:
        await send(message)


def _version(text: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing; what is not a number counts as 0."""
    return tuple(int(part) if part.isdecimal() else 0 for part in text[:40].split("."))
