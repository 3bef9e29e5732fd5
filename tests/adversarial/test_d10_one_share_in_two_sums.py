"""D-10: a coordinator has a hospital's vector, with one share of the noise, summed twice (protocol section 6, ADR 14).

The other hospitals open the first sum; the victim hears no more of the attempt, and is asked for the round again while
the others draw fresh noise. In the mean of such sums their noise averages out and the one share of the victim does not.
Tried: row d10 of `mutations.py`. The same vector is uploaded again then, and not charged.
"""

import numpy as np

from privacy.secagg.messages import SurvivorProposal, UploadHeader
from tests.fakes.site_world import all_but, hospital, small_study

STUDY = small_study(
    training={"rounds": 2, "spare_rounds": 2},
    privacy={"mechanism": "distributed-dp-sgd"},
    aggregation={"update_clip": 64.0},
)
POLICY = {"allowed_mechanisms": ["distributed-dp-sgd"]}


async def test_a_vector_that_was_uploaded_is_never_in_another_sum(tmp_path):
    async with hospital(tmp_path, STUDY, **POLICY) as world:
        first = await world.attempt(to_victim=all_but(SurvivorProposal), result=False)
        assert any(isinstance(message, UploadHeader) for message in first.said)
        assert first.closed  # the others opened a sum with the victim's vector in it
        again = await world.attempt(world.plan(attempt=2, measured=False))
        assert again.closed
        # The puppets send zeros, so each sum is the victim's vector: no coordinate of the noise is there twice.
        assert (first.sums["update"] != again.sums["update"]).all()
        assert np.abs(first.sums["update"]).min() > 0
        (row,) = world.ledger.report()
        assert (row.rounds, row.steps) == (2, 2)


async def test_a_vector_that_never_left_is_kept_and_charged_once(tmp_path):
    async with hospital(tmp_path, STUDY, **POLICY) as world:
        values, policy = world.work._values, world.home.config.policy
        first = await values.contribution(world.plan(), world.model, policy)
        again = await values.contribution(world.plan(attempt=2), world.model, policy)
        assert np.shares_memory(first.lanes["update"], again.lanes["update"])
        (row,) = world.ledger.report()
        assert (row.rounds, row.steps) == (1, 1)
