"""A coordinator's machine is gone with its disk, in the middle of a round. Another has its keys, and nothing more.

State and log are in a real PostgreSQL, models and sums in an object store (here a folder, as a shared file system is).
"""

import shutil
from pathlib import Path

import pytest

from audit import entries
from consortium.home import create_home
from tests.fakes import postgres_server
from tests.fakes.coordinator_home import NAME
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES, small_study
from tests.integration.test_coordinator_rounds import close_to, crashed_while_shares_came_in, mean_update

KEYS = ("coordinator.yaml", "keys", "certificates")
"""What docs/how-to/keep-a-standby.md says a standby on another machine needs."""


async def test_it_finishes_the_round_from_the_database_and_the_object_store(tmp_path: Path) -> None:
    if not postgres_server.installed():
        pytest.skip(postgres_server.ABSENT)
    server = postgres_server.Server()
    study = small_study(rounds=2)
    one, two = tmp_path / "one" / "home", tmp_path / "two" / "home"
    try:
        create_home(one, name=NAME, address="127.0.0.1:8443", log_entries=server.url("log"))
        file = one / "coordinator.yaml"
        text = file.read_text().replace("sqlite:///consortium.db", f'"{server.url("state")}"')
        file.write_text(text.replace("objects: null", f"objects: file://{tmp_path}/shared"))
        two.mkdir(parents=True)
        for name in KEYS:
            (shutil.copytree if (one / name).is_dir() else shutil.copy)(one / name, two / name)

        sites = await crashed_while_shares_came_in(one.parent, study)
        shutil.rmtree(one)
        async with serving(two.parent, sites) as world:
            world.join(*SITES)
            await world.until(lambda: world.state(study) == "completed")
            history = world.history(study)
            assert [(row["round"], row["attempt"]) for row in history] == [(1, 1), (2, 1), (3, 1)]
            assert world.model(study) == close_to([2 * value for value in mean_update(*SITES)])
            assert world.home.rooms.recorder.log.fsck() > 0
            entries.replay_chains(world.home.rooms.recorder.log.entries())
            await world.until(lambda: not any((tmp_path / "shared" / "sums").iterdir()))
    finally:
        server.close()
