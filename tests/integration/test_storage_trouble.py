"""A disk that is full and a database that is locked: the operator's line, and a program that goes on by itself."""

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from audit import entries
from audit.errors import LogUnwritable
from audit.storage import DirectoryStorage
from consortium import app, database
from consortium.contract import storage_trouble
from consortium.contract.service_manager import StopSignals
from consortium.contract.storage_trouble import is_of_the_disk, room_again, why_not
from consortium.coordinator import Coordinator
from consortium.database import Database
from consortium.errors import DatabaseBusy, DatabaseLed, HomeUnwritable
from consortium.journal import Journal
from consortium.record import now_stamp
from tests.e2e.world import free_port
from tests.fakes import postgres_server
from tests.fakes.coordinator_home import new_home
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES, small_study


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_trouble, "LOOKS_S", 0.02)
    monkeypatch.setattr(app, "LEAD_LOOKS_S", 0.02)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not what():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.01)


# --- whether there is room -------------------------------------------------------------------------------------------


def test_a_folder_that_takes_writes_and_one_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert why_not(tmp_path / "gone") == f"{tmp_path / 'gone'} cannot be written: No such file or directory"
    monkeypatch.setattr(storage_trouble, "ROOM_BYTES", 2**62)
    assert f"the disk of {tmp_path} has" in str(why_not(tmp_path))
    assert "are needed to go on" in str(why_not(tmp_path))


def test_what_is_the_disks_fault() -> None:
    assert is_of_the_disk(OSError(errno.ENOSPC, "No space left on device"))
    assert is_of_the_disk(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not is_of_the_disk(FileNotFoundError(errno.ENOENT, "No such file or directory"))
    assert not is_of_the_disk(ValueError())


async def test_it_waits_for_room_and_says_for_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["full", "full", None])
    monkeypatch.setattr(storage_trouble, "why_not", lambda _: next(answers))
    with capture_logs() as logs:
        assert await room_again([tmp_path], asyncio.Event(), waited=0)
    assert [(log["event"], log["reason"]) for log in logs] == [("storage.waiting", "full")]  # once in a minute


async def test_it_stops_waiting_when_it_is_told_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = asyncio.Event()

    def full(_: Path) -> str:
        stop.set()
        return "full"

    monkeypatch.setattr(storage_trouble, "why_not", full)
    assert not await room_again([tmp_path], stop, waited=2)


# --- the coordinator -------------------------------------------------------------------------------------------------


class Serving:
    """A coordinator that serves in this process, as `consortium serve` does."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.coordinators: list[Coordinator] = []
        self.signals = StopSignals()
        self.task: asyncio.Task[None]


@asynccontextmanager
async def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serving]:
    serving = Serving()

    def made(*arguments: Any) -> Coordinator:
        serving.coordinators.append(Coordinator(*arguments))
        return serving.coordinators[-1]

    async def nobody_to_ask(*_: object) -> None:
        return None

    monkeypatch.setattr(StopSignals, "listen", lambda _: None)
    monkeypatch.setattr(app, "StopSignals", lambda: serving.signals)
    monkeypatch.setattr(app, "Coordinator", made)
    monkeypatch.setattr(app, "look_back", nobody_to_ask)
    monkeypatch.setattr(app, "log_as_facts", lambda: None)
    monkeypatch.setattr(app, "STOP_GRACE_S", 0.05)
    serving.task = asyncio.create_task(app.serve_until_stopped(folder, ready=serving.lines.append))
    try:
        await until(lambda: bool(serving.lines) or serving.task.done())
        yield serving
        serving.signals.stop.set()
        await asyncio.wait_for(serving.task, 60)
    finally:
        serving.task.cancel()


def home_on_a_free_port(parent: Path) -> Path:
    folder, port = new_home(parent), free_port()
    file = folder / "coordinator.yaml"
    file.write_text(file.read_text().replace("8443", str(port)))
    return folder


async def test_a_log_that_cannot_grow_is_opened_again_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write of the log is refused for a while: at once, at the next opening, and then no more."""
    folder, full, refused = home_on_a_free_port(tmp_path), False, []
    append = DirectoryStorage.append

    def append_or_not(self: DirectoryStorage, first: int, lines: Any) -> None:
        if full:
            refused.append(first)
            raise LogUnwritable(folder / "log", "No space left on device")
        append(self, first, lines)

    monkeypatch.setattr(DirectoryStorage, "append", append_or_not)
    with capture_logs() as logs:
        async with served(folder, monkeypatch) as serving:
            recorder = serving.coordinators[0].rooms.recorder
            full = True
            beat = entries.Heartbeat(**now_stamp(), state="alive", uptime_s=1, interval_s=60, clock_moved_ms=0)
            with suppress(LogUnwritable):
                await asyncio.to_thread(recorder.record, entries.entry_bytes(beat))
            await until(lambda: len(refused) >= 4)  # it was opened, and refused, again and again
            assert len(serving.lines) == 1
            full = False
            await until(lambda: len(serving.lines) == 2)
            kept = list(serving.coordinators[-1].rooms.recorder.log.entries())
            assert kept.count(entries.entry_bytes(beat)) == 1  # it was durable in the outbox
    assert serving.lines[0] == serving.lines[1]
    (said,) = [log for log in logs if log["event"] == "storage.refused"]
    assert said["reason"] == f"the log in {folder / 'log'} cannot be written: No space left on device"
    assert "Free disk space or repair the disk" in said["advice"]
    assert said["where"] == str(folder)
    assert not [log for log in logs if log.get("exc_info")]


