"""S-03: shares of one attempt are asked for twice, also after a restart of the agent.

Held by: the release record, durable before the first share leaves (protocol 4.4), and the machine's own state.
Tried: rows s03 of `mutations.py`.
"""

from dataclasses import replace

from privacy.secagg.messages import UnmaskRequest, UnmaskShares
from site_agent.store import Release
from tests.fakes.site_world import all_but, hospital


def shares(world):
    return [message for message in world.line.sent if isinstance(message, UnmaskShares)]


async def test_the_record_is_on_disk_before_the_shares_leave(tmp_path):
    async with hospital(tmp_path) as world:
        send, seen = world.line.send, []

        async def watched(message, study_digest):
            if isinstance(message, UnmaskShares):
                seen.append(world.store.releases(world.digest))
            await send(message, study_digest)

        world.line.send = watched
        outcome = await world.attempt()
        ((release,),) = seen
        assert release == Release(
            context=outcome.context,
            model_digest=outcome.plan.model_digest,
            transcript=outcome.result.transcript,
            survivors=outcome.state.survivors,
            measured=True,
            plan=outcome.plan.to_bytes(),
        )


async def test_a_second_request_gets_the_same_bytes(tmp_path):
    async with hospital(tmp_path) as world:

        def twice(message):
            return [message, message] if isinstance(message, UnmaskRequest) else message

        await world.attempt(to_victim=twice)
        first, second = shares(world)
        assert first == second
        assert len(world.store.releases(world.digest)) == 1


async def test_after_a_restart_the_same_request_gets_the_same_bytes_until_the_round_is_closed(tmp_path):
    async with hospital(tmp_path) as world:
        asked = []

        def noted(message):
            asked.extend([message] if isinstance(message, UnmaskRequest) else [])
            return message

        outcome = await world.attempt(to_victim=noted, result=False)
        await world.idle()
        (first,) = shares(world)
        await world.stop()
        await world.start()
        await world.work.deliver(asked[0])
        await world.idle()
        assert shares(world) == [first, first]
        await world.work.deliver(replace(asked[0], confirmations=asked[0].confirmations[:0]))
        changed = tuple(replace(c, transcript=bytes(32)) for c in asked[0].confirmations)
        await world.work.deliver(replace(asked[0], confirmations=changed))
        await world.idle()
        assert shares(world) == [first, first]
        await world.work.deliver(outcome.result)
        await world.idle()
        assert world.store.shares_sent(outcome.context) is None
        await world.work.deliver(asked[0])
        await world.idle()
        assert shares(world) == [first, first]


async def test_a_record_that_is_there_already_keeps_the_shares_here(tmp_path):
    async with hospital(tmp_path) as world:

        def released_meanwhile(message):
            """Another process of this hospital did it first."""
            if isinstance(message, UnmaskRequest):
                world.patient = False  # it is asked for shares, and they are there or never
                release = Release(
                    context=message.context,
                    model_digest=world.model.digest(),
                    transcript=b"t" * 32,
                    survivors=("alder",),
                    measured=False,
                    plan=world.plan().to_bytes(),
                )
                assert world.store.record_release(world.digest, release, b"shares")
            return message

        await world.attempt(to_victim=released_meanwhile, result=False)
        await world.idle()
        assert shares(world) == []
        assert world.work._attempt is None


async def test_an_attempt_released_before_a_restart_is_not_joined_again(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        await world.idle()
        assert len(shares(world)) == 1
        await world.stop()
        await world.start()
        await world.prepare()
        answer = await world.ask(outcome.plan)
        assert answer.rule == "plan: attempt"
        assert len(shares(world)) == 1


async def test_after_a_restart_before_the_release_there_is_nothing_to_release(tmp_path):
    async with hospital(tmp_path) as world:
        requests = []

        def keep(message):
            if isinstance(message, UnmaskRequest):
                requests.append(message)
            return all_but(UnmaskRequest)(message)

        await world.attempt(to_victim=keep, result=False)
        await world.stop()
        await world.start()
        await world.prepare()
        await world.tell(requests[0])
        await world.idle()
        assert shares(world) == []
        assert world.store.releases(world.digest) == ()
