"""S-08: an update whose sum may be known is asked for once more, or a retry is made to cost the budget again.

Held by: ADR 4. Until shares leave, a retry masks the same update and costs nothing; afterwards it trains afresh and is
charged, or is refused. Tried: row s08 of `mutations.py`.
"""

import numpy as np

from audit import entries
from privacy.secagg.messages import SurvivorProposal, UnmaskRequest
from tests.fakes.site_world import all_but, hospital, small_study


async def test_after_a_release_the_next_attempt_trains_afresh_and_is_charged(tmp_path):
    # Room for one training more than the rounds need, so that the repetition is possible at all.
    study = small_study(training={"rounds": 3})
    async with hospital(tmp_path, study) as world:
        first = await world.attempt(world.plan(measured=False), result=False)
        again = await world.attempt(world.plan(measured=False, attempt=2), result=False)
        assert not np.array_equal(first.sums["update"], again.sums["update"])
        (row,) = world.ledger.report()
        assert row.rounds == 2


async def test_the_budget_ends_repetitions(tmp_path):
    async with hospital(tmp_path) as world:
        for attempt in (1, 2):
            assert (await world.attempt(world.plan(measured=False, attempt=attempt), result=False)).closed
        third = await world.attempt(world.plan(measured=False, attempt=3), result=False)
        assert third.said[-1].rule == "max_epsilon_total"
        assert len(world.line.logged(entries.DpSpent)) == 2


async def test_no_number_of_lost_attempts_costs_more_than_one_training(tmp_path):
    async with hospital(tmp_path) as world:
        vectors = set()
        for attempt, kind in enumerate((SurvivorProposal, UnmaskRequest, SurvivorProposal), start=1):
            await world.attempt(world.plan(attempt=attempt), to_victim=all_but(kind), result=False)
            vectors.add(world.line.uploads[-1][1])
        outcome = await world.attempt(world.plan(attempt=4))
        assert outcome.closed
        assert len(vectors) == 3  # never the same bytes twice
        assert world.ledger.report()[0].rounds == 1


async def test_an_update_is_for_one_model_and_one_round(tmp_path):
    async with hospital(tmp_path) as world:
        await world.attempt()
        await world.attempt()
        assert [row.rounds for row in world.ledger.report()] == [2]
        assert len(world.line.logged(entries.DpSpent)) == 2
