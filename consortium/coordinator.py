"""The coordinator at work: its rooms, one driver per running study, and the calls that reach them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import structlog

from audit.fields import one_line
from consortium import __version__, secagg_attempt, status
from consortium.attempt import masked_sum_name, upload_name
from consortium.contract.certificates import PeerIdentity, Role
from consortium.contract.global_model import GlobalModel
from consortium.contract.messages import (
    PROTOCOL_VERSION,
    CoordinatorMessage,
    EnrolmentGrant,
    EnrolmentRequest,
    EventReceipt,
    Hello,
    MaskedUpdate,
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
from consortium.contract.plan import RoundPlan
from consortium.contract.study import StudyFile
from consortium.driver import ModelStored, ModelVerified, StudyDriver
from consortium.errors import AccessDenied, AgentTooOld, UploadRefused
from consortium.home import CoordinatorHome
from consortium.rooms import Rooms
from consortium.sessions import Session, SessionReplaced
from consortium.studies import StudyState
from consortium.training_round import MessageArrived, SiteLeft, SiteRefused, Stopped, UploadStored
from consortium.vectors import VectorMissing
from privacy.errors import OutOfOrder, PrivacyError
from privacy.secagg import coordinator as secagg
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconReveal,
    Confirmation,
    KeyBundle,
    SealedShares,
    UnmaskShares,
)

log = structlog.get_logger(__name__)

INITIAL_MODEL_BYTES_MAX = 2 * 2**30
INITIAL_MODEL_HEADER_BYTES_MAX = 2**20
"""Names and shapes of the parameters, beside their values."""
BACKLOG_MAX, BACKLOG_WAIT_S = 1024, 0.5
"""Messages that may wait for one attempt; an honest round has five for each site."""
WATCH_INTERVAL_S = 0.2
"""A watcher is told of changes at most this often."""

Executor: TypeAlias = Callable[["Coordinator", str, bytes], Awaitable[bytes]]
"""Carries out a command: its name and canonical JSON arguments -> canonical JSON answer (`commands.py`)."""


class Coordinator:
    """Implements what `wire/server.py` asks of a service; every decision is made elsewhere."""

    def __init__(self, home: CoordinatorHome, rooms: Rooms, execute: Executor) -> None:
        self.home = home
        self.rooms = rooms
        self._execute = execute
        self.drivers: dict[str, StudyDriver] = {}
        self.serving = False  # whether studies run here, or the command line only opened the home for one command
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._uploading: set[SiteId] = set()

    # --- studies at work -------------------------------------------------------------------------------------------

    def resume_all(self) -> None:
        """After a start: every study that was running goes on."""
        self.serving = True
        studies = self.rooms.studies
        plans = [RoundPlan.from_bytes(raw) for row in studies.all() for raw in studies.open_plans(row.digest)]
        self.rooms.uploads.discard_all_but({masked_sum_name(plan) for plan in plans})
        for row in studies.all():
            if row.state == StudyState.RUNNING:
                self.begin_study(row.study)
            elif row.state == StudyState.ABORTED:
                self._abandon_attempts(row.study)

    def begin_study(self, name: str) -> None:
        """Give a running study its driver, which greets the hospitals that are connected."""
        before = self._tasks.get(name)
        row = self.rooms.studies.get(name)
        driver = StudyDriver(self.rooms, StudyFile.from_document(row.document), row.digest)
        self.drivers[name] = driver
        self._tasks[name] = asyncio.create_task(self._run(name, driver, before))
        for site in driver.study.sites.roster:
            driver.greet(site)

    async def _run(self, name: str, driver: StudyDriver, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:  # paused a moment ago: it is still writing down how its attempt ended
                await asyncio.wait({before})
            await driver.run()
        except Exception as error:  # a study that fails must not take the others down, nor fail in silence
            log.exception("study.failed", study=name)
            self._fail(name, f"the coordinator met an error: {type(error).__name__}: {error}")
        self.rooms.sessions.notify()

    def _fail(self, name: str, reason: str) -> None:
        try:
            if self.rooms.studies.get(name).state == StudyState.RUNNING:
                self.rooms.studies.move(name, "pause", reason)
        except Exception:  # the disk that failed the study may fail this too
            log.exception("study.not_paused", study=name)

    def stop_study(self, name: str, action: str) -> None:
        """Pause or abort: the state first, then whoever is at work."""
        self.rooms.studies.move(name, action)
        driver = self.drivers.get(name)
        if driver is not None:
            driver.deliver(Stopped(reason=f"the operator chose to {action} the study"))
            if action == "abort":
                driver.end(StudyOutcome.ABORTED, "aborted by the operator")
        if action == "abort" and (name not in self._tasks or self._tasks[name].done()):
            self._abandon_attempts(name)
        self.rooms.sessions.notify()

    def _abandon_attempts(self, name: str) -> None:
        """An aborted study has no driver to finish what an earlier process left open."""
        if self.rooms.studies.abandon_rounds(name, "the study was aborted"):
            self.rooms.journal.scrub()

    async def close(self) -> None:
        """Stop every study where it is; a later start goes on from there."""
        self.serving = False
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _driver(self, digest: Digest) -> StudyDriver | None:
        return next((driver for driver in self.drivers.values() if driver.digest == digest), None)

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
        replaces = self.rooms.sessions.get(site) is not None
        with self.rooms.sessions.opened(site) as session:
            log.info("site.connected", site=site, version=hello.agent_version, replaces=replaces)
            if replaces:  # what the agent before knew of an attempt, this one does not
                self._left(site)
            welcome = Welcome(
                consortium=self.rooms.consortium,
                coordinator_version=__version__,
                protocol_version=PROTOCOL_VERSION,
            )
            await send(welcome)
            for driver in self.drivers.values():
                driver.greet(site)
            tasks = {
                asyncio.create_task(_drain(session, send)),
                asyncio.create_task(self._hear(session, incoming)),
                asyncio.create_task(session.ended.wait()),
            }
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if not session.replaced:
                    self._left(site)
                log.info("site.disconnected", site=site)
        if session.replaced:
            raise SessionReplaced(site)

    def _left(self, site: SiteId) -> None:
        for driver in self.drivers.values():
            driver.deliver(SiteLeft(site=site))

    def _check_version(self, hello: Hello) -> None:
        minimum = self.home.config.minimum_agent_version
        if hello.protocol_version < PROTOCOL_VERSION or _version(hello.agent_version) < _version(minimum):
            raise AgentTooOld(f"{hello.agent_version} (protocol {hello.protocol_version})", minimum)

    async def _hear(self, session: Session, incoming: AsyncIterator[SiteMessage]) -> None:
        async for message in incoming:
            if not self.rooms.sessions.current(session):
                return
            self._hear_one(session, message)
            # A site that sends faster than its messages are handled is read no further until they are.
            while any(driver.backlog > BACKLOG_MAX for driver in self.drivers.values()):
                await self.rooms.sessions.changed(BACKLOG_WAIT_S)

    def _hear_one(self, session: Session, message: SiteMessage) -> None:
        site = session.site
        match message:
            case StudyPrepared() | Refusal(round=0):
                self._hear_readiness(session, message)
            case Refusal():
                for driver in self.drivers.values():
                    plan = driver.running.plan if driver.running is not None else None
                    # An answer to an earlier attempt says nothing about this one.
                    about = (message.study_digest, message.round, message.attempt)
                    if plan is not None and about == (plan.study_digest, plan.round, plan.attempt):
                        driver.deliver(SiteRefused(site=site, refusal=message))
            case BeaconCommitment() | BeaconReveal() | KeyBundle() | SealedShares() | Confirmation() | UnmaskShares():
                for driver in self.drivers.values():
                    if driver.running is not None and driver.running.hears(message.context):
                        driver.deliver(MessageArrived(site=site, message=message))
            case MaskedUpdate():
                self._hear_update(site, message)
            case ResultVerified():
                for driver in self.drivers.values():
                    driver.deliver(ModelVerified(site=site, message=message))
            case Hello():
                pass  # a session says hello once; the wire has taken it

    def _hear_update(self, site: SiteId, message: MaskedUpdate) -> None:
        """An upload without a call of its own. Whether its header holds is decided in the attempt, as for any."""
        driver = self._driver(message.study_digest)
        running = driver.running if driver is not None else None
        wanted = running is not None and running.hears(message.upload.context)
        if driver is None or running is None or not wanted or len(message.values) != running.plan.layout.size_bytes:
            log.warning("upload.unwanted", site=site, size_bytes=len(message.values))
            return
        driver.deliver_small(UploadStored(site=site, header=message.upload), message.values)

    def _hear_readiness(self, session: Session, message: StudyPrepared | Refusal) -> None:
        site = session.site
        driver = self._driver(message.study_digest)
        if driver is None or site not in driver.study.sites.roster:
            log.warning("site.unexpected_answer", site=site, study=message.study_digest[:12])
            return
        match message:
            case StudyPrepared():
                session.prepared[message.study_digest] = (message.model_digest, message.parameter_count)
                driver.progress.sites[site] = "ready"
            case Refusal():
                session.prepared.pop(message.study_digest, None)
                driver.progress.sites[site] = f"not ready: {one_line(message.rule)}"
                log.warning("site.not_ready", site=site, rule=message.rule, explanation=message.explanation)
        self.rooms.sessions.notify()

    # --- vectors ---------------------------------------------------------------------------------------------------

    def upload_limit(self, peer: PeerIdentity, header: VectorHeader) -> int:
        """How many bytes this upload may have; raises for one nobody asked for, before any of it is read."""
        driver = self._driver(header.study_digest)
        match header.kind:
            case VectorKind.MASKED_UPDATE:
                running = driver.running if driver is not None else None
                if running is None or header.upload is None or not running.hears(header.upload.context):
                    raise UploadRefused("this attempt is over; the upload is not wanted any more")
                if header.upload.masked_update_hash != header.sha256:
                    raise UploadRefused("the signed header describes another upload than the one announced")
                try:
                    secagg.attributed(header.upload, peer.site)
                    secagg_attempt.admit_upload(running.machine, header.upload)
                except OutOfOrder as error:
                    raise UploadRefused("this attempt does not collect uploads now") from error
                except PrivacyError as error:
                    raise UploadRefused(str(error)) from error
                return running.plan.layout.size_bytes
            case VectorKind.INITIAL_MODEL:
                session = self.rooms.sessions.get(peer.site)
                if driver is None or session is None or driver.wants_first_model(peer.site) is None:
                    raise UploadRefused("nobody asked this site for a first model now")
                _, parameter_count = session.prepared.get(header.study_digest, ("", 0))
                return min(INITIAL_MODEL_BYTES_MAX, 4 * parameter_count + INITIAL_MODEL_HEADER_BYTES_MAX)
            case _:
                raise AccessDenied(f"sites do not upload vectors of kind {header.kind.value}")

    async def receive_vector(self, peer: PeerIdentity, header: VectorHeader, chunks: AsyncIterator[bytes]) -> None:
        """Spool an upload; it counts only when it is whole, and when it is still wanted then."""
        limit_bytes = self.upload_limit(peer, header)
        driver = self._driver(header.study_digest)
        assert driver is not None  # upload_limit asked
        if peer.site in self._uploading:
            raise UploadRefused("another upload of this site is under way")
        self._uploading.add(peer.site)
        try:
            if header.kind is VectorKind.MASKED_UPDATE:
                await self._receive_update(peer.site, driver, header, limit_bytes, chunks)
            else:
                await self._receive_first_model(peer.site, driver, header, chunks)
        finally:
            self._uploading.discard(peer.site)

    async def _receive_update(
        self, site: SiteId, driver: StudyDriver, header: VectorHeader, size_bytes: int, chunks: AsyncIterator[bytes]
    ) -> None:
        assert header.upload is not None  # upload_limit asked
        if header.size_bytes != size_bytes:
            raise UploadRefused(f"a masked update of this round has {size_bytes} bytes, not {header.size_bytes}")
        name = upload_name(site, header.sha256)
        await self.rooms.uploads.receive(name, chunks)
        if driver.running is None or not driver.running.hears(header.upload.context):
            self.rooms.uploads.discard(name)
            raise UploadRefused("this attempt ended while the upload was under way")
        driver.deliver(UploadStored(site=site, header=header.upload))

    async def _receive_first_model(
        self, site: SiteId, driver: StudyDriver, header: VectorHeader, chunks: AsyncIterator[bytes]
    ) -> None:
        wanted = driver.wants_first_model(site)
        digest = Digest(header.sha256.hex())
        path = await self.rooms.uploads.receive(digest, chunks)

        def checked_and_kept() -> Digest:
            model = GlobalModel.open(path)
            if model.digest() != wanted:
                raise UploadRefused("this is another first model than the one this site said it had built")
            return self.rooms.models.save(model)

        try:
            model_digest = await asyncio.to_thread(checked_and_kept)
        finally:
            self.rooms.uploads.discard(digest)
        driver.deliver(ModelStored(model_digest=model_digest))

    async def open_vector(
        self, peer: PeerIdentity, kind: VectorKind, digest: Digest
    ) -> tuple[VectorHeader, AsyncIterator[bytes]]:
        """A global model or an aggregate of a study this site is part of, by its digest."""
        match kind:
            case VectorKind.GLOBAL_MODEL:
                store = self.rooms.models.store
            case VectorKind.AGGREGATE:
                store = self.rooms.vectors
            case _:
                raise AccessDenied(f"vectors of kind {kind.value} are not handed out")
        study_digest = await asyncio.to_thread(self.rooms.studies.hands_out, peer.site, digest)
        if study_digest is None:  # not said whether there is one: that would be an answer
            raise VectorMissing(f"no vector {digest[:12]} is kept here for {peer.site}")
        sha256, size_bytes = await asyncio.to_thread(store.describe, digest)
        header = VectorHeader(kind=kind, sha256=sha256, size_bytes=size_bytes, study_digest=study_digest)

        async def chunks() -> AsyncIterator[bytes]:
            kept = store.chunks(digest)
            while chunk := await asyncio.to_thread(next, kept, b""):
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
            waiting = driver.progress.sites.get(peer.site) == "preparing"
            if session is not None and driver.digest not in session.prepared and not waiting:
                driver.prepare(peer.site)
        self.rooms.sessions.notify()
        return receipt

    async def list_studies(self, peer: PeerIdentity) -> tuple[StudyDocument, ...]:
        """The studies this site is part of."""
        return await asyncio.to_thread(self.rooms.studies.documents, peer.site)

    async def execute(self, _peer: PeerIdentity, command: str, arguments: bytes) -> bytes:
        """An operator's command; the same table serves a coordinator that is not running."""
        return await self._execute(self, command, arguments)

    async def watch(self, _peer: PeerIdentity) -> AsyncIterator[bytes]:
        """The status now and after every change."""
        while True:
            change = self.rooms.sessions.next_change()
            yield status.to_bytes(await asyncio.to_thread(status.snapshot, self.rooms, dict(self.drivers)))
            await change.wait()
            await asyncio.sleep(WATCH_INTERVAL_S)  # several changes at once are shown once


async def _drain(session: Session, send: Callable[[CoordinatorMessage], Awaitable[None]]) -> None:
    while True:
        await send(await session.outgoing.get())


def _version(text: str) -> tuple[int, int, int]:
    """The first three numbers of a version, for comparing; what is missing or not a number counts as 0."""
    parts = [int(part) if part.isdecimal() else 0 for part in text[:40].split(".")]
    major, minor, patch = (*parts, 0, 0)[:3]
    return major, minor, patch
