"""The coordinator put together, in one place: home -> log, database, rooms -> service -> ports."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from audit.errors import AuditError, LogLocked, LogUnwritable
from audit.log import Log
from consortium import server_certificate
from consortium.accounts import Accounts
from consortium.commands import execute
from consortium.contract.certificates import Issued
from consortium.contract.light_start import DRAIN_S
from consortium.contract.service_manager import StopSignals, service_manager
from consortium.contract.storage_trouble import room_again, say_refused
from consortium.coordinator import Coordinator
from consortium.coordinator_file import former_options
from consortium.database import Database
from consortium.deployment import announce_start
from consortium.errors import ConsortiumError, DatabaseAway, DatabaseLed, HomeUnwritable
from consortium.heartbeat import Heartbeats
from consortium.home import CoordinatorHome, open_home
from consortium.journal import Journal
from consortium.log_keys import LogKeyring
from consortium.models import Models
from consortium.objects import ObjectAltered, Objects, open_objects
from consortium.record import Recorder
from consortium.rooms import Rooms
from consortium.sessions import Sessions
from consortium.sites import Sites
from consortium.steward_keys import read_from_log
from consortium.studies import Studies, StudyState
from consortium.vault import finish_erasures
from consortium.vectors import VectorMissing, VectorStore
from consortium.webhooks import Webhooks
from consortium.wire.fact_log import log_as_facts
from consortium.wire.server import ServerCredentials, serve
from consortium.witness_rounds import look_back
from consortium.witnesses import Witnesses, require_remembered

if TYPE_CHECKING:
    from consortium.contract.monitor_port import MonitorPort
    from consortium.log_server import RunningLogServer

_facts = structlog.get_logger(__name__)

STOP_GRACE_S = 2.0
STANDBY_LOOKS_S, LEAD_LOOKS_S = 1.0, 1.0
"""How often one that stands by tries to take over, and one that leads asks whether it still does."""


@contextmanager
def opened(folder: Path, *, to_serve: bool = False) -> Iterator[Coordinator]:
    """The coordinator of a home, not serving yet. The log's lock keeps a second process out (LogLocked).

    Args:
        folder: The coordinator's home.
        to_serve: Whether it will; then the log is told what is new about it, and nothing is signed before
            `Recorder.release`, for witnesses are asked first (`witness_rounds.look_back`).
    """
    home = open_home(folder)
    database = Database(home.config.database_url(folder))  # first, for who does not lead opens no log
    log = rooms = None
    try:
        log = Log.open(home.config.log_folder(folder), home.log_signer, home.config.log_entries)
        require_remembered(database, log)
        read_from_log(database, log)
        rooms = _rooms(home, database, log, held=to_serve)
        if to_serve:
            _share(rooms)
            announce_start(home, database, rooms.recorder)
        finish_erasures(home, rooms.recorder)
        coordinator = Coordinator(home, rooms, execute)
        if to_serve:
            coordinator.looked_back.clear()
        yield coordinator
    finally:
        if rooms is not None:
            _settle(rooms)
            rooms.recorder.close()
        if log is not None:
            log.close()
        database.close()


def _settle(rooms: Rooms) -> None:
    """Put what was queued or only counted into the log, if it takes it; what it does not take stays queued."""
    try:
        rooms.sites.access.settle()
        rooms.recorder.flush()
    except (AuditError, ConsortiumError) as error:
        _facts.warning("log.not_settled", error=type(error).__name__)


def _rooms(home: CoordinatorHome, database: Database, log: Log, *, held: bool) -> Rooms:
    recorder = Recorder(database, log, held=held)
    witnesses = Witnesses(database, recorder)
    sites = Sites(home, database, recorder, witnesses)
    objects = None if home.config.objects is None else open_objects(home.config.objects)
    return Rooms(
        consortium=home.config.name,
        signing_key=home.signing_key,
        recorder=recorder,
        witnesses=witnesses,
        log_keys=LogKeyring(home, recorder, witnesses),
        sites=sites,
        accounts=Accounts(home, database, recorder, sites.access),
        studies=Studies(database, recorder),
        sessions=Sessions(),
        uploads=VectorStore(home.folder / "uploads", _room(objects, "sums"), check=lambda *_: None),  # the journal's
        vectors=VectorStore(home.folder / "vectors", _room(objects, "vectors")),
        evidence=VectorStore(home.folder / "evidence", _room(objects, "evidence")),
        models=Models(home.folder / "models", _room(objects, "models")),
        journal=Journal(database),
        database=database,
        tracking=home.config.mlflow,
        curves=home.folder / "tensorboard" if home.config.tensorboard else None,
    )


def _room(objects: Objects | None, name: str) -> Objects | None:
    return None if objects is None else objects.room(name)


def _share(rooms: Rooms) -> None:
    """Before studies go on: what only this machine has goes to the object store, what running studies need is fetched.

    What the store lacks, or gives back altered, is said by the study that needs it.
    """
    for store in (rooms.models.store, rooms.vectors, rooms.evidence):
        store.share_all()
    for row in rooms.studies.all():
        if row.state == StudyState.RUNNING:
            closed = rooms.studies.last_closed(row.digest)
            with suppress(VectorMissing, ObjectAltered):
                if row.model_digest is not None:
                    rooms.models.store.path(row.model_digest)
                if closed is not None:
                    rooms.vectors.path(closed.aggregate_sha256)


async def serve_until_stopped(
    folder: Path, *, ready: Callable[[str], None], drain_s: float = DRAIN_S, standby: bool = False
) -> None:
    """`consortium serve`: open the ports, go on with what was running, stop in order on SIGTERM or SIGINT.

    Args:
        folder: The coordinator's home.
        ready: Told one line once the ports are open.
        drain_s: How long attempts under way may take to their end, once it is told to stop.
        standby: Wait while another coordinator has this home or its database, then take over.

    A disk that is full, or a database that is locked or away, ends what is under way as a crash would. Then the ports
    are closed, until it can go on from what is durable.

    Raises:
        LogLocked, DatabaseLed: Another coordinator is at work, and nobody asked to wait for its end; or this one lost
            the database to another.
        HomeUnwritable, LogUnwritable: The disk or the database refuses, and has done so from the beginning.
    """
    log_as_facts()
    signals, manager = StopSignals(), service_manager()
    signals.listen()
    async with manager.watched():  # from the first moment: one that stands by or waits for its disk is watched, too
        waited, served = 0, False

        def serving(line: str) -> None:
            nonlocal served, waited
            served, waited = True, 0
            ready(line)
            manager.ready(line)

        while True:
            try:
                turn = _its_turn(folder, signals.stop, standby=standby, ready=ready)
                refused = await _serve_once(folder, signals, turn, serving=serving, drain_s=drain_s)
            except (HomeUnwritable, LogUnwritable) as error:
                if not served:
                    raise
                refused = error
            if refused is None:
                return
            if not waited:
                say_refused(refused, folder)
            if not await room_again([folder], signals.stop, waited=waited):
                return
            waited += 1


async def _serve_once(
    folder: Path,
    signals: StopSignals,
    turn: AbstractAsyncContextManager[Coordinator | None],
    *,
    serving: Callable[[str], None],
    drain_s: float,
) -> Exception | None:
    """Open, serve, close; returns None when told to stop, or what the disk or the database refused meanwhile."""
    async with turn as coordinator:
        if coordinator is None:
            return None
        home = coordinator.home
        heartbeats = Heartbeats(
            coordinator.rooms.recorder, coordinator.rooms.sites.access, 60 * home.config.heartbeat_minutes
        )
        webhooks = Webhooks(coordinator.rooms, home.config.webhooks, folder, silent_minutes=home.config.silent_minutes)
        shown = server_certificate.current(home, datetime.now(UTC))
        _warn_of_former_options(folder)
        server = await serve(
            coordinator,
            address=home.config.listening(home.config.address),
            people_address=_listening(home, home.config.people_address),
            credentials=_credentials(home, shown),
            traffic=coordinator.traffic,
        )
        public = monitor = None

        def show(issued: Issued) -> None:
            server.show(_credentials(home, issued))
            if public is not None:
                public.show(home.serving_path)

        try:
            public = await _serve_log(coordinator)
            monitor = _monitor(coordinator)
            if not await _looked_back(coordinator, signals.stop):
                return None
            coordinator.resume_all()
            async with (
                heartbeats.beating(),
                coordinator.rooms.log_keys.watched(),
                webhooks.telling(),
                server_certificate.watched(home, show),
            ):
                line = f"Serving {home.config.name} on {home.config.address}"
                line += f"; log on {home.config.log_address}" if public else ""
                serving(line)
                if (refused := await _told_to_stop(coordinator, signals.stop)) is not None:
                    return refused
                service_manager().stopping("Letting attempts under way come to their end")
                await coordinator.drain(drain_s, signals.at_once)
                return None
        finally:
            await coordinator.close()
            if monitor is not None:
                await asyncio.to_thread(monitor.close)
            if public is not None:
                await public.stop()
            await server.stop(STOP_GRACE_S)


def _warn_of_former_options(folder: Path) -> None:
    for option, advice in former_options(folder / "coordinator.yaml").items():
        _facts.warning("config.former_option", where=f"coordinator.yaml: {option}", advice=advice)


def _credentials(home: CoordinatorHome, issued: Issued) -> ServerCredentials:
    return ServerCredentials(ca_pem=home.ca_pem, certificate_pem=issued.certificate_pem, key_pem=issued.key_pem)


@asynccontextmanager
async def _its_turn(
    folder: Path, stop: asyncio.Event, *, standby: bool, ready: Callable[[str], None]
) -> AsyncIterator[Coordinator | None]:
    """The coordinator, once no other is at work with this home or its database; None if it is told to stop first."""
    waited = False
    with ExitStack() as stack:
        while not stop.is_set():
            try:
                coordinator = stack.enter_context(opened(folder, to_serve=True))
            except (LogLocked, DatabaseLed) as error:
                if not standby:
                    raise
                if not waited:
                    waited = True
                    ready(f"Standing by: {error}")
                    service_manager().ready("Standing by for another coordinator")
            else:
                yield coordinator
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(STANDBY_LOOKS_S):
                    await stop.wait()
        yield None


async def _told_to_stop(coordinator: Coordinator, stop: asyncio.Event) -> Exception | None:
    """Return when `stop` is set, or what was refused: then another coordinator may be at work, or nothing is kept."""
    rooms = coordinator.rooms
    while not stop.is_set():
        try:
            await asyncio.to_thread(rooms.database.require_lead)
        except DatabaseLed as error:  # for all this process knows; most often the server is simply gone
            return error if error.__cause__ is None else DatabaseAway("its connection ended, and with it the lock")
        stopped = rooms.recorder.written.stopped
        if isinstance(stopped, LogUnwritable):
            return stopped
        if coordinator.refused is not None:
            return coordinator.refused
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAD_LOOKS_S):
                await stop.wait()
    return None


def _listening(home: CoordinatorHome, address: str | None) -> str | None:
    return None if address is None else home.config.listening(address)


def _monitor(coordinator: Coordinator) -> "MonitorPort | None":
    """The port for monitoring, if coordinator.yaml says where."""
    address = coordinator.home.config.monitor_address
    if address is None:
        return None
    from consortium import metrics  # noqa: PLC0415 - prometheus_client; only where somebody watches
    from consortium.contract.monitor_port import MonitorPort  # noqa: PLC0415

    return MonitorPort(
        address,
        figures=lambda: metrics.figures(coordinator),
        problems=lambda: metrics.problems(coordinator),
    )


async def _looked_back(coordinator: Coordinator, stop: asyncio.Event) -> bool:
    """Ask witnesses what they remember of the log, then sign what was recorded meanwhile; False if told to stop.

    Raises LogSetBack: the log is older than what somebody can show, and nothing was signed.
    """
    looking = asyncio.create_task(look_back(coordinator.rooms, coordinator.home.config.outside_witnesses))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not looking.done():
            return False
        looking.result()
    finally:
        looking.cancel()
        stopping.cancel()
    await asyncio.to_thread(coordinator.rooms.recorder.release)
    coordinator.looked_back.set()
    return True


def _witnessed(coordinator: Coordinator) -> bytes | None:
    """The checkpoint that hospitals are cosigning, once one of them has; a second or two behind the log's own."""
    held = coordinator.rooms.witnesses.held()
    return held.note().to_bytes() if held is not None and held.lines else None


async def _serve_log(coordinator: Coordinator) -> "RunningLogServer | None":
    """The log over HTTPS, if coordinator.yaml says where."""
    home, source = coordinator.home, coordinator.rooms.recorder.written
    if home.config.log_address is None:
        return None
    from consortium.log_server import Readers, serve_log  # noqa: PLC0415 - only where it is asked for

    members, renewed = home.config.log_readers == "members", home.serving_path.exists()
    return await serve_log(
        source,
        checkpoint=lambda: _witnessed(coordinator) or source.checkpoint().to_bytes(),
        address=home.config.log_address,
        certificate=home.serving_path if renewed else home.folder / "certificates" / "server.pem",
        key=home.serving_path if renewed else home.folder / "keys" / "server.pem",
        readers=Readers(ca_pem=home.ca_pem, authenticate=coordinator.authenticate_reader if members else None),
    )
