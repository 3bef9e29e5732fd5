"""A line that breaks in the middle of an upload: the rest follows over the next one, and the round goes on with it."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from consortium.contract.messages import VectorKind
from consortium.vectors import VectorStore
from consortium.wire import limits
from consortium.wire.errors import CallRefused, ConnectionLost
from site_agent import agent as agent_module
from site_agent.egress_log import read_egress
from site_agent.home import Identity, open_home
from tests.fakes.agents_in_process import Consortium, RunningAgent, hospitals_of
from tests.fakes.keeping_service import NAME, Keeping
from tests.fakes.site_world import SITES, small_study
from tests.fakes.wire_world import Forwarder, coordinator, forwarder, vector_header

DATA = os.urandom(6_000_000)
HEADER = vector_header(DATA, VectorKind.MASKED_UPDATE)


async def broken_off(world: Any) -> int:
    """Nine tenths of an upload, and how much of it arrived."""
    async with forwarder(world.server.port) as line:
        async with world.connect(address=line.address) as client:
            line.cut_after(len(DATA) * 9 // 10)
            with pytest.raises(ConnectionLost):
                await client.upload_vector(HEADER, DATA)
        while not world.service.broken_uploads:  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.01)
    world.service.broken_uploads.clear()
    return int(world.service.store.begun(NAME).size_bytes)


async def test_only_the_rest_is_sent(tmp_path: Path) -> None:
    async with coordinator(Keeping(tmp_path)) as world:
        arrived = await broken_off(world)
        assert len(DATA) // 2 < arrived < len(DATA)
        async with world.connect() as client:
            await client.upload_vector(HEADER, DATA, again=True)
        assert world.service.store.path(NAME).read_bytes() == DATA
        assert world.service.store.begun(NAME).size_bytes == 0
    # The hospital's list of what left has the whole, and what was sent a second time.
    assert [(one.kind, one.size_bytes) for one in world.sent] == [
        ("masked-update", len(DATA)),
        ("masked-update-rest", len(DATA) - arrived),
    ]
    assert {one.sha256 for one in world.sent} == {hashlib.sha256(DATA).hexdigest()}


async def test_a_rest_of_something_else_spoils_all_of_it(tmp_path: Path) -> None:
    other = DATA[:-1] + bytes([DATA[-1] ^ 1])
    async with coordinator(Keeping(tmp_path)) as world:
        await broken_off(world)
        async with world.connect() as client:
            with pytest.raises(CallRefused, match="another SHA-256"):
                await client.upload_vector(HEADER, other, again=True)
            assert world.service.store.begun(NAME).size_bytes == 0
            await client.upload_vector(HEADER, DATA, again=True)
        assert world.service.store.path(NAME).read_bytes() == DATA


async def test_a_sender_that_cannot_go_on_begins_anew(tmp_path: Path) -> None:
    async with coordinator(Keeping(tmp_path)) as world:
        await broken_off(world)
        async with world.connect() as client:
            await client.upload_vector(HEADER, [DATA])
        assert world.service.store.path(NAME).read_bytes() == DATA


def test_what_was_begun_is_gone_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / f".begun-{NAME}").write_bytes(b"half")
    assert VectorStore(tmp_path).begun(NAME).size_bytes == 0
    assert list(tmp_path.iterdir()) == []


# --- a whole round -------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("site_agent.admission_audit.audited_at_admission", lambda *_, **__: None)
    monkeypatch.setattr(agent_module, "next_pause_s", lambda *_: 0.1)


STUDY = small_study(
    model={"network": "mlp", "args": {"hidden": (400, 400), "activation": "relu"}},
    training={"rounds": 1},
    evaluation={"every_rounds": 1},
)
"""An update of more than half a megabyte: several messages."""
ALLOWED: dict[str, Any] = {"allowed_networks": ["mlp"], "max_egress_bytes_per_round": 8_000_000}
SOME = 300_000
"""Bytes: within the upload, for everything else in a round is some kilobytes."""


@asynccontextmanager
async def one_dials_through(world: Consortium) -> AsyncIterator[tuple[RunningAgent, Forwarder]]:
    """One hospital's agent, with a line to the coordinator that can be cut."""
    mine = world.agents[SITES[-1]]  # the first is asked for the first model
    async with forwarder(int(mine.home.address.rpartition(":")[2])) as line:
        await mine.end()
        path = mine.home.folder / "identity.json"
        identity = Identity.model_validate_json(path.read_bytes())
        path.write_text(identity.model_copy(update={"address": line.address}).model_dump_json())
        mine.home = open_home(mine.home.folder)
        mine.start()
        yield mine, line


@pytest.mark.usefixtures("quick")
async def test_a_hospital_whose_line_breaks_in_an_upload_is_in_the_sum(tmp_path: Path) -> None:
    async with hospitals_of(tmp_path, STUDY, **ALLOWED) as world, one_dials_through(world) as (mine, line):
        line.cut_after(SOME)
        await world.run_to_the_end()
        history = world.world.history(STUDY)
        assert [(one["round"], one["attempt"]) for one in history] == [(1, 1), (2, 1)]
        assert all(one["survivors"] == sorted(SITES) for one in history)
        left = [one.sent for one in read_egress(mine.home, mine.store).lines]
        (rest,) = (one for one in left if one.kind == "masked-update-rest")
        (whole,) = {one.size_bytes for one in left if one.kind == "masked-update" and one.sha256 == rest.sha256}
        assert 0 < rest.size_bytes < whole
        assert list((world.world.home.folder / "uploads").iterdir()) == []


@pytest.mark.usefixtures("quick")
async def test_one_that_stays_away_is_a_dropout_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RETURN_S", 0.5)
    async with hospitals_of(tmp_path, STUDY, **ALLOWED) as world, one_dials_through(world) as (mine, line):
        line.cut_after(SOME)
        await world.world.command("study.start", study=STUDY.id)
        async with asyncio.timeout(60):
            while line.carried_bytes < SOME:  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0.01)
            await mine.end()
            while not world.world.history(STUDY):  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.02)
        assert world.world.history(STUDY)[0]["survivors"] == sorted(SITES[:-1])
        assert list((world.world.home.folder / "uploads").glob(".begun-*")) == []
