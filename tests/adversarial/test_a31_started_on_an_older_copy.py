"""A-31: a coordinator is started on an older copy of its log, and would sign another history.

Whoever remembers more is asked before the first new signature: the coordinator's own database, the hospitals, outside
witnesses. A witness's number stops nothing; a checkpoint that the log's own key signed does.

Tried: rows a31 of `mutations.py`, which delete `require_remembered` in `app.opened`, `_looked_back` in
`serve_until_stopped`, and `require_not_proven` in `_look_back_to`; and by hand `held` of the recorder, the waiting of
operators' commands, `require_not_set_back`, and by believing a witness that shows nothing.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from audit.checkpoint import parse_checkpoint
from audit.errors import LogSetBack
from audit.witness import Remembered
from consortium import app, witness_rounds
from consortium.home import open_home
from site_agent.agent import Agent
from site_agent.app import open_ledger
from site_agent.home import AgentHome, Identity
from site_agent.home import open_home as open_agent_home
from site_agent.store import Store
from tests.fakes.agents_in_process import home_of
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.outside_witness import outside_witness
from tests.fakes.scripted_site import World, serving
from tests.fakes.site_world import small_study
from tests.fakes.small_study import SITES
from tests.integration.test_log_over_https import home_with

WAIT_S = 30.0


@asynccontextmanager
async def running(home: AgentHome) -> AsyncIterator["asyncio.Task[None]"]:
    """A hospital's agent, as `site-agent run` has it."""
    store, stop = Store(home.folder / "agent.db"), asyncio.Event()
    task = asyncio.create_task(Agent(home, store, open_ledger(home.folder, store)).run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


async def until_cosigned(world: World, site: str) -> int:
    """Wait until the hospital has cosigned the whole log; how many entries that are."""
    rooms = world.home.rooms
    await world.until(lambda: rooms.recorder.log.size == rooms.witnesses.covered_by(site), WAIT_S)
    return rooms.witnesses.covered_by(site)


def checkpoint_of(home: Path) -> bytes:
    return (home / "log/public/checkpoint").read_bytes()


def dials(home: AgentHome, address: str) -> AgentHome:
    """The agent's home, with another address of its coordinator."""
    path = home.folder / "identity.json"
    identity = Identity.model_validate_json(path.read_bytes())
    path.write_text(identity.model_copy(update={"address": address}).model_dump_json())
    return open_agent_home(home.folder)


@pytest.fixture
def started(monkeypatch):
    """`consortium serve` in this process; it is told to stop by SIGTERM."""
    monkeypatch.setattr(app, "log_as_facts", lambda: None)
    said: asyncio.Queue[str] = asyncio.Queue()

    def start(folder: Path) -> tuple["asyncio.Task[None]", "asyncio.Queue[str]"]:
        return asyncio.create_task(app.serve_until_stopped(folder, ready=said.put_nowait)), said

    return start


async def stopped(serving_it: "asyncio.Task[None]") -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving_it, WAIT_S)


async def test_a_hospital_remembers_more_and_nothing_is_signed(tmp_path, started):
    """Over the real wire: the whole home is from a backup, its database too, so that only others can know."""
    home_with(tmp_path)
    async with serving(tmp_path) as world:
        home = home_of(tmp_path / "hospital", world, world.home.enrol(SITES[0]), small_study(), {})
        async with running(home):
            await until_cosigned(world, SITES[0])
    shutil.copytree(tmp_path / "home", tmp_path / "backup")
    async with serving(tmp_path) as world:
        world.home.sites.invite("later-hospital")
        async with running(dials(home, world.address)):
            longest = await until_cosigned(world, SITES[0])
    shutil.rmtree(tmp_path / "home")
    shutil.copytree(tmp_path / "backup", tmp_path / "home")
    before = checkpoint_of(tmp_path / "home")
    assert parse_checkpoint(before).checkpoint.size < longest
    serving_it, said = started(tmp_path / "home")
    async with running(dials(home, str(open_home(tmp_path / "home").config.address))):
        with pytest.raises(LogSetBack, match=f"{SITES[0]} shows a checkpoint of {longest} entries") as refused:
            await asyncio.wait_for(serving_it, WAIT_S)
    assert said.empty()
    assert "\n" not in str(refused.value)
    assert "Restore the newest copy" in refused.value.advice()
    assert checkpoint_of(tmp_path / "home") == before  # what the start recorded waits in the database, unsigned