async def test_a_disk_that_is_full_from_the_beginning_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home_on_a_free_port(tmp_path)

    def refused(*_: object) -> None:
        raise LogUnwritable(folder / "log", "No space left on device")

    monkeypatch.setattr(DirectoryStorage, "append", refused)
    with pytest.raises(LogUnwritable):
        async with served(folder, monkeypatch) as serving:
            await serving.task


@pytest.mark.parametrize(
    "error", [HomeUnwritable("full"), LogUnwritable("log", "full"), DatabaseLed(), OSError(errno.ENOSPC, "full")]
)
async def test_a_study_waits_for_the_disk_and_is_not_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    study = small_study(rounds=2)
    append = Journal.append

    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Journal, "append", refused)
    with capture_logs() as logs:
        async with serving(tmp_path) as world:
            sites = await world.hospitals(study)
            await world.command("study.start", study=study.id)
            await world.until(lambda: world.home.coordinator.refused is not None)
            assert world.home.coordinator.refused is error
            assert world.state(study) == "running"
    (said,) = [log for log in logs if log["event"] == "study.waits_for_storage"]
    assert said["study"] == study.id
    assert not [log for log in logs if log["event"] in ("study.failed", "study.paused", "study.not_paused")]
    monkeypatch.setattr(Journal, "append", append)
    async with serving(tmp_path, sites) as again:
        again.join(*SITES)
        await again.until(lambda: again.state(study) == "completed")
        assert [one["round"] for one in again.history(study)] == [1, 2, 3]


@pytest.mark.skipif(not postgres_server.installed(), reason=postgres_server.ABSENT)
async def test_a_postgresql_that_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, server = home_on_a_free_port(tmp_path), await asyncio.to_thread(postgres_server.Server)
    try:
        file = folder / "coordinator.yaml"
        file.write_text(file.read_text().replace("sqlite:///consortium.db", f'"{server.url("away")}"'))
        with capture_logs() as logs:
            async with served(folder, monkeypatch) as serving:
                await asyncio.to_thread(server.kill)
                await until(lambda: any(log["event"] == "storage.refused" for log in logs))
                assert not serving.task.done()
                await asyncio.to_thread(server.start)
                await until(lambda: len(serving.lines) == 2)
                await asyncio.to_thread(serving.coordinators[-1].rooms.database.require_lead)
        (said,) = [log for log in logs if log["event"] == "storage.refused"]
        assert said["reason"].startswith("the database server cannot be used: ")
        assert "Start PostgreSQL again" in said["advice"]
    finally:
        await asyncio.to_thread(server.close)


def test_a_database_that_another_program_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_PATIENCE_MS", 20)
    path = tmp_path / "consortium.db"
    ours = Database(f"sqlite:///{path}")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy, match=r"another program has kept the database locked for 0\.02 s") as caught:
            write(ours)
        with ours.reading() as connection:  # readers wait for nobody
            assert connection.execute(sa.select(database.webhooks.c.url)).all() == []
        other.execute("ROLLBACK")
    assert "fuser -v consortium.db" in caught.value.advice()
    write(ours)
    ours.close()


def write(ours: Database) -> None:
    with ours.transaction() as connection:
        connection.execute(sa.insert(database.webhooks).values(url="x", next_leaf=0))


def test_a_full_disk_is_not_called_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "consortium.db"
    ours = Database(f"sqlite:///{path}")
    with pytest.raises(HomeUnwritable, match="database or disk is full") as caught:
        fill(ours)
    assert not isinstance(caught.value, DatabaseBusy)
    ours.close()


def fill(ours: Database) -> None:
    with ours.transaction() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1")  # as small as it is: the next page is one too many
        for number in range(100):
            row = {"url": f"{number}" * 300, "next_leaf": 0}
            connection.execute(sa.insert(database.webhooks).values(row))
