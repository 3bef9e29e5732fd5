"""The coordinator at work: its rooms, one driver per running study, and the calls that reach them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog

from audit import entries
from audit.errors import LogUnwritable
from audit.fields import one_line
from consortium import __version__, status
from consortium.contract import clocks
from consortium.contract.bearer import Bearer, TokenFault, TokenRefused
from consortium.contract.certificates import PeerIdentity, Role
from consortium.contract.global_model import GlobalModel
from consortium.contract.messages import (
    PROTOCOL_VERSION,
    AccountRequest,
    CheckpointReady,
    CoordinatorMessage,
    DroppedLeaves,
    EnrolmentGrant,
    EnrolmentRequest,
    EventReceipt,
    Greeting,
    Hello,
    LogGrowth,
    LogPosition,
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
from consortium.contract.storage_trouble import is_of_the_disk
from consortium.contract.study import StudyFile
from consortium.errors import AccessDenied, AgentTooOld, DatabaseLed, HomeUnwritable, UploadRefused
from consortium.home import CoordinatorHome
from consortium.invitations import require_good
from consortium.record import now_stamp
from consortium.roles import HOME, Caller, require_role
from consortium.rooms import Rooms
from consortium.round_events import MessageArrived, SiteLeft, SiteRefused, Stopped, UploadStored
from consortium.sessions import AgentCopied, Session, SessionReplaced
from consortium.studies import StudyState
from consortium.tokens import Tokens
from consortium.upload_names import masked_sum_name, upload_name
from consortium.vectors import VectorMissing
from consortium.wire import limits
from consortium.wire.traffic import Traffic
from consortium.wire.transfer import Begun
from consortium.witness_rounds import hold_out
from privacy.errors import OutOfOrder, PrivacyError
from privacy.secagg.messages import (
    BeaconCommitment,
    BeaconReveal,
    Confirmation,
    KeyBundle,
    SealedShares,
    UnmaskShares,
)

if TYPE_CHECKING:
    from consortium.driver import StudyDriver

log = structlog.get_logger(__name__)

INITIAL_MODEL_BYTES_MAX = 2 * 2**30
INITIAL_MODEL_HEADER_BYTES_MAX = 2**20
"""Names and shapes of the parameters, beside their values."""
BACKLOG_MAX, BACKLOG_WAIT_S = 1024, 0.5
"""Messages that may wait for one attempt; an honest round has five for each site."""
ABORT_WAIT_S = 2.0
"""How long attempts that are aborted because the coordinator is stopped may take to be written down."""
WATCH_INTERVAL_S = 0.2
TRAFFIC_SHOWN_EVERY_S = 1.0
"""While vectors move, who watches sees how fast, this often."""
"""A watcher is told of changes at most this often."""

SECOND_AGENT = "Ask that hospital whether it started its agent again; if not, somebody else has its keys."

_TOO_LATE = "this attempt ended while the upload was under way"

Executor: TypeAlias = Callable[["Coordinator", str, bytes, Caller], Awaitable[bytes]]
"""Carries out a command: its name, canonical JSON arguments and caller -> canonical JSON answer (`commands.py`)."""


class Coordinator:
    """Implements what `wire/server.py` asks of a service; every decision is made elsewhere."""

    def __init__(self, home: CoordinatorHome, rooms: Rooms, execute: Executor) -> None:
        self.home = home
        self.rooms = rooms
        self.tokens = None if home.config.oidc is None else Tokens(home, home.config.oidc)
        self._execute = execute
        self.drivers: dict[str, StudyDriver] = {}
        self.serving = False  # whether studies run here, or the command line only opened the home for one command
        self.looked_back = asyncio.Event()  # witnesses were asked what they remember of the log: it may be signed
        self.looked_back.set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._holding: asyncio.Task[None] | None = None
        self._uploading: dict[SiteId, asyncio.Task[None]] = {}
        self.update_bytes = 0  # of masked updates taken in since the start
        self.traffic = Traffic()  # between here and hospitals
        self.refused: Exception | None = None  # by disk or database, to a study: everything begins anew

    # --- studies at work -------------------------------------------------------------------------------------------

    def resume_all(self) -> None:
        """After a start: every study that was running goes on."""
        self.serving = True
        self._holding = asyncio.create_task(hold_out(self.rooms, self.home.config.outside_witnesses))
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
        from consortium.driver import StudyDriver  # noqa: PLC0415 - with metrics and noise; not before a study runs

        before = self._tasks.get(name)
        row = self.rooms.studies.get(name)
        driver = StudyDriver(self.rooms, StudyFile.from_document(row.document), row.digest)
        self.drivers[name] = driver
        self._tasks[name] = asyncio.create_task(self._run(name, driver, before))
        for site in driver.study.sites.roster:
            driver.greet(site)

    async def _run(self, name: str, driver: "StudyDriver", before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:  # paused a moment ago: it is still writing down how its attempt ended
                await asyncio.wait({before})
            await driver.run()
        except (HomeUnwritable, DatabaseLed, LogUnwritable) as error:
            self._refuse(name, error)
        except Exception as error:  # a study that fails must not take the others down, nor fail in silence
            if is_of_the_disk(error):
                self._refuse(name, error)
                return
            log.exception("study.failed", study=name)
            # The words of an unforeseen error may quote anything; those of ours are written to be read.
            words = f": {error}" if hasattr(error, "advice") else "; its own log has the rest"
            self._fail(name, f"the coordinator met an error: {type(error).__name__}{words}")
        self.rooms.sessions.notify()

    def _refuse(self, name: str, error: Exception) -> None:
        """Nothing is wrong with the study, and it stays running: it goes on when disk and database do."""
        log.warning("study.waits_for_storage", study=name)
        self.refused = self.refused or error
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

    async def drain(self, wait_s: float, at_once: asyncio.Event) -> None:
        """Begin no attempt any more, and let those under way come to their end; after `wait_s` they are aborted.

        Args:
            wait_s: How long they may take.
            at_once: Ends the waiting.
        """
        self.serving = False
        for driver in self.drivers.values():
            driver.wind_up()
        tasks = [task for task in self._tasks.values() if not task.done()]
        if not tasks:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await _first_of(asyncio.wait(tasks), at_once.wait())
        if not all(task.done() for task in tasks):
            for driver in self.drivers.values():
                driver.break_off("the coordinator is being stopped")
            await asyncio.wait(tasks, timeout=ABORT_WAIT_S)

    async def close(self) -> None:
        """Stop every study where it is; a later start goes on from there."""
        self.serving = False
        tasks = [*self._tasks.values(), *([self._holding] if self._holding is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _driver(self, digest: Digest) -> "StudyDriver | None":
        return next((driver for driver in self.drivers.values() if driver.digest == digest), None)

    # --- sessions --------------------------------------------------------------------------------------------------

    async def authenticate(self, peer: PeerIdentity) -> None:
        """Asked before every call: a site or account must be the one enrolled and not revoked; raises AccessDenied.

        The certificate of a kit counts as long as the kit is good; raises EnrolmentRefused. There is one operator
        certificate, and it never leaves the coordinator's home: the authority's word is enough.
        """
        if peer.role is Role.OPERATOR:
            return
        if peer.role is Role.INVITED:
            sites = self.rooms.sites
            await asyncio.to_thread(require_good, self.rooms.database, sites.access, peer.name, sites.clock())
            return
        if peer.role is Role.ACCOUNT:
            await asyncio.to_thread(self.rooms.accounts.caller, peer)
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
        await asyncio.to_thread(self.rooms.sites.access.session_opened, site, hello.agent_version)
        in_log = (await asyncio.to_thread(self.rooms.sites.get, site)).last_sequence
        replaces = self.rooms.sessions.get(site) is not None
        # From here to the session nothing is awaited: no other agent of the site can come in between.
        if self._takes_note(site, hello, in_log):
            log.warning("site.second_agent", site=site, advice=SECOND_AGENT)
        with self.rooms.sessions.opened(site) as session:
            log.info("site.connected", site=site, version=hello.agent_version)
            if replaces:  # what the agent before knew of an attempt, this one does not
                self._left(site)
            self._compare_clocks(site, hello)
            welcome = Welcome(
                consortium=self.rooms.consortium,
                coordinator_version=__version__,
                protocol_version=PROTOCOL_VERSION,
                unix_time_ms=time.time_ns() // 1_000_000,
            )
            await send(welcome)
            if (held := self.rooms.witnesses.candidate()) is not None:
                session.send(CheckpointReady(size=held.size))
            for driver in self.drivers.values():
                driver.greet(site)
            tasks = {
                asyncio.create_task(_drain(session, send)),
                asyncio.create_task(self._hear(session, incoming)),
                asyncio.create_task(session.ended.wait()),
                asyncio.create_task(self._until_the_end(peer)),
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
        if session.refused is not None:
            raise session.refused

    async def _until_the_end(self, peer: PeerIdentity) -> None:
        """A session is one call, however long: it lasts no longer than the certificate it was opened with."""
        await asyncio.sleep((peer.not_after - self.rooms.sites.clock()).total_seconds())
        raise AccessDenied(f"the certificate of {peer.name} ended {peer.not_after:%Y-%m-%d %H:%M} UTC")

    def shut_out(self, site: SiteId, because: Exception) -> None:
        """A site may not go on: its session and its upload end now, and attempts under way go on without it.

        Args:
            site: Which one; its next call is refused by `authenticate`.
            because: What it is told.
        """
        uploading = self._uploading.get(site)
        if uploading is not None:
            uploading.cancel()
        session = self.rooms.sessions.get(site)
        if session is not None:
            session.close(because)
        for driver in self.drivers.values():  # at once: who may not come back is not waited for
            driver.deliver(SiteLeft(site=site))

    def _left(self, site: SiteId) -> None:
        """A site is gone. One that was in the middle of an upload has a while to come back and send the rest."""
        for driver in self.drivers.values():
            context = driver.half_uploaded(site)
            if context is None:
                driver.deliver(SiteLeft(site=site))
            else:
                asyncio.get_running_loop().call_later(limits.RETURN_S, self._stayed_away, driver, site, context)

    def _stayed_away(self, driver: "StudyDriver", site: SiteId, context: bytes) -> None:
        """Its time is up: it is a dropout, unless the rest has come or is coming."""
        if driver.half_uploaded(site) == context and site not in self._uploading:
            driver.deliver(SiteLeft(site=site))

    def _takes_note(self, site: SiteId, hello: Hello, in_log: int) -> bool:
        try:
            return self.rooms.sessions.take_note(site, hello, in_log)
        except AgentCopied as error:
            log.warning("site.copy_refused", site=site, reason=str(error))
            raise

    def _compare_clocks(self, site: SiteId, hello: Hello) -> None:
        if not hello.unix_time_ms:
            return
        words = clocks.apart(here_s=time.time(), there_s=hello.unix_time_ms / 1000, whose=site)
        if words is not None:
            log.warning("clock.differs", site=site, reason=words, advice=clocks.ADVICE)

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
                        driver.progress.refused(site, message)
                        driver.deliver(SiteRefused(site=site, refusal=message))
            case BeaconCommitment() | BeaconReveal() | KeyBundle() | SealedShares() | Confirmation() | UnmaskShares():
                for driver in self.drivers.values():
                    if driver.running is not None and driver.running.hears(message.context):
                        driver.deliver(MessageArrived(site=site, message=message))
            case MaskedUpdate():
                self._hear_update(site, message)
            case ResultVerified():
                for driver in self.drivers.values():
                    driver.result_verified(site, message)
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
        self.update_bytes += len(message.values)
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
                driver.progress.refusals.pop(site, None)
            case Refusal():
                session.prepared.pop(message.study_digest, None)
                driver.progress.sites[site] = f"not ready: {one_line(message.rule)}"
                if driver.progress.refused(site, message):  # an agent says it again with every connection
                    self._log_refusal(driver.study.id, site, message)
                log.warning("site.not_ready", site=site, rule=message.rule, explanation=message.explanation)
        self.rooms.sessions.notify()

    def _log_refusal(self, study: str, site: SiteId, refusal: Refusal) -> None:
        rule, explanation = one_line(refusal.rule), one_line(refusal.explanation)
        refused = entries.StudyRefused(**now_stamp(), study=study, site=site, rule=rule, explanation=explanation)
        self.rooms.recorder.record_soon(entries.entry_bytes(refused))

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
                    running.admit_upload(peer.site, header.upload)
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

    async def begin_vector(self, peer: PeerIdentity, header: VectorHeader, *, resumes: bool) -> Begun:
        """What is here of a masked update whose upload was broken off."""
        if header.kind is not VectorKind.MASKED_UPDATE:
            return Begun()
        before = self._uploading.get(peer.site)
        if before is not None:  # over a line that is gone, which nobody here has noticed yet
            before.cancel()
            await asyncio.wait({before})
        name = upload_name(peer.site, header.sha256)
        if not resumes:
            self.rooms.uploads.forget_begun(name)
        return await asyncio.to_thread(self.rooms.uploads.begun, name)

    async def receive_vector(self, peer: PeerIdentity, header: VectorHeader, chunks: AsyncIterator[bytes]) -> None:
        """Spool an upload; it counts only when it is whole, and when it is still wanted then."""
        limit_bytes = self.upload_limit(peer, header)
        driver = self._driver(header.study_digest)
        assert driver is not None  # upload_limit asked
        if peer.site in self._uploading:
            raise UploadRefused("another upload of this site is under way")
        if header.kind is VectorKind.MASKED_UPDATE:
            taking = self._receive_update(peer.site, driver, header, limit_bytes, chunks)
        else:
            taking = self._receive_first_model(peer.site, driver, header, chunks)
        task = self._uploading[peer.site] = asyncio.ensure_future(taking)
        try:
            await task
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if own is not None and own.cancelling():
                raise
            raise UploadRefused("this site began the upload again") from None  # see begin_vector
        finally:
            task.cancel()
            del self._uploading[peer.site]

    async def _receive_update(
        self, site: SiteId, driver: "StudyDriver", header: VectorHeader, size_bytes: int, chunks: AsyncIterator[bytes]
    ) -> None:
        assert header.upload is not None  # upload_limit asked
        if header.size_bytes != size_bytes:
            raise UploadRefused(f"a masked update of this round has {size_bytes} bytes, not {header.size_bytes}")
        name = upload_name(site, header.sha256)
        driver.upload_begins(site, name)
        try:
            await self.rooms.uploads.receive_on(name, chunks)
        except VectorMissing as error:
            raise UploadRefused(_TOO_LATE) from error
        self.update_bytes += size_bytes
        if driver.running is None or not driver.running.hears(header.upload.context):
            self.rooms.uploads.discard(name)
            raise UploadRefused(_TOO_LATE)
        driver.deliver(UploadStored(site=site, header=header.upload))

    async def _receive_first_model(
        self, site: SiteId, driver: "StudyDriver", header: VectorHeader, chunks: AsyncIterator[bytes]
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
        driver.first_model_came(model_digest)

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
        if kind is VectorKind.GLOBAL_MODEL:
            await asyncio.to_thread(self.rooms.studies.handed_out, peer.site, study_digest, digest)
        header = VectorHeader(kind=kind, sha256=sha256, size_bytes=size_bytes, study_digest=study_digest)

        async def chunks() -> AsyncIterator[bytes]:
            kept = store.chunks(digest)
            while chunk := await asyncio.to_thread(next, kept, b""):
                yield chunk

        return header, chunks()

    async def turned_away(self, peer: PeerIdentity | Bearer | None, method: str, error: Exception) -> None:
        """Written down, where it means that somebody asked for what they may not have."""
        if method == "Execute" and peer is not None and not isinstance(error, TokenRefused):
            return  # the command wrote it down, which may also be carried out without a wire
        access = self.rooms.sites.access
        try:
            if isinstance(peer, Bearer) and not isinstance(error, TokenRefused):
                await asyncio.to_thread(access.denied_if, (await self._caller(peer)).subject, method, error)
                return
            known = None if isinstance(peer, Bearer) else peer
            await asyncio.to_thread(access.turned_away, known, method, error)
        except Exception:  # the disk that refuses this refuses everything; the caller hears of its own error
            log.exception("access.not_recorded", method=method)

    # --- one-off calls ---------------------------------------------------------------------------------------------

    async def enrol(self, peer: PeerIdentity, request: EnrolmentRequest) -> EnrolmentGrant:
        """Certify a site's keys against its one-time token."""
        await self.looked_back.wait()
        return await asyncio.to_thread(self.rooms.sites.enrol, request, peer.name)

    async def renew(self, peer: PeerIdentity, request_der: bytes) -> EnrolmentGrant:
        """A site's next certificate."""
        return await asyncio.to_thread(self.rooms.sites.renew, peer, request_der)

    async def enrol_account(self, peer: PeerIdentity, request: AccountRequest) -> EnrolmentGrant:
        """Certify the keys of a person's account against its one-time token."""
        await self.looked_back.wait()
        return await asyncio.to_thread(self.rooms.accounts.enrol, request, peer.name)

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

    async def follow_log(
        self, peer: PeerIdentity, position: LogPosition
    ) -> tuple[LogGrowth, AsyncIterator[tuple[bytes, ...] | DroppedLeaves]]:
        """What a site's copy of the log lacks of the checkpoint that is held out."""
        growth, kept = await asyncio.to_thread(self.rooms.witnesses.follow, peer.site, position)

        async def parts() -> AsyncIterator[tuple[bytes, ...] | DroppedLeaves]:
            while part := await asyncio.to_thread(next, kept, ()):
                yield part

        return growth, parts()

    async def cosign_log(self, peer: PeerIdentity, note: bytes) -> None:
        """A site's cosignature of that checkpoint."""
        await asyncio.to_thread(self.rooms.witnesses.admit, peer.site, note)
        self.rooms.sessions.notify()

    async def list_studies(self, peer: PeerIdentity) -> tuple[StudyDocument, ...]:
        """The studies this site is part of."""
        return await asyncio.to_thread(self.rooms.studies.documents, peer.site)

    async def greet(self, _peer: PeerIdentity) -> Greeting:
        """This coordinator's clock and release, for `site-agent check`."""
        return Greeting(
            unix_time_ms=time.time_ns() // 1_000_000,
            coordinator_version=__version__,
            protocol_version=PROTOCOL_VERSION,
            minimum_agent_version=self.home.config.minimum_agent_version,
        )

    async def _caller(self, peer: PeerIdentity | Bearer) -> Caller:
        """Whoever gives commands, with the role of this moment; the operator's certificate is the home's own."""
        if isinstance(peer, Bearer):
            if self.tokens is None:
                raise TokenRefused(TokenFault.NOT_TAKEN)
            return await asyncio.to_thread(self.tokens.caller, peer)
        if peer.role is Role.OPERATOR:
            return HOME
        if peer.role is not Role.ACCOUNT:
            raise AccessDenied(f"a {peer.role} gives no commands")
        return await asyncio.to_thread(self.rooms.accounts.caller, peer)

    async def authenticate_reader(self, peer: PeerIdentity) -> None:
        """`authenticate`, for the log over HTTPS: of accounts, those whose role may read the log here too."""
        await self.authenticate(peer)
        if peer.role is Role.ACCOUNT:
            require_role(await self._caller(peer), "audit.log")

    async def execute(self, peer: PeerIdentity | Bearer, command: str, arguments: bytes) -> bytes:
        """Somebody's command; the same table serves a coordinator that is not running."""
        await self.looked_back.wait()
        return await self._execute(self, command, arguments, await self._caller(peer))

    async def watch(self, peer: PeerIdentity | Bearer) -> AsyncIterator[bytes]:
        """The status now and after every change, for as long as the caller may see it."""
        while True:
            require_role(await self._caller(peer), "status")
            change, passed = self.rooms.sessions.next_change(), self.traffic.passed()
            yield status.to_bytes(await asyncio.to_thread(status.snapshot, self.rooms, dict(self.drivers), passed))
            while not change.is_set() and self.traffic.passed() == passed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(TRAFFIC_SHOWN_EVERY_S):
                        await change.wait()
            await asyncio.sleep(WATCH_INTERVAL_S)  # several changes at once are shown once


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when one of them does; the others are cancelled."""
    tasks = [asyncio.create_task(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _drain(session: Session, send: Callable[[CoordinatorMessage], Awaitable[None]]) -> None:
    while True:
        await send(await session.outgoing.get())


def _version(text: str) -> tuple[int, int, int]:
    """The first three numbers of a version, for comparing; what is missing or not a number counts as 0."""
    parts = [int(part) if part.isdecimal() else 0 for part in text[:40].split(".")]
    major, minor, patch = (*parts, 0, 0)[:3]
    return major, minor, patch
