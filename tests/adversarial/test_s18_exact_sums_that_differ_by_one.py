"""S-18: without differential privacy, a coordinator sums updates over almost the same hospitals and subtracts.

Tried by deleting the check: with `StudyWork._is_exact` looking at test figures alone, as it did when every update was
private, the hospital signs both survivor sets and both tests fail; row s18 of `mutations.py`.
"""

from dataclasses import replace

from consortium.contract.messages import Refusal
from tests.fakes.site_world import SITES, hospital
from tests.unit.site_agent.test_no_privacy import exact_study


async def test_a_round_over_all_but_one_of_the_last_survivors_is_not_confirmed(tmp_path):
    async with hospital(tmp_path, exact_study(), allow_no_privacy=True) as world:
        assert (await world.attempt(world.plan(measured=False))).closed
        outcome = await world.attempt(world.plan(measured=False, sites=SITES[:3]))
        assert not outcome.closed
        refused = [message for message in outcome.said if isinstance(message, Refusal)]
        assert [message.rule for message in refused] == ["secure aggregation"]


async def test_one_model_is_summed_over_one_set_of_hospitals(tmp_path):
    async with hospital(tmp_path, exact_study(), allow_no_privacy=True) as world:
        first = world.plan(measured=False)
        assert (await world.attempt(first, result=False)).closed
        again = replace(world.plan(measured=False, sites=SITES[:3]), attempt=2)
        assert not (await world.attempt(again)).closed
