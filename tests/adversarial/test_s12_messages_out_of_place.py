"""S-12: messages of secure aggregation out of order, twice, of another attempt, or for nobody.

Held by: the machine (`OutOfOrder` changes nothing) and `study_work`, which hears only its own attempt's context.
Tried: row s12 of `mutations.py`.
"""

import dataclasses

import pytest

from consortium.contract.messages import BundleList, RoundAborted, RoundResult, ShareDelivery
from consortium.contract.names import Digest
from privacy.secagg.messages import SurvivorProposal, UnmaskRequest
from site_agent import study_work
from tests.fakes.site_world import hospital

ELSEWHERE = b"e" * 32
EVERY_PHASE = ["KeyBundle", "SealedShares", "UploadHeader", "Confirmation", "UnmaskShares", "ResultVerified"]


def empty_messages(context):
    return [
        BundleList(context=context, bundles=()),
        ShareDelivery(context=context, members=(), deliveries=()),
        SurvivorProposal(context=context, survivors=(), headers=()),
        UnmaskRequest(context=context, confirmations=()),
    ]


async def test_everything_twice(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(to_victim=lambda message: [message, message])
        assert outcome.said_kinds() == EVERY_PHASE


async def test_noise_of_other_attempts_around_every_message(tmp_path):
    async with hospital(tmp_path) as world:
        noise = [
            *empty_messages(ELSEWHERE),
            RoundAborted(context=ELSEWHERE, reason="go away"),
            RoundResult(
                context=ELSEWHERE, transcript=b"t" * 32, aggregate_hash=b"h" * 32, next_model_digest=Digest("a" * 64)
            ),
        ]
        outcome = await world.attempt(to_victim=lambda message: [*noise, message, *noise])
        assert outcome.said_kinds() == EVERY_PHASE
        assert world.line.refusals() == []


@pytest.mark.parametrize("early", [SurvivorProposal, UnmaskRequest, ShareDelivery])
async def test_a_phase_before_its_time_changes_nothing(tmp_path, early):
    async with hospital(tmp_path) as world:

        def hasty(message):
            if not isinstance(message, BundleList):
                return message
            (premature,) = [m for m in empty_messages(message.context) if isinstance(m, early)]
            return [premature, message]

        assert (await world.attempt(to_victim=hasty)).said_kinds() == EVERY_PHASE


async def test_a_message_that_breaks_a_rule_ends_the_attempt_and_there_is_no_second_try(tmp_path):
    async with hospital(tmp_path) as world:

        def without_one(message):
            if not isinstance(message, BundleList):
                return message
            return [dataclasses.replace(message, bundles=message.bundles[:2]), message]

        outcome = await world.attempt(to_victim=without_one)
        assert outcome.said_kinds() == ["KeyBundle", "Refusal"]
        assert outcome.said[-1].rule == "secure aggregation"


async def test_before_any_invitation(tmp_path):
    async with hospital(tmp_path) as world:
        for message in empty_messages(ELSEWHERE):
            assert not world.work.concerns(message.context)
            await world.tell(message)
        await world.idle()
        assert len(world.line.sent) == 1  # that it is prepared


async def test_a_flood_waits_outside(tmp_path):
    async with hospital(tmp_path) as world:
        assert world.work._inbox.maxsize == study_work.INBOX_MAX
