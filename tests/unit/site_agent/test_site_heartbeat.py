"""A hospital's signs of life: when one is due, what it says, and how many there can be."""

import asyncio
import json

import pytest

from audit import entries
from site_agent import agent as shell
from site_agent.agent import Agent
from site_agent.app import open_ledger
from site_agent.heartbeat import STARTS_EVERY_S, ClockSeen, SiteHeartbeats
from site_agent.store import Store
from tests.fakes.agents_in_process import home_of
from tests.fakes.scripted_site import serving
from tests.fakes.site_world import make_home, small_study
from tests.fakes.small_study import SITES

NOON = 1_795_000_000.0
HOUR_S = 3600.0


class Clocks:
    """A monotonic clock and one on the wall."""

    def __init__(self) -> None:
        self.monotonic_s, self.wall_s = 50.0, NOON

    def pass_(self, seconds: float, *, set_by: float = 0.0) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds + set_by


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path, small_study())


@pytest.fixture
def clocks(monkeypatch):
    clocks = Clocks()
    monkeypatch.setattr("site_agent.signed_events.time.time_ns", lambda: int(clocks.wall_s * 1e9))
    return clocks


def beats(home, clocks, seen=None):
    store = Store(home.folder / "agent.db")
    return SiteHeartbeats(
        home,
        store,
        seen or ClockSeen(),
        lambda: 12,
        monotonic=lambda: clocks.monotonic_s,
        wall=lambda: clocks.wall_s,
    )


def said(home):
    found = [json.loads(entry) for entry in Store(home.folder / "agent.db").signed_entries()]
    assert {one["type"] for one in found} <= {"site.heartbeat"}
    return [one["body"] for one in found]


def test_one_at_the_start_one_an_hour_and_one_at_the_end(home, clocks):
    heart = beats(home, clocks)
    assert heart.due_in_s() == 0.0
    assert heart.step()
    assert heart.due_in_s() == HOUR_S
    clocks.pass_(HOUR_S - 1)
    assert not heart.step()
    clocks.pass_(1, set_by=-2.5)
    assert heart.step()
    clocks.pass_(5 * HOUR_S)  # nobody was connected: it is late, and there is one, not five
    assert heart.step()
    assert not heart.step()
    assert heart.stop()
    found = said(home)
    assert [(body["state"], body["uptime_s"], body["clock_moved_ms"]) for body in found] == [
        ("started", 0, 0),
        ("alive", 3600, -2500),
        ("alive", 21_600, 0),
        ("stopping", 21_600, 0),
    ]
    assert {(body["interval_s"], body["log_size"]) for body in found} == {(3600, 12)}


def test_an_agent_that_is_started_again_and_again_does_not_fill_the_log(home, clocks):
    for _ in range(20):  # a minute each
        heart = beats(home, clocks)
        heart.step()
        clocks.pass_(60)
        heart.stop()
    assert [body["state"] for body in said(home)] == ["started", "stopping"] * 2
    clocks.pass_(STARTS_EVERY_S)
    heart = beats(home, clocks)
    assert heart.step()


def test_without_an_interval_a_start_and_a_stop(home, clocks):
    path = home.folder / "site.yaml"
    path.write_text(path.read_text() + "heartbeat_minutes: 0\n")
    heart = beats(home, clocks)
    assert heart.step()
    assert heart.due_in_s() is None
    clocks.pass_(1e6)
    assert not heart.step()
    assert heart.stop()


def test_nothing_is_said_at_the_end_by_one_that_was_never_connected(home, clocks):
    assert not beats(home, clocks).stop()
    assert said(home) == []


def test_the_coordinators_clock_is_ahead_by_what_its_entries_show(home, clocks):
    seen = ClockSeen()
    written = entries.timestamp(int(NOON * 1000))
    for late_s in (40.0, -3.0, 7.0):  # when each came, after it was written
        seen.take(written, NOON + late_s)
    for odd in ("", "None", "yesterday", "9" * 400):
        seen.take(odd, NOON)
    beats(home, clocks, seen).step()
    assert seen.taken() is None
    assert said(home)[0]["clock_offset_ms"] == 3000


async def test_an_agent_says_that_it_is_there_and_that_it_stops(tmp_path, monkeypatch):
    """Over the real wire, as `site-agent run` has it: both are in the coordinator's log."""
    monkeypatch.setattr(shell, "SUBMIT_EVERY_S", 0.05)
    async with serving(tmp_path) as world:
        home = home_of(tmp_path / "hospital", world, world.home.enrol(SITES[0]), small_study(), {})
        store, stop = Store(home.folder / "agent.db"), asyncio.Event()
        agent = Agent(home, store, open_ledger(home.folder, store), announces=True)
        task = asyncio.create_task(agent.run(stop))
        await world.until(lambda: "site.heartbeat" in world.home.types())
        stop.set()
        await task
        states = [body["state"] for body in world.home.bodies("site.heartbeat")]
        assert states == ["started", "stopping"]
