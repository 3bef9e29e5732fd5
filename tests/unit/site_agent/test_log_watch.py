"""The log is asked for once more when somebody wants to know what it says now."""

import asyncio

import pytest

from site_agent import log_watch
from tests.fakes.growing_log import witness_of
from tests.fakes.watching_hospital import enrolled, named_witness, watching

OTHER = "birch-hospital"


async def test_what_another_cosigned_a_moment_ago_is_known_after_looking_again(tmp_path):
    async with watching(tmp_path) as world:
        key, signer = world.home.signing_key, witness_of(OTHER, 21)
        world.service.log.add(enrolled(OTHER, key.public_key().public_bytes_raw()))
        world.service.log.add(named_witness(OTHER, key, signer))
        await world.follows()
        await world.watch.look_again()  # whatever was under way is over: nothing asks by itself for POLL_S
        assert world.watch.unwitnessed_s((world.site, OTHER), 2) > 0.0
        world.service.gossip = [world.service.log.cosigned_by(signer)]
        served = world.service.served
        await world.watch.look_again()
        assert world.watch.unwitnessed_s((world.site, OTHER), 2) == 0.0
        assert world.service.served > served


async def test_nobody_waits_longer_than_a_while_for_an_answer(tmp_path, monkeypatch: pytest.MonkeyPatch):
    async with watching(tmp_path) as world:
        await world.follows()
        monkeypatch.setattr(log_watch, "LOOK_AGAIN_S", 0.05)
        world.task.cancel()  # the connection is gone
        await asyncio.gather(world.task, return_exceptions=True)
        await world.watch.look_again()
