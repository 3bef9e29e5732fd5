"""A coordinator changes its log's key while a hospital sleeps; the hospital follows from what the coordinator kept."""

import time
from dataclasses import replace
from datetime import UTC, datetime

from site_agent.log_keys import believed_keys
from site_agent.log_mirror import LogMirror
from site_agent.store import Store
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.site_world import make_home, small_study
from tests.fakes.small_study import SITES


def follow(world, mirror):
    """One FollowLog, as the agent makes it, without the wire."""
    growth, parts = world.rooms.witnesses.follow(SITES[0], mirror.position())
    with mirror.begin(growth) as growing:
        for part in parts:
            mirror.add(growing, part)
        mirror.complete(growing)
    return mirror.size


def to_the_present(world, mirror):
    """Until the copy has all of the log: a new checkpoint is held out once a second."""
    while follow(world, mirror) < world.rooms.recorder.written.size:
        time.sleep(0.05)


def changes(world, hospitals):
    """A whole change of key, from its beginning to its end."""
    world.rooms.log_keys.rotate("planned", 30, datetime.now(UTC))
    world.witnessed_by(*hospitals)
    return world.rooms.log_keys.finish().vkeys[-1]


def test_hospitals_that_slept_through_two_changes_and_that_enrolled_after_them(tmp_path):
    with coordinator_in(tmp_path) as world:
        hospitals = [world.enrol(site) for site in SITES]
        homes = []
        for name in ("asleep", "new"):
            home = make_home(tmp_path / name, small_study())
            identity = home.identity.model_copy(update={"log_vkey": world.rooms.recorder.written.verifier.vkey()})
            homes.append((replace(home, identity=identity), Store(home.folder / "agent.db")))
        asleep = LogMirror(*homes[0])
        follow(world, asleep)
        first = changes(world, hospitals)
        newest = changes(world, hospitals)
        world.enrol("later-clinic")
        assert follow(world, asleep) < follow(world, asleep) < world.rooms.recorder.written.size  # the stepping stones
        to_the_present(world, asleep)
        assert believed_keys(homes[0][0]).vkeys() == (newest,)
        asleep.close()
        # One whose kit has the newest key reads the same stepping stones from the beginning.
        home = replace(homes[1][0], identity=homes[1][0].identity.model_copy(update={"log_vkey": newest}))
        fresh = LogMirror(home, homes[1][1])
        to_the_present(world, fresh)
        assert fresh.read.keys.vkeys() == (newest,)
        assert first not in fresh.read.keys.vkeys()
        fresh.close()
