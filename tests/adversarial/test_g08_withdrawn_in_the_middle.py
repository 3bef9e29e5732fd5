"""G-08: a hospital's steward takes the approval back in the middle of a round, and something more leaves all the same.

Held by: `study_work.give_up`, which the agent calls within a second, and `_still_approved`, asked before anything is
sent for an attempt. Tried: rows g08 of `mutations.py`, which take out the question before a message is sent, the
cancelling of the event that is being handled (then `give_up` waits for ever), and `stop_computing`; and by hand the
refusal in `give_up`, and the question before shares are released.
"""

import asyncio

from audit import entries
from privacy.secagg.messages import SurvivorProposal, UnmaskRequest
from tests.fakes.site_world import hospital


def withdrawn_before(world, kind):
    """The steward withdraws on the command line; the running agent has not noticed yet when the next message comes."""

    def hook(message):
        if isinstance(message, kind):
            world.decide("withdrawn")
        return message

    return hook


async def test_after_the_upload_nothing_is_confirmed(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(to_victim=withdrawn_before(world, SurvivorProposal), result=False)
        assert outcome.said_kinds() == ["KeyBundle", "SealedShares", "UploadHeader", "Refusal"]
        assert outcome.said[-1].rule == "withdrawn"


async def test_after_the_confirmation_no_share_is_released(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(to_victim=withdrawn_before(world, UnmaskRequest), result=False)
        assert outcome.said_kinds() == ["KeyBundle", "SealedShares", "UploadHeader", "Confirmation", "Refusal"]
        assert outcome.said[-1].rule == "withdrawn"
        assert world.store.releases(world.digest) == ()


async def test_an_upload_is_broken_off_and_the_coordinator_told(tmp_path):
    async with hospital(tmp_path) as world:
        begun = asyncio.Event()

        given_up = asyncio.Event()

        async def upload(*_, **__):
            begun.set()
            await given_up.wait()  # for as long as nobody breaks it off

        world.line.upload = upload

        async def withdraw():
            await begun.wait()
            world.decide("withdrawn")
            refused = await asyncio.to_thread(world.work.objection)
            try:
                await asyncio.wait_for(world.work.give_up(refused), 60)
            finally:
                given_up.set()

        withdrawing = asyncio.create_task(withdraw())
        outcome = await world.attempt(result=False)
        await withdrawing
        assert outcome.said_kinds()[-1] == "Refusal"
        assert outcome.said[-1].rule == "withdrawn"
        assert world.line.uploads == []
        assert not world.work.is_busy  # and the process with the hospital's data is gone
        # What was trained is spent, whoever has seen it.
        (row,) = world.ledger.report()
        assert row.steps > 0
        signed = [entries.parse_entry(data) for data in world.store.signed_entries()]
        assert any(isinstance(entry, entries.DpSpent) for entry in signed)


async def test_an_approval_that_stands_is_left_alone(tmp_path):
    async with hospital(tmp_path) as world:
        assert world.work.is_busy
        assert world.work.objection() is None
        world.decide("rejected")
        assert world.work.objection().rule == "require_approval"
