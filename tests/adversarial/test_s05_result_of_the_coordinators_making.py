"""S-05: the next global model, the transcript or the sum that the coordinator announces is not what the sum gives.

Held by: protocol 4.5 in `study_work._verify`. The hospital takes back its approval, signed for the log, and stays away.
Tried: rows s05 of `mutations.py`.
"""

import dataclasses
import hashlib

import numpy as np
import pytest

from audit import entries
from consortium.contract.messages import ResultVerified, RoundResult
from consortium.contract.names import Digest
from privacy.secagg.messages import KeyBundle
from tests.fakes.site_world import hospital


def another_model(_world, outcome):
    return dataclasses.replace(outcome.result, next_model_digest=Digest("a" * 64))


def another_transcript(_world, outcome):
    return dataclasses.replace(outcome.result, transcript=b"t" * 32)


def served(world, outcome, data):
    sha256 = hashlib.sha256(data).digest()
    world.line.vectors[Digest(sha256.hex())] = data
    return dataclasses.replace(outcome.result, aggregate_hash=sha256)


def impossible_sum(world, outcome):
    return served(world, outcome, np.full(len(outcome.aggregate) // 4, 2**31 - 1, dtype="<u4").tobytes())


def sum_of_nothing(world, outcome):
    return served(world, outcome, bytes(len(outcome.aggregate)))


def cut_sum(world, outcome):
    return served(world, outcome, outcome.aggregate[:-3])


def another_sum(world, outcome):
    """A possible sum, but not the one that the announced model follows from."""
    vector = np.frombuffer(outcome.aggregate, dtype="<u4").copy()
    vector[0] ^= 1 << 20
    return served(world, outcome, vector.tobytes())


@pytest.mark.parametrize(
    "lie", [another_model, another_transcript, impossible_sum, sum_of_nothing, cut_sum, another_sum]
)
async def test_the_approval_is_taken_back(tmp_path, lie):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        await world.tell(lie(world, outcome))
        await world.idle()
        assert not [m for m in world.line.sent if isinstance(m, ResultVerified)]
        assert world.store.chain(world.digest) is None
        assert world.store.decision(world.digest).decision == "withdrawn"
        (rejected,) = world.line.logged(entries.StudyRejected)
        assert rejected.study_digest == world.digest
        assert world.line.logged(entries.ModelVerified) == []
        assert (await world.ask(world.plan(attempt=2))).rule == "withdrawn"
        assert (await world.prepare()).rule == "withdrawn"
        # Only the steward can bring it back.
        world.decide("approved")
        assert isinstance(await world.ask(world.plan(attempt=3)), KeyBundle)


async def test_the_disk_cannot_save_the_coordinator(tmp_path, monkeypatch):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        await world.idle()

        def full(*_args, **_kwargs):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(world.store, "add_events", full)
        await world.tell(another_model(world, outcome))
        await world.idle()
        assert (await world.ask(world.plan(attempt=2))).rule == "require_approval"


async def test_a_result_before_anything_was_released_is_not_a_result(tmp_path):
    async with hospital(tmp_path) as world:
        bundle = await world.ask(world.plan())
        result = RoundResult(
            context=bundle.context,
            transcript=b"t" * 32,
            aggregate_hash=b"h" * 32,
            next_model_digest=Digest("a" * 64),
        )
        await world.tell(result)
        await world.idle()
        assert world.line.downloads == []
        assert world.store.decision(world.digest).decision == "approved"
