"""An agent whose disk is full, or whose files another program locks: its line, and that it goes on by itself."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from consortium.contract import storage_trouble
from consortium.contract.service_manager import StopSignals
from site_agent import app, ledger_file, store
from site_agent.agent import Agent
from site_agent.error_place import for_the_log
from site_agent.errors import LedgerUnavailable
from site_agent.ledger_file import LedgerFile
from site_agent.only_agent import AgentRunning, only_agent
from site_agent.sqlite_trouble import passes, words_of
from site_agent.store import Store, StoreUnwritable
from tests.fakes.site_wire import STUDY
from tests.fakes.site_world import make_home

FULL = StoreUnwritable("agent.db could not be used: database or disk is full", passes=True)
REPLACED = StoreUnwritable("agent.db was replaced while the agent was using it")


async def taking_part(home, monkeypatch, *ends):
    """`site-agent run` of which each run ends as it is told: with an error, or because it is to stop."""
    signals, runs = StopSignals(), []

    async def run(self, stop, **_):
        runs.append(self)
        if (end := ends[len(runs) - 1]) is not None:
            raise end
        stop.set()

    monkeypatch.setattr(StopSignals, "listen", lambda _: None)
    monkeypatch.setattr(app, "StopSignals", lambda: signals)
    monkeypatch.setattr(app, "log_as_facts", lambda: None)
    monkeypatch.setattr(storage_trouble, "LOOKS_S", 0.01)
    monkeypatch.setattr(Agent, "run", run)
    with capture_logs() as logs:
        await asyncio.wait_for(app.run_until_stopped(home.folder), 60)
    return runs, [log for log in logs if log["event"].startswith("storage.")]


async def test_it_begins_anew_when_the_disk_takes_writes_again(tmp_path, monkeypatch):
    home = make_home(tmp_path, STUDY)
    runs, (said,) = await taking_part(home, monkeypatch, FULL, FULL, LedgerUnavailable("x", passes=True), None)
    assert len({id(agent) for agent in runs}) == 4  # nothing of the one before is used again
    assert (said["reason"], said["where"]) == (str(FULL), str(tmp_path))
    assert "goes on by itself" in said["advice"]


async def test_what_does_not_pass_ends_it(tmp_path, monkeypatch):
    home = make_home(tmp_path, STUDY)
    with pytest.raises(StoreUnwritable, match="was replaced"):
        await taking_part(home, monkeypatch, FULL, REPLACED)


async def test_what_is_wrong_from_the_beginning_ends_it(tmp_path, monkeypatch):
    home = make_home(tmp_path, STUDY)

    def refused(*_):
        raise FULL

    monkeypatch.setattr(app, "Store", refused)
    with pytest.raises(StoreUnwritable, match="disk is full"):
        await taking_part(home, monkeypatch)


async def test_the_same_home_is_not_run_twice(tmp_path, monkeypatch):
    home = make_home(tmp_path, STUDY)
    with only_agent(tmp_path), pytest.raises(AgentRunning):
        await taking_part(home, monkeypatch)


def test_files_that_another_program_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE_MS", 20)
    monkeypatch.setattr(ledger_file, "WAIT_S", 0.02)
    memory, ledger = Store(tmp_path / "agent.db"), LedgerFile(tmp_path / "ledger.db")
    for path, use, error in (
        ("agent.db", lambda: memory.begin_start(b"1" * 16), StoreUnwritable),
        ("ledger.db", lambda: ledger.transaction().__enter__(), LedgerUnavailable),
    ):
        with closing(sqlite3.connect(tmp_path / path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(
                error, match=rf"{path} could not be used: another program has kept it locked for"
            ) as caught:
                use()
            assert caught.value.passes
    assert memory.begin_start(b"2" * 16) == ()
    assert "close whatever keeps the file open" in FULL.advice()


def test_which_refusals_pass():
    def refused(code):
        error = sqlite3.OperationalError("words")
        error.sqlite_errorcode = code
        return error

    extended = sqlite3.SQLITE_IOERR | (3 << 8)
    for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, extended):
        assert passes(refused(code))
    for code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
        assert not passes(refused(code))
    assert words_of(refused(sqlite3.SQLITE_FULL), 15) == "words"
    assert not passes(sqlite3.OperationalError("of an older sqlite3"))


def test_a_log_line_says_what_the_disk_refused_and_nothing_else():
    new = StoreUnwritable("agent.db could not be used: database or disk is full", passes=True)
    assert for_the_log(new) == f"StoreUnwritable: {new}"
    assert for_the_log(OSError(28, "No space left on device", "/srv/patient-731")) == (
        "OSError: No space left on device"
    )
    assert for_the_log(OSError(2, "No such file or directory", "/srv/patient-731")) == "FileNotFoundError"
