"""A coordinator whose state is in a real PostgreSQL: what holds for SQLite holds here, and one coordinator leads."""

import itertools

import pytest
import sqlalchemy as sa

from consortium import database as tables
from consortium.app import opened
from consortium.contract.names import Digest, SiteId
from consortium.database import Database
from consortium.errors import DatabaseLed, HomeUnwritable
from consortium.studies import RoundClosedFacts
from tests.fakes import postgres_server
from tests.fakes.coordinator_home import Home, new_home
from tests.fakes.running_study import STUDY, plan, started
from tests.fakes.small_study import SITES

NUMBERS = itertools.count()


server = pytest.fixture(scope="module")(postgres_server.running)


@pytest.fixture
def url(server):
    return server.url(f"t{next(NUMBERS)}")


@pytest.fixture
def folder(tmp_path, url):
    """A home with its state there."""
    home = new_home(tmp_path)
    file = home / "coordinator.yaml"
    file.write_text(file.read_text().replace("sqlite:///consortium.db", f'"{url}"'))
    return home


def test_a_study_goes_on_after_a_restart(folder):
    with opened(folder) as coordinator:
        world = Home(folder, coordinator)
        started(world)
        row = world.studies.get(STUDY.id)
        assert world.studies.open_round(row, plan(1, 1))
        closed = RoundClosedFacts(
            survivors=tuple(SiteId(site) for site in SITES[:3]),
            transcript=Digest("c3" * 32),
            aggregate_sha256=Digest("d4" * 32),
            next_model_digest=Digest("b2" * 32),
            metrics={"accuracy": 0.5},
            seconds=1.5,
        )
        world.studies.close_round(row, plan(1, 1), closed)
        before = (world.studies.get(STUDY.id), world.studies.history(row.digest), world.types())
    assert not (folder / "consortium.db").exists()
    with opened(folder) as coordinator:
        world = Home(folder, coordinator)
        row = world.studies.get(STUDY.id)
        assert (row, world.studies.history(row.digest), world.types()) == before
        assert row.next_round == 2


def test_one_coordinator_leads_and_another_can_when_it_is_gone(url):
    first = Database(url)
    with pytest.raises(DatabaseLed):
        Database(url)
    first.close()
    second = Database(url)
    second.require_lead()
    second.close()


def test_who_lost_the_lock_writes_nothing_more(server):
    """The server was started again: the pool finds it, but the lock went with the old connection."""
    url = server.url(f"t{next(NUMBERS)}")
    first = Database(url)
    server.kill()
    with pytest.raises(DatabaseLed):
        first.require_lead()
    server.start()
    second = Database(url)
    for use in (first.require_lead, lambda: write(first, "first")):
        with pytest.raises((DatabaseLed, HomeUnwritable)):
            use()
    write(second, "second")
    with second.reading() as connection:
        assert connection.execute(sa.select(tables.webhooks.c.url)).scalars().all() == ["second"]
    first.close()
    second.close()


def write(database, name):
    with database.transaction() as connection:
        connection.execute(sa.insert(tables.webhooks).values(url=name, next_leaf=0))


def test_a_reader_sees_one_state_and_holds_no_writer_up(url):
    database = Database(url)
    with database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.webhooks)).scalar() == 0
        write(database, "other")
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.webhooks)).scalar() == 0
    database.close()