async def test_hospitals_that_are_away_are_not_waited_for_for_ever(tmp_path, started, monkeypatch):
    home = home_with(tmp_path)
    with coordinator_in(tmp_path) as world:
        world.witnessed_by(world.enrol(SITES[0]))
    before = checkpoint_of(home)
    monkeypatch.setattr(witness_rounds, "START_S", 0.5)
    serving_it, said = started(home)
    await asyncio.wait_for(said.get(), WAIT_S)
    await stopped(serving_it)
    after = parse_checkpoint(checkpoint_of(home)).checkpoint
    assert after.size > parse_checkpoint(before).checkpoint.size


async def test_while_hospitals_are_waited_for_no_command_is_carried_out(tmp_path):
    home_with(tmp_path)
    with coordinator_in(tmp_path) as world:
        world.witnessed_by(world.enrol(SITES[0]))
    before = checkpoint_of(tmp_path / "home")
    with app.opened(tmp_path / "home", to_serve=True) as coordinator:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(coordinator.execute(None, "site.invite", b'{"site":"late-hospital"}'), 0.2)
        coordinator.rooms.sites.access.denied("operator", "study.start", "no such study")
        assert checkpoint_of(tmp_path / "home") == before
        coordinator.rooms.recorder.release()
        assert b"authz.denied" in b"".join(coordinator.rooms.recorder.log.entries())


def test_the_logs_folder_alone_is_from_a_backup(tmp_path):
    with coordinator_in(tmp_path) as world:
        hospital = world.enrol(SITES[0])
        shutil.copytree(world.folder / "log", tmp_path / "backup")
        world.witnessed_by(hospital)
    log = tmp_path / "home/log"
    shutil.rmtree(log)
    shutil.copytree(tmp_path / "backup", log)
    before = checkpoint_of(tmp_path / "home")
    with pytest.raises(LogSetBack, match="own database"), coordinator_in(tmp_path):
        pass
    assert checkpoint_of(tmp_path / "home") == before


# --- witnesses outside -----------------------------------------------------------------------------------------------


def with_witness(folder: Path, witness) -> Path:
    one = witness.configured
    return home_with(folder, outside_witnesses=f"[{{url: '{one.url}', vkey: '{one.vkey}'}}]")


async def test_an_outside_witness_remembers_more_and_shows_it(tmp_path, started):
    with coordinator_in(tmp_path / "longer") as world:
        world.enrol(SITES[0])
        longer = world.rooms.recorder.log.checkpoint().to_bytes()
        verifier = world.rooms.recorder.written.verifier
    with outside_witness(verifier) as witness:
        witness.remembers(longer)
        home = with_witness(tmp_path, witness)
        before = checkpoint_of(home)
        serving_it, said = started(home)
        with pytest.raises(LogSetBack, match=witness.configured.key.name):
            await asyncio.wait_for(serving_it, WAIT_S)
        assert said.empty()
        assert checkpoint_of(home) == before


@pytest.mark.parametrize("shows", ["nothing", "what this log has"])
async def test_a_witness_that_only_names_a_number_stops_nothing(tmp_path, started, shows):
    """It is written down, once, with the number, and shown in the status."""
    with coordinator_in(tmp_path / "same") as world:
        own = world.rooms.recorder.log.checkpoint().to_bytes()
        verifier = world.rooms.recorder.written.verifier
    with outside_witness(verifier) as witness:
        note = own if shows == "what this log has" else b"no note"
        witness.remembered = Remembered(size=9999, root=bytes(32), note=note)
        home = with_witness(tmp_path, witness)
        serving_it, said = started(home)
        await asyncio.wait_for(said.get(), WAIT_S)
        await until(lambda: b"witness.refused" in b"".join(_entries(home)))
        asked = len(witness.asked)
        await until(lambda: len(witness.asked) > asked)  # about the checkpoint over that entry: it is news once
        await stopped(serving_it)
    with coordinator_in(tmp_path) as world:
        (body,) = world.bodies("witness.refused")
        assert (body["status"], body["witness_size"], body["basis"]) == (409, 9999, "word")
        assert body["checkpoint_size"] < 9999
        ((name, said_so),) = world.rooms.witnesses.objections()
        assert name == witness.configured.key.name
        assert "more entries" in said_so


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.05)


def _entries(home: Path) -> list[bytes]:
    return [path.read_bytes() for path in (home / "log/public/tile/entries").rglob("*") if path.is_file()]


async def test_a_witness_that_gives_no_answer_keeps_nobody_from_starting(tmp_path, started):
    with outside_witness() as witness:
        home = with_witness(tmp_path, witness)
    serving_it, said = started(home)
    await asyncio.wait_for(said.get(), WAIT_S)
    await stopped(serving_it)
