"""What a coordinator says of itself: that it serves, and what is new about it since it served last."""

import asyncio
import json
from pathlib import Path

import pytest

from audit import entries
from audit.heartbeats import gaps
from consortium.app import opened
from consortium.database import Database
from consortium.deployment import announce_start
from consortium.heartbeat import Heartbeats
from consortium.record import Recorder
from tests.fakes.coordinator_home import Home, coordinator_in, new_home


class Clocks:
    """A monotonic clock and one on the wall."""

    def __init__(self) -> None:
        self.monotonic_s, self.wall_s = 50.0, 1_795_000_000.0

    def pass_(self, seconds: float, *, set_by: float = 0.0) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds + set_by


def beats(world: Home, clocks: Clocks, interval_s: int = 3600) -> Heartbeats:
    return Heartbeats(
        world.rooms.recorder,
        world.sites.access,
        interval_s,
        monotonic=lambda: clocks.monotonic_s,
        wall=lambda: clocks.wall_s,
    )


def test_a_heartbeat_says_how_long_it_serves_and_how_far_the_clock_was_set(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        clocks = Clocks()
        heart = beats(world, clocks)
        heart.write("started")
        clocks.pass_(3600, set_by=-90.5)
        heart.write("alive")
        clocks.pass_(10)
        heart.write("stopping")
        found = world.bodies("heartbeat")
        assert [(body["state"], body["uptime_s"], body["clock_moved_ms"]) for body in found] == [
            ("started", 0, 0),
            ("alive", 3600, -90_500),
            ("stopping", 3610, 0),
        ]


def test_what_was_only_counted_comes_with_the_next_heartbeat(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        for _ in range(12):
            world.sites.access.denied("operator", "study.start", "no such study")
        beats(world, Clocks()).write("alive")
        assert world.types()[-2:] == ["access.repeated", "heartbeat"]


def test_a_coordinator_that_falls_over_says_no_goodbye(tmp_path: Path) -> None:
    async def serve(heart: Heartbeats, *, falls: bool) -> None:
        async with heart.beating():
            await asyncio.sleep(0)
            if falls:
                raise RuntimeError("a bug")

    with coordinator_in(tmp_path) as world:
        asyncio.run(serve(beats(world, Clocks(), 0), falls=False))
        with pytest.raises(RuntimeError, match="a bug"):
            asyncio.run(serve(beats(world, Clocks(), 0), falls=True))
        asyncio.run(serve(beats(world, Clocks(), 0), falls=False))
        assert [body["state"] for body in world.bodies("heartbeat")] == [
            *("started", "stopping"),
            *("started",),
            *("started", "stopping"),
        ]
        logged = enumerate(map(entries.parse_entry, world.rooms.recorder.log.entries()))
        assert [gap.how for gap in gaps(logged)] == ["ended without a word"]


def test_it_beats_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(heart: Heartbeats) -> None:
        written = asyncio.Event()

        def one(state: str) -> None:
            states.append(state)
            if states.count("alive") == 2:
                loop.call_soon_threadsafe(written.set)
            if states.count("alive") == 1:
                raise OSError(28, "disk full")

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(heart, "write", one)
        monkeypatch.setattr(heart, "_interval_s", 0.001)
        async with heart.beating():
            await asyncio.wait_for(written.wait(), 60)

    states: list[str] = []
    with coordinator_in(tmp_path) as world:
        asyncio.run(serve(beats(world, Clocks())))
    assert states[:3] == ["started", "alive", "alive"]
    assert states[-1] == "stopping"


# --- what is new ---


def start(folder: Path) -> list[tuple[str, dict[str, object]]]:
    """A start to serve; what it added to the log."""
    with opened(folder) as before:
        size = before.rooms.recorder.log.size
    with opened(folder, to_serve=True) as coordinator:
        coordinator.rooms.recorder.release()
        log = coordinator.rooms.recorder.log
        return [(record["type"], record["body"]) for record in map(json.loads, log.entries(size, log.size))]


def test_configuration_and_software_are_said_once_and_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_home(tmp_path)
    (software, deployed), (config, first) = start(folder)
    assert (software, config) == ("software.deployed", "config.changed")
    assert deployed["component"] == "coordinator"
    assert first["previous_sha256"] is None
    assert start(folder) == []
    path = folder / "coordinator.yaml"
    path.write_text(path.read_text().replace("token_lifetime_hours: 72", "token_lifetime_hours: 71"))
    ((kind, second),) = start(folder)
    assert (kind, second["previous_sha256"]) == ("config.changed", first["sha256"])
    monkeypatch.setattr("consortium.deployment.code_digest", lambda: "0" * 64)
    ((kind, other),) = start(folder)
    assert (kind, other["code_sha256"]) == ("software.deployed", "0" * 64)


def test_what_a_killed_process_left_queued_is_said(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        recorder = world.rooms.recorder
        invited = entries.entry_bytes(entries.SiteInvited(**entries.stamp(1, bytes(10)), site="amber-clinic"))
        database = Database(world.coordinator.home.config.database_url(world.folder))
        with database.transaction() as connection:
            recorder.add(connection, [invited])
        again = Recorder(database, recorder._log)
        announce_start(world.coordinator.home, database, again)
        database.close()
        assert world.types()[1:] == ["site.invited", "log.recovered", "software.deployed", "config.changed"]
        assert world.bodies("log.recovered") == [{"entries": 1}]
