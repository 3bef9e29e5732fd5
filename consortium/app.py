"""The coordinator put together, in one place: home -> log, database, rooms -> service -> ports."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from audit.log import Log
from consortium.commands import execute
from consortium.coordinator import Coordinator
from consortium.database import Database
from consortium.home import CoordinatorHome, open_home
from consortium.journal import Journal
from consortium.models import Models
from consortium.record import Recorder
from consortium.rooms import Rooms
from consortium.sessions import Sessions
from consortium.sites import Sites
from consortium.studies import Studies
from consortium.vectors import VectorStore
from consortium.wire.fact_log import log_as_facts
from consortium.wire.server import ServerCredentials, serve

STOP_GRACE_S = 2.0


@contextmanager
def opened(folder: Path) -> Iterator[Coordinator]:
    """The coordinator of a home, not serving yet. The log's lock keeps a second process out (LogLocked)."""
    home = open_home(folder)
    log = Log.open(home.config.log_folder(folder), home.log_signer)
    database = rooms = None
    try:
        database = Database(home.config.database_url(folder))
        rooms = _rooms(home, database, log)
        yield Coordinator(home, rooms, execute)
    finally:
        if rooms is not None:
            rooms.recorder.close()
        if database is not None:
            database.close()
        log.close()


def _rooms(home: CoordinatorHome, database: Database, log: Log) -> Rooms:
    recorder = Recorder(database, log)
    return Rooms(
        consortium=home.config.name,
        signing_key=home.signing_key,
        recorder=recorder,
        sites=Sites(home, database, recorder),
        studies=Studies(database, recorder),
        sessions=Sessions(),
        uploads=VectorStore(home.folder / "uploads"),
        vectors=VectorStore(home.folder / "vectors"),
        evidence=VectorStore(home.folder / "evidence"),
        models=Models(home.folder / "models"),
        journal=Journal(database),
        tracking=home.config.mlflow,
        curves=home.folder / "tensorboard" if home.config.tensorboard else None,
    )


async def serve_until_stopped(folder: Path, *, ready: Callable[[str], None]) -> None:
    """`consortium serve`: open the ports, go on with what was running, stop on SIGTERM or SIGINT.

    Args:
        folder: The coordinator's home.
        ready: Told one line once both ports are open.
    """
    log_as_facts()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with opened(folder) as coordinator:
        home = coordinator.home
        key_pem, certificate_pem = home.server_pem
        server = await serve(
            coordinator,
            address=home.config.address,
            enrolment_address=home.config.enrolment_address,
            credentials=ServerCredentials(ca_pem=home.ca_pem, certificate_pem=certificate_pem, key_pem=key_pem),
        )
        try:
            coordinator.resume_all()
            ready(f"Serving {home.config.name} on {home.config.address}; enrolment on {home.config.enrolment_address}")
            await stop.wait()
        finally:
            await coordinator.close()
            await server.stop(STOP_GRACE_S)
