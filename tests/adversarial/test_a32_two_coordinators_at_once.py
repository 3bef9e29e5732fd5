"""A-32: two coordinators run on copies of one home, each with the log's key, and sign different continuations.

Each log is consistent in itself. Whoever was with the one and comes to the other has the proof of both in hand: an
honest coordinator stops, and from one that does not the hospital walks away. All over the real wire.

Tried: rows a32 of `mutations.py`, which delete `require_not_set_back` in `Witnesses.follow` (the honest one), `_object`
in `LogWatch.run` (the hospital; what it judges by are rows a22), and `require_not_proven` in `_write_down` (the
witness).
"""

import json
import shutil
from contextlib import AsyncExitStack

import pytest

from audit.checkpoint import verify_checkpoint
from audit.errors import LogSetBack
from consortium import witnesses
from consortium.witnesses import Witnesses
from site_agent.followed_log import FORKED, LogBroken
from site_agent.store import Store
from tests.adversarial.test_a31_started_on_an_older_copy import (
    WAIT_S,
    dials,
    running,
    until,
    until_cosigned,
    with_witness,
)
from tests.fakes.agents_in_process import home_of
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.outside_witness import outside_witness
from tests.fakes.scripted_site import serving
from tests.fakes.site_world import small_study
from tests.fakes.small_study import SITES


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Checkpoints are held out as fast as they come."""
    monkeypatch.setattr(witnesses, "HOLD_S", 0.1)
    monkeypatch.setattr(witnesses, "EVERY_S", 0.05)


async def twins(folder, stack):
    """A hospital that cosigned a log, and two coordinators that serve copies of it and have each gone on alone."""
    async with serving(folder / "one") as world:
        home = home_of(folder / "hospital", world, world.home.enrol(SITES[0]), small_study(), {})
        async with running(home):
            await until_cosigned(world, SITES[0])
    shutil.copytree(folder / "one", folder / "two")
    one = await stack.enter_async_context(serving(folder / "one"))
    two = await stack.enter_async_context(serving(folder / "two"))
    one.home.sites.invite("invited-by-one")
    two.home.sites.invite("invited-by-two")
    return home, one, two


async def test_an_honest_one_hears_of_the_other_from_a_hospital(tmp_path):
    async with AsyncExitStack() as stack:
        home, one, two = await twins(tmp_path, stack)
        async with running(dials(home, one.address)):
            await until_cosigned(one, SITES[0])
        written = two.home.rooms.recorder.written
        async with running(dials(home, two.address)):
            await until(lambda: written.stopped is not None)
        assert isinstance(written.stopped, LogSetBack)
        size = written.size
        with pytest.raises(LogSetBack):
            two.home.sites.invite("nobody-more")
        assert written.size == size


async def test_from_one_that_goes_on_all_the_same_a_hospital_walks_away_with_both(tmp_path, monkeypatch):
    monkeypatch.setattr(Witnesses, "require_not_set_back", lambda *_: None)
    async with AsyncExitStack() as stack:
        home, one, two = await twins(tmp_path, stack)
        async with running(dials(home, one.address)):
            await until_cosigned(one, SITES[0])
        for name in ("second", "third"):  # it is the longer one, so that nothing but its root is wrong
            two.home.sites.invite(f"{name}-by-two")
        async with running(dials(home, two.address)) as agent:
            await until(agent.done)
        error = agent.exception()
        assert isinstance(error, LogBroken)
        assert error.kind == FORKED
        key = one.home.rooms.recorder.written.verifier
        kept = [path.read_bytes() for path in (home.folder / "evidence").glob("checkpoint-*")]
        found = {verify_checkpoint(note, key).checkpoint for note in kept}
        assert len(found) == 2
        signed = [json.loads(entry) for entry in Store(home.folder / "agent.db").signed_entries()]
        (refused,) = [entry["body"] for entry in signed if entry["type"] == "witness.refused"]
        assert (refused["checkpoint_size"], refused["checkpoint_root"]) in {(c.size, c.root.hex()) for c in found}
        assert (refused["status"], refused["basis"]) == (422, "checkpoint")
        # The coordinator that it was with before gets it, in its place of the hospital's chain.
        async with running(dials(home, one.address)):
            await one.until(lambda: refused in one.home.bodies("witness.refused"), WAIT_S)


async def test_a_witness_that_both_ask_shows_each_what_it_cosigned_of_the_other(tmp_path):
    with coordinator_in(tmp_path / "same") as world:
        verifier = world.rooms.recorder.written.verifier
    with outside_witness(verifier) as witness:
        with_witness(tmp_path / "one", witness)
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        async with serving(tmp_path / "one") as one:
            one.home.sites.invite("invited-by-one")
            await one.until(lambda: witness.remembered.size == one.home.rooms.recorder.log.size, WAIT_S)
        async with serving(tmp_path / "two") as two:
            two.home.sites.invite("invited-by-two")
            written = two.home.rooms.recorder.written
            await two.until(lambda: written.stopped is not None, WAIT_S)
            await two.until(lambda: bool(two.home.rooms.witnesses.objections()), WAIT_S)
            assert isinstance(written.stopped, LogSetBack)
            ((who, _),) = two.home.rooms.witnesses.objections()
            assert who == witness.configured.key.name
