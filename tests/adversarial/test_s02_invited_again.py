"""S-02: an invitation comes twice, again later, or for an attempt that is behind.

Held by: `plan_check._check_turn`. In one attempt a site advertises keys once, signs one survivor set and uploads once.
Tried: rows s02 of `mutations.py`.
"""

from privacy.secagg.messages import KeyBundle
from tests.fakes.site_world import hospital


async def test_twice_in_a_row(tmp_path):
    async with hospital(tmp_path) as world:
        plan = world.plan()
        first = await world.ask(plan)
        await world.tell(world.invitation(plan))
        await world.computed()
        assert [m for m in world.line.sent if isinstance(m, KeyBundle)] == [first]
        assert world.line.refusals() == []  # the attempt under way goes on


async def test_after_the_attempt_was_lost(tmp_path):
    async with hospital(tmp_path) as world:
        plan = world.plan(attempt=2)
        assert isinstance(await world.ask(plan), KeyBundle)
        world.work.session_ended()
        for again in (plan, world.plan(attempt=1)):
            assert (await world.ask(again)).rule == "plan: attempt"
        assert isinstance(await world.ask(world.plan(attempt=3)), KeyBundle)


async def test_a_refused_invitation_leaves_the_attempt_under_way(tmp_path):
    async with hospital(tmp_path) as world:

        def interrupt(message):
            forged = world.invitation(world.plan(attempt=5), signature=bytes(64))
            return [forged, message] if type(message).__name__ == "ShareDelivery" else message

        outcome = await world.attempt(to_victim=interrupt, result=False)
        assert "Refusal" in outcome.said_kinds()
        # The coordinator of this test takes the refusal for the attempt's; the site itself still masked and uploaded.
        await world.idle()
        assert world.work._attempt is not None
