"""S-22: somebody at the hospital alters the log of what left: an entry, the end of it, or all of it.

Held by: the log's own checkpoint (`LogView`), and agent.db, which remembers how far the log had come
(`egress_log._require_grown`). An agent that finds it altered sends nothing. Tried: rows s22 of `mutations.py`.
"""

import asyncio
import shutil
import sqlite3

import pytest

from site_agent.agent import Agent
from site_agent.egress_log import EgressAltered, EgressKeeper, read_egress
from site_agent.egress_rows import EgressRecord
from site_agent.ledger import Ledger
from site_agent.store import Store
from tests.fakes.site_wire import dialled
from tests.fakes.site_world import make_home, small_study


def left(store, count=1):
    for _ in range(count):
        store.record_egress(EgressRecord(at=1.0, kind="masked-update", study_digest="", sha256="a" * 64, size_bytes=9))


@pytest.fixture
def home(tmp_path):
    opened = make_home(tmp_path / "home", small_study())
    store = Store(opened.folder / "agent.db")
    left(store, 3)
    EgressKeeper(opened, store).close()
    shutil.copytree(opened.folder / "egress", tmp_path / "older")
    left(store, 2)
    EgressKeeper(opened, store).close()
    return opened


def sql(home, *statements):
    connection = sqlite3.connect(home.folder / "egress/entries.sqlite3")
    for trigger in ("entry_is_never_changed", "entry_is_never_deleted"):
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def an_entry_says_less(home):
    sql(
        home,
        "UPDATE entry SET bytes = CAST(REPLACE(CAST(bytes AS TEXT), '\"size_bytes\":9', '\"size_bytes\":8') AS BLOB)"
        " WHERE leaf = 2",
    )


def an_entry_is_dropped(home):
    sql(home, "DELETE FROM entry WHERE leaf = 2", "UPDATE entry SET leaf = leaf - 1 WHERE leaf > 2")


def an_older_copy_is_put_back(home):
    shutil.rmtree(home.folder / "egress")
    shutil.copytree(home.folder.parent / "older", home.folder / "egress")


def it_is_made_anew(home):
    """With the log's true key, and as long as it was."""
    shutil.rmtree(home.folder / "egress")
    memory = home.folder.parent / "memory"
    memory.mkdir()
    store = Store(memory / "agent.db")
    left(store, 4)
    store.record_egress(EgressRecord(at=1.0, kind="hello", study_digest="", sha256="b" * 64, size_bytes=1))
    EgressKeeper(home, store).close()


def it_is_taken_away(home):
    shutil.rmtree(home.folder / "egress")


@pytest.mark.parametrize(
    ("alter", "found"),
    [
        (an_entry_says_less, "root"),
        (an_entry_is_dropped, "at least 6 entries"),
        (an_older_copy_is_put_back, "at least 6, as agent.db remembers, found 4"),
        (it_is_made_anew, "its first 6 entries"),
        (it_is_taken_away, "a log of 6 entries"),
    ],
)
def test_it_is_noticed_and_named(home, alter, found):
    store = Store(home.folder / "agent.db")
    assert len(read_egress(home, store).lines) == 5
    alter(home)
    for look in (lambda: EgressKeeper(home, store).step(), lambda: read_egress(home, store)):
        with pytest.raises(EgressAltered) as caught:
            look()
        assert found in str(caught.value)


async def test_nothing_leaves_an_agent_whose_log_was_altered(tmp_path):
    async with dialled(tmp_path) as (world, home):
        store = Store(tmp_path / "agent.db")
        left(store)
        EgressKeeper(home, store).close()
        it_is_taken_away(home)
        with pytest.raises(EgressAltered):
            await Agent(home, store, Ledger(tmp_path / "ledger.db")).run(asyncio.Event())
        assert store.egress() == ()
        assert world.service.heard == []


async def test_an_agent_at_work_stops_when_its_log_is_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr("site_agent.agent.EGRESS_EVERY_S", 0.05)
    async with dialled(tmp_path) as (_, home):
        store = Store(tmp_path / "agent.db")
        agent = asyncio.create_task(Agent(home, store, Ledger(tmp_path / "ledger.db")).run(asyncio.Event()))
        while not store.egress_head():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.02)
        (tmp_path / "egress").rename(tmp_path / "elsewhere")  # at once, whatever the agent is writing there
        left(store)
        async with asyncio.timeout(60):
            while not agent.done():
                left(store)
                await asyncio.sleep(0.02)
        assert isinstance(agent.exception(), EgressAltered)
