"""A hospital hands its signed entries over once a second in fast rounds (ADR 13), and nothing is lost on the way."""

import asyncio
import itertools
from types import SimpleNamespace

import pytest

from consortium.contract.messages import EventReceipt
from consortium.wire.errors import ConnectionLost
from site_agent import agent
from site_agent.agent import SUBMIT_EVERY_S, CoordinatorLine
from site_agent.store import Store

ROUND_S = 0.06


class Clock:
    """Stands for `time` and for `asyncio.sleep` in the agent: who sleeps is woken when the script has come so far."""

    def __init__(self):
        self.now = 50.0
        self.sleeping = None  # until when, and what is told then

    def monotonic(self):
        return self.now

    async def sleep(self, seconds):
        self.sleeping = self.now + seconds, asyncio.get_running_loop().create_future()
        await self.sleeping[1]

    def move_to(self, at):
        self.now = at
        if self.sleeping is not None and self.sleeping[0] <= at:
            if not self.sleeping[1].done():
                self.sleeping[1].set_result(None)
            self.sleeping = None


class Coordinator:
    """Takes entries; remembers in which calls."""

    def __init__(self, clock):
        self.calls = []
        self.lost = 0  # so many calls get no answer, though what they carried arrived
        self._clock = clock

    @property
    def received(self):
        return [entry for _, part in self.calls for entry in part]

    async def submit_events(self, events):
        self.calls.append((self._clock.now, events))
        if self.lost:
            self.lost -= 1
            raise ConnectionLost("the answer was lost")
        return EventReceipt(last_sequence=int(events[-1].split()[1]))


@pytest.fixture
def world(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(agent, "time", clock)
    own = SimpleNamespace(
        **{name: getattr(asyncio, name) for name in ("Event", "Lock", "Task", "create_task", "timeout", "to_thread")}
    )
    own.sleep = clock.sleep
    monkeypatch.setattr(agent, "asyncio", own)
    store = Store(tmp_path / "agent.db")
    line = CoordinatorLine(store)
    coordinator = Coordinator(clock)
    line.bind(coordinator, None)
    yield SimpleNamespace(clock=clock, store=store, line=line, coordinator=coordinator)
    store.close()


async def reaches(world, at):
    """Move the clock on, and let whoever is woken by that come to an end or to its next sleep."""
    await asyncio.sleep(0)  # whoever has just begun is asleep
    world.clock.move_to(at)
    while (task := world.line._soon) is not None and not task.done() and world.clock.sleeping is None:  # noqa: ASYNC110 - a thread
        await asyncio.sleep(0.0005)


def signed(world):
    """One more entry, as a round makes it, and the wish to hand it over."""
    world.store.add_events([lambda sequence, _: b"entry %d" % sequence])
    world.line.submit_events_soon()


async def test_entries_of_fast_rounds_travel_together_in_order_and_none_waits_much_longer_than_a_second(world):
    for number in range(80):
        await reaches(world, 50.0 + number * ROUND_S)
        signed(world)
    await reaches(world, 50.0 + 80 * ROUND_S + SUBMIT_EVERY_S)
    assert world.coordinator.received == [b"entry %d" % number for number in range(1, 81)]
    times = [at for at, _ in world.coordinator.calls]
    assert len(times) <= 80 * ROUND_S / SUBMIT_EVERY_S + 2
    assert all(after - before >= SUBMIT_EVERY_S for before, after in itertools.pairwise(times))
    assert not world.store.pending_events()


async def test_what_somebody_waits_for_goes_at_once_and_takes_the_others_along(world):
    for number in range(5):
        await reaches(world, 50.0 + number * ROUND_S)
        signed(world)
    before = len(world.coordinator.received)
    assert before < 5
    await world.line.submit_events()  # before a hospital says that it is ready, accuses, refuses or withdraws
    assert len(world.coordinator.received) == 5
    assert world.clock.now - 50.0 < SUBMIT_EVERY_S


async def test_an_agent_that_is_stopped_hands_over_what_still_waits(world):
    for number in range(5):
        await reaches(world, 50.0 + number * ROUND_S)
        signed(world)
    assert world.store.pending_events()
    await world.line.submit_waiting()
    assert world.coordinator.received == [b"entry %d" % number for number in range(1, 6)]
    assert not world.store.pending_events()


async def test_a_lost_answer_and_a_lost_connection_lose_nothing_and_keep_the_order(world):
    world.coordinator.lost = 1
    signed(world)
    await reaches(world, 50.0)
    assert world.store.pending_events()  # nobody acknowledged it, so it is kept
    signed(world)
    world.line.unbind()  # the connection is gone, with it whoever waited to hand over
    await reaches(world, 60.0)
    assert len(world.store.pending_events()) == 2
    world.line.bind(world.coordinator, None)
    signed(world)
    await reaches(world, 61.5)
    await reaches(world, 63.0)
    # The first was sent twice: the log knows it by its place in the chain.
    assert world.coordinator.received == [b"entry 1", b"entry 1", b"entry 2", b"entry 3"]
    assert not world.store.pending_events()
